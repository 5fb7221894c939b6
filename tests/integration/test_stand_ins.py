"""All stand-ins of APIs are served alike: faults happen when told to, and no answer waits for the reader's acknowledgement."""

import time
from collections.abc import Iterator

import pytest
import requests
from integration.stand_in_clock import Clock

from demo.stand_ins.google_analytics import GoogleAnalyticsStandIn
from demo.stand_ins.served import Fault, StandIn
from demo.stand_ins.stripe import StripeStandIn
from demo.stand_ins.zendesk import ZendeskStandIn

PATHS = {StripeStandIn: "/v1/customers", ZendeskStandIn: "/api/v2/groups.json", GoogleAnalyticsStandIn: "/v1beta/properties/1/metadata"}


@pytest.fixture(params=PATHS)
def stand_in(request: pytest.FixtureRequest) -> Iterator[StandIn]:
    with request.param(now=Clock()) as opened:
        yield opened


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with requests.Session() as opened:
        yield opened


def get(session: requests.Session, stand_in: StandIn, timeout: float = 5) -> requests.Response:
    return session.get(stand_in.url + PATHS[type(stand_in)], timeout=timeout)


def test_faults_happen_as_often_as_told_and_leave_the_next_request_alone(stand_in: StandIn, session: requests.Session) -> None:
    usual = get(session, stand_in)
    path = PATHS[type(stand_in)].removesuffix(".json")
    stand_in.faults = [Fault(path, status=503, times=2), Fault(path, status=429, retry_after="7"), Fault(path, is_torn=True), Fault(path, reset=True)]
    answers = [get(session, stand_in) for _ in range(4)]
    assert [one.status_code for one in answers] == [503, 503, 429, 200]
    assert [one.headers.get("Retry-After") for one in answers] == [None, None, "7", None]
    assert "told to fail" in answers[0].text
    with pytest.raises(requests.JSONDecodeError):
        answers[3].json()
    with pytest.raises(requests.ConnectionError):
        get(session, stand_in)
    stand_in.faults = [Fault(path, hang=0.5)]
    with pytest.raises(requests.Timeout):
        get(session, stand_in, timeout=0.1)
    assert get(session, stand_in).json() == usual.json()
    assert usual.headers["Date"] == "Sun, 01 Mar 2026 12:00:00 GMT"


def test_answers_of_one_connection_follow_each_other_at_once(stand_in: StandIn, session: requests.Session) -> None:
    """In two pieces each would wait some 40 ms: 1.6 seconds."""
    took = []
    for _ in range(40):
        began = time.monotonic()
        get(session, stand_in)
        took.append(time.monotonic() - began)
    assert sorted(took)[20] < 0.03
