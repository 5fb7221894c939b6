"""Contract files are read strictly, and freshness is exact to the second."""

import json
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from monitoring.contract_files import read_contracts
from monitoring.findings import Finding
from monitoring.freshness import check_freshness
from pipelines.google_analytics import declaration as google_analytics
from pipelines.stripe import declaration as stripe
from pipelines.zendesk import declaration as zendesk
from warehouse.errors import DeclarationError

STAGED_OF_ZENDESK = (
    "groups", "organizations", "satisfaction_ratings", "schedule_holidays", "schedules", "ticket_comments", "ticket_field_history", "ticket_metric_events",
    "ticket_metrics", "tickets", "users",
)  # fmt: skip
NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
GOOD = """\
dataset: warehouse/marts/visits
description: Visits, one row each.
variables:
  today:
checks:
  - schema:
  - row_count:
columns:
  - name: visit_id
    data_type: BIGINT
    checks:
      - missing:
      - duplicate:
  - name: visit_date
    data_type: DATE
    checks:
      - failed_rows:
          name: not after today
          qualifier: not_in_the_future
          expression: visit_date > DATE '${var.today}'
"""


def _write(folder: Path, text: str, path: str = "marts/visits.yml") -> Path:
    file = folder / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return folder


def test_a_good_file_is_read(tmp_path: Path) -> None:
    contract = read_contracts(_write(tmp_path, GOOD))["marts.visits"]
    assert contract.key == ["visit_id"]
    assert [check.name for check in contract.all_checks()] == ["row_count", "missing", "duplicate", "not_in_the_future"]


def test_every_contract_of_the_project_is_valid_and_stands_alone_in_its_folder() -> None:
    analytics = (*google_analytics().reports, "metadata", "report_quality")
    assert set(read_contracts()) == {
        "raw_postgres.users", "raw_postgres.orders", "staging.stg_postgres__users", "staging.stg_postgres__orders",
        "marts.order_facts", "marts.user_dim", "marts.user_dim_history", "marts.daily_revenue", "marts.customer_lifetime_value",
        "marts.cohort_retention", "marts.payment_facts", "staging.stg_stripe__subscription_changes",
        "marts.subscription_facts", "marts.subscription_history", "marts.subscription_retention", "marts.mrr_by_subscription_month", "marts.mrr_movements",
        "marts.refund_facts", "marts.dispute_facts", "marts.balance_transaction_facts",
        "marts.balance_reconciliation", "marts.daily_revenue_reporting", "marts.exchange_rates",
        "marts.date_dim", "marts.identity_map", "marts.customer_360", "marts.customer_predictions", "marts.churned_customers",
        "marts.schedule_history", "marts.business_hours", "marts.ticket_status_history", "marts.ticket_facts", "marts.ticket_backlog_daily",
        "marts.support_daily", "marts.acquisition_daily", "marts.funnel_daily", "marts.attribution", "marts.marketing_spend",
        "marts.customer_acquisition_cost", "raw_privacy.consents", "staging.stg_privacy__consents", "marts.consents", "marts.marketing_audience",
        *(f"{schema}{name}" for schema in ("raw_stripe.", "staging.stg_stripe__") for name in stripe().tables),
        *(f"raw_google_analytics.{table}" for table in analytics), *(f"staging.stg_google_analytics__{table}" for table in analytics),
        *(f"raw_zendesk.{name}" for name in zendesk().tables), *(f"staging.stg_zendesk__{name}" for name in STAGED_OF_ZENDESK),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("description:", "owner: me\ndescription:", "owner"),
        ("  - row_count:", "  - row_count: {anomaly: true}", "anomaly"),
        ("  - row_count:", "  - row_count:\n  - reconciliation:", "reconciliation"),
        ("  - row_count:", "  - row_count: {threshold: {must_be_greater_then: 1}}", "must_be_greater_then"),
        ("  - row_count:", "  - row_count: {threshold: {}}", "exactly one must_be"),
        ("  - row_count:", "  - row_count: {threshold: {must_be: .nan}}", "finite"),
        ("      - missing:\n", "      - missing\n", "colon"),
        ("      - missing:\n", "      - mising:\n", "mising"),
        ("      - missing:\n", "      - missing:\n      - missing:\n", "qualifier"),
        ("      - missing:\n", "      - missing: {filter: visit_id > 0}\n", "filter"),
        ("      - missing:\n", "      - freshness:\n", "freshness"),
        ("data_type: DATE", "data_type: DATE\n    optional: true", "optional"),
        ("data_type: DATE", "data_type: DATE\n    data_type: DATE", "stands twice"),
        ("  - row_count:\n", "", "row_count"),
        ("description:", "may_be_empty: true\ndescription:", "row_count"),
        ("  - schema:\n", "", "schema"),
        ("  - schema:", "  - schema: {allow_other_column_order: false}", "allow_other_column_order"),
        ("      - duplicate:\n", "", "key"),
        ("name: visit_date", "name: visit_id", "visit_id"),
        ("dataset: warehouse/marts/visits", "dataset: warehouse/marts/visit", "as the path says"),
        ("${var.today}", "${env.MOTHERDUCK_TOKEN}", "var.today"),
        ("variables:\n  today:\n", "", "today"),
        ("variables:\n  today:\n", "variables:\n  today:\n  yesterday:\n", "yesterday"),
        ("expression: visit_date >", "query: SELECT * FROM marts.visits WHERE visit_date >", "selects *"),
        ("expression: visit_date >", "query: SELECT 1\n          expression: visit_date >", "not both"),
        (GOOD, "", "dataset"),
        (GOOD, "[1, 2", "not valid YAML"),
        (GOOD, "- a list", "dictionary"),
        ("dataset:", "? [a, b]\n: 1\ndataset:", "visits.yml"),
        ("dataset:", "kind: data-standard\ndataset:", "kind"),
    ],
)
def test_what_soda_would_ignore_or_misread_is_an_error_that_names_file_and_key(tmp_path: Path, old: str, new: str, told: str) -> None:
    broken = GOOD.replace(old, new, 1)
    assert broken != GOOD
    with pytest.raises(DeclarationError) as error:
        read_contracts(_write(tmp_path, broken))
    assert "visits.yml" in error.value.what
    assert told in error.value.what
    assert error.value.mend


def test_an_unknown_key_is_told_with_the_keys_allowed_beside_it(tmp_path: Path) -> None:
    with pytest.raises(DeclarationError, match="duplicate, failed_rows, invalid, missing"):
        read_contracts(_write(tmp_path, GOOD.replace("- missing:", "- mising:")))


def test_all_wrong_files_are_told_at_once(tmp_path: Path) -> None:
    _write(tmp_path, GOOD.replace("description", "descripton"))
    (tmp_path / "marts" / "latin.yml").write_bytes(b"dataset: \xff\xfe\n")
    _write(tmp_path, GOOD, "visits.yml")
    _write(tmp_path, "", "marts/__init__.py")
    with pytest.raises(DeclarationError) as error:
        read_contracts(tmp_path)
    assert all(name in error.value.what for name in ("descripton", "latin.yml", "visits.yml: is not a contract", "__init__.py"))


def test_a_folder_without_contracts_is_an_error_not_a_pass(tmp_path: Path) -> None:
    with pytest.raises(DeclarationError, match="holds no contract"):
        read_contracts(tmp_path)


def _freshness(age: timedelta, **given: object) -> list[Finding]:
    return check_freshness(["raw_postgres.orders"], now=NOW, loaded_at={"raw_postgres.orders": NOW - age}, **given)  # type: ignore[arg-type]  # passed on as given


@pytest.mark.parametrize(
    ("age", "fresh"),
    [
        (timedelta(0), True),
        (timedelta(hours=6), True),
        (timedelta(hours=6, microseconds=1), False),
        (timedelta(hours=6, seconds=1), False),
        (timedelta(days=30), False),
        (timedelta(minutes=-5), True),
        (timedelta(minutes=-5, seconds=-1), False),
        (timedelta(days=-3650), False),
    ],
)
def test_a_table_is_fresh_until_exactly_six_hours_after_its_load(age: timedelta, fresh: bool) -> None:
    assert (not _freshness(age)) is fresh


def test_a_stale_table_says_how_stale_and_since_when() -> None:
    (finding,) = _freshness(timedelta(hours=6, seconds=1))
    assert (finding.check, finding.table, finding.severity) == ("freshness", "raw_postgres.orders", "error")
    assert "6h00m01s ago" in finding.observed
    assert "6h00m00s" in finding.expected
    assert finding.since == NOW - timedelta(seconds=1)


def test_the_source_declares_its_own_limit() -> None:
    assert not _freshness(timedelta(hours=23), freshness={"raw_postgres.orders": timedelta(hours=24)})
    assert _freshness(timedelta(hours=2), freshness={"raw_postgres.orders": timedelta(hours=1)})


def test_a_table_never_loaded_is_a_finding() -> None:
    (finding,) = check_freshness(["raw_postgres.users"], now=NOW, loaded_at={})
    assert finding.observed == "never loaded successfully"
    assert finding.since == NOW


def test_another_time_zone_is_the_same_instant_and_none_is_refused() -> None:
    there = (NOW - timedelta(hours=6)).astimezone(timezone(timedelta(hours=9)))
    assert not check_freshness([], now=NOW, loaded_at={"raw_postgres.orders": there})
    with pytest.raises(ValueError, match="no time zone"):
        check_freshness([], now=NOW, loaded_at={"raw_postgres.orders": NOW.replace(tzinfo=None)})


def test_a_finding_is_json() -> None:
    finding = Finding("missing", "marts.visits", "visit_id", "warning", "1 of 2 rows", "no null", NOW, "SELECT 1")
    assert json.loads(json.dumps(finding.as_json()))["since"] == "2026-03-01T12:00:00+00:00"
