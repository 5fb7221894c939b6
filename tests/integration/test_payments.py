"""From Stripe to the marts: a source that was never loaded leaves them empty, and what changes later reaches them."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from conftest import Company, ask, load_postgres

from demo.stand_ins.stripe import StripeStandIn
from demo.stand_ins.stripe_company import populate
from monitoring.contract_files import read_contracts
from monitoring.contracts import check_contracts
from pipelines import load, raw_shape, rebuild, source, stripe, stripe_rows
from pipelines.source import sources
from transform import raw_tables
from transform.build import build
from warehouse import clock, ledger, storage
from warehouse.errors import DeclarationError, StepFailed, WarehouseError
from warehouse.settings import ROOT

FACTS = "SELECT charge_id, currency, amount, net_amount, disputes, amount_disputed, settlement_currency, fee FROM marts.payment_facts ORDER BY charge_id"


@pytest.fixture
def account(setting: Callable[[str, str | None], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[StripeStandIn]:
    """An account of Stripe that the warehouse of this test may load, as fast as it can."""
    folder = tmp_path / "declared"
    folder.mkdir()
    (folder / "stripe.yaml").write_text((source.FOLDER / "stripe.yaml").read_text().replace("requests_per_second: 20 ", "requests_per_second: 2000 "))
    monkeypatch.setattr(stripe, "FOLDER", folder)
    with StripeStandIn() as opened:
        setting("SOURCES__STRIPE__STRIPE_SECRET_KEY", opened.secret_key)
        setting("SOURCES__STRIPE__BASE_URL", opened.url)
        yield opened


@pytest.fixture
def clock_at(setting: Callable[[str, str | None], None]) -> Callable[[int], None]:
    """Set the one clock to so many hours after this test began."""
    begin = clock.now()
    return lambda hours: setting("WAREHOUSE_NOW", (begin + timedelta(hours=hours)).isoformat())


def load_stripe() -> None:
    with ledger.run("load stripe") as run:
        load.load("stripe", run)


def charge(account: StripeStandIn, amount: int, currency: str = "usd", **fields: Any) -> str:
    """A charge in the account, taken whole, with its effect on the balance."""
    moved = account.create("balance_transactions", amount=amount, fee=59, net=amount - 59)["id"]
    return str(account.create("charges", amount=amount, amount_captured=amount, currency=currency, balance_transaction=moved, **fields)["id"])


@pytest.mark.usefixtures("built")
def test_a_warehouse_without_any_load_has_every_model_empty() -> None:
    views = {view for (view,) in ask("SELECT schema_name || '.' || view_name FROM duckdb_views() WHERE schema_name IN ('staging', 'marts')")}
    assert {f"staging.stg_stripe__{name}" for name in stripe.declaration().tables} | {"marts.payment_facts", "marts.order_facts"} <= views
    assert [view for view in views if ask(f"SELECT 1 FROM {view} LIMIT 1")] == []
    with storage.open_warehouse() as connection:
        assert raw_tables.complete(connection) == raw_tables.RawTables({*sources(), "privacy"}, [])


@pytest.mark.usefixtures("built")
def test_what_was_built_before_any_load_takes_in_the_first_one(company: Company, account: StripeStandIn) -> None:
    populate(account)
    load_stripe()
    load_postgres()
    with storage.open_warehouse() as connection:
        assert raw_shape.key_of(connection, "stripe", "charges") == raw_shape.key_of(connection, "stripe", "coupons") == ["id"]
    build()
    live = [one for one in account.objects("charges") if one["livemode"]]
    exact = {one["id"]: Decimal(one["amount"]).scaleb(-{"usd": 2, "jpy": 0, "kwd": 3}[one["currency"]]) for one in live}
    assert {row[0]: row[2] for row in ask(FACTS)} == exact
    refunded = {row[0] for row in ask("SELECT charge_id FROM marts.payment_facts WHERE amount_refunded > 0")}
    assert refunded == {one["charge"] for one in account.objects("refunds")}
    both = "staging.stg_stripe__customers LEFT JOIN staging.stg_postgres__users USING (email_hash)"
    joined = f"SELECT count(*), count(user_id) FROM {both} WHERE is_live AND NOT is_deleted"
    assert ask(joined) == [(len([one for one in account.objects("customers") if one["livemode"]]),) * 2]
    with storage.open_warehouse() as connection:
        loaded = {table: clock.now() for table in read_contracts() if table.startswith("raw_")}
        assert check_contracts(connection, now=clock.now(), loaded_at=loaded) == []
    assert ask("SELECT count(*), sum(revenue) FROM marts.order_facts") == [(69_659, Decimal("2500315.63"))]
    assert ask("SELECT count(*), count(*) FILTER (valid_to IS NULL) FROM marts.user_dim_history") == [(23_570, 23_570)]


def test_a_first_load_that_died_is_finished_over_what_stood_for_it(account: StripeStandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    def never_loaded() -> set[str]:
        with storage.open_warehouse() as connection:
            return raw_tables.complete(connection).never_loaded

    assert never_loaded() == {*sources(), "privacy"}
    charge(account, 1550)
    with monkeypatch.context() as patch:
        patch.setattr("pipelines.raw.merge_within", lambda *_: (_ for _ in ()).throw(OSError("the disk is full")))
        with pytest.raises((WarehouseError, OSError)):
            load_stripe()
    assert never_loaded() == {*sources(), "privacy"} - {"stripe"}  # it had made its tables
    load_stripe()
    assert never_loaded() == {*sources(), "privacy"} - {"stripe"}
    assert ask("SELECT count(*) FROM raw_stripe.charges") == [(1,)]
    with ledger.run("rebuild stripe") as run:
        rebuild.rebuild("stripe", run)
    assert never_loaded() == {*sources(), "privacy"} - {"stripe"}
    assert ask("SELECT count(*) FROM raw_stripe.charges") == [(1,)]


def test_what_happens_to_a_charge_later_reaches_it_whichever_object_brings_it(account: StripeStandIn, clock_at: Callable[[int], None]) -> None:
    first, second = charge(account, 2000), str(account.create("charges", amount=1000, amount_captured=1000, balance_transaction="txn_late")["id"])
    third = charge(account, 500)
    load_stripe()
    build()
    fee = Decimal("0.590")
    assert [row[3:] for row in ask(FACTS)] == [
        (Decimal(20), 0, Decimal(0), "USD", fee), (Decimal(10), 0, Decimal(0), None, None), (Decimal(5), 0, Decimal(0), "USD", fee),
    ]  # fmt: skip
    clock_at(2)
    account.create("balance_transactions", id="txn_late", amount=1000, fee=59, net=941)
    account.create("disputes", charge=first, amount=2000)
    load_stripe()
    build()
    assert [(row[4], row[7]) for row in ask(FACTS)] == [(1, fee), (0, fee), (0, fee)]
    clock_at(4)
    account.create("disputes", charge=first, amount=1500)
    account.create("refunds", charge=second, amount=400, balance_transaction="txn_9")
    account.delete(third)
    load_stripe()
    build()
    assert [row[0] for row in ask(FACTS)] == [first, second]
    assert [row[3:6] for row in ask(FACTS)] == [(Decimal(20), 2, Decimal(35)), (Decimal(6), 0, Decimal(0))]
    assert ask(f"SELECT is_deleted, amount FROM staging.stg_stripe__charges WHERE charge_id = '{third}'") == [(True, Decimal(5))]


def test_every_declared_raw_table_is_what_loading_makes(home: Path) -> None:
    declared, file = raw_tables.external_models(), home / "empty.parquet"
    for name in stripe.declaration().tables:
        home.mkdir(exist_ok=True)
        stripe_rows.write(name, stripe.declaration(), [], clock.now(), file)
        with storage.scratch() as connection:
            arriving = raw_shape.file_columns(connection, file)
            spelled = ", ".join(f'NULL::{kind} AS "{column}"' for column, kind in declared[f"raw_stripe.{name}"].columns.items())
            assert arriving == {row[0]: row[1] for row in connection.execute(f"DESCRIBE SELECT {spelled}").fetchall()}, name


def test_a_column_declared_later_is_made_by_the_next_load_and_named_until_then(
    account: StripeStandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: Callable[..., WarehouseError], clock_at: Callable[[int], None]
) -> None:
    account.create("customers")
    load_stripe()
    declared = (ROOT / "external_models" / "stripe.yaml").read_text()
    folder = tmp_path / "external_models"
    folder.mkdir()
    (folder / "stripe.yaml").write_text(declared.replace("    delinquent: BOOLEAN\n", "    delinquent: BOOLEAN\n    tax_exempt: TEXT\n"))
    monkeypatch.setattr(raw_tables.external_models, "__defaults__", (folder,))
    with monkeypatch.context() as patch:
        patch.setattr("transform.build._build", lambda *_: (_ for _ in ()).throw(StepFailed("a view cannot be built", mend="look")))
        error = fails(build)
    assert "raw_stripe.customers.tax_exempt" in error.what
    assert "`warehouse load stripe` adds" in error.mend
    file = stripe.FOLDER / "stripe.yaml"
    file.write_text(file.read_text().replace("delinquent: boolean,", "delinquent: boolean, tax_exempt: text,"))
    clock_at(1)
    load_stripe()  # no customer changed
    with storage.open_warehouse() as connection:
        assert raw_tables.complete(connection).lacking == []
    assert ask("SELECT count(*), count(tax_exempt) FROM raw_stripe.customers") == [(1, 0)]


def test_what_stands_for_a_load_to_come_follows_its_declaration(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "web.yaml"
    monkeypatch.setattr(raw_tables.external_models, "__defaults__", (tmp_path,))
    for columns in ("{id: BIGINT}", "{id: TEXT}", "{id: TEXT, at: TIMESTAMP WITH TIME ZONE}"):
        file.write_text(f"- {{name: raw_web.visits, description: Visits., columns: {columns}}}\n")
        with storage.open_warehouse() as connection:
            for _ in range(2):
                assert raw_tables.complete(connection) == raw_tables.RawTables({"web"}, [])
    with storage.open_warehouse() as connection:
        assert raw_shape.columns(connection, "web", "visits") == {}
    assert ask("DESCRIBE raw_web.visits")[1][:2] == ("at", "TIMESTAMP WITH TIME ZONE")


@pytest.mark.parametrize(
    "wrong", ["raw_stripe.charges, description: Charges., columns: {id: TEXT}", "raw_web.visits, description: Visits., columns: {id: TEXT; DROP}"]
)
def test_a_wrong_declaration_is_refused(tmp_path: Path, wrong: str) -> None:
    (tmp_path / "web.yaml").write_text(f"- {{name: {wrong}}}\n")
    with pytest.raises(DeclarationError, match=r"web\.yaml"):
        raw_tables.external_models(tmp_path)
