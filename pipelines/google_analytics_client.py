"""Google Analytics through its official client: a day of a report is read whole or not at all, within the property's quota."""

import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from datetime import time as time_of_day
from decimal import Decimal
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pipelines.google_analytics_report import GoogleAnalyticsDeclaration, Report
from warehouse import clock
from warehouse.errors import StepFailed, UsageError, scrub
from warehouse.settings import settings

if TYPE_CHECKING:
    from google.analytics.data_v1beta import types

Answer = TypeVar("Answer")
OTHER = "(other)"
_SCOPE = "https://www.googleapis.com/auth/analytics.readonly"
_TRIES = 4
_FIRST_WAIT = 1.0
_READINGS = 3
"""How often a day of a report is begun that changes while its pages are read."""
_CREDENTIALS = "SOURCES__GOOGLE_ANALYTICS__CREDENTIALS"


class OutOfQuota(Exception):
    """A property's tokens are used up, or down to the declared reserve; its message says of which quota."""


class Unsteady(Exception):
    """A day of a report changed each time while its pages were read."""


@dataclass(frozen=True)
class Quota:
    """What is left of a property's tokens; None where the answer did not say."""

    day: int | None = None
    hour: int | None = None
    project_hour: int | None = None

    def below(self, reserve: int) -> str | None:
        """The first quota of which no more than the reserve is left."""
        left = {"day": self.day, "hour": self.hour, "hour and project": self.project_hour}
        return next((f"tokens per {name}" for name, tokens in left.items() if tokens is not None and tokens <= reserve), None)


@dataclass(frozen=True)
class About:
    """What every answer says of its property."""

    time_zone: str
    currency: str
    quota: Quota

    def today(self, at: datetime) -> date:
        """The property's own date."""
        return at.astimezone(zone(self.time_zone)).date()


@dataclass
class DayReport:
    """All rows of one report on one day of one property, as of one instant."""

    property_id: str
    report: str
    definition: str
    day: date
    read_at: datetime
    about: About
    rows: list[tuple[tuple[str, ...], tuple[str, ...]]]
    """The values of the dimensions and of the metrics, in the order declared."""
    has_other_row: bool = False
    is_thresholded: bool = False
    samples_read: int | None = None
    sampling_space: int | None = None
    empty_reason: str | None = None
    truncated: str | None = None
    requests: int = 1

    @property
    def is_final(self) -> bool:
        """Whether the day had ended, where the property is, when it was read."""
        return self.read_at >= end_of(self.day, self.about.time_zone)

    @property
    def other_share(self) -> Decimal | None:
        """The part of the first metric that is in (other) rows; None where there is nothing to share."""
        amounts = [(OTHER in dimensions, amount) for dimensions, metrics in self.rows if (amount := Decimal(metrics[0] or 0)).is_finite()]
        total = sum((amount for _, amount in amounts), Decimal())
        return sum((amount for is_other, amount in amounts if is_other), Decimal()) / total if total else None


@dataclass
class _Pages:
    """What the pages of one day must have in common, and what they held."""

    first: "types.RunReportResponse"
    rows: list[tuple[tuple[str, ...], tuple[str, ...]]] = field(default_factory=list)
    requests: int = 0

    @property
    def offset(self) -> int:
        """Where the next page begins: at the last row read, which must come again, or rows have moved across the edge."""
        return max(len(self.rows) - 1, 0)

    def add(self, page: "types.RunReportResponse") -> bool:
        """Take a page's rows; False when the report is not the one that the first page was of."""
        plain, first = (type(one).pb(one) for one in (page, self.first))  # the library's own wrappers cost twice as much a value
        if plain.row_count != first.row_count or list(plain.totals) != list(first.totals):
            return False
        self.requests += 1
        rows = [(tuple(one.value for one in row.dimension_values), tuple(one.value for one in row.metric_values)) for row in plain.rows]
        if self.rows and rows[:1] != self.rows[-1:]:
            return False
        new = rows[1:] if self.rows else rows
        self.rows += new
        return bool(new) or self.is_complete

    @property
    def is_complete(self) -> bool:
        return len(self.rows) >= self.first.row_count

    @property
    def is_whole(self) -> bool:
        """Each row once, and as many as there are said to be."""
        return len(self.rows) == self.first.row_count == len({dimensions for dimensions, _ in self.rows})


class Client:
    """Reads properties, one request at a time.

    Raises:
        UsageError: the credentials are missing or not understood.
    """

    def __init__(self, declared: GoogleAnalyticsDeclaration) -> None:
        from google.analytics.data_v1beta import BetaAnalyticsDataClient
        from google.analytics.data_v1beta.services.beta_analytics_data.transports import BetaAnalyticsDataRestTransport

        base = urlsplit(settings().sources.google_analytics.base_url)
        # One transport everywhere: what the tests prove over HTTP is what production runs over HTTPS.
        transport = BetaAnalyticsDataRestTransport(host=base.netloc, url_scheme=base.scheme, credentials=_credentials(is_local=base.scheme == "http"))
        self._client = BetaAnalyticsDataClient(transport=transport)
        self._declared, self._pause, self._next = declared, 1 / declared.requests_per_second if declared.requests_per_second else 0.0, 0.0
        self._quota: dict[str, Quota] = {}

    def metadata(self, property_id: str) -> "types.Metadata":
        """The dimensions and metrics that a property knows.

        Raises:
            UsageError: access is refused. StepFailed: no answer.
        """
        name = f"properties/{property_id}/metadata"
        return self._ask(f"the metadata of property {property_id}", lambda timeout: self._client.get_metadata(name=name, timeout=timeout, retry=None))

    def about(self, property_id: str) -> About:
        """Time zone, currency and quota of a property, by the smallest report there is.

        Raises:
            as `day_report`.
        """
        from google.analytics.data_v1beta import types

        request = types.RunReportRequest(
            property=f"properties/{property_id}", metrics=[types.Metric(name="activeUsers")], limit=1, return_property_quota=True,
            date_ranges=[types.DateRange(start_date="today", end_date="today")],
        )  # fmt: skip
        return self._about(property_id, self._run(f"property {property_id}", request))

    def day_report(self, property_id: str, name: str, report: Report, day: date) -> DayReport:
        """All rows of a report on one day.

        Raises:
            OutOfQuota: nothing of the day may be used. Unsteady: it changed each time while its pages were read.
            UsageError: a field is unknown or does not fit the others; access is refused. StepFailed: no answer.
        """
        short_of = self._quota.get(property_id, Quota()).below(self._declared.quota_reserve)
        if short_of:
            raise OutOfQuota(f"{short_of}, no more than the reserve of {self._declared.quota_reserve} are left")
        requests = 0
        for _ in range(_READINGS):
            read_at = clock.now()
            pages = self._read(property_id, name, report, day)
            requests += pages.requests
            if pages.is_whole:
                return self._day_report(property_id, name, report, day, read_at, pages, requests)
        raise Unsteady

    def _read(self, property_id: str, name: str, report: Report, day: date) -> _Pages:
        pages: _Pages | None = None
        while True:
            page = self._run(f"report {name} of property {property_id}, {day}", self._request(property_id, report, day, pages.offset if pages else 0))
            self._about(property_id, page)
            pages = pages or _Pages(page)
            if not pages.add(page) or pages.is_complete:
                return pages

    def _request(self, property_id: str, report: Report, day: date, offset: int) -> "types.RunReportRequest":
        """One page, in an order that leaves nothing to chance: every dimension, so that there are no ties."""
        from google.analytics.data_v1beta import types

        by_name = types.OrderBy.DimensionOrderBy.OrderType.ALPHANUMERIC
        return types.RunReportRequest(
            property=f"properties/{property_id}",
            dimensions=[types.Dimension(name=one) for one in report.dimensions],
            metrics=[types.Metric(name=one) for one in report.metrics],
            date_ranges=[types.DateRange(start_date=day.isoformat(), end_date=day.isoformat())],
            dimension_filter=report.dimension_filter.expression() if report.dimension_filter else None,
            metric_filter=report.metric_filter.expression() if report.metric_filter else None,
            order_bys=[types.OrderBy(dimension=types.OrderBy.DimensionOrderBy(dimension_name=one, order_type=by_name)) for one in report.dimensions],
            metric_aggregations=[types.MetricAggregation.TOTAL],
            limit=self._declared.rows_per_request, offset=offset, return_property_quota=True,
        )  # fmt: skip

    def _day_report(self, property_id: str, name: str, report: Report, day: date, read_at: datetime, pages: _Pages, requests: int) -> DayReport:
        said, rows = pages.first.metadata, pages.rows
        if "date" in report.dimensions:
            place = report.dimensions.index("date")
            if any(dimensions[place] != f"{day:%Y%m%d}" for dimensions, _ in rows):
                raise StepFailed(f"google_analytics: report {name} of property {property_id} answered with another day than {day}.", mend="run again later")
            rows = [((*dimensions[:place], *dimensions[place + 1 :]), metrics) for dimensions, metrics in rows]
        sampling = said.sampling_metadatas[0] if said.sampling_metadatas else None
        reasons = getattr(said, "data_truncation_reasons", [])  # of newer versions of the API
        return DayReport(
            property_id, name, report.definition, day, read_at, About(said.time_zone, said.currency_code, self._quota.get(property_id, Quota())), rows,
            has_other_row=bool(said.data_loss_from_other_row), is_thresholded=bool(said.subject_to_thresholding),
            samples_read=sampling.samples_read_count if sampling else None, sampling_space=sampling.sampling_space_size if sampling else None,
            empty_reason=said.empty_reason or None,
            truncated="; ".join(reason.data_truncation_message or reason.data_truncation_type.name for reason in reasons) or None,
            requests=requests,
        )  # fmt: skip

    def _about(self, property_id: str, page: "types.RunReportResponse") -> About:
        if page.property_quota:
            left = page.property_quota
            names = ("tokens_per_day", "tokens_per_hour", "tokens_per_project_per_hour")
            self._quota[property_id] = Quota(*(getattr(left, name).remaining if name in left else None for name in names))
        zone(page.metadata.time_zone)
        return About(page.metadata.time_zone, page.metadata.currency_code, self._quota.get(property_id, Quota()))

    def _run(self, what: str, request: "types.RunReportRequest") -> "types.RunReportResponse":
        return self._ask(what, lambda timeout: self._client.run_report(request=request, timeout=timeout, retry=None))

    def _ask(self, what: str, call: Callable[[float], Answer]) -> Answer:
        """Ask, and again after a while where that may help: Google counts what its servers fail at, and that quota is small."""
        from google.api_core import exceptions
        from google.auth import exceptions as auth
        from google.protobuf.json_format import ParseError  # type: ignore[import-untyped]  # ships no types
        from requests.exceptions import RequestException

        said = ""
        for turn in range(_TRIES):
            if turn:
                time.sleep(_FIRST_WAIT * 2 ** (turn - 1) * random.uniform(0.5, 1))  # noqa: S311 - jitter is no secret
            self._wait_for_turn()
            try:
                return call(self._declared.timeout.total_seconds())
            except exceptions.TooManyRequests as error:
                said = _message(error)
                if "concurrent" not in said.lower():  # that one passes by itself
                    raise OutOfQuota(said) from None
            except exceptions.BadRequest as error:
                mend = "correct the report in pipelines/google_analytics.yaml; the API's dimensions and metrics explorer shows what fits together"
                raise UsageError(f"google_analytics: {what}: {_message(error)}", mend=mend) from None
            except (exceptions.Unauthorized, exceptions.Forbidden) as error:
                raise _refused(what, _message(error)) from None
            except (exceptions.ServerError, auth.TransportError, RequestException, ParseError) as error:
                said = f"HTTP {error.code}" if isinstance(error, exceptions.ServerError) else "no answer"
            except auth.GoogleAuthError:
                raise _refused(what, "the credentials are not accepted") from None
            except exceptions.GoogleAPICallError as error:
                raise StepFailed(f"google_analytics: {what}: {_message(error)}", mend="run again later") from None
        raise StepFailed(f"google_analytics: {what}: {said}, {_TRIES} times.", mend="run again later; SOURCES__GOOGLE_ANALYTICS__BASE_URL says where is asked")

    def _wait_for_turn(self) -> None:
        now = time.monotonic()
        if now < self._next:
            time.sleep(self._next - now)
        self._next = max(now, self._next) + self._pause


def zone(name: str) -> ZoneInfo:
    """A time zone by its IANA name.

    Raises:
        StepFailed: it is not known.
    """
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise StepFailed(f"google_analytics: the time zone {name!r} of a property is not known here.", mend="install the package tzdata") from None


def end_of(day: date, time_zone: str) -> datetime:
    """The instant at which a day ends in a time zone."""
    return datetime.combine(day + timedelta(days=1), time_of_day(), zone(time_zone)).astimezone(UTC)


def _credentials(*, is_local: bool) -> Any:
    """Nobody for a stand-in; otherwise the service account or the user that the settings name.

    Raises:
        UsageError: they are missing or incomplete; nothing of them is shown.
    """
    if is_local:
        from google.auth.credentials import AnonymousCredentials

        return AnonymousCredentials()  # type: ignore[no-untyped-call]  # the library types few of its constructors
    from google.oauth2 import credentials, service_account

    content = settings().google_analytics_credentials()
    kinds: dict[str, Any] = {
        "service_account": service_account.Credentials.from_service_account_info,
        "authorized_user": credentials.Credentials.from_authorized_user_info,
    }
    make = kinds.get(str(content.get("type")))
    if make is None:
        raise UsageError(
            f"{_CREDENTIALS} holds a JSON whose `type` is neither service_account nor authorized_user.",
            mend="give the key of a service account, or the JSON with client_id, client_secret and refresh_token of a user",
        )
    try:
        return make(content, scopes=[_SCOPE])
    except Exception as error:  # the library raises many types, some with the value in them
        raise UsageError(f"{_CREDENTIALS}: {type(error).__name__} while the {content['type']} was read.", mend="give the JSON as Google made it") from None


def _refused(what: str, said: str) -> UsageError:
    return UsageError(
        f"google_analytics: {what}: {said}",
        mend=f"give the account of {_CREDENTIALS} the role Viewer in the property, and check SOURCES__GOOGLE_ANALYTICS__PROPERTY_IDS",
    )


def _message(error: Any) -> str:
    """What Google said, without links and without what must not be shown."""
    said = re.sub(r"^(GET|POST) \S+: ", "", str(error.message))
    return scrub(re.sub(r"\s*(To learn more, see|For a list of[^.]*, see)?\s*https?://\S+", "", said)).strip()
