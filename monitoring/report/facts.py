"""What a report holds, as plain data: everything that the page shows, and what `--json` writes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Literal

State = Literal["well", "warning", "wrong", "unknown"]
"""How anything is; `unknown` where nothing ever looked, or where nothing is expected."""


@dataclass(frozen=True)
class DeclaredSource:
    """A source as pipelines/ and the settings have it."""

    name: str
    schedule: str
    limit: timedelta
    is_configured: bool


@dataclass(frozen=True)
class House:
    """What other rooms declare and a report judges by.

    Attributes:
        backups, drills: kind of data to how old its last one may be; empty where no backups are configured.
        pages: of docs/metrics/, path from the root of the project to text.
        links: path of a page of the project to where the report's reader finds it; a page without is only named.
    """

    sources: Sequence[DeclaredSource]
    backups: Mapping[str, timedelta] = field(default_factory=dict)
    drills: Mapping[str, timedelta] = field(default_factory=dict)
    pages: Mapping[str, str] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Headline:
    """The first sentence: how all of it is, since when, and what that is made of."""

    state: State
    says: str
    since: datetime | None
    reasons: list["Reason"]


@dataclass(frozen=True)
class Reason:
    """One thing that is not well, and the section that says more."""

    state: State
    says: str
    since: datetime | None
    section: str


@dataclass(frozen=True)
class LoadedTable:
    """A table as its source's last load left it; rows are those of that load alone."""

    name: str
    rows_read: int
    rows_written: int
    state: State


@dataclass(frozen=True)
class SourceFreshness:
    """How long ago a source was loaded, beside how long ago it may be."""

    name: str
    schedule: str
    loaded_at: datetime | None
    limit: timedelta
    state: State
    says: str
    tables: list[LoadedTable]

    def share(self, now: datetime) -> float:
        """Which part of what is allowed has passed: 1 is the limit; bounded by 1.5."""
        return min((now - self.loaded_at) / self.limit, 1.5) if self.loaded_at else 0.0


@dataclass(frozen=True)
class RunDay:
    """What ran on one UTC day; seconds of its longest run, rows that loads wrote."""

    day: date
    succeeded: int = 0
    findings: int = 0
    failed: int = 0
    seconds: float = 0.0
    rows: int = 0


@dataclass(frozen=True)
class RunRow:
    """One command that ran."""

    run_id: str
    command: str
    status: str
    started_at: datetime
    seconds: float | None
    rows: int | None
    failed_step: str
    error: str


@dataclass(frozen=True)
class Incident:
    """One incident; `what` begins with its cause."""

    incident_id: str
    title: str
    state: State
    opened_at: datetime
    resolved_at: datetime | None
    acknowledged_at: datetime | None
    since: str
    what: list[str]
    affected: list[str]
    owner: str
    query: str
    runbook: str

    @property
    def broken_since(self) -> datetime:
        """Since when it is broken, which is before somebody looked, to the minute."""
        try:
            return datetime.strptime(self.since, "%Y-%m-%d %H:%M UTC").replace(tzinfo=UTC)
        except ValueError:
            return self.opened_at


@dataclass(frozen=True)
class Broken:
    """A check of a table that found something."""

    check: str
    column: str
    severity: str
    observed: str
    expected: str
    since: datetime


@dataclass(frozen=True)
class ContractResult:
    """How a table stands by its contract and everything else that looked at it."""

    table: str
    checks: int
    state: State
    says: str
    broken: list[Broken]


@dataclass(frozen=True)
class Point:
    """A day of a series, and what its weeks before let expect; None where too little came before, or the day is special."""

    day: date
    value: float
    expected: float | None = None
    low: float | None = None
    high: float | None = None

    @property
    def is_unusual(self) -> bool:
        """Whether it lies outside of what is expected."""
        return self.low is not None and self.high is not None and not self.low <= self.value <= self.high


@dataclass(frozen=True)
class Series:
    """One number a day. `unit` is a currency, or what is counted."""

    table: str
    metric: str
    segment: str
    unit: str
    points: list[Point]


@dataclass(frozen=True)
class MartRows:
    """Rows of a mart as it was published, the oldest publication that is known first."""

    table: str
    rows: int
    history: list[tuple[datetime, int]]


@dataclass(frozen=True)
class Node:
    """A source, or a table, in the lineage."""

    name: str
    layer: Literal["source", "raw", "staging", "marts"]
    depth: int
    reads: list[str]
    state: State
    says: str


@dataclass(frozen=True)
class Kept:
    """One kind of backups: when it was last taken, and last restored to prove it."""

    data: str
    state: State
    says: str
    taken_at: datetime | None
    limit: timedelta | None
    drilled_at: datetime | None
    drill_limit: timedelta | None


@dataclass(frozen=True)
class Definition:
    """A page of docs/metrics/: which marts it defines the numbers of."""

    title: str
    path: str
    link: str
    marts: list[str]


@dataclass(frozen=True)
class Report:
    """All of it."""

    as_of: datetime
    headline: Headline
    writing_since: datetime | None
    sources: list[SourceFreshness]
    days: list[RunDay]
    runs: list[RunRow]
    open_incidents: list[Incident]
    past_incidents: list[Incident]
    contracts: list[ContractResult]
    checked_at: datetime | None
    published_at: datetime | None
    series: list[Series]
    left_out: list[str]
    mart_rows: list[MartRows]
    lineage: list[Node]
    backups: list[Kept]
    definitions: list[Definition]
    waiting_alerts: int
