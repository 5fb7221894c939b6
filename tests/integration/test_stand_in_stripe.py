"""The stand-in of Stripe behaves as Stripe documents, also where that makes it hard to read."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
import requests
from integration.stand_in_clock import NOW, Clock

from demo.stand_ins.stripe import Asked, StripeStandIn


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def stripe(clock: Clock) -> Iterator[StripeStandIn]:
    with StripeStandIn(now=clock) as account:
        yield account


def get(stripe: StripeStandIn, path: str, version: str = "2025-06-30.basil", key: str | None = None, **query: Any) -> tuple[int, Any]:
    headers = {"Authorization": f"Bearer {key or stripe.secret_key}", "Stripe-Version": version}
    answer = requests.get(f"{stripe.url}/v1/{path}", params=query, headers=headers, timeout=5)
    return answer.status_code, answer.json()


def ids(answer: tuple[int, Any]) -> list[str]:
    return [thing["id"] for thing in answer[1]["data"]]


def test_lists_are_newest_first_and_page_both_ways(stripe: StripeStandIn, clock: Clock) -> None:
    made = []
    for _ in range(5):
        clock.now += timedelta(hours=1)
        made.append(stripe.create("customers")["id"])
    assert ids(get(stripe, "customers", limit=2)) == [made[4], made[3]]
    status, page = get(stripe, "customers", limit=2, starting_after=made[3])
    assert (status, page["has_more"], [one["id"] for one in page["data"]]) == (200, True, [made[2], made[1]])
    assert not get(stripe, "customers", limit=2, starting_after=made[1])[1]["has_more"]
    assert ids(get(stripe, "customers", limit=2, ending_before=made[1])) == [made[3], made[2]]
    third = int((NOW + timedelta(hours=3)).timestamp())
    assert ids(get(stripe, "customers", **{"created[gte]": third})) == [made[4], made[3], made[2]]
    assert ids(get(stripe, "customers", **{"created[lt]": third})) == [made[1], made[0]]


def test_what_is_inserted_or_deleted_while_paging_is_seen_as_stripe_shows_it(stripe: StripeStandIn) -> None:
    made = [stripe.create("customers")["id"] for _ in range(4)]

    def insert(asked: Asked) -> None:
        stripe.before = None
        stripe.create("customers")

    stripe.before = insert
    assert len(ids(get(stripe, "customers", limit=10))) == 5
    assert ids(get(stripe, "customers", limit=2, starting_after=made[2])) == [made[1], made[0]]
    stripe.delete(made[2])
    status, error = get(stripe, "customers", limit=2, starting_after=made[2])
    assert (status, error["error"]["param"]) == (400, "starting_after")


def test_a_deleted_customer_is_a_stub_and_a_deleted_draft_is_gone(stripe: StripeStandIn) -> None:
    customer, draft = stripe.create("customers")["id"], stripe.create("invoices")["id"]
    stripe.delete(customer)
    stripe.delete(draft)
    assert get(stripe, f"customers/{customer}") == (200, {"id": customer, "object": "customer", "deleted": True})
    status, error = get(stripe, f"invoices/{draft}")
    assert (status, error["error"]["code"]) == (404, "resource_missing")
    assert ids(get(stripe, "customers")) == ids(get(stripe, "invoices")) == []


def test_an_event_shows_the_shape_of_its_time_and_a_retrieval_the_shape_asked_for(stripe: StripeStandIn) -> None:
    stripe.event_version = "2019-12-03"
    parent = {"type": "subscription_details", "subscription_details": {"subscription": "sub_1"}}
    invoice = stripe.create("invoices", parent=parent)["id"]
    (event,) = get(stripe, "events")[1]["data"]
    assert (event["api_version"], event["data"]["object"]["subscription"]) == ("2019-12-03", "sub_1")
    assert "parent" not in event["data"]["object"]
    assert get(stripe, f"invoices/{invoice}")[1]["parent"] == parent
    assert get(stripe, f"invoices/{invoice}", version="2020-08-27")[1]["subscription"] == "sub_1"


def test_an_event_may_come_late_and_expires_after_thirty_days(stripe: StripeStandIn, clock: Clock) -> None:
    stripe.create("customers", late=timedelta(minutes=10))
    assert ids(get(stripe, "events")) == []
    clock.now += timedelta(minutes=10)
    (event,) = get(stripe, "events")[1]["data"]
    assert event["created"] == int(NOW.timestamp())
    clock.now = NOW + timedelta(days=30, seconds=1)
    assert ids(get(stripe, "events")) == []


def test_nested_lists_hold_ten_and_page_on(stripe: StripeStandIn) -> None:
    invoice = stripe.create("invoices", lines=[{"amount": number} for number in range(13)])["id"]
    lines = get(stripe, f"invoices/{invoice}")[1]["lines"]
    assert (len(lines["data"]), lines["has_more"]) == (10, True)
    rest = get(stripe, f"invoices/{invoice}/lines", limit=100, starting_after=lines["data"][-1]["id"])[1]
    assert [line["amount"] for line in rest["data"]] == [10, 11, 12]


def test_cancelled_subscriptions_are_listed_only_when_asked_for(stripe: StripeStandIn) -> None:
    subscription = stripe.create("subscriptions", status="canceled", items=[{"price": {"id": "price_1"}}])["id"]
    assert ids(get(stripe, "subscriptions")) == []
    assert ids(get(stripe, "subscriptions", status="all")) == [subscription]
    assert len(ids(get(stripe, "subscription_items", subscription=subscription))) == 1


def test_wrong_keys_and_limits(stripe: StripeStandIn) -> None:
    assert get(stripe, "customers", key="sk_test_wrong")[0] == 401
    stripe.most_a_second = 3
    assert [get(stripe, "customers")[0] for _ in range(4)] == [200, 200, 200, 429]
