"""PostgreSQL's log of changes: the slot that keeps it for us, what state that is in, and what must hold before it can be read.

The publication is the administrator's: it says which tables may be read. The slot is ours: it keeps the log from where it
was last confirmed, so an unread slot fills the source's disk (`SlotHealth.retained_bytes`). Needs PostgreSQL 13 or newer.
"""

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from pipelines.postgres_catalog import Plan
from pipelines.postgres_server import SOURCE
from pipelines.postgres_session import session
from warehouse.errors import StepFailed, UsageError
from warehouse.sql import quoted

if TYPE_CHECKING:
    from psycopg2.extensions import cursor

    from pipelines.postgres_changes import Changes

_NOW = "CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_flush_lsn() END"
_PLUGIN = "pgoutput"
_RELEASE = 10.0
"""Seconds in which a slot is let go after its reader has ended, or been killed."""


@dataclass(frozen=True)
class SlotHealth:
    """The state of the slot.

    Attributes:
        confirmed_lsn: everything committed before was confirmed and is not sent again.
        restart_lsn: the log is kept from there.
        retained_bytes: how much log the source keeps for the slot.
        wal_status: `reserved`, `extended`, `unreserved` (about to be lost) or `lost` (make a new slot, read tables whole).
        active: whether somebody reads it now.
    """

    exists: bool
    confirmed_lsn: int | None = None
    restart_lsn: int | None = None
    retained_bytes: int | None = None
    wal_status: str | None = None
    active: bool = False


@dataclass(frozen=True)
class Log:
    """The log of one source, by slot and publication; positions (LSN) are whole numbers of bytes.

    Args:
        slot: its name: up to 63 small letters, digits and underscores. One slot serves one warehouse.
        publication: the name of the administrator's publication.
    """

    slot: str
    publication: str
    statement_timeout: timedelta = timedelta(minutes=30)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z0-9_]{1,63}", self.slot):
            raise UsageError(f"{self.slot!r} cannot name a replication slot.", mend="use up to 63 small letters, digits and underscores")

    def create_slot(self) -> int:
        """Make the slot if there is none; returns the position from which its changes are sent.

        Waits for the transactions open at the time to end. Where the slot was there before, this is what it has confirmed.

        Raises:
            StepFailed: the server refuses, or a slot of that name serves something else.
        """
        with session(self.statement_timeout, f"making the slot {self.slot}") as cur:
            if _health(cur, self.slot).exists:
                return self.own(cur)
            cur.execute("SELECT lsn - '0/0'::pg_lsn FROM pg_create_logical_replication_slot(%s, %s)", (self.slot, _PLUGIN))
            row = cur.fetchone()
            return int(row[0]) if row else 0

    def drop_slot(self) -> None:
        """Drop the slot, so that the source keeps no more log for it; nothing where there is none."""
        with session(self.statement_timeout, f"dropping the slot {self.slot}") as cur:
            if _health(cur, self.slot).exists:
                wait_until_free(cur, self.slot)
                cur.execute("SELECT pg_drop_replication_slot(%s)", (self.slot,))

    def health(self) -> SlotHealth:
        """The state of the slot now."""
        with session(self.statement_timeout, f"looking at the slot {self.slot}") as cur:
            return _health(cur, self.slot)

    def current_lsn(self) -> int:
        """The end of the log now. What a session of ours saw committed before is in the log up to here.

        (A transaction with synchronous_commit=off may be visible a moment before; it comes with the next reading.)
        """
        with session(self.statement_timeout, "asking for the end of the log") as cur:
            return _number(cur, f"SELECT {_NOW} - '0/0'::pg_lsn")

    def advance(self, lsn: int) -> None:
        """Confirm: what was committed before this position is not sent again. Nothing when that was confirmed before.

        PostgreSQL writes it to disk with its next checkpoint: after a crash of the server, changes may be sent again.
        """
        with session(self.statement_timeout, f"confirming the slot {self.slot}") as cur:
            wait_until_free(cur, self.slot)
            if lsn > self.own(cur):
                cur.execute("SELECT pg_replication_slot_advance(%s, %s)", (self.slot, as_text(lsn)))

    def read(self, plans: Sequence[Plan], upto_lsn: int, is_visible: Callable[[int], bool] | None = None, max_rows_per_chunk: int = 50_000) -> "Changes":
        """The changes of some tables since what was confirmed, in the order of commits; see `Changes`.

        Args:
            plans: the tables, and of each the columns to read (`Plan.readings`) and the key.
            upto_lsn: read the transactions whose commit was written before this position, see `current_lsn`.
            is_visible: asked with the 32-bit id of each transaction that changed something published; the reading ends before
                the first that is not, so that it agrees with a snapshot.
            max_rows_per_chunk: how many changes are held in memory at most (or 64 MB of them).
        """
        from pipelines.postgres_changes import Changes

        return Changes(self, plans, upto_lsn, is_visible, max_rows_per_chunk)

    def check(self, plans: Sequence[Plan]) -> None:
        """Whether the log can be read and has all of these tables that the plans want to know.

        Raises:
            StepFailed: the first thing that is not so, with the SQL that mends it.
        """
        from pipelines.postgres_log_check import check

        with session(self.statement_timeout, "looking at the log's settings") as cur:
            check(cur, self.slot, self.publication, plans)

    def own(self, cur: "cursor") -> int:
        """The position confirmed by our slot."""
        cur.execute(
            "SELECT plugin::text, database::text, current_database()::text, confirmed_flush_lsn - '0/0'::pg_lsn FROM pg_replication_slots WHERE slot_name = %s",
            (self.slot,),
        )
        row = cur.fetchone()
        if row is None:
            raise StepFailed(f"{SOURCE}: there is no replication slot {self.slot}.", mend="make it, and read the tables as a whole")
        plugin, database, ours, confirmed = row
        if plugin != _PLUGIN or database != ours:
            raise StepFailed(
                f"{SOURCE}: the replication slot {self.slot} serves something else (plugin {plugin}, database {database}).",
                mend="choose another name for ours",
            )
        return int(confirmed or 0)


def wait_until_free(cur: "cursor", slot: str) -> None:
    """Give a reader that has just ended the time to let go; whoever comes next reports one that does not."""
    deadline = time.monotonic() + _RELEASE
    while _health(cur, slot).active and time.monotonic() < deadline:
        time.sleep(0.02)


def as_text(lsn: int) -> str:
    """A position as PostgreSQL writes it."""
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"


def in_sql(plan: Plan) -> str:
    """A table's name for the SQL of a mend: quoted only where it must be."""
    parts = (plan.relation.schema, plan.relation.name)
    return ".".join(part if re.fullmatch(r"[a-z_][a-z0-9_]*", part) else quoted(part) for part in parts)


def _health(cur: "cursor", slot: str) -> SlotHealth:
    cur.execute(
        f"""SELECT confirmed_flush_lsn - '0/0'::pg_lsn, restart_lsn - '0/0'::pg_lsn, {_NOW} - restart_lsn, wal_status::text, active
        FROM pg_replication_slots WHERE slot_name = %s""",
        (slot,),
    )
    row = cur.fetchone()
    if row is None:
        return SlotHealth(exists=False)
    confirmed, restart, retained, status, active = row
    confirmed, restart, retained = (None if number is None else int(number) for number in (confirmed, restart, retained))
    return SlotHealth(True, confirmed, restart, retained, status, active)


def _number(cur: "cursor", sql: str) -> int:
    cur.execute(sql)
    row = cur.fetchone()
    return int(row[0]) if row else 0
