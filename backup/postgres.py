"""Production PostgreSQL as a logical dump: streamed from pg_dump into the store, sealed on the way, never plain on this disk.

The dump and the fingerprints of its tables show one snapshot of the database. It needs a role that may read everything
(`pg_read_all_data`), and `pg_dump` of the server's version or a newer one in PATH. Its recovery point is its schedule.
"""

import io
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any

from backup import manifest, pack
from backup.manifest import Manifest, Table
from backup.take import Taken, prepared, spread
from privacy import erasures
from warehouse import clock
from warehouse.connection_string import parameters
from warehouse.console import progress, tell
from warehouse.errors import StepFailed, UsageError, scrub
from warehouse.settings import settings
from warehouse.sql import quoted

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

DUMP, GLOBALS = "dump", "globals.sql"
_SESSION = (
    "SET TIME ZONE 'UTC'", "SET DateStyle TO ISO", "SET IntervalStyle TO postgres", "SET extra_float_digits TO 1", "SET bytea_output TO hex",
    "SET row_security TO off", "SET statement_timeout TO 0", "SET idle_in_transaction_session_timeout TO 0", "SET search_path TO pg_catalog",
)  # fmt: skip
_TABLES = """
    SELECT n.nspname, c.relname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND n.nspname NOT LIKE 'pg\\_%%' AND n.nspname <> 'information_schema'
        AND NOT EXISTS (SELECT FROM pg_depend AS d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
    ORDER BY 1, 2
"""


def source() -> str:
    """The connection string of the database that is backed up.

    Raises:
        UsageError: none is set.
    """
    given = settings().backup.postgres
    return given.get_secret_value() if given and given.get_secret_value() else settings().postgres_credentials()


def program(name: str) -> str:
    """A program of PostgreSQL.

    Raises:
        UsageError: it is not in PATH.
    """
    found = shutil.which(name)
    if found is None:
        raise UsageError(f"{name} is not in PATH.", mend="install PostgreSQL's client programs, of the server's version or newer")
    return found


def take_postgres() -> Taken:
    """Back up the production database to the stores of the policy. Hold `one_at_a_time`.

    Raises:
        UsageError: backups or the database are not configured, or pg_dump is missing. StepFailed: it cannot be read whole, or no
            store has the backup.
    """
    policy, chosen, keys = prepared("postgres")
    dump, everything, given = program("pg_dump"), program("pg_dumpall"), source()
    with connected(given) as connection, progress("dumping") as advance:
        connection.set_session(isolation_level="REPEATABLE READ", readonly=True)
        name, server, size = one_row(connection, "SELECT pg_export_snapshot(), current_setting('server_version'), pg_database_size(current_database())")
        backup = manifest.new_id(taken_at := clock.now())
        command = [dump, "--format=custom", "--compress=0", "--no-password", f"--snapshot={name}", f"--dbname={target_of(given)}"]
        with running(command, given) as stream:
            indexes = [pack.write_stream(chosen[0], manifest.pack_key("postgres", backup, 0, "dump"), DUMP, stream, keys, size, advance)]
        command = [everything, "--globals-only", "--no-role-passwords", "--no-password", f"--dbname={target_of(given)}"]
        with running(command, given) as stream:
            roles = stream.read()
        key = manifest.pack_key("postgres", backup, 1, "sql")
        indexes.append(pack.write_stream(chosen[0], key, GLOBALS, io.BytesIO(roles), keys, len(roles), lambda count: None))
        tables = fingerprints(connection)
    made = Manifest(
        id=backup, what="postgres", taken_at=taken_at, files=tuple(file for index in indexes for file in index.files),
        packs=tuple(index.pack for index in indexes), tables=tables, versions={**manifest.versions(), "postgres": server},
        recipients=policy.recipients, erasures=erasures.mark(),
    )  # fmt: skip
    return spread(made, indexes, chosen, policy, 0.0)


def fingerprints(connection: "Connection") -> dict[str, Table]:
    """The rows and a fingerprint of each table of a database, the same on every version of PostgreSQL.

    Raises:
        StepFailed: a table cannot be read.
    """
    import psycopg2

    found = {}
    with connection.cursor() as cursor:
        cursor.execute(_TABLES)
        for schema, table in cursor.fetchall():
            tell(f"fingerprints: {schema}.{table}")
            digest = "('x' || left(md5(t::text), 16))::bit(64)::bigint::numeric"
            try:
                cursor.execute(f"SELECT count(*), coalesce(sum({digest}), 0)::text FROM ONLY {quoted(schema)}.{quoted(table)} AS t")
            except psycopg2.Error as error:
                raise _failed(f"{schema}.{table} cannot be read", error) from None
            rows, total = cursor.fetchone() or (0, "0")
            found[f"{schema}.{table}"] = Table(rows=rows, fingerprint=total)
    return found


@contextmanager
def connected(given: str) -> "Iterator[Connection]":
    """Connect, with the settings under which values are written the same everywhere.

    Raises:
        StepFailed: the server cannot be reached, or refuses.
    """
    import psycopg2

    try:
        connection = psycopg2.connect(given, application_name="warehouse backup", connect_timeout=10)
    except psycopg2.OperationalError as error:
        raise _failed("the database cannot be reached", error) from None
    try:
        with connection.cursor() as cursor:
            for statement in _SESSION:
                cursor.execute(statement)
        connection.commit()
        yield connection
    finally:
        connection.close()


@contextmanager
def running(command: list[str], given: str) -> "Iterator[_Output]":
    """A program of PostgreSQL whose output is read; that it ended well is known when its end was read.

    Raises:
        StepFailed: it failed; told is what it said last.
    """
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=said, env=environment(given))
        try:
            yield _Output(process, said)
        finally:
            process.kill()
            process.wait()


class _Output:
    """What a program writes. Its last read fails when the program did, so that a dump that was cut off is never taken for whole."""

    def __init__(self, process: "subprocess.Popen[bytes]", said: IO[bytes]) -> None:
        self._process, self._said = process, said

    def read(self, size: int = -1) -> bytes:
        assert self._process.stdout is not None  # noqa: S101 - it was started with a pipe
        data = self._process.stdout.read(size)
        if (not data or size < 0) and self._process.wait() != 0:
            self._said.seek(0)
            raise StepFailed(_last_line(self._said.read()), mend="the role needs pg_read_all_data; pg_dump must be of the server's version or newer")
        return data


def environment(given: str) -> dict[str, str]:
    """The environment of a program of PostgreSQL: the password is there, and never among its arguments."""
    password = parameters(given).get("password", "")
    own = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "BACKUP__", "SOURCES__", "PRIVACY__", "MOTHERDUCK"))}
    return {**own, "PGPASSWORD": password, "PGOPTIONS": "-c statement_timeout=0 -c row_security=off", "LC_ALL": "C"}


def target_of(given: str, **more: str) -> str:
    """A connection string without what is secret, as a program's argument."""
    pairs = {name: value for name, value in parameters(given).items() if "password" not in name}
    return target(pairs | more)


def target(pairs: dict[str, str]) -> str:
    """libpq's parameters as one argument."""
    escaped = {name: value.replace("\\", "\\\\").replace("'", "\\'") for name, value in pairs.items()}
    return " ".join(f"{name}='{value}'" for name, value in escaped.items())


def one_row(connection: "Connection", query: str) -> Any:
    """The first row of what a query answers.

    Raises:
        StepFailed: the database refuses, or is gone.
    """
    import psycopg2

    try:
        with connection.cursor() as cursor:
            cursor.execute(query)
            return cursor.fetchone()
    except psycopg2.Error as error:
        raise _failed("the database does not answer", error) from None


def _failed(what: str, error: Exception) -> StepFailed:
    said = scrub(str(error)).strip().splitlines()
    return StepFailed(f"{what}: {said[0] if said else type(error).__name__}", mend="is it up, and may this role read everything (pg_read_all_data)?")


def _last_line(said: bytes) -> str:
    lines = [line for line in scrub(said.decode(errors="replace")).splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line or "FATAL" in line] or lines
    return errors[0] if errors else "the program failed without a word"
