"""Unusual days, lost rows and old rows are found; weekends, holidays, growth and the day that is not over are nothing unusual."""

import random
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest

from monitoring import usual
from monitoring.anomalies import check_anomalies
from monitoring.check import check
from monitoring.completeness import check_completeness, check_newest
from monitoring.contract_files import read_contracts
from monitoring.deletes import check_deletes
from monitoring.expectations import Expectations, read_expectations
from monitoring.findings import Finding
from warehouse import storage
from warehouse.errors import DeclarationError

NOW = datetime(2026, 3, 11, 9, 30, tzinfo=UTC)  # a Wednesday
YESTERDAY = date(2026, 3, 10)
WATCHED = {
    "day": "ordered_at", "by": "currency", "sums": ["revenue"], "means": ["revenue"], "null_rates": ["country"], "distinct_shares": ["user_id"],
}  # fmt: skip
ORDERS = Expectations.model_validate({"anomalies": {"marts.orders": WATCHED}})
PAIR = {"table": "staging.b", "key": "b_id", "of": "raw_x.a", "of_key": "id", "where": "deleted_at IS NULL"}


@pytest.fixture
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as opened:
        opened.execute("SET TimeZone = 'UTC'; CREATE SCHEMA marts; CREATE SCHEMA staging; CREATE SCHEMA raw_x")
        yield opened


def _fill(connection: duckdb.DuckDBPyConnection, days: int = 120, growth: float = 0.003, share: float = 1.0) -> None:
    """Orders of two currencies: half as many at weekends, more each day, with some noise; today's have only begun."""
    noise, rows = random.Random(4), []
    for back in range(days, -1, -1):
        day = NOW.date() - timedelta(days=back)
        level = 200 * (1 + growth) ** (days - back) * (0.5 if day.weekday() >= 5 else 1) * noise.uniform(0.93, 1.07) * (0.3 if back == 0 else 1)
        rows += [(day, "EUR", int(level * share)), (day, "USD", int(level / 2))]
    connection.execute("CREATE TABLE counts (day DATE, currency VARCHAR, n INT)")
    connection.executemany("INSERT INTO counts VALUES (?, ?, ?)", rows)
    connection.execute(
        "CREATE TABLE marts.orders AS SELECT day::TIMESTAMP + INTERVAL (i) MINUTE AS ordered_at, currency, (20 + 5 * sin(i))::DECIMAL(12, 2) AS revenue, "
        "CASE WHEN i % 10 > 0 THEN 'DE' END AS country, hash(i, day) % 100_000 AS user_id FROM counts, range(n) AS orders(i)"
    )


def _found(connection: duckdb.DuckDBPyConnection, expectations: Expectations = ORDERS, now: datetime = NOW) -> set[str]:
    found = check_anomalies(connection, expectations, now)
    assert {one.severity for one in found} <= {"warning"}
    for one in found:
        assert connection.execute(one.query).fetchall()
    return {f"{one.check}{' of ' + one.column if one.column else ''}" for one in found}


def test_ordinary_days_are_nothing_unusual_on_any_weekday(connection: duckdb.DuckDBPyConnection) -> None:
    _fill(connection)
    assert [_found(connection, now=NOW - timedelta(days=back)) for back in range(28)] == [set()] * 28


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ("DELETE FROM marts.orders WHERE currency = 'EUR' AND ordered_at::DATE = '2026-03-10' AND user_id % 2 = 0", {"unusual volume (EUR)"}),
        ("DELETE FROM marts.orders WHERE currency = 'EUR' AND ordered_at::DATE = '2026-03-10'", {"unusual volume (EUR)", "unusual sum (EUR) of revenue"}),
        ("DELETE FROM marts.orders WHERE currency = 'USD' AND ordered_at::DATE >= '2026-03-08' AND user_id % 10 < 4", {"unusual volume (USD)"}),
        ("INSERT INTO marts.orders SELECT * FROM marts.orders WHERE ordered_at::DATE = '2026-03-10'", {"unusual volume (EUR)", "unusual volume (USD)"}),
        ("UPDATE marts.orders SET revenue = revenue * 100 WHERE ordered_at::DATE = '2026-03-10' AND currency = 'USD'", {"unusual mean (USD) of revenue"}),
        ("UPDATE marts.orders SET country = NULL WHERE ordered_at::DATE = '2026-03-10' AND user_id % 3 = 0", {"unusual null rate (EUR) of country"}),
        ("UPDATE marts.orders SET user_id = user_id % 20 WHERE ordered_at::DATE = '2026-03-10'", {"unusual distinct share (EUR) of user_id"}),
    ],
)
def test_a_bad_day_is_found_by_what_is_bad_about_it(connection: duckdb.DuckDBPyConnection, change: str, found: set[str]) -> None:
    _fill(connection)
    connection.execute(change)
    seen = _found(connection)
    assert found <= seen
    if "currency =" in change:
        assert not [one for one in seen if ("USD" if "EUR" in change else "EUR") in one]


@pytest.mark.parametrize(("kind", "harm"), [("amount", -1), ("share", -1), ("missing", 1)])
@pytest.mark.parametrize("days", [1, 3])
def test_what_harms_is_told_sooner_than_what_does_not(kind: str, harm: int, days: int) -> None:
    noise = np.random.default_rng(5).normal(0.5, 0.1, (200, 1, usual.WINDOW_DAYS))
    noise[..., -3:] = 0.5

    def told(change: float) -> float:
        values, every = noise.copy(), np.ones((200, usual.WINDOW_DAYS), dtype=bool)
        values[..., -days:] += change
        return float(usual.judge(values, np.zeros_like(values), every, np.arange(usual.WINDOW_DAYS)[None] % 7 * every, [kind]).is_unusual.mean())

    far = 0.4 / days**0.5
    assert told(harm * far) > 0.7
    assert told(-harm * far) < 0.4
    assert told(harm * far / 2) < 0.05
    assert told(-harm * far * 1.8) > 0.95


def test_a_holiday_that_is_declared_is_neither_judged_nor_learned_from(connection: duckdb.DuckDBPyConnection) -> None:
    _fill(connection)
    connection.execute("DELETE FROM marts.orders WHERE ordered_at::DATE = '2026-03-10' AND user_id % 4 > 0")
    told = [{"name": "strike", "day": "2026-03-10"}, {"name": "strike", "every_year": "03-09", "days": 2}]
    for special in told:
        declared = Expectations.model_validate({"anomalies": {"marts.orders": WATCHED}, "calendar": [special]})
        assert _found(connection, declared) == set()
        assert _found(connection, declared, NOW + timedelta(hours=10)) == set()
    assert _found(connection) != set()


def test_too_little_history_and_tables_that_are_not_there_are_not_judged(connection: duckdb.DuckDBPyConnection) -> None:
    assert _found(connection) == set()
    _fill(connection, days=25)
    connection.execute("DELETE FROM marts.orders WHERE ordered_at::DATE = '2026-03-10'")
    assert _found(connection) == set()
    connection.execute("ALTER TABLE marts.orders DROP COLUMN country")
    assert _found(connection) == set()


def test_a_new_level_is_told_for_a_while_and_then_is_the_usual_one(connection: duckdb.DuckDBPyConnection) -> None:
    _fill(connection)
    connection.execute("DELETE FROM marts.orders WHERE ordered_at >= '2026-02-20' AND hash(user_id, ordered_at) % 16 < 8")
    seen = [_found(connection, now=datetime(2026, 2, 21, 9, tzinfo=UTC) + timedelta(days=after)) for after in range(19)]
    told = [bool({"unusual volume (EUR)", "unusual volume (USD)"} & one) for one in seen]
    assert told[0]
    assert told[:4] == [True] * 4
    assert told[-3:] == [False] * 3


@pytest.mark.parametrize(
    ("change", "observed"),
    [
        ("DELETE FROM staging.b WHERE b_id = 3", "9 rows, 1 missing, 0 too many"),
        ("INSERT INTO staging.b VALUES (77)", "11 rows, 0 missing, 1 too many"),
        ("INSERT INTO staging.b VALUES (3)", "11 rows, 0 missing, 0 too many, 1 more than once"),
        ("UPDATE staging.b SET b_id = 77 WHERE b_id = 3", "10 rows, 1 missing, 1 too many"),
        ("DELETE FROM staging.b", "0 rows, 10 missing, 0 too many"),
    ],
)
def test_one_row_that_is_lost_or_doubled_on_the_way_is_found(connection: duckdb.DuckDBPyConnection, change: str, observed: str) -> None:
    connection.execute("CREATE TABLE raw_x.a AS SELECT i AS id, CASE WHEN i > 9 THEN now() END AS deleted_at FROM range(12) AS rows(i)")
    connection.execute("CREATE TABLE staging.b AS SELECT id AS b_id FROM raw_x.a WHERE deleted_at IS NULL")
    pairs = Expectations.model_validate({"rows": [PAIR, {**PAIR, "of": "raw_y.never_loaded"}]})
    assert check_completeness(connection, pairs, NOW, ["y"]) == []
    connection.execute(change)
    (found,) = check_completeness(connection, pairs, NOW, ["y"])
    assert (found.table, found.severity, found.observed) == ("staging.b", "error", observed)
    assert len(connection.execute(found.query).fetchall()) == min(20, int(observed.split()[2]) + int(observed.split()[4]) or 1)


@pytest.mark.parametrize(("deleted", "hours", "is_found"), [(6, 1, True), (5, 1, False), (50, 25, False)])
def test_a_part_of_all_rows_deleted_within_a_day_is_found(connection: duckdb.DuckDBPyConnection, deleted: int, hours: int, is_found: bool) -> None:
    connection.execute(
        f"CREATE TABLE raw_x.a AS SELECT i AS id, CASE WHEN i < {deleted} THEN TIMESTAMPTZ '{NOW}' - INTERVAL {hours} HOUR "
        f"WHEN i >= 100 THEN TIMESTAMPTZ '{NOW}' - INTERVAL 9 DAY END AS _deleted_at FROM range(200) AS rows(i)"
    )
    declared = Expectations.model_validate({"deletes": {"raw_x.a": {"time": "_deleted_at", "above": 0.05}, "raw_x.none": {"time": "t", "above": 0.05}}})
    found = check_deletes(connection, declared, NOW)
    assert [(one.table, one.observed, one.share) for one in found] == ([("raw_x.a", "6 of 100 rows were deleted within a day", 0.06)] if is_found else [])
    assert all(connection.execute(one.query).fetchall() for one in found)


def test_segments_are_also_judged_together_where_their_sums_mean_nothing(connection: duckdb.DuckDBPyConnection) -> None:
    _fill(connection)
    connection.execute("UPDATE marts.orders SET revenue = revenue * 0.6 WHERE ordered_at::DATE = '2026-03-10'")
    assert {"unusual sum of revenue", "unusual mean of revenue"} <= _found(connection)
    (together,) = [one for one in check_anomalies(connection, ORDERS, NOW) if one.check == "unusual mean"]
    assert together.observed.startswith("mean revenue of every currency together on 2026-03-10: -")


def _newest(connection: duckdb.DuckDBPyConnection, now: datetime, **more: Any) -> list[Finding]:
    expected = Expectations.model_validate({"newest": {"marts.t": {"time": "at", "within_hours": 6, **more}}})
    return check_newest(connection, expected, now)


def test_the_newest_row_is_judged_to_the_second_and_the_future_hides_nothing(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute("CREATE TABLE marts.t AS SELECT TIMESTAMP '2026-03-11 03:30:00' AS \"at\" UNION ALL SELECT TIMESTAMP '2099-01-01'")
    assert _newest(connection, NOW) == []
    (found,) = _newest(connection, NOW + timedelta(seconds=1))
    assert (found.observed, found.since) == ("the newest row is of 2026-03-11 03:30 UTC, 6.0 hours ago", NOW)
    connection.execute("DELETE FROM marts.t WHERE \"at\" < '2099-01-01'")
    assert _newest(connection, NOW)[0].observed == "1 rows, none of them of the past"


@pytest.mark.parametrize(
    ("newest", "now", "is_old"),
    [
        ("2026-03-10 20:00", "2026-03-11T09:00+00:00", False),  # Tuesday 21:00 to Wednesday 10:00 in Berlin, ten hours of it quiet
        ("2026-03-10 18:30", "2026-03-11T09:31+00:00", False),
        ("2026-03-10 18:30", "2026-03-11T10:31+00:00", True),
        ("2026-03-06 19:00", "2026-03-09T08:00+00:00", False),  # over a weekend
        ("2026-03-06 15:00", "2026-03-09T08:00+00:00", True),
    ],
)
def test_quiet_hours_do_not_count(connection: duckdb.DuckDBPyConnection, newest: str, now: str, is_old: bool) -> None:
    connection.execute(f"CREATE TABLE marts.t AS SELECT TIMESTAMP '{newest}' AS at")
    quiet = {"from": "22:00", "until": "08:00", "time_zone": "Europe/Berlin", "weekends": True}
    assert bool(_newest(connection, datetime.fromisoformat(now), quiet=quiet)) == is_old


def test_what_is_declared_names_columns_that_their_contracts_have() -> None:
    contracts, declared = read_contracts(), read_expectations()
    named = {(table, key) for one in declared.rows for table, keys in ((one.table, one.keys), (one.of, one.of_keys)) for key in keys}
    named |= {(table, one.time) for table, one in (*declared.newest.items(), *declared.deletes.items())}
    for table, one in declared.anomalies.items():
        columns = (one.day, one.by or one.day, *one.sums, *one.means, *one.null_rates, *one.distinct_shares)
        named |= {(table, column) for column in columns}
    assert not [(table, column) for table, column in named if column not in {one.name for one in contracts[table].columns}]


@pytest.mark.parametrize(
    "text",
    [
        "anomalies: {orders: {day: d}}",
        "calendar: [{name: x}]",
        "calendar: [{name: x, every_year: '02-30'}]",
        "newest: {a.b: {time: t, within_hours: 0}}",
        "more: 1",
    ],
)
def test_a_wrong_declaration_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "expectations.yaml").write_text(text)
    with pytest.raises(DeclarationError):
        read_expectations(tmp_path / "expectations.yaml")


def test_every_check_is_asked(home: Path) -> None:
    with storage.open_warehouse() as connection:
        connection.execute("CREATE SCHEMA raw_postgres; CREATE SCHEMA staging")
        connection.execute("CREATE TABLE raw_postgres.orders AS SELECT 1 AS id")
        connection.execute("CREATE TABLE staging.stg_postgres__orders AS SELECT 2 AS order_id")
    found = {(one.check, one.table) for one in check({})}
    assert {("completeness", "staging.stg_postgres__orders"), ("freshness", "raw_postgres.orders"), ("schema", "raw_postgres.users")} <= found
