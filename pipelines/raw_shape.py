"""The shape of a raw table, made to fit what arrives without losing anything: old columns and old keys are kept beside the new.

A type that cannot hold the old values renames the old column to `<column>_was_<type>`; another primary key, or a change in
a table without one, renames the whole table to `<table>_until_<time>` (docs/adr/0009-drift-keeps-what-was.md).
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.source import LOADED_AT, OWN_COLUMNS
from warehouse.sql import literal, quoted
from warehouse.storage import NEVER_LOADED

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_INTEGERS = {"TINYINT": 3, "SMALLINT": 5, "INTEGER": 10, "BIGINT": 19, "HUGEINT": 39}
"""Integer types, narrow to wide, with the digits that hold each of their values."""
_MOST_DIGITS = 38
_ALIASES = {"TIMESTAMPTZ": "TIMESTAMP WITH TIME ZONE"}


def name_of(source: str, table: str) -> str:
    """A raw table's name in SQL."""
    return f"raw_{source}.{quoted(table)}"


def columns(connection: "DuckDBPyConnection", source: str, table: str) -> dict[str, str]:
    """The columns of a raw table, name -> type; none when there is no such table, or one that stands only for a first load to come."""
    import duckdb

    try:  # a table is looked up at once; duckdb_columns() lists every column of every table, twenty times as long
        found = connection.execute(f"DESCRIBE {name_of(source, table)}").fetchall()
    except duckdb.CatalogException:
        return {}
    stands_only = "SELECT 1 FROM duckdb_tables() WHERE database_name = current_database() AND (schema_name, table_name, comment) = (?, ?, ?)"
    is_empty = connection.execute(f"SELECT 1 FROM {name_of(source, table)} LIMIT 1").fetchone() is None
    if is_empty and connection.execute(stands_only, [f"raw_{source}", table, NEVER_LOADED]).fetchone():
        return {}
    return {row[0]: row[1] for row in found}


def file_columns(connection: "DuckDBPyConnection", file: Path) -> dict[str, str]:
    """The columns of a Parquet file, name -> DuckDB type."""
    return {row[0]: row[1] for row in connection.execute("DESCRIBE SELECT * FROM read_parquet($file)", {"file": str(file)}).fetchall()}


def key_of(connection: "DuckDBPyConnection", source: str, table: str) -> list[str] | None:
    """The key by which a raw table's rows are told apart, as its comment says; None when the table or its comment is missing."""
    found = _comment(connection, source, table).get("primary_key")
    return [str(name) for name in found] if isinstance(found, list) else None


def is_same_key(held: Sequence[str] | None, arriving: Sequence[str]) -> bool:
    """Whether rows told apart by one key are told apart by the other; a key that nobody noted counts as the same."""
    return held is None or set(held) == set(arriving)


def set_aside(connection: "DuckDBPyConnection", source: str, table: str) -> list[str]:
    """The tables that were this one until its key changed, oldest first."""
    query = "SELECT table_name FROM duckdb_tables() WHERE database_name = current_database() AND schema_name = ? AND starts_with(table_name, ?) ORDER BY 1"
    candidates = [row[0] for row in connection.execute(query, [f"raw_{source}", f"{table}_until_"]).fetchall()]
    return [name for name in candidates if _comment(connection, source, name).get("set_aside_from") == table]


def common_type(held: str, arriving: str) -> str | None:
    """The type that holds every value of both exactly; None when there is none and the old values must be kept apart."""
    held, arriving = _ALIASES.get(held, held), _ALIASES.get(arriving, arriving)
    if held == arriving:
        return held
    if held in _INTEGERS and arriving in _INTEGERS:
        return max(held, arriving, key=lambda kind: _INTEGERS[kind])
    if {held, arriving} == {"FLOAT", "DOUBLE"}:
        return "DOUBLE"
    digits = [_digits(held), _digits(arriving)]
    if None in digits:
        return None
    whole, scale = (max(one[part] for one in digits if one) for part in (0, 1))
    return f"DECIMAL({whole + scale},{scale})" if whole + scale <= _MOST_DIGITS else None


def clashing(held: Mapping[str, str], arriving: Mapping[str, str]) -> set[str]:
    """The columns (as they arrive) whose type has nothing in common with the one held."""
    present = {name.lower(): kind for name, kind in held.items()}
    return {name for name, kind in arriving.items() if name.lower() in present and common_type(present[name.lower()], kind) is None}


def lost_without_key(held: Mapping[str, str], arriving: Mapping[str, str]) -> set[str]:
    """The columns held that do not arrive: where rows have no key, nothing says to which new row an old value belongs."""
    names = {name.lower() for name in arriving}
    return {name for name in held if name.lower() not in names and name not in OWN_COLUMNS}


def is_empty(connection: "DuckDBPyConnection", source: str, table: str) -> bool:
    """Whether a raw table has no row, or does not exist."""
    return not columns(connection, source, table) or connection.execute(f"SELECT 1 FROM {name_of(source, table)} LIMIT 1").fetchone() is None


def fit(connection: "DuckDBPyConnection", source: str, table: str, key: Sequence[str], file: Path) -> None:
    """Create the raw table for a file, or change its shape so that the file can be merged into it. Nothing is dropped.

    Repeating it changes nothing. Call it in the transaction of the merge, before any row is changed.
    """
    arriving, held = file_columns(connection, file), columns(connection, source, table)
    held_key = key_of(connection, source, table)
    if held and is_empty(connection, source, table):
        if clashing(held, arriving):
            connection.execute(f"DROP TABLE {name_of(source, table)}")
            held = {}
    elif held and _must_begin_anew(held, arriving, key, held_key):
        _put_aside(connection, source, table, held_key or [])
        held = {}
    if not held:
        connection.execute(f"CREATE SCHEMA IF NOT EXISTS raw_{source}")
        connection.execute(f"DROP TABLE IF EXISTS {name_of(source, table)}")  # one that stood for this load
        connection.execute(f"CREATE TABLE {name_of(source, table)} AS SELECT * FROM read_parquet($file) LIMIT 0", {"file": str(file)})
    else:
        _alter(connection, name_of(source, table), held, arriving)
    if held_key != list(key) or not held:
        _write_comment(connection, source, table, {"primary_key": list(key)})


def complete(connection: "DuckDBPyConnection", source: str, table: str, key: Sequence[str], file: Path) -> None:
    """Give a raw table the columns of a file of which no row had to be merged: all of them when it is empty, else those it lacks."""
    if is_empty(connection, source, table):
        fit(connection, source, table, key, file)
        return
    held = columns(connection, source, table)
    present = {name.lower() for name in held}
    lacking = {name: kind for name, kind in file_columns(connection, file).items() if name.lower() not in present}
    _alter(connection, name_of(source, table), held, lacking)


def _alter(connection: "DuckDBPyConnection", table_name: str, held: Mapping[str, str], arriving: Mapping[str, str]) -> None:
    present = {name.lower(): name for name in held}
    apart = clashing(held, arriving)
    for name, kind in arriving.items():
        known = present.get(name.lower())
        if known is None or name in apart:
            if known is not None:
                connection.execute(f"ALTER TABLE {table_name} RENAME COLUMN {quoted(known)} TO {quoted(_was(known, held[known], present))}")
            connection.execute(f"ALTER TABLE {table_name} ADD COLUMN {quoted(name)} {kind}")
        elif (wide := common_type(held[known], kind)) != held[known]:
            connection.execute(f"ALTER TABLE {table_name} ALTER COLUMN {quoted(known)} SET DATA TYPE {wide}")


def _must_begin_anew(held: Mapping[str, str], arriving: Mapping[str, str], key: Sequence[str], held_key: list[str] | None) -> bool:
    """Whether the rows held cannot be told apart by the key that arrives, or would lose values because there is no key."""
    if not is_same_key(held_key, key):
        return True
    apart = clashing(held, arriving)
    if key:
        return bool(apart & set(key))
    return bool(apart or lost_without_key(held, arriving))


def _put_aside(connection: "DuckDBPyConnection", source: str, table: str, key: list[str]) -> None:
    row = connection.execute(f"SELECT strftime(max({LOADED_AT}), '%Y%m%dT%H%M%S') FROM {name_of(source, table)}").fetchone()
    aside = f"{table}_until_{row[0] if row else 'unknown'}"
    if columns(connection, source, aside):
        aside = f"{aside}_{len(set_aside(connection, source, table)) + 1}"
    connection.execute(f"ALTER TABLE {name_of(source, table)} RENAME TO {quoted(aside)}")
    _write_comment(connection, source, aside, {"primary_key": key, "set_aside_from": table})


def _was(name: str, kind: str, present: Mapping[str, str]) -> str:
    kept = f"{name}_was_{re.sub(r'[^a-z0-9]+', '_', kind.lower()).strip('_')}"
    number = 2
    while kept.lower() in present:
        kept, number = f"{kept.removesuffix(f'_{number - 1}')}_{number}", number + 1
    return kept


def _digits(kind: str) -> tuple[int, int] | None:
    """Digits before and after the point that a number type holds."""
    if kind in _INTEGERS:
        return _INTEGERS[kind], 0
    found = re.fullmatch(r"DECIMAL\((\d+),(\d+)\)", kind)
    return (int(found.group(1)) - int(found.group(2)), int(found.group(2))) if found else None


def _comment(connection: "DuckDBPyConnection", source: str, table: str) -> dict[str, object]:
    query = "SELECT comment FROM duckdb_tables() WHERE database_name = current_database() AND schema_name = ? AND table_name = ?"
    row = connection.execute(query, [f"raw_{source}", table]).fetchone()
    try:
        content = json.loads(row[0]) if row and row[0] else {}
    except ValueError:  # somebody else's remark
        return {}
    return content if isinstance(content, dict) else {}


def _write_comment(connection: "DuckDBPyConnection", source: str, table: str, content: Mapping[str, object]) -> None:
    connection.execute(f"COMMENT ON TABLE {name_of(source, table)} IS {literal(json.dumps(content))}")
