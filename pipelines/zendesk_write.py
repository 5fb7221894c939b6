"""What was read of one table, written to a file: the newest version of each object, and the last values of what is deleted."""

from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.source import DELETED_AT, LOADED_AT, Held, Reading
from pipelines.zendesk_rows import CURSOR, Batch, Object, Table, gone_at, is_gone, rank, row_of, types_of, write
from warehouse.errors import StepFailed
from warehouse.sql import parquet

if TYPE_CHECKING:
    from pipelines.zendesk_fields import CustomFields

Key = tuple[Any, ...]


@dataclass
class Written:
    """How many rows were written, how many of them are deleted objects, and what an operator must know."""

    rows: int = 0
    deleted: int = 0
    findings: list[str] = field(default_factory=list)


def write_batch(reading: Reading, name: str, table: Table, held: Held, batch: Batch, loaded_at: datetime, file: Path, custom: "CustomFields") -> Written:
    """Write the newest version of each object of a batch, and what a whole list no longer has.

    A deleted object is written with the values it had last: in this batch, else in the warehouse, else those it comes with.

    Raises:
        StepFailed: a value is not of its column's type; table, id and column are named.
    """
    newest, live = _newest(table, batch.objects)
    ranks = _held_ranks(reading, name, table, held, [thing["id"] for thing in (*batch.beside, *newest.values()) if table.newest_by])
    for key, thing in _newest(table, batch.beside)[0].items():
        if key not in newest and (thing["id"] not in ranks or rank(table, thing) > ranks[thing["id"]]):
            newest[key] = thing
            live |= {} if is_gone(thing) else {key: thing}
    if name == "tickets":
        custom.show([*newest.values(), *live.values()])
    types = types_of(name, table, custom)
    rows: list[Object] = []
    from_held: list[Object] = []
    for key, thing in newest.items():
        own = {LOADED_AT: loaded_at, **({CURSOR: batch.cursor} if table.export else {}), **({"is_deleted": False} if table.keeps_deleted else {})}
        if not table.keeps_deleted or not is_gone(thing):
            rows.append(_row(name, table, thing, custom) | own)
            continue
        own |= {"is_deleted": True, "deleted_at": gone_at(thing), DELETED_AT: loaded_at, str(table.newest_by): rank(table, thing)}
        last = live.get(key)
        if thing["id"] in ranks and (last is None or rank(table, last) < ranks[thing["id"]]):
            from_held.append({"id": thing["id"], **own})
        else:
            rows.append(_row(name, table, last or thing, custom) | own)
    write(rows, types, name, file)
    if from_held:
        _add_held(reading, name, table, from_held, file)
    findings = [
        f"zendesk: {count} values of the ticket field {column} are not of its type; they stand in custom_fields alone.\n  mend: correct them in Zendesk"
        for column, count in custom.unreadable.items()
    ]
    custom.unreadable.clear()
    vanished = _add_vanished(reading, name, batch.keys, loaded_at, file) if batch.keys is not None and held.rows else 0
    return Written(len(newest) + vanished, sum(table.keeps_deleted and is_gone(thing) for thing in newest.values()) + vanished, findings)


def _newest(table: Table, things: list[Object]) -> tuple[dict[Key, Object], dict[Key, Object]]:
    """The newest version of each object, and the newest that is not a deletion; of equals the one that was read last."""
    newest: dict[Key, Object] = {}
    live: dict[Key, Object] = {}
    for thing in things:
        key = tuple(thing[column] for column in table.key)
        for versions in (newest, live) if not is_gone(thing) else (newest,):
            if key not in versions or rank(table, thing) >= rank(table, versions[key]):
                versions[key] = thing
    return newest, live


def _held_ranks(reading: Reading, name: str, table: Table, held: Held, ids: list[int]) -> dict[int, Any]:
    if not ids or not held.rows or not table.newest_by or table.newest_by not in held.columns:
        return {}
    query = f"SELECT id, {table.newest_by} FROM raw_zendesk.{name} WHERE id IN (SELECT unnest($ids)) AND {table.newest_by} IS NOT NULL"
    return dict(reading.connection.execute(query, {"ids": ids}).fetchall())


def _row(name: str, table: Table, thing: Object, custom: "CustomFields") -> Object:
    try:
        return row_of(name, table, thing, custom)
    except ValueError as error:
        column = error.args[0] if error.args and error.args[0] in table.columns else "created_at"
        what = table.columns[column].type if column in table.columns else "timestamp"
        raise StepFailed(
            f"zendesk: {name} {thing['id']}: {column} is no {what}; nothing was loaded of this page.",
            mend=f"declare {column} as text in pipelines/zendesk.yaml",
        ) from None


def _add_held(reading: Reading, name: str, table: Table, marks: list[Object], file: Path) -> None:
    """Add rows as they are held, marked as deleted."""
    import pyarrow as pa

    instants = pa.timestamp("us", "UTC")
    by = str(table.newest_by)
    kinds = {"id": pa.int64(), "is_deleted": pa.bool_(), "deleted_at": instants, DELETED_AT: instants, LOADED_AT: instants, CURSOR: pa.string(),
             by: pa.int64() if table.columns[by].type == "bigint" else instants}  # fmt: skip
    reading.connection.register("_marks", pa.Table.from_pylist(marks, schema=pa.schema(list(kinds.items()))))
    replaced = (
        f"true AS is_deleted, coalesce(r.deleted_at, m.deleted_at) AS deleted_at, coalesce(r.{DELETED_AT}, m.{DELETED_AT}) AS {DELETED_AT}, "
        f"m.{by} AS {by}, m.{CURSOR} AS {CURSOR}, m.{LOADED_AT} AS {LOADED_AT}"
    )
    _add(reading, file, f"SELECT r.* REPLACE ({replaced}) FROM raw_zendesk.{name} r JOIN _marks m ON m.id = r.id", {})
    reading.connection.unregister("_marks")


def _add_vanished(reading: Reading, name: str, keys: list[int], loaded_at: datetime, file: Path) -> int:
    """Add the rows held that are no longer in their list, with their last values; returns how many."""
    gone = f"FROM raw_zendesk.{name} r ANTI JOIN (SELECT unnest($keys::BIGINT[]) AS id) k ON k.id = r.id WHERE r.{DELETED_AT} IS NULL"
    row = reading.connection.execute(f"SELECT count(*) {gone}", {"keys": keys}).fetchone()
    if not row or not row[0]:
        return 0
    now = f"TIMESTAMPTZ '{loaded_at.isoformat()}'"
    _add(reading, file, f"SELECT r.* REPLACE ({now} AS {LOADED_AT}, {now} AS {DELETED_AT}) {gone}", {"keys": keys})
    return int(row[0])


def _add(reading: Reading, file: Path, query: str, parameters: Object) -> None:
    """Add the rows of a query to a file."""
    both = file.with_suffix(".both")
    sql = f"COPY (SELECT * FROM read_parquet($file) UNION ALL BY NAME {query}) TO {parquet(both)}"
    reading.connection.execute(sql, {"file": str(file), **parameters})
    both.replace(file)
