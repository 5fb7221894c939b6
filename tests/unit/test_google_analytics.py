"""Google Analytics: what may be declared, which days are due, and whose credentials are understood."""

import json
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from pipelines.google_analytics import declaration
from pipelines.google_analytics_client import About, DayReport, Quota, _credentials, end_of
from pipelines.google_analytics_days import is_due, wanted
from pipelines.google_analytics_report import GoogleAnalyticsDeclaration, column_of
from pipelines.google_analytics_rows import is_link, scrubbed, without_query
from warehouse.declared import read
from warehouse.errors import DeclarationError, UsageError, WarehouseError, scrub
from warehouse.settings import settings

Setting = Callable[[str, str | None], None]
TODAY = date(2026, 3, 20)


def days(*numbers: int) -> list[date]:
    return [date(2026, 3, number) for number in numbers]


def test_the_reports_of_the_project_are_declared_well() -> None:
    declared = declaration()
    assert set(declared.reports) == {
        "acquisition", "landing_pages", "pages", "events", "ecommerce_items", "devices", "geography", "user_retention", "transactions",
    }  # fmt: skip
    assert (declared.restate_days, all("date" in report.dimensions for report in declared.reports.values())) == (7, True)


@pytest.mark.parametrize(
    ("report", "says"),
    [
        ("{dimensions: [date, a, b, c, d, e, f, g, h, i], metrics: [x]}", "at most 9"),
        ("{dimensions: [date], metrics: [a, b, c, d, e, f, g, h, i, j, k]}", "at most 10"),
        ("{dimensions: [date], metrics: []}", "at least 1"),
        ("{dimensions: [date, 'drop table'], metrics: [x]}", "pattern"),
        ("{dimensions: [date, pagePath], metrics: [page_path]}", "would both be the column page_path"),
        ("{dimensions: [rowId], metrics: [x]}", "each report has of its own"),
        ("{dimensions: [date], metrics: [x], filter: {}}", "dimension_filter"),
        ("{dimensions: [date], metrics: [x], dimension_filter: {field: a}}", "exactly one of"),
        ("{dimensions: [date], metrics: [x], dimension_filter: {field: a, equals: b, contains: c}}", "exactly one of"),
        ("{dimensions: [date], metrics: [x], dimension_filter: {field: a, matches: '('}}", "regular expression"),
        ("{dimensions: [date], metrics: [x], dimension_filter: {all_of: [{field: a, like: b}]}}", "like"),
        ("{dimensions: [date], metrics: [x], metric_filter: {field: y, greater_than: 1}}", "not a metric of the report"),
    ],
)
def test_a_wrong_report_is_refused_by_its_name(tmp_path: Path, report: str, says: str) -> None:
    file = tmp_path / "google_analytics.yaml"
    file.write_text(f"timeout: 5s\nfindings_above: {{other: 0, unsampled: 0, thresholded: 0}}\nreports:\n  visits: {report}\n")
    with pytest.raises(DeclarationError) as error:
        read(file, GoogleAnalyticsDeclaration)
    assert says in str(error.value)
    assert "visits" in str(error.value)


@pytest.mark.parametrize(("key", "value"), [("restate_days", 91), ("rows_per_request", 250_001), ("requests_per_second", 0)])
def test_bounds_of_the_declaration(tmp_path: Path, key: str, value: int) -> None:
    file = tmp_path / "google_analytics.yaml"
    report = "{dimensions: [date], metrics: [x]}"
    file.write_text(f"{key}: {value}\ntimeout: 5s\nfindings_above: {{other: 0, unsampled: 0, thresholded: 0}}\nreports: {{visits: {report}}}\n")
    with pytest.raises(DeclarationError, match=key):
        read(file, GoogleAnalyticsDeclaration)


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("sessionDefaultChannelGroup", "session_default_channel_group"), ("customEvent:planName", "custom_event_plan_name"), ("countryId", "country_id"),
        ("pagePathPlusQueryString", "page_path_plus_query_string"), ("cm360AccountID", "cm360_account_id"), ("keyEvents:sign_up", "key_events_sign_up"),
    ],
)  # fmt: skip
def test_columns_are_named_by_the_api_name(name: str, column: str) -> None:
    assert column_of(name) == column


def test_wanted_days_are_the_newest_first() -> None:
    assert wanted(TODAY, 2, None, None, []) == days(20, 19, 18)
    assert wanted(TODAY, 2, None, None, days(16)) == days(20, 19, 18, 17, 16)
    assert wanted(TODAY, 2, date(2026, 3, 17), None, []) == days(20, 19, 18, 17)
    assert wanted(TODAY, 2, date(2026, 3, 1), date(2026, 3, 3), []) == days(20, 19, 18, 3, 2, 1)
    assert wanted(TODAY, 2, date(2026, 3, 1), date(2026, 3, 3), days(2, 3, 16)) == days(20, 19, 18, 17, 16, 3, 2, 1)
    assert wanted(TODAY, 2, date(2026, 3, 17), date(2026, 3, 30), []) == days(20, 19, 18, 17)


def test_a_day_is_due_until_it_was_read_when_it_lay_far_enough_back() -> None:
    day = date(2026, 3, 10)
    assert is_due("a", day, "d", {}, 7)
    assert is_due("a", day, "d", {("a", day): ("d", date(2026, 3, 17))}, 7)
    assert not is_due("a", day, "d", {("a", day): ("d", date(2026, 3, 18))}, 7)
    assert is_due("a", day, "new", {("a", day): ("d", date(2026, 3, 18))}, 7)
    assert is_due("b", day, "d", {("a", day): ("d", date(2026, 3, 18))}, 7)


def test_a_day_ends_at_its_own_midnight_also_when_the_clocks_change() -> None:
    assert end_of(date(2026, 1, 15), "Pacific/Auckland") == datetime(2026, 1, 15, 11, tzinfo=UTC)
    assert end_of(date(2026, 3, 29), "Europe/Berlin") - end_of(date(2026, 3, 28), "Europe/Berlin") == timedelta(hours=23)


def test_the_first_quota_at_its_reserve_is_told() -> None:
    assert Quota(1_000, 500, None).below(499) is None
    assert Quota(1_000, 500, 0).below(500) == "tokens per hour"
    assert Quota(1_000, 501, 0).below(500) == "tokens per hour and project"


@pytest.mark.parametrize(
    ("amounts", "share"), [(["3", "1"], Decimal("0.25")), (["3", "NaN"], Decimal(0)), (["0", "0"], None), (["", "2.5"], Decimal(1)), ([], None)]
)
def test_the_share_of_other_rows_is_of_the_first_metric(amounts: list[str], share: Decimal | None) -> None:
    rows = [((place,), (amount, "9")) for place, amount in zip(("/a", "(other)"), amounts, strict=False)]
    day = DayReport("1", "pages", "d", TODAY, datetime(2026, 3, 20, tzinfo=UTC), About("UTC", "EUR", Quota()), rows)
    assert day.other_share == share


@pytest.mark.parametrize("text", ["", "/items/12345678901", "(not set)", "2026-03-20", "a+b", "0012345678905", "100% cotton", "/50%25-off", "v1.2.3-4567"])
def test_ordinary_values_stay_as_they_are(text: str) -> None:
    assert scrubbed(text) == text


def test_queries_are_dropped_but_for_what_is_declared() -> None:
    assert without_query("/a?x=1&utm_id=7&y=2#top", []) == "/a"
    assert without_query("/a?x=1&utm_id=7&y=2#top", ["utm_id"]) == "/a?utm_id=7"
    assert [name for name in ("pagePath", "landingPage", "pageReferrer", "linkUrl", "pageTitle", "sessionSource", "linkText") if is_link(name)] == [
        "pagePath", "landingPage", "pageReferrer", "linkUrl",
    ]  # fmt: skip


def _key() -> str:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()).decode()


def test_a_service_account_and_a_user_are_understood_inline_and_as_a_file(setting: Setting, tmp_path: Path) -> None:
    account = {"type": "service_account", "client_email": "reader@project.example", "token_uri": "https://example.com/token", "private_key": _key()}
    setting("SOURCES__GOOGLE_ANALYTICS__CREDENTIALS", json.dumps(account))
    assert _credentials(is_local=False).service_account_email == "reader@project.example"
    line = account["private_key"].splitlines()[1]
    assert line not in repr(settings())
    assert account["private_key"] not in scrub(f"failed with {account['private_key']}")
    user = {"type": "authorized_user", "client_id": "c", "client_secret": "hush-hush-secret", "refresh_token": "1//refresh"}
    (tmp_path / "user.json").write_text(json.dumps(user))
    setting("SOURCES__GOOGLE_ANALYTICS__CREDENTIALS", str(tmp_path / "user.json"))
    assert _credentials(is_local=False).refresh_token == "1//refresh"
    assert _credentials(is_local=True).token is None


@pytest.mark.parametrize(
    "given", ["not a file", '{"type": "external"}', '{"type": "service_account", "private_key": "hush-hush"}', '{"type": "authorized_user"}', "{broken", "[1]"]
)
def test_credentials_that_are_none_name_the_setting_and_show_nothing(setting: Setting, fails: Callable[..., WarehouseError], given: str) -> None:
    setting("SOURCES__GOOGLE_ANALYTICS__CREDENTIALS", given)
    error = fails(_credentials, is_local=False)
    assert isinstance(error, UsageError)
    assert "SOURCES__GOOGLE_ANALYTICS__CREDENTIALS" in error.what
    assert "hush" not in str(error)


def test_it_is_configured_with_properties_and_credentials_or_a_local_address(setting: Setting) -> None:
    assert not settings().is_configured("google_analytics")
    setting("SOURCES__GOOGLE_ANALYTICS__PROPERTY_IDS", "12, 34,12")
    assert not settings().is_configured("google_analytics")
    setting("SOURCES__GOOGLE_ANALYTICS__CREDENTIALS", "{}")
    assert settings().is_configured("google_analytics")
    assert settings().google_analytics_properties() == ["12", "34"]
    setting("SOURCES__GOOGLE_ANALYTICS__CREDENTIALS", None)
    setting("SOURCES__GOOGLE_ANALYTICS__BASE_URL", "http://127.0.0.1:1")
    assert settings().is_configured("google_analytics")


def test_a_property_is_a_number(setting: Setting, fails: Callable[..., WarehouseError]) -> None:
    setting("SOURCES__GOOGLE_ANALYTICS__PROPERTY_IDS", "UA-12345-1")
    assert "SOURCES__GOOGLE_ANALYTICS__PROPERTY_IDS" in fails(settings).what
