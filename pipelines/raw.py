"""The raw tables: what they hold, asked of themselves; and their shape, made to fit what arrives without losing anything."""

from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.source import DELETED_AT, LOADED_AT, SETTLED_AT, Held
from warehouse.errors import FindingsFound

if TYPE_CHECKING:
    from datetime import datetime

    from duckdb import DuckDBPyConnection

_FEWEST_TO_JUDGE = 20
"""A share says little about a handful of rows: that many may always be deleted."""


def name_of(source: str, table: str) -> str:
    """A raw table's name in SQL."""
    return f'raw_{source}."{table.replace(chr(34), chr(34) * 2)}"'


def columns(connection: "DuckDBPyConnection", source: str, table: str) -> dict[str, str]:
    """The columns of a raw table, name -> type; none when there is no such table."""
    query = (
        "SELECT column_name, data_type FROM duckdb_columns() WHERE database_name = current_database() "
        "AND schema_name = ? AND table_name = ? ORDER BY column_index"
    )
    return dict(connection.execute(query, [f"raw_{source}", table]).fetchall())


def held(connection: "DuckDBPyConnection", source: str, table: str, cursor: str | None) -> Held:
    """How far a table got: its highest cursor and its newest load."""
    found = columns(connection, source, table)
    if not found:
        return Held()
    highest = f'max("{cursor}")' if cursor and cursor in found else "NULL"
    settled = f"max({SETTLED_AT})" if SETTLED_AT in found else "NULL"
    row = connection.execute(f"SELECT {highest}, max({LOADED_AT}), {settled} FROM {name_of(source, table)}").fetchone()
    return Held(found, *row) if row else Held(found)


def file_columns(connection: "DuckDBPyConnection", file: Path) -> dict[str, str]:
    """The columns of a Parquet file, name -> DuckDB type."""
    return {row[0]: row[1] for row in connection.execute("DESCRIBE SELECT * FROM read_parquet($file)", {"file": str(file)}).fetchall()}


def count(connection: "DuckDBPyConnection", file: Path) -> int:
    """The rows of a Parquet file."""
    row = connection.execute("SELECT count(*) FROM read_parquet($file)", {"file": str(file)}).fetchone()
    return int(row[0]) if row else 0


def prepare(connection: "DuckDBPyConnection", source: str, table: str, file: Path) -> None:
    """Create the raw table for a file, or add the columns it does not have yet; nothing is ever dropped."""
    arriving = file_columns(connection, file)
    present = {name.lower(): kind for name, kind in columns(connection, source, table).items()}
    if not present:
        connection.execute(f"CREATE SCHEMA IF NOT EXISTS raw_{source}")
        connection.execute(f"CREATE TABLE IF NOT EXISTS {name_of(source, table)} AS SELECT * FROM read_parquet($file) LIMIT 0", {"file": str(file)})
        return
    for name, kind in arriving.items():
        if name.lower() not in present:
            connection.execute(f'ALTER TABLE {name_of(source, table)} ADD COLUMN "{name}" {kind}')


def without_known(connection: "DuckDBPyConnection", source: str, table: str, key: list[str], file: Path) -> int:
    """Drop from a file the rows that the raw table holds in exactly the same form; returns how many are left.

    Without a key the rows count as known only all together: when both hold the same, each as often.
    """
    compared = [name for name in file_columns(connection, file) if name not in (LOADED_AT, SETTLED_AT)]
    if {name.lower() for name in compared} - {name.lower() for name in columns(connection, source, table)}:
        return count(connection, file)
    names = ", ".join(f'"{name}"' for name in compared)
    if not key:
        sides = (f"SELECT {names} FROM read_parquet($file)", f"SELECT {names} FROM {name_of(source, table)}")
        differing = f"(({sides[0]} EXCEPT ALL {sides[1]}) UNION ALL ({sides[1]} EXCEPT ALL {sides[0]}))"
        row = connection.execute(f"SELECT count(*) FROM {differing}", {"file": str(file)}).fetchone()
        return count(connection, file) if row and row[0] else 0
    same = [f'r."{name}" = f."{name}"' for name in key]
    same += [f'r."{name}" IS NOT DISTINCT FROM f."{name}"' for name in compared if name not in key]
    changed = file.with_suffix(".changed")
    connection.execute(
        f"COPY (SELECT f.* FROM read_parquet($file) f ANTI JOIN {name_of(source, table)} r ON {' AND '.join(same)}) "
        f"TO '{_sql_path(changed)}' (FORMAT parquet, COMPRESSION zstd)",
        {"file": str(file)},
    )
    changed.replace(file)
    return count(connection, file)


def add_deleted(connection: "DuckDBPyConnection", source: str, table: str, key: list[str], keys: Path, file: Path, loaded_at: "datetime", most: float) -> int:
    """Add to a file the rows held whose key the source no longer has, with their last values and `_deleted_at`.

    Args:
        keys: a file with the key of every row of the source, read in one snapshot.
        file: what is going to be merged.
        loaded_at: the time of this load.
        most: the largest share of the rows held that may vanish at once.

    Returns:
        the number of rows added.

    Raises:
        FindingsFound: more than that vanished, as after a truncated table or an unfinished migration; nothing is deleted.
    """
    table_name = name_of(source, table)
    same = " AND ".join(f'r."{name}" = k."{name}"' for name in key)
    gone = f"FROM {table_name} r ANTI JOIN read_parquet($keys) k ON {same} WHERE r.{DELETED_AT} IS NULL"
    row = connection.execute(f"SELECT (SELECT count(*) {gone}), (SELECT count(*) FROM {table_name} WHERE {DELETED_AT} IS NULL)", {"keys": str(keys)}).fetchone()
    vanished, present = (int(row[0]), int(row[1])) if row else (0, 0)
    if vanished == 0:
        return 0
    if vanished > max(most * present, _FEWEST_TO_JUDGE) or vanished == present:
        raise FindingsFound(
            f"{source}: {vanished:,} of {present:,} rows of {table} vanished from the source at once; nothing was marked as deleted.",
            mend="if that is right, raise `max_deleted_share` in pipelines/postgres.yaml for one run; otherwise restore the source",
        )
    both = file.with_suffix(".both")
    instant = loaded_at.isoformat()
    connection.execute(
        f"COPY (SELECT * FROM read_parquet($file) UNION ALL BY NAME SELECT r.* REPLACE (TIMESTAMPTZ '{instant}' AS {LOADED_AT}, "
        f"TIMESTAMPTZ '{instant}' AS {DELETED_AT}) {gone}) TO '{_sql_path(both)}' (FORMAT parquet, COMPRESSION zstd)",
        {"file": str(file), "keys": str(keys)},
    )
    both.replace(file)
    return vanished


def merge(connection: "DuckDBPyConnection", source: str, table: str, key: list[str], file: Path, newest_by: str | None = None) -> None:
    """Replace the rows of a file's keys by the rows of the file (all rows, when there is no key), all or none.

    Columns that the table has and the file has not (dropped from the source, or kept at a change of type) keep what each
    row held. Doing it twice is the same as doing it once. With `newest_by`, a row held whose value there is higher stays.
    """
    table_name = name_of(source, table)
    prepare(connection, source, table, file)
    arriving = {name.lower() for name in file_columns(connection, file)}
    kept = [name for name in columns(connection, source, table) if name.lower() not in arriving]
    parameters = {"file": str(file)}
    connection.begin()
    try:
        is_empty = connection.execute(f"SELECT 1 FROM {table_name} LIMIT 1").fetchone() is None
        rows = "SELECT * FROM read_parquet($file)"
        if not is_empty and not key:
            connection.execute(f"DELETE FROM {table_name}")
        elif not is_empty:
            same = " AND ".join(f't."{name}" = f."{name}"' for name in key)
            arrives = "read_parquet($file)"
            if newest_by:
                arrives = f'(SELECT f.* FROM read_parquet($file) f ANTI JOIN {table_name} t ON {same} AND t."{newest_by}" > f."{newest_by}")'
                rows = f"SELECT * FROM {arrives}"
                connection.execute(f"CREATE OR REPLACE TEMP TABLE _newer AS {rows}", parameters)
                arrives, rows, parameters = "_newer", "SELECT * FROM _newer", {}
            if kept:
                carried = ", ".join(f't."{name}"' for name in kept)
                connection.execute(
                    f"CREATE OR REPLACE TEMP TABLE _arriving AS SELECT f.*, {carried} FROM {arrives} f LEFT JOIN {table_name} t ON {same}", parameters
                )
                rows, parameters = "SELECT * FROM _arriving", {}
            keys = ", ".join(f'"{name}"' for name in key)
            connection.execute(
                f"DELETE FROM {table_name} AS t USING (SELECT {keys} FROM {arrives}) AS f WHERE {same}", {} if newest_by else {"file": str(file)}
            )
        connection.execute(f"INSERT INTO {table_name} BY NAME {rows}", parameters)
        connection.commit()
    except BaseException:
        connection.rollback()
        raise


def load_ids(connection: "DuckDBPyConnection", source: str) -> set[str]:
    """The loads of a source that dlt has recorded as complete."""
    if not columns(connection, source, "_dlt_loads"):
        return set()
    return {row[0] for row in connection.execute(f"SELECT load_id FROM raw_{source}._dlt_loads WHERE status = 0").fetchall()}


def _sql_path(path: Path) -> str:
    return str(path).replace("'", "''")
