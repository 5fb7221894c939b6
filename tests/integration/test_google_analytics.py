"""Loading Google Analytics from its stand-in: days that change, vanish and are cut off, and none that is half there."""

import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from conftest import ask, call
from integration.analytics import NOW, TODAY, World, a_world, ago, everything, present, view

from demo.stand_ins.google_analytics import Asked, Distortion
from demo.stand_ins.served import Fault
from pipelines import google_analytics_days, rebuild
from warehouse import ledger
from warehouse.errors import WarehouseError


@pytest.fixture
def world(setting: Callable[[str, str | None], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[World]:
    with a_world(setting, monkeypatch, tmp_path) as one:
        yield one


def test_a_day_five_days_ago_is_restated_one_value_changed_one_row_gone_one_new(world: World) -> None:
    world.property.add(view(ago(5), "/a"), view(ago(5), "/b"), view(ago(6), "/a"))
    world.load()
    assert present() == [(ago(6), "/a", 1), (ago(5), "/a", 1), (ago(5), "/b", 1)]
    world.property.restate(ago(5), view(ago(5), "/a"), view(ago(5), "/a"), view(ago(5), "/c"))
    world.later(hours=1)
    loaded = world.load()["views"]
    assert (loaded.rows_written, loaded.rows_deleted) == (2, 1)
    assert present() == [(ago(6), "/a", 1), (ago(5), "/a", 2), (ago(5), "/c", 1)]
    assert ask("SELECT page_path, screen_page_views FROM raw_google_analytics.views WHERE _deleted_at IS NOT NULL") == [("/b", 1)]


def test_a_day_restated_to_empty_is_empty_and_what_comes_back_is_back(world: World) -> None:
    world.property.add(view(ago(3), "/a"), view(ago(3), "/b"))
    world.load()
    world.property.restate(ago(3))
    world.later(hours=1)
    world.load()
    assert present() == []
    assert ask(f"SELECT row_count FROM raw_google_analytics.report_quality WHERE date = DATE '{ago(3)}'") == [(0,)]
    world.property.restate(ago(3), view(ago(3), "/b"))
    world.later(hours=1)
    world.load()
    assert present() == [(ago(3), "/b", 1)]
    before = everything()
    with ledger.run("rebuild google_analytics") as run:
        rebuild.rebuild("google_analytics", run)
    assert everything() == before


def test_what_changes_after_the_last_days_is_not_read_any_more_and_a_pause_is_made_up_for(world: World) -> None:
    world.declare(days=3)
    world.property.add(view(ago(3), "/old"))
    world.load()
    world.at(NOW + timedelta(days=20))
    world.property.add(view(TODAY + timedelta(days=5), "/missed"), view(ago(3), "/late"))
    world.load()
    assert present() == [(ago(3), "/late", 1), (ago(3), "/old", 1), (TODAY + timedelta(days=5), "/missed", 1)]
    world.property.add(view(ago(3), "/too-late"))
    asked = len(world.analytics.asked)
    world.load()
    assert len(world.analytics.asked) - asked == 1 + 1 + 4  # metadata, time zone, today and three days
    assert (ago(3), "/too-late", 1) not in present()


def test_25_rows_at_a_limit_of_10_with_ties(world: World) -> None:
    world.declare(limit=10)
    world.property.add(*(view(ago(2), f"/{number:02d}") for number in range(25)))
    world.load()
    assert present("page_path, screen_page_views") == [(f"/{number:02d}", 1) for number in range(25)]
    pages = [one.offset for one in world.analytics.asked if one.day == ago(2).isoformat()]
    assert pages == [0, 9, 18]
    assert ask(f"SELECT row_count, requests FROM raw_google_analytics.report_quality WHERE date = DATE '{ago(2)}'") == [(25, 3)]


def test_pages_shorter_than_asked_for_leave_nothing_out(world: World) -> None:
    world.declare(limit=10)
    world.analytics.most_rows = 7
    world.property.add(*(view(ago(2), f"/{number:02d}") for number in range(25)))
    assert world.findings() == []
    assert len(present()) == 25
    assert [one.offset for one in world.analytics.asked if one.day == ago(2).isoformat()] == [0, 6, 12, 18]


def test_in_auckland_at_13_o_clock_utc_the_day_is_over_and_the_next_one_is_not(world: World) -> None:
    world.property.time_zone = "Pacific/Auckland"
    world.at(datetime(2026, 1, 15, 13, tzinfo=UTC))
    ended, now = date(2026, 1, 15), date(2026, 1, 16)
    world.property.add(view(ended, "/a"), view(now, "/a"))
    world.load()
    assert present("date, is_final") == [(ended, True), (now, False)]
    world.property.add(view(now, "/a"))
    world.at(datetime(2026, 1, 16, 10, 59, tzinfo=UTC))
    world.load()
    assert present("date, screen_page_views, is_final") == [(ended, 1, True), (now, 2, False)]
    world.at(datetime(2026, 1, 16, 11, tzinfo=UTC))
    world.load()
    assert present("date, screen_page_views, is_final") == [(ended, 1, True), (now, 2, True)]


def test_other_thresholding_and_sampling_are_kept_and_told(world: World) -> None:
    world.property.add(*(view(ago(day), f"/{number}", f"u{number}") for day in (1, 2, 3) for number in range(6)))
    world.property.distorted = {ago(1): Distortion(most_rows=3), ago(2): Distortion(fewest_users=2), ago(3): Distortion(sampled=(60, 100))}
    findings = world.findings()
    query = """SELECT date, row_count, has_other_row, other_share, is_thresholded, is_sampled, samples_read, sampling_space
               FROM raw_google_analytics.report_quality WHERE row_count > 0 OR is_thresholded ORDER BY date"""
    assert ask(query) == [
        (ago(3), 6, False, 0, False, True, 60, 100),
        (ago(2), 0, False, None, True, False, None, None),
        (ago(1), 3, True, Decimal("0.666667"), False, False, None, None),
    ]
    (finding,) = findings
    assert "66.7% of" in finding
    assert "40.0% of the events" in finding
    assert "thresholding" not in finding  # one day of eight
    assert ("(other)",) in present("page_path")


def test_quota_gone_on_page_2_writes_nothing_of_the_day_and_the_next_run_goes_on(world: World) -> None:
    world.declare(limit=10, days=2)
    world.property.add(*(view(ago(day), f"/{number:02d}") for day in (0, 1, 2) for number in range(25)))

    def meanwhile(asked: Asked) -> None:
        if asked.day == ago(1).isoformat() and asked.offset == 9:
            world.property.left["tokensPerProjectPerHour"] = 0

    world.analytics.before = meanwhile
    (finding,) = world.findings()
    assert "out of quota (Exhausted property tokens (tokensPerProjectPerHour)" in finding
    assert f"2 days of reports are left, the newest views of {ago(1)}" in finding
    assert present("date, count(*) OVER ()")[0] == (ago(0), 25)
    assert ask("SELECT date FROM raw_google_analytics.report_quality") == [(ago(0),)]
    world.analytics.before = None
    world.later(hours=1)
    assert world.findings() == []
    assert ask("SELECT date, count(*) FROM raw_google_analytics.views GROUP BY 1 ORDER BY 1") == [(ago(2), 25), (ago(1), 25), (ago(0), 25)]


def test_the_reserve_is_left_to_others_and_another_property_is_read(world: World) -> None:
    world.declare(reserve=1_000)
    other = world.two()
    world.property.add(view(ago(1), "/a"))
    other.add(view(ago(1), "/b"))
    world.property.most = {"tokensPerDay": 1_030}
    (finding,) = world.findings()
    assert "property 1001 is out of quota (tokens per day, no more than the reserve of 1000 are left)" in finding
    assert world.property.left["tokensPerDay"] == 1_000
    assert present("property_id, page_path") == [("1001", "/a"), ("1002", "/b")]
    assert ask("SELECT min(tokens_left_day) FROM raw_google_analytics.report_quality WHERE property_id = '1001'") == [(1_000,)]


def test_no_quota_at_all_is_a_finding_and_no_failure(world: World) -> None:
    world.property.most = {"tokensPerDay": 0}
    (finding,) = world.findings()
    assert "no day was read" in finding


@pytest.mark.parametrize("new", [[], ["/99", "/99"], ["/99"]], ids=["fewer rows", "other totals", "same rows and totals"])
def test_rows_that_change_while_paging_are_read_again(world: World, new: list[str]) -> None:
    world.declare(limit=10, days=1)
    world.property.add(*(view(ago(1), f"/{number:02d}") for number in range(25)))

    def meanwhile(asked: Asked) -> None:
        if asked.offset == 9 and world.analytics.before:
            world.analytics.before = None
            kept = [hit for hit in world.property.hits[ago(1)] if hit.about["pagePath"] != "/03"]
            world.property.restate(ago(1), *kept, *(view(ago(1), path) for path in new))

    world.analytics.before = meanwhile
    assert world.findings() == []
    expected = [f"/{number:02d}" for number in range(25) if number != 3] + new[:1]
    assert [row[0] for row in present("page_path")] == expected


def test_a_day_that_never_stands_still_is_left_for_the_next_run_and_the_others_are_read(world: World) -> None:
    world.declare(limit=10, days=2)
    world.property.add(*(view(ago(day), f"/{number:02d}") for day in (1, 2) for number in range(12)))

    def meanwhile(asked: Asked) -> None:
        if asked.day == ago(1).isoformat():
            world.property.add(view(ago(1), f"/more-{len(world.analytics.asked)}"))

    world.analytics.before = meanwhile
    (finding,) = world.findings()
    assert f"the pages of {ago(1)}" in finding
    assert {row[0] for row in present("date")} == {ago(2)}
    world.analytics.before = None
    assert world.findings() == []
    assert {row[0] for row in present("date")} == {ago(1), ago(2)}


def test_todays_part_is_replaced_until_the_day_is_over(world: World) -> None:
    world.property.add(view(TODAY, "/a"), view(TODAY, "/b"))
    world.load()
    world.property.restate(TODAY, view(TODAY, "/a"), view(TODAY, "/a"))
    world.later(hours=6)
    world.load()
    assert present("page_path, screen_page_views, is_final") == [("/a", 2, False)]
    world.later(hours=6)
    world.load()
    assert present("page_path, screen_page_views, is_final") == [("/a", 2, True)]


def test_nothing_new_moves_no_row_of_a_report(world: World) -> None:
    world.property.add(view(ago(1), "/a"), view(ago(2), "/b"))
    world.load()
    world.later(hours=1)
    loaded = world.load()
    assert (loaded["views"].rows_written, loaded["views"].rows_deleted, loaded["metadata"].rows_written if "metadata" in loaded else 0) == (0, 0, 0)


def test_a_range_is_loaded_newest_first_and_goes_on_where_the_quota_ended(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(google_analytics_days, "_MOST_DAYS", 8)
    world.declare(days=1)
    world.setting("SOURCES__GOOGLE_ANALYTICS__START_DATE", "2026-01-01")
    world.setting("SOURCES__GOOGLE_ANALYTICS__END_DATE", "2026-01-20")
    world.property.add(*(view(date(2026, 1, 1) + timedelta(days=number), "/a") for number in range(60)))
    world.property.most = {"tokensPerHour": 5 * 12}
    days: list[int] = []
    for _ in range(3):
        world.findings()
        days.append(len(present("date")))
        world.later(hours=1)
    held = [row[0] for row in present("date")]
    assert days == [8, 16, 20]
    assert held == [date(2026, 1, 1) + timedelta(days=number) for number in range(20)]
    asked = [one.day for one in world.analytics.asked if one.day < "2026-02-01" and one.day[:2] == "20"]
    assert asked == sorted(asked, reverse=True)
    assert len(asked) == 20  # each once
    world.findings()
    assert world.analytics.reports_asked(date(2026, 1, 1)) == 1


def test_the_range_must_have_a_beginning(world: World, fails: Callable[..., WarehouseError]) -> None:
    world.setting("SOURCES__GOOGLE_ANALYTICS__END_DATE", "2026-01-20")
    assert "SOURCES__GOOGLE_ANALYTICS__START_DATE" in fails(world.load).what


def test_another_definition_of_a_report_reads_its_days_anew(world: World) -> None:
    world.property.add(view(ago(30), "/a", country="Germany"), view(ago(30), "/a", "v", country="Japan"))
    world.setting("SOURCES__GOOGLE_ANALYTICS__START_DATE", str(ago(30)))
    world.load()
    assert present("page_path, total_users") == [("/a", 2)]
    world.declare("  views: {dimensions: [pagePath, date, country], metrics: [totalUsers]}\n")
    world.later(hours=1)
    world.load()
    assert present("page_path, country, total_users") == [("/a", "Germany", 1), ("/a", "Japan", 1)]
    world.declare("  views: {dimensions: [date, country, pagePath], metrics: [totalUsers]}\n")
    asked = world.analytics.reports_asked(ago(30))
    world.load()
    assert world.analytics.reports_asked(ago(30)) == asked  # another order is the same report


def test_what_was_read_before_a_failure_is_loaded_and_remembered(world: World, fails: Callable[..., WarehouseError]) -> None:
    other = world.two()
    world.property.add(view(ago(1), "/a"))
    other.add(view(ago(1), "/b"))
    world.analytics.faults = [Fault("properties/1002:runReport", times=99, status=503)]
    error = fails(world.load)
    assert error.exit_code == 3
    assert "HTTP 503, 4 times" in error.what
    assert present("property_id, page_path") == [("1001", "/a")]
    assert ask("SELECT DISTINCT property_id FROM raw_google_analytics.report_quality") == [("1001",)]
    world.analytics.faults = []
    assert world.findings() == []
    assert present("property_id, page_path") == [("1001", "/a"), ("1002", "/b")]


@pytest.mark.parametrize(
    "fault",
    [
        Fault("/metadata", status=500), Fault(":runReport", times=3, status=503), Fault(":runReport", reset=True), Fault(":runReport", hang=1.2),
        Fault(":runReport", status=429, message="Exhausted concurrent requests quota. Please send fewer requests concurrently."),
    ],
    ids=lambda fault: f"{fault.path} {fault.status} {fault.hang} {fault.reset}",
)  # fmt: skip
def test_faults_change_nothing(world: World, fault: Fault) -> None:
    world.declare(days=2)
    world.property.add(view(ago(1), "/a"), view(ago(2), "/b"))
    world.analytics.faults = [fault]
    assert world.findings() == []
    assert fault.times == 0
    assert present() == [(ago(2), "/b", 1), (ago(1), "/a", 1)]


KILLED = """
import importlib, os, signal, sys
from pathlib import Path
from pipelines import google_analytics as module, google_analytics_days
module.FOLDER = Path(os.environ["FOLDER"])
google_analytics_days._MOST_DAYS = 4
moment, place, name = os.environ["MOMENT"].split()
turn, place = iter(range(100)), importlib.import_module(place)
function = getattr(place, name)
def dies(*given):
    is_now = next(turn) == int(os.environ["TURN"])
    if is_now and moment == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    done = function(*given)
    if is_now:
        os.kill(os.getpid(), signal.SIGKILL)
    return done
setattr(place, name, dies)
sys.argv = ["warehouse", "load", "google_analytics"]
from cli.main import main
main()
"""
FINISH, MERGE = "pipelines.load _finish", "pipelines.raw merge"


@pytest.mark.parametrize(
    ("moment", "turn", "is_lost"),
    [
        (f"before {FINISH}", 0, False), (f"before {FINISH}", 0, True), (f"after {FINISH}", 1, True), (f"before {FINISH}", 2, True),
        *((f"after {MERGE}", turn, True) for turn in (0, 2, 3)),
    ],
)  # fmt: skip
def test_a_kill_ends_in_the_rows_of_a_clean_run_and_never_in_half_a_day(world: World, home: Path, moment: str, turn: int, is_lost: bool) -> None:
    world.declare(limit=2)
    world.property.add(*(view(ago(day), f"/{number}") for day in range(8) for number in range(5)))
    world.load()
    clean = everything()
    shutil.rmtree(home)
    died = call(script=KILLED, MOMENT=moment, TURN=str(turn), FOLDER=str(world.folder))
    assert died.code == -9, died.err
    if is_lost:
        shutil.rmtree(home / "dlt")
    if turn:
        assert {row[0] for row in ask("SELECT count(*) FROM raw_google_analytics.views GROUP BY date")} == {5}
    world.load()
    assert everything() == clean
    with ledger.run("rebuild google_analytics") as run:
        rebuild.rebuild("google_analytics", run)
    assert everything() == clean
