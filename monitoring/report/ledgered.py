"""What the ledger and the book tell a report: runs, incidents, findings, publications. Each is one short query."""

import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta

from monitoring import book
from monitoring.findings import Finding
from monitoring.report.facts import Broken, Incident, LoadedTable, MartRows, RunDay, RunRow, State
from monitoring.rules import Rules
from warehouse.errors import scrub

DAYS = 30
"""How far back runs and incidents are told."""
RUNS = 25
"""How many runs are told one by one: those that did not go well first."""
INCIDENTS = 50
PUBLICATIONS = 60
_BAD = ("failed", "interrupted")
_TURNS = """
    SELECT status, ended_at, error FROM (
      SELECT *, lag(status) OVER (ORDER BY ended_at) AS before FROM runs WHERE (command = 'run' OR command LIKE 'run %') AND ended_at IS NOT NULL
    ) WHERE before IS NOT status ORDER BY ended_at
"""
"""The runs that ended otherwise than the one before."""


def run_days(kept: sqlite3.Connection, now: datetime) -> list[RunDay]:
    """One entry a UTC day of the last 30, days without a run among them."""
    since = _since(now)
    found = {day: RunDay(day) for day in (now.date() - timedelta(days=back) for back in range(DAYS - 1, -1, -1))}
    query = "SELECT substr(ended_at, 1, 10), status, count(*), max(seconds) FROM runs WHERE ended_at >= ? GROUP BY 1, 2"
    for day, status, count, seconds in kept.execute(query, (since,)).fetchall():
        at = date.fromisoformat(day)
        if at in found:
            name = status if status in ("succeeded", "findings") else "failed"
            one = found[at]
            found[at] = replace(one, **{name: getattr(one, name) + count}, seconds=max(one.seconds, seconds or 0))
    query = "SELECT substr(ended_at, 1, 10), sum(rows_out) FROM run_steps WHERE step = 'load' AND ended_at >= ? AND rows_out > 0 GROUP BY 1"
    for day, rows in kept.execute(query, (since,)).fetchall():
        at = date.fromisoformat(day)
        if at in found:
            found[at] = replace(found[at], rows=rows)
    return list(found.values())


def run_rows(kept: sqlite3.Connection, now: datetime, writing: bool) -> list[RunRow]:
    """The newest runs, and up to as many that went wrong in the last 30 days; newest first."""
    newest = kept.execute("SELECT * FROM runs ORDER BY started_at DESC, rowid DESC LIMIT ?", (RUNS,)).fetchall()
    wrong = "SELECT * FROM runs WHERE started_at >= ? AND status IN ('failed', 'interrupted') ORDER BY started_at DESC LIMIT ?"
    every = {row["run_id"]: row for row in [*newest, *kept.execute(wrong, (_since(now), RUNS)).fetchall()]}
    steps = defaultdict(list)
    marks = ", ".join("?" * len(every))
    for step in kept.execute(f"SELECT run_id, step, item, status, rows_out FROM run_steps WHERE run_id IN ({marks}) ORDER BY position", list(every)).fetchall():
        steps[step["run_id"]].append(step)
    return [_run_row(row, steps[run_id], writing) for run_id, row in sorted(every.items(), key=lambda one: one[1]["started_at"], reverse=True)]


def trouble(kept: sqlite3.Connection) -> tuple[datetime | None, datetime | None, str]:
    """Of `warehouse run`: since when it fails run after run, when it last began to do well again, and the last error; None when it never did."""
    failing: datetime | None = None
    mended: datetime | None = None
    said = ""
    for status, ended_at, error in kept.execute(_TURNS).fetchall():
        at = datetime.fromisoformat(ended_at)
        if status in _BAD:
            failing, said = failing or at, _line(error)
        elif failing is not None or mended is None:
            failing, mended = None, at
    return failing, mended, said


def last_resolved(kept: sqlite3.Connection) -> datetime | None:
    """When the last finding that was an error went away."""
    (at,) = kept.execute("SELECT max(resolved_at) FROM findings WHERE severity = 'error' AND resolved_at IS NOT NULL").fetchone()
    return _instant(at)


def incidents(kept: sqlite3.Connection, rules: Rules, now: datetime) -> tuple[list[Incident], list[Incident]]:
    """The open incidents, by severity and the order of the rules, the oldest first; and those resolved in the last 30 days, the newest first."""
    order = {rule.name: number for number, rule in enumerate(rules.rules)}
    still = kept.execute("SELECT * FROM incidents WHERE resolved_at IS NULL ORDER BY opened_at").fetchall()
    still.sort(key=lambda row: (row["severity"] != "error", order.get(row["rule"], len(order)), row["opened_at"]))
    past = kept.execute("SELECT * FROM incidents WHERE resolved_at >= ? ORDER BY resolved_at DESC LIMIT ?", (_since(now), INCIDENTS)).fetchall()
    return [_incident(row, rules) for row in still], [_incident(row, rules) for row in past]


def broken(findings: Sequence[Finding]) -> dict[str, list[Broken]]:
    """What is wrong now, by table."""
    found: dict[str, list[Broken]] = defaultdict(list)
    for one in findings:
        found[one.table].append(Broken(one.check, one.column or "", one.severity, _line(one.observed), _line(one.expected), one.since))
    return found


def loaded_tables(kept: sqlite3.Connection, sources: Iterable[str], states: Mapping[str, State]) -> dict[str, list[LoadedTable]]:
    """The tables of each source's last load that ended, by source."""
    query = "SELECT detail FROM run_steps WHERE step = 'load' AND item = ? AND status IN ('succeeded', 'findings') ORDER BY ended_at DESC LIMIT 1"
    found = {}
    for source in sources:
        row = kept.execute(query, (source,)).fetchone()
        told = json.loads(row["detail"] or "{}").get("tables", {}) if row is not None else {}
        found[source] = [
            LoadedTable(table, one.get("rows_in") or 0, one.get("rows_out") or 0, states.get(f"raw_{source}.{table}", "well")) for table, one in told.items()
        ]
    return found


def mart_history(kept: sqlite3.Connection) -> list[MartRows]:
    """Rows of each mart in the last publications that changed it."""
    query = (
        "SELECT ended_at, detail FROM run_steps WHERE step = 'publish' AND item = '' AND status = 'succeeded' AND detail LIKE '%\"rows\"%'"
        " ORDER BY ended_at DESC LIMIT ?"
    )
    found: dict[str, list[tuple[datetime, int]]] = defaultdict(list)
    for ended_at, detail in reversed(kept.execute(query, (PUBLICATIONS,)).fetchall()):
        for table, rows in json.loads(detail).get("rows", {}).items():
            found[table].append((datetime.fromisoformat(ended_at), rows))
    return [MartRows(f"marts.{table}", history[-1][1], history) for table, history in sorted(found.items())]


def waiting_alerts(kept: sqlite3.Connection) -> int:
    """Alerts that a channel refused at least once and none has taken yet."""
    (count,) = kept.execute("SELECT count(*) FROM alerts WHERE status IN ('queued', 'sending') AND attempts > 0").fetchone()
    return int(count)


def _run_row(row: sqlite3.Row, steps: Sequence[sqlite3.Row], writing: bool) -> RunRow:
    status = row["status"]
    if status == "running" and not writing:
        status = "interrupted"  # its process is gone; the next run will write it so
    failed = [f"{one['step']} {one['item']}".strip() for one in steps if one["status"] in ("failed", "interrupted", "running")] if status in _BAD else []
    rows = [one["rows_out"] for one in steps if one["step"] == "load" and one["rows_out"] is not None]
    error = _line(row["error"]) or ("the process was killed" if status == "interrupted" else "")
    started = datetime.fromisoformat(row["started_at"])
    return RunRow(row["run_id"], scrub(row["command"]), status, started, row["seconds"], sum(rows) if rows else None, failed[-1] if failed else "", error)


def _incident(row: sqlite3.Row, rules: Rules) -> Incident:
    told = json.loads(row["message"]) if row["message"] else {}
    opened = datetime.fromisoformat(row["opened_at"])
    resolved, acknowledged = _instant(row["resolved_at"]), _instant(row["acknowledged_at"])
    state: State = "well" if resolved else "wrong" if row["severity"] == "error" else "warning"
    return Incident(
        row["incident_id"], row["title"], state, opened, resolved, acknowledged, told.get("since", ""), told.get("what", []), told.get("affected", []),
        told.get("owner", ""), told.get("query", ""), rules.named(row["rule"]).runbook,
    )  # fmt: skip


def _since(now: datetime) -> str:
    return book.text(now - timedelta(days=DAYS))


def _instant(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def _line(text: str | None) -> str:
    return scrub(" ".join((text or "").split()))[:300]
