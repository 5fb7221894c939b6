"""A stand-in of the Google Analytics Data API (v1beta): properties whose reports are added up from hits, each time anew.

Rows are in the order asked for, and ties among them in another one each time, as nothing promises more; a rare value
goes into the (other) row, a small one is held back, a sample is read where told to; days can be restated; requests cost
tokens of quotas that come back with the hour and the day. Faults happen when told to.
"""

import random
import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from functools import partial
from typing import Any
from zoneinfo import ZoneInfo

from demo.stand_ins import served
from demo.stand_ins.google_analytics_filters import passes
from demo.stand_ins.google_analytics_schema import DEPRECATED, DIMENSIONS, ITEM_DIMENSIONS, ITEM_METRICS, METRICS, TYPES, Engaged, Hit, Part, engaged_sessions
from demo.stand_ins.served import Fault, Object, Request, StandIn
from warehouse import clock

OTHER = "(other)"
_MOST_DIMENSIONS, _MOST_METRICS, _MOST_ROWS, _USUAL_ROWS = 9, 10, 250_000, 10_000
_SEE = "For a list of valid dimensions and metrics, see https://developers.google.com/analytics/devguides/reporting/data/v1/api-schema"
_STATUS = {400: "INVALID_ARGUMENT", 403: "PERMISSION_DENIED", 404: "NOT_FOUND", 429: "RESOURCE_EXHAUSTED", 500: "INTERNAL", 503: "UNAVAILABLE"}
_ORDERS = {1: "ALPHANUMERIC", 2: "CASE_INSENSITIVE_ALPHANUMERIC", 3: "NUMERIC"}


@dataclass(frozen=True)
class Asked:
    """A request as it arrived; `day` is where its date range begins."""

    path: str
    body: Object

    @property
    def day(self) -> str:
        return str((self.body.get("dateRanges") or [{}])[0].get("startDate", ""))

    @property
    def offset(self) -> int:
        return int(self.body.get("offset", 0))


class Refused(served.Refused):
    """An answer that is an error, as Google words it."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(code, message, {"error": {"code": code, "message": message, "status": _STATUS.get(code, "UNKNOWN")}})


@dataclass
class Distortion:
    """What Google does to a day: at most so many rows, rows of at least so many users, only so many events looked at."""

    most_rows: int | None = None
    fewest_users: int | None = None
    sampled: tuple[int, int] | None = None


@dataclass
class Property:
    """One property. Add, remove and restate its hits; what is left of its quotas is in `left`."""

    number: str
    time_zone: str = "Etc/UTC"
    currency: str = "USD"
    hits: dict[date, list[Hit]] = field(default_factory=dict)
    distorted: dict[date, Distortion] = field(default_factory=dict)
    custom: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Custom dimensions and metrics: API name -> title, and type (empty for a dimension)."""
    hidden: set[str] = field(default_factory=set)
    """Metrics that the reader may not see."""
    most: dict[str, int] = field(default_factory=lambda: {"tokensPerDay": 200_000, "tokensPerHour": 40_000, "tokensPerProjectPerHour": 14_000})
    left: dict[str, int] = field(default_factory=dict)
    cost: int = 5
    spent_in: dict[str, str] = field(default_factory=dict)

    def add(self, *hits: Hit) -> None:
        """Collect hits, each on its own day."""
        for hit in hits:
            self.hits.setdefault(hit.day, []).append(hit)

    def restate(self, day: date, *hits: Hit) -> None:
        """Replace everything of a day; without hits it becomes empty."""
        self.hits[day] = list(hits)

    def today(self, now: datetime) -> date:
        """The property's own date."""
        return now.astimezone(ZoneInfo(self.time_zone)).date()

    def spend(self, now: datetime) -> Object:
        """Take what a request costs, once the hour or the day has brought new tokens.

        Raises:
            Refused: a quota is used up; nothing is taken then.
        """
        for name, most in self.most.items():
            period = f"{now:%Y-%m-%d}" if name == "tokensPerDay" else f"{now:%Y-%m-%d %H}"
            if self.spent_in.get(name, period) != period or name not in self.left:
                self.left[name] = most
            self.spent_in[name] = period
        for name, left in self.left.items():
            if left < self.cost:
                raise Refused(429, f"Exhausted property tokens ({name}). These quota tokens will return later. To learn more, see https://example.com/quotas")
        self.left = {name: left - self.cost for name, left in self.left.items()}
        return {name: {"consumed": self.cost, "remaining": left} for name, left in self.left.items()}


@dataclass
class GoogleAnalyticsStandIn(StandIn[Asked]):
    """Some properties behind HTTP at `url`; use it as a context manager.

    Attributes:
        now: the clock that says what today is and when quotas come back.
        before: called with each request before it is answered, for what happens while somebody reads.
        port: where it listens; 0 for a free one.
        most_rows: no page has more, however many are asked for.
    """

    now: Callable[[], datetime] = clock.now
    port: int = 0
    most_rows: int = _MOST_ROWS
    before: Callable[[Asked], None] | None = None
    asked: list[Asked] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.properties: dict[str, Property] = {}
        self._lock = threading.RLock()
        self._chance = random.Random(7)  # noqa: S311 - shuffles ties

    def open(self, number: str = "1001", **fields: Any) -> Property:
        """The property of a number; made when there is none."""
        return self.properties.setdefault(number, Property(number, **fields))

    def reports_asked(self, day: date | None = None) -> int:
        """How many reports were asked for, of one day or of all."""
        return sum(one.path.endswith(":runReport") and (day is None or one.day == day.isoformat()) for one in self.asked)

    def arrived(self, request: Request) -> Asked:
        """A request as it arrived."""
        return Asked(request.path, request.body)

    def error(self, fault: Fault) -> Object:
        """An error of Google's own."""
        return Refused(fault.status, fault.message).body

    def answer(self, asked: Asked) -> Object:
        """The answer to a request.

        Raises:
            Refused: the answer is an error.
        """
        with self._lock:
            found = re.fullmatch(r"/v1beta/properties/(\d+)(/metadata|:runReport)", asked.path)
            if not found:
                raise Refused(404, "Requested entity was not found.")
            if found.group(1) not in self.properties:
                raise Refused(403, "User does not have sufficient permissions for this property.")
            this = self.properties[found.group(1)]
            quota = this.spend(self.now())
            if found.group(2) == "/metadata":
                return _metadata(this)
            answer = _Query(this, asked.body, self.now(), self._chance, self.most_rows).answer()
            return {**answer, **({"propertyQuota": quota} if asked.body.get("returnPropertyQuota") else {})}


class _Query:
    """One report."""

    def __init__(self, this: Property, body: Object, now: datetime, chance: random.Random, most_rows: int) -> None:
        self._property, self._body, self._chance, self._most_rows = this, body, chance, most_rows
        self._dimensions = [str(one["name"]) for one in body.get("dimensions", [])]
        self._metrics = [DEPRECATED.get(str(one["name"]), str(one["name"])) for one in body.get("metrics", [])]
        self._refuse()
        first, last = (self._date(str(body["dateRanges"][0][end]), now) for end in ("startDate", "endDate"))
        self._days = [day for day in sorted(this.hits) if first <= day <= last]
        self._distortion = next((this.distorted[day] for day in sorted(this.distorted) if first <= day <= last), Distortion())

    def answer(self) -> Object:
        """Rows of one page, what they add up to, and what is to be known of them."""
        hits = [hit for day in self._days for hit in self._property.hits[day]]
        engaged = engaged_sessions(hits)
        is_of_items = bool(ITEM_DIMENSIONS & {*self._dimensions} or ITEM_METRICS & {*self._metrics})
        parts: list[Part] = [(hit, item) for hit in hits for item in hit.items] if is_of_items else [(hit, None) for hit in hits]
        test = self._body.get("dimensionFilter")
        groups: dict[tuple[str, ...], list[Part]] = {}
        for part in parts:
            if passes(test, partial(part[0].dimension, item=part[1])):
                groups.setdefault(tuple(part[0].dimension(name, part[1]) for name in self._dimensions), []).append(part)
        metadata: Object = {"currencyCode": self._property.currency, "timeZone": self._property.time_zone}
        groups = self._distort(groups, engaged, metadata)
        rows = [(key, [self._value(name, found, engaged) for name in self._metrics]) for key, found in groups.items()]
        rows = [(key, values) for key, values in rows if any(values) or self._body.get("keepEmptyRows")]
        test = self._body.get("metricFilter")
        rows = [row for row in rows if passes(test, dict(zip(self._metrics, row[1], strict=True)).__getitem__)]
        offset, limit = int(self._body.get("offset", 0)), min(int(self._body.get("limit", 0)) or _USUAL_ROWS, self._most_rows)
        answer: Object = {
            "dimensionHeaders": [{"name": name} for name in self._dimensions],
            "metricHeaders": [{"name": name, "type": TYPES[self._type(name)]} for name in self._metrics],
            "rows": [_row(key, values) for key, values in self._ordered(rows)[offset : offset + limit]],
            "rowCount": len(rows), "metadata": metadata, "kind": "analyticsData#runReport",
        }  # fmt: skip
        if {1, "TOTAL"} & set(self._body.get("metricAggregations", [])) and rows:
            every = [part for found in groups.values() for part in found]
            answer["totals"] = [_row(["RESERVED_TOTAL"] * len(self._dimensions), [self._value(name, every, engaged) for name in self._metrics])]
        return answer

    def _refuse(self) -> None:
        known = {**DIMENSIONS, **{name: ("", "") for name, (_, kind) in self._property.custom.items() if not kind}}
        metrics = {*METRICS, *(name for name, (_, kind) in self._property.custom.items() if kind)}
        if len(self._dimensions) > _MOST_DIMENSIONS or len(self._metrics) > _MOST_METRICS:
            raise Refused(400, f"Requests are limited to {_MOST_DIMENSIONS} dimensions and {_MOST_METRICS} metrics.")
        for kind, names, all_known in (("dimension", self._dimensions, known), ("metric", self._metrics, metrics)):
            for name in names:
                if name not in all_known:
                    raise Refused(400, f"Field {name} is not a valid {kind}. {_SEE}")
        item = next((name for name in self._dimensions if name in ITEM_DIMENSIONS), None)
        if item and not set(self._metrics) <= ITEM_METRICS:
            raise Refused(400, f"Please remove {item} to make the request compatible. The request's dimensions & metrics are incompatible. {_SEE}")
        if len(self._body.get("dateRanges", [])) != 1:
            raise Refused(400, "This stand-in answers one date range.")

    def _date(self, text: str, now: datetime) -> date:
        today = self._property.today(now)
        ago = re.fullmatch(r"(\d+)daysAgo", text)
        if text in ("today", "yesterday") or ago:
            return today - timedelta(days=int(ago.group(1)) if ago else text == "yesterday")
        return date.fromisoformat(text)

    def _distort(self, groups: dict[tuple[str, ...], list[Part]], engaged: Engaged, metadata: Object) -> dict[tuple[str, ...], list[Part]]:
        what = self._distortion
        if what.sampled:
            metadata["samplingMetadatas"] = [{"samplesReadCount": str(what.sampled[0]), "samplingSpaceSize": str(what.sampled[1])}]
        if what.fewest_users is not None:
            groups = {key: found for key, found in groups.items() if len({hit.user for hit, _ in found}) >= (what.fewest_users or 0)}
            metadata["subjectToThresholding"] = True
        if what.most_rows is not None and len(groups) > what.most_rows:
            largest = sorted(groups, key=lambda key: (-float(self._value(self._metrics[0], groups[key], engaged)), key))
            rest = [part for key in largest[what.most_rows - 1 :] for part in groups[key]]
            groups = {key: groups[key] for key in largest[: what.most_rows - 1]}
            groups[tuple(rest[0][0].dimension(name, None) if name == "date" else OTHER for name in self._dimensions)] = rest
            metadata["dataLossFromOtherRow"] = True
        return groups

    def _value(self, name: str, parts: Sequence[Part], engaged: Engaged) -> Any:
        if name in self._property.hidden:
            return 0
        if name in METRICS:
            return METRICS[name][2](parts, engaged)
        return sum(hit.numbers.get(name, 0) for hit, _ in parts)

    def _type(self, name: str) -> str:
        return METRICS[name][0] if name in METRICS else self._property.custom[name][1]

    def _ordered(self, rows: list[tuple[tuple[str, ...], list[Any]]]) -> list[tuple[tuple[str, ...], list[Any]]]:
        rows = list(rows)
        self._chance.shuffle(rows)
        for order in reversed(self._body.get("orderBys") or [{"metric": {"metricName": self._metrics[0]}, "desc": True}]):
            if "metric" in order:
                place = self._metrics.index(order["metric"]["metricName"])
                rows.sort(key=lambda row: float(row[1][place]), reverse=bool(order.get("desc")))
                continue
            place = self._dimensions.index(order["dimension"]["dimensionName"])
            kind = order["dimension"].get("orderType", 1)
            kind = _ORDERS.get(kind, kind)
            keys: dict[str, Callable[[str], Any]] = {"ALPHANUMERIC": str, "CASE_INSENSITIVE_ALPHANUMERIC": str.lower, "NUMERIC": float}
            rows.sort(key=lambda row: keys[kind](row[0][place]), reverse=bool(order.get("desc")))
        return rows


def _metadata(this: Property) -> Object:
    old: dict[str, list[str]] = {}
    for before, name in DEPRECATED.items():
        old.setdefault(name, []).append(before)
    dimensions = [{"apiName": name, "uiName": title, "description": f"{title}.", "category": category} for name, (title, category) in DIMENSIONS.items()]
    metrics: list[Object] = [
        {"apiName": name, "uiName": title, "description": f"{title}.", "category": "Metrics", "type": TYPES[kind], "deprecatedApiNames": old.get(name, []),
         **({"blockedReasons": [1]} if name in this.hidden else {})}
        for name, (kind, title, _) in METRICS.items()
    ]  # fmt: skip
    for name, (title, kind) in this.custom.items():
        one: Object = {"apiName": name, "uiName": title, "description": "Custom.", "category": "Custom", "customDefinition": True}
        metrics += [{**one, "type": TYPES[kind]}] if kind else []
        dimensions += [] if kind else [one]
    return {"name": f"properties/{this.number}/metadata", "dimensions": dimensions, "metrics": metrics}


def _row(key: Sequence[str], values: Sequence[Any]) -> Object:
    return {"dimensionValues": [{"value": value} for value in key], "metricValues": [{"value": str(value)} for value in values]}
