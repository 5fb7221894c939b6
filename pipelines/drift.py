"""Drift: how the tables of a source differ from what they looked like at the last load; `ops.schema_changes` keeps every change.

What a source looked like is remembered in the warehouse itself (`ops.source_columns`), beside the rows it explains, and
written in one transaction with the changes after a load succeeded: a killed load finds the same changes again.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from pipelines import raw_shape
from pipelines.source import Change, Extract, Shape
from warehouse import clock

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_SOURCE_COLUMNS = {
    "source": "VARCHAR", "source_table": "VARCHAR", "table_identity": "BIGINT", "raw_table": "VARCHAR", "column_name": "VARCHAR",
    "column_identity": "BIGINT", "declared_type": "VARCHAR", "key_position": "BIGINT",
}  # fmt: skip
_SCHEMA_CHANGES = {
    "source": "VARCHAR", "source_table": "VARCHAR", "raw_table": "VARCHAR", "column_name": "VARCHAR", "change": "VARCHAR", "before": "VARCHAR",
    "after": "VARCHAR", "kept_as": "VARCHAR", "detected_at": "TIMESTAMPTZ", "run_id": "VARCHAR",
}  # fmt: skip
_HARMLESS = {"table added", "table replaced", "column added", "type widened"}
_VALUES_MAY_DIFFER = {"table replaced", "column replaced", "type changed", "type widened", "key changed"}
"""Nothing stamps the rows when these happen: the table is read as a whole."""


def changes(before: Shape, after: Shape, is_widening: Callable[[str, str], bool]) -> list[Change]:
    """What became of a table.

    Columns are told apart by identity, so that a renamed one is not taken for one dropped and one added; when the table
    itself is another one of the same name, by their names.

    Args:
        is_widening: whether the second of two of the source's types holds every value of the first.
    """
    is_same = before.identity == after.identity
    former = {identity: name for name, (identity, _) in before.columns.items()} if is_same else {}
    found: list[tuple[str | None, str, str | None, str | None]] = []
    if not is_same:
        found.append((None, "table replaced", None, None))
    if before.name != after.name:
        found.append((None, "table renamed", before.name, after.name))
    renamed = {}
    for name, (identity, kind) in after.columns.items():
        old = name if name in before.columns and (not is_same or before.columns[name][0] == identity) else former.get(identity)
        if old is None:
            replaced = name in before.columns
            found.append((name, "column replaced" if replaced else "column added", before.columns[name][1] if replaced else None, kind))
            continue
        if old != name:
            renamed[old] = name
            found.append((name, "column renamed", old, name))
        if before.columns[old][1] != kind:
            found.append((name, "type widened" if is_widening(before.columns[old][1], kind) else "type changed", before.columns[old][1], kind))
    found += [(name, "column dropped", kind, None) for name, (_, kind) in before.columns.items() if name not in after.columns and name not in renamed]
    if set(before.primary_key) != set(after.primary_key):
        found.append((None, "key changed", ", ".join(before.primary_key) or "none", ", ".join(after.primary_key) or "none"))
    return [Change(after.name, after.raw_table, *one) for one in found]


def reads_whole(found: Sequence[Change]) -> bool:
    """Whether values may have changed that no cursor shows."""
    return any(change.change in _VALUES_MAY_DIFFER for change in found)


def finding(found: Sequence[Change]) -> str | None:
    """What an operator must know of the changes of one table; None when nothing that was read before is missing or means something else."""
    told = [change for change in found if change.change not in _HARMLESS]
    if not told:
        return None
    lines = "; ".join(str(change) for change in told)
    mend = "what was held is kept: `SELECT * FROM ops.schema_changes` says as what; adapt the models and contracts that read it"
    return f"the source's schema changed: {lines}.\n  mend: {mend}"


def known(connection: "DuckDBPyConnection", source: str) -> list[Shape]:
    """What the tables of a source looked like at the last load that succeeded."""
    if not _exists(connection, "source_columns"):
        return []
    query = (
        "SELECT source_table, table_identity, raw_table, column_name, column_identity, declared_type, key_position FROM ops.source_columns "
        "WHERE source = ? ORDER BY raw_table, column_identity"
    )
    shapes: dict[str, Shape] = {}
    keys: dict[str, dict[int, str]] = {}
    for name, identity, raw_table, column, number, kind, position in connection.execute(query, [source]).fetchall():
        shape = shapes.setdefault(raw_table, Shape(name, identity, raw_table, {}, []))
        if column is not None:
            shape.columns[column] = (number, kind)
            if position is not None:
                keys.setdefault(raw_table, {})[position] = column
    for raw_table, positions in keys.items():
        shapes[raw_table].primary_key.extend(positions[position] for position in sorted(positions))
    return list(shapes.values())


def kept_before(connection: "DuckDBPyConnection", source: str, extracts: Sequence[Extract]) -> set[tuple[str, str]]:
    """Before the merge: the kept columns and set-aside tables of the tables that changed, as (raw table, name)."""
    return {(one.name, name) for one in extracts if one.changes for name in _kept(connection, source, one.name)}


def record(connection: "DuckDBPyConnection", source: str, extracts: Sequence[Extract], before: set[tuple[str, str]], run_id: str) -> list[str]:
    """Remember what the tables look like now and what changed, after the load succeeded; all in one transaction.

    Args:
        before: what `kept_before` gave.

    Returns:
        the changes, in words.
    """
    shapes = [one.shape for one in extracts if one.shape is not None]
    if sorted(map(repr, shapes)) == sorted(map(repr, known(connection, source))):
        return []
    found = [change for one in extracts for change in one.changes]
    kept = {(one.name, name) for one in extracts if one.changes for name in _kept(connection, source, one.name)} - before
    now = clock.now()
    connection.execute("CREATE SCHEMA IF NOT EXISTS ops")
    connection.begin()
    try:
        for table, columns in (("source_columns", _SOURCE_COLUMNS), ("schema_changes", _SCHEMA_CHANGES)):
            connection.execute(f"CREATE TABLE IF NOT EXISTS ops.{table} ({', '.join(f'{name} {kind}' for name, kind in columns.items())})")
        connection.execute("DELETE FROM ops.source_columns WHERE source = ?", [source])
        _insert(connection, "source_columns", [row for shape in shapes for row in _rows(source, shape)])
        rows = [(source, one.source_table, one.raw_table, one.column, one.change, one.before, one.after, _kept_as(one, kept), now, run_id) for one in found]
        _insert(connection, "schema_changes", rows)
        connection.commit()
    except BaseException:
        connection.rollback()
        raise
    return [str(change) for change in found]


def _rows(source: str, shape: Shape) -> list[tuple[Any, ...]]:
    top = (source, shape.name, shape.identity, shape.raw_table)
    key = {name: position for position, name in enumerate(shape.primary_key)}
    return [(*top, name, number, kind, key.get(name)) for name, (number, kind) in shape.columns.items()] or [(*top, None, None, None, None)]


def _insert(connection: "DuckDBPyConnection", table: str, rows: list[tuple[Any, ...]]) -> None:
    if rows:
        connection.executemany(f"INSERT INTO ops.{table} VALUES ({', '.join('?' * len(rows[0]))})", rows)


def _kept(connection: "DuckDBPyConnection", source: str, table: str) -> list[str]:
    columns = [name for name in raw_shape.columns(connection, source, table) if "_was_" in name]
    return columns + raw_shape.set_aside(connection, source, table)


def _kept_as(change: Change, kept: set[tuple[str, str]]) -> str | None:
    """Where the values of before are: a column of its own, the whole table as it was, or where they were."""
    own = {"column dropped": change.column, "column renamed": change.before}.get(change.change)
    names = sorted(name for table, name in kept if table == change.raw_table)
    column = next((name for name in names if change.column and name.startswith(f"{change.column}_was_")), None)
    table = next((name for name in names if name.startswith(f"{change.raw_table}_until_")), None)
    return table or column or own


def _exists(connection: "DuckDBPyConnection", table: str) -> bool:
    query = "SELECT 1 FROM duckdb_tables() WHERE database_name = current_database() AND schema_name = 'ops' AND table_name = ?"
    return connection.execute(query, [table]).fetchone() is not None
