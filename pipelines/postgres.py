"""PostgreSQL: tables read in one consistent snapshot, first whole, then what changed since, as Arrow end to end.

The warehouse itself says how far each table got (`Held`), so there is no state that could run ahead of the data.
"""

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from pipelines.postgres_server import ATTACHED, SOURCE, Column, attached, columns, explained, literal, query, quoted
from pipelines.source import FOLDER, LOADED_AT, Duration, Extract, Held, Reading, SourceDeclaration
from warehouse import clock
from warehouse.declared import read
from warehouse.settings import settings

if TYPE_CHECKING:
    import pyarrow as pa
    from dlt.extract import DltSource
    from duckdb import DuckDBPyConnection

_BATCH_ROWS = 100_000
_IDENTIFIER = r"^[^\s.\"]+\.[^\s.\"]+$"


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
        taken: dict[str, str] = {}
        for name, table in tables.items():
            if not re.match(_IDENTIFIER, name):
                raise ValueError(f"{name!r} is not a table; write schema.table")
            own = table.name or name.split(".")[1]
            if own in taken:
                raise ValueError(f"{taken[own]} and {name} would both become raw_postgres.{own}; give one of them another `name:`")
            taken[own] = name
        return tables


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

    @dlt.source(name=SOURCE, max_table_nesting=0)  # type: ignore[untyped-decorator]  # dlt types no decorator
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
    declared = declaration()
    with attached(declared.statement_timeout) as connection:
        version, user = query(connection, "SELECT current_setting('server_version'), current_user")[0]
        for full_name, table in declared.tables.items():
            _columns(connection, full_name, table)
        return f"PostgreSQL {version} as {user}, {len(declared.tables)} declared tables readable"


class _Snapshot:
    """One connection and one repeatable-read transaction for all tables of a run, opened when the first is read."""

    def __init__(self, declared: PostgresDeclaration, stack: ExitStack) -> None:
        self._declared = declared
        self._stack = stack
        self._connection: DuckDBPyConnection | None = None
        self.taken_at = clock.now()

    def connection(self) -> "DuckDBPyConnection":
        if self._connection is None:
            self._connection = self._stack.enter_context(attached(self._declared.statement_timeout))
            self._connection.begin()
            source_now = query(self._connection, "SELECT now()")[0][0].astimezone(UTC)
            # The earlier of the two clocks: what was stamped before it is in the snapshot, or still uncommitted (lag).
            self.taken_at = min(source_now, clock.now())
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
    sql, overlaps = _window(connection, full_name, table, held, declared.lag)
    file = reading.work / f"{own}.parquet"
    extract.rows_read = _write(connection, sql, own, extract.loaded_at, file, reading)
    extract.rows_changed = extract.rows_read
    if extract.rows_read and overlaps:
        extract.rows_changed = reading.without_known(own, table.primary_key, file)
    extract.file = file
    if extract.rows_changed:
        yield with_file_import(str(file), "parquet", extract.rows_changed, pq.read_schema(file).empty_table())


def _window(connection: "DuckDBPyConnection", full_name: str, table: Table, held: Held, lag: timedelta) -> tuple[str, bool]:
    """The SQL to run in PostgreSQL, and whether its window reaches back over rows already held."""
    chosen = _columns(connection, full_name, table)
    schema, name = full_name.split(".")
    sql = f"SELECT {', '.join(column.expression for column in chosen)} FROM {quoted(schema)}.{quoted(name)}"
    if held.loaded_at is None or held.cursor is None:
        return sql, held.loaded_at is not None
    nullable = next(column.is_nullable for column in chosen if column.name == table.cursor)
    cursor = quoted(table.cursor)
    if isinstance(held.cursor, datetime) and held.cursor.tzinfo is not None:
        settled = held.loaded_at - lag
        # Everything stamped before `settled` was committed when it was last read: a row equal to the highest cursor is
        # known. Otherwise go back to where late commits and ties may still have appeared, and drop what is known.
        overlaps = held.cursor >= settled
        bound = f"{cursor} >= {_timestamp(settled)}" if overlaps else f"{cursor} > {_timestamp(held.cursor)}"
    elif isinstance(held.cursor, int):
        overlaps, bound = True, f"{cursor} >= {held.cursor}"
    else:  # a timestamp without a zone or a date: nothing says how it relates to the clock, so always go back by the lag
        overlaps, bound = True, f"{cursor} >= TIMESTAMP {literal(held.cursor.isoformat())} - INTERVAL '{int(lag.total_seconds())} seconds'"
    return f"{sql} WHERE {bound}" + (f" OR {cursor} IS NULL" if nullable else ""), overlaps or nullable


def _write(connection: "DuckDBPyConnection", sql: str, own: str, loaded_at: datetime, file: Path, reading: Reading) -> int:
    """Stream the query's rows, pseudonymised, into a Parquet file; returns their number."""
    import duckdb
    import pyarrow as pa
    import pyarrow.parquet as pq

    from privacy.policy import refuse_undeclared
    from privacy.pseudonyms import pseudonymise

    def safe(rows: "pa.Table") -> "pa.Table":
        refuse_undeclared(SOURCE, own, rows)
        pseudonymised = pseudonymise(SOURCE, own, rows)
        return pseudonymised.append_column(LOADED_AT, pa.array([loaded_at] * rows.num_rows, pa.timestamp("us", "UTC")))

    rows = 0
    try:
        with _stream(connection, sql) as reader, pq.ParquetWriter(file, safe(reader.schema.empty_table()).schema, compression="zstd") as writer:
            for batch in reader:
                writer.write_table(safe(pa.Table.from_batches([batch])))
                rows += batch.num_rows
                reading.advance(own, batch.num_rows)
    except (duckdb.Error, pa.ArrowException) as error:
        raise explained(error, f"reading {own}") from None
    return rows


@contextmanager
def _stream(connection: "DuckDBPyConnection", sql: str) -> Iterator["pa.RecordBatchReader"]:
    """The rows of SQL run in PostgreSQL, in batches; closed before the connection is.

    A stream left open would be torn down by the garbage collector when its connection is gone, and abort the process.
    """
    reader = connection.execute("SELECT * FROM postgres_query(?, ?)", [ATTACHED, sql]).to_arrow_reader(_BATCH_ROWS)
    try:
        yield reader
    finally:
        with suppress(Exception):  # closing a stream that failed raises again; the first error is the one to show
            reader.close()


def _columns(connection: "DuckDBPyConnection", full_name: str, table: Table) -> list[Column]:
    return columns(connection, full_name, primary_key=table.primary_key, required=[table.cursor], exclude=table.exclude)


def _timestamp(instant: datetime) -> str:
    return f"TIMESTAMPTZ '{instant.astimezone(UTC).isoformat()}'"
