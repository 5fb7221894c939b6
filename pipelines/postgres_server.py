"""The PostgreSQL server of the source: connect read-only, read its columns, explain its errors."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote, urlsplit

from warehouse import storage
from warehouse.errors import StepFailed, UsageError, scrub
from warehouse.settings import settings

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

SOURCE = "postgres"
ATTACHED = "source"
"""The name under which the server is attached."""

# Types that arrive exactly as they are; numeric(precision, scale) is checked apart.
_EXACT = {
    "boolean", "smallint", "integer", "bigint", "real", "double precision", "text", "character varying", "uuid", "date",
    "timestamp without time zone", "timestamp with time zone", "bytea",
}  # fmt: skip
# Types whose text form in PostgreSQL is exact, where a native one would lose something on the way.
_AS_TEXT = {"json", "jsonb", "USER-DEFINED"}


@dataclass(frozen=True)
class Column:
    """One column to read: its name, the SQL that reads it exactly, and whether it may be null."""

    name: str
    expression: str
    is_nullable: bool


@contextmanager
def attached(statement_timeout: timedelta) -> Iterator["DuckDBPyConnection"]:
    """A DuckDB connection in memory with the source attached read-only. The password goes by environment, never by SQL."""
    import duckdb

    parts, password = _parameters(settings().postgres_credentials())
    timeout = int(statement_timeout.total_seconds() * 1000)
    parts.setdefault("connect_timeout", "10")
    parts["options"] = f"{parts.get('options', '')} -c statement_timeout={timeout} -c default_transaction_read_only=on".strip()
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
        connection.close()
        if before is None:
            os.environ.pop("PGPASSWORD", None)
        else:
            os.environ["PGPASSWORD"] = before


def query(connection: "DuckDBPyConnection", sql: str) -> list[tuple[Any, ...]]:
    """Run SQL in PostgreSQL, in the snapshot of the connection's transaction, and fetch all its rows."""
    return connection.execute("SELECT * FROM postgres_query(?, ?)", [ATTACHED, sql]).fetchall()


def columns(connection: "DuckDBPyConnection", full_name: str, *, primary_key: Sequence[str], required: Sequence[str], exclude: Sequence[str]) -> list[Column]:
    """The columns of a table to read, in its order.

    Args:
        full_name: schema.table.
        required: columns that the declaration names.
        exclude: columns to leave out.

    Raises:
        StepFailed: the table or a declared column is missing, or a type has no exact counterpart.
    """
    schema, name = full_name.split(".")
    sql = (
        "SELECT column_name, data_type, numeric_precision, numeric_scale, is_nullable = 'YES' FROM information_schema.columns "
        f"WHERE table_schema = {literal(schema)} AND table_name = {literal(name)} ORDER BY ordinal_position"
    )
    found = query(connection, sql)
    if not found:
        raise StepFailed(
            f"{SOURCE}: the table {full_name} is missing, or the user of SOURCES__POSTGRES__CREDENTIALS may not read it.",
            mend=f"correct `tables` in pipelines/{SOURCE}.yaml, or: GRANT USAGE ON SCHEMA {schema} and GRANT SELECT ON {full_name}",
        )
    names = [row[0] for row in found]
    for wanted in [*primary_key, *required, *exclude]:
        if wanted not in names:
            raise StepFailed(
                f"{SOURCE}: {full_name} has no column {wanted}; it has {', '.join(names)}.",
                mend=f"correct {full_name} in pipelines/{SOURCE}.yaml",
            )
    chosen = []
    for column, data_type, precision, scale, nullable in found:
        if column not in exclude:
            chosen.append(Column(column, _expression(full_name, primary_key, column, data_type, precision, scale), bool(nullable)))
    return chosen


def _expression(full_name: str, primary_key: Sequence[str], column: str, data_type: str, precision: int | None, scale: int | None) -> str:
    name = quoted(column)
    if data_type in _EXACT:
        return name
    if data_type == "numeric" and precision is not None and precision <= 38:
        # NaN would arrive as 0.00 through the scanner, so PostgreSQL is made to stumble over it. The message must hang on
        # a column: PostgreSQL evaluates constants while planning, also inside a CASE.
        message = " || ' ' || ".join([literal(f"NaN in {full_name}.{column}, row"), *(f"{quoted(key)}::text" for key in primary_key)])
        return f"(CASE WHEN {name} = 'NaN' THEN ({message})::int ELSE {name} END)::numeric({precision},{scale}) AS {name}"
    if data_type in _AS_TEXT:
        return f"{name}::text AS {name}"
    raise StepFailed(
        f"{SOURCE}: {full_name}.{column} is of type {data_type}{' without precision' if data_type == 'numeric' else ''}, "
        "which has no exact counterpart in the warehouse.",
        mend=f"leave it out with `exclude: [{column}]` in pipelines/{SOURCE}.yaml, or give it a precision in PostgreSQL",
    )


def _parameters(url: str) -> tuple[dict[str, str], str | None]:
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
    if "permission denied" in low:
        return StepFailed(f"{SOURCE}: {doing}: {said}", mend="grant SELECT to the user of SOURCES__POSTGRES__CREDENTIALS")
    return StepFailed(f"{SOURCE}: {doing}: {said}", mend="nothing was loaded; correct the value or the declaration and run again")


def quoted(identifier: str) -> str:
    """An identifier in SQL text, whatever its characters."""
    return '"' + identifier.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A text constant in SQL text; never for secrets."""
    return "'" + text.replace("'", "''") + "'"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("'", "\\'")
