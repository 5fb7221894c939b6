"""Revenue, recomputed from what happened: the marts of random worlds equal it to the cent, after each load and over all of them."""

import os
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pytest
from conftest import ask
from integration.revenue_world import DIGITS, World, money

from transform.build import build
from transform.raw_tables import external_models

FIGURES = ("payments", "refunds", "disputes", "fees", "net")
MOVED = (
    "charges", "charge_failures", "refunds", "disputes", "adjustments", "transfers", "top_ups", "reserves", "financing", "issuing", "payouts",
    "payouts_returned", "other", "fees", "balance_change",
)  # fmt: skip
COUNTED = ("movements", "other_movements", "movements_without_object")
DIFFERENCES = ("difference", "payouts_difference", "running_difference", "running_payouts_difference")
WORLDS = int(os.environ.get("WAREHOUSE_WORLDS", "1"))
"""How many worlds are tried; each costs half a minute."""
ORDERS = [(date(2026, 1, 3), "USD", Decimal("12.00")), (date(2026, 1, 3), "EUR", Decimal("7.50")), (date(2025, 12, 30), "EUR", Decimal("1.00"))]


def _raw_tables(connection: duckdb.DuckDBPyConnection) -> None:
    """Every declared raw table, and a few orders of production."""
    for name, model in external_models().items():
        connection.execute(f"CREATE SCHEMA IF NOT EXISTS {name.split('.')[0]}")
        connection.execute(f"CREATE TABLE {name} ({', '.join(f'{column} {kind}' for column, kind in model.columns.items())})")
    at = "'2026-01-05 00:00:00+00'::TIMESTAMPTZ AS _loaded_at"
    connection.execute(f"INSERT INTO raw_postgres.users BY NAME SELECT 1 AS id, '2025-12-01 00:00:00+00'::TIMESTAMPTZ AS created_at, {at}")
    for number, (day, currency, revenue) in enumerate(ORDERS):
        connection.execute(
            "INSERT INTO raw_postgres.orders BY NAME SELECT ? AS id, 1 AS user_id, (? || ' 12:00:00+00')::TIMESTAMPTZ AS ordered_at, 1 AS quantity, "
            f"? AS revenue, ? AS currency, {at}",
            [number, day.isoformat(), revenue, currency],
        )


def _by_day(query: str) -> dict[tuple[date, str], tuple[Any, ...]]:
    return {(row[0], row[1]): row[2:] for row in ask(query)}


def _days(world: World) -> dict[tuple[date, str], tuple[Any, ...]]:
    expected: dict[tuple[date, str], tuple[Any, ...]] = {
        (day, currency.upper()): (0, Decimal(0), *(money(figures[name], currency) for name in FIGURES)) for (day, currency), figures in world.days().items()
    }
    for day, currency, revenue in ORDERS:
        held = expected.get((day, currency), (0, Decimal(0), *[Decimal(0)] * len(FIGURES)))
        expected[day, currency] = (held[0] + 1, held[1] + revenue, *held[2:])
    return expected


def _assert_is_the_truth(world: World) -> None:
    days = _days(world)
    held = _by_day(f"SELECT date, currency, orders, revenue, {', '.join(FIGURES)} FROM marts.daily_revenue")
    # A day on which everything cancelled out may have a row of zeros.
    assert {key: row for key, row in held.items() if any(row)} == days

    balances = world.balances()
    reconciled = _by_day(f"SELECT date, currency, {', '.join((*MOVED, *COUNTED, *DIFFERENCES))}, balance FROM marts.balance_reconciliation")
    running: dict[str, int] = {}
    expected = {}
    for (day, currency), figures in sorted(balances.items()):
        running[currency] = running.get(currency, 0) + figures["balance_change"]
        amounts = (*(money(figures[name], currency) for name in MOVED), *(figures[name] for name in COUNTED))
        expected[day, currency.upper()] = (*amounts, 0, 0, 0, 0, money(running[currency], currency))
    assert reconciled == expected

    disputes = {
        row["id"]: (row["status"], *(money(row[name], "usd") for name in ("withdrawn", "reinstated", "fee_taken", "fee_reversed")))
        for row in world.objects["disputes"].values()
    }
    assert {
        row[0]: row[1:] for row in ask("SELECT dispute_id, status, settled_withdrawn, settled_reinstated, fee, fee_reversed FROM marts.dispute_facts")
    } == disputes
    refunds = {
        row["id"]: (row["status"], money(-row["settled"] if row["status"] != "failed" else 0, "usd") if "settled" in row else None,
                    world.objects["charges"][row["charge_id"]]["customer_id"])
        for row in world.objects["refunds"].values()
    }  # fmt: skip
    assert {row[0]: row[1:] for row in ask("SELECT refund_id, status, settled_amount, customer_id FROM marts.refund_facts")} == refunds

    reported = {row[0]: row[1:] for row in ask("SELECT date, currencies_without_rate, revenue, payments, net FROM marts.daily_revenue_reporting")}
    for day in {day for day, _ in held}:
        rows = {currency: row for (at, currency), row in held.items() if at == day}
        foreign = [row for currency, row in rows.items() if currency != "USD"]
        known = rows.get("USD", (0,) * 7)
        wanted = tuple(None if any(row[place] for row in foreign) else known[place] for place in (1, 2, 6))
        assert reported[day] == (len(foreign), *wanted), day


@pytest.mark.parametrize("seed", range(8_128, 8_128 + WORLDS))
def test_the_marts_of_a_random_world_equal_what_happened_in_it(seed: int, home: Path, setting: Callable[[str, str | None], None]) -> None:
    world = World(seed)
    home.mkdir()
    # The second load brings refunds, disputes and failures of what the first one brought, months later.
    for days, sales in ((25, 8), (150, 0)):
        waiting = [row for row in world.objects["disputes"].values() if row["status"] == "won" and not row["reinstated"]]
        world.live(days, sales)
        with duckdb.connect(str(home / "warehouse.duckdb")) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            if not connection.execute("SELECT 1 FROM duckdb_schemas() WHERE schema_name = 'raw_stripe'").fetchall():
                _raw_tables(connection)
            world.load(connection)
        setting("WAREHOUSE_NOW", world.now.isoformat())
        build()
        _assert_is_the_truth(world)
    assert any(row["reinstated"] for row in waiting), "no dispute whose money came back while nothing else of it changed: take another seed"
    met = {row["currency"] for row in world.objects["refunds"].values()} | {row["status"] for row in world.objects["disputes"].values()}
    assert met >= {*DIGITS, "won", "lost", "warning_needs_response"}
    assert {row["status"] for row in world.objects["payouts"].values()} == {"paid", "failed", "canceled"}
