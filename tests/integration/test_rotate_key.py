"""A key of pseudonyms is changed: everything held is hashed once more, joins and look-ups still hit, a kill at any moment is made good."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import psycopg2
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from demo.server import Server
from pipelines import landing
from pipelines.load import load
from pipelines.rebuild import rebuild
from privacy import audit, consent, erase, erasures, keys, records, replay, rotate, subjects, vault, vault_keys
from tests.conftest import KEY, Company, ask, call, load_postgres
from warehouse import clock, ledger, storage
from warehouse.errors import UsageError, WarehouseError
from warehouse.lease import lease
from warehouse.settings import reload, settings

NEW = "another key of the tests, longer than thirty-two characters"
MASTER = "a master key of the tests, longer than thirty-two"
ZOE, ANN = "zoe.unique@example.com", "ann.unique@example.com"
_KILLED = """
import os, signal
from privacy import chain, files, key_state, rekey, rekey_records, vault_keys
from cli.main import main
def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)
{}
main()
"""
_SET = {"PRIVACY__HMAC_KEY": KEY, "PRIVACY__VAULT_KEY": MASTER}
MOMENTS = [
    "rekey_records.seal_anew = die",  # when the vault has new names
    "chain.Chain._note = die",  # between a record and its anchor
    "rekey._raw = lambda connection, really=rekey._raw: (really(connection), die())",
    "files._replace = lambda *given, really=files._replace: (really(*given), die())",  # after the first landed file
    "key_state.note = die",  # when built tables are done
    "files.compact = die",  # when all is noted, and the old bytes are still in the file
]


@pytest.fixture(scope="module")
def kept(company_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Company]]:
    """A small company, loaded and built with the first key; one of its customers, also at Stripe, was erased; the vault knows another."""
    name = f"rotate_{os.getpid()}"
    with pytest.MonkeyPatch.context() as patch, closing(psycopg2.connect(company_server.url())) as admin:
        admin.autocommit = True
        admin.cursor().execute(f'CREATE DATABASE "{name}" TEMPLATE shop')
        company, home = Company(company_server, name), tmp_path_factory.mktemp("rotate") / "home"
        for variable, value in _SET.items():
            patch.setenv(variable, value)
        patch.setenv("WAREHOUSE_HOME", str(home))
        patch.setenv("SOURCES__POSTGRES__CREDENTIALS", company.reader_url)
        reload()
        company.execute(
            "DELETE FROM shop.orders WHERE user_id > 60",
            "DELETE FROM shop.users WHERE id > 60",
            f"UPDATE shop.users SET email = 'Zoe.Unique@example.com' WHERE id = 42; UPDATE shop.users SET email = '{ANN}' WHERE id = 43",
        )
        load_postgres()
        _at_stripe(home)
        with ledger.run("privacy erase") as run, lease("test"):
            erase.erase([subjects.parse("user:42")], run, lambda models: None)
            consent.record([consent.say(subjects.parse(one), "marketing", is_given=True, source="form") for one in (f"email:{ANN}", "user:44")])
        (home / "mark").write_text(erasures.mark() or "")
        yield home, company
        admin.cursor().execute(f'DROP DATABASE "{name}" WITH (FORCE)')
    reload()


def _at_stripe(home: Path) -> None:
    stamp, hashed = clock.now(), [subjects.hashed(ZOE), subjects.hashed(ANN), None]
    rows = pa.table({"id": ["cus_Zoe", "cus_Ann", "cus_None"], "email_hash": pa.array(hashed, pa.string()), "_privacy_key_id": ["k1"] * 3,
                     "_object": ["{}"] * 3, "created_at": [stamp] * 3, "_loaded_at": [stamp] * 3})  # fmt: skip
    file = home / "customers.parquet"
    pq.write_table(rows, file)
    landing.mark_loaded(landing.keep("stripe", "customers", "1.0", file, ["id"]))
    with storage.open_warehouse() as connection:
        connection.execute(f"CREATE SCHEMA raw_stripe; CREATE TABLE raw_stripe.customers AS SELECT * FROM read_parquet('{file}')")
        chosen = "id AS user_id, email_hash, 'email:' || email_hash AS customer_key, sha256(id::VARCHAR) AS digest FROM raw_postgres.users"
        connection.execute(f"CREATE SCHEMA sqlmesh__marts; CREATE TABLE sqlmesh__marts.marts__user_dim_history__1 AS SELECT {chosen}")
        vault.Sealer(connection).seal(pa.table({"id": [43], "email_hash": [hashed[1]], "country": ["FR"]}), "postgres", "users")
    file.unlink()


@pytest.fixture
def world(kept: tuple[Path, Company], home: Path, setting: Callable[[str, str | None], None]) -> Company:
    """A copy of that home, in force."""
    shutil.copytree(kept[0], home)
    for name, value in {**_SET, "SOURCES__POSTGRES__CREDENTIALS": kept[1].reader_url}.items():
        setting(name, value)
    return kept[1]


@pytest.fixture
def changed(world: Company, setting: Callable[[str, str | None], None]) -> Company:
    """The same, with a new key set."""
    setting("PRIVACY__HMAC_KEYS_BEFORE", json.dumps({"k1": KEY}))
    setting("PRIVACY__HMAC_KEY", NEW)
    setting("PRIVACY__HMAC_KEY_ID", "k2")
    return world


def rotated() -> rotate.Rotated:
    with ledger.run("privacy rotate-key") as run, lease("test"):
        return rotate.rotate(run, lambda: None)


def old_hash(text: str) -> str:
    return keys.chained(text, until=1)


def files_with(home: Path, text: str) -> list[str]:
    wanted = text.encode()
    found = []
    for file in (path for path in home.rglob("*") if path.is_file() and "duckdb_extensions" not in path.parts):
        content = file.read_bytes() + (repr(pq.read_table(file).to_pydict()).encode() if file.suffix == ".parquet" else b"")
        if wanted in content or bytes.fromhex(text) in content:
            found.append(str(file.relative_to(home)))
    return found


def test_until_all_is_hashed_again_nothing_is_loaded_or_erased(changed: Company, fails: Callable[..., WarehouseError]) -> None:
    with ledger.run("load postgres") as run:
        refused = fails(load, "postgres", run)
    assert "what is held was made with k1, or is a mixture" in refused.what
    assert "rotate-key" in refused.mend
    with lease("test"):
        assert "mixture" in fails(erase.plan, [subjects.parse("user:43")]).what
    assert "PRIVACY__HMAC_KEY is not set" not in refused.what


@pytest.mark.parametrize(("key_id", "key", "said"), [("k1", NEW, "with the id k1 is not the one that was used before"), ("k9", NEW, "made with the keys k1")])
def test_another_key_is_refused(
    world: Company, setting: Callable[[str, str | None], None], fails: Callable[..., WarehouseError], key_id: str, key: str, said: str
) -> None:
    setting("PRIVACY__HMAC_KEY", key)
    setting("PRIVACY__HMAC_KEY_ID", key_id)
    with ledger.run("load postgres") as run:
        assert said in fails(load, "postgres", run).what


def test_killed_at_every_moment_it_ends_with_everything_hashed_again(changed: Company, home: Path, fails: Callable[..., WarehouseError]) -> None:
    before = ask("SELECT id, email_hash FROM raw_postgres.users WHERE email_hash IS NOT NULL ORDER BY id")
    digests = ask("SELECT digest FROM sqlmesh__marts.marts__user_dim_history__1 ORDER BY ALL")
    certificate = erase.certificate_file(1).read_text()
    for moment in MOMENTS:
        killed = call("privacy", "rotate-key", script=_KILLED.format(moment))
        assert killed.code == -9, (moment, killed.err)
    done = rotated()
    assert done.keys == ["k1", "k2"]
    assert rotated().places == {}, "what is done is not done again"

    assert ask("SELECT id, email_hash FROM raw_postgres.users WHERE email_hash IS NOT NULL ORDER BY id") == [
        (user, keys.chained(hashed, since=1)) for user, hashed in before
    ]
    assert ask("SELECT DISTINCT _privacy_key_id FROM raw_postgres.users UNION SELECT _privacy_key_id FROM raw_stripe.customers") == [("k2",)]
    joined = "SELECT c.id, u.id, h.user_id, h.customer_key = 'email:' || u.email_hash FROM raw_stripe.customers c JOIN raw_postgres.users u USING (email_hash) "
    assert ask(f"{joined} JOIN sqlmesh__marts.marts__user_dim_history__1 h USING (email_hash)") == [("cus_Ann", 43, 43, True)]
    assert ask("SELECT digest FROM sqlmesh__marts.marts__user_dim_history__1 ORDER BY ALL") == digests, "what is no pseudonym stays"
    for text in (old_hash(ANN), before[0][1], old_hash("postgres:43"), old_hash("postgres:42"), old_hash(f"email:{old_hash(ZOE)}")):
        assert files_with(home, text) == []
    for package in [*landing.packages("postgres"), *landing.packages("stripe")]:
        landing.verify(package)
    assert records.problems() == []
    mark = (home / "mark").read_text()
    erasures.require([mark])  # as a backup from before noted it
    assert "is another one" in fails(erasures.require, [mark[:-1] + ("0" if mark[-1] != "0" else "1")]).what
    consents = [("postgres", "43", True), ("postgres", "44", True), ("stripe", "cus_Ann", True)]
    assert ask("SELECT source, source_key, is_given FROM raw_privacy.consents ORDER BY ALL") == consents
    assert erase.is_genuine(certificate), "one that was handed out stays genuine"
    assert erase.is_genuine(erase.certificate_file(1).read_text())
    assert [line["what"] for line in audit.trail().lines()][-1] == "rotate-key"


def test_afterwards_loads_fit_what_was_erased_stays_erased_and_backups_from_before_follow(changed: Company, home: Path) -> None:
    shutil.copytree(home / "landing", home / "old_landing")
    shutil.copy(home / "warehouse.duckdb", home / "old.duckdb")
    rotated()
    held = ask("SELECT id, email_hash FROM raw_postgres.users ORDER BY id")
    changed.execute(
        "UPDATE shop.users SET country = 'FR', updated_at = now() WHERE id IN (42, 43)",
        "UPDATE shop.users SET email = 'New@b.co', updated_at = now() WHERE id = 44",
    )
    load_postgres()
    loaded = dict(ask("SELECT id, email_hash FROM raw_postgres.users ORDER BY id"))
    assert loaded == {**dict(held), 44: subjects.hashed("new@b.co")}, "the same person has the same pseudonym, and user 42 stays away"
    again = pa.table({"id": ["cus_2"], "email_hash": [subjects.hashed(ZOE)], "created_at": [None], "_privacy_key_id": ["k2"]})
    pq.write_table(again, home / "again.parquet")
    assert erasures.suppress("stripe", "customers", home / "again.parquet") == 1, "the suppression list knows the email by its new pseudonym"
    with storage.open_warehouse() as connection:
        assert {one.kind for one in subjects.resolve(connection, [subjects.parse(f"email:{ANN}")])} == {"email", "postgres", "stripe"}
    with ledger.run("rebuild postgres") as run:
        rebuild("postgres", run)
    assert dict(ask("SELECT id, email_hash FROM raw_postgres.users ORDER BY id")) == loaded
    (home / "warehouse.duckdb").unlink()
    shutil.rmtree(home / "landing")
    shutil.move(home / "old.duckdb", home / "warehouse.duckdb")
    shutil.move(home / "old_landing", home / "landing")
    replay.replay_home(home, ["1:"])
    assert ask("SELECT id, email_hash FROM raw_postgres.users ORDER BY id") == held
    landed = [package.file for package in landing.packages("postgres", "users")]
    assert {key for file in landed for key in pq.read_table(file).column("_privacy_key_id").to_pylist()} == {"k2"}
    assert vault_keys.destroy([(subjects.tag("postgres", "43"), "2100-01-01T00:00:00+00:00")]) == 1, "the vault knows its persons by their new tags"


def test_the_key_stands_in_no_sql_text_and_no_log(changed: Company, home: Path) -> None:
    with storage.open_warehouse() as connection:
        connection.execute("SET enable_logging = true; SET logging_level = 'trace'")
        from privacy import rekey

        assert rekey.rekey(connection, settings().landing)["raw_postgres.users"] == 60
        said = repr(connection.execute("SELECT * FROM duckdb_logs").fetchall())
    forms = [form for key in (KEY.encode(), NEW.encode()) for form in (key, *keys.padded(key))]
    assert "UPDATE raw_postgres" in said
    assert not [form for form in forms if form.decode("latin-1") in said or form.hex() in said.lower() or repr(form)[2:-1] in said]


def test_keys_that_cannot_be_right_are_refused(home: Path, setting: Callable[[str, str | None], None], fails: Callable[..., WarehouseError]) -> None:
    setting("PRIVACY__HMAC_KEYS_BEFORE", json.dumps({"k1": NEW}))
    assert "a key before has that id too" in fails(keys.ring).what
    setting("PRIVACY__HMAC_KEYS_BEFORE", '{"k0": "short"}')
    assert "has 5 characters" in fails(keys.ring).what
    setting("PRIVACY__HMAC_KEYS_BEFORE", None)
    with pytest.raises(UsageError, match="nothing to change it from"):
        rotated()
