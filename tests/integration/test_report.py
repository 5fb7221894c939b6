"""The page says how things are, whatever is in the ledger; it is one file, safe to open, and soon made."""

import base64
import hashlib
import json
import re
import resource
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from integration.report_home import HOSTILE, NOW, PERSON, ill, make_marts, well

from cli.main import cli
from monitoring import anomalies, usual
from monitoring.report.facts import DeclaredSource, House, Point, Report
from monitoring.report.gather import gather
from monitoring.report.page import as_json, document
from monitoring.report.series import _points, read_series
from warehouse import clock, ledger, storage
from warehouse.lease import lease

Setting = Callable[[str, str | None], None]
HOUSE = House(
    [DeclaredSource(name, "hourly", timedelta(hours=6), True) for name in ("postgres", "stripe")],
    backups={"warehouse": timedelta(days=2)},
    drills={"warehouse": timedelta(days=7)},
    pages={"docs/metrics/revenue.md": "# Revenue\n`daily_revenue`: a row a day"},
    links={"docs/metrics/revenue.md": "https://example.org/docs/metrics/revenue.md"},
)


def _told() -> tuple[Report, str]:
    report = gather(HOUSE, clock.now())
    return report, document(report, HOUSE)


def test_an_empty_home_says_that_nothing_has_run(setting: Setting, home: Path) -> None:
    setting("WAREHOUSE_NOW", NOW.isoformat())
    ran = CliRunner().invoke(cli, ["report"], catch_exceptions=False)
    assert ran.exit_code == 0
    assert "Nothing has run yet" in ran.output
    page = (home / "report.html").read_text()
    assert "<h1>Nothing has run yet</h1>" in page
    assert "Nothing is published yet." in page
    assert json.loads(CliRunner().invoke(cli, ["report", "--json"]).output)["headline"]["state"] == "unknown"


def test_all_is_well_since_the_last_that_was_not(setting: Setting) -> None:
    well(setting)
    report, page = _told()
    assert (report.headline.state, report.headline.says) == ("well", "Everything is well")
    assert report.headline.since == NOW - timedelta(days=30, minutes=10) + timedelta(seconds=100)
    assert [(one.name, one.state) for one in report.sources] == [("postgres", "well"), ("stripe", "well")]
    begin = (NOW - timedelta(days=29)).date()
    assert sum(day.succeeded for day in report.days) == sum((NOW - timedelta(hours=back, minutes=10)).date() >= begin for back in range(24 * 30 + 1))
    assert [(one.data, one.state) for one in report.backups] == [("warehouse", "well")]
    assert '<a href="https://example.org/docs/metrics/revenue.md">' in page
    assert report.mart_rows[1].rows == 1720


def test_what_is_wrong_is_said_first_with_its_cause_and_page(setting: Setting) -> None:
    ill(setting)
    report, page = _told()
    assert report.headline.state == "wrong"
    cause = report.open_incidents[0]
    assert cause.title.startswith("Run failed: raw_stripe")
    assert "raw_stripe: run failed" in cause.what[0]
    assert cause.runbook == "docs/runbooks/failed-run.md"
    assert cause.affected
    assert [one.title for one in report.past_incidents] == ["Broken promise: marts.user_dim.country"]
    stripe = next(one for one in report.sources if one.name == "stripe")
    assert (stripe.state, stripe.loaded_at) == ("wrong", NOW - timedelta(hours=9, minutes=10) + timedelta(seconds=100 + 711 % 37))
    states = {node.name: node.state for node in report.lineage}
    assert states["raw_stripe.charges"] == states["stripe"] == states["marts.order_facts"] == "wrong"
    assert states["marts.payment_facts"] == "warning"
    assert states["raw_postgres.orders"] == "well"
    contracts = {one.table: one for one in report.contracts}
    assert (contracts["marts.daily_revenue"].says, contracts["marts.payment_facts"].says) == ("1 not evaluated", "kept")
    assert page.index("<h1>") < page.index("Run failed: raw_stripe") < page.index('id="freshness"')


def test_the_band_is_that_of_the_check_of_unusual_days(setting: Setting) -> None:
    """The last day's judgement must be the same as the check's own; a day that fell lies outside of its band."""
    from monitoring.anomalies import unusual
    from monitoring.expectations import read_expectations

    setting("WAREHOUSE_NOW", NOW.isoformat())
    make_marts(drop=True)
    expectations = read_expectations()
    series, left_out = read_series(expectations, NOW)
    assert [(one.metric, one.segment, one.unit) for one in series] == [
        ("volume", "", "rows"), ("volume", "USD", "rows"), ("sum revenue", "USD", "USD"), ("volume", "EUR", "rows"), ("sum revenue", "EUR", "EUR")
    ]  # fmt: skip
    assert left_out == ["marts.payment_facts is not published."]
    lasts = {(one.metric, one.segment): one.points[-1] for one in series}
    with storage.open_warehouse() as connection:
        found = list(unusual(connection, "marts.order_facts", expectations.anomalies["marts.order_facts"], expectations, (NOW - timedelta(days=1)).date()))
    told = {(one.metric, one.segment): one.value for one in found if one.is_alone and (one.metric, one.segment) in lasts}
    assert told == {key: point.value for key, point in lasts.items() if point.is_unusual}
    assert {segment for _, segment in told} == {"", "EUR"}
    assert all(one.points[0].day.isoformat() == "2025-12-01" and len(one.points) == 90 for one in series)


def test_a_sum_below_nought_is_drawn_as_the_check_judges_it() -> None:
    values = np.random.default_rng(3).normal(0, 40, usual.WINDOW_DAYS + 60)
    values[-1] = 90_000
    one = anomalies.Series("sum net_amount", "amount", "EUR", values, np.full(len(values), 0.1))
    verdict = anomalies.judged([one], NOW.date(), [])
    drawn = [point.is_unusual for point in _points(one, 0, verdict, NOW.date())]
    assert drawn == verdict.is_alone[:, 0].tolist()
    assert (drawn[-1], min(values) < -50) == (True, True)


def test_a_special_day_has_no_band() -> None:
    assert not Point(NOW.date(), 5).is_unusual
    assert Point(NOW.date(), 5, 2, 1, 3).is_unusual


def test_nothing_that_was_smuggled_in_lives(setting: Setting) -> None:
    ill(setting)
    report, page = _told()
    for told in (page, as_json(report)):
        assert PERSON not in told
        assert "hunter2" not in told
    assert "<script" not in page
    assert "<img" not in page
    assert HOSTILE not in page
    assert "onload=&#39;x" in page or "onload=&#x27;x" in page  # it is shown, as text
    style = re.search(r"<style>(.*?)</style>", page, re.DOTALL)
    assert style
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    assert policy
    assert policy[1].replace("&#39;", "'").startswith(f"default-src 'none'; style-src 'sha256-{digest}'")
    assert not re.search(r'\s(?:style|on\w+|src|srcset)="', page)
    assert set(re.findall(r'href="([a-z]+:[^"]*)"', page)) == {"https://example.org/docs/metrics/revenue.md"}


def test_it_is_made_while_a_run_is_writing(setting: Setting) -> None:
    well(setting)
    with ledger.run("run"), lease("run"), storage.open_warehouse():
        report, page = _told()
    assert report.writing_since == NOW
    assert "A run is writing now" in page
    assert report.runs[0].status == "running"
    assert gather(HOUSE, clock.now()).writing_since is None


def test_two_hundred_models_cost_little(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processor seconds, of which a quiet machine makes about as many by the clock."""
    from monitoring.lineage import Lineage
    from monitoring.report import gather as module

    well(setting)
    inputs = {f"marts.m{number}": frozenset(f"marts.m{one}" for one in range(max(0, number - 3), number)) for number in range(120)}
    inputs |= {f"staging.stg_postgres__t{number}": frozenset({f"raw_postgres.t{number}"}) for number in range(80)}
    inputs |= {f"marts.m{number}": inputs[f"marts.m{number}"] | {f"staging.stg_postgres__t{number}"} for number in range(80)}
    monkeypatch.setattr(module, "read_lineage", lambda: Lineage(inputs))
    began = resource.getrusage(resource.RUSAGE_SELF)
    report, _ = _told()
    ended = resource.getrusage(resource.RUSAGE_SELF)
    assert len(report.lineage) == 282
    assert (ended.ru_utime + ended.ru_stime) - (began.ru_utime + began.ru_stime) < 3
