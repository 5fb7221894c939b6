"""Changes of a log, replayed: every version kept in `<table>__changes`, the last one of each key for the raw table itself."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.raw_shape import clashing, columns, file_columns, is_same_key, key_of, name_of
from pipelines.source import DELETED_AT, LOADED_AT, SETTLED_AT
from warehouse.sql import literal, parquet, quoted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from duckdb import DuckDBPyConnection

OP, LSN, POSITION, COMMITTED_AT, UNCHANGED = "_op", "_lsn", "_position", "_committed_at", "_unchanged"
"""What a file of changes has beside the columns: insert, update, delete or truncate; the place of the commit in the log and
of the change in its transaction; when it was committed; the source's columns whose value was not sent, being the same."""
CHANGE_COLUMNS = (OP, LSN, POSITION, COMMITTED_AT, UNCHANGED)
VERSION_KEY = [LSN, POSITION]
_REPLICATION = "source VARCHAR, raw_table VARCHAR, slot VARCHAR, lsn BIGINT"


def versions_of(table: str) -> str:
    """The raw table that keeps every version of a table's rows."""
    return f"{table}__changes"


@dataclass(frozen=True)
class Changes:
    """Changes of one table, as they were written by a source.

    Attributes:
        files: Parquet with the columns of the raw table (its own ones but `_loaded_at` apart) and those above; at least one.
        sources: column in the warehouse -> the source's column it is made of, as `_unchanged` names it.
        loaded_at, settled_at: what the rows of this load are stamped with.
    """

    files: "Sequence[Path]"
    sources: "Mapping[str, str]"
    loaded_at: datetime
    settled_at: datetime


def replay(connection: "DuckDBPyConnection", source: str, table: str, key: "Sequence[str]", changes: Changes, versions: Path, file: Path) -> tuple[int, int]:
    """Write every version to one file, with what was not sent filled in, and the last version of each key to another.

    A value that was not sent, and all but the key of a deleted row, is what the version before had: an earlier change, or
    the row held. A row that came and went between two loads is a version, but no row.

    Returns:
        the rows to be changed and those to be marked as deleted.
    """
    parameters = {"files": [str(one) for one in changes.files]}
    names = [name for name in file_columns(connection, changes.files[0]) if name not in (OP, LSN, POSITION, COMMITTED_AT, UNCHANGED, LOADED_AT)]
    keys = ", ".join(quoted(name) for name in key)
    held = columns(connection, source, table)
    arriving = {name: kind for name, kind in file_columns(connection, changes.files[0]).items() if name in names}
    is_comparable = held and is_same_key(key_of(connection, source, table), key) and not clashing(held, arriving)
    both = "SELECT * FROM read_parquet($files, union_by_name = true)"
    if is_comparable:
        present = {name.lower() for name in held}
        base = ", ".join(f"r.{quoted(name)}" for name in names if name.lower() in present)
        same = " AND ".join(f"r.{quoted(name)} = c.{quoted(name)}" for name in key)
        held_as = f"CASE WHEN r.{DELETED_AT} IS NULL THEN 'held' ELSE 'gone' END AS {OP}"
        both += f" UNION ALL BY NAME SELECT {base}, {held_as}, -1::BIGINT AS {LSN}, 0::BIGINT AS {POSITION}"
        both += f" FROM {name_of(source, table)} r SEMI JOIN read_parquet($files) c ON {same}"
    filled = ", ".join(quoted(name) if name in key else _filled(name, changes.sources.get(name, name), keys) for name in names)
    own = f"{OP}, {LSN}, {POSITION}, {COMMITTED_AT}"
    window = f"(PARTITION BY {keys} ORDER BY {LSN}, {POSITION} ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)"
    everything = f"SELECT {filled}, {own}, bool_or({OP} = 'held') OVER {window} AS _was_held FROM ({both})"
    complete = file.with_suffix(".complete")
    connection.execute(f"COPY (SELECT * FROM ({everything}) WHERE {OP} NOT IN ('held', 'gone')) TO {parquet(complete)}", parameters)
    loaded_at = f"TIMESTAMPTZ '{changes.loaded_at.isoformat()}'"
    settled_at = f"TIMESTAMPTZ '{min(changes.settled_at, changes.loaded_at).isoformat()}'"
    connection.execute(
        f"COPY (SELECT * EXCLUDE (_was_held), {loaded_at} AS {LOADED_AT} FROM read_parquet($file)) TO {parquet(versions)}",
        {"file": str(complete)},
    )
    wanted = ", ".join(quoted(name) for name in names)
    last = (
        f"SELECT * FROM read_parquet($file) WHERE {OP} <> 'truncate' QUALIFY row_number() OVER (PARTITION BY {keys} ORDER BY {LSN} DESC, {POSITION} DESC) = 1"
    )
    deleted_at = f"CASE WHEN {OP} = 'delete' THEN {COMMITTED_AT} END"
    connection.execute(
        f"COPY (SELECT {wanted}, {loaded_at} AS {LOADED_AT}, {settled_at} AS {SETTLED_AT}, {deleted_at} AS {DELETED_AT} FROM ({last}) "
        f"WHERE {OP} <> 'delete' OR _was_held) TO {parquet(file)}",
        {"file": str(complete)},
    )
    complete.unlink()
    row = connection.execute(f"SELECT count(*) - count({DELETED_AT}), count({DELETED_AT}) FROM read_parquet($file)", {"file": str(file)}).fetchone()
    return (int(row[0]), int(row[1])) if row else (0, 0)


def followed(connection: "DuckDBPyConnection", source: str) -> dict[str, tuple[str, int]]:
    """How far the log was followed: raw table -> the slot, and the place up to which its changes are held."""
    query = "SELECT 1 FROM duckdb_tables() WHERE database_name = current_database() AND schema_name = 'ops' AND table_name = 'replication'"
    if connection.execute(query).fetchone() is None:
        return {}
    rows = connection.execute("SELECT raw_table, slot, lsn FROM ops.replication WHERE source = ?", [source]).fetchall()
    return {table: (slot, lsn) for table, slot, lsn in rows}


def follow(connection: "DuckDBPyConnection", source: str, places: "Mapping[str, tuple[str, int]]") -> None:
    """Note how far the log was followed, after the changes are held and before the source may forget them."""
    if followed(connection, source) == dict(places):
        return
    connection.execute("CREATE SCHEMA IF NOT EXISTS ops")
    connection.begin()
    try:
        connection.execute(f"CREATE TABLE IF NOT EXISTS ops.replication ({_REPLICATION})")
        connection.execute("DELETE FROM ops.replication WHERE source = ?", [source])
        for table, (slot, lsn) in places.items():
            connection.execute("INSERT INTO ops.replication VALUES (?, ?, ?, ?)", [source, table, slot, lsn])
        connection.commit()
    except BaseException:
        connection.rollback()
        raise


def _filled(name: str, source_column: str, keys: str) -> str:
    """The value, or where it was not sent the one of the version before; a struct tells a null that was sent from nothing."""
    here, column = quoted(name), literal(source_column)
    is_unsent = f"({OP} = 'delete' OR coalesce(list_contains({UNCHANGED}, {column}), false))"
    before = (
        f"last_value(CASE WHEN NOT {is_unsent} THEN {{'value': {here}}} END IGNORE NULLS) "
        f"OVER (PARTITION BY {keys} ORDER BY {LSN}, {POSITION} ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)"
    )
    return f"CASE WHEN {is_unsent} THEN coalesce({before}, {{'value': {here}}}).value ELSE {here} END AS {here}"
