"""The outbox: what is queued in the book is sent, and it is noted before and after, so that a kill loses nothing and doubles nothing."""

import fcntl
import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

from monitoring import book
from monitoring.alerts import TELLS, candidates, queue
from monitoring.channels import Alert, Refused, Unreachable, send
from monitoring.messages import Message
from monitoring.rules import Rules
from warehouse import clock
from warehouse.settings import settings

PATIENCE = 45.0
"""Seconds that one round of sending waits for channels that ask for patience, all of them together."""
TRIES = 3
_FIRST_WAIT = 1.0
_LATER = timedelta(minutes=5)
_LATEST = timedelta(hours=1)


@dataclass(frozen=True)
class Sent:
    """What became of one alert in this round: `sent`, `queued` (to be tried again), `taken over` or `refused`."""

    channel: str
    action: str
    title: str
    status: str
    error: str = ""


def dispatch(rules: Rules, patience: float | None = None) -> list[Sent]:
    """Send what is due. One process at a time: another one's round is waited for, because it may have begun before ours was queued.

    Args:
        patience: how many seconds to wait for channels in all; `PATIENCE` when None.
    """
    if not _due(clock.now()):
        return []
    told = []
    left = PATIENCE if patience is None else patience
    with _alone():
        tried: set[str] = set()
        while waiting := [row for row in _due(clock.now()) if row["alert_id"] not in tried]:
            row = waiting[0]
            tried.add(row["alert_id"])
            began = time.monotonic()
            outcome = _try(row, rules, left)
            left = max(0.0, left - (time.monotonic() - began))
            if outcome is not None:
                told.append(outcome)
    return told


def waiting() -> list[dict[str, str]]:
    """What is queued, the oldest first: channel, action, title, when it may go out, and why it did not yet."""
    with book.opened() as kept:
        rows = kept.execute("SELECT * FROM alerts WHERE status IN ('queued', 'sending') ORDER BY created_at, rowid").fetchall()
    return [
        {
            "channel": row["channel"],
            "action": row["action"],
            "title": json.loads(row["message"])["title"],
            "not_before": row["not_before"],
            "error": row["error"] or "",
        }
        for row in rows
    ]


def _due(now: datetime) -> list[sqlite3.Row]:
    with book.opened() as kept:
        # Whatever says `sending` was interrupted, when asked by the one that sends.
        query = "SELECT * FROM alerts WHERE status = 'sending' OR (status = 'queued' AND not_before <= ?) ORDER BY created_at, rowid"
        return kept.execute(query, (book.text(now),)).fetchall()


def _try(row: sqlite3.Row, rules: Rules, patience: float) -> Sent | None:
    """Send one alert, with as many tries as the patience allows, and note what became of it."""
    alert_id, title = row["alert_id"], json.loads(row["message"])["title"]
    opened = _opened(row)
    if row["action"] in ("update", "resolve") and opened is None and row["channel"] != "page":  # a page is known by its key alone
        if not _will_be_opened(row):
            _note(alert_id, status="overtaken")  # it was never told in this channel
        return None
    is_retried = row["status"] == "sending" or row["attempts"] > 0
    for attempt in range(TRIES):
        alert = Alert(alert_id, row["channel"], row["action"], Message(**json.loads(row["message"])), is_retried or attempt > 0, opened)
        _note(alert_id, status="sending", attempts=row["attempts"] + attempt + 1)
        try:
            receipt = send(alert)
        except Refused as error:
            return _give_up(row, rules, title, str(error), is_refused=True)
        except Unreachable as error:
            wait = error.after if error.after is not None else _FIRST_WAIT * 2**attempt
            if attempt + 1 == TRIES or wait > patience:
                return _give_up(row, rules, title, str(error), is_refused=False, after=error.after)
            time.sleep(wait)
            patience -= wait
            continue
        _note(alert_id, status="sent", sent_at=book.text(clock.now()), receipt=json.dumps(receipt), error=None)
        _forget_others(row)
        return Sent(row["channel"], row["action"], title, "sent")
    raise AssertionError("unreachable: the last try returns")


def _give_up(row: sqlite3.Row, rules: Rules, title: str, why: str, *, is_refused: bool, after: float | None = None) -> Sent:
    """After a round of tries: the next channel takes over, or it is tried again later. What only changes a message is not worth another channel."""
    now = clock.now()
    with book.opened() as kept:
        attempts = kept.execute("SELECT attempts FROM alerts WHERE alert_id = ?", (row["alert_id"],)).fetchone()[0]
        later = now + max(min(_LATER * 2 ** max(0, attempts // TRIES - 1), _LATEST), timedelta(seconds=after or 0))
        status = "queued"
        if row["action"] in TELLS:
            others = kept.execute("SELECT channel FROM alerts WHERE incident_id = ? AND action IN ('open', 'escalate')", (row["incident_id"],)).fetchall()
            known = {other["channel"] for other in others}
            able = [channel for channel in candidates(row["channel"], rules, settings().alerts) if channel not in known]
            if able:
                queue(kept, row["incident_id"], able[0], row["action"], row["lane"], row["message"], now, now)
                status = "taken over"
            else:  # all are out: whichever comes back first tells
                again = "UPDATE alerts SET status = 'queued', not_before = ?, copied = 0 WHERE incident_id = ? AND lane = ? AND status = 'taken over'"
                kept.execute(again, (book.text(later), row["incident_id"], row["lane"]))
        elif is_refused:
            status = "refused"
        change = "UPDATE alerts SET status = ?, not_before = ?, error = ?, copied = 0 WHERE alert_id = ?"
        kept.execute(change, (status, book.text(later), why, row["alert_id"]))
    return Sent(row["channel"], row["action"], title, status, why)


def _forget_others(row: sqlite3.Row) -> None:
    """One channel has told: the others of the same alert, which were out, need not."""
    if row["action"] in TELLS:
        with book.opened() as kept:
            others = "UPDATE alerts SET status = 'taken over', copied = 0 WHERE incident_id = ? AND lane = ? AND status = 'queued' AND action = ?"
            kept.execute(others, (row["incident_id"], row["lane"], row["action"]))


def _opened(row: sqlite3.Row) -> dict[str, str] | None:
    """The receipt of what told of this incident first in this channel."""
    with book.opened() as kept:
        query = "SELECT receipt FROM alerts WHERE incident_id = ? AND channel = ? AND action IN ('open', 'escalate') AND status = 'sent'"
        found = kept.execute(query, (row["incident_id"], row["channel"])).fetchone()
    receipt: dict[str, str] | None = json.loads(found["receipt"]) if found else None
    return receipt


def _will_be_opened(row: sqlite3.Row) -> bool:
    with book.opened() as kept:
        query = "SELECT 1 FROM alerts WHERE incident_id = ? AND channel = ? AND action IN ('open', 'escalate') AND status IN ('queued', 'sending')"
        return kept.execute(query, (row["incident_id"], row["channel"])).fetchone() is not None


def _note(alert_id: str, **values: str | int | None) -> None:
    with book.opened() as kept:
        changes = ", ".join(f"{name} = ?" for name in values)
        kept.execute(f"UPDATE alerts SET {changes}, copied = 0 WHERE alert_id = ?", (*values.values(), alert_id))


@contextmanager
def _alone() -> Iterator[None]:
    with (settings().home / "alerts.lock").open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # released by the kernel when its holder dies; a round lasts a minute at most
        yield
