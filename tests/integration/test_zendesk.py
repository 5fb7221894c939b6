"""Loading Zendesk from its stand-in: every change once, the latest of each, nothing skipped and nothing personal."""

import base64
import re
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from conftest import ask
from integration.zendesk_world import NOW, TICKETS, World, zendesk_world

from demo.stand_ins.served import Fault
from demo.stand_ins.zendesk import Asked
from pipelines import raw, rebuild
from pipelines import zendesk as module
from warehouse import ledger, storage
from warehouse.errors import StepFailed, UsageError, WarehouseError

TABLES = module.declaration().tables


@pytest.fixture
def world(setting: Callable[[str, str | None], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[World]:
    with zendesk_world(setting, monkeypatch, tmp_path) as made:
        yield made


def everything() -> dict[str, list[tuple[Any, ...]]]:
    return {name: ask(f"SELECT * EXCLUDE (_loaded_at, _deleted_at) FROM raw_zendesk.{name} ORDER BY ALL") for name in TABLES}


def queries(world: World, path: str = TICKETS) -> list[dict[str, str]]:
    return [asked.query for asked in world.account.asked if asked.path == f"/api/v2/{path}"]


# Changes.


def test_a_ticket_updated_twice_across_page_boundaries_is_one_row_the_latest(world: World) -> None:
    world.account.page_size = 2
    first, *_ = world.tickets(6)

    def answer_twice() -> None:
        world.account.update_ticket(first, status="open")
        world.later(minutes=2)
        world.on_page(1, lambda: (world.account.update_ticket(first, status="solved"), world.later(minutes=2)))

    world.on_page(2, answer_twice)
    world.load()
    assert ask("SELECT count(*), count(DISTINCT id) FROM raw_zendesk.tickets") == [(6, 6)]
    assert ask(f"SELECT status FROM raw_zendesk.tickets WHERE id = {first}") == [("solved",)]


def test_a_change_of_which_only_the_generated_timestamp_moves_arrives(world: World) -> None:
    (ticket,) = world.tickets(1, priority="low")
    world.load()
    before = ask("SELECT updated_at, generated_timestamp FROM raw_zendesk.tickets")
    world.later(hours=1)
    world.account.system_update(ticket, priority="high")
    world.later(hours=1)
    world.load()
    after = ask("SELECT updated_at, generated_timestamp FROM raw_zendesk.tickets")
    assert ask("SELECT priority FROM raw_zendesk.tickets") == [("high",)]
    assert after[0][0] == before[0][0]
    assert after[0][1] > before[0][1]


def test_a_change_of_the_last_minute_arrives_in_the_next_load(world: World) -> None:
    (ticket,) = world.tickets(1)
    world.account.update_ticket(ticket, status="open", comment="hello")
    world.later(seconds=30)
    world.load()
    assert ask("SELECT count(*) FROM raw_zendesk.tickets") == [(0,)]
    world.later(seconds=40)
    world.load()
    assert ask("SELECT status FROM raw_zendesk.tickets") == [("open",)]
    assert ask("SELECT body FROM raw_zendesk.ticket_comments WHERE body <> ''") == [("hello",)]


def test_an_older_state_that_arrives_later_does_not_overwrite_a_newer_one(world: World, tmp_path: Path) -> None:
    world.tickets(1, status="solved")
    world.load()
    older = tmp_path / "older.parquet"
    with storage.open_warehouse() as connection:
        changed = "'open' AS status, generated_timestamp - 1 AS generated_timestamp"
        connection.execute(f"COPY (SELECT * REPLACE ({changed}) FROM raw_zendesk.tickets) TO '{older}' (FORMAT parquet)")
        raw.merge(connection, "zendesk", "tickets", ["id"], older, TABLES["tickets"].newest_by)
    assert ask("SELECT status FROM raw_zendesk.tickets") == [("solved",)]


def test_nothing_new_moves_no_row(world: World) -> None:
    user = world.account.add("users", name="A")["id"]
    world.later(hours=3)
    world.tickets(3, requester_id=user)
    world.account.add("organizations", name="Acme")
    world.account.add("groups", name="Support")
    world.later(hours=1)
    assert sum(one.rows_written for one in world.load().values()) > 0
    world.later(hours=1)
    assert sum(one.rows_written + one.rows_deleted for one in world.load().values()) == 0


# Cursors.


def test_an_empty_page_with_more_to_come_is_not_the_end(world: World) -> None:
    world.tickets(3)
    world.account.empty_pages = 2
    world.load()
    assert ask("SELECT count(*) FROM raw_zendesk.tickets") == [(3,)]


def test_at_the_end_of_the_stream_nothing_further_is_asked_although_there_is_an_address(world: World) -> None:
    world.tickets(3)
    world.load()
    assert world.account.requests_of(TICKETS) == 1
    assert world.account.answer(Asked("/api/v2/" + TICKETS, {"start_time": "0"}, next(a.authorization for a in world.account.asked[::-1])))["after_url"]
    world.later(hours=1)
    world.load()
    assert world.account.requests_of(TICKETS) == 2
    assert "cursor" in queries(world)[1]


@pytest.mark.parametrize("path", [TICKETS, "incremental/ticket_events"])
def test_a_cursor_that_does_not_move_is_an_error_and_what_was_read_stays(world: World, fails: Callable[..., WarehouseError], path: str) -> None:
    world.declare(pages_per_pass=1)
    world.account.page_size = 2
    world.tickets(5)
    world.on_page(2, lambda: setattr(world.account, "is_stuck", True), path)
    error = fails(world.load)
    assert isinstance(error, StepFailed)
    assert "does not move" in error.what
    held = "tickets" if path == TICKETS else "ticket_events"
    assert ask(f"SELECT count(*) FROM raw_zendesk.{held}") == [(2,)]
    world.account.is_stuck = False
    world.load()
    assert ask(f"SELECT count(*) FROM raw_zendesk.{held}") == [(5,)]


def test_a_cursor_that_is_refused_is_a_finding_and_the_export_begins_again_at_the_newest_row(world: World) -> None:
    first, second = world.tickets(2)
    world.load()
    world.account.forget_cursors()
    world.account.update_ticket(first, status="solved")
    world.later(hours=1)
    (finding,) = world.findings()
    assert "the cursor kept with tickets is refused" in finding
    newest = world.account.objects("tickets")[1]["generated_timestamp"]
    assert queries(world)[-1]["start_time"] == str(newest)
    assert ask("SELECT id, status FROM raw_zendesk.tickets ORDER BY id") == [(first, "solved"), (second, "new")]
    world.later(hours=1)
    assert world.findings() == []


def test_users_that_come_beside_tickets_neither_undo_a_newer_state_nor_lose_the_cursor(world: World) -> None:
    with world.account.at(NOW - timedelta(hours=3)):
        user = world.account.add("users", name="A", role="end-user")["id"]
    (ticket,) = world.tickets(1, requester_id=user)
    world.load()
    (cursor,) = ask("SELECT _cursor FROM raw_zendesk.users")
    assert cursor[0]
    world.account.system_update(ticket)
    world.later(hours=1)
    world.load()
    assert ask("SELECT _cursor FROM raw_zendesk.users") == [cursor]
    world.account.system_update(ticket)
    world.account.change("users", user, role="agent")
    world.later(hours=1)
    world.load()
    assert ask("SELECT role, count(*) OVER () FROM raw_zendesk.users") == [("agent", 1)]
    assert queries(world, "incremental/users/cursor")[-1] == {**queries(world, "incremental/users/cursor")[-1], "cursor": cursor[0]}


def test_exports_by_time_repeat_the_boundary_once_and_hold_more_than_a_page_of_one_second(world: World) -> None:
    world.declare(page_size=3, pages_per_pass=100)
    with world.account.at(NOW - timedelta(hours=2)):
        for number in range(7):
            world.account.add("organizations", name=f"early {number}")
    with world.account.at(NOW - timedelta(hours=1)):
        for number in range(2):
            world.account.add("organizations", name=f"late {number}")
    world.load()
    assert ask("SELECT count(*), count(DISTINCT id) FROM raw_zendesk.organizations") == [(9, 9)]
    world.account.add("organizations", name="new")
    world.load()
    world.later(minutes=2)
    world.load()
    assert ask("SELECT count(*), count(DISTINCT id) FROM raw_zendesk.organizations") == [(10, 10)]
    starts = [int(query["start_time"]) for query in queries(world, "incremental/organizations")]
    assert starts[-1] == int((NOW - timedelta(hours=1)).timestamp())


def test_a_start_that_is_too_recent_for_zendesks_clock_means_that_nothing_is_new(world: World) -> None:
    world.account.add("organizations", name="A")
    world.later(seconds=60)
    world.load()
    world.load()
    assert max(int(query["start_time"]) for query in queries(world, "incremental/organizations")) < world.now.timestamp() - 60
    world.account.now = lambda: world.now - timedelta(minutes=5)
    world.account.exports_a_minute = None
    world.load()
    assert world.slept == []
    assert ask("SELECT name FROM raw_zendesk.organizations") == [("A",)]


def test_what_changed_before_the_start_date_is_left_out(world: World, setting: Callable[[str, str | None], None]) -> None:
    with world.account.at(NOW - timedelta(days=400)):
        world.account.create_ticket(subject="old")
    world.tickets(1)
    setting("SOURCES__ZENDESK__START_DATE", "2026-01-01")
    world.load()
    assert ask("SELECT subject FROM raw_zendesk.tickets") == [("ticket 0",)]
    assert queries(world)[0]["start_time"] == str(int(datetime(2026, 1, 1, tzinfo=UTC).timestamp()))


# Limits, faults, signing in.


def test_the_eleventh_request_in_a_minute_is_never_early(world: World) -> None:
    world.declare(pages_per_pass=100)
    world.account.page_size = 2
    world.tickets(25)
    world.load()
    at = [asked.at for asked in world.account.asked if asked.path.startswith("/api/v2/incremental/")]
    assert len(at) == 13 + 1 + 1 + 24 + 24, "one was refused, or asked for twice"
    assert all(later - earlier >= timedelta(minutes=1) for earlier, later in zip(at, at[10:], strict=False))
    assert at[-1] - at[0] < timedelta(minutes=8)
    assert ask("SELECT count(*) FROM raw_zendesk.tickets") == [(25,)]


def test_thirty_requests_a_minute_by_setting(world: World) -> None:
    world.declare(exports_per_minute=30, pages_per_pass=100)
    world.account.page_size, world.account.exports_a_minute = 2, 30
    world.tickets(25)
    world.load()
    assert 60 < sum(world.slept) < 150


def test_retry_after_is_honoured_however_long_and_does_not_count_as_a_failure(world: World) -> None:
    world.tickets(1)
    world.account.faults = [Fault("/api/v2/" + TICKETS, times=9, status=429, retry_after="7200"), Fault("/api/v2/groups", status=429, retry_after="0")]
    world.load()
    assert sum(seconds >= 7200 for seconds in world.slept) == 9
    assert ask("SELECT count(*) FROM raw_zendesk.tickets") == [(1,)]


def test_a_server_that_fails_again_and_again_is_an_error(world: World, fails: Callable[..., WarehouseError]) -> None:
    world.account.faults = [Fault("/api/v2/" + TICKETS, times=99, status=503, retry_after="5")]
    error = fails(world.load)
    assert isinstance(error, StepFailed)
    assert "HTTP 503" in error.what
    assert world.account.requests_of(TICKETS) == 6


def test_a_token_that_is_revoked_in_mid_export_is_renewed_and_nothing_is_lost(world: World) -> None:
    world.account.page_size = 2
    world.tickets(3)
    world.on_page(2, world.account.expire_tokens)
    world.load()
    assert ask("SELECT count(*) FROM raw_zendesk.tickets") == [(3,)]
    assert sum(asked.path == "/oauth/tokens" for asked in world.account.asked) == 2


def test_a_token_is_renewed_before_it_expires(world: World) -> None:
    world.declare(pages_per_pass=100)
    world.account.page_size, world.account.token_lifetime = 2, 300
    world.tickets(30)
    world.load()
    tokens = sum(asked.path == "/oauth/tokens" for asked in world.account.asked)
    assert tokens >= 2
    answered = sum(asked.path.startswith("/api/v2/incremental/") for asked in world.account.asked)
    assert answered == 15 + 1 + 1 + 29 + 29, "one was refused"


def test_a_wrong_secret_names_the_setting_and_never_the_value(
    world: World, setting: Callable[[str, str | None], None], fails: Callable[..., WarehouseError]
) -> None:
    setting("SOURCES__ZENDESK__CLIENT_SECRET", "a wrong secret of somebody")
    for error in (fails(world.load), fails(module.check_connection)):
        assert isinstance(error, UsageError)
        assert "SOURCES__ZENDESK__CLIENT_SECRET" in error.mend
        assert "a wrong secret of somebody" not in str(error)
    setting("SOURCES__ZENDESK__CLIENT_SECRET", None)
    assert "SOURCES__ZENDESK__CLIENT_SECRET is not set" in fails(world.load).what
    setting("SOURCES__ZENDESK__BASE_URL", None)
    assert "SOURCES__ZENDESK__BASE_URL is not set" in fails(world.load).what


def test_an_api_token_is_the_old_way(world: World, setting: Callable[[str, str | None], None], fails: Callable[..., WarehouseError]) -> None:
    setting("SOURCES__ZENDESK__CLIENT_ID", None)
    setting("SOURCES__ZENDESK__CLIENT_SECRET", None)
    setting("SOURCES__ZENDESK__API_TOKEN", world.account.api_token)
    assert "SOURCES__ZENDESK__EMAIL is not set" in fails(world.load).what
    setting("SOURCES__ZENDESK__EMAIL", world.account.email)
    assert "April 2027" in module.check_connection()
    world.tickets(1)
    world.load()
    assert world.account.asked[-1].authorization == "Basic " + base64.b64encode(f"{world.account.email}/token:{world.account.api_token}".encode()).decode()
    setting("SOURCES__ZENDESK__API_TOKEN", "a token of long ago")
    error = fails(world.load)
    assert "SOURCES__ZENDESK__API_TOKEN" in error.mend
    assert "a token of long ago" not in str(error)


def test_whoever_is_no_administrator_is_told_so(world: World, fails: Callable[..., WarehouseError]) -> None:
    assert "administrator" in module.check_connection()
    world.account.role = "agent"
    assert "administrators" in fails(module.check_connection).mend
    world.account.faults = [Fault("/api/v2/" + TICKETS, status=403)]
    error = fails(world.load)
    assert isinstance(error, UsageError)
    assert "administrators" in error.mend


def test_faults_change_nothing_and_the_landing_zone_rebuilds_the_same(world: World) -> None:
    world.account.page_size = 2
    user = world.account.add("users", name="A", email="a@example.com")["id"]
    made = world.tickets(5, requester_id=user, description="hello")
    field = world.account.add("ticket_fields", title="Age", type="integer")["id"]
    world.later(hours=1)
    paths = [TICKETS, "incremental/users", "incremental/ticket_events", "groups"]
    faults = [Fault(f"/api/v2/{paths[0]}", status=500), Fault(f"/api/v2/{paths[1]}", reset=True), Fault(f"/api/v2/{paths[2]}", is_torn=True),
              Fault(f"/api/v2/{paths[3]}", status=429, retry_after="1"), Fault("/oauth/tokens", status=502)]  # fmt: skip
    world.account.faults = faults
    world.load()
    assert all(fault.times == 0 for fault in faults)
    world.account.set_field(made[0], field, 7)
    world.account.delete_ticket(made[1])
    world.account.delete_user(user)
    world.later(hours=1)
    world.load()
    rows = everything()
    assert (len(rows["tickets"]), len(rows["users"])) == (5, 1)
    with ledger.run("rebuild zendesk") as run:
        rebuild.rebuild("zendesk", run)
    held = {row[0] for row in ask("SELECT table_name FROM duckdb_tables() WHERE schema_name = 'raw_zendesk'")}
    assert {name: found for name, found in everything().items() if name in held and found} == {name: found for name, found in rows.items() if found}


def test_the_time_left_is_told_on_a_terminal_and_nowhere_else(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines.pace import Estimate
    from warehouse import console

    assert Estimate(0, 0, 1000).said(0, 10) == "time left not known yet"
    assert Estimate(100, 0, 1000).left(250, 160) == 180
    assert Estimate(0, 0, 1000).said(10, 60) == "about 1.6 hours left"
    told: list[str] = []
    world.declare(exports_per_minute=2, pages_per_pass=100)
    world.account.page_size = 4
    world.tickets(30)
    monkeypatch.setattr(console, "_descriptions", [told.append])
    world.load()
    assert re.fullmatch(r"zendesk tickets up to 2026-03-01 10:\d\d, about \d+ minutes left", told[5])
    monkeypatch.setattr(console, "_descriptions", [])
    console.tell("nobody hears this")


def test_ids_are_exact_and_dates_and_decimals_are_what_they_are(world: World) -> None:
    big = 2**53 + 1
    price = world.account.add("ticket_fields", title="Price", type="decimal")["id"]
    day = world.account.add("ticket_fields", title="Due day", type="date")["id"]
    world.tickets(1, requester_id=big, custom_fields=[{"id": price, "value": "0.1"}, {"id": day, "value": "2026-02-03"}])
    world.load()
    assert ask(f"SELECT requester_id, field_{price}_price, field_{day}_due_day FROM raw_zendesk.tickets") == [(big, Decimal("0.1"), date(2026, 2, 3))]
