"""What the raw tables hold, asked of the tables themselves."""

from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.source import LOADED_AT, Held

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


def held(connection: "DuckDBPyConnection", source: str, table: str, cursor: str) -> Held:
    """How far a table got: its highest cursor and its newest load."""
    if not columns(connection, source, table):
        return Held()
    row = connection.execute(f'SELECT max("{cursor}"), max({LOADED_AT}) FROM raw_{source}."{table}"').fetchone()
    return Held(True, *row) if row else Held()


def without_known(connection: "DuckDBPyConnection", source: str, table: str, key: list[str], file: Path) -> int:
    """Drop from a file the rows that the raw table holds in exactly the same form; returns how many are left."""
    read = [row[0] for row in connection.execute("SELECT name FROM parquet_schema($file) WHERE num_children IS NULL", {"file": str(file)}).fetchall()]
    compared = [name for name in read if name != LOADED_AT]
    if set(compared) - set(columns(connection, source, table)):
        left = connection.execute("SELECT count(*) FROM read_parquet($file)", {"file": str(file)}).fetchone()
        return int(left[0]) if left else 0
    same = " AND ".join([f'r."{name}" = f."{name}"' for name in key] + [f'r."{name}" IS NOT DISTINCT FROM f."{name}"' for name in compared if name not in key])
    changed = file.with_suffix(".changed")
    connection.execute(
        f"COPY (SELECT f.* FROM read_parquet($file) f ANTI JOIN raw_{source}.\"{table}\" r ON {same}) TO '{changed}' (FORMAT parquet, COMPRESSION zstd)",
        {"file": str(file)},
    )
    changed.replace(file)
    left = connection.execute("SELECT count(*) FROM read_parquet($file)", {"file": str(file)}).fetchone()
    return int(left[0]) if left else 0


def columns(connection: "DuckDBPyConnection", source: str, table: str) -> list[str]:
    """The columns of a raw table; none when there is no such table."""
    query = "SELECT column_name FROM duckdb_columns() WHERE database_name = current_database() AND schema_name = ? AND table_name = ?"
    return [row[0] for row in connection.execute(query, [f"raw_{source}", table]).fetchall()]


def load_ids(connection: "DuckDBPyConnection", source: str) -> set[str]:
    """The loads of a source that dlt has recorded as complete."""
    if not columns(connection, source, "_dlt_loads"):
        return set()
    return {row[0] for row in connection.execute(f"SELECT load_id FROM raw_{source}._dlt_loads WHERE status = 0").fetchall()}


def make_dlt_look(connection: "DuckDBPyConnection", source: str, tables: set[str]) -> None:
    """Make dlt compare its schema with the tables when one of them is gone.

    dlt trusts its own note of the last schema and would fail on a table that somebody dropped, again with every run.
    """
    if columns(connection, source, "_dlt_version") and not all(columns(connection, source, table) for table in tables):
        connection.execute(f"DELETE FROM raw_{source}._dlt_version")


def create_empty(connection: "DuckDBPyConnection", source: str, table: str, file: Path) -> None:
    """Make the raw table of a source's table that has no rows yet, so that models can read it; dlt makes none."""
    if not columns(connection, source, table):
        connection.execute(f"CREATE SCHEMA IF NOT EXISTS raw_{source}")
        connection.execute(f'CREATE TABLE raw_{source}."{table}" AS SELECT * FROM read_parquet($file)', {"file": str(file)})
