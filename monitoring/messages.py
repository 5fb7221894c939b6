"""What an alert says: what broke, since when, who is affected, the query that shows it, and the page that says what to do."""

from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any, Literal

from monitoring.incidents import Group
from monitoring.lineage import Lineage
from monitoring.rules import Rules
from warehouse.errors import scrub

MOST_LINES = 10
"""How many findings and marts a message names; the rest is counted."""


@dataclass(frozen=True)
class Message:
    """One alert, ready for any channel; every text is scrubbed of secrets and personal data."""

    key: str
    title: str
    severity: Literal["error", "warning"]
    what: list[str]
    since: str
    affected: list[str]
    query: str
    runbook: str
    owner: str
    resolved_at: str = ""

    def lines(self) -> list[str]:
        """The message as plain lines, without its title."""
        told = [*(f"- {line}" for line in self.what), f"Since: {self.since}"]
        told += [f"Resolved: {self.resolved_at}"] if self.resolved_at else []
        told += [f"Affected marts: {', '.join(self.affected)}"] if self.affected else []
        told += [f"Owner: {self.owner}"] if self.owner else []
        told += [f"Query: {self.query}"] if self.query else []
        return [*told, f"What to do: {self.runbook}"]

    def as_json(self) -> dict[str, Any]:
        """The message as it is kept in the outbox."""
        return asdict(self)

    def resolved(self, now: datetime) -> "Message":
        """The message that says it is over."""
        return replace(self, resolved_at=_minute(now))


def message(group: Group, rules: Rules, lineage: Lineage) -> Message:
    """What is to be told of a group of findings."""
    cause, rule = group.cause, rules.rule(group.cause)
    more = len(group.findings) - 1
    name = cause.table + (f".{cause.column}" if cause.column else "")
    title = f"{rule.name.capitalize()}: {name}" + (f" (and {more} more)" if more else "")
    what = [f"{one.table}{'.' + one.column if one.column else ''}: {one.check}: {one.observed} (expected: {one.expected})" for one in group.findings]
    affected = sorted({mart for one in group.findings for mart in [*lineage.marts_below(one.table), *([one.table] if one.table.startswith("marts.") else [])]})
    return Message(
        key=group.key,
        title=scrub(title),
        severity="error" if any(one.severity == "error" for one in group.findings) else "warning",
        what=[scrub(" ".join(line.split()))[:500] for line in _bounded(what)],
        since=_minute(min(one.since for one in group.findings)),
        affected=_bounded(affected),
        query=scrub(" ".join(cause.query.split()))[:1500],
        runbook=rules.runbook(rule),
        owner=rules.owner(cause.table),
    )


def _bounded(lines: list[str]) -> list[str]:
    return lines if len(lines) <= MOST_LINES else [*lines[:MOST_LINES], f"and {len(lines) - MOST_LINES} more"]


def _minute(instant: datetime) -> str:
    return f"{instant:%Y-%m-%d %H:%M} UTC"
