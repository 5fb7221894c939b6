"""Support metrics are what a diary in plain Python says of random accounts, to the minute, over changes of clocks and of schedules."""

import json
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
from conftest import ask
from hypothesis import given, settings
from hypothesis import strategies as st
from integration.support_world import Schedule, World, weekly
from integration.zendesk_world import zendesk_world
from sqlmesh.core.dialect import parse
from sqlmesh.core.macros import macro
from sqlmesh.core.model import load_sql_based_model

from macros import report_day
from transform.build import open_context
from transform.raw_tables import complete
from warehouse import storage
from warehouse.settings import ROOT

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


ZONES = ("UTC", "America/New_York", "Europe/Berlin", "Asia/Kathmandu", "Australia/Lord_Howe")
STAGED = """
CREATE SCHEMA staging; CREATE SCHEMA marts;
CREATE TABLE staging.stg_zendesk__tickets (ticket_id BIGINT, requester_id BIGINT, assignee_id BIGINT, organization_id BIGINT, group_id BIGINT, brand_id BIGINT,
  status TEXT, priority TEXT, ticket_type TEXT, channel TEXT, created_at TIMESTAMP, updated_at TIMESTAMP, is_deleted BOOLEAN, deleted_at TIMESTAMP,
  loaded_at TIMESTAMP);
CREATE TABLE staging.stg_zendesk__users AS SELECT 1::BIGINT AS user_id, 'agent' AS role;
CREATE TABLE staging.stg_zendesk__ticket_comments (comment_id BIGINT, ticket_id BIGINT, author_id BIGINT, is_public BOOLEAN, commented_at TIMESTAMP);
CREATE TABLE staging.stg_zendesk__ticket_field_history (change_id BIGINT, ticket_id BIGINT, field TEXT, value TEXT, changed_at TIMESTAMP);
CREATE TABLE staging.stg_zendesk__ticket_metric_events (metric_event_id BIGINT, ticket_id BIGINT, metric TEXT, instance_id BIGINT, event TEXT,
  occurred_at TIMESTAMP, target_seconds BIGINT, is_target_in_business_hours BOOLEAN, is_deleted BOOLEAN);
CREATE TABLE staging.stg_zendesk__satisfaction_ratings (rating_id BIGINT, ticket_id BIGINT, score TEXT, created_at TIMESTAMP, updated_at TIMESTAMP);
CREATE TABLE staging.stg_zendesk__schedule_holidays (holiday_id BIGINT, schedule_id BIGINT, start_date DATE, end_date DATE, deleted_at TIMESTAMP);
CREATE TABLE marts.ticket_status_history (ticket_id BIGINT, step INT, state TEXT, previous_state TEXT, valid_from TIMESTAMP);
CREATE TABLE marts.schedule_history (schedule_id BIGINT, iana_time_zone TEXT, intervals TEXT, created_at TIMESTAMP, valid_from TIMESTAMP, valid_to TIMESTAMP);
"""
"""What the marts of business time are made of."""


def _query(name: str) -> str:
    """The query of a model of support, as it is built."""
    assert report_day.report_date  # importing it made it known
    path = ROOT / "models" / "marts" / "support" / f"{name}.sql"
    header, *query = parse(path.read_text(), default_dialect="duckdb")
    header.set("expressions", [one for one in header.expressions if one.name != "audits"])  # they stand in other files
    model = load_sql_based_model([header, *query], path=path, dialect="duckdb", macros=macro.get_registry())
    return str(model.render_query_or_raise().sql("duckdb"))


HOURS, FACTS = _query("business_hours"), _query("ticket_facts")
_NIGHT = 5 * 60
"""Minutes of a day before which the clocks of these zones are changed."""


@st.composite
def _weeks(draw: st.DrawFn) -> list[tuple[int, int]]:
    """Hours of a week: of each day none, all, or up to two spans."""
    week = []
    for day in range(7):
        edges = draw(st.one_of(st.just([]), st.just([0, 1440]), st.lists(st.integers(_NIGHT, 1440), min_size=2, max_size=4, unique=True)))
        edges = sorted(edges)[: len(edges) // 2 * 2]
        week += [(day * 1440 + start, day * 1440 + stop) for start, stop in zip(edges[::2], edges[1::2], strict=True)]
    return week


_MOMENTS = st.datetimes(datetime(2026, 3, 1), datetime(2026, 4, 12)).map(lambda at: at.replace(microsecond=0, tzinfo=UTC))
_SPANS = st.lists(st.tuples(_MOMENTS, _MOMENTS).map(sorted), min_size=1, max_size=12)


@settings(max_examples=25, deadline=None, derandomize=True, database=None)
@given(zones=st.lists(st.sampled_from(ZONES), min_size=2, max_size=2), weeks=st.lists(_weeks(), min_size=2, max_size=2), changed=_MOMENTS, closed=_MOMENTS,
       spans=_SPANS)  # fmt: skip
def test_business_minutes_of_any_hours_in_any_zone_are_those_counted_day_by_day(
    zones: list[str], weeks: list[list[tuple[int, int]]], changed: datetime, closed: datetime, spans: list[list[datetime]]
) -> None:
    holiday = closed.date()
    schedule = Schedule(5, [(changed, zones[0], weeks[0]), (changed, zones[1], weeks[1])], [(holiday, holiday + timedelta(days=1))])
    with duckdb.connect() as connection:
        connection.execute(f"SET TimeZone = 'UTC'; {STAGED}")
        connection.execute("INSERT INTO staging.stg_zendesk__schedule_holidays VALUES (1, 5, ?, ?, NULL)", [holiday, holiday + timedelta(days=1)])
        for number, (zone, week) in enumerate(zip(zones, weeks, strict=True)):
            intervals = [{"start_time": start, "end_time": stop} for start, stop in week]
            since = changed - timedelta(days=1 - number)
            connection.execute(
                "INSERT INTO marts.schedule_history VALUES (5, ?, ?, NULL, ?::TIMESTAMP, ?::TIMESTAMP)",
                [zone, json.dumps(intervals), f"{since:%F %T}", None if number else f"{changed:%F %T}"],
            )
        for number, (begin, end) in enumerate(spans, start=1):
            connection.execute(
                "INSERT INTO staging.stg_zendesk__tickets BY NAME SELECT ? AS ticket_id, 9 AS requester_id, ?::TIMESTAMP AS created_at, "
                "'2026-04-12'::TIMESTAMP AS loaded_at",
                [number, f"{begin:%F %T}"],
            )
            for key, author, at in ((2 * number, 9, begin), (2 * number + 1, 1, end)):
                connection.execute(
                    "INSERT INTO staging.stg_zendesk__ticket_comments VALUES (?, ?, ?, true, ?::TIMESTAMP)", [key, number, author, f"{at:%F %T}"]
                )
        connection.execute(f"CREATE TABLE marts.business_hours AS {HOURS}")
        has_hours = bool(connection.execute("SELECT 1 FROM marts.business_hours LIMIT 1").fetchall())
        held = connection.execute(f"SELECT ticket_id, first_reply_business_minutes FROM ({FACTS}) ORDER BY 1").fetchall()
    assert held == [(number, schedule.open_seconds(*span) // 60 if has_hours else None) for number, span in enumerate(spans, start=1)]
