"""Erased means erased: a search of every byte of the home finds nothing, also after a kill, after the next load and after a rebuild."""

import json
import os
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from integration.byte_search import found_in

from demo.server import Server
from pipelines import landing
from pipelines.compare import compare
from pipelines.rebuild import rebuild
from privacy import erase, erasures, policy, retention, subjects
from tests.conftest import KEY, Company, ask, call, load_postgres
from warehouse import clock, ledger, spool_format, storage
from warehouse import settings as settings_module
from warehouse.lease import lease
from warehouse.settings import settings

SECRETS = ("zoe.unique@example.com", "cus_OfZoe", "Zoe Unmistakable", "+1 555 010 4477")
"""What must not be found of user 42; the third stands in a text of hers that nothing marks as a name."""
_KILLED = """
import os, signal
from privacy import erasures, files
from cli.main import main
def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)
really = os.replace
def replaced(old, new):
    really(old, new)
    if str(new).endswith(".parquet"):
        die()
{}
main()
"""
MOMENTS = {
    "when it is noted": "erasures.erase_raw = die",
    "between a landed file and its manifest": "os.replace = replaced",
    "before the published copies": "files.erase_published = die",
    "before the swap": "files.flush_file = lambda path: die() if path.suffix == '.compact' else None",
}


@pytest.fixture(scope="module")
def kept(company_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Company]]:
    """A home with the company, one of whose users is also at Stripe, and with everything that could keep her; copied by each test."""
    import psycopg2

    name = f"erasure_{os.getpid()}"
    with pytest.MonkeyPatch.context() as patch:
        home = tmp_path_factory.mktemp("erasure") / "home"
        for variable in [one for one in os.environ if one.startswith(("WAREHOUSE_", "SOURCES__", "PRIVACY__"))]:
            patch.delenv(variable)
        admin = psycopg2.connect(company_server.url())
        admin.autocommit = True
        cursor = admin.cursor()
        cursor.execute(f'CREATE DATABASE "{name}" TEMPLATE shop')
        company = Company(company_server, name)
        patch.setenv("WAREHOUSE_HOME", str(home))
        patch.setenv("PRIVACY__HMAC_KEY", KEY)
        patch.setenv("SOURCES__POSTGRES__CREDENTIALS", company.reader_url)
        settings_module.reload()
        company.execute(
            "DELETE FROM shop.orders WHERE user_id > 300",  # a search of every byte takes its time
            "DELETE FROM shop.users WHERE id > 300",
            "UPDATE shop.users SET email = 'Zoe.Unique@example.com', phone = '+1 555 010 4477' WHERE id = 42",
            "UPDATE shop.users SET email = CASE id WHEN 50 THEN 'shared@example.com' ELSE 'Shared@Example.com' END WHERE id IN (50, 51)",
        )
        with lease("test"):
            load_postgres()
            _at_stripe()
            _built()
        settings_module.reload()
        yield home, company
        cursor.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
        admin.close()
    settings_module.reload()


def _at_stripe() -> None:
    """What Stripe knows of her, as a load would have left it, and a webhook that waits."""
    hashed = subjects.hashed("zoe.unique@example.com")
    stamp = clock.now()
    tables: dict[str, dict[str, list[Any]]] = {
        "customers": {"id": ["cus_OfZoe", "cus_Other"], "email_hash": [hashed, "f" * 64], "_object": ['{"id":"cus_OfZoe"}', "{}"]},
        "charges": {
            "id": ["ch_1", "ch_2", "ch_3"], "customer_id": ["cus_OfZoe", "cus_Other", None], "receipt_email_hash": [None, None, hashed],
            "description": ["for Zoe Unmistakable", "other", None], "amount": [5, 7, 9],
            "_object": ['{"id":"ch_1","customer":"cus_OfZoe","description":"for Zoe Unmistakable","amount":5}', "{}", '{"id":"ch_3"}'],
        },
    }  # fmt: skip
    work = settings().home / "made"
    work.mkdir()
    with storage.open_warehouse() as connection:
        connection.execute("CREATE SCHEMA raw_stripe")
        for table, columns in tables.items():
            arrow = pa.table({**columns, "created_at": [stamp] * len(columns["id"]), "_loaded_at": [stamp] * len(columns["id"])})
            pq.write_table(arrow, work / f"{table}.parquet")
            landing.mark_loaded(landing.keep("stripe", table, "1.0", work / f"{table}.parquet", ["id"]))
            connection.execute(f"CREATE TABLE raw_stripe.{table} AS SELECT * FROM read_parquet('{work / table}.parquet')")
    shutil.rmtree(work)
    bodies = [b'{"id":"evt_1","data":{"object":{"customer":"cus_OfZoe"}}}', b'{"id":"evt_2","data":{"object":{"email":"zoe.unique\\u0040example.com"}}}', b"{}"]
    segment = settings().spool / "stripe" / spool_format.name_of(stamp)
    segment.parent.mkdir(parents=True)
    segment.write_bytes(b"".join(spool_format.encode(spool_format.Record(stamp, body)) for body in bodies))


def _built() -> None:
    """Tables as a build leaves them, a history and a review's among them, and a published file."""
    with storage.open_warehouse() as connection:
        connection.execute("CREATE SCHEMA sqlmesh__marts")
        of_all = "SELECT id AS user_id, email_hash, country FROM raw_postgres.users"
        for table in ("marts__user_dim_history__1", "marts__payment_facts__2__dev"):
            connection.execute(f"CREATE TABLE sqlmesh__marts.{table} AS {of_all}")
        (settings().published / "v1").mkdir(parents=True)
        connection.execute(f"COPY ({of_all}) TO '{settings().published / 'v1' / 'user_dim.parquet'}' (FORMAT parquet)")


@pytest.fixture
def world(kept: tuple[Path, Company], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, Company]]:
    """A copy of that home, in force."""
    home, company = kept
    copy = tmp_path / "home"
    shutil.copytree(home, copy)
    monkeypatch.setenv("WAREHOUSE_HOME", str(copy))
    monkeypatch.setenv("PRIVACY__HMAC_KEY", KEY)
    monkeypatch.setenv("SOURCES__POSTGRES__CREDENTIALS", company.reader_url)
    settings_module.reload()
    yield copy, company
    settings_module.reload()


def erased(*named: str) -> erase.Certificate:
    """Erase in this process, with a build that does nothing."""
    with ledger.run("privacy erase") as run, lease("test"):
        return erase.erase([subjects.parse(one) for one in named], run, lambda models: None)


def wanted() -> set[str]:
    return {*SECRETS, subjects.hashed("zoe.unique@example.com"), subjects.tag("email", "zoe.unique@example.com")}


def facts() -> list[tuple[Any, ...]]:
    return ask("SELECT count(*), sum(revenue), count(DISTINCT user_id), min(user_id) < 0 FROM raw_postgres.orders")


def test_after_an_erasure_no_byte_of_the_home_tells_of_the_person(world: tuple[Path, Company]) -> None:
    home, company = world
    before, sums = found_in(home, wanted()), facts()
    assert {Path(name).suffix for name in before} >= {".parquet", ".duckdb", ".spool"}, "the search itself finds what is there"
    orders = company.rows("SELECT count(*) FROM shop.orders WHERE user_id = 42")[0][0]
    with lease("test"):
        planned = erase.plan([subjects.parse("stripe:cus_OfZoe")])
    assert found_in(home, wanted()) == before, "a dry run changes nothing"

    certificate = erased("stripe:cus_OfZoe")

    assert found_in(home, wanted()) == {}
    told = certificate.places["raw tables"]
    assert told == {"raw_postgres.users": 1, "raw_postgres.orders": orders, "raw_stripe.customers": 1, "raw_stripe.charges": 2} == planned.places["raw tables"]
    assert certificate.places["built tables"] == {"sqlmesh__marts.marts__payment_facts__2__dev": 1, "sqlmesh__marts.marts__user_dim_history__1": 1}
    assert certificate.places["published copies"] == {"v1/user_dim.parquet": 1}
    assert sum(certificate.places["spool"].values()) == 2
    assert erase.is_genuine(certificate.as_json())
    assert not erase.is_genuine(certificate.as_json().replace('"raw_stripe.charges": 2', '"raw_stripe.charges": 1'))
    assert [row[:3] for row in facts()] == [row[:3] for row in sums], "accounting keeps every order, and whose are whose"
    assert ask("SELECT id, customer_id, amount FROM raw_stripe.charges WHERE amount <> 5") == [("ch_2", "cus_Other", 7), ("ch_3", None, 9)]
    assert ask("SELECT starts_with(customer_id, 'erased_'), description, _object::JSON->>'amount' FROM raw_stripe.charges WHERE amount = 5") == [
        (True, None, "5")
    ]
    assert ask("SELECT count(*) FROM raw_postgres.users WHERE id < 0 AND email_hash IS NULL AND country IS NULL AND _deleted_at IS NOT NULL") == [(1,)]


def test_a_person_does_not_come_back_by_a_load_or_a_rebuild(world: tuple[Path, Company]) -> None:
    home, company = world
    erased("user:42")
    held = "SELECT * EXCLUDE (_loaded_at, _settled_at, updated_at) FROM raw_postgres.{} ORDER BY ALL"
    users, orders = ask(held.format("users")), ask(held.format("orders"))
    with ledger.run("rebuild postgres") as run:
        rebuild("postgres", run)
    assert (ask(held.format("users")), ask(held.format("orders"))) == (users, orders)
    order = "SELECT 42, now() - interval '1 day', 1, 3.50, 'USD', 'paid', now()"
    company.execute(
        "UPDATE shop.users SET country = 'FR', updated_at = now() WHERE id = 42",
        "UPDATE shop.orders SET status = 'returned', updated_at = now() WHERE user_id = 42",
        f"INSERT INTO shop.orders (user_id, ordered_at, quantity, revenue, currency, status, updated_at) {order}",
    )
    load_postgres()
    assert ask(held.format("users")) == users
    assert ask("SELECT count(*), count(DISTINCT user_id) FROM raw_postgres.orders WHERE user_id < 0") == [
        (company.rows("SELECT count(*) FROM shop.orders WHERE user_id = 42")[0][0], 1)
    ]
    assert ask("SELECT count(*) FROM raw_postgres.orders WHERE user_id = 42") == [(0,)]
    assert not {name for name in found_in(home, wanted()) if "postgres" in name}


def test_a_comparison_tells_the_erased_apart_and_still_finds_what_is_lost(world: tuple[Path, Company]) -> None:
    _, company = world
    company.execute(  # what other tests wrote into the company's database is no news to this home
        "DELETE FROM shop.orders WHERE user_id = 42 AND ordered_at > '2020-01-01'",
        "UPDATE shop.orders SET updated_at = updated_at - interval '2 days' WHERE user_id = 42",
        "UPDATE shop.users SET updated_at = updated_at - interval '2 days' WHERE id = 42",
    )
    erased("user:42")
    with ledger.run("compare postgres") as run, lease("test"):
        compared = {one.table: one for one in compare("postgres", [], run)}
    assert [one.summary for one in compared.values()] == ["equal", "equal"]
    assert (compared["users"].erased, compared["orders"].erased) == (1, company.rows("SELECT count(*) FROM shop.orders WHERE user_id = 42")[0][0])
    assert "erased persons" in compared["orders"].notes[-1]
    with storage.open_warehouse() as connection:
        connection.execute("DELETE FROM raw_postgres.orders WHERE id = (SELECT max(id) FROM raw_postgres.orders WHERE user_id < 0)")
    with ledger.run("compare postgres") as run, lease("test"):
        assert compare("postgres", ["orders"], run)[0].missing == 1, "what is to be kept, and is not there, is a difference"


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_in_the_middle_it_goes_on_and_says_so(world: tuple[Path, Company], moment: str) -> None:
    home, _ = world
    with storage.open_warehouse() as connection:
        connection.execute("DROP SCHEMA sqlmesh__marts CASCADE")  # nothing to build anew
    killed = call("privacy", "erase", "--subject", "user:42", script=_KILLED.format(MOMENTS[moment]))
    assert killed.code == -9, killed.err
    done = call("privacy", "erase", "--subject", "user:42")
    assert done.code == 0, done.err
    assert json.loads(done.out)["resumed"] == [1]
    assert found_in(home, wanted()) == {}
    for package in landing.packages("postgres"):
        landing.verify(package)
    assert all(one.is_done for one in erasures.all_erasures())


def test_of_two_persons_with_one_email_only_the_one_named_goes(world: tuple[Path, Company], fails: Any) -> None:
    with lease("test"):
        refused = fails(erase.plan, [subjects.parse("email:Shared@Example.com")])
    assert "user:50, user:51" in refused.what
    erased("user:50")
    assert ask("SELECT count(*) FROM raw_postgres.users WHERE email_hash = ?".replace("?", f"'{subjects.hashed('shared@example.com')}'")) == [(1,)]
    assert ask("SELECT list(id) FROM raw_postgres.users WHERE id IN (50, 51)") == [([51],)]


def test_a_person_of_one_source_and_one_of_none(world: tuple[Path, Company]) -> None:
    assert erased("stripe:cus_Other").places["raw tables"] == {"raw_stripe.customers": 1, "raw_stripe.charges": 1}
    assert not any(erased("zendesk:12345").places["raw tables"].values())
    assert erasures.position() == 4, "who is not here yet is kept out all the same"


def test_a_person_gets_all_that_is_held_and_of_nobody_else(world: tuple[Path, Company], tmp_path: Path) -> None:
    ran = call("privacy", "export", "--subjects-from", "-", "--out", str(tmp_path / "hers"), stdin="email: Zoe.Unique@example.com\n")
    assert ran.code == 0, ran.err
    held = json.loads((tmp_path / "hers" / "held.json").read_text())["tables"]
    assert {row["id"] for row in held["raw_stripe.charges"]["rows"]} == {"ch_1", "ch_3"}
    assert {row["user_id"] for row in held["raw_postgres.orders"]["rows"]} == {42}
    assert held["raw_postgres.users"]["columns"]["email_hash"]["meaning"].startswith("email (email): a pseudonym")
    lines = (tmp_path / "hers" / "raw_postgres.orders.csv").read_text().splitlines()
    assert len(lines) == 1 + len(held["raw_postgres.orders"]["rows"])
    assert call("privacy", "export", "--subject", "user:42", "--out", str(tmp_path / "hers")).code == 2


def test_rows_go_when_they_are_older_than_they_are_kept_and_loads_do_not_bring_them_back(
    world: tuple[Path, Company], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, company = world
    days = (clock.now() - datetime(1997, 6, 1, tzinfo=UTC)).days
    users = "postgres.users: {email: {class: email, action: hmac}, phone: {class: phone, action: mask}, ssn: {class: ssn, action: redact}}"
    (tmp_path / "policy.yaml").write_text(f"columns:\n  {users}\nretention:\n  postgres.orders: {{by: ordered_at, days: {days}}}\n")
    monkeypatch.setattr(policy, "POLICY_FILE", tmp_path / "policy.yaml")
    every = ask("SELECT count(*) FROM raw_postgres.orders")
    old = ask(f"SELECT count(*) FROM raw_postgres.orders WHERE ordered_at < now() - INTERVAL {days} DAY")[0][0]
    assert 0 < old < every[0][0]
    with ledger.run("privacy retain") as run, lease("test"):
        planned = retention.retain(run, lambda models: None, dry_run=True)
        assert ask("SELECT count(*) FROM raw_postgres.orders") == every
        built: list[str] = []
        with pytest.raises(ZeroDivisionError):
            retention.retain(run, lambda models: built.append(str(1 / 0)))
        retention.retain(run, built.extend)
    assert built == ["staging.stg_postgres__orders"], "what an interrupted one had not built is built by the next"
    assert planned.raw == {"raw_postgres.orders": old}
    assert ask("SELECT count(*) FROM raw_postgres.orders") == [(every[0][0] - old,)]
    company.execute("UPDATE shop.orders SET updated_at = now() WHERE id % 3 = 0")
    load_postgres()
    kept = company.rows(f"SELECT count(*) FROM shop.orders WHERE ordered_at >= now() - interval '{days} days'")
    assert ask("SELECT count(*) FROM raw_postgres.orders") == kept
    with ledger.run("rebuild postgres") as run:
        rebuild("postgres", run)
    assert ask("SELECT count(*) FROM raw_postgres.orders") == kept
