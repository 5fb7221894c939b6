"""PostgreSQL: tables read in one consistent snapshot, first whole, then what changed since, streamed by DuckDB into Parquet.

The warehouse itself says how far each table got (`Held`), so there is no state that could run ahead of the data.
"""

import re
import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from math import ceil
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from pipelines import drift
from pipelines.pace import Pace
from pipelines.postgres_catalog import Plan, is_pattern, plans
from pipelines.postgres_follow import Followed, Follower, slot_state
from pipelines.postgres_server import SOURCE, attached, query
from pipelines.postgres_stream import Stream, refuse_doubled_keys, refuse_unrepresentable, timestamp
from pipelines.postgres_types import Choice, is_widening
from pipelines.raw_changes import VERSION_KEY, versions_of
from pipelines.raw_shape import clashing, is_same_key
from pipelines.source import FOLDER, LOADED_AT, Duration, Extract, Held, Reading, SourceDeclaration
from warehouse import clock
from warehouse.declared import read
from warehouse.errors import StepFailed
from warehouse.settings import settings
from warehouse.sql import literal, quoted

if TYPE_CHECKING:
    from dlt.extract import DltSource
    from duckdb import DuckDBPyConnection

_IDENTIFIER = r"^[^.\"]+\.[^.\"]+$"
_EASTERNMOST, _WESTERNMOST = timedelta(hours=14), timedelta(hours=12)
"""How far the clocks of any time zone are ahead of UTC, and behind it."""
_UNKNOWN = datetime(1970, 1, 1, tzinfo=UTC)
_SERVER = "pg_is_in_recovery() AS is_standby, pg_postmaster_start_time() AS started_at"
_BEFORE = f"""
SELECT clock_timestamp() AS now, least(
    (SELECT min(xact_start) FROM pg_stat_activity WHERE state <> 'idle' AND pid <> pg_backend_pid()), (SELECT min(prepared) FROM pg_prepared_xacts)
  ) AS oldest, pg_last_xact_replay_timestamp() AS replayed, {_SERVER}
"""
_NOW = f"SELECT now() AS now, {_SERVER}"
Schedule = Literal["hourly", "daily", "weekly", "never"]


class ColumnChoice(BaseModel):
    """What becomes of values of a column that have no exact counterpart in the warehouse."""

    model_config = ConfigDict(extra="forbid")
    # YAML reads a bare `null` as nothing.
    on_unrepresentable: Annotated[Choice, BeforeValidator(lambda value: "null" if value is None else value)] = "error"


class LogOptions(BaseModel):
    """How tables with `changes: log` are followed; the slot is made and dropped by the loads, the publication is the administrator's."""

    model_config = ConfigDict(extra="forbid")
    slot: str = Field(default="warehouse", pattern=r"^[a-z0-9_]{1,63}$")
    publication: str = Field(default="warehouse", min_length=1)
    max_wal_mb: int = Field(default=5_000, ge=1)


class Table(BaseModel):
    """One table, or all tables that a pattern matches. All of it may be left out: key and cursor are then found."""

    model_config = ConfigDict(extra="forbid")
    primary_key: list[str] | None = Field(default=None, min_length=1)
    cursor: str | None = None
    name: str | None = None
    exclude: list[str] = []
    columns: dict[str, ColumnChoice] = {}
    deletes: Schedule | None = None
    changes: Literal["query", "log"] = "query"

    @field_validator("primary_key", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value


class PostgresDeclaration(SourceDeclaration):
    """`pipelines/postgres.yaml`."""

    lag: Duration = timedelta(minutes=10)
    statement_timeout: Duration = timedelta(minutes=30)
    deletes: Schedule = "daily"
    max_deleted_share: float = Field(default=0.05, ge=0, le=1)
    log: LogOptions = LogOptions()
    max_rows_per_second: int | None = Field(default=None, ge=1)
    max_connections: int = Field(default=2, ge=1, le=64)
    tables: dict[str, Table] = Field(min_length=1)

    @field_validator("tables", mode="before")
    @classmethod
    def _nothing_means_defaults(cls, tables: Any) -> Any:
        return {name: {} if table is None else table for name, table in tables.items()} if isinstance(tables, dict) else tables

    @field_validator("tables")
    @classmethod
    def _named_well(cls, tables: dict[str, Table]) -> dict[str, Table]:
        taken: dict[str, str] = {}
        for name, table in tables.items():
            if not re.match(_IDENTIFIER, name):
                raise ValueError(f"{name!r} is not a table; write schema.table, or schema.* for all tables of a schema")
            if is_pattern(name):
                if table.name:
                    raise ValueError(f"{name} stands for several tables, which cannot all be named {table.name}")
                continue
            own = table.name or name.split(".")[1]
            if own in taken:
                raise ValueError(f"{taken[own]} and {name} would both become raw_postgres.{own}; give one of them another `name:`")
            taken[own] = name
        return tables


def declaration() -> PostgresDeclaration:
    """The validated `pipelines/postgres.yaml`."""
    return read(FOLDER / f"{SOURCE}.yaml", PostgresDeclaration)


def postgres(reading: Reading) -> "DltSource":
    """The dlt source: one resource a table, each yielding at most one file of pseudonymised rows, kept in the landing zone.

    Args:
        reading: where to write files, what the warehouse holds, and where to say what was read.

    Raises:
        StepFailed: the server cannot be reached, a table or column is missing, or a value has no exact counterpart.
        UsageError: a setting is missing, or a column looks personal and is not declared.
    """
    import dlt

    declared = declaration()
    settings().hmac_key()  # asked for before anything is read

    @dlt.source(name=SOURCE, max_table_nesting=0)  # type: ignore[untyped-decorator]  # dlt types no decorator
    def source() -> Iterator[Any]:
        follower = Follower(declared, reading)  # before the snapshot
        snapshot = _Snapshot(declared, reading.open)
        planned = plans(snapshot.connection, declared.tables, reading.known())
        for gone in planned.missing:
            name = gone.before.raw_table
            extract = Extract(name, reading.work / "nothing", window="nothing", shape=gone.after, findings=[gone.remark] if gone.remark else [])
            extract.changes = [gone.change] if gone.change else []
            reading.extracts[name] = extract
        followed = follower.read(snapshot.connection, planned.plans, snapshot.taken_at)
        for plan in [plan for plan in planned.plans if plan.own in followed][:1]:
            plan.remarks.extend(follower.findings)
        for plan in planned.plans:
            yield dlt.resource(
                _rows(snapshot, plan, declared, reading, followed.get(plan.own)),
                name=plan.own,
                write_disposition="append",  # what really happens is up to pipelines/merge_destination.py
                columns={LOADED_AT: {"data_type": "timestamp"}},
            )

    return source()


def check_connection() -> str:
    """Connect and say which server answers, for `warehouse doctor`.

    Raises:
        StepFailed, UsageError: as in `postgres`.
    """
    declared = declaration()
    with attached(declared.statement_timeout, declared.max_connections) as connection:
        asked = "SELECT current_setting('server_version') AS version, current_user::text AS name, pg_is_in_recovery() AS is_standby"
        version, user, is_standby = query(connection, asked)[0]
        role = ", a replica" if is_standby else ""
        readable = f"PostgreSQL {version} as {user}{role}, {len(plans(connection, declared.tables).plans)} declared tables readable"
    return readable + slot_state(declared)


class _Snapshot:
    """One connection and one repeatable-read transaction for all tables of a run.

    Attributes:
        server: "primary" or "standby".
        taken_at: the earlier of the source's and our clock when the snapshot was taken; on a standby not later than what it
            has replayed.
        settled_at: every change stamped before it is in the snapshot or was rolled back.
    """

    def __init__(self, declared: PostgresDeclaration, stack: ExitStack) -> None:
        self.connection: DuckDBPyConnection = stack.enter_context(attached(declared.statement_timeout, declared.max_connections))
        self.pace = Pace(declared.max_rows_per_second) if declared.max_rows_per_second else None
        if self.pace:
            self.pace.bind(self.connection)
        # Asked before the snapshot: what commits in between is in the snapshot, and what begins in between is stamped later.
        # The oldest transaction still open may have stamped rows at its beginning; where this user may not see other
        # sessions (no pg_monitor), the declared lag has to be enough.
        before, oldest_open, replayed, *server = query(self.connection, _BEFORE)[0]
        self.connection.begin()
        source_now, *server_now = query(self.connection, _NOW)[0]
        if server != server_now:
            raise StepFailed(f"{SOURCE}: another server answered than a moment ago.", mend="run again")
        self.server: Literal["primary", "standby"] = "standby" if server_now[0] else "primary"
        self.taken_at = min(source_now.astimezone(UTC), clock.now())
        self.settled_at = min(self.taken_at - declared.lag, before.astimezone(UTC))
        if self.server == "primary":
            if oldest_open is not None:
                self.settled_at = min(self.settled_at, oldest_open.astimezone(UTC) - timedelta(seconds=1))
            return
        # A standby shows neither the primary's open transactions nor what it has not replayed yet, however far it is behind.
        # What was committed up to the last commit that it replayed is there, so that is its "now": the primary was idle
        # since, or the rest is still to come; either way the next load begins early enough. One that has replayed nothing
        # since it started knows no time at all: then nothing counts as settled, and the next load reads more.
        self.replayed_at = replayed.astimezone(UTC) if replayed else None
        self.taken_at = min(self.taken_at, self.replayed_at or self.taken_at)
        self.settled_at = min(self.settled_at, self.replayed_at - declared.lag) if self.replayed_at else _UNKNOWN

    def is_behind(self, held: Held) -> bool:
        """Whether this standby may lack what the warehouse holds already, because another server was read before."""
        return self.server == "standby" and held.loaded_at is not None and (self.replayed_at is None or self.replayed_at < held.loaded_at)


def _rows(snapshot: _Snapshot, plan: Plan, declared: PostgresDeclaration, reading: Reading, followed: Followed | None) -> Iterator[Any]:
    """The body of a resource: stream into one Parquet file, drop what is known, add what was deleted, land, hand to dlt."""
    from dlt.extract import with_file_import

    from privacy.pseudonyms import keyed_name

    began = time.monotonic()
    held, key = reading.held(plan.own, plan.cursor), [keyed_name(SOURCE, plan.own, column) for column in plan.primary_key]
    extract = Extract(
        plan.own, reading.work / f"{len(reading.extracts)}.parquet", primary_key=key, shape=plan.shape, findings=plan.remarks, server=snapshot.server
    )
    reading.extracts[plan.own] = extract
    extract.changes = reading.changes(plan.shape, is_widening)
    if finding := drift.finding(extract.changes):
        extract.findings.append(f"{SOURCE}: {finding}")
    loaded_at = max(snapshot.taken_at, held.loaded_at + timedelta(microseconds=1)) if held.loaded_at else snapshot.taken_at
    is_reshaped = not is_same_key(held.primary_key, key) or bool(clashing(held.columns, {name: one.type for name, one in plan.readings.items()}))
    stream = Stream(snapshot.connection, plan, loaded_at, snapshot.settled_at, snapshot.pace)
    extract.asked = stream.asked
    is_whole = is_reshaped or drift.reads_whole(extract.changes)
    changes = followed.stamped(loaded_at, snapshot.settled_at) if followed and followed.files else None
    versions = extract.file.with_suffix(".versions")
    is_by_log = followed is not None and not followed.is_whole and not is_whole and held.loaded_at is not None and not _lacks(plan, held)
    if changes and followed:
        most = declared.max_deleted_share if is_by_log else None
        extract.versions = followed.changes
        extract.rows_changed, extract.rows_deleted = reading.replay(plan.own, key, changes, versions, extract.file, most)
    if followed and is_by_log:
        extract.window, extract.rows_read = "log", followed.changes
        if not changes:
            stream.write(extract.file, "false")
        elif extract.rows_changed:
            extract.rows_changed = reading.without_known(plan.own, key, extract.file) - extract.rows_deleted
    else:
        extract.rows_deleted = 0
        _query(stream, snapshot, plan, reading, extract, held, is_whole=is_whole or followed is not None)
    extract.bytes_written, extract.seconds = extract.file.stat().st_size, time.monotonic() - began
    if plan.way == "replace":
        if not reading.is_believable(plan.own, extract.rows_read, declared.max_deleted_share):
            extract.rows_changed = 0
        elif not extract.rows_read:
            extract.rows_deleted = held.rows  # an emptied table replaces what was there, too
    # Where the thread was lost, rows may have been deleted unseen.
    is_lost = any(change.change == "table replaced" for change in extract.changes) or (followed is not None and followed.is_whole)
    is_due = is_lost or reading.deletes_due(plan.own, plan.table.deletes or declared.deletes)
    # Keys that a replica does not have yet are not keys that are gone.
    if plan.way != "replace" and held.loaded_at and not is_reshaped and not snapshot.is_behind(held) and is_due:
        keys = extract.file.with_suffix(".keys")
        stream.write_keys(keys, key)
        extract.seconds = time.monotonic() - began
        extract.rows_deleted += reading.add_deleted(plan.own, key, keys, extract.file, loaded_at, declared.max_deleted_share)
    if extract.rows_changed or extract.rows_deleted:
        reference = reading.land(plan.own, key, extract.file)
        yield with_file_import(str(reference), "jsonl", extract.rows_changed + extract.rows_deleted)
    if changes:
        yield with_file_import(str(reading.land(versions_of(plan.own), VERSION_KEY, versions)), "jsonl", extract.versions)


def _query(stream: Stream, snapshot: _Snapshot, plan: Plan, reading: Reading, extract: Extract, held: Held, *, is_whole: bool) -> None:
    """Read the whole table or what changed into the extract's file, without what is known."""
    window, overlaps = _window(plan, held, is_whole=is_whole)
    extract.window = "changed rows" if window else "whole table"
    if plan.way == "changes" and not window and snapshot.is_behind(held):
        raise StepFailed(
            f"{SOURCE}: {plan.relation.full_name}: the replica is behind what was loaded already, and would take the table back to an earlier state.",
            mend="run again when it has caught up, or name the primary alone in SOURCES__POSTGRES__CREDENTIALS",
        )
    choices = {name: column.on_unrepresentable for name, column in plan.table.columns.items()}
    refuse_unrepresentable(snapshot.connection, plan, choices, window)
    extract.rows_read = extract.rows_changed = stream.write(extract.file, window)
    refuse_unrepresentable(snapshot.connection, plan, choices, window, extract.file)
    if not plan.is_key_proved and extract.primary_key:
        refuse_doubled_keys(snapshot.connection, plan, extract.primary_key, extract.file)
    if overlaps and extract.rows_read:
        extract.rows_changed = reading.without_known(plan.own, extract.primary_key, extract.file, plan.cursor, held.cursor)


def _lacks(plan: Plan, held: Held) -> bool:
    """Whether the table has a column that was never read."""
    missing = {name.lower() for name in plan.readings} - {name.lower() for name in held.columns}
    return any(not any(other.lower().startswith((f"{name}_", f"is_{name}_")) for other in held.columns) for name in missing)


def _window(plan: Plan, held: Held, *, is_whole: bool) -> tuple[str, bool]:
    """The condition in PostgreSQL for what to read (empty: everything), and whether it may reach over rows already held.

    Everything stamped before `settled_at` was committed when it was last read: a row equal to the highest cursor is known
    then. Otherwise go back to where late commits and ties may still have appeared, and drop what is known.
    """
    cannot = is_whole or plan.way != "changes" or _lacks(plan, held)
    if cannot or plan.cursor is None or held.loaded_at is None or held.cursor is None or held.settled_at is None:
        return "", held.loaded_at is not None
    cursor, nullable = quoted(plan.cursor), plan.is_nullable(plan.cursor)
    lag = ceil((held.loaded_at - held.settled_at).total_seconds())
    if isinstance(held.cursor, datetime) and held.cursor.tzinfo is not None:
        overlaps = held.cursor >= held.settled_at
        bound = f"{cursor} >= {timestamp(held.settled_at)}" if overlaps else f"{cursor} > {timestamp(held.cursor)}"
    elif isinstance(held.cursor, int):
        overlaps, bound = True, f"{cursor} >= {held.cursor}"
    else:  # a timestamp without a zone or a date: nothing says how it relates to the clock, so always go back by the lag
        highest = held.cursor.isoformat()
        if highest > (held.loaded_at + _EASTERNMOST).isoformat():  # the future, in any zone: it must not hide what changes until then
            highest = (held.loaded_at - _WESTERNMOST).replace(tzinfo=None).isoformat()
        begin = f"timestamp {literal(highest)} - interval '{lag} seconds'"  # of a date, the whole day
        overlaps, bound = True, f"{cursor} >= " + (begin if isinstance(held.cursor, datetime) else f"({begin})::date")
    return bound + (f" OR {cursor} IS NULL" if nullable else ""), overlaps or nullable
