"""The PostgreSQL server of the source: connect read-only, read its columns, explain its errors."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote, urlsplit

from warehouse import storage
from warehouse.errors import StepFailed, UsageError, mend_of, scrub
from warehouse.settings import settings

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

SOURCE = "postgres"
FORMATS = "-c timezone=UTC -c datestyle=ISO -c intervalstyle=iso_8601 -c extra_float_digits=1 -c bytea_output=hex"
"""Session settings for text forms that lose nothing, whatever the server's own settings are."""

ATTACHED = "source"
"""The name under which the server is attached."""


@contextmanager
def attached(statement_timeout: timedelta) -> Iterator["DuckDBPyConnection"]:
    """A DuckDB connection in memory with the source attached read-only. The password goes by environment, never by SQL."""
    import duckdb

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
        text = " ".join(f"{key}='{_escaped(value)}'" for key, value in parts.items())
        try:
            connection.execute(f"ATTACH {literal(text)} AS {ATTACHED} (TYPE postgres, READ_ONLY)")
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


def parameters(url: str) -> tuple[dict[str, str], str | None]:
    """A connection string as libpq's parameters, the password apart."""
    if "://" not in url:
        raise UsageError(
            "SOURCES__POSTGRES__CREDENTIALS is not a connection string.",
            mend="write postgresql://user:password@host:5432/database (percent-encode special characters of the password)",
        )
    try:
        split = urlsplit(url)
        given = {"host": split.hostname, "port": str(split.port) if split.port else None, "user": split.username, "dbname": split.path.lstrip("/")}
    except ValueError:
        raise UsageError(
            "SOURCES__POSTGRES__CREDENTIALS has a port that is not a number.", mend="write postgresql://user:password@host:5432/database"
        ) from None
    parameters = {key: unquote(value) for key, value in given.items() if value}
    parameters.update(dict(parse_qsl(split.query)))
    password = parameters.pop("password", None) or (unquote(split.password) if split.password else None)
    return parameters, password


def explained(error: Exception, doing: str) -> StepFailed:
    """A driver's message, scrubbed, with the setting to look at."""
    text = scrub(str(error))
    said = next((line.strip() for line in text.splitlines() if line.strip()), text)
    low = text.lower()
    if "password authentication failed" in low or "no password supplied" in low:
        return StepFailed(
            f"{SOURCE}: the server refused the user or password of SOURCES__POSTGRES__CREDENTIALS.", mend="correct the password in the environment or in .env"
        )
    if any(words in low for words in ("connection refused", "could not connect", "unable to connect", "timeout expired", "could not translate")):
        return StepFailed(
            f"{SOURCE}: the server of SOURCES__POSTGRES__CREDENTIALS does not answer ({doing}).",
            mend="is it running and reachable from here? `warehouse doctor` tries again; the next run goes on where this one stopped",
        )
    if any(words in low for words in ("terminating connection", "server closed the connection", "ssl connection has been closed")):
        return StepFailed(f"{SOURCE}: {doing}: the server hung up: {said}", mend="run again; the next run goes on where this one stopped")
    if "permission denied" in low:
        return StepFailed(f"{SOURCE}: {doing}: {said}", mend="grant SELECT to the user of SOURCES__POSTGRES__CREDENTIALS")
    return StepFailed(f"{SOURCE}: {doing}: {said}", mend=mend_of(said, "nothing was loaded; correct the value or the declaration and run again"))


def quoted(identifier: str) -> str:
    """An identifier in SQL text, whatever its characters."""
    return '"' + identifier.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A text constant in SQL text; never for secrets."""
    return "'" + text.replace("'", "''") + "'"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("'", "\\'")
