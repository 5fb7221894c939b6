"""The marts agree with numbers that nobody here computed: the totals and the customer summary published with the CDNOW purchases."""

import csv
import os
import shutil
from collections.abc import Iterable, Iterator
from datetime import date
from decimal import ROUND_HALF_UP, Decimal
from importlib.util import find_spec
from pathlib import Path

import duckdb
import pyarrow
import pytest

from transform.build import build
from warehouse import settings

pytestmark = pytest.mark.xdist_group("oracle")  # they share one built warehouse

WHEEL = find_spec("lifetimes")  # located, not imported: its code needs packages that are not installed
assert WHEEL is not None
assert WHEEL.origin is not None
DATASETS = Path(WHEEL.origin).parent / "datasets"
LOADED_AT = "1998-07-01 00:00:00+00"
END_OF_SUMMARY = "19970930"

Purchase = tuple[int, str, int, str]
"""Customer, day as YYYYMMDD, number of CDs, dollars."""


def _lines(name: str) -> Iterator[list[str]]:
    with (DATASETS / name).open(encoding="ascii") as file:
        yield from (fields for line in file if (fields := line.split()) and fields[0].isdigit())


def _master() -> list[Purchase]:
    return [(int(customer), day, int(quantity), dollars) for customer, day, quantity, dollars in _lines("CDNOW_master.txt")]


def _sample_up_to_the_end_of_the_summary() -> list[Purchase]:
    """The purchases that the summary is made of, by the customer's number in the sample."""
    lines = _lines("CDNOW_sample.txt")
    return [(int(customer), day, int(quantity), dollars) for _, customer, day, quantity, dollars in lines if day <= END_OF_SUMMARY]


def _built_from(purchases: Iterable[Purchase], built_empty: Path, home: Path) -> Path:
    """The marts of a company that sold these, each line an order; returns the warehouse file."""
    customers, days, quantities, dollars = zip(*purchases, strict=True)
    lines = pyarrow.table({"id": range(1, len(days) + 1), "customer": customers, "day": days, "quantity": quantities, "dollars": dollars})
    shutil.copytree(built_empty, home)
    file = home / "warehouse.duckdb"
    with duckdb.connect(str(file)) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.register("lines", lines)
        connection.execute(
            f"""CREATE OR REPLACE TABLE raw_postgres.orders AS
            SELECT id::BIGINT AS id, customer::BIGINT AS user_id, strptime(day, '%Y%m%d')::TIMESTAMPTZ AS ordered_at, quantity::INT AS quantity,
              dollars::DECIMAL(12, 2) AS revenue, 'USD' AS currency, 'paid' AS status, ordered_at AS updated_at, TIMESTAMPTZ '{LOADED_AT}' AS _loaded_at,
              NULL::TIMESTAMPTZ AS _deleted_at
            FROM lines"""
        )
        connection.execute(
            f"""CREATE OR REPLACE TABLE raw_postgres.users AS
            SELECT user_id AS id, 'a1' AS email_hash, true AS is_email_valid, NULL::TEXT AS phone_masked, NULL::TEXT AS ssn_redacted, 41 AS age,
              'US' AS country, 'consumer' AS segment, MIN(ordered_at) AS created_at, MIN(ordered_at) AS updated_at,
              TIMESTAMPTZ '{LOADED_AT}' AS _loaded_at, NULL::TIMESTAMPTZ AS _deleted_at, 'k1' AS _privacy_key_id
            FROM raw_postgres.orders GROUP BY user_id"""
        )
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(("WAREHOUSE_", "SOURCES__", "PRIVACY__", "MOTHERDUCK_")):
                patch.delenv(name)
        patch.setenv("WAREHOUSE_HOME", str(home))
        patch.setenv("SQLMESH__CACHE_DIR", str(home / "sqlmesh_cache"))  # the cache holds what a state holds
        settings.reload()
        build()
    settings.reload()
    return file


@pytest.fixture(scope="module")
def all_purchases(built_empty: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[duckdb.DuckDBPyConnection]:
    """The marts built from every purchase of the data set."""
    with duckdb.connect(str(_built_from(_master(), built_empty, tmp_path_factory.mktemp("master") / "home")), read_only=True) as connection:
        yield connection


@pytest.mark.parametrize(
    ("what", "query", "published"),
    [
        ("purchases", "SELECT SUM(orders)::BIGINT FROM marts.daily_revenue", 69_659),
        ("customers", "SELECT COUNT(*) FROM marts.customer_lifetime_value", 23_570),
        ("customers who are in the dimension", "SELECT COUNT(*) FROM marts.user_dim", 23_570),
        ("customers who are in a cohort", "SELECT SUM(cohort_size)::BIGINT FROM marts.cohort_retention WHERE months_since_first = 0", 23_570),
        ("cohorts: all bought first in the first quarter", "SELECT COUNT(DISTINCT cohort_month) FROM marts.cohort_retention", 3),
        ("CDs", "SELECT SUM(units)::BIGINT FROM marts.daily_revenue", 167_881),
        ("dollars", "SELECT SUM(revenue) FROM marts.daily_revenue", Decimal("2500315.63")),
        ("dollars by customer", "SELECT SUM(revenue) FROM marts.customer_lifetime_value", Decimal("2500315.63")),
        ("dollars of January 1997", "SELECT SUM(revenue) FROM marts.daily_revenue WHERE date_trunc('month', date) = '1997-01-01'", Decimal("299060.17")),
        ("dollars of June 1998", "SELECT SUM(revenue) FROM marts.daily_revenue WHERE date_trunc('month', date) = '1998-06-01'", Decimal("76109.30")),
        ("first day", "SELECT MIN(date) FROM marts.daily_revenue", date(1997, 1, 1)),
        ("last day", "SELECT MAX(date) FROM marts.daily_revenue", date(1998, 6, 30)),
        ("free purchases", "SELECT COUNT(*) FROM marts.order_facts WHERE revenue = 0", 80),
        (
            "lines that repeat another",
            "SELECT COUNT(*) - (SELECT COUNT(*) FROM (SELECT DISTINCT user_id, order_date, quantity, revenue FROM marts.order_facts)) FROM marts.order_facts",
            255,
        ),
    ],
)
def test_all_purchases_give_the_known_totals(all_purchases: duckdb.DuckDBPyConnection, what: str, query: str, published: int | Decimal | date) -> None:
    assert all_purchases.execute(query).fetchall() == [(published,)], what


def test_frequency_recency_and_age_of_the_sample_are_the_published_ones(built_empty: Path, tmp_path: Path) -> None:
    """The summary counts weeks, rounded to two decimals; the sample's last purchase up to its end is on the last day itself."""
    purchases = _sample_up_to_the_end_of_the_summary()
    assert max(day for _, day, _, _ in purchases) == END_OF_SUMMARY  # so the model's observation ends where the summary's does
    with duckdb.connect(str(_built_from(purchases, built_empty, tmp_path / "home")), read_only=True) as connection:
        found = connection.execute("SELECT user_id, frequency, recency, t FROM marts.customer_lifetime_value ORDER BY user_id").fetchall()
    with (DATASETS / "cdnow_customers_summary.csv").open(encoding="ascii") as file:
        published = [(int(row["ID"]), int(row["frequency"]), Decimal(row["recency"]), Decimal(row["T"])) for row in csv.DictReader(file)]
    assert len(published) == 2_357
    assert [(customer, frequency, _weeks(recency), _weeks(age)) for customer, frequency, recency, age in found] == published


def _weeks(days: int) -> Decimal:
    return (Decimal(days) / 7).quantize(Decimal("0.01"), ROUND_HALF_UP)
