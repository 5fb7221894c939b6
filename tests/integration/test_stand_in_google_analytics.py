"""The stand-in of Google Analytics behaves as its documentation says, also where that makes it hard to read."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
import requests
from integration.stand_in_clock import Clock

from demo.stand_ins.google_analytics import Distortion, GoogleAnalyticsStandIn
from demo.stand_ins.google_analytics_company import populate
from demo.stand_ins.google_analytics_schema import Hit, Item

NOW = datetime(2026, 3, 20, 12, tzinfo=UTC)
DAY = date(2026, 3, 19)


@pytest.fixture
def clock() -> Clock:
    return Clock(NOW)


@pytest.fixture
def analytics(clock: Clock) -> Iterator[GoogleAnalyticsStandIn]:
    with GoogleAnalyticsStandIn(now=clock) as account:
        account.open("1", time_zone="Pacific/Auckland", currency="NZD")
        yield account


def run(analytics: GoogleAnalyticsStandIn, dimensions: list[str], metrics: list[str], number: str = "1", **more: Any) -> tuple[int, Any]:
    body = {"dimensions": [{"name": one} for one in dimensions], "metrics": [{"name": one} for one in metrics],
            "dateRanges": [{"startDate": more.pop("start", DAY.isoformat()), "endDate": more.pop("end", DAY.isoformat())}], **more}  # fmt: skip
    answer = requests.post(f"{analytics.url}/v1beta/properties/{number}:runReport", json=body, timeout=5)
    return answer.status_code, answer.json()


def rows(answer: tuple[int, Any]) -> list[tuple[str, ...]]:
    assert answer[0] == 200, answer[1]
    return [tuple(one["value"] for one in row["dimensionValues"] + row["metricValues"]) for row in answer[1]["rows"]]


def fill(analytics: GoogleAnalyticsStandIn, count: int = 25) -> None:
    analytics.properties["1"].add(*(Hit(DAY, f"u{number}", "s", "page_view", {"pagePath": f"/{number:02d}"}) for number in range(count)))


def by(name: str, kind: str = "ALPHANUMERIC", desc: bool = False) -> dict[str, Any]:
    return {"dimension": {"dimensionName": name, "orderType": kind}, "desc": desc}


def test_different_dimensions_of_the_same_hits_agree(analytics: GoogleAnalyticsStandIn) -> None:
    property_ = analytics.properties["1"]
    for user, country, revenue in (("a", "Japan", "1.10"), ("a", "Japan", "2.20"), ("b", "Japan", "3.30"), ("c", "Chile", "4.40")):
        item = Item({"itemId": f"i-{country}"}, 2, Decimal(revenue))
        property_.add(Hit(DAY, user, f"s-{revenue}", "purchase", {"country": country}, value=Decimal(revenue), items=(item,)))
    metrics = ["sessions", "totalUsers", "purchaseRevenue"]
    assert rows(run(analytics, ["country"], metrics, orderBys=[by("country")])) == [("Chile", "1", "1", "4.40"), ("Japan", "3", "2", "6.60")]
    assert rows(run(analytics, ["date"], metrics)) == [("20260319", "4", "3", "11.00")]
    assert rows(run(analytics, ["itemId"], ["itemsPurchased", "itemRevenue"], orderBys=[by("itemId")])) == [("i-Chile", "2", "4.40"), ("i-Japan", "6", "6.60")]


def test_pages_follow_the_order_and_ties_are_in_another_order_each_time(analytics: GoogleAnalyticsStandIn) -> None:
    fill(analytics)
    pages = [run(analytics, ["pagePath"], ["screenPageViews"], orderBys=[by("pagePath")], limit="10", offset=str(offset)) for offset in (0, 10, 20)]
    assert [page[1]["rowCount"] for page in pages] == [25, 25, 25]
    assert [row[0] for page in pages for row in rows(page)] == [f"/{number:02d}" for number in range(25)]
    unordered = [rows(run(analytics, ["pagePath"], ["screenPageViews"])) for _ in range(2)]
    assert unordered[0] != unordered[1]
    assert sorted(unordered[0]) == sorted(unordered[1])
    assert rows(run(analytics, ["pagePath"], ["screenPageViews"], orderBys=[by("pagePath", desc=True)], limit=1)) == [("/24", "1")]


def test_days_are_the_propertys_own_and_relative_ones_too(analytics: GoogleAnalyticsStandIn, clock: Clock) -> None:
    clock.now = datetime(2026, 3, 19, 13, tzinfo=UTC)  # the 20th, two o'clock in the morning
    fill(analytics, 2)
    assert run(analytics, [], ["sessions"], start="today", end="today")[1]["rowCount"] == 0
    answer = run(analytics, [], ["sessions"], start="yesterday", end="1daysAgo")
    assert rows(answer) == [("2",)]
    assert (answer[1]["metadata"]["timeZone"], answer[1]["metadata"]["currencyCode"]) == ("Pacific/Auckland", "NZD")


def test_rare_rows_become_other_small_ones_are_held_back_and_samples_are_told(analytics: GoogleAnalyticsStandIn) -> None:
    fill(analytics, 6)
    analytics.properties["1"].distorted[DAY] = Distortion(most_rows=3)
    answer = run(analytics, ["date", "pagePath"], ["screenPageViews"], orderBys=[by("pagePath")], metricAggregations=["TOTAL"])
    assert rows(answer) == [("20260319", "(other)", "4"), ("20260319", "/00", "1"), ("20260319", "/01", "1")]
    assert answer[1]["metadata"]["dataLossFromOtherRow"] is True
    assert answer[1]["totals"][0]["metricValues"] == [{"value": "6"}]
    analytics.properties["1"].distorted[DAY] = Distortion(fewest_users=2, sampled=(60, 100))
    answer = run(analytics, ["pagePath"], ["screenPageViews"])
    assert rows(answer) == []
    assert answer[1]["metadata"]["subjectToThresholding"] is True
    assert answer[1]["metadata"]["samplingMetadatas"] == [{"samplesReadCount": "60", "samplingSpaceSize": "100"}]


def test_quotas_are_spent_told_and_come_back_with_the_hour(analytics: GoogleAnalyticsStandIn, clock: Clock) -> None:
    analytics.properties["1"].most = {"tokensPerDay": 100, "tokensPerHour": 10}
    first = run(analytics, [], ["sessions"], returnPropertyQuota=True)[1]["propertyQuota"]
    assert first == {"tokensPerDay": {"consumed": 5, "remaining": 95}, "tokensPerHour": {"consumed": 5, "remaining": 5}}
    assert run(analytics, [], ["sessions"])[0] == 200
    status, refused = run(analytics, [], ["sessions"])
    assert (status, refused["error"]["status"]) == (429, "RESOURCE_EXHAUSTED")
    clock.now += timedelta(hours=1)
    again = run(analytics, [], ["sessions"], returnPropertyQuota=True)[1]["propertyQuota"]
    assert (again["tokensPerDay"]["remaining"], again["tokensPerHour"]["remaining"]) == (85, 5)


@pytest.mark.parametrize(
    ("dimensions", "metrics", "number", "status", "says"),
    [
        (["pagePaht"], ["sessions"], "1", 400, "Field pagePaht is not a valid dimension"),
        (["date"], ["sesions"], "1", 400, "Field sesions is not a valid metric"),
        (["itemId"], ["sessions"], "1", 400, "remove itemId to make the request compatible"),
        (["date"] * 10, ["sessions"], "1", 400, "limited to 9 dimensions"),
        (["date"], ["sessions"], "2", 403, "permissions"),
    ],
)
def test_what_is_refused(analytics: GoogleAnalyticsStandIn, dimensions: list[str], metrics: list[str], number: str, status: int, says: str) -> None:
    code, answer = run(analytics, dimensions, metrics, number)
    assert code == status == answer["error"]["code"]
    assert says in answer["error"]["message"]


def test_filters_of_dimensions_and_metrics(analytics: GoogleAnalyticsStandIn) -> None:
    fill(analytics, 12)
    leaf = {"filter": {"fieldName": "pagePath", "stringFilter": {"matchType": "BEGINS_WITH", "value": "/1"}}}
    assert len(rows(run(analytics, ["pagePath"], ["sessions"], dimensionFilter=leaf))) == 2
    assert len(rows(run(analytics, ["pagePath"], ["sessions"], dimensionFilter={"notExpression": leaf}))) == 10
    many = {"filter": {"fieldName": "sessions", "numericFilter": {"operation": "GREATER_THAN", "value": {"int64Value": "1"}}}}
    assert rows(run(analytics, ["pagePath"], ["sessions"], metricFilter=many)) == []


def test_metadata_lists_custom_fields_types_and_what_is_hidden(analytics: GoogleAnalyticsStandIn) -> None:
    property_ = analytics.properties["1"]
    property_.custom, property_.hidden = {"customEvent:plan": ("Plan", ""), "customEvent:score": ("Score", "TYPE_FLOAT")}, {"purchaseRevenue"}
    answer = requests.get(f"{analytics.url}/v1beta/properties/1/metadata", timeout=5).json()
    assert next(one for one in answer["dimensions"] if one["apiName"] == "customEvent:plan")["customDefinition"] is True
    metrics = {one["apiName"]: one for one in answer["metrics"]}
    assert (metrics["customEvent:score"]["type"], metrics["sessions"]["type"], metrics["purchaseRevenue"]["blockedReasons"]) == (2, 1, [1])


def test_the_demo_company_is_the_same_each_time() -> None:
    first, second = GoogleAnalyticsStandIn(), GoogleAnalyticsStandIn()
    populate(first)
    populate(second)
    assert first.properties["1001"].hits == second.properties["1001"].hits
    assert len(first.properties["1001"].hits) == 10
