"""The changes of some tables as PostgreSQL's log streams them, in chunks that are never written to disk as they are."""

import select
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pipelines import pgoutput
from pipelines.pgoutput import UNCHANGED, Row, Shape
from pipelines.postgres_catalog import Plan
from pipelines.postgres_server import SOURCE
from pipelines.postgres_session import replication, session
from pipelines.raw_changes import CHANGE_COLUMNS, COMMITTED_AT, LSN, OP, POSITION
from pipelines.raw_changes import UNCHANGED as UNCHANGED_COLUMNS
from warehouse.errors import StepFailed
from warehouse.sql import literal, quoted

if TYPE_CHECKING:
    import pyarrow as pa
    from psycopg2.extensions import cursor

    from pipelines.postgres_log import Log

_MOST_BYTES = 64_000_000
_PAUSE = 0.1
"""Seconds to wait for the server before looking again."""
_FEEDBACK = 24 * 3600
"""Seconds between confirmations that the driver would send of its own; what is read is confirmed by `Log.advance` alone."""


@dataclass(frozen=True)
class Chunk:
    """Some consecutive changes of one table: its columns as PostgreSQL's text, and `CHANGE_COLUMNS`."""

    plan: Plan
    table: "pa.Table"


@dataclass
class _Buffer:
    """The changes of one table that wait to become a chunk."""

    plan: Plan
    names: list[str]
    wanted: list[int]
    key: list[int]
    rows: list[Row] = field(default_factory=list)
    ops: list[str] = field(default_factory=list)
    lsns: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    times: list[int] = field(default_factory=list)
    unchanged: list[list[str]] = field(default_factory=list)

    def chunk(self) -> Chunk:
        import pyarrow as pa

        columns = list(zip(*self.rows, strict=True))
        # Bytes first: Arrow checks and takes over UTF-8 much faster than Python decodes it.
        arrays = {self.names[at]: pa.array(columns[at], pa.binary()).cast(pa.string()) for at in self.wanted}
        arrays[OP] = pa.array(self.ops, pa.string())
        arrays[LSN] = pa.array(self.lsns, pa.int64())
        arrays[POSITION] = pa.array(self.positions, pa.int64())
        arrays[COMMITTED_AT] = pa.array(self.times, pa.timestamp("us", "UTC"))
        arrays[UNCHANGED_COLUMNS] = pa.array(self.unchanged, pa.list_(pa.string()))
        return Chunk(self.plan, pa.table(arrays))


class Changes:
    """One reading of the log. Iterate once and to the end, and use nothing of it when that raises: it may have stopped half-way.

    Whoever stops before the end closes the iterator, so that the slot is let go.

    Attributes:
        is_complete: whether it was read to its end.
        confirmable_lsn: what to `Log.advance` to after everything was landed; before the end, what was confirmed before.
        reshaped: full names of the tables whose columns or types were others when they were changed than they are now, or
            that were dropped and made anew: their changes, also those already given, are of no use; read them whole.
        transactions: how many were read, those that changed none of the tables included.
        changes: how many changes of the tables were read.

    Raises:
        StepFailed: while iterating: the server refuses, hangs up, or says nothing for as long as a statement may last.
    """

    def __init__(self, log: "Log", plans: Sequence[Plan], upto_lsn: int, is_visible: Callable[[int], bool] | None, max_rows_per_chunk: int) -> None:
        for plan in plans:
            taken = {name for name in plan.readings if name.lower() in CHANGE_COLUMNS}
            if taken:
                raise StepFailed(
                    f"{SOURCE}: {plan.relation.full_name} has a column {min(taken)}, a name that the warehouse keeps for itself.",
                    mend=f"`exclude` it in pipelines/{SOURCE}.yaml, or read the table by query",
                )
        self.is_complete = False
        self.confirmable_lsn = 0
        self.reshaped: set[str] = set()
        self.transactions = 0
        self.changes = 0
        self._log = log
        self._plans = {(plan.relation.schema, plan.relation.name): plan for plan in plans}
        self._upto = upto_lsn
        self._is_visible = is_visible or (lambda _: True)
        self._open = ExitStack()
        self._watch: cursor | None = None
        self._most_rows = max_rows_per_chunk
        self._shapes: dict[int, Shape] = {}
        self._buffers: dict[int, _Buffer] = {}
        self._held_rows = self._held_bytes = 0
        self._lsn = self._committed = self._count = 0

    def __iter__(self) -> Generator[Chunk, None, None]:
        from pipelines.postgres_log import wait_until_free

        with session(self._log.statement_timeout, f"reading the slot {self._log.slot}") as cur:
            self.confirmable_lsn = self._log.own(cur)
            if self.confirmable_lsn < self._upto:
                self._shapes = _shapes(cur, list(self._plans))
                wait_until_free(cur, self._log.slot)
        if self.confirmable_lsn < self._upto:
            with self._open, closing(self._messages()) as messages:
                for message in messages:
                    self._take(message)
                    if self._held_rows >= self._most_rows or self._held_bytes >= _MOST_BYTES:
                        yield from self._chunks()
            yield from self._chunks()
        self.is_complete = True

    def _messages(self) -> Generator[bytes, None, None]:
        """The messages of the transactions to read; afterwards `confirmable_lsn` is where the next reading goes on."""
        with replication(f"reading the slot {self._log.slot}") as connection, closing(connection.cursor()) as cur:
            # Not the driver's own way to write this command: it takes names for Latin-1.
            named = literal(quoted(self._log.publication))
            command = f"START_REPLICATION SLOT {quoted(self._log.slot)} LOGICAL 0/0 (proto_version '1', publication_names {named})"
            cur.start_replication_expert(command, decode=False, status_interval=_FEEDBACK)  # type: ignore[no-untyped-call]  # the stubs leave it out
            silence = self._log.statement_timeout.total_seconds()
            deadline = time.monotonic() + silence
            is_inside, heard, idle = False, 0, 0
            while True:
                message = cur.read_message()
                if message is None:
                    idle = idle + 1 if not is_inside and self._has_sent_all(connection.get_backend_pid()) else 0
                    if idle > 1:
                        return
                    if cur.wal_end >= self._upto and not is_inside:
                        self.confirmable_lsn = max(self.confirmable_lsn, self._upto)
                        return
                    if cur.wal_end != heard:
                        heard, deadline = cur.wal_end, time.monotonic() + silence
                    if time.monotonic() > deadline:
                        raise StepFailed(
                            f"{SOURCE}: reading the slot {self._log.slot}: the server sent nothing for {silence:.0f} s.",
                            mend="run again; when it has very much log to look through, raise statement_timeout",
                        )
                    select.select([cur], [], [], _PAUSE)
                    continue
                idle = 0
                data: bytes = message.payload
                if data[0] == pgoutput.BEGIN:
                    lsn, committed, xid = pgoutput.begin(data)
                    if lsn >= self._upto:
                        self.confirmable_lsn = max(self.confirmable_lsn, self._upto)
                        return
                    if not self._is_visible(xid):
                        return
                    self._lsn, self._committed, self._count = lsn, committed, 0
                    is_inside = True
                elif data[0] == pgoutput.COMMIT:
                    self.confirmable_lsn = pgoutput.commit_end(data)
                    self.transactions += 1
                    is_inside = False
                else:
                    yield data
                    deadline = time.monotonic() + silence

    def _has_sent_all(self, sender: int) -> bool:
        """Whether the server waits for more to be written: the end of its log may lie within a record, which is never sent as it is."""
        if self._watch is None:
            self._watch = self._open.enter_context(session(self._log.statement_timeout, f"watching the slot {self._log.slot}"))
        self._watch.execute("SELECT lower(wait_event) = 'walsenderwaitforwal' FROM pg_stat_activity WHERE pid = %s", (sender,))
        row = self._watch.fetchone()
        return bool(row and row[0])

    def _take(self, data: bytes) -> None:
        kind = data[0]
        if kind == pgoutput.RELATION:
            self._describe(pgoutput.shape(data))
            return
        if kind == pgoutput.TRUNCATE:
            self._count += 2
            for oid in pgoutput.truncated(data):
                if oid in self._buffers:
                    self._add(self._buffers[oid], "truncate", [None] * len(self._buffers[oid].names), 0, 0)
            return
        if kind not in (pgoutput.INSERT, pgoutput.UPDATE, pgoutput.DELETE):
            return
        self._count += 2  # two places each: an update may become a delete and an insert
        buffer = self._buffers.get(pgoutput.relation_of(data))
        if buffer is None:
            return
        if kind == pgoutput.INSERT:
            self._add(buffer, "insert", pgoutput.inserted(data), 0, len(data))
        elif kind == pgoutput.DELETE:
            self._add(buffer, "delete", pgoutput.deleted(data), 0, len(data))
        else:
            self._update(buffer, data)

    def _update(self, buffer: _Buffer, data: bytes) -> None:
        old, is_key_only, new = pgoutput.updated(data)
        if old is None:
            self._add(buffer, "update", new, 0, len(data))
            return
        for at, value in enumerate(new):
            if value is UNCHANGED and (not is_key_only or at in buffer.key):
                new[at] = old[at]
        if buffer.key and all(old[at] == new[at] for at in buffer.key):
            self._add(buffer, "update", new, 0, len(data))
        else:  # without a key nothing says which row it was, so the whole old row goes
            self._add(buffer, "delete", old, 0, len(data))
            self._add(buffer, "insert", new, 1, len(data))

    def _add(self, buffer: _Buffer, op: str, row: Row, place: int, size: int) -> None:
        unchanged = []
        if UNCHANGED in row:
            unchanged = [buffer.names[at] for at in buffer.wanted if row[at] is UNCHANGED]
            row = [None if value is UNCHANGED else value for value in row]
        buffer.rows.append(row)
        buffer.ops.append(op)
        buffer.lsns.append(self._lsn)
        buffer.positions.append(self._count + place)
        buffer.times.append(self._committed)
        buffer.unchanged.append(unchanged)
        self._held_rows += 1
        self._held_bytes += size
        self.changes += 1

    def _describe(self, shape: Shape) -> None:
        """A relation is announced: read it when it is wanted and is what it was when the reading began."""
        now = self._shapes.get(shape.oid)  # by oid first: a table may have been renamed, and its name given to another
        plan = self._plans.get((now.schema, now.name) if now else (shape.schema, shape.name))
        if plan is None:
            return
        if now is None or _read(now, plan) != _read(shape, plan):
            self.reshaped.add(plan.relation.full_name)
            dropped = self._buffers.pop(shape.oid, None)
            self._held_rows -= len(dropped.rows) if dropped else 0
            return
        if plan.relation.full_name in self.reshaped or shape.oid in self._buffers:
            return
        names = [name for name, *_ in shape.columns]
        wanted = [at for at, name in enumerate(names) if name in plan.readings]
        self._buffers[shape.oid] = _Buffer(plan, names, wanted, [names.index(name) for name in plan.primary_key if name in names])

    def _chunks(self) -> Iterator[Chunk]:
        for oid, buffer in self._buffers.items():
            if buffer.rows:
                self._buffers[oid] = _Buffer(buffer.plan, buffer.names, buffer.wanted, buffer.key)
                yield buffer.chunk()
        self._held_rows = self._held_bytes = 0


def _read(shape: Shape, plan: Plan) -> list[tuple[str, int, int]]:
    """The columns of a shape that the plan reads; a publication may leave out the others."""
    return [column for column in shape.columns if column[0] in plan.readings]


def _shapes(cur: Any, names: list[tuple[str, str]]) -> dict[int, Shape]:
    """What the log would say now of these tables, by oid."""
    cur.execute(
        """SELECT c.oid, n.nspname, c.relname, array_agg(a.attname::text ORDER BY a.attnum), array_agg(a.atttypid::bigint ORDER BY a.attnum),
          array_agg(a.atttypmod ORDER BY a.attnum)
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid
        WHERE a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
          AND (n.nspname::text, c.relname::text) IN (SELECT * FROM unnest(%s::text[], %s::text[]))
        GROUP BY 1, 2, 3""",
        ([schema for schema, _ in names], [name for _, name in names]),
    )
    return {
        oid: Shape(oid, schema, name, tuple(zip(columns, types, modifiers, strict=True))) for oid, schema, name, columns, types, modifiers in cur.fetchall()
    }
