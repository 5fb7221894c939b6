"""What becomes of Google Analytics' rows: types, names, nothing personal, errors that name report and field, staging."""

import hmac
import shutil
import time
from collections.abc import Callable, Iterator
from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest
from conftest import KEY, Company, ask, load_postgres
from integration.analytics import SESSIONS, World, a_world, ago, present, view
from pace import Pace

from demo.stand_ins.google_analytics_company import FIRST, LAST, environment, populate
from demo.stand_ins.google_analytics_schema import Hit
from pipelines import google_analytics as module
from pipelines import source
from warehouse.errors import UsageError, WarehouseError


@pytest.fixture
def world(setting: Callable[[str, str | None], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[World]:
    with a_world(setting, monkeypatch, tmp_path) as one:
        yield one


def test_types_come_from_the_metadata_and_money_is_exact(world: World) -> None:
    reports = "  sales: {dimensions: [date, 'customEvent:plan'], metrics: [sessions, purchaseRevenue, engagementRate, 'customEvent:score', conversions]}\n"
    world.declare(reports)
    world.property.currency = "JPY"
    world.property.custom = {"customEvent:plan": ("Plan", ""), "customEvent:score": ("Score", "TYPE_STANDARD")}
    about, day = {"customEvent:plan": "pro"}, ago(1)
    for user, revenue in (("a", "0.1"), ("b", "0.2"), ("c", "1234567890123.45")):
        world.property.add(Hit(day, user, "s", "purchase", about, value=Decimal(revenue), numbers={"customEvent:score": 1.5}))
    world.property.add(view(day, "/", "d", **about), view(day, "/", "e", **about), view(day, "/", "f", **about))
    world.load()
    columns = "custom_event_plan, sessions, purchase_revenue, engagement_rate, custom_event_score, conversions, currency"
    assert present(columns, "sales") == [("pro", 6, Decimal("1234567890123.750000"), 0.5, 4.5, 3.0, "JPY")]
    kinds = dict(ask("SELECT column_name, data_type FROM duckdb_columns() WHERE table_name = 'sales'"))
    assert (kinds["sessions"], kinds["purchase_revenue"], kinds["engagement_rate"], kinds["date"]) == ("BIGINT", "DECIMAL(38,6)", "DOUBLE", "DATE")
    query = """SELECT kind, column_name, type, is_custom FROM raw_google_analytics.metadata
               WHERE api_name IN ('customEvent:plan', 'customEvent:score', 'purchaseRevenue') ORDER BY ALL"""
    assert ask(query) == [
        ("dimension", "custom_event_plan", None, True), ("metric", "custom_event_score", "TYPE_STANDARD", True),
        ("metric", "purchase_revenue", "TYPE_CURRENCY", False),
    ]  # fmt: skip
    world.property.custom = {"customEvent:plan": ("Tariff", ""), "customEvent:score": ("Score", "TYPE_STANDARD"), "customEvent:new": ("New", "")}
    world.later(hours=1)
    world.load()
    assert ask("SELECT ui_name FROM raw_google_analytics.metadata WHERE api_name = 'customEvent:plan'") == [("Tariff",)]
    del world.property.custom["customEvent:new"]
    world.later(hours=1)
    world.load()
    assert ask("SELECT api_name FROM raw_google_analytics.metadata WHERE _deleted_at IS NOT NULL") == [("customEvent:new",)]


def test_an_unknown_or_incompatible_field_names_report_and_field(world: World, fails: Callable[..., WarehouseError]) -> None:
    world.declare("  views: {dimensions: [date, pagePaht], metrics: [sessions]}\n")
    error = fails(world.load)
    assert isinstance(error, UsageError)
    assert "report views: property 1001 knows no dimension 'pagePaht'" in error.what
    assert world.analytics.reports_asked() == 0
    world.declare("  views: {dimensions: [date, itemId], metrics: [sessions]}\n" + SESSIONS)
    world.property.add(Hit(ago(1), "u", "s", "page_view", {"sessionSource": "google"}))
    error = fails(world.load)
    assert isinstance(error, UsageError)
    assert "report views of property 1001" in error.what
    assert "remove itemId" in error.what
    assert "http" not in error.what


def test_a_property_that_is_not_ours_names_the_settings(world: World, fails: Callable[..., WarehouseError]) -> None:
    world.setting("SOURCES__GOOGLE_ANALYTICS__PROPERTY_IDS", "777")
    error = fails(world.load)
    assert isinstance(error, UsageError)
    assert "property 777" in error.what
    assert "SOURCES__GOOGLE_ANALYTICS__PROPERTY_IDS" in error.mend
    world.setting("SOURCES__GOOGLE_ANALYTICS__PROPERTY_IDS", None)
    assert "SOURCES__GOOGLE_ANALYTICS__PROPERTY_IDS is not set" in fails(world.load).what


def test_metrics_hidden_from_the_account_are_a_finding(world: World) -> None:
    world.declare(SESSIONS)
    world.property.add(Hit(ago(1), "u", "s", "purchase", {"sessionSource": "google"}, value=Decimal(5)))
    world.property.hidden = {"purchaseRevenue"}
    assert "purchaseRevenue is hidden from this account" in world.findings()[0]


def test_filters_are_googles_and_a_report_may_be_of_one_property(world: World) -> None:
    other = world.two()
    world.declare(
        "  views:\n    dimensions: [date, pagePath]\n    metrics: [screenPageViews]\n    metric_filter: {field: screenPageViews, greater_than: 1}\n"
        "    dimension_filter: {all_of: [{field: pagePath, begins_with: /a}, {none_of: [{field: country, one_of: [Japan]}]}]}\n"
        "    properties: [1002]\n"
    )
    world.property.add(view(ago(1), "/a1"), view(ago(1), "/a1"))
    for path, country in (("/a1", "Germany"), ("/a1", "Germany"), ("/a2", "Germany"), ("/b", "Germany"), ("/b", "Germany"), ("/a3", "Japan"), ("/a3", "Japan")):
        other.add(view(ago(1), path, country=country))
    world.load()
    assert present("property_id, page_path, screen_page_views") == [("1002", "/a1", 2)]


def test_no_personal_data_is_kept_of_pages(world: World, home: Path) -> None:
    world.declare("  links: {dimensions: [date, pagePathPlusQueryString, pageTitle], metrics: [screenPageViews]}\n")
    for path, title in (
        ("/reset/jo@example.com?token=1", "Hello"), ("/reset/amy@example.com", "Hello"), ("/u/jo%2540example.com#x", "Mail to jo@example.com"),
        ("/call/+49%2030%201234567", "Call (555) 123-4567"), ("/ssn/900-01-0001/900-02-0002", "a"), ("/items/1234567?utm_source=x", "a"),
    ):  # fmt: skip
        world.property.add(Hit(ago(1), "u", "s", "page_view", {"pagePathPlusQueryString": path, "pageTitle": title}))
    world.load()
    found = ask("SELECT page_path_plus_query_string, page_title FROM raw_google_analytics.links ORDER BY ALL")
    assert found == [
        ("/call/[redacted]", "Call [redacted]"), ("/items/1234567", "a"), ("/reset/[redacted]", "Hello"), ("/reset/[redacted]", "Hello"),
        ("/ssn/[redacted]/[redacted]", "a"), ("/u/[redacted]", "Mail to [redacted]"),
    ]  # fmt: skip
    for file in home.rglob("*"):
        if file.is_file() and file.suffix in (".parquet", ".jsonl", ".json", ".duckdb"):
            assert b"example.com" not in file.read_bytes(), file


def test_who_somebody_is_must_be_declared_and_joins_by_its_keyed_hash(world: World, fails: Callable[..., WarehouseError]) -> None:
    reports = "  people: {dimensions: [date, 'customUser:user_id', 'customUser:email'], metrics: [sessions]}\n"
    world.declare(reports)
    world.property.custom = {"customUser:user_id": ("User", ""), "customUser:email": ("Mail", "")}
    world.property.add(Hit(ago(1), "u", "s", "page_view", {"customUser:user_id": "4711", "customUser:email": " Jo@Example.com"}))
    world.rules("  postgres.users: {}\n")
    error = fails(world.load)
    assert "google_analytics.people.custom_user_user_id looks like personal data (id" in error.what
    assert "custom_user_user_id: {class: id, action: hmac}" in error.mend
    assert len(world.analytics.asked) == 0
    world.rules("  google_analytics.people:\n    custom_user_user_id: {class: id, action: hmac}\n    custom_user_email: {class: email, action: hmac}\n")
    world.load()
    expected = tuple(hmac.digest(KEY.encode(), text.encode(), "sha256").hex() for text in ("4711", "jo@example.com"))
    assert present("custom_user_user_id_hash, custom_user_email_hash", "people") == [expected]
    assert ask("SELECT DISTINCT _privacy_key_id FROM raw_google_analytics.people") == [("k1",)]


def test_the_demo_company_is_loaded_within_seconds_and_agrees_with_its_purchases(world: World) -> None:
    shutil.copy(source.FOLDER / "google_analytics.yaml", world.folder / "google_analytics.yaml")
    for name, value in environment(world.analytics).items():
        world.setting(name, value)
    populate(world.analytics)
    with Pace() as pace:
        began = time.process_time()
        assert world.findings() == []
        seconds = time.process_time() - began  # the stand-in's among them
    from demo.customers import purchases

    bought: dict[date, tuple[int, Decimal]] = {}
    for one in purchases():
        if FIRST <= one.ordered_on <= LAST:
            count, revenue = bought.get(one.ordered_on, (0, Decimal()))
            bought[one.ordered_on] = count + 1, revenue + one.revenue
    query = "SELECT date, sum(transactions)::BIGINT, sum(purchase_revenue) FROM raw_google_analytics.acquisition GROUP BY 1 HAVING sum(transactions) > 0"
    assert {day: (count, revenue) for day, count, revenue in ask(query)} == bought
    assert ask("SELECT sum(item_revenue) FROM raw_google_analytics.ecommerce_items") == [(sum(revenue for _, revenue in bought.values()),)]
    assert ask("SELECT count(*) FROM raw_google_analytics.pages WHERE page_path = '/checkout/[redacted]'")[0][0] > 0
    assert seconds < 5 * pace.slowness


def test_staging_shows_what_google_shows_now_and_keeps_its_contracts(world: World, company: Company) -> None:
    from monitoring.contract_files import read_contracts
    from monitoring.contracts import check_contracts
    from transform.build import build
    from warehouse import storage

    shutil.copy(source.FOLDER / "google_analytics.yaml", world.folder / "google_analytics.yaml")
    world.setting("SOURCES__GOOGLE_ANALYTICS__START_DATE", "1998-06-29")
    world.setting("SOURCES__GOOGLE_ANALYTICS__END_DATE", "1998-06-30")
    populate(world.analytics)
    load_postgres()
    world.load()
    world.property.restate(ago(1))
    world.property.add(view(ago(2), "/a"))
    world.later(hours=1)
    world.load()
    world.property.restate(ago(2))
    world.later(hours=1)
    world.load()
    build()
    assert ask("SELECT count(*) FROM staging.stg_google_analytics__pages WHERE date > DATE '2000-01-01'") == [(0,)]
    assert ask("SELECT count(*) FROM raw_google_analytics.pages WHERE date > DATE '2000-01-01'") == [(1,)]
    query = """SELECT date, sum(purchase_revenue) = (SELECT sum(revenue) FROM staging.stg_postgres__orders WHERE ordered_at::DATE = date)
               FROM staging.stg_google_analytics__acquisition GROUP BY date ORDER BY date"""
    assert ask(query) == [(date(1998, 6, 29), True), (date(1998, 6, 30), True)]
    _assert_orders_are_credited()
    assert ask("SELECT date, sum(users) FROM marts.funnel_daily WHERE date > DATE '2000-01-01' GROUP BY date HAVING sum(users) > 0") == []
    assert ask("SELECT DISTINCT is_exact FROM marts.funnel_daily WHERE date = DATE '1998-06-30'") == [(True,)]
    ours = [table for table in read_contracts() if "google_analytics" in table]
    with storage.open_warehouse() as connection:
        found = check_contracts(connection, now=world.now, loaded_at={table: world.now for table in ours if table.startswith("raw_")}, only=ours)
    assert "\n".join(f"{one.table} {one.check} {one.observed}" for one in found) == ""
    with storage.open_warehouse() as connection:
        connection.execute("DELETE FROM raw_google_analytics.pages WHERE date = DATE '1998-06-30' AND page_path = '/'")
        found = check_contracts(connection, now=world.now, loaded_at={table: world.now for table in ours if table.startswith("raw_")}, only=ours)
    assert [(one.table, one.check) for one in found] == [("raw_google_analytics.report_quality", "whole_days")]


def _assert_orders_are_credited() -> None:
    """Every purchase of the two days to the last visit with a purchase that was not direct, by the company's own account of its visits."""
    from demo.customers import purchases
    from demo.stand_ins.google_analytics_company import _about

    last: dict[int, tuple[date, str]] = {}
    expected = {}
    for one in sorted(purchases(), key=lambda purchase: (purchase.ordered_on, purchase.order_id)):
        if date(1998, 6, 29) <= one.ordered_on <= LAST:
            source = _about(f"order:{one.order_id}", "US", one.ordered_on)["sessionSource"]
            if source != "(direct)":
                last[one.user_id] = one.ordered_on, source
            expected[one.order_id] = last[one.user_id][1] if one.user_id in last else source, one.revenue
    held = {order: (source, revenue) for order, source, revenue in ask("SELECT order_id, source, revenue FROM marts.attribution")}
    assert held == expected
    totals = "SELECT sum(new_customers)::BIGINT, count(spend), count(cost_per_customer) FROM marts.customer_acquisition_cost"
    assert ask(totals) == [(len({one.user_id for one in purchases()}), 0, 0)]


def test_the_doctor_says_which_properties_answer(world: World) -> None:
    world.property.time_zone, world.property.currency = "Europe/Berlin", "EUR"
    assert module.check_connection() == "1001 in Europe/Berlin, EUR, 39995 tokens left this hour"
