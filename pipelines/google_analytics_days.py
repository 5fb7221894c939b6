"""Which days of which reports are due, and reading them newest first: a chunk is in the warehouse before the next one is read.

The warehouse itself remembers what was read: `report_quality` has a row for each day of each report, also for empty ones,
and is written only after the rows it speaks of. A day is due until it was read once when it lay more than `restate_days`
back; so one that was never read, was left open for want of quota, or was missed by a pause, needs no bookkeeping of its own.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import TYPE_CHECKING

from pipelines.google_analytics_client import Client, DayReport, OutOfQuota, Unsteady, zone
from pipelines.google_analytics_report import QUALITY, GoogleAnalyticsDeclaration, Report
from pipelines.google_analytics_rows import SOURCE, metric_kind
from pipelines.source import Reading
from warehouse import clock
from warehouse.errors import UsageError, WarehouseError
from warehouse.settings import settings

if TYPE_CHECKING:
    from google.analytics.data_v1beta import types

_MOST_ROWS = 100_000
_MOST_DAYS = 200
"""A chunk is written when it has so many rows, or so many days of reports: what a kill can cost."""

Seen = dict[tuple[str, date], tuple[str, date]]
"""(report, day) -> the definition by which it was last read, and the property's date then."""


def wanted(today: date, restate_days: int, start: date | None, end: date | None, held: Collection[date]) -> list[date]:
    """The days that the warehouse is to hold, newest first: they matter most, and are what a short quota should go to.

    Args:
        start: the first day; None for the first one held, or the last days that are read anew.
        end: the last day of the range that begins there; from the first newer day held on, loading goes on by itself.
    """
    newest = today - timedelta(days=restate_days)
    ranges = []
    if start is None:
        ranges = [(min([*held, newest]), today)]
    elif end is None or end >= newest:
        ranges = [(start, today)]
    else:
        ranges = [(start, end), (min([*(day for day in held if day > end), newest]), today)]
    days = {first + timedelta(days=number) for first, last in ranges for number in range((last - first).days + 1)}
    return sorted(days, reverse=True)


def is_due(report: str, day: date, definition: str, seen: Seen, restate_days: int) -> bool:
    """Whether a day of a report is to be read now."""
    if (report, day) not in seen:
        return True
    by, on = seen[report, day]
    return by != definition or on - day <= timedelta(days=restate_days)


@dataclass
class Judged:
    """What was noticed of one report of one property in this run, worst day first."""

    days: int = 0
    thresholded: int = 0
    other: tuple[float, date] | None = None
    unsampled: tuple[float, date] | None = None

    def add(self, day: DayReport) -> None:
        """Notice one more day."""
        self.days += 1
        self.thresholded += day.is_thresholded
        if day.has_other_row:
            self.other = max(self.other or (0.0, day.day), (float(day.other_share or 0), day.day))
        if day.sampling_space:
            self.unsampled = max(self.unsampled or (0.0, day.day), (1 - (day.samples_read or 0) / day.sampling_space, day.day))

    def sentences(self, declared: GoogleAnalyticsDeclaration) -> Iterator[str]:
        """What is above the declared shares."""
        most = declared.findings_above
        if self.other and self.other[0] > most.other:
            yield f"{self.other[0]:.1%} of {self.other[1]} is in the (other) row"
        if self.unsampled and self.unsampled[0] > most.unsampled:
            yield f"{self.unsampled[0]:.1%} of the events of {self.unsampled[1]} were not looked at (sampling)"
        if self.days and self.thresholded / self.days > most.thresholded:
            yield f"Google may have held rows back on {self.thresholded} of {self.days} days (thresholding)"


@dataclass
class Plan:
    """What one run reads.

    Attributes:
        metadata: by property.
        kinds: report -> metric -> its kind.
        findings: what an operator must know; complete when the last chunk was read.
    """

    reading: Reading
    declared: GoogleAnalyticsDeclaration
    metadata: "dict[str, types.Metadata]" = field(default_factory=dict)
    kinds: dict[str, dict[str, str]] = field(default_factory=dict)
    findings: list[str] = field(default_factory=list)
    judged: dict[tuple[str, str], Judged] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._client = Client(self.declared)
        self._properties = settings().google_analytics_properties()
        given = settings().sources.google_analytics
        self._start, self._end = given.start_date, given.end_date
        if self._end and (self._start is None or self._start > self._end):
            raise UsageError(
                "SOURCES__GOOGLE_ANALYTICS__END_DATE is set, and SOURCES__GOOGLE_ANALYTICS__START_DATE is not, or is later.",
                mend="set the first day of the range, or leave both out",
            )

    def learn(self) -> None:
        """Ask each property what it knows, and compare the declaration with it, before anything is read.

        Raises:
            UsageError: a report names a dimension or metric that a property does not have.
        """
        for property_id in self._properties:
            try:
                self.metadata[property_id] = self._client.metadata(property_id)
            except OutOfQuota as short:
                self._out_of_quota(property_id, short, "no day was read")
        for name, report in self.declared.reports.items():
            known: dict[str, list[str]] = {metric: [] for metric in report.metrics}
            for property_id, metadata in self.metadata.items():
                if name in self.declared.reports_of(property_id):
                    _compare(property_id, name, report, metadata)
                    for metric, kind in _metrics(metadata, report):
                        known[metric].append(kind)
                    self.findings += _blocked(property_id, name, report, metadata)
            if all(known.values()):
                self.kinds[name] = {metric: metric_kind(types) for metric, types in known.items()}

    def chunks(self) -> Iterator[list[DayReport]]:
        """Days of reports, property by property. What was read before an error is given out, and remembered, before it is raised."""
        failed: WarehouseError | None = None
        for property_id in self.metadata:
            chunk: list[DayReport] = []
            try:
                for day in self._days(property_id):
                    chunk.append(day)
                    if len(chunk) >= _MOST_DAYS or sum(len(one.rows) for one in chunk) >= _MOST_ROWS:
                        yield chunk
                        chunk = []
            except WarehouseError as error:
                failed = failed or error
            if chunk:
                yield chunk
        self._judge()
        if failed:
            yield []
            raise failed

    def _days(self, property_id: str) -> Iterator[DayReport]:
        reports = self.declared.reports_of(property_id)
        seen = self._seen(property_id)
        read: set[tuple[str, date]] = set()
        due: list[tuple[date, str]] = []
        try:
            about = self._client.about(property_id)
            days = wanted(about.today(clock.now()), self.declared.restate_days, self._start, self._end, {day for _, day in seen})
            due = [(day, name) for day in days for name in reports if is_due(name, day, reports[name].definition, seen, self.declared.restate_days)]
            for day, name in due:
                try:
                    found = self._client.day_report(property_id, name, reports[name], day)
                except Unsteady:
                    self.findings.append(
                        f"google_analytics: report {name} of property {property_id} changed each time while the pages of {day} were read; nothing is used."
                        "\n  mend: nothing; the next run reads the day again"
                    )
                    continue
                read.add((name, day))
                self.judged.setdefault((property_id, name), Judged()).add(found)
                yield found
        except OutOfQuota as short:
            left = [(day, name) for day, name in due if (name, day) not in read]
            what = f"{len(left)} days of reports are left, the newest {left[0][1]} of {left[0][0]}" if left else "no day was read"
            self._out_of_quota(property_id, short, what)

    def _out_of_quota(self, property_id: str, short: OutOfQuota, what: str) -> None:
        self.findings.append(
            f"google_analytics: property {property_id} is out of quota ({short}); {what}."
            "\n  mend: nothing, the next run goes on there; fewer reports, `restate_days` or dashboards leave more"
        )

    def _seen(self, property_id: str) -> Seen:
        """What the warehouse remembers of a property's days."""
        if not self.reading.held(QUALITY, None).columns:
            return {}
        query = f"SELECT report, date, definition, read_at, time_zone FROM raw_{SOURCE}.{QUALITY} WHERE property_id = $property"
        rows = self.reading.connection.execute(query, {"property": property_id}).fetchall()
        return {(report, day): (definition, read_at.astimezone(zone(time_zone)).date()) for report, day, definition, read_at, time_zone in rows}

    def _judge(self) -> None:
        for (property_id, name), judged in self.judged.items():
            said = "; ".join(judged.sentences(self.declared))
            if said:
                self.findings.append(
                    f"google_analytics: report {name} of property {property_id}: {said}."
                    "\n  mend: fewer dimensions in the report, or a higher share in `findings_above` of pipelines/google_analytics.yaml"
                )


def _metrics(metadata: "types.Metadata", report: Report) -> Iterator[tuple[str, str]]:
    """The metrics of a report as the property knows them, with their types; older names count."""
    for one in metadata.metrics:
        for name in {one.api_name, *one.deprecated_api_names} & set(report.metrics):
            yield name, one.type_.name


def _compare(property_id: str, name: str, report: Report, metadata: "types.Metadata") -> None:
    known = {
        "dimension": {api_name for one in metadata.dimensions for api_name in (one.api_name, *one.deprecated_api_names)},
        "metric": {api_name for one in metadata.metrics for api_name in (one.api_name, *one.deprecated_api_names)},
    }
    tested = report.dimension_filter.fields() if report.dimension_filter else set()
    for kind, names in (("dimension", [*report.dimensions, *sorted(tested)]), ("metric", report.metrics)):
        unknown = next((one for one in names if one not in known[kind]), None)
        if unknown:
            raise UsageError(
                f"google_analytics: report {name}: property {property_id} knows no {kind} {unknown!r}.",
                mend="correct it in pipelines/google_analytics.yaml, or name the properties that know it under `properties` of the report; "
                "raw_google_analytics.metadata lists what each knows",
            )


def _blocked(property_id: str, name: str, report: Report, metadata: "types.Metadata") -> Iterator[str]:
    """Metrics that this account may not see are delivered as zeros."""
    for one in metadata.metrics:
        if one.blocked_reasons and one.api_name in report.metrics:
            yield (
                f"google_analytics: report {name} of property {property_id}: {one.api_name} is hidden from this account, and all zeros.\n"
                "  mend: let the account see cost and revenue data in the property's access management, or leave the metric out"
            )
