"""The ledger: what ran, when, with which result. `ops.runs` and `ops.run_steps`.

It is kept in SQLite beside the warehouse, because a run must be recorded also while another process holds the
warehouse, or when the warehouse cannot be opened at all. Each run copies it into the warehouse's schema `ops`, and an
empty machine reads it back from there (docs/adr/0003-ledger-in-sqlite.md).
"""

import json
import os
import sqlite3
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from warehouse import clock, telemetry
from warehouse.errors import FindingsFound, WarehouseError, scrub
from warehouse.settings import settings

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

RUNS = {
    "run_id": "VARCHAR", "command": "VARCHAR", "started_at": "TIMESTAMPTZ", "ended_at": "TIMESTAMPTZ", "seconds": "DOUBLE",
    "status": "VARCHAR", "error": "VARCHAR", "versions": "VARCHAR", "pid": "BIGINT",
}  # fmt: skip
RUN_STEPS = {
    "run_id": "VARCHAR", "position": "BIGINT", "step": "VARCHAR", "item": "VARCHAR", "started_at": "TIMESTAMPTZ",
    "ended_at": "TIMESTAMPTZ", "seconds": "DOUBLE", "status": "VARCHAR", "rows_in": "BIGINT", "rows_out": "BIGINT",
    "error": "VARCHAR", "detail": "VARCHAR",
}  # fmt: skip
BESIDE = ("backup", "restore", "drill")
"""Commands that run beside the writer of the warehouse: they do not hold the lease all the time."""
_DRILLS = """
    SELECT run_id, ended_at, item AS data, detail ->> 'backup' AS backup, status, (detail ->> 'seconds')::DOUBLE AS restore_seconds,
        (detail ->> 'recovery_point_seconds')::DOUBLE AS recovery_point_seconds, (detail ->> 'bytes')::BIGINT AS bytes,
        (detail ->> 'tables')::BIGINT AS tables_equal, (detail ->> 'metrics')::BIGINT AS metrics_equal, error
    FROM ops.run_steps WHERE step = 'drill'
"""
_SQLITE = {"VARCHAR": "TEXT", "TIMESTAMPTZ": "TEXT", "BIGINT": "INTEGER", "DOUBLE": "REAL"}
_BALLAST_BYTES = 1 << 20
FOLLOWS = "run --follow"
"""What the runs are called that begin by themselves, as often as there is reason to."""

_OLD = "SELECT run_id FROM runs WHERE copied = 1 AND command = ? AND status = 'succeeded' AND ended_at < ? ORDER BY ended_at LIMIT 1000"
_MOVED = """
    SELECT run_id FROM run_steps WHERE run_id IN ({}) AND (
      status NOT IN ('succeeded', 'skipped') OR (step <> 'check' AND rows_out > 0)
      OR coalesce(json_extract(detail, '$.planned'), 0) OR json_array_length(coalesce(json_extract(detail, '$.schema_changes'), '[]')) > 0
      OR EXISTS (SELECT 1 FROM json_each(detail, '$.tables') AS one WHERE json_extract(one.value, '$.rows_deleted') > 0)
    )
"""
_NEWEST = """
    SELECT mine.run_id FROM run_steps AS mine WHERE mine.run_id IN ({}) AND mine.status = 'succeeded' AND NOT EXISTS (
      SELECT 1 FROM run_steps AS later JOIN runs USING (run_id)
      WHERE later.step = mine.step AND later.item = mine.item AND later.ended_at > mine.ended_at AND later.status = 'succeeded' AND runs.status = 'succeeded'
    )
"""


@dataclass
class Step:
    """One step of a run; whoever does the work fills in the rows and anything worth keeping in `detail`."""

    name: str
    item: str = ""
    rows_in: int | None = None
    rows_out: int | None = None
    detail: dict[str, Any] = field(default_factory=dict)
    status: str = "running"
    seconds: float = 0.0
    error: str | None = None


@dataclass
class Run:
    """One invocation of the command line that does work."""

    run_id: str
    command: str
    steps: list[Step] = field(default_factory=list)

    @contextmanager
    def step(self, name: str, item: str = "") -> Iterator[Step]:
        """Record a step: `succeeded`, `skipped` (set by the caller), `findings` or `failed`, with its error, scrubbed."""
        step = Step(name, item)
        self.steps.append(step)
        position = len(self.steps)
        started_at, began = clock.now(), time.monotonic()
        _write_step(self, position, step, started_at, None)
        with telemetry.span(name, item=item) as traced:
            try:
                yield step
            except BaseException as error:
                step.status, step.error = _outcome(error)
                raise
            else:
                step.status = "succeeded" if step.status == "running" else step.status
            finally:
                step.seconds = time.monotonic() - began
                _write_step(self, position, step, started_at, clock.now())
                traced.set(status=step.status, rows_in=step.rows_in, rows_out=step.rows_out)


@contextmanager
def run(command: str) -> Iterator[Run]:
    """Record a run around the work inside; what is raised is recorded and raised again."""
    current = Run(run_id=uuid.uuid4().hex, command=command)
    started_at, began = clock.now(), time.monotonic()
    status, message = "running", None
    _write_run(current, started_at, None, None, status, None)
    with telemetry.span(f"warehouse {command.split()[0]}", command=command, run_id=current.run_id) as traced:
        try:
            yield current
            status = "succeeded"
        except BaseException as error:
            status, message = _outcome(error)
            raise
        finally:
            _write_run(current, started_at, clock.now(), time.monotonic() - began, status, message)
            traced.set(status=status)


@contextmanager
def opened() -> Iterator[sqlite3.Connection]:
    """The ledger's SQLite in one durable transaction, for rooms that keep tables of their own in it; an error undoes the block."""
    with _ledger() as ledger:
        yield ledger


def mark_interrupted(own: str = "", *, beside: bool = False) -> int:
    """Under the lease: runs that still say `running` were killed, all but one's own. Returns how many there were.

    Args:
        beside: of the commands that run beside the writer, under a lock of their own; else of all others.
    """
    which = "" if beside else "NOT "
    is_beside = " OR ".join(f"command || ' ' LIKE '{command} %'" for command in BESIDE)
    with _ledger() as ledger:  # not told by their pid: in containers every process may have the same
        query = f"SELECT run_id FROM runs WHERE status = 'running' AND run_id <> ? AND {which}({is_beside})"
        killed = [row[0] for row in ledger.execute(query, (own,))]
        for run_id in killed:
            ledger.execute("UPDATE runs SET status = 'interrupted', error = 'the process was killed', copied = 0 WHERE run_id = ?", (run_id,))
            ledger.execute("UPDATE run_steps SET status = 'interrupted' WHERE run_id = ? AND status = 'running'", (run_id,))
        return len(killed)


def copy_into(connection: "DuckDBPyConnection") -> int:
    """Copy what is new or changed into the warehouse's schema `ops`.

    Returns:
        the number of runs copied.
    """
    import pyarrow as pa

    connection.execute("CREATE SCHEMA IF NOT EXISTS ops")
    for table, columns in (("runs", RUNS), ("run_steps", RUN_STEPS)):
        connection.execute(f"CREATE TABLE IF NOT EXISTS ops.{table} ({', '.join(f'{name} {kind}' for name, kind in columns.items())})")
    connection.execute(f"CREATE VIEW IF NOT EXISTS ops.drills AS {_DRILLS}")
    with _ledger() as ledger:
        changed = [row[0] for row in ledger.execute("SELECT run_id FROM runs WHERE copied = 0")]
        if not changed:
            return 0
        connection.begin()
        try:
            for table, columns in (("runs", RUNS), ("run_steps", RUN_STEPS)):
                marks = ", ".join("?" * len(changed))
                rows = ledger.execute(f"SELECT {', '.join(columns)} FROM {table} WHERE run_id IN ({marks})", changed).fetchall()
                connection.execute(f"DELETE FROM ops.{table} WHERE run_id IN ({marks})", changed)
                arrow = pa.table({name: [row[index] for row in rows] for index, name in enumerate(columns)})
                casts = ", ".join(f"{name}::{kind}" for name, kind in columns.items())
                connection.register("_ledger_rows", arrow)
                connection.execute(f"INSERT INTO ops.{table} SELECT {casts} FROM _ledger_rows")
                connection.unregister("_ledger_rows")
            connection.commit()
        except BaseException:
            connection.rollback()
            raise
        ledger.executemany("UPDATE runs SET copied = 1 WHERE run_id = ? AND status <> 'running'", [(run_id,) for run_id in changed])
        return len(changed)


def prune(connection: "DuckDBPyConnection") -> int:
    """Forget runs of `run --follow` that went well, moved no row and are older than the settings keep them; here and in `ops`.

    One that is the newest in which some step ended well stays, since that decides what is due. Of the many others a thousand
    go at once at the most.

    Returns:
        the number of runs forgotten.
    """
    limit = _text(clock.now() - timedelta(days=settings().idle_runs_kept_days))
    with _ledger() as ledger:
        old = [row[0] for row in ledger.execute(_OLD, (FOLLOWS, limit))]
        marks = ", ".join("?" * len(old))
        moved = {row[0] for row in ledger.execute(_MOVED.format(marks), old)}
        newest = {row[0] for row in ledger.execute(_NEWEST.format(marks), old)}
        forgotten = [run_id for run_id in old if run_id not in moved | newest]
        if forgotten:
            connection.begin()
            try:
                for table in ("run_steps", "runs"):
                    connection.execute(f"DELETE FROM ops.{table} WHERE run_id IN (SELECT unnest($ids))", {"ids": forgotten})
                connection.commit()
            except BaseException:
                connection.rollback()
                raise
        for table in ("run_steps", "runs"):
            ledger.executemany(f"DELETE FROM {table} WHERE run_id = ?", [(run_id,) for run_id in forgotten])
        ledger.executemany("UPDATE runs SET copied = 2 WHERE run_id = ?", [(run_id,) for run_id in moved])  # need not be looked at again
        return len(forgotten)


def is_new(own: str = "") -> bool:
    """Whether this machine's ledger knows of no run but one's own."""
    with _ledger() as ledger:
        return bool(ledger.execute("SELECT count(*) FROM runs WHERE run_id <> ?", (own,)).fetchone() == (0,))


def fill_from(connection: "DuckDBPyConnection") -> int:
    """Read the ledger of an earlier machine back from the warehouse's schema `ops`; returns the number of its runs."""
    query = "SELECT count(*) FROM duckdb_tables() WHERE database_name = current_database() AND schema_name = 'ops' AND table_name IN ('runs', 'run_steps')"
    if connection.execute(query).fetchone() != (2,):
        return 0
    with _ledger() as ledger:
        for table, columns in (("runs", RUNS), ("run_steps", RUN_STEPS)):
            casts = [f"strftime({name}, '%Y-%m-%dT%H:%M:%S.%f+00:00')" if kind == "TIMESTAMPTZ" else name for name, kind in columns.items()]
            rows = connection.execute(f"SELECT {', '.join(casts)} FROM ops.{table}").fetchall()
            ledger.executemany(f"INSERT OR IGNORE INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})", rows)
        ledger.execute("UPDATE runs SET copied = 1 WHERE status <> 'running'")
        count = ledger.execute("SELECT count(*) FROM runs").fetchone()
        return int(count[0]) - 1


def recent_runs(limit: int = 10) -> list[dict[str, Any]]:
    """The last runs, newest first, each with its `steps`."""
    if not _path().exists():
        return []
    with _ledger() as ledger:
        runs = _dicts(ledger.execute(f"SELECT {', '.join(RUNS)} FROM runs ORDER BY started_at DESC, rowid DESC LIMIT ?", (limit,)))
        for one in runs:
            query = f"SELECT {', '.join(RUN_STEPS)} FROM run_steps WHERE run_id = ? ORDER BY position"
            one["steps"] = _dicts(ledger.execute(query, (one["run_id"],)))
        return runs


def last_steps(step: str) -> list[dict[str, Any]]:
    """The last time that a step was done and ended, however it did: one for each of its items."""
    if not _path().exists():
        return []
    newest = f"SELECT {', '.join(RUN_STEPS)} FROM run_steps WHERE step = ? AND item = ? AND status <> 'skipped' AND ended_at IS NOT NULL"
    with _ledger() as ledger:
        items = ledger.execute("SELECT DISTINCT item FROM run_steps WHERE step = ? ORDER BY item", (step,)).fetchall()
        return [row for (item,) in items for row in _dicts(ledger.execute(f"{newest} ORDER BY ended_at DESC LIMIT 1", (step, item)))]


def last_success(step: str, item: str = "", *, findings_too: bool = True, within: tuple[str, str] | None = None) -> datetime | None:
    """When a step last ended well, by the one clock; None when it never did. Decides what is due.

    Args:
        findings_too: whether one that ran to its end and found something counts.
        within: the step (its name and item) that must have ended well in the same run for this one to count.
    """
    if not _path().exists():
        return None
    with _ledger() as ledger:
        well = "SELECT {} FROM run_steps WHERE step = ? AND item = ? AND status IN ('succeeded', ?)"
        outer = f" AND run_id IN ({well.format('run_id')})" if within else ""
        wanted = (step, item, "findings" if findings_too else "succeeded", *((*within, "findings") if within else ()))
        row = ledger.execute(well.format("ended_at") + outer + " ORDER BY ended_at DESC LIMIT 1", wanted).fetchone()
    return datetime.fromisoformat(row[0]) if row and row[0] else None


def _outcome(error: BaseException) -> tuple[str, str]:
    if isinstance(error, FindingsFound):
        return "findings", scrub(error.what)
    if isinstance(error, WarehouseError):
        return "failed", scrub(error.what)
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", "interrupted by the operator"
    return "failed", scrub(f"{type(error).__name__}: {error}")[:2000]


def _path() -> Path:
    return settings().home / "ledger.sqlite"


@contextmanager
def _ledger() -> Iterator[sqlite3.Connection]:
    path = _path()
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path, timeout=30, isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        for table, columns, key in (("runs", RUNS, "run_id"), ("run_steps", RUN_STEPS, "run_id, position")):
            declared = ", ".join(f"{name} {_SQLITE[kind]}" for name, kind in columns.items())
            extra = ", copied INTEGER NOT NULL DEFAULT 0" if table == "runs" else ""
            connection.execute(f"CREATE TABLE IF NOT EXISTS {table} ({declared}{extra}, PRIMARY KEY ({key}))")
        connection.execute("CREATE INDEX IF NOT EXISTS runs_by_end ON runs (copied, ended_at)")
        connection.execute("CREATE INDEX IF NOT EXISTS runs_by_last ON runs (ended_at)")
        connection.execute("CREATE INDEX IF NOT EXISTS run_steps_by_item ON run_steps (step, item, ended_at)")
        connection.execute("BEGIN IMMEDIATE")
        yield connection
        connection.execute("COMMIT")
    finally:
        connection.close()


def _write_run(current: Run, started_at: datetime, ended_at: datetime | None, seconds: float | None, status: str, error: str | None) -> None:
    values = (current.run_id, current.command, _text(started_at), _text(ended_at), seconds, status, error, _versions(), os.getpid())
    _write("INSERT OR REPLACE INTO runs (" + ", ".join(RUNS) + ") VALUES (" + ", ".join("?" * len(RUNS)) + ")", values)


def _write_step(current: Run, position: int, step: Step, started_at: datetime, ended_at: datetime | None) -> None:
    detail = json.dumps(step.detail, default=str) if step.detail else None
    values = (
        current.run_id, position, step.name, step.item, _text(started_at), _text(ended_at), step.seconds if ended_at else None,
        step.status, step.rows_in, step.rows_out, step.error, detail,
    )  # fmt: skip
    _write("INSERT OR REPLACE INTO run_steps (" + ", ".join(RUN_STEPS) + ") VALUES (" + ", ".join("?" * len(RUN_STEPS)) + ")", values)


def _write(statement: str, values: tuple[Any, ...]) -> None:
    """Write one row; on a full disk the ballast is given up, so that the failure itself can be recorded."""
    ballast = settings().home / "ledger.ballast"
    try:
        _execute(statement, values)
        if not ballast.exists():
            ballast.write_bytes(b"\0" * _BALLAST_BYTES)
    except (sqlite3.OperationalError, OSError) as error:
        if isinstance(error, sqlite3.OperationalError) and "full" not in str(error) and "disk" not in str(error):
            raise
        ballast.unlink(missing_ok=True)
        _execute(statement, values)


def _execute(statement: str, values: tuple[Any, ...]) -> None:
    with _ledger() as ledger:
        ledger.execute(statement, values)


def _dicts(cursor: sqlite3.Cursor) -> list[dict[str, Any]]:
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def _text(instant: datetime | None) -> str | None:
    return instant.isoformat(timespec="microseconds") if instant else None


def _versions() -> str:
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for package in ("startup-warehouse", "duckdb", "dlt", "sqlmesh", "soda-core"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return json.dumps(found)
