"""A small company seed by seed: raw tables as the loads of four months left them, the last ten minutes ago."""

from datetime import timedelta

import duckdb
import numpy as np

from trials.home import NOW, RAW, build

DAYS = 120
"""Whole days of history before today."""
YESTERDAY = (NOW - timedelta(days=1)).date()
BASES = (150, 300, 600)
"""Orders a day of the seeds, in turn."""
SHARES = {"EUR": 0.6, "USD": 0.4}


def opened() -> duckdb.DuckDBPyConnection:
    """An empty warehouse in memory, called as the models call it."""
    connection = duckdb.connect(config={"threads": 2})
    connection.execute("SET TimeZone = 'UTC'; SET enable_progress_bar = false; ATTACH ':memory:' AS warehouse; USE warehouse")
    return connection


def raw_tables(connection: duckdb.DuckDBPyConnection, seed: int) -> None:
    """The raw tables of production and Stripe, of a seed."""
    import pyarrow

    from transform.raw_tables import external_models

    for name, model in external_models().items():
        if name in RAW:
            columns = ", ".join(f"{column} {kind}" for column, kind in model.columns.items())
            connection.execute(f"CREATE SCHEMA IF NOT EXISTS {name.split('.')[0]}; CREATE TABLE {name} ({columns})")
    random, begin = np.random.default_rng([seed, 90]), NOW.date() - timedelta(days=DAYS)
    weekday = random.uniform(0.9, 1.1, 7) * np.array([1, 1, 1, 1, 1, random.uniform(0.6, 1), random.uniform(0.6, 1)])
    days = np.arange(DAYS + 1)
    level = (
        BASES[seed % len(BASES)]
        * (1 + random.uniform(-0.1, 0.4)) ** (days / 365)
        * weekday[(begin.weekday() + days) % 7]
        * np.exp(random.normal(0, 0.04, DAYS + 1))
    )
    level[[day for day in days if _is_christmas(begin + timedelta(days=int(day)))]] *= 0.5
    level[-1] *= NOW.hour / 24
    counts = random.poisson(level)
    rows, users = int(counts.sum()), int(counts.sum() // 8)
    seconds = random.integers(0, 86_400, rows)
    of_day = np.repeat(days, counts)
    seconds = np.where(of_day == DAYS, seconds * NOW.hour // 24, seconds)
    drawn = {
        "day": of_day, "second": seconds, "chance": random.random(rows), "amount": random.lognormal(3, 0.6, rows),
        "user_id": random.integers(1, users + 1, rows), "pays": random.random(rows) < 0.5,
    }  # fmt: skip
    connection.register("drawn", pyarrow.table(drawn))
    last = (NOW - timedelta(minutes=10)).isoformat()
    loaded = f"least(sold_at + INTERVAL 1 HOUR, TIMESTAMPTZ '{last}')"
    connection.execute(
        "CREATE TEMP TABLE sold AS SELECT row_number() OVER (ORDER BY day, second) AS id, user_id, pays, chance, "
        f"greatest(amount, 1)::DECIMAL(12, 2) AS revenue, CASE WHEN hash(chance) % 10 < 6 THEN 'EUR' ELSE 'USD' END AS currency, "
        f"(TIMESTAMP '{begin}' + INTERVAL (day) DAY + INTERVAL (second) SECOND) AT TIME ZONE 'UTC' AS sold_at FROM drawn"
    )
    connection.execute(
        "INSERT INTO raw_postgres.users BY NAME SELECT i AS id, sha256(i::VARCHAR) AS email_hash, i % 100 > 0 AS is_email_valid, '***12' AS phone_masked, "
        "'***' AS ssn_redacted, 20 + i % 60 AS age, ['DE', 'FR', 'US'][1 + i % 3] AS country, ['consumer', 'small_business'][1 + i % 2] AS segment, "
        f"TIMESTAMPTZ '{begin} 00:00:00+00' - INTERVAL 30 DAY AS created_at, created_at AS updated_at, TIMESTAMPTZ '{begin} 00:00:00+00' AS _loaded_at, "
        f"_loaded_at AS _settled_at, 'k1' AS _privacy_key_id FROM range(1, {users + 1}) AS rows(i)"
    )
    connection.execute(
        "INSERT INTO raw_postgres.orders BY NAME SELECT id, user_id, sold_at AS ordered_at, 1 AS quantity, revenue, currency, 'paid' AS status, "
        f"sold_at AS updated_at, {loaded} AS _loaded_at, _loaded_at AS _settled_at FROM sold"
    )
    stamps = f"sold_at AS created_at, true AS livemode, false AS is_deleted, {loaded} AS _loaded_at, _loaded_at AS _settled_at"
    minor = "(revenue * 100)::BIGINT"
    connection.execute(
        f"INSERT INTO raw_stripe.charges BY NAME SELECT 'ch_' || id AS id, {stamps}, 'cus_' || user_id AS customer_id, 'k1' AS _privacy_key_id, "
        f"CASE WHEN fails THEN NULL ELSE 'txn_' || id END AS balance_transaction_id, {minor} AS amount, revenue AS amount_decimal, "
        f"CASE WHEN fails THEN 0 ELSE {minor} END AS amount_captured, CASE WHEN fails THEN 0 ELSE revenue END AS amount_captured_decimal, "
        f"CASE WHEN back THEN {minor} ELSE 0 END AS amount_refunded, CASE WHEN back THEN revenue ELSE 0 END AS amount_refunded_decimal, "
        "lower(currency) AS currency, CASE WHEN fails THEN 'failed' ELSE 'succeeded' END AS status, "
        "NOT fails AS paid, NOT fails AS captured, back AS refunded, false AS disputed "
        "FROM (SELECT *, chance < 0.05 AS fails, chance > 0.97 AS back FROM sold WHERE pays)"
    )
    connection.execute(
        f"INSERT INTO raw_stripe.refunds BY NAME SELECT 're_' || id AS id, {stamps}, 'ch_' || id AS charge_id, 'txr_' || id AS balance_transaction_id, "
        f"{minor} AS amount, revenue AS amount_decimal, lower(currency) AS currency, 'succeeded' AS status FROM sold WHERE pays AND chance > 0.97"
    )
    for prefix, sign, category, which, of in (("txn_", "", "charge", "chance >= 0.05", "ch_"), ("txr_", "-", "refund", "chance > 0.97", "re_")):
        fee = f"({minor} // 34 + 30)" if category == "charge" else "0"
        connection.execute(
            f"INSERT INTO raw_stripe.balance_transactions BY NAME SELECT '{prefix}' || id AS id, {stamps}, {sign}{minor} AS amount, "
            f"{sign}revenue AS amount_decimal, {fee} AS fee, ({fee} * 0.01)::DECIMAL(38, 3) AS fee_decimal, amount - fee AS net, amount_decimal - fee_decimal "
            f"AS net_decimal, lower(currency) AS currency, '{of}' || id AS source_id, 'available' AS status, '{category}' AS type, "
            f"'{category}' AS reporting_category "
            f"FROM sold WHERE pays AND {which}"
        )
    connection.execute("DROP TABLE temp.sold")
    connection.unregister("drawn")


def shop(seed: int) -> duckdb.DuckDBPyConnection:
    """A warehouse whose models are built of a seed's raw tables; every audit passes."""
    connection = opened()
    raw_tables(connection, seed)
    for schema in ("staging", "marts", "ops"):
        connection.execute(f"CREATE SCHEMA {schema}")
    connection.execute(
        "CREATE TABLE ops.schema_changes (source VARCHAR, source_table VARCHAR, raw_table VARCHAR, column_name VARCHAR, change VARCHAR, before VARCHAR, "
        "after VARCHAR, kept_as VARCHAR, detected_at TIMESTAMPTZ)"
    )
    wrong = build(connection)
    if wrong:
        raise AssertionError(f"a clean shop must pass its audits: {wrong}")
    return connection


def _is_christmas(day: object) -> bool:
    month, number = day.month, day.day  # type: ignore[attr-defined]
    return (month == 12 and number >= 23) or (month == 1 and number == 1)
