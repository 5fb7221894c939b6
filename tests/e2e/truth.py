"""What production itself answers, and how a home differs from it: every row of the raw tables and of the marts."""

import hashlib
import hmac
from pathlib import Path
from typing import Any

import duckdb
from conftest import KEY, Company

Rows = list[tuple[Any, ...]]

ORDERS = "SELECT id, user_id, ordered_at AT TIME ZONE 'UTC', quantity, revenue, currency, status, updated_at AT TIME ZONE 'UTC' FROM shop.orders ORDER BY id"
# Instants by their microseconds: a plain DuckDB has no time zones without an extension.
RAW_ORDERS = """
SELECT id, user_id, make_timestamp(epoch_us(ordered_at)), quantity, revenue, currency, status, make_timestamp(epoch_us(updated_at))
FROM raw_postgres.orders ORDER BY id
"""
RAW_USERS = """
SELECT id, email_hash, is_email_valid, phone_masked, ssn_redacted, age, country, segment,
  make_timestamp(epoch_us(created_at)), make_timestamp(epoch_us(updated_at))
FROM raw_postgres.users ORDER BY id
"""
ORDER_FACTS = """
SELECT id, user_id, ordered_at AT TIME ZONE 'UTC', (ordered_at AT TIME ZONE 'UTC')::date, quantity, revenue, currency, status, updated_at AT TIME ZONE 'UTC'
FROM shop.orders ORDER BY id
"""
DAILY_REVENUE = """
SELECT (ordered_at AT TIME ZONE 'UTC')::date, currency, count(*), sum(quantity)::bigint, count(DISTINCT user_id), sum(revenue)
FROM shop.orders GROUP BY 1, 2 ORDER BY 1, 2
"""
CUSTOMER_LIFETIME_VALUE = """
WITH bought AS (SELECT *, (ordered_at AT TIME ZONE 'UTC')::date AS day, max((ordered_at AT TIME ZONE 'UTC')::date) OVER () AS last_day FROM shop.orders)
SELECT user_id, currency, sum(revenue), count(*), round(sum(revenue) / count(*), 2), min(day), max(day), count(DISTINCT day) - 1, max(day) - min(day),
  max(last_day) - min(day)
FROM bought GROUP BY 1, 2 ORDER BY 1, 2
"""
COHORT_RETENTION = """
WITH active AS (SELECT DISTINCT user_id, date_trunc('month', ordered_at AT TIME ZONE 'UTC')::date AS month FROM shop.orders),
cohorts AS (SELECT user_id, min(month) AS cohort FROM active GROUP BY 1),
sizes AS (SELECT cohort, count(*) AS size FROM cohorts GROUP BY 1),
months AS (SELECT generate_series((SELECT min(month) FROM active), (SELECT max(month) FROM active), interval '1 month')::date AS month),
counted AS (SELECT cohort, month, count(*) AS customers FROM active JOIN cohorts USING (user_id) GROUP BY 1, 2)
SELECT cohort, ((extract(year FROM month) - extract(year FROM cohort)) * 12 + extract(month FROM month) - extract(month FROM cohort))::int,
  size, coalesce(customers, 0), round(coalesce(customers, 0)::numeric / size, 6)
FROM sizes JOIN months ON month >= cohort LEFT JOIN counted USING (cohort, month) ORDER BY 1, 2
"""
USERS = """
SELECT id, lower(trim(email)), right(phone, 2), age, country, segment, created_at AT TIME ZONE 'UTC', updated_at AT TIME ZONE 'UTC'
FROM shop.users ORDER BY id
"""

PUBLISHED = {
    "order_facts": "order_id, user_id, ordered_at, order_date, quantity, revenue, currency, status, updated_at",
    "daily_revenue": "date, currency, orders, units, customers, revenue",
    "customer_lifetime_value": ("user_id, currency, revenue, orders, average_order_value, first_order_date, last_order_date, frequency, recency, t"),
    "cohort_retention": "cohort_month, months_since_first, cohort_size, active_customers, retention_rate",
    "user_dim": "user_id, email_hash, is_email_valid, signup_date, country, segment, age",
    # Its current versions; the earlier ones have no counterpart in production.
    "user_dim_history": "user_id, email_hash, is_email_valid, signup_date, country, segment, age",
}


def production(company: Company) -> dict[str, Rows]:
    """What each raw table and mart must hold, as production's own database answers; email is hashed here, by other code than the warehouse's."""
    users = company.rows(USERS)
    hashed = [hmac.new(KEY.encode(), email.encode(), hashlib.sha256).hexdigest() for _, email, *_ in users]
    dimension = [
        (key, digest, True, created.date(), country, segment, age) for (key, _, _, age, country, segment, created, _), digest in zip(users, hashed, strict=True)
    ]
    return {
        "raw_postgres.orders": company.rows(ORDERS),
        "raw_postgres.users": [
            (key, digest, True, f"********{phone}", "[redacted]", age, country, segment, created, updated)
            for (key, _, phone, age, country, segment, created, updated), digest in zip(users, hashed, strict=True)
        ],
        "marts.order_facts": company.rows(ORDER_FACTS),
        "marts.daily_revenue": company.rows(DAILY_REVENUE),
        "marts.customer_lifetime_value": company.rows(CUSTOMER_LIFETIME_VALUE),
        "marts.cohort_retention": company.rows(COHORT_RETENTION),
        "marts.user_dim": dimension,
        "marts.user_dim_history": dimension,
    }


def differences(home: Path, expected: dict[str, Rows]) -> list[str]:
    """How the raw tables and the published marts of a home differ from `expected`, one line a table; empty when they do not."""
    with duckdb.connect(str(home / "warehouse.duckdb"), read_only=True) as connection:
        held = {
            "raw_postgres.orders": connection.execute(RAW_ORDERS).fetchall(),
            "raw_postgres.users": connection.execute(RAW_USERS).fetchall(),
        }
    held |= {f"marts.{mart}": rows for mart, rows in published(home).items()}
    return [line for table, rows in expected.items() for line in _difference(table, rows, held[table])]


def published(home: Path) -> dict[str, Rows]:
    """The published marts, as any DuckDB client reads them."""
    with reading(home) as connection:
        return {mart: connection.execute(_query(mart, columns)).fetchall() for mart, columns in PUBLISHED.items()}


def reading(home: Path) -> duckdb.DuckDBPyConnection:
    """A plain DuckDB connection to the published copy, without any of the project's code; close it."""
    return duckdb.connect(str(home / "published" / "warehouse.duckdb"), read_only=True)


def fingerprint(home: Path) -> tuple[Any, ...]:
    """What readers see, in a few numbers that move with every edit; the parts that must agree with each other are asserted."""
    with reading(home) as connection:
        totals = [
            connection.execute(query).fetchall()[0]
            for query in (
                "SELECT count(*), sum(revenue) FROM marts.order_facts",
                "SELECT sum(orders)::BIGINT, sum(revenue) FROM marts.daily_revenue",
                "SELECT sum(orders)::BIGINT, sum(revenue) FROM marts.customer_lifetime_value",
            )
        ]
        assert totals[0] == totals[1] == totals[2], totals
        users = connection.execute("SELECT count(*), bit_xor(hash(user_id, country, segment, age)) FROM marts.user_dim").fetchall()[0]
        versions = connection.execute(
            "SELECT count(*), bit_xor(hash(user_id, country, segment, age)) FROM marts.user_dim_history WHERE valid_to IS NULL"
        ).fetchall()[0]
        assert users == versions
        orders = connection.execute("SELECT bit_xor(hash(order_id, revenue, status, updated_at)) FROM marts.order_facts").fetchall()[0]
        return (*totals[0], *users, *orders)


def _query(mart: str, columns: str) -> str:
    current = "WHERE valid_to IS NULL" if mart == "user_dim_history" else ""
    keys = 2 if mart in ("daily_revenue", "customer_lifetime_value", "cohort_retention") else 1
    return f"SELECT {columns} FROM marts.{mart} {current} ORDER BY {', '.join(str(number + 1) for number in range(keys))}"


def _difference(table: str, expected: Rows, held: Rows) -> list[str]:
    if expected == held:
        return []
    lost, strange = set(expected) - set(held), set(held) - set(expected)
    keys = sorted({row[0] for row in lost | strange})[:5]
    return [f"{table}: {len(expected)} rows expected, {len(held)} held, {len(lost)} lost or stale, {len(strange)} strange, first keys {keys}"]
