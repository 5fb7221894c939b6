"""PostgreSQL: tables read in one consistent snapshot, first whole, then what changed since, as Arrow end to end.

The warehouse itself says how far each table got (`Held`), so there is no state that could run ahead of the data.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import parse_qsl, unquote, urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator

from pipelines.declaration import FOLDER, Duration, SourceDeclaration
from warehouse import clock, storage
from warehouse.declared import read
from warehouse.errors import StepFailed, UsageError, scrub
from warehouse.settings import settings

if TYPE_CHECKING:
    import pyarrow as pa
    from dlt.extract import DltSource
    from duckdb import DuckDBPyConnection

SOURCE = "postgres"
LOADED_AT = "_loaded_at"
"""When the snapshot was taken in which this version of a row was read; rises strictly from load to load of a table."""

_BATCH_ROWS = 100_000
_ATTACHED = "source"
_IDENTIFIER = r"^[^\s.\"]+\.[^\s.\"]+$"
# Types that arrive exactly as they are; numeric(precision, scale) is checked apart.
_EXACT = {
    "boolean", "smallint", "integer", "bigint", "real", "double precision", "text", "character varying", "uuid", "date",
    "timestamp without time zone", "timestamp with time zone", "bytea",
}  # fmt: skip
# Types whose text form in PostgreSQL is exact, where a native one would lose something on the way.
_AS_TEXT = {"json", "jsonb", "USER-DEFINED"}


class Table(BaseModel):
    """One table: its key, the column that says when a row changed, and columns left out."""

    model_config = ConfigDict(extra="forbid")
    primary_key: list[str] = Field(min_length=1)
    cursor: str
    name: str | None = None
    exclude: list[str] = []

    @field_validator("primary_key", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value


class PostgresDeclaration(SourceDeclaration):
    """`pipelines/postgres.yaml`."""

    lag: Duration = timedelta(minutes=10)
    statement_timeout: Duration = timedelta(minutes=30)
    tables: dict[str, Table] = Field(min_length=1)

    @field_validator("tables")
    @classmethod
    def _distinct(cls, tables: dict[str, Table]) -> dict[str, Table]:
        import re

        taken: dict[str, str] = {}
        for name, table in tables.items():
            if not re.match(_IDENTIFIER, name):
                raise ValueError(f"{name!r} is not a table; write schema.table")
            own = table.name or name.split(".")[1]
            if own in taken:
                raise ValueError(f"{taken[own]} and {name} would both become raw_postgres.{own}; give one of them another `name:`")
            taken[own] = name
        return tables


@dataclass(frozen=True)
class Held:
    """What the warehouse holds of a table: the highest cursor and the time of the last load; None when empty or new."""

    cursor: datetime | date | int | None = None
    loaded_at: datetime | None = None


@dataclass
class Extract:
    """What was read from one table in this run."""

    name: str
    rows_read: int = 0
    rows_changed: int = 0
    window: Literal["whole table", "changed rows"] = "whole table"
    loaded_at: datetime | None = None
    file: Path | None = None


@dataclass
class Reading:
    """How the loader and the source talk: what is held before, what was read after."""

    work: Path
    held: Callable[[str, str], Held]
    without_known: Callable[[str, list[str], Path], int]
    advance: Callable[[str, int], None]
    open: ExitStack
    extracts: dict[str, Extract] = field(default_factory=dict)


def declaration() -> PostgresDeclaration:
    """The validated `pipelines/postgres.yaml`."""
    return read(FOLDER / f"{SOURCE}.yaml", PostgresDeclaration)


def postgres(reading: Reading) -> "DltSource":
    """The dlt source: one resource a table, merged by primary key, each yielding a Parquet file of pseudonymised rows.

    Args:
        reading: where to write files, what the warehouse holds, and where to say what was read.

    Raises:
        StepFailed: the server cannot be reached, a table or column is missing, or a value has no exact counterpart.
        UsageError: a setting is missing, or a column looks personal and is not declared.
    """
    import dlt

    declared = declaration()
    settings().hmac_key()  # asked for before anything is read

    @dlt.source(name=SOURCE, max_table_nesting=0)
    def source() -> Iterator[Any]:
        snapshot = _Snapshot(declared, reading.open)
        for full_name, table in declared.tables.items():
            own = table.name or full_name.split(".")[1]
            yield dlt.resource(
                _rows(snapshot, full_name, table, own, declared, reading),
                name=own,
                primary_key=table.primary_key,
                write_disposition="merge",
            )

    return source()


def check_connection() -> str:
    """Connect and say which server answers, for `warehouse doctor`.

    Raises:
        StepFailed, UsageError: as in `postgres`.
    """
    with _attached(declaration()) as connection:
        row = connection.execute(f"SELECT * FROM postgres_query('{_ATTACHED}', 'SELECT current_setting(''server_version''), current_user')").fetchone()
        for full_name, table in declaration().tables.items():
            _columns(connection, full_name, table)
        return f"PostgreSQL {row[0]} as {row[1]}, {len(declaration().tables)} declared tables readable" if row else "no answer"


class _Snapshot:
    """One connection and one repeatable-read transaction for all tables of a run, opened when the first is read."""

    def __init__(self, declared: PostgresDeclaration, stack: ExitStack) -> None:
        self._declared = declared
        self._stack = stack
        self._connection: DuckDBPyConnection | None = None
        self.taken_at = clock.now()

    def connection(self) -> "DuckDBPyConnection":
        if self._connection is None:
            self._connection = self._stack.enter_context(_attached(self._declared))
            self._connection.begin()
            row = self._connection.execute(f"SELECT * FROM postgres_query('{_ATTACHED}', 'SELECT now()')").fetchone()
            # The earlier of the two clocks: what was stamped before it is in the snapshot, or still uncommitted (lag).
            self.taken_at = min(row[0].astimezone(UTC), clock.now()) if row else clock.now()
        return self._connection


def _rows(snapshot: _Snapshot, full_name: str, table: Table, own: str, declared: PostgresDeclaration, reading: Reading) -> Iterator[Any]:
    """The body of a resource: read, pseudonymise, write one Parquet file, hand it to dlt; nothing when nothing changed."""
    import pyarrow.parquet as pq
    from dlt.extract import with_file_import

    connection = snapshot.connection()
    held = reading.held(own, table.cursor)
    extract = Extract(own, window="changed rows" if held.loaded_at else "whole table")
    extract.loaded_at = max(snapshot.taken_at, held.loaded_at + timedelta(microseconds=1)) if held.loaded_at else snapshot.taken_at
    reading.extracts[own] = extract
    query, overlaps = _query(connection, full_name, table, held, declared.lag)
    file = reading.work / f"{own}.parquet"
    extract.rows_read = _write(connection, query, own, extract.loaded_at, file, reading)
    extract.rows_changed = extract.rows_read
    if extract.rows_read and overlaps:
        extract.rows_changed = reading.without_known(own, table.primary_key, file)
    if extract.rows_changed:
        extract.file = file
        yield with_file_import(str(file), "parquet", extract.rows_changed, pq.read_schema(file).empty_table())


def _query(connection: "DuckDBPyConnection", full_name: str, table: Table, held: Held, lag: timedelta) -> tuple[str, bool]:
    """The SQL to run in PostgreSQL, and whether its window reaches back over rows already held."""
    columns = _columns(connection, full_name, table)
    schema, name = full_name.split(".")
    query = f"SELECT {', '.join(expression for _, expression, _ in columns)} FROM {_quoted(schema)}.{_quoted(name)}"
    if held.loaded_at is None or held.cursor is None:
        return query, held.loaded_at is not None
    nullable = next(nullable for column, _, nullable in columns if column == table.cursor)
    cursor = _quoted(table.cursor)
    if isinstance(held.cursor, datetime) and held.cursor.tzinfo is not None:
        settled = held.loaded_at - lag
        # Everything stamped before `settled` was committed when it was last read: a row equal to the highest cursor is
        # known. Otherwise go back to where late commits and ties may still have appeared, and drop what is known.
        overlaps = held.cursor >= settled
        bound = f"{cursor} >= {_timestamp(settled)}" if overlaps else f"{cursor} > {_timestamp(held.cursor)}"
    elif isinstance(held.cursor, int):
        overlaps, bound = True, f"{cursor} >= {held.cursor}"
    else:  # a timestamp without a zone or a date: nothing says how it relates to the clock, so always go back by the lag
        overlaps, bound = True, f"{cursor} >= TIMESTAMP {_literal(held.cursor.isoformat())} - INTERVAL '{int(lag.total_seconds())} seconds'"
    return f"{query} WHERE {bound}" + (f" OR {cursor} IS NULL" if nullable else ""), overlaps or nullable


def _write(connection: "DuckDBPyConnection", query: str, own: str, loaded_at: datetime, file: Path, reading: Reading) -> int:
    """Stream the query's rows, pseudonymised, into a Parquet file; returns their number. No file when there are none."""
    import duckdb
    import pyarrow as pa
    import pyarrow.parquet as pq

    from privacy.policy import refuse_undeclared
    from privacy.pseudonyms import pseudonymise

    rows, writer = 0, None
    try:
        reader = connection.execute("SELECT * FROM postgres_query(?, ?)", [_ATTACHED, query]).to_arrow_reader(_BATCH_ROWS)
        for batch in reader:
            if batch.num_rows == 0 and writer is not None:
                continue
            read_rows = pa.Table.from_batches([batch])
            refuse_undeclared(SOURCE, own, read_rows)
            safe = pseudonymise(SOURCE, own, read_rows)
            safe = safe.append_column(LOADED_AT, pa.array([loaded_at] * safe.num_rows, pa.timestamp("us", "UTC")))
            if writer is None:
                writer = pq.ParquetWriter(file, safe.schema, compression="zstd")
            writer.write_table(safe)
            rows += safe.num_rows
            reading.advance(own, safe.num_rows)
    except (duckdb.Error, pa.ArrowException) as error:
        raise _explained(error, f"reading {own}") from None
    finally:
        if writer is not None:
            writer.close()
    return rows


def _columns(connection: "DuckDBPyConnection", full_name: str, table: Table) -> list[tuple[str, str, bool]]:
    """The columns to read: name, SQL expression in PostgreSQL, whether it may be null.

    Raises:
        StepFailed: the table or a declared column is missing, or a type has no exact counterpart.
    """
    schema, name = full_name.split(".")
    query = (
        "SELECT column_name, data_type, numeric_precision, numeric_scale, is_nullable = 'YES' FROM information_schema.columns "
        f"WHERE table_schema = {_literal(schema)} AND table_name = {_literal(name)} ORDER BY ordinal_position"
    )
    found = connection.execute("SELECT * FROM postgres_query(?, ?)", [_ATTACHED, query]).fetchall()
    if not found:
        raise StepFailed(
            f"{SOURCE}: the table {full_name} is missing, or the user of SOURCES__POSTGRES__CREDENTIALS may not read it.",
            mend=f"correct `tables` in pipelines/{SOURCE}.yaml, or: GRANT USAGE ON SCHEMA {schema} and GRANT SELECT ON {full_name}",
        )
    names = [row[0] for row in found]
    for wanted in [*table.primary_key, table.cursor, *table.exclude]:
        if wanted not in names:
            raise StepFailed(
                f"{SOURCE}: {full_name} has no column {wanted}; it has {', '.join(names)}.",
                mend=f"correct {full_name} in pipelines/{SOURCE}.yaml",
            )
    chosen = []
    for column, data_type, precision, scale, nullable in found:
        if column in table.exclude:
            continue
        chosen.append((column, _expression(full_name, table.primary_key, column, data_type, precision, scale), bool(nullable)))
    return chosen


def _expression(full_name: str, primary_key: list[str], column: str, data_type: str, precision: int | None, scale: int | None) -> str:
    quoted = _quoted(column)
    if data_type in _EXACT or (data_type == "numeric" and precision is not None and precision <= 38):
        if data_type != "numeric":
            return quoted
        # NaN would arrive as 0.00 through the scanner, so PostgreSQL is made to stumble over it. The message must hang on
        # a column: PostgreSQL evaluates constants while planning, also inside a CASE.
        message = " || ' ' || ".join([_literal(f"NaN in {full_name}.{column}, row"), *(f"{_quoted(key)}::text" for key in primary_key)])
        return f"(CASE WHEN {quoted} = 'NaN' THEN ({message})::int ELSE {quoted} END)::numeric({precision},{scale}) AS {quoted}"
    if data_type in _AS_TEXT:
        return f"{quoted}::text AS {quoted}"
    raise StepFailed(
        f"{SOURCE}: {full_name}.{column} is of type {data_type}{' without precision' if data_type == 'numeric' else ''}, "
        "which has no exact counterpart in the warehouse.",
        mend=f"leave it out with `exclude: [{column}]` in pipelines/{SOURCE}.yaml, or give it a precision in PostgreSQL",
    )


@contextmanager
def _attached(declared: PostgresDeclaration) -> Iterator["DuckDBPyConnection"]:
    """A DuckDB connection in memory with the source attached read-only. The password goes by environment, never by SQL."""
    import duckdb

    parts, password = _parameters(settings().postgres_credentials())
    timeout = int(declared.statement_timeout.total_seconds() * 1000)
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
            connection.execute(f"ATTACH {_literal(text)} AS {_ATTACHED} (TYPE postgres, READ_ONLY)")
        except duckdb.Error as error:
            raise _explained(error, "connecting") from None
        yield connection
    finally:
        connection.close()
        if before is None:
            os.environ.pop("PGPASSWORD", None)
        else:
            os.environ["PGPASSWORD"] = before


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
        raise UsageError("SOURCES__POSTGRES__CREDENTIALS has a port that is not a number.", mend="write postgresql://user:password@host:5432/database") from None
    parameters = {key: unquote(value) for key, value in given.items() if value}
    parameters.update(dict(parse_qsl(split.query)))
    password = parameters.pop("password", None) or (unquote(split.password) if split.password else None)
    return parameters, password


def _explained(error: Exception, doing: str) -> StepFailed:
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


def _quoted(identifier: str) -> str:
    return '"' + identifier.replace('"', '""') + '"'


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("'", "\\'")


def _timestamp(instant: datetime) -> str:
    return f"TIMESTAMPTZ '{instant.astimezone(UTC).isoformat()}'"
