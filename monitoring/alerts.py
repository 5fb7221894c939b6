"""Incidents over time, and what has to be told of them: opened, changed, escalated, resolved. Nothing is sent here."""

import hashlib
import json
import sqlite3
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from monitoring import book
from monitoring.findings import Finding
from monitoring.incidents import Group, grouped
from monitoring.lineage import read_lineage
from monitoring.messages import Message, message
from monitoring.rules import Rule, Rules
from warehouse.alert_settings import AlertSettings, Channel
from warehouse.errors import UsageError
from warehouse.settings import settings

TELLS = ("open", "escalate")
"""The actions that tell somebody who did not know yet; only these look for another channel."""


@dataclass(frozen=True)
class Told:
    """What is to be told of one incident, and where."""

    group: Group
    rule: Rule
    message: Message
    channels: list[Channel]


def to_tell(findings: Sequence[Finding], rules: Rules) -> list[Told]:
    """Incidents as they are now, by the rules; those that go nowhere are left out."""
    if not findings:
        return []
    lineage = read_lineage()
    told = []
    for group in grouped(findings, lineage):
        rule = rules.rule(group.cause)
        wanted: list[Channel] = [] if rule.to == "nowhere" else [rule.to]
        if "page" not in wanted and any(rules.rule(one).to == "page" for one in group.findings):
            wanted.append("page")  # what wakes somebody does so whatever it follows from
        if wanted:
            told.append(Told(group, rule, message(group, rules, lineage), wanted))
    return told


def settle(rules: Rules, alerts: AlertSettings, now: datetime) -> None:
    """Bring incidents in line with the findings that are active, and put into the outbox what has to be told.

    Args:
        alerts: says which channels are configured; where none is, incidents are kept and nothing is queued.
        now: aware, by the one clock.
    """
    with book.opened() as kept:
        findings = book.active_findings(kept)
        rows = kept.execute("SELECT * FROM incidents WHERE resolved_at IS NULL").fetchall()
        if not findings and not rows:
            return
        is_open = {row["fingerprint"]: row for row in rows}
        for told in to_tell(findings, rules):
            row = is_open.pop(told.group.key, None)
            incident_id = row["incident_id"] if row is not None else uuid.uuid4().hex[:12]
            _keep(kept, incident_id, told, now, is_new=row is None)
            for channel in told.channels:
                _tell(kept, incident_id, told, channel, rules, alerts, now)
            if row is not None and row["message"] != json.dumps(told.message.as_json()):
                _update(kept, incident_id, told.message, now)
            if row is not None:
                _escalate(kept, row, told, rules, alerts, now)
        for row in is_open.values():
            _resolve(kept, row, now)


def announce(title: str, lines: list[str], runbook: str, rules: Rules, now: datetime) -> bool:
    """Queue something that people are to keep and need do nothing about: by email, else in Slack; nobody is woken, and the same is said once.

    Returns:
        whether it was queued: a channel is configured, and it was not said before.
    """
    channel: Channel | None = next((one for one in ("email", "slack") if settings().alerts.is_configured(one)), None)
    if channel is None:
        return False
    key = f"announced:{hashlib.sha256(json.dumps([title, lines]).encode()).hexdigest()[:16]}"
    since = f"{now:%Y-%m-%d %H:%M} UTC"
    what = Message(key, title, "warning", lines, since, [], "", f"{rules.runbook_base}{runbook}", "")
    with book.opened() as kept:
        if _rows(kept, key, "action = 'open'"):
            return False
        queue(kept, key, channel, "open", channel, json.dumps(what.as_json()), now, now)
    return True


def acknowledge(incident_id: str, now: datetime) -> None:
    """Note that somebody deals with an incident: it is not escalated.

    Raises:
        UsageError: no open incident is called so.
    """
    with book.opened() as kept:
        changed = kept.execute(
            "UPDATE incidents SET acknowledged_at = ?, copied = 0 WHERE incident_id = ? AND resolved_at IS NULL", (book.text(now), incident_id)
        ).rowcount
    if not changed:
        raise UsageError(f"there is no open incident {incident_id!r}.", mend="`warehouse alert --dry-run` lists the open ones")


def open_incidents() -> list[dict[str, str | int | None]]:
    """The incidents that are open, the oldest first."""
    with book.opened() as kept:
        rows = kept.execute(
            "SELECT incident_id, title, severity, opened_at, acknowledged_at, findings FROM incidents WHERE resolved_at IS NULL ORDER BY opened_at"
        )
        return [dict(row) for row in rows.fetchall()]


def candidates(wanted: Channel, rules: Rules, alerts: AlertSettings) -> list[Channel]:
    """The configured channels for an alert: the one that is wanted, then those that take over in the declared order."""
    order = [wanted, *(channel for channel in rules.takes_over if channel != wanted)]
    return [channel for channel in order if alerts.is_configured(channel)]


def queue(kept: sqlite3.Connection, incident_id: str, channel: Channel, action: str, lane: str, what: str, now: datetime, not_before: datetime) -> None:
    """Put one alert into the outbox; its id is the same whoever queues it, except that each change of an incident is one more."""
    count = ""
    if action == "update":
        row = kept.execute("SELECT count(*) FROM alerts WHERE incident_id = ? AND channel = ? AND action = 'update'", (incident_id, channel)).fetchone()
        count = f":{row[0] + 1}"
    values = {
        "alert_id": f"{incident_id}:{action}:{channel}{count}", "incident_id": incident_id, "channel": channel, "action": action, "lane": lane,
        "message": what, "status": "queued", "created_at": book.text(now), "not_before": book.text(not_before), "attempts": 0,
    }  # fmt: skip
    book.insert(kept, "alerts", values)


def _keep(kept: sqlite3.Connection, incident_id: str, told: Told, now: datetime, *, is_new: bool) -> None:
    values = {
        "fingerprint": told.group.key, "title": told.message.title, "rule": told.rule.name, "severity": told.message.severity,
        "findings": len(told.group.findings), "message": json.dumps(told.message.as_json()),
    }  # fmt: skip
    if is_new:
        book.insert(kept, "incidents", {"incident_id": incident_id, "opened_at": book.text(now), **values})
        return
    changes = ", ".join(f"{name} = ?" for name in values)
    kept.execute(f"UPDATE incidents SET {changes}, copied = 0 WHERE incident_id = ?", (*values.values(), incident_id))


def _tell(kept: sqlite3.Connection, incident_id: str, told: Told, wanted: Channel, rules: Rules, alerts: AlertSettings, now: datetime) -> None:
    """Queue what tells of an incident, once for each channel that is wanted; also later, when the first channel is configured."""
    if _rows(kept, incident_id, "action = 'open' AND lane = ?", wanted):
        return
    able = candidates(wanted, rules, alerts)
    if able and not _rows(kept, incident_id, "action = 'open' AND channel = ?", able[0]):
        waits = now if wanted == "page" else rules.quiet_until(told.rule, now) or now
        queue(kept, incident_id, able[0], "open", wanted, json.dumps(told.message.as_json()), now, waits)


def _update(kept: sqlite3.Connection, incident_id: str, what: Message, now: datetime) -> None:
    content = json.dumps(what.as_json())
    untold = "UPDATE alerts SET message = ?, copied = 0 WHERE incident_id = ? AND status = 'queued' AND action IN ('open', 'escalate', 'update')"
    kept.execute(untold, (content, incident_id))
    for channel in _told_in(kept, incident_id):
        if channel == "slack" and not _rows(kept, incident_id, "action = 'update' AND status = 'queued' AND channel = ?", channel):
            queue(kept, incident_id, channel, "update", channel, content, now, now)


def _escalate(kept: sqlite3.Connection, row: sqlite3.Row, told: Told, rules: Rules, alerts: AlertSettings, now: datetime) -> None:
    escalate = told.rule.escalate
    if escalate is None or row["acknowledged_at"] or now < datetime.fromisoformat(row["opened_at"]) + timedelta(minutes=escalate.after_minutes):
        return
    able = [channel for channel in candidates(escalate.to, rules, alerts) if channel not in _told_in(kept, row["incident_id"])]
    if able and not _rows(kept, row["incident_id"], "action = 'escalate'"):
        queue(kept, row["incident_id"], able[0], "escalate", "escalate", json.dumps(told.message.as_json()), now, now)


def _resolve(kept: sqlite3.Connection, row: sqlite3.Row, now: datetime) -> None:
    incident_id = row["incident_id"]
    kept.execute("UPDATE incidents SET resolved_at = ?, copied = 0 WHERE incident_id = ?", (book.text(now), incident_id))
    content, told_in = json.dumps(Message(**json.loads(row["message"])).resolved(now).as_json()), _told_in(kept, incident_id)
    # Nobody is woken for what is over; a message that a channel may have taken already is sent, so that it can be marked.
    over = "action = 'update' OR channel = 'page' OR attempts = 0"
    kept.execute(f"UPDATE alerts SET status = 'overtaken', copied = 0 WHERE incident_id = ? AND status = 'queued' AND ({over})", (incident_id,))
    for channel in told_in:
        queue(kept, incident_id, channel, "resolve", channel, content, now, now)


def _told_in(kept: sqlite3.Connection, incident_id: str) -> list[Channel]:
    """The channels in which an incident was told, or may have been: those are also told that it is over."""
    rows: Iterable[sqlite3.Row] = _rows(kept, incident_id, "action IN ('open', 'escalate') AND (status IN ('sent', 'sending') OR attempts > 0)")
    return list(dict.fromkeys(row["channel"] for row in rows))


def _rows(kept: sqlite3.Connection, incident_id: str, where: str, *values: str) -> list[sqlite3.Row]:
    return kept.execute(f"SELECT * FROM alerts WHERE incident_id = ? AND {where} ORDER BY created_at, alert_id", (incident_id, *values)).fetchall()
