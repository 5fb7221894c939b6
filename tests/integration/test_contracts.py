"""Every rule of every contract, on a real DuckDB file: one bad row is reported by the check meant for it, and by no other."""

import logging
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
from integration.broken_acquisition import BROKEN as BROKEN_ACQUISITION
from integration.broken_acquisition import GOOD as GOOD_ACQUISITION
from integration.broken_consent import BROKEN as BROKEN_CONSENT
from integration.broken_consent import GOOD as GOOD_CONSENT
from integration.broken_customers import BROKEN as BROKEN_CUSTOMERS
from integration.broken_customers import GOOD, WARNINGS
from integration.broken_google_analytics import BROKEN as BROKEN_ANALYTICS
from integration.broken_revenue import BROKEN as BROKEN_REVENUE
from integration.broken_stripe import BROKEN as BROKEN_STRIPE
from integration.broken_subscriptions import BROKEN as BROKEN_SUBSCRIPTIONS
from integration.broken_subscriptions import NOTHING_MOVED
from integration.broken_support import BROKEN as BROKEN_SUPPORT
from integration.broken_support import GOOD as GOOD_SUPPORT
from integration.broken_zendesk import BROKEN as BROKEN_ZENDESK

from monitoring import contracts as contracts_module
from monitoring import soda_session
from monitoring.contract_files import FOLDER, read_contracts
from monitoring.contracts import check_contracts
from monitoring.findings import Finding
from warehouse.settings import ROOT, reload

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
LOADED_AT = {table: NOW - timedelta(hours=1) for table in read_contracts() if table.startswith("raw_")}
ROWS = 10
DAY = "DATE '1997-01-01' + i::INTEGER"
INSTANT = "TIMESTAMP '1997-01-01' + INTERVAL (i) DAY"
HASH = "sha256(i::VARCHAR)"
VALUES = {
    "BIGINT": "i", "INTEGER": "i + 20", "BOOLEAN": "true", "VARCHAR": "'EUR'", "DATE": DAY, "TIMESTAMP": INSTANT, "TIMESTAMPTZ": INSTANT,
    "DECIMAL(12,2)": "i * 9.99", "DECIMAL(18,2)": "i * 9.99", "DECIMAL(9,6)": "0.25",
    "DECIMAL(38,3)": "i * 0.01", "DECIMAL(38,12)": "0.25", "DECIMAL(18,10)": "0.25",
    "DECIMAL(38,6)": "i * 0.01", "DOUBLE": "0.25", "DECIMAL(18,6)": "0.25", "DECIMAL(18,1)": "0.5",
}  # fmt: skip
COLUMNS = {
    "email_hash": HASH, "valid_to": f"CASE WHEN i = 0 THEN {INSTANT} + INTERVAL 1 HOUR END", "phone_masked": "'+49 *** **12'", "is_deleted": "false",
    "status": "'succeeded'", "net_amount": "0", "settled_net": "0", **NOTHING_MOVED,
}  # fmt: skip

MISSING = {
    "raw_postgres.users": "id _loaded_at _privacy_key_id email_hash is_email_valid phone_masked age country segment",
    "raw_postgres.orders": "id user_id ordered_at revenue currency _loaded_at",
    "staging.stg_postgres__users": "user_id loaded_at email_hash is_email_valid phone_masked age country segment",
    "staging.stg_postgres__orders": "order_id user_id ordered_at revenue currency loaded_at",
    "marts.order_facts": "order_id user_id ordered_at order_date revenue currency loaded_at",
    "marts.user_dim": "user_id valid_from email_hash is_email_valid age country segment",
    "marts.user_dim_history": "user_id valid_from email_hash is_email_valid age country segment",
    "marts.daily_revenue": "date currency revenue",
    "marts.customer_lifetime_value": "user_id currency revenue",
    "marts.cohort_retention": "cohort_month months_since_first retention_rate",
}
KEYS = {
    "raw_postgres.users": "id", "raw_postgres.orders": "id", "staging.stg_postgres__users": "user_id",
    "staging.stg_postgres__orders": "order_id", "marts.order_facts": "order_id", "marts.user_dim": "user_id",
    "marts.user_dim_history": None, "marts.daily_revenue": None, "marts.customer_lifetime_value": None, "marts.cohort_retention": None,
}  # fmt: skip
USERS = ("raw_postgres.users", "staging.stg_postgres__users", "marts.user_dim", "marts.user_dim_history")
ORDERS = ("raw_postgres.orders", "staging.stg_postgres__orders", "marts.order_facts")
LIFETIME = "marts.customer_lifetime_value"
MONEY = (*((table, "revenue") for table in (*ORDERS, "marts.daily_revenue", LIFETIME)), (LIFETIME, "average_order_value"))
DATES = (("marts.order_facts", "order_date"), ("marts.daily_revenue", "date"))
HISTORY = "marts.user_dim_history"
RETENTION = "marts.cohort_retention"
TWO_CURRENT = f"INSERT INTO {HISTORY} SELECT * REPLACE (valid_from + INTERVAL 1 DAY AS valid_from) FROM {HISTORY} WHERE rowid = 1"


def _one(table: str, change: str) -> str:
    return f"UPDATE {table} SET {change} WHERE rowid = 0"


BROKEN: list[tuple[str, str | None, str, str]] = [
    *((table, column, "missing", _one(table, f"{column} = NULL")) for table, columns in MISSING.items() for column in columns.split()),
    *((table, key, "duplicate", f"INSERT INTO {table} SELECT * FROM {table} WHERE rowid = 0") for table, key in KEYS.items()),
    *((table, None, "row_count", f"DELETE FROM {table}") for table in KEYS),
    *((table, "email_hash", "invalid", _one(table, "email_hash = 'A' || email_hash[2:]")) for table in USERS),
    *((table, "is_email_valid", "share_of_invalid_emails", _one(table, "is_email_valid = false")) for table in USERS),
    *((table, "age", "invalid", _one(table, f"age = {age}")) for table in USERS for age in (-1, 151)),
    *((table, None, "user_is_known", _one(table, "user_id = 999")) for table in ORDERS),
    *((table, column, "not_negative", _one(table, f"{column} = -0.01")) for table, column in MONEY),
    *((table, column, "not_in_the_future", _one(table, f"{column} = DATE '2026-03-02'")) for table, column in DATES),
    (HISTORY, "valid_to", "after_valid_from", _one(HISTORY, "valid_to = valid_from")),
    ("marts.order_facts", "is_deleted", "not_deleted", _one("marts.order_facts", "is_deleted = true")),
    (HISTORY, None, "one_current_version", TWO_CURRENT),
    *BROKEN_STRIPE,
    *BROKEN_SUBSCRIPTIONS,
    *BROKEN_REVENUE,
    *BROKEN_ANALYTICS,
    *BROKEN_ZENDESK,
    *BROKEN_CUSTOMERS,
    *BROKEN_CONSENT,
    *BROKEN_SUPPORT,
    *BROKEN_ACQUISITION,
    *((RETENTION, "retention_rate", "between_0_and_1", _one(RETENTION, f"retention_rate = {rate}")) for rate in (-0.000001, 1.000001)),
]  # fmt: skip


def _good(table: str, column: str, data_type: str) -> str:
    """SQL for a good value of row i."""
    if column.endswith("_hash"):
        return HASH
    if data_type == "VARCHAR" and (column == "id" or column.endswith("_id")):
        return "i::VARCHAR"
    if table.startswith("raw_stripe.") and column == "currency":
        return "'eur'"
    return (GOOD | GOOD_SUPPORT | GOOD_ACQUISITION | GOOD_CONSENT).get((table, column)) or COLUMNS.get(column, VALUES[data_type])


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A warehouse file with ten good rows in every contracted table."""
    file = tmp_path_factory.mktemp("filled") / "warehouse.duckdb"
    with duckdb.connect(str(file)) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        for table, contract in read_contracts().items():
            columns = [f"({_good(table, one.name, one.data_type)})::{one.data_type} AS {one.name}" for one in contract.columns]
            connection.execute(f"CREATE SCHEMA IF NOT EXISTS {table.split('.')[0]}")
            connection.execute(f"CREATE TABLE {table} AS SELECT {', '.join(columns)} FROM range({ROWS}) AS rows(i)")
    return file


@pytest.fixture(scope="module")
def opened(filled: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect(str(filled), config={"threads": "2"}) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        yield connection


@pytest.fixture
def connection(opened: duckdb.DuckDBPyConnection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[duckdb.DuckDBPyConnection]:
    """The filled warehouse; what a test changes is rolled back."""
    monkeypatch.setenv("WAREHOUSE_HOME", str(tmp_path))
    reload()
    opened.begin()
    yield opened
    opened.rollback()
    reload()


def _check(connection: duckdb.DuckDBPyConnection, **given: Any) -> list[Finding]:
    return check_contracts(connection, **{"now": NOW, "loaded_at": LOADED_AT, **given})


def test_good_data_has_no_findings(connection: duckdb.DuckDBPyConnection) -> None:
    assert _check(connection) == []


@pytest.mark.parametrize(("table", "column", "check", "breaks"), BROKEN, ids=lambda value: str(value).split()[0])
def test_one_bad_row_is_reported_by_its_own_check_alone(connection: duckdb.DuckDBPyConnection, table: str, column: str | None, check: str, breaks: str) -> None:
    connection.execute(breaks)
    (finding,) = _check(connection, only=[table])
    severity = "warning" if check in WARNINGS else "error"
    assert (finding.table, finding.column, finding.check, finding.severity) == (table, column, check, severity)
    assert finding.since == NOW
    shown = connection.execute(finding.query)
    assert {name for name, *_ in shown.description} <= {*read_contracts()[table].key, "user_id", "copies", "table_rows"}
    assert len(shown.fetchall()) == 1


def test_every_rule_of_every_contract_is_among_the_broken_ones() -> None:
    declared = {(table, check.column, check.name) for table, contract in read_contracts().items() for check in contract.all_checks()}
    assert {(table, column, check) for table, column, check, _ in BROKEN} == declared


def test_today_is_the_clock_s_and_still_allowed(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute(_one("marts.order_facts", "order_date = DATE '2026-03-01'"))
    assert _check(connection, only=["marts.order_facts"]) == []
    (finding,) = _check(connection, only=["marts.order_facts"], now=NOW - timedelta(days=1), loaded_at={})
    assert finding.check == "not_in_the_future"
    assert "2026-02-28" in finding.query


@pytest.mark.parametrize(("invalid", "is_found"), [(1, False), (2, True)])
def test_five_percent_is_allowed_and_more_is_not(connection: duckdb.DuckDBPyConnection, invalid: int, is_found: bool) -> None:
    connection.execute("INSERT INTO marts.user_dim SELECT * REPLACE (user_id + 10 AS user_id) FROM marts.user_dim")  # 20 rows: one is 5 %
    connection.execute(f"UPDATE marts.user_dim SET country = NULL, is_email_valid = false WHERE user_id < {invalid}")
    found = {finding.check for finding in _check(connection, only=["marts.user_dim"])}
    assert found == ({"missing", "share_of_invalid_emails"} if is_found else set())


@pytest.mark.parametrize("amount", ["'NaN'", "'Infinity'", "-1"])
def test_an_amount_that_is_no_number_is_found_even_in_a_double(connection: duckdb.DuckDBPyConnection, amount: str) -> None:
    connection.execute("ALTER TABLE raw_postgres.orders ALTER revenue TYPE DOUBLE")
    connection.execute(_one("raw_postgres.orders", f"revenue = {amount}::DOUBLE"))
    found = _check(connection, only=["raw_postgres.orders"])
    assert [finding.check for finding in found] == ["schema", "not_negative"]
    assert "column revenue is DOUBLE" in found[0].observed
    assert found[0].expected == "revenue DECIMAL(12,2)"


def test_a_missing_column_is_one_finding_and_the_other_checks_still_run(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute("ALTER TABLE marts.order_facts DROP revenue")
    connection.execute(_one("marts.order_facts", "currency = NULL"))
    found = _check(connection)
    assert [(one.table, one.column, one.check) for one in found] == [
        ("marts.order_facts", "revenue", "schema"), ("marts.order_facts", "currency", "missing"),
    ]  # fmt: skip
    assert "2 checks that need these columns were not run" in found[0].observed


def test_a_missing_key_column_of_a_referenced_table_is_one_finding(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute("ALTER TABLE raw_postgres.users RENAME id TO uid")
    assert [(one.table, one.check) for one in _check(connection)] == [("raw_postgres.users", "schema")]


def test_a_missing_table_is_one_finding(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute("DROP TABLE marts.user_dim")
    (finding,) = _check(connection)
    assert (finding.table, finding.check, finding.observed) == ("marts.user_dim", "schema", "the table is missing")


def test_a_column_whose_type_no_check_fits_is_one_finding(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute("ALTER TABLE staging.stg_postgres__users ALTER age TYPE VARCHAR USING 'old'")
    assert [(one.table, one.column, one.check) for one in _check(connection)] == [("staging.stg_postgres__users", "age", "schema")]


def test_a_new_column_is_found_in_marts_and_allowed_in_what_the_source_owns(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute("ALTER TABLE marts.user_dim ADD nickname VARCHAR")
    connection.execute("ALTER TABLE raw_postgres.users ADD nickname VARCHAR")
    (finding,) = _check(connection)
    assert finding.table == "marts.user_dim"
    assert finding.observed == "column nickname is not declared"


def test_a_table_without_a_contract_is_a_warning(connection: duckdb.DuckDBPyConnection) -> None:
    for table in ("marts.new_facts", "raw_postgres._dlt_loads"):
        connection.execute(f"CREATE TABLE {table} AS SELECT 1 AS id")
    (finding,) = _check(connection)
    assert (finding.table, finding.check, finding.severity) == ("marts.new_facts", "contract", "warning")


def test_views_are_checked_as_tables_are(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute("ALTER TABLE marts.daily_revenue RENAME TO daily_revenue__1; CREATE SCHEMA physical")
    connection.execute("CREATE TABLE physical.daily_revenue AS FROM marts.daily_revenue__1; DROP TABLE marts.daily_revenue__1")
    connection.execute("CREATE VIEW marts.daily_revenue AS SELECT * FROM physical.daily_revenue")
    assert _check(connection) == []
    connection.execute("UPDATE physical.daily_revenue SET revenue = -1 WHERE revenue = 9.99")
    assert [one.check for one in _check(connection)] == ["not_negative"]


def _contracts_with(folder: Path, table: str, old: str, new: str) -> Path:
    shutil.copytree(FOLDER, folder)
    file = folder / f"{table.replace('.', '/')}.yml"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))
    return folder


@pytest.mark.parametrize(
    ("table", "old", "new", "told"),
    [
        ("marts.daily_revenue", "revenue < 0 OR", "revenue < no_such_thing OR", "14 of 14 checks were not evaluated"),
        ("marts.order_facts", "staging.stg_postgres__users AS", "marts.no_such_thing AS", "1 of 13 checks were not evaluated: user_is_known"),
    ],
)
def test_what_cannot_be_evaluated_is_an_error_never_a_pass(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path, table: str, old: str, new: str, told: str
) -> None:
    (finding,) = _check(connection, folder=_contracts_with(tmp_path / "soda", table, old, new))
    assert (finding.table, finding.check, finding.severity) == (table, "evaluation", "error")
    assert told in finding.observed
    assert "no_such_thing" in finding.observed


def test_an_outcome_that_does_not_come_back_is_an_error(connection: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch) -> None:
    def forgetful(*given: Any) -> dict[str, soda_session.Verified]:
        verified = soda_session.verify(*given)
        for outcomes in verified.values():
            outcomes.outcomes.pop(next(key for key in outcomes.outcomes if key[1] == "row_count"))
        return verified

    monkeypatch.setattr(contracts_module, "verify", forgetful)
    found = _check(connection, only=KEYS)
    assert {one.check for one in found} == {"evaluation"}
    assert len(found) == len(KEYS)
    assert "1 of 14 checks were not evaluated: row_count" in {one.table: one.observed for one in found}["marts.daily_revenue"]


def test_soda_breaking_down_is_an_error_of_every_table(connection: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> str:
        raise RuntimeError("no contact with a.person@example.org")

    monkeypatch.setattr("soda_duckdb.common.data_sources.duckdb_data_source.DuckDBDataSourceImpl.from_existing_cursor", broken)
    found = _check(connection)
    assert {one.table for one in found} == set(read_contracts())
    assert "example.org" not in str(found)


def test_stale_sources_are_among_the_findings(connection: duckdb.DuckDBPyConnection) -> None:
    stale = {**LOADED_AT, "raw_postgres.orders": NOW - timedelta(hours=6, seconds=1)}
    assert [(one.table, one.check) for one in _check(connection, loaded_at=stale)] == [("raw_postgres.orders", "freshness")]
    assert [one.table for one in _check(connection, loaded_at={})] == sorted(
        table for table in LOADED_AT if table != "raw_privacy.consents"
    )  # no load fills it
    assert _check(connection, loaded_at=stale, freshness={"raw_postgres.orders": timedelta(days=1)}) == []


def test_a_source_left_out_is_neither_stale_nor_wrong_and_the_marts_are_still_checked(connection: duckdb.DuckDBPyConnection) -> None:
    loaded = {table: at for table, at in LOADED_AT.items() if not table.startswith("raw_stripe")}
    given = {"left_out": ["stripe"], "loaded_at": loaded, "freshness": {"raw_stripe.charges": timedelta(hours=1)}}
    connection.execute("DROP TABLE raw_stripe.charges")
    connection.execute("UPDATE staging.stg_stripe__disputes SET currency = 'eur'")
    assert _check(connection, **given) == []
    connection.execute(_one("marts.payment_facts", "currency = 'eur'"))
    connection.execute(_one("staging.stg_postgres__orders", "currency = NULL"))
    assert [one.table for one in _check(connection, **given)] == ["marts.payment_facts", "staging.stg_postgres__orders"]


def test_findings_never_hold_personal_data(connection: duckdb.DuckDBPyConnection) -> None:
    for table in USERS:
        connection.execute(f"UPDATE {table} SET email_hash = 'a.person@example.org', age = 200, is_email_valid = false")
    connection.execute("UPDATE raw_postgres.users SET phone_masked = '+49 151 23456789', ssn_redacted = '078-05-1120', age = NULL")
    connection.execute("ALTER TABLE staging.stg_postgres__users ALTER country TYPE INTEGER USING 1")
    found = _check(connection)
    assert len(found) > 10
    rows = [connection.execute(one.query).fetchall() for one in found]
    assert not re.search(r"example\.org|23456789|078-05-1120", str([one.as_json() for one in found]) + str(rows))


def test_errors_are_heard_with_logging_off_and_nothing_reaches_the_program_s_own_log(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    folder = _contracts_with(tmp_path / "soda", "marts.daily_revenue", "revenue < 0 OR", "revenue < no_such_thing OR")
    before = list(logging.getLogger().handlers)
    assert "no_such_thing" in _check(connection, folder=folder)[0].observed
    logging.disable(logging.CRITICAL)
    try:
        found = _check(connection, folder=folder)
        assert logging.getLogger().manager.disable == logging.CRITICAL
    finally:
        logging.disable(logging.NOTSET)
    assert "no_such_thing" in found[0].observed
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []
    assert logging.getLogger().handlers == before


def test_no_telemetry_and_no_connection_to_anywhere(filled: Path, tmp_path: Path) -> None:
    script = f"""
import os, socket
def refuse(*given, **named): raise AssertionError("a connection was tried")
socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refuse
import duckdb
from datetime import datetime, UTC
from monitoring.contracts import check_contracts
import sys
assert not any(name.startswith("soda_core") for name in sys.modules), "soda is imported only when it runs"
now = datetime(2026, 3, 1, tzinfo=UTC)
connection = duckdb.connect({str(filled.with_name("copy.duckdb"))!r}, read_only=True)
assert check_contracts(connection, now=now, loaded_at=dict.fromkeys({sorted(LOADED_AT)!r}, now)) == []
assert os.environ["SODA_CORE_TELEMETRY_ENABLED"] == "false"
"""
    shutil.copy(filled, filled.with_name("copy.duckdb"))
    environment = {"PATH": "", "PYTHONPATH": str(ROOT), "WAREHOUSE_HOME": str(tmp_path), "SODA_CORE_TELEMETRY_ENABLED": "true"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_full_check_opens_no_socket(connection: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert _check(connection) == []


def test_ten_contracts_of_seventy_thousand_rows_take_at_most_a_second_and_a_half(connection: duckdb.DuckDBPyConnection) -> None:
    for table in KEYS:
        connection.execute(f"INSERT INTO {table} SELECT {table.split('.')[1]}.* FROM {table}, range({70_000 // ROWS - 1})")
    _check(connection, only=KEYS)
    began = time.process_time()
    found = _check(connection, only=KEYS)
    assert time.process_time() - began <= 1.5
    assert {(one.table, one.check) for one in found} >= {(table, "duplicate") for table in KEYS}
