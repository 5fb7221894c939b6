"""What the tests of Google Analytics share: an account with a property, its warehouse, and one clock for both."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from conftest import ask

from demo.stand_ins.google_analytics import GoogleAnalyticsStandIn, Property
from demo.stand_ins.google_analytics_schema import Hit
from pipelines import google_analytics as module
from pipelines import google_analytics_client, load
from privacy import policy
from warehouse import ledger

NOW = datetime(2026, 3, 20, 12, tzinfo=UTC)
TODAY = NOW.date()
SMALL = """
schedule: daily
freshness: 30h
restate_days: {days}
rows_per_request: {limit}
requests_per_second: 5000
timeout: 1s
quota_reserve: {reserve}
findings_above: {{other: 0.05, unsampled: 0.05, thresholded: 0.5}}
reports:
{reports}
"""
VIEWS = "  views: {dimensions: [date, pagePath], metrics: [screenPageViews, totalUsers]}\n"
SESSIONS = "  channels: {dimensions: [sessionSource], metrics: [sessions, purchaseRevenue]}\n"


def ago(days: int) -> date:
    return TODAY - timedelta(days=days)


def view(day: date, path: str, user: str = "u", **about: str) -> Hit:
    return Hit(day, user, f"s-{user}", "page_view", {"pagePath": path, **about})


class World:
    """An account with one property, its warehouse, and one clock for both."""

    def __init__(self, setting: Callable[[str, str | None], None], analytics: GoogleAnalyticsStandIn, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.setting, self.analytics, self._monkeypatch, self.folder = setting, analytics, monkeypatch, folder
        self.property = analytics.open()
        self.at(NOW)

    def at(self, now: datetime) -> None:
        self.now = now
        self.setting("WAREHOUSE_NOW", now.isoformat())

    def later(self, **by: float) -> None:
        self.at(self.now + timedelta(**by))

    def declare(self, reports: str = VIEWS, days: int = 7, limit: int = 1000, reserve: int = 0) -> None:
        (self.folder / "google_analytics.yaml").write_text(SMALL.format(days=days, limit=limit, reserve=reserve, reports=reports))

    def rules(self, text: str) -> None:
        (self.folder / "policy.yaml").write_text(f"columns:\n{text}")
        self._monkeypatch.setattr(policy, "POLICY_FILE", self.folder / "policy.yaml")

    def two(self, **fields: Any) -> Property:
        self.setting("SOURCES__GOOGLE_ANALYTICS__PROPERTY_IDS", "1001, 1002")
        return self.analytics.open("1002", **fields)

    def load(self) -> dict[str, load.Loaded]:
        with ledger.run("load google_analytics") as run:
            return {one.table: one for one in load.load("google_analytics", run)}

    def findings(self) -> list[str]:
        return [finding for one in self.load().values() for finding in one.findings]


@contextmanager
def a_world(setting: Callable[[str, str | None], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[World]:
    """An account that a test may change, its reports declared by `VIEWS` until the test declares others."""
    folder = tmp_path / "declared"
    folder.mkdir()
    monkeypatch.setattr(module, "FOLDER", folder)
    monkeypatch.setattr(google_analytics_client, "_FIRST_WAIT", 0.01)
    with GoogleAnalyticsStandIn() as analytics:
        setting("SOURCES__GOOGLE_ANALYTICS__PROPERTY_IDS", "1001")
        setting("SOURCES__GOOGLE_ANALYTICS__BASE_URL", analytics.url)
        world = World(setting, analytics, monkeypatch, folder)
        world.declare()
        yield world


def present(columns: str = "date, page_path, screen_page_views", table: str = "views") -> list[tuple[Any, ...]]:
    return ask(f"SELECT {columns} FROM raw_google_analytics.{table} WHERE _deleted_at IS NULL ORDER BY ALL")


def everything(tables: tuple[str, ...] = ("views", "report_quality")) -> list[list[tuple[Any, ...]]]:
    chosen = "COLUMNS(name -> NOT starts_with(name, 'tokens_left') AND name NOT IN ('_loaded_at', '_deleted_at')), _deleted_at IS NULL"
    return [ask(f"SELECT {chosen} FROM raw_google_analytics.{table} ORDER BY ALL") for table in tables]
