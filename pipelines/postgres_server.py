"""The PostgreSQL server of the source: connect read-only, read its columns, explain its errors."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from warehouse import connection_string, storage
from warehouse.errors import StepFailed, UsageError, mend_of, scrub
from warehouse.settings import settings
from warehouse.sql import literal

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

SOURCE = "postgres"
FORMATS = "-c timezone=UTC -c datestyle=ISO -c intervalstyle=iso_8601 -c extra_float_digits=1 -c bytea_output=hex"
"""Session settings for text forms that lose nothing, whatever the server's own settings are."""

ATTACHED = "source"
"""The name under which the server is attached."""

_CREDENTIALS = "SOURCES__POSTGRES__CREDENTIALS"
_GUIDE = "see docs/how-to/connect-to-production.md"
# The first that fits: words of libpq or the server (in lower case), what is said of it, and how to mend it.
_KNOWN = (
    (
        ("password authentication failed", "no password supplied"),
        f"the server refused the user or password of {_CREDENTIALS}.",
        "correct the password in the environment or in .env; a token (IAM) lives for minutes: fetch it just before the run",
    ),
    (
        ("server does not support ssl",),
        f"the server offers no TLS, and sslmode in {_CREDENTIALS} requires it.",
        f"turn TLS on at the server (`ssl = on`), or reach it through an SSH tunnel without sslmode; {_GUIDE}",
    ),
    (
        ("root certificate file",),
        f"the file with the authority's certificate, sslrootcert in {_CREDENTIALS}, cannot be read.",
        f"write the certificate of the server's authority to that file, or sslrootcert=system for a public authority; {_GUIDE}",
    ),
    (
        ("certificate verify failed", "does not match host name"),
        f"the server's certificate is not the one that {_CREDENTIALS} expects: {{said}}",
        "name the authority's current certificate in sslrootcert, and connect by the name that the certificate has; never lower sslmode to get through",
    ),
    (
        ("channel binding",),
        f"the server cannot prove the password's other end, which channel_binding in {_CREDENTIALS} requires.",
        f"it needs TLS up to the server itself (no proxy in between) and scram-sha-256 passwords; {_GUIDE}",
    ),
    (
        ("private key file", "certificate file", "could not load private key"),
        f"the client's certificate or key, sslcert and sslkey in {_CREDENTIALS}, cannot be used: {{said}}",
        f"both files must exist, and the key be readable by the warehouse's user alone: chmod 600; {_GUIDE}",
    ),
    (
        ("no pg_hba.conf entry", "requires a valid client certificate", "alert certificate required", "alert handshake failure", "alert unknown ca"),
        f"the server does not let this user in from here the way {_CREDENTIALS} asks (address, database, TLS or client certificate).",
        f"add sslmode=verify-full if the server wants TLS, sslcert and sslkey if it wants a certificate, or let this machine's address in; {_GUIDE}",
    ),
    (
        ("invalid connection option", "invalid sslmode", "invalid target_session_attrs", "invalid port", "invalid integer value"),
        f"{_CREDENTIALS} has an option that PostgreSQL's client does not know: {{said}}",
        f"correct the part after the question mark; {_GUIDE}",
    ),
    (
        ("conflict with recovery",),
        "{doing}: the replica ended the query, because it had to replay what the query still needed.",
        "run again; if it stays, set hot_standby_feedback = on or raise max_standby_streaming_delay on the replica",
    ),
    (
        ("due to statement timeout",),
        "{doing}: it took longer than `statement_timeout`, and production was left in peace.",
        f"raise `statement_timeout` in pipelines/{SOURCE}.yaml (with `max_rows_per_second` a whole table takes rows / rate), or read a replica",
    ),
    (
        ("too many connections", "remaining connection slots", "too many clients"),
        "the server has no connection left for the warehouse.",
        f"lower `max_connections` in pipelines/{SOURCE}.yaml, or give the user a share of its own: ALTER ROLE … CONNECTION LIMIT",
    ),
    (
        ("is not in hot standby mode", "session is not read-only", "session is read-only", "server is in hot standby mode"),
        f"no server of {_CREDENTIALS} is of the kind that its target_session_attrs asks for.",
        "is the replica up? target_session_attrs=prefer-standby takes the primary when there is none",
    ),
    (
        ("fatal:  database",),
        f"the database of {_CREDENTIALS} does not exist, or this user may not connect to it.",
        "correct what stands behind the last slash, or GRANT CONNECT ON DATABASE",
    ),
    (
        ("connection refused", "could not connect", "timeout expired", "could not translate", "unable to connect", "no route to host"),
        f"the server of {_CREDENTIALS} does not answer ({{doing}}).",
        "is it running and reachable from here? `warehouse doctor` tries again; the next run goes on where this one stopped",
    ),
    (
        ("terminating connection", "server closed the connection", "ssl connection has been closed"),
        "{doing}: the server hung up: {said}",
        "run again; the next run goes on where this one stopped",
    ),
    (("permission denied",), "{doing}: {said}", f"grant SELECT to the user of {_CREDENTIALS}"),
)


@contextmanager
def attached(statement_timeout: timedelta, max_connections: int = 2) -> Iterator["DuckDBPyConnection"]:
    """A DuckDB connection in memory with the source attached read-only. The password goes by environment, never by SQL.

    Args:
        statement_timeout: after which the server ends a statement.
        max_connections: how many are open at most; a standby, or several hosts to choose from, get one.

    Raises:
        StepFailed: the server cannot be reached or refuses. UsageError: the connection string cannot work.
    """
    import duckdb

    from privacy import functions

    parts, password = parameters(settings().postgres_credentials())
    timeout = int(statement_timeout.total_seconds() * 1000)
    parts.setdefault("connect_timeout", "10")
    parts["options"] = f"{parts.get('options', '')} -c statement_timeout={timeout} -c default_transaction_read_only=on {FORMATS}".strip()
    parts["application_name"] = "warehouse"
    connection = storage.scratch()
    before = os.environ.get("PGPASSWORD")
    if password is not None:
        os.environ["PGPASSWORD"] = password
    try:
        storage.load_extension(connection, "postgres_scanner")
        functions.bind(connection, SOURCE)
        text = " ".join(f"{key}='{_escaped(value)}'" for key, value in parts.items())
        try:
            connection.execute("SET pg_pool_acquire_mode = 'wait'")  # rather than to go over the limit
            connection.execute(f"SET pg_pool_max_connections = {max_connections}")
            connection.execute(f"ATTACH {literal(text)} AS {ATTACHED} (TYPE postgres, READ_ONLY)")
            # The scanner shares its snapshot among connections of a primary only: on a standby each would read another
            # state of one table. And of several hosts a second connection may reach another server.
            if "," in parts.get("host", parts.get("hostaddr", "")) or query(connection, "SELECT pg_is_in_recovery()") == [(True,)]:
                connection.execute(f"FROM postgres_configure_pool(catalog_name = '{ATTACHED}', max_connections = 1)").fetchall()
        except duckdb.Error as error:
            raise explained(error, "connecting") from None
        yield connection
    finally:
        # A transaction left open would be rolled back by a destructor, which aborts the process when the server is gone.
        with suppress(duckdb.Error):
            connection.rollback()
        connection.close()
        if before is None:
            os.environ.pop("PGPASSWORD", None)
        else:
            os.environ["PGPASSWORD"] = before


def query(connection: "DuckDBPyConnection", sql: str) -> list[tuple[Any, ...]]:
    """Run SQL in PostgreSQL, in the snapshot of the connection's transaction, and fetch all its rows."""
    return connection.execute("SELECT * FROM postgres_query(?, ?)", [ATTACHED, sql]).fetchall()


def parameters(text: str) -> tuple[dict[str, str], str | None]:
    """A connection string as libpq's parameters, the password apart; of several hosts a standby is preferred, unless it says otherwise."""
    try:
        parameters = connection_string.parameters(text)
    except ValueError as error:
        raise UsageError(
            f"{_CREDENTIALS} {error}.",
            mend="write postgresql://user:password@host:5432/database (percent-encode special characters of the password)",
        ) from None
    if "sslpassword" in parameters:
        raise UsageError(
            f"{_CREDENTIALS} has an sslpassword, which could only be passed on in SQL text.",
            mend="let sslkey name a key file without a password that only the warehouse's user may read (mode 0600)",
        )
    if "," in parameters.get("host", parameters.get("hostaddr", "")):
        parameters.setdefault("target_session_attrs", "prefer-standby")
    password = parameters.pop("password", None)
    return parameters, password


def explained(error: Exception, doing: str) -> StepFailed:
    """A driver's message, scrubbed, with the setting to look at."""
    text = scrub(str(error))
    said = next((line.strip() for line in text.splitlines() if line.strip()), text)
    low = text.lower()
    for words, what, mend in _KNOWN:
        if any(word in low for word in words):
            return StepFailed(f"{SOURCE}: {what.format(doing=doing, said=said)}", mend=mend)
    return StepFailed(f"{SOURCE}: {doing}: {said}", mend=mend_of(said, "nothing was loaded; correct the value or the declaration and run again"))


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("'", "\\'")
