"""What is measured for Prometheus, OpenTelemetry and Datadog alike: one list of metrics, read from the ledger and the home alone.

Instants are told beside ages: an age that stands in a file stops growing when nothing writes the file any more.
"""

import json
import shutil
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from monitoring import book
from warehouse import ledger
from warehouse.lease import REFUSED, held_since
from warehouse.settings import settings

_Labelled = Iterable[tuple[Mapping[str, str], float]]
_DAY = timedelta(days=1)
_PUBLICATIONS = 1000
_FILES = ("warehouse.duckdb", "ledger.sqlite")

METRICS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "warehouse_metrics_timestamp_seconds": ("When all this was gathered.", ()),
    "warehouse_last_run_timestamp_seconds": ("When the last `warehouse run` ended.", ()),
    "warehouse_last_run_success": ("Whether it did its work; findings are counted apart.", ()),
    "warehouse_last_run_seconds": ("How long it took.", ()),
    "warehouse_last_run_step_seconds": ("How long each step of it took.", ("step", "item")),
    "warehouse_last_run_step_rows": ("How many rows each step of it wrote.", ("step", "item")),
    "warehouse_last_good_run_timestamp_seconds": ("When a `warehouse run` last did its work.", ()),
    "warehouse_runs_last_day": ("Commands that ended in the last 24 hours, by how they ended.", ("status",)),
    "warehouse_source_last_success_timestamp_seconds": ("When the source was last loaded well.", ("source",)),
    "warehouse_source_age_seconds": ("How long ago that was.", ("source",)),
    "warehouse_source_limit_seconds": ("How old it may be.", ("source",)),
    "warehouse_last_load_rows": ("How many rows of each table the last load of its source wrote.", ("source", "table")),
    "warehouse_last_check_timestamp_seconds": ("When the contracts were last checked to the end.", ()),
    "warehouse_findings": ("What is wrong now.", ("severity",)),
    "warehouse_checks_not_evaluated": ("Tables with a check that could not be evaluated.", ()),
    "warehouse_open_incidents": ("How many incidents are open.", ()),
    "warehouse_oldest_incident_timestamp_seconds": ("When the oldest open incident began.", ()),
    "warehouse_alerts_waiting": ("Alerts that no channel has taken yet.", ()),
    "warehouse_oldest_alert_timestamp_seconds": ("Since when the oldest alert is due that no channel has taken yet.", ()),
    "warehouse_published_timestamp_seconds": ("When the marts were last published.", ()),
    "warehouse_mart_rows": ("Rows of each published mart.", ("table",)),
    "warehouse_backup_last_success_timestamp_seconds": ("When a backup was last taken well.", ("data",)),
    "warehouse_backup_age_seconds": ("How long ago that was.", ("data",)),
    "warehouse_backup_limit_seconds": ("How old it may be.", ("data",)),
    "warehouse_drill_last_success_timestamp_seconds": ("When a backup was last restored and found equal.", ("data",)),
    "warehouse_drill_age_seconds": ("How long ago that was.", ("data",)),
    "warehouse_drill_limit_seconds": ("How old it may be.", ("data",)),
    "warehouse_home_free_bytes": ("What is free on the disk of WAREHOUSE_HOME.", ()),
    "warehouse_home_total_bytes": ("How large that disk is.", ()),
    "warehouse_home_file_bytes": ("How large a file of the home is.", ("file",)),
    "warehouse_writer_held_seconds": ("How long the process that writes now has held the lease; 0 when nobody writes.", ()),
    "warehouse_writer_refused_last_day": ("Commands that were turned away in the last 24 hours, because another one was writing.", ()),
}
"""Name to its help and labels; all of them are gauges."""


@dataclass(frozen=True)
class Limits:
    """What is declared elsewhere: how old each source, and each kind of backup and of drill, may be."""

    sources: Mapping[str, timedelta] = field(default_factory=dict)
    backups: Mapping[str, timedelta] = field(default_factory=dict)
    drills: Mapping[str, timedelta] = field(default_factory=dict)


@dataclass(frozen=True)
class Measure:
    """One value of one metric, in seconds, bytes or pieces."""

    name: str
    labels: Mapping[str, str]
    value: float

    @property
    def help(self) -> str:
        """What the metric says."""
        return METRICS[self.name][0]

    @property
    def unit(self) -> str:
        """Its unit as UCUM writes it."""
        return "s" if self.name.endswith("_seconds") else "By" if self.name.endswith("_bytes") else "1"


def measures(limits: Limits, now: datetime) -> list[Measure]:
    """All that is known; what never happened has no value. Works while a run is writing, and without a warehouse.

    Args:
        now: aware, by the one clock.
    """
    found: list[Measure] = []
    for name, values in _gathered(limits, now):
        for labels, value in values:
            assert set(labels) == set(METRICS[name][1]), name  # noqa: S101  # a programmer's error, seen by every test
            found.append(Measure(name, labels, float(value)))
    order = {name: number for number, name in enumerate(METRICS)}
    return sorted(found, key=lambda one: order[one.name])


def _gathered(limits: Limits, now: datetime) -> Iterator[tuple[str, _Labelled]]:
    yield "warehouse_metrics_timestamp_seconds", [({}, now.timestamp())]
    with book.opened() as kept:
        yield from _runs(kept, now)
        yield from _wrong(kept, now)
        yield "warehouse_mart_rows", [({"table": f"marts.{table}"}, rows) for table, rows in mart_rows(kept).items()]
    yield from _ages("source", "source", {source: ledger.last_success("load", source) for source in limits.sources}, limits.sources, now)
    yield "warehouse_last_load_rows", [({"source": one["item"], "table": table}, rows) for one in ledger.last_steps("load") for table, rows in _loaded(one)]
    for kind, declared in (("backup", limits.backups), ("drill", limits.drills)):
        last = {step["item"]: ledger.last_success(kind, step["item"], findings_too=False) for step in ledger.last_steps(kind)}
        yield from _ages(kind, "data", last, declared, now)
    for name, step in (("warehouse_last_check_timestamp_seconds", "check"), ("warehouse_published_timestamp_seconds", "publish")):
        at = ledger.last_success(step)
        yield name, [({}, at.timestamp())] if at else []
    yield from _home()
    since = held_since()
    yield "warehouse_writer_held_seconds", [({}, max(0.0, (now - since).total_seconds()) if since else 0)]


def _runs(kept: sqlite3.Connection, now: datetime) -> Iterator[tuple[str, _Labelled]]:
    ended = "SELECT * FROM runs WHERE ended_at IS NOT NULL AND (command = 'run' OR command LIKE 'run %')"
    last = kept.execute(f"{ended} ORDER BY ended_at DESC, rowid DESC LIMIT 1").fetchone()
    good = kept.execute(f"{ended} AND status IN ('succeeded', 'findings') ORDER BY ended_at DESC LIMIT 1").fetchone()
    if last is not None:
        yield "warehouse_last_run_timestamp_seconds", [({}, _epoch(last["ended_at"]))]
        yield "warehouse_last_run_success", [({}, last["status"] in ("succeeded", "findings"))]
        yield "warehouse_last_run_seconds", [({}, last["seconds"] or 0)]
        query = "SELECT step, item, sum(seconds) AS seconds, sum(rows_out) AS rows_out FROM run_steps WHERE run_id = ? AND status <> 'skipped' GROUP BY 1, 2"
        steps = [({"step": one["step"], "item": one["item"]}, one) for one in kept.execute(query, (last["run_id"],)).fetchall()]
        yield "warehouse_last_run_step_seconds", [(labels, one["seconds"] or 0) for labels, one in steps]
        yield "warehouse_last_run_step_rows", [(labels, one["rows_out"]) for labels, one in steps if one["rows_out"] is not None]
    if good is not None:
        yield "warehouse_last_good_run_timestamp_seconds", [({}, _epoch(good["ended_at"]))]
    lately = (book.text(now - _DAY),)
    counted = dict(map(tuple, kept.execute("SELECT status, count(*) FROM runs WHERE ended_at >= ? GROUP BY 1", lately).fetchall()))
    yield "warehouse_runs_last_day", [({"status": status}, count) for status, count in ({"succeeded": 0, "findings": 0, "failed": 0} | counted).items()]
    refused = kept.execute("SELECT count(*) FROM runs WHERE ended_at >= ? AND status = 'failed' AND instr(error, ?)", (*lately, REFUSED)).fetchone()
    yield "warehouse_writer_refused_last_day", [({}, refused[0])]


def _wrong(kept: sqlite3.Connection, now: datetime) -> Iterator[tuple[str, _Labelled]]:
    found = kept.execute("SELECT severity, count(*) FROM findings WHERE resolved_at IS NULL GROUP BY 1").fetchall()
    counts = {"error": 0, "warning": 0} | dict(map(tuple, found))
    yield "warehouse_findings", [({"severity": severity}, count) for severity, count in counts.items()]
    unknown = "SELECT count(DISTINCT table_name) FROM findings WHERE resolved_at IS NULL AND check_name = 'evaluation'"
    yield "warehouse_checks_not_evaluated", [({}, kept.execute(unknown).fetchone()[0])]
    incidents, oldest = kept.execute("SELECT count(*), min(opened_at) FROM incidents WHERE resolved_at IS NULL").fetchone()
    yield "warehouse_open_incidents", [({}, incidents)]
    yield "warehouse_oldest_incident_timestamp_seconds", [({}, _epoch(oldest))] if oldest else []
    (waiting,) = kept.execute("SELECT count(*) FROM alerts WHERE status IN ('queued', 'sending')").fetchone()
    yield "warehouse_alerts_waiting", [({}, waiting)]
    # One that was never tried waits from the end of its quiet hours; one that was, from when it was queued.
    began = "SELECT min(CASE WHEN attempts > 0 THEN created_at ELSE not_before END) AS began FROM alerts WHERE status IN ('queued', 'sending')"
    (due,) = kept.execute(began).fetchone()
    yield "warehouse_oldest_alert_timestamp_seconds", [({}, _epoch(due))] if due and _epoch(due) <= now.timestamp() else []


def mart_rows(kept: sqlite3.Connection) -> dict[str, int]:
    """Rows of each mart as it was last published, by the ledger; without those that none of the last thousand publications changed."""
    steps = "SELECT detail FROM run_steps WHERE step = 'publish' AND item = '' AND status = 'succeeded' AND detail IS NOT NULL ORDER BY ended_at DESC LIMIT ?"
    rows: dict[str, int] = {}
    for (detail,) in kept.execute(steps, (_PUBLICATIONS,)).fetchall():  # each names what it changed; the newest come first
        rows = json.loads(detail).get("rows", {}) | rows
    return dict(sorted(rows.items()))


def _loaded(step: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    for table, told in json.loads(step["detail"] or "{}").get("tables", {}).items():
        yield table, told.get("rows_out") or 0


def _ages(kind: str, label: str, last: Mapping[str, datetime | None], limits: Mapping[str, timedelta], now: datetime) -> Iterator[tuple[str, _Labelled]]:
    known = [(name, at) for name, at in last.items() if at is not None]
    yield f"warehouse_{kind}_last_success_timestamp_seconds", [({label: name}, at.timestamp()) for name, at in known]
    yield f"warehouse_{kind}_age_seconds", [({label: name}, (now - at).total_seconds()) for name, at in known]
    yield f"warehouse_{kind}_limit_seconds", [({label: name}, limit.total_seconds()) for name, limit in limits.items()]


def _home() -> Iterator[tuple[str, _Labelled]]:
    home = settings().home
    disk = shutil.disk_usage(home)
    yield "warehouse_home_free_bytes", [({}, disk.free)]
    yield "warehouse_home_total_bytes", [({}, disk.total)]
    yield "warehouse_home_file_bytes", [({"file": name}, (home / name).stat().st_size) for name in _FILES if (home / name).exists()]


def _epoch(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
