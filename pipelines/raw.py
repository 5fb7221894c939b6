"""The raw tables: what they hold, asked of themselves, and how rows are merged into them."""

from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.raw_shape import clashing, columns, file_columns, fit, is_empty, is_same_key, key_of, lost_without_key, name_of
from pipelines.source import DELETED_AT, LOADED_AT, SETTLED_AT, CursorValue, Held
from warehouse.errors import FindingsFound
from warehouse.sql import parquet

if TYPE_CHECKING:
    from datetime import datetime

    from duckdb import DuckDBPyConnection

_FEWEST_TO_JUDGE = 20
"""A share says little about a handful of rows: that many may always be deleted."""
_IF_RIGHT = "if that is right, raise `max_deleted_share` in pipelines/postgres.yaml for one run; otherwise restore the source"


def held(connection: "DuckDBPyConnection", source: str, table: str, cursor: str | None) -> Held:
    """How far a table got: its highest cursor, its newest load and its rows."""
    found = columns(connection, source, table)
    if not found:
        return Held()
    highest = f'max("{cursor}")' if cursor and cursor in found else "NULL"
    settled = f"max({SETTLED_AT})" if SETTLED_AT in found else "NULL"
    row = connection.execute(f"SELECT {highest}, max({LOADED_AT}), {settled}, count(*) FROM {name_of(source, table)}").fetchone()
    highest_cursor, loaded_at, settled_at, rows = row or (None, None, None, 0)
    return Held(found, highest_cursor, loaded_at, settled_at, rows, key_of(connection, source, table))


def count(connection: "DuckDBPyConnection", file: Path) -> int:
    """The rows of a Parquet file."""
    row = connection.execute("SELECT count(*) FROM read_parquet($file)", {"file": str(file)}).fetchone()
    return int(row[0]) if row else 0


def without_known(
    connection: "DuckDBPyConnection", source: str, table: str, key: list[str], file: Path, cursor: str | None = None, highest: CursorValue | None = None
) -> int:
    """Drop from a file the rows that the raw table holds in exactly the same form; returns how many are left.

    Without a key the rows count as known only all together: when both hold the same, each as often.

    Args:
        cursor: a column whose highest value held is known: rows of the file beyond it cannot be held, and are not looked for.
        highest: that value.
    """
    arriving, present = file_columns(connection, file), columns(connection, source, table)
    compared = [name for name in arriving if name not in (LOADED_AT, SETTLED_AT)]
    differs = {name.lower() for name in compared} - {name.lower() for name in present} or clashing(present, arriving)
    if differs or (not key and lost_without_key(present, arriving)) or not is_same_key(key_of(connection, source, table), key):
        return count(connection, file)
    names = ", ".join(f'"{name}"' for name in compared)
    if not key:
        sides = (f"SELECT {names} FROM read_parquet($file)", f"SELECT {names} FROM {name_of(source, table)}")
        differing = f"(({sides[0]} EXCEPT ALL {sides[1]}) UNION ALL ({sides[1]} EXCEPT ALL {sides[0]}))"
        row = connection.execute(f"SELECT count(*) FROM {differing}", {"file": str(file)}).fetchone()
        return count(connection, file) if row and row[0] else 0
    same = [f'r."{name}" = f."{name}"' for name in key]
    same += [f'r."{name}" IS NOT DISTINCT FROM f."{name}"' for name in compared if name not in key]
    table_name, known = name_of(source, table), f"{name_of(source, table)} r ON {' AND '.join(same)}"
    if cursor in arriving and highest is not None:
        suspects = f'SELECT * FROM read_parquet($file) WHERE "{cursor}" <= $highest OR "{cursor}" IS NULL'
        given = {"file": str(file), "highest": highest}
        row = connection.execute(f'SELECT min("{cursor}"), max("{cursor}"), count(*) - count("{cursor}") FROM ({suspects})', given).fetchone()
        low, high, nulls = row or (None, None, 0)
        # Rows of one time stand together, since loads append: said as a range, DuckDB need not look at the others.
        near = "" if nulls else f' WHERE r."{cursor}" BETWEEN $low AND $high'
        keys = ", ".join(f'f."{name}"' for name in key)
        sql = f"CREATE OR REPLACE TEMP TABLE _known AS SELECT {keys} FROM {table_name} r JOIN ({suspects}) f ON {' AND '.join(same)}{near}"
        connection.execute(sql, given if nulls else {**given, "low": low, "high": high})
        if connection.execute("SELECT 1 FROM _known LIMIT 1").fetchone() is None:
            return count(connection, file)
        known = f"_known r ON {' AND '.join(same[: len(key)])}"
    changed = file.with_suffix(".changed")
    connection.execute(f"COPY (SELECT f.* FROM read_parquet($file) f ANTI JOIN {known}) TO {parquet(changed)}", {"file": str(file)})
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
    told = " AND ".join(f'r."{name}" = f."{name}"' for name in key)
    # What the file has of a key is newer than what is held; a log may have said that a row was deleted.
    gone = f"FROM {table_name} r ANTI JOIN read_parquet($keys) k ON {same} ANTI JOIN read_parquet($file) f ON {told} WHERE r.{DELETED_AT} IS NULL"
    row = connection.execute(
        f"SELECT (SELECT count(*) {gone}), (SELECT count(*) FROM {table_name} WHERE {DELETED_AT} IS NULL)", {"keys": str(keys), "file": str(file)}
    ).fetchone()
    vanished, present = (int(row[0]), int(row[1])) if row else (0, 0)
    if vanished == 0:
        return 0
    if _is_too_much(vanished, present, most):
        raise FindingsFound(_too_much(source, table, vanished, present), mend=_IF_RIGHT)
    both = file.with_suffix(".both")
    instant = loaded_at.isoformat()
    connection.execute(
        f"COPY (SELECT * FROM read_parquet($file) UNION ALL BY NAME SELECT r.* REPLACE (TIMESTAMPTZ '{instant}' AS {LOADED_AT}, "
        f"TIMESTAMPTZ '{instant}' AS {DELETED_AT}) {gone}) TO {parquet(both)}",
        {"file": str(file), "keys": str(keys)},
    )
    both.replace(file)
    return vanished


def refuse_deletes(connection: "DuckDBPyConnection", source: str, table: str, file: Path, deleted: int, most: float) -> str | None:
    """Take the deleted rows out of a file when they are too many at once; returns what to say then."""
    if not deleted:
        return None
    row = connection.execute(f"SELECT count(*) FROM {name_of(source, table)} WHERE {DELETED_AT} IS NULL").fetchone()
    present = int(row[0]) if row else 0
    if not _is_too_much(deleted, present, most):
        return None
    rest = file.with_suffix(".rest")
    connection.execute(f"COPY (SELECT * FROM read_parquet($file) WHERE {DELETED_AT} IS NULL) TO {parquet(rest)}", {"file": str(file)})
    rest.replace(file)
    return _too_much(source, table, deleted, present) + f"\n  mend: {_IF_RIGHT}"


def refuse_shrunk(connection: "DuckDBPyConnection", source: str, table: str, rows: int, most: float) -> str | None:
    """What to say when so few rows are to replace a table without a key as after a truncation; None when there is nothing to say."""
    if is_empty(connection, source, table):
        return None
    row = connection.execute(f"SELECT count(*) FROM {name_of(source, table)}").fetchone()
    present = int(row[0]) if row else 0
    if present - rows <= max(most * present, _FEWEST_TO_JUDGE):
        return None
    return f"{source}: {table} shrank from {present:,} to {rows:,} rows at once; it was not replaced.\n  mend: {_IF_RIGHT}"


def _is_too_much(vanished: int, present: int, most: float) -> bool:
    return vanished > max(most * present, _FEWEST_TO_JUDGE) or vanished == present


def _too_much(source: str, table: str, vanished: int, present: int) -> str:
    return f"{source}: {vanished:,} of {present:,} rows of {table} vanished from the source at once; nothing was marked as deleted."


def merge(connection: "DuckDBPyConnection", source: str, table: str, key: list[str], file: Path, newest_by: str | None = None) -> None:
    """Replace the rows of a file's keys by the rows of the file (all rows, when there is no key), all or none.

    The table is created or fitted in the same transaction (`raw_shape.fit`). Doing it twice is the same as doing it once.
    With `newest_by`, a row held whose value there is higher stays.
    """
    connection.begin()
    try:
        merge_within(connection, source, table, key, [file], newest_by)
        connection.commit()
    except BaseException:
        connection.rollback()
        raise


def merge_within(connection: "DuckDBPyConnection", source: str, table: str, key: list[str], files: list[Path], newest_by: str | None = None) -> None:
    """`merge`, inside the caller's transaction, of files of one shape; what counts is the last version of each key among them.

    Columns that the table has and the files have not (dropped from the source, or kept at a change of type) keep what each
    row held.
    """
    files = files if key else files[-1:]  # without a key each file replaced the one before
    fit(connection, source, table, key, files[-1])
    table_name, keys = name_of(source, table), ", ".join(f'"{name}"' for name in key)
    present = {name.lower() for name in file_columns(connection, files[-1])}
    kept = [name for name in columns(connection, source, table) if name.lower() not in present]
    arriving = {"files": [str(file) for file in files]}
    was_empty = is_empty(connection, source, table)
    order = ", ".join(f'"{name}" DESC' for name in (newest_by, LOADED_AT) if name)
    newest = f" QUALIFY row_number() OVER (PARTITION BY {keys} ORDER BY {order}) = 1" if len(files) > 1 else ""
    rows, parameters = f"SELECT * FROM read_parquet($files){newest}", arriving
    replaced = "read_parquet($files)"
    if not was_empty and not key:
        connection.execute(f"DELETE FROM {table_name}")
    elif not was_empty:
        same = " AND ".join(f't."{name}" = f."{name}"' for name in key)
        if newest_by:
            newer = f'SELECT f.* FROM ({rows}) f ANTI JOIN {table_name} t ON {same} AND t."{newest_by}" > f."{newest_by}"'
            connection.execute(f"CREATE OR REPLACE TEMP TABLE _newer AS {newer}", parameters)
            replaced, rows, parameters, arriving = "_newer", "SELECT * FROM _newer", {}, {}
        if kept:
            carried = ", ".join(f't."{name}"' for name in kept)
            connection.execute(
                f"CREATE OR REPLACE TEMP TABLE _arriving AS SELECT f.*, {carried} FROM ({rows}) f LEFT JOIN {table_name} t ON {same}", parameters
            )
            rows, parameters = "SELECT * FROM _arriving", {}
        connection.execute(f"DELETE FROM {table_name} AS t USING (SELECT {keys} FROM {replaced}) AS f WHERE {same}", arriving)
    connection.execute(f"INSERT INTO {table_name} BY NAME {rows}", parameters)


def holds(connection: "DuckDBPyConnection", source: str, table: str, file: Path) -> bool:
    """Whether a landed file was merged and nothing after it: its one time of load is in the table; an empty file left it empty."""
    if LOADED_AT not in columns(connection, source, table):
        return False
    table_name, brought = name_of(source, table), f"(SELECT max({LOADED_AT}) FROM read_parquet($file))"
    sql = f"SELECT CASE WHEN {brought} IS NULL THEN count(*) = 0 ELSE coalesce(bool_or({LOADED_AT} = {brought}), false) END FROM {table_name}"
    row = connection.execute(sql, {"file": str(file)}).fetchone()
    return bool(row and row[0])


def lacking(connection: "DuckDBPyConnection", source: str, table: str, key: list[str], file: Path) -> int:
    """How many rows of a landed file, just loaded, the raw table does not hold: by their key, without one by their number."""
    name, asked = name_of(source, table), {"file": str(file)}
    brought, counted = (f"SELECT {LOADED_AT} FROM read_parquet($file)", f"SELECT count(*) FROM {name} WHERE {LOADED_AT} IN")
    short = connection.execute(f"SELECT (SELECT count(*) FROM read_parquet($file)) - ({counted} (SELECT DISTINCT * FROM ({brought})))", asked).fetchone()
    if short is None or short[0] <= 0 or not key:
        return max(0, short[0]) if short else 0
    same = " AND ".join(f'r."{column}" IS NOT DISTINCT FROM f."{column}"' for column in key)
    missing = connection.execute(f"SELECT count(*) FROM read_parquet($file) AS f WHERE NOT EXISTS (SELECT 1 FROM {name} AS r WHERE {same})", asked).fetchone()
    return int(missing[0]) if missing else 0


def load_ids(connection: "DuckDBPyConnection", source: str) -> set[str]:
    """The loads of a source that dlt has recorded as complete."""
    if not columns(connection, source, "_dlt_loads"):
        return set()
    return {row[0] for row in connection.execute(f"SELECT load_id FROM raw_{source}._dlt_loads WHERE status = 0").fetchall()}
