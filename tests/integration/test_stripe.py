"""Loading Stripe from its stand-in: every change, every deletion, to the cent."""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import ask, call

from demo.stand_ins.served import Fault
from demo.stand_ins.stripe import Asked, StripeStandIn
from pipelines import load, rebuild, source, stripe_client
from pipelines import stripe as module
from warehouse import ledger, storage
from warehouse.errors import UsageError, WarehouseError

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
TABLES = list(module.declaration().tables)


class World:
    """An account, its warehouse, and one clock for both."""

    def __init__(self, setting: Callable[[str, str | None], None], account: StripeStandIn) -> None:
        self._setting, self.account = setting, account
        self.at(NOW)

    def at(self, now: datetime) -> None:
        self.now = now
        self._setting("WAREHOUSE_NOW", now.isoformat())

    def later(self, **by: float) -> None:
        self.at(self.now + timedelta(**by))

    def load(self) -> dict[str, load.Loaded]:
        with ledger.run("load stripe") as run:
            return {one.table: one for one in load.load("stripe", run)}


def everything() -> dict[str, list[tuple[Any, ...]]]:
    return {name: ask(f"SELECT * EXCLUDE (_loaded_at, _settled_at, _deleted_at) FROM raw_stripe.{name} ORDER BY id") for name in TABLES}


@pytest.fixture
def world(setting: Callable[[str, str | None], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[World]:
    folder = tmp_path / "declared"
    folder.mkdir()
    text = (source.FOLDER / "stripe.yaml").read_text().replace("requests_per_second: 20 ", "requests_per_second: 2000 ").replace("timeout: 30s", "timeout: 1s")
    (folder / "stripe.yaml").write_text(text)
    monkeypatch.setattr(module, "FOLDER", folder)
    with StripeStandIn() as account:
        setting("SOURCES__STRIPE__STRIPE_SECRET_KEY", account.secret_key)
        setting("SOURCES__STRIPE__BASE_URL", account.url)
        yield World(setting, account)


def test_an_invoice_of_45_days_ago_that_is_paid_today_is_paid(world: World) -> None:
    world.at(NOW - timedelta(days=45))
    invoice = world.account.create("invoices", status="open", total=1500)["id"]
    for day in (45, 25, 1):
        world.at(NOW - timedelta(days=day))
        world.load()
    world.at(NOW)
    world.account.update(invoice, announce="paid", status="paid")
    world.load()
    assert ask("SELECT status, total_decimal FROM raw_stripe.invoices") == [("paid", Decimal("15.000"))]


def test_many_events_on_one_object_are_one_request_and_nothing_new_moves_no_row(world: World) -> None:
    invoice = world.account.create("invoices")["id"]
    world.load()
    before = world.account.requests_of(f"/v1/invoices/{invoice}")
    world.later(hours=2)
    for number in range(40):
        world.account.update(invoice, total=number)
    world.load()
    assert world.account.requests_of(f"/v1/invoices/{invoice}") == before + 1
    assert ask("SELECT count(*) FROM raw_stripe.events") == [(41,)]
    world.later(hours=2)
    assert sum(one.rows_written for one in world.load().values()) == 0


def test_a_cursor_31_days_old_is_a_finding_and_everything_is_listed_anew(world: World) -> None:
    customer, kept = world.account.create("customers", name="A")["id"], world.account.create("products", name="Old")["id"]
    draft = world.account.create("invoices")["id"]
    world.load()
    world.account.delete(customer)
    world.account.delete(draft)
    world.account.update(kept, name="New")
    world.later(days=31)
    world.account.forget_events()
    refused = [finding for one in world.load().values() for finding in one.findings]
    assert len(refused) == 1
    assert "listed anew" in refused[0]
    assert ask("SELECT name FROM raw_stripe.products") == [("New",)]
    assert ask("SELECT is_deleted FROM raw_stripe.customers UNION ALL SELECT is_deleted FROM raw_stripe.invoices") == [(True,), (True,)]


def test_an_account_without_any_event_is_not_listed_at_each_load_and_its_gap_is_noticed_all_the_same(world: World) -> None:
    world.account.create("customers", announce=None)
    world.load()
    missed = world.account.create("products", announce=None)["id"]
    world.later(days=31)
    assert len([finding for one in world.load().values() for finding in one.findings]) == 1
    assert ask("SELECT id FROM raw_stripe.products") == [(missed,)]
    for has_event in (False, True):
        world.account.asked.clear()
        world.later(days=20)
        if has_event:
            world.account.create("prices")
        assert not any(one.findings for one in world.load().values())
        assert world.account.requests_of("/v1/customers") == 0, "nothing was missed, so nothing is listed"
    assert ask("SELECT count(*) FROM raw_stripe.prices") == [(1,)]


def test_a_deleted_customer_and_a_deleted_draft_keep_their_last_values(world: World) -> None:
    customer = world.account.create("customers", email="Jo@Example.com", name="Jo Doe", metadata={"note": "ask jo@example.com"})["id"]
    draft = world.account.create("invoices", total=700, lines=[{"amount": 700}])["id"]
    world.load()
    before = ask("SELECT email_hash FROM raw_stripe.customers")
    world.later(hours=1)
    world.account.delete(customer)
    world.account.delete(draft)
    world.load()
    assert ask("SELECT email_hash FROM raw_stripe.customers") == before
    assert before[0][0]
    for table in ("customers", "invoices", "invoice_line_items"):
        assert ask(f"SELECT is_deleted, deleted_at FROM raw_stripe.{table}") == [(True, world.now)], table
    assert ask("SELECT total FROM raw_stripe.invoices") == [(700,)]


def test_nothing_personal_is_kept_anywhere(world: World, home: Path) -> None:
    world.account.create("customers", email="jo@example.com", name="Jo Doe", phone="+49 30 1234567", metadata={"note": "ask jo@example.com"})
    world.account.create("charges", billing_details={"name": "Jo Doe", "email": "jo@example.com", "phone": None, "address": {"city": "Berlin"}})
    world.load()
    for name in TABLES:
        text = str(ask(f"SELECT * FROM raw_stripe.{name}"))
        assert not any(word in text for word in ("jo@example", "Jo Doe", "1234567", "Berlin")), name


def test_an_event_of_an_old_version_ends_in_the_pinned_shape(world: World) -> None:
    world.account.event_version = "2019-12-03"
    world.load()
    world.later(hours=1)
    world.account.create("invoices", parent={"subscription_details": {"subscription": "sub_1"}})
    world.load()
    assert ask("SELECT subscription_id, api_version FROM raw_stripe.invoices") == [("sub_1", "2025-06-30.basil")]


def test_an_event_visible_ten_minutes_late_is_not_missed(world: World) -> None:
    product = world.account.create("products", name="Old")["id"]
    world.load()
    world.later(hours=1)
    world.account.update(product, late=timedelta(minutes=10), name="New")
    world.account.create("customers")
    world.later(minutes=5)
    world.load()
    world.later(minutes=5)
    world.load()
    assert ask("SELECT name FROM raw_stripe.products") == [("New",)]
    assert ask("SELECT count(*) FROM raw_stripe.events") == [(3,)]


def test_objects_inserted_and_deleted_while_paging_and_more_than_ten_lines(world: World) -> None:
    made = []
    for _ in range(150):
        world.later(seconds=1)
        made.append(world.account.create("customers", announce=None)["id"])
    world.account.create("invoices", lines=[{"amount": number} for number in range(23)])

    def meanwhile(asked: Asked) -> None:
        if asked.path == "/v1/customers" and "starting_after" in asked.query:
            world.account.before = None
            world.account.create("customers")
            world.account.delete(asked.query["starting_after"])

    world.account.before = meanwhile
    world.load()
    assert ask("SELECT count(*), count(*) FILTER (is_deleted) FROM raw_stripe.customers") == [(151, 1)]
    assert ask("SELECT count(*), sum(amount) FROM raw_stripe.invoice_line_items") == [(23, 253)]


def test_money_is_exact_in_every_currency(world: World) -> None:
    for currency in ("jpy", "kwd", "usd", "ugx", "isk"):
        world.account.create("charges", currency=currency, amount=1500)
    world.load()
    found = dict(ask("SELECT currency, amount_decimal FROM raw_stripe.charges"))
    assert found == {"jpy": Decimal(1500), "kwd": Decimal("1.500"), "usd": Decimal("15.00"), "ugx": Decimal(15), "isk": Decimal(15)}
    assert ask("SELECT DISTINCT amount FROM raw_stripe.charges") == [(1500,)]


def test_refunds_partial_and_full_and_two_disputes_on_one_charge(world: World) -> None:
    charge = world.account.create("charges", amount=1000)["id"]
    world.load()
    world.later(hours=1)
    world.account.create("refunds", announce=None, charge=charge, amount=400)
    world.account.update(charge, announce="refunded", amount_refunded=400)
    for _ in range(2):
        world.account.create("disputes", charge=charge, amount=300)
    world.load()
    world.later(hours=1)
    world.account.create("refunds", announce=None, charge=charge, amount=600)
    world.account.update(charge, announce="refunded", amount_refunded=1000, refunded=True)
    world.load()
    assert ask("SELECT sum(amount), count(*) FROM raw_stripe.refunds") == [(1000, 2)]
    assert ask("SELECT amount_refunded, refunded FROM raw_stripe.charges") == [(1000, True)]
    assert ask("SELECT count(*) FROM raw_stripe.disputes") == [(2,)]


def test_paid_before_finalized_in_separate_loads_stays_paid(world: World) -> None:
    invoice = world.account.create("invoices", status="draft")["id"]
    world.load()
    world.later(hours=1)
    world.account.update(invoice, announce="finalized", late=timedelta(minutes=10), status="open")
    world.account.update(invoice, announce="paid", status="paid")
    world.load()
    world.later(minutes=20)
    world.load()
    assert ask("SELECT status FROM raw_stripe.invoices") == [("paid",)]
    assert ask("SELECT count(*) FROM raw_stripe.events") == [(3,)]


def test_faults_change_nothing_and_the_log_rebuilds_the_same(world: World, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        world.account.create("invoices", total=number, lines=[{"amount": number}])
        world.account.create("customers", email=f"c{number}@example.com")
    world.load()
    clean = everything()
    shutil.rmtree(home)
    world.account.faults = [
        Fault("/v1/invoices", status=429, retry_after="7"), Fault("/v1/customers", status=500), Fault("/v1/events", reset=True), Fault("/v1/charges", hang=1.3),
    ]  # fmt: skip
    waited: list[float] = []
    monkeypatch.setattr(stripe_client, "time", SimpleNamespace(sleep=waited.append, monotonic=time.monotonic))
    world.load()
    assert all(fault.times == 0 for fault in world.account.faults)
    waited = [seconds for seconds in waited if seconds > 0.1]
    assert waited.count(7) == 1, "as Stripe asked for"
    assert len(waited) == len(set(waited)) == 4, "with jitter"
    assert everything() == clean
    rows = everything()
    assert (len(rows["invoices"]), len(rows["customers"]), len(rows["events"])) == (5, 5, 10)
    with ledger.run("rebuild stripe") as run:
        rebuild.rebuild("stripe", run)
    kept = {name: ask(f"SELECT * EXCLUDE (_loaded_at, _settled_at, _deleted_at) FROM raw_stripe.{name} ORDER BY id") for name in TABLES if rows[name]}
    assert kept == {name: found for name, found in rows.items() if found}


KILLED = """
import os, signal, sys
from pipelines import load
turn = iter(range(100))
finish = load._finish
def dies(*given):
    if next(turn) == int(os.environ["DIES"]):
        os.kill(os.getpid(), signal.SIGKILL)
    return finish(*given)
load._finish = dies
sys.argv = ["warehouse", "load", "stripe"]
from cli.main import main
main()
"""


def test_requests_are_fewer_than_stripe_allows(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    passed = [0.0]
    monkeypatch.setattr(stripe_client, "time", SimpleNamespace(sleep=lambda seconds: passed.append(passed[-1] + seconds), monotonic=lambda: passed[-1]))
    monkeypatch.setattr(module, "FOLDER", source.FOLDER)
    client = stripe_client.Client(module.declaration().api_version, module.declaration().requests_per_second, 30)
    for _ in range(26):
        client.get("customers", limit=1)
    assert passed[-1] > 1, "25 a second of one endpoint"


def test_a_first_load_that_broke_off_goes_on_where_it_was(world: World) -> None:
    for _ in range(2_450):
        world.later(seconds=1)
        world.account.create("customers", announce=None)
    world.account.create("products", announce=None)

    def refused_after_2_100(asked: Asked) -> None:
        if asked.path == "/v1/customers" and world.account.requests_of("/v1/customers") == 21:
            world.account.faults = [Fault("/v1/customers", status=401)]

    world.account.before = refused_after_2_100
    with pytest.raises(UsageError):
        world.load()
    held = ask("SELECT count(*) FROM raw_stripe.customers")[0][0]
    assert held == 2_000
    world.account.before, world.account.faults, world.account.asked = None, [], []
    world.later(minutes=5)
    world.account.create("customers")
    world.load()
    assert ask("SELECT count(*), count(DISTINCT id) FROM raw_stripe.customers") == [(2_451, 2_451)]
    assert world.account.requests_of("/v1/customers") <= 41 + 5, "what had been read an hour before is read again, no more"
    assert ask("SELECT count(*) FROM raw_stripe.products") == [(1,)]


def test_only_what_was_created_since_the_start_date_is_listed(world: World, setting: Callable[[str, str | None], None]) -> None:
    setting("SOURCES__STRIPE__START_DATE", "2026-02-15")
    old = world.account.create("products", announce=None, name="Old", created=int(datetime(2026, 2, 14, 23, 59, 59, tzinfo=UTC).timestamp()))["id"]
    new = world.account.create("products", announce=None, name="New", created=int(datetime(2026, 2, 15, tzinfo=UTC).timestamp()))["id"]
    world.load()
    assert ask("SELECT id FROM raw_stripe.products") == [(new,)]
    world.later(hours=2)
    world.account.update(old, name="Changed")
    world.load()
    assert sorted(ask("SELECT name FROM raw_stripe.products")) == [("Changed",), ("New",)], "what changes is loaded, however old"


def test_an_item_taken_out_of_a_subscription_is_gone_with_its_last_values(world: World) -> None:
    subscription = world.account.create("subscriptions", items=[{"price": {"id": "price_a"}, "quantity": 2}, {"price": {"id": "price_b"}, "quantity": 3}])
    world.load()
    world.later(hours=1)
    left = next(one for one in world.account.objects("subscriptions"))["items"][:1]
    world.account.update(subscription["id"], items=left)
    world.load()
    found = ask("SELECT price_id, quantity, is_deleted FROM raw_stripe.subscription_items ORDER BY price_id")
    assert found == [("price_a", 2, False), ("price_b", 3, True)]


def test_what_changes_without_an_event_is_listed_again_until_it_is_settled(world: World) -> None:
    money = world.account.create("balance_transactions", amount=900, status="pending")["id"]
    refund = world.account.create("refunds", announce=None, status="pending")["id"]
    session = world.account.create("checkout/sessions", status="open")["id"]
    world.load()
    world.later(days=9)
    world.account.update(money, announce=None, status="available")
    world.account.update(refund, announce=None, status="succeeded")
    world.account.update(session, announce=None, status="complete")
    world.account.create("balance_transactions")
    world.load()
    assert ask("SELECT status FROM raw_stripe.balance_transactions ORDER BY id") == [("available",), ("available",)]
    assert ask("SELECT status FROM raw_stripe.refunds") == [("succeeded",)]
    assert ask("SELECT status FROM raw_stripe.checkout_sessions") == [("complete",)]


def test_what_was_made_changed_and_deleted_between_two_loads_keeps_its_last_values(world: World) -> None:
    world.load()
    world.later(minutes=10)
    draft = world.account.create("invoices", total=100)["id"]
    world.later(minutes=10)
    world.account.update(draft, total=200)
    world.later(minutes=10)
    world.account.delete(draft)
    deleted_at = world.now
    world.later(minutes=10)
    world.load()
    assert ask("SELECT total, is_deleted, deleted_at FROM raw_stripe.invoices") == [(200, True, deleted_at)]


@pytest.mark.parametrize("turn", [0, 1])
def test_a_kill_between_reading_and_loading_ends_in_the_rows_of_a_clean_run(world: World, home: Path, turn: int) -> None:
    for number in range(3):
        world.account.create("customers", email=f"c{number}@example.com")
        world.account.create("invoices", total=number)
    world.load()
    clean = everything()
    shutil.rmtree(home)
    died = call(script=KILLED, DIES=str(turn))
    assert died.code == -9, died.err
    shutil.rmtree(home / "dlt")
    world.load()
    assert everything() == clean


def test_a_wrong_key_names_the_setting_and_no_key_names_it_too(
    world: World, setting: Callable[[str, str | None], None], fails: Callable[..., WarehouseError]
) -> None:
    setting("SOURCES__STRIPE__STRIPE_SECRET_KEY", "sk_test_wrong_key")
    error = fails(world.load)
    assert isinstance(error, UsageError)
    assert "SOURCES__STRIPE__STRIPE_SECRET_KEY" in error.mend
    assert "sk_test_wrong_key" not in str(error)
    setting("SOURCES__STRIPE__STRIPE_SECRET_KEY", None)
    assert "SOURCES__STRIPE__STRIPE_SECRET_KEY is not set" in fails(world.load).what
    assert os.environ.get("SOURCES__STRIPE__STRIPE_SECRET_KEY") is None


def test_an_older_state_that_arrives_later_does_not_overwrite_a_newer_one(world: World, tmp_path: Path) -> None:
    from pipelines import raw

    world.account.create("invoices", status="paid")
    world.load()
    older = tmp_path / "older.parquet"
    with storage.open_warehouse() as connection:
        changed = "'open' AS status, _settled_at - INTERVAL 1 SECOND AS _settled_at"
        connection.execute(f"COPY (SELECT * REPLACE ({changed}) FROM raw_stripe.invoices) TO '{older}' (FORMAT parquet)")
        raw.merge(connection, "stripe", "invoices", ["id"], older, "_settled_at")
    assert ask("SELECT status FROM raw_stripe.invoices") == [("paid",)]
