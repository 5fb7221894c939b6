"""A home with a month behind it, for what looks at the report: many runs, marts of two currencies, incidents, a backup; in seconds."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from monitoring import book
from monitoring.alerts import settle
from monitoring.findings import Finding
from monitoring.rules import read_rules, routed
from serving.publish import publish
from warehouse import ledger, storage
from warehouse.settings import settings

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
HOSTILE = "<script>alert(1)</script><img src=http://evil.example/x onerror=alert(2)>\" onload='x"
PERSON = "jane.doe@example.org"
SOURCES = ("postgres", "stripe")


@dataclass
class Ran:
    """One run to put into the ledger."""

    at: datetime
    status: str = "succeeded"
    error: str | None = None
    failed: str = ""


def well(setting: Callable[[str, str | None], None]) -> None:
    """Everything is well: a run an hour for a month, fresh sources, marts published, a backup and a drill."""
    setting("WAREHOUSE_NOW", NOW.isoformat())
    write_runs([Ran(NOW - timedelta(hours=back, minutes=10)) for back in range(24 * 30, -1, -1)])
    make_marts()


def ill(setting: Callable[[str, str | None], None]) -> None:
    """Stripe fails since nine hours, its tables are stale, a null rate is broken, and one finding was written by an attacker."""
    setting("WAREHOUSE_NOW", NOW.isoformat())
    failed = f"stripe: 401 for {PERSON} at https://user:hunter2@api.example.org"
    hours = range(24 * 30, -1, -1)
    write_runs([Ran(NOW - timedelta(hours=back, minutes=10), *(("failed", failed, "stripe") if back < 9 else ())) for back in hours])
    make_marts(drop=True)
    early = NOW - timedelta(days=3)
    book.record(routed([_finding("invalid", "marts.user_dim", "country", early)]), origin="check", now=early)
    settle(read_rules(), settings().alerts, early)
    now_wrong = [
        Finding("run failed", "raw_stripe", None, "error", "`warehouse run` failed: stripe: 401", "every step ends well", NOW - timedelta(hours=8), ""),
        *(_finding("freshness", f"raw_stripe.{table}", None, NOW - timedelta(hours=2)) for table in ("charges", "refunds", "disputes")),
        _finding("missing", "marts.order_facts", "user_id", NOW - timedelta(hours=1)),
        _finding("evaluation", "marts.daily_revenue", None, NOW),
        Finding("invalid", "marts.customer_360", HOSTILE[:20], "error", f"{HOSTILE} {PERSON}", HOSTILE, NOW, f"SELECT '{HOSTILE}'"),
        Finding("unusual volume (EUR)", "marts.order_facts", None, "warning", "volume of EUR: 3", "about 30", NOW, ""),
    ]
    book.record(routed(now_wrong), origin="check", now=NOW)
    settle(read_rules(), settings().alerts, NOW)


def write_runs(runs: list[Ran]) -> None:
    """Put runs with their steps into the ledger, in one transaction."""
    with ledger.opened() as kept:
        for number, run in enumerate(runs):
            identity, end = f"{number:032x}", run.at + timedelta(seconds=100 + number % 37)
            kept.execute(
                "INSERT INTO runs (run_id, command, started_at, ended_at, seconds, status, error, versions, pid)"
                " VALUES (?, 'run --due', ?, ?, ?, ?, ?, '{}', 1)",
                (identity, book.text(run.at), book.text(end), 100 + number % 37, run.status, run.error),
            )
            steps = [("load", source, "failed" if source == run.failed else "succeeded", 100 + number % 7) for source in SOURCES]
            steps += [] if run.failed else [("transform", "", "succeeded", None), ("check", "", "succeeded", 0), ("publish", "", "succeeded", 5)]
            steps += [("backup", "warehouse", "succeeded", None), ("drill", "warehouse", "succeeded", None)] if number == len(runs) - 2 else []
            for position, (step, item, status, rows) in enumerate(steps):
                detail = {"publish": {"rows": {"order_facts": 1000 + number, "daily_revenue": 60 + number // 24}}}.get(step)
                if step == "load":
                    detail = {"tables": {"orders" if item == "postgres" else "charges": {"rows_in": rows, "rows_out": rows}}}
                kept.execute(
                    "INSERT INTO run_steps (run_id, position, step, item, started_at, ended_at, seconds, status, rows_in, rows_out, detail)"
                    " VALUES (?, ?, ?, ?, ?, ?, 10, ?, ?, ?, ?)",
                    (identity, position, step, item, book.text(run.at), book.text(end), status, rows, rows, json.dumps(detail) if detail else None),
                )


def make_marts(*, drop: bool = False, rows: int = 40) -> Path:
    """Four months of orders in two currencies, quieter on Sundays; with `drop` the last day of one of them nearly stops."""
    with storage.open_warehouse() as connection:
        connection.execute("CREATE SCHEMA IF NOT EXISTS marts")
        connection.execute(
            """CREATE OR REPLACE TABLE marts.order_facts (order_id BIGINT, user_id BIGINT, order_date DATE, currency VARCHAR, revenue DECIMAL(18, 2))"""
        )
        fewer = "CASE WHEN currency = 'EUR' AND day = DATE '2026-02-28' THEN 3 ELSE usual END" if drop else "usual"
        connection.execute(
            f"""INSERT INTO marts.order_facts
            SELECT row_number() OVER (), hash(day, one) % 500, day, currency, 20 + hash(one, day, currency) % 40
            FROM (
              SELECT day::DATE AS day, currency, unnest(range(({fewer})::INT)) AS one FROM (
                SELECT *, {rows} * (CASE WHEN isodow(day) = 7 THEN 0.5 ELSE 1 END) * (0.9 + (hash(day, currency) % 20) / 100) AS usual
                FROM generate_series(DATE '2025-11-01', DATE '2026-02-28', INTERVAL 1 DAY) AS days(day), (VALUES ('EUR'), ('USD')) AS money(currency)
              )
            )"""
        )
    published = publish()
    assert published.read_copy is not None
    return published.read_copy


def _finding(check: str, table: str, column: str | None, since: datetime) -> Finding:
    return Finding(check, table, column, "error", "60 of 1,000 rows", "none", since, f"SELECT * FROM {table}", 0.06)
