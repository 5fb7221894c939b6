"""The stand-in of Zendesk behaves as Zendesk documents, also where that makes it hard to export."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
import requests
from integration.stand_in_clock import NOW, Clock

from demo.stand_ins.zendesk import ZendeskStandIn


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def zendesk(clock: Clock) -> Iterator[ZendeskStandIn]:
    with ZendeskStandIn(now=clock) as account:
        yield account


def token(zendesk: ZendeskStandIn, **other: str) -> tuple[int, Any]:
    body = {"grant_type": "client_credentials", "client_id": zendesk.client_id, "client_secret": zendesk.client_secret, "scope": "read", **other}
    answer = requests.post(f"{zendesk.url}/oauth/tokens", json=body, timeout=5)
    return answer.status_code, answer.json()


def get(zendesk: ZendeskStandIn, path: str, **query: Any) -> tuple[int, Any]:
    headers = {"Authorization": f"Bearer {query.pop('token', None) or token(zendesk)[1]['access_token']}"}
    answer = requests.get(f"{zendesk.url}/api/v2/{path}", params=query, headers=headers, timeout=5)
    return answer.status_code, {**answer.json(), "retry_after": answer.headers.get("Retry-After")}


def ids(answer: tuple[int, Any], name: str = "tickets") -> list[int]:
    return [one["id"] for one in answer[1][name]]


def test_a_cursor_export_pages_on_and_gives_an_address_also_at_its_end(zendesk: ZendeskStandIn, clock: Clock) -> None:
    zendesk.page_size = 2
    made = []
    for _ in range(3):
        made.append(zendesk.create_ticket()["id"])
        clock.now += timedelta(minutes=2)
    first = get(zendesk, "incremental/tickets/cursor.json", start_time=0)
    assert (ids(first), first[1]["end_of_stream"]) == (made[:2], False)
    last = get(zendesk, "incremental/tickets/cursor.json", cursor=first[1]["after_cursor"])
    assert (ids(last), last[1]["end_of_stream"]) == (made[2:], True)
    assert last[1]["after_cursor"] in last[1]["after_url"]
    zendesk.update_ticket(made[0], status="open")
    clock.now += timedelta(minutes=2)
    assert ids(get(zendesk, "incremental/tickets/cursor.json", cursor=last[1]["after_cursor"])) == [made[0]]


def test_the_last_minute_is_excluded_to_the_second(zendesk: ZendeskStandIn, clock: Clock) -> None:
    zendesk.create_ticket()
    clock.now += timedelta(seconds=59)
    answer = get(zendesk, "incremental/tickets/cursor.json", start_time=0)
    assert (ids(answer), answer[1]["end_of_stream"]) == ([], True)
    clock.now += timedelta(seconds=1)
    assert len(ids(get(zendesk, "incremental/tickets/cursor.json", cursor=answer[1]["after_cursor"]))) == 1


def test_a_system_update_moves_only_the_generated_timestamp_and_leaves_no_event(zendesk: ZendeskStandIn, clock: Clock) -> None:
    made = zendesk.create_ticket()
    clock.now += timedelta(hours=1)
    zendesk.system_update(made["id"], priority="high")
    (ticket,) = zendesk.objects("tickets")
    assert (ticket["updated_at"], ticket["generated_timestamp"]) == (made["updated_at"], made["generated_timestamp"] + 3600)
    assert len(zendesk.objects("ticket_events")) == 1


def test_a_page_by_time_never_ends_within_a_second_and_the_next_begins_with_it(zendesk: ZendeskStandIn, clock: Clock) -> None:
    made = [zendesk.add("organizations")["id"] for _ in range(3)]
    clock.now += timedelta(minutes=1)
    made.append(zendesk.add("organizations")["id"])
    clock.now += timedelta(minutes=2)
    first = get(zendesk, "incremental/organizations.json", start_time=0, per_page=2)
    assert (ids(first, "organizations"), first[1]["end_of_stream"], first[1]["count"]) == (made[:3], False, 3)
    assert first[1]["end_time"] == int(NOW.timestamp())
    second = get(zendesk, "incremental/organizations.json", start_time=first[1]["end_time"] + 1, per_page=2)
    assert (ids(second, "organizations"), second[1]["end_of_stream"]) == (made[3:], True)
    assert get(zendesk, "incremental/organizations.json", start_time=int(clock.now.timestamp()) - 59)[0] == 400


def test_comments_are_in_the_events_when_asked_for(zendesk: ZendeskStandIn, clock: Clock) -> None:
    ticket = zendesk.create_ticket(description="hello", requester_id=5)["id"]
    zendesk.update_ticket(ticket, status="open", comment="hi", by=6, is_public=False)
    clock.now += timedelta(minutes=2)
    _, plain = get(zendesk, "incremental/ticket_events.json", start_time=0)
    _, with_comments = get(zendesk, "incremental/ticket_events.json", start_time=0, include="comment_events")
    assert plain["ticket_events"][1]["child_events"][-1] == {**plain["ticket_events"][1]["child_events"][-1], "comment_present": True, "comment_public": False}
    assert [event["child_events"][-1]["body"] for event in with_comments["ticket_events"]] == ["hello", "hi"]
    changes = [child for child in plain["ticket_events"][1]["child_events"] if child["event_type"] == "Change"]
    assert [(child["status"], child["previous_value"]) for child in changes] == [("open", "new")]


def test_side_loads_come_once_each(zendesk: ZendeskStandIn, clock: Clock) -> None:
    user, group = zendesk.add("users")["id"], zendesk.add("groups")["id"]
    tickets = [zendesk.create_ticket(requester_id=user, group_id=group)["id"] for _ in range(2)]
    clock.now += timedelta(minutes=2)
    _, answer = get(zendesk, "incremental/tickets/cursor.json", start_time=0, include="metric_sets,users,groups")
    assert [one["ticket_id"] for one in answer["metric_sets"]] == tickets
    assert ([one["id"] for one in answer["users"]], [one["id"] for one in answer["groups"]]) == ([user], [group])


def test_the_eleventh_export_in_a_minute_is_told_how_long_to_wait(zendesk: ZendeskStandIn, clock: Clock) -> None:
    given = token(zendesk)[1]["access_token"]
    for _ in range(10):
        assert get(zendesk, "incremental/users/cursor.json", start_time=0, token=given)[0] == 200
    clock.now += timedelta(seconds=20)
    status, answer = get(zendesk, "incremental/users/cursor.json", start_time=0, token=given)
    assert (status, answer["retry_after"]) == (429, "40")
    assert get(zendesk, "groups.json", token=given)[0] == 200
    clock.now += timedelta(seconds=40)
    assert get(zendesk, "incremental/users/cursor.json", start_time=0, token=given)[0] == 200


def test_tokens_are_given_for_the_right_secret_and_expire(zendesk: ZendeskStandIn, clock: Clock) -> None:
    assert token(zendesk, client_secret="wrong")[0] == 401
    status, given = token(zendesk)
    assert (status, given["token_type"], given["expires_in"]) == (200, "bearer", 7200)
    assert get(zendesk, "groups.json", token=given["access_token"])[0] == 200
    clock.now += timedelta(seconds=7200)
    assert get(zendesk, "groups.json", token=given["access_token"])[0] == 401
    basic = (f"{zendesk.email}/token", zendesk.api_token)
    assert requests.get(f"{zendesk.url}/api/v2/groups.json", auth=basic, timeout=5).status_code == 200


def test_lists_page_by_cursor_and_an_absent_one_is_not_found(zendesk: ZendeskStandIn) -> None:
    for _ in range(5):
        zendesk.add("groups")
    _, first = get(zendesk, "groups.json", **{"page[size]": 3})
    assert (len(first["groups"]), first["meta"]["has_more"]) == (3, True)
    _, second = get(zendesk, "groups.json", **{"page[size]": 3, "page[after]": first["meta"]["after_cursor"]})
    assert (len(second["groups"]), second["meta"]["has_more"]) == (2, False)
    assert "meta" not in get(zendesk, "slas/policies.json")[1]
    zendesk.absent = {"slas/policies"}
    assert get(zendesk, "slas/policies.json")[0] == 404


def test_a_forgotten_cursor_is_refused(zendesk: ZendeskStandIn) -> None:
    _, answer = get(zendesk, "incremental/tickets/cursor.json", start_time=0)
    zendesk.forget_cursors()
    assert get(zendesk, "incremental/tickets/cursor.json", cursor=answer["after_cursor"])[0] == 400
