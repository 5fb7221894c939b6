"""Support metrics are what a diary in plain Python says of random accounts, to the minute, over changes of clocks and of schedules."""

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from conftest import ask
from integration.support_world import World, weekly
from integration.zendesk_world import zendesk_world

from transform.build import open_context
from transform.raw_tables import complete
from warehouse import storage

START = datetime(2026, 2, 27, 8, tzinfo=UTC)
MARTS = ("marts.ticket_backlog_daily", "marts.support_daily")
COLUMNS = (
    "first_reply_at", "first_reply_by", "agent_replies", "agents", "first_reply_minutes", "first_reply_business_minutes", "first_solved_at", "solved_at",
    "first_resolution_minutes", "full_resolution_minutes", "full_resolution_business_minutes", "reopens", "reply_target_minutes",
    "is_reply_target_in_business_hours", "is_reply_in_time", "satisfaction", "rated_at", "is_deleted",
)  # fmt: skip
ORDERED = [datetime(2026, 3, 2, 12, tzinfo=UTC), datetime(2026, 3, 2, 13, tzinfo=UTC), datetime(2026, 3, 8, 23, tzinfo=UTC)]


def _build(now: datetime) -> None:
    """The marts of support and what they are made of, nothing else."""
    with open_context() as opened:
        if opened.state_reader.get_environment("prod") is None:
            builder = opened.plan_builder("prod", skip_tests=True, skip_linter=True, execution_time=now, select_models=[f"+{mart}" for mart in MARTS])
            opened.apply(builder.build())
        else:
            opened.run("prod", end=now, execution_time=now, ignore_cron=True)
        opened.console.raise_if_failed()  # type: ignore[attr-defined]  # it is ours


def _orders() -> None:
    with storage.open_warehouse() as connection:
        complete(connection)
        at = "'2026-03-05 00:00:00+00'::TIMESTAMPTZ AS _loaded_at"
        connection.execute(f"INSERT INTO raw_postgres.users BY NAME SELECT 1 AS id, '2025-12-01 00:00:00+00'::TIMESTAMPTZ AS created_at, {at}")
        for number, ordered in enumerate(ORDERED):
            connection.execute(
                "INSERT INTO raw_postgres.orders BY NAME SELECT ? AS id, 1 AS user_id, ?::TIMESTAMPTZ AS ordered_at, 1 AS quantity, 1 AS revenue, "
                f"'USD' AS currency, {at}",
                [number, ordered.isoformat()],
            )


def _utc(value: Any) -> Any:
    return value.replace(tzinfo=UTC) if isinstance(value, datetime) else value


def _assert_true(world: World) -> None:
    ((newest,),) = ask("SELECT max(loaded_at) FROM staging.stg_zendesk__tickets")
    known_until = _utc(newest)
    facts = world.facts(known_until)
    held = {key: dict(zip(COLUMNS, map(_utc, row), strict=True)) for key, *row in ask(f"SELECT ticket_id, {', '.join(COLUMNS)} FROM marts.ticket_facts")}
    assert held == facts
    assert ask("SELECT * FROM marts.ticket_backlog_daily ORDER BY date") == world.backlog("UTC", known_until)
    days = {row[0]: row[1:] for row in ask("SELECT * EXCLUDE (contact_rate, satisfaction_rate) FROM marts.support_daily")}
    assert {day: row for day, row in days.items() if any(row)} == world.daily("UTC", facts, ORDERED)


def _resolved() -> dict[tuple[Any, ...], int]:
    """The business minutes of each ticket until it was solved then."""
    return {row[:2]: row[2] for row in ask("SELECT ticket_id, solved_at, full_resolution_business_minutes FROM marts.ticket_facts WHERE NOT solved_at IS NULL")}


@pytest.mark.parametrize("seed", [7])
def test_a_random_account_has_the_metrics_of_its_diary_and_a_change_of_hours_leaves_what_was(
    seed: int, setting: Callable[[str, str | None], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with zendesk_world(setting, monkeypatch, tmp_path) as zendesk:
        zendesk.account.exports_a_minute = None
        world = World(seed, zendesk.account, START)
        first, *_ = world.schedules.values()
        world.live_until(datetime(2026, 3, 18, 15, 30, tzinfo=UTC))
        zendesk.at(world.now + timedelta(minutes=2))
        zendesk.load()
        _orders()
        _build(zendesk.now)
        _assert_true(world)
        before = _resolved()

        world.change_hours(first, "Pacific Time (US & Canada)", "America/Los_Angeles", weekly(2, 6, 600, 900))
        zendesk.account.change("users", world.agents[0], role="end-user")
        world.live_until(datetime(2026, 4, 7, 9, tzinfo=UTC))
        zendesk.at(world.now + timedelta(minutes=2))
        zendesk.load()
        _build(zendesk.now)
        _assert_true(world)
        assert ask("SELECT count(*) FROM marts.schedule_history") == [(4,)]
        same = before.keys() & _resolved().keys()
        assert len(same) > 5
        assert {key: before[key] for key in same} == {key: _resolved()[key] for key in same}
    facts = world.facts(zendesk.now).values()
    tried = {name: {fact[name] for fact in facts} for name in ("is_reply_in_time", "is_deleted", "satisfaction", "is_reply_target_in_business_hours")}
    assert tried == {
        "is_reply_in_time": {True, False, None}, "is_deleted": {True, False}, "satisfaction": {"good", "bad", None},
        "is_reply_target_in_business_hours": {True, False, None},
    }  # fmt: skip
    assert max(fact["reopens"] for fact in facts) > 1
    assert max(fact["agents"] for fact in facts) > 2
    assert any(fact["first_reply_at"] is None for fact in facts)
    assert {date(2026, 3, 8), date(2026, 3, 29)} <= {row[0] for row in world.backlog("UTC", world.now)}
