"""MRR, its movements and retention are what a diary in plain Python says of random worlds that the warehouse only saw now and then."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from conftest import ask
from integration.subscription_world import World

from macros import money
from pipelines import load, source, stripe, stripe_rows
from transform.build import build
from warehouse import ledger

START = datetime(2025, 9, 20, 8, tzinfo=UTC)
MONTHS = "SELECT subscription_id, customer_id, currency, month, mrr FROM marts.mrr_by_subscription_month"
PARTS = "start_mrr, new_mrr, expansion_mrr, contraction_mrr, churn_mrr, reactivation_mrr, end_mrr"
MOVEMENTS = f"SELECT customer_id, currency, month, {PARTS} FROM marts.mrr_movements"
RETENTION = "opening_customers, churned_customers, opening_mrr, expansion_mrr, contraction_mrr, churn_mrr"
PARTS_SEEN = range(len(PARTS.split(", ")))

Seen = Callable[[World], None]


@pytest.fixture
def see(setting: Callable[[str, str | None], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Seen:
    """Load a world as it is now."""
    folder = tmp_path / "declared"
    folder.mkdir()
    (folder / "stripe.yaml").write_text((source.FOLDER / "stripe.yaml").read_text().replace("requests_per_second: 20 ", "requests_per_second: 2000 "))
    monkeypatch.setattr(stripe, "FOLDER", folder)

    def load_now(world: World) -> None:
        setting("SOURCES__STRIPE__STRIPE_SECRET_KEY", world.account.secret_key)
        setting("SOURCES__STRIPE__BASE_URL", world.account.url)
        setting("WAREHOUSE_NOW", (world.now + timedelta(minutes=1)).isoformat())
        with ledger.run("load stripe") as run:
            load.load("stripe", run)

    return load_now


def months() -> dict[Any, Decimal]:
    return {tuple(row[:4]): row[4] for row in ask(MONTHS)}


def assert_true(world: World) -> None:
    """The marts say what the diary says, to the millionth."""
    assert months() == world.months()
    assert {row[:3]: row[3:] for row in ask(MOVEMENTS)} == world.movements()
    truth = world.retention()
    assert {row[:2]: row[2:] for row in ask(f"SELECT month, currency, {RETENTION} FROM marts.subscription_retention")} == truth
    rates = ask("SELECT month, currency, gross_revenue_retention, net_revenue_retention FROM marts.subscription_retention")
    for month, currency, gross, net in rates:
        _, _, opening, expanded, contracted, churned = truth[month, currency]
        kept = opening - contracted - churned
        assert (gross, net) == (tuple(round(part / opening, 6) for part in (kept, kept + expanded)) if opening else (None, None))
    present = ask("SELECT subscription_id, mrr, is_active FROM marts.subscription_facts")
    assert {key: worth for key, worth, _ in present} == {life.key: life.steps[-1][1] for life in world.lives if life.is_live}
    assert all(is_active == (worth > 0) for _, worth, is_active in present)


def live_on_invoices(world: World, days: int) -> None:
    """Subscriptions that change with their periods only, each period on an invoice; the rest happens unseen by any load."""
    for _ in range(8):
        life = world.subscribe("month")
        life.next_bill = life.trial_end or world.now
        if life.trial_end:
            world.bill(life, life.trial_end)
        world.now += timedelta(hours=5)
    end = world.now + timedelta(days=days)
    while world.now < end:
        life = min((life for life in world.lives if not life.is_over), key=lambda one: one.next_bill or end)
        world.now = max(world.now, life.next_bill or end)
        if life.status == "trialing":
            world.change(life, status="active")
        elif world.random.random() < 0.1:
            world.change(life, status="canceled")
            continue
        elif world.random.random() < 0.6:
            world.requantify(life)
        life.next_bill = world.now + timedelta(days=30 * max(item["price"]["recurring"]["interval_count"] for item in life.items))
        world.bill(life, life.next_bill)


@pytest.mark.usefixtures("built")
@pytest.mark.parametrize("seed", [14])
def test_a_world_that_was_seen_late_and_then_now_and_again_has_the_mrr_of_its_diary_and_keeps_it(see: Seen, seed: int) -> None:
    world = World(seed, START)
    with world.account:
        live_on_invoices(world, days=100)
        see(world)
        build()
        assert_true(world)
        assert {"invoice", "event", "end"} <= {basis for (basis,) in ask("SELECT DISTINCT basis FROM marts.subscription_history")}
        before = {key: worth for key, worth in months().items() if (key[3].year, key[3].month) < (world.now.year, world.now.month)}
        for days in (29, 28):
            world.live_until(world.now + timedelta(days=days))
            see(world)
        build()
        assert_true(world)
        assert before.items() <= months().items(), "what happened later changed the months that were over"
    assert {row for row in PARTS_SEEN if not any(moved[row] for moved in world.movements().values())} == set(), "nothing was tried"


def test_currencies_have_the_decimals_that_loading_gives_them() -> None:
    assert set(re.findall("[A-Z]{3}", money._ZERO_DECIMALS)) == {code.upper() for code in stripe_rows._ZERO_DECIMALS}
    assert set(re.findall("[A-Z]{3}", money._THREE_DECIMALS)) == {code.upper() for code in stripe_rows._THREE_DECIMALS}
