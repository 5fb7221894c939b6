"""Tables followed by PostgreSQL's log instead of by queries: `changes: log` in pipelines/postgres.yaml.

A table is first read whole, in the run's snapshot; from then on the log says what changed. What was read is confirmed to
the source only after it is held and noted (`ops.replication`): a kill repeats, and repeating changes nothing. Whatever
breaks the thread (a slot that is gone or was read by another, a warehouse restored from a backup, a truncated or reshaped
table) makes the table be read whole again, with a finding where somebody should know.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.postgres_catalog import Plan, plans
from pipelines.postgres_log import Log
from pipelines.postgres_server import SOURCE, attached, query
from pipelines.postgres_stream import Stream
from pipelines.raw_changes import OP, UNCHANGED, Changes
from pipelines.source import Reading
from warehouse.errors import StepFailed

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pipelines.postgres import PostgresDeclaration
    from pipelines.postgres_changes import Chunk

_ROWS_A_CHUNK = 50_000


@dataclass
class Followed:
    """What the log says of one table in this run.

    Attributes:
        is_whole: the table must be read whole; its changes are only versions then.
        changes: how many there are.
        files: where they are; none when nothing changed.
        sources: see `raw_changes.Changes`.
    """

    is_whole: bool
    changes: int = 0
    files: list[Path] = field(default_factory=list)
    sources: dict[str, str] = field(default_factory=dict)

    def stamped(self, loaded_at: datetime, settled_at: datetime) -> Changes:
        """The changes, with what the rows of this load are stamped with."""
        return Changes(self.files, self.sources, loaded_at, settled_at)


class Follower:
    """The log of one run. Make it before the snapshot is taken, so that no change can fall between the slot and the snapshot."""

    def __init__(self, declared: "PostgresDeclaration", reading: Reading) -> None:
        self._declared, self._reading = declared, reading
        self._log = Log(declared.log.slot, declared.log.publication, declared.statement_timeout)
        self._places = reading.followed()
        self.findings: list[str] = []
        self.is_wanted = any(table.changes == "log" for table in declared.tables.values())
        others = {slot for slot, _ in self._places.values()} - ({declared.log.slot} if self.is_wanted else set())
        self._places = {table: found for table, found in self._places.items() if found[0] not in others}
        if self.is_wanted:
            self._prepare_slot()
        for slot in others:
            # Nobody reads it any more: it would fill the disk of the source.
            reading.loaded.append(partial(self._leave, Log(slot, declared.log.publication, declared.statement_timeout)))

    def read(self, snapshot: "DuckDBPyConnection", planned: list[Plan], stamp: datetime) -> dict[str, Followed]:
        """Read the changes of all followed tables up to the snapshot; returns them by raw table.

        Args:
            snapshot: the connection in whose transaction the tables are read.
            stamp: when the snapshot was taken.
        """
        logged = [plan for plan in planned if plan.table.changes == "log"]
        if not logged:
            return {}
        for plan in logged:
            if not plan.primary_key:
                raise StepFailed(
                    f"{SOURCE}: {plan.relation.full_name} has no primary key; the log cannot say which row changed.",
                    mend=f"declare its `primary_key` in pipelines/{SOURCE}.yaml, or remove `changes: log` there",
                )
        self._log.check(logged)
        found = {plan.own: Followed(is_whole=plan.own not in self._places) for plan in logged}
        seen = str(query(snapshot, "SELECT pg_current_snapshot()::text AS seen")[0][0])
        changes = self._log.read(logged, self._log.current_lsn(), visible_in(seen), _ROWS_A_CHUNK)
        for chunk in changes:
            self._write(snapshot, chunk, found[chunk.plan.own], stamp)
        for plan in logged:
            found[plan.own].is_whole |= plan.relation.full_name in changes.reshaped
        places = dict.fromkeys(found, (self._declared.log.slot, changes.confirmable_lsn))
        self._reading.loaded.append(partial(self._confirm, places, changes.confirmable_lsn))
        return found

    def _prepare_slot(self) -> None:
        health, most = self._log.health(), self._declared.log.max_wal_mb * 1_000_000
        broken = None
        if health.exists and (health.retained_bytes or 0) > most:
            broken = f"made the source keep {(health.retained_bytes or 0) // 1_000_000:,} MB of log, more than max_wal_mb allows, and was dropped"
        elif health.exists and health.wal_status == "lost":
            broken = "was invalidated by the source, which kept no more log for it"
        elif not health.exists and self._places:
            broken = "is gone"
        elif self._places and (health.confirmed_lsn or 0) > max(lsn for _, lsn in self._places.values()):
            broken = "was read further than the warehouse holds, by another reader or before the warehouse was restored"
        if broken:
            self.findings.append(
                f"{SOURCE}: the replication slot {self._declared.log.slot} {broken}; the tables that follow it were read whole, the versions between "
                "are missing.\n  mend: nothing is to be done for the rows; see docs/runbooks/replication-slot.md for what lets it happen"
            )
            self._places = {}
        if health.exists and broken and (health.wal_status == "lost" or (health.retained_bytes or 0) > most):
            self._log.drop_slot()
            health = self._log.health()
        if not health.exists:
            with attached(self._declared.statement_timeout) as connection:
                self._log.check([plan for plan in plans(connection, self._declared.tables, self._reading.known()).plans if plan.table.changes == "log"])
            self._log.create_slot()

    def _write(self, connection: "DuckDBPyConnection", chunk: "Chunk", followed: Followed, stamp: datetime) -> None:
        """One chunk, exact and pseudonymised, into a file; only there does it touch the disk."""
        from pipelines.postgres_text import refuse_unrepresentable_changes, typed

        choices = {name: column.on_unrepresentable for name, column in chunk.plan.table.columns.items()}
        exact = typed(chunk, choices, self._declared.statement_timeout)
        connection.register("_chunk", exact.table)
        try:
            refuse_unrepresentable_changes(connection, chunk.plan, "_chunk", exact.faults)
            file = self._reading.work / f"{chunk.plan.relation.oid}.{len(followed.files)}.changes"
            stream = Stream(connection, chunk.plan, stamp, stamp)
            followed.sources = stream.write_changes(file, exact.columns, list(exact.texts), "_chunk")
            followed.files.append(file)
        finally:
            connection.unregister("_chunk")
        ops = exact.table.column(OP).to_pylist()
        followed.changes += len(ops)
        unsent = exact.table.column(UNCHANGED).to_pylist()
        # After a truncation deletes must be judged; and a row under a new key may lack values that only the old one has.
        followed.is_whole |= "truncate" in ops or any(op == "insert" and columns for op, columns in zip(ops, unsent, strict=True))

    def _confirm(self, places: dict[str, tuple[str, int]], lsn: int) -> None:
        self._reading.follow(places)
        self._log.advance(lsn)

    def _leave(self, log: Log) -> None:
        log.drop_slot()
        if not self.is_wanted:
            self._reading.follow({})


def slot_state(declared: "PostgresDeclaration") -> str:
    """How much log the source keeps for the slot, in words for `warehouse doctor`; nothing where no table follows it."""
    if not any(table.changes == "log" for table in declared.tables.values()):
        return ""
    health = Log(declared.log.slot, declared.log.publication, declared.statement_timeout).health()
    if not health.exists:
        return f"; the replication slot {declared.log.slot} is not there yet, the next load makes it"
    kept = (health.retained_bytes or 0) // 1_000_000
    return f"; for the replication slot {declared.log.slot} the source keeps {kept:,} of {declared.log.max_wal_mb:,} MB of log ({health.wal_status})"


def visible_in(snapshot: str) -> Callable[[int], bool]:
    """Whether a transaction, by the 32 bits of its id that the log has, is visible in `pg_current_snapshot()`'s text.

    Ids are compared at their distance from the snapshot's end, since 32 bits wrap around.
    """
    _, end, running = snapshot.split(":")
    last, unseen = int(end), {int(one) & 0xFFFFFFFF for one in running.split(",") if one}

    def is_visible(xid: int) -> bool:
        ahead = (xid - last) & 0xFFFFFFFF
        return ahead >= 0x80000000 and xid not in unseen

    return is_visible
