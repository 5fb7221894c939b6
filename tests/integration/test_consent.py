"""A mart for a purpose holds nobody who did not consent, who took it back, or who was erased; and what is wrong is refused whole."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pytest
from conftest import ask, call
from sqlmesh import macro
from sqlmesh.core.dialect import parse
from sqlmesh.core.model import load_sql_based_model

import macros.consent
from privacy import consent, erase, policy, subjects
from privacy.policy import Policy
from transform.inputs import Inputs
from warehouse import ledger, storage
from warehouse.errors import DeclarationError, WarehouseError
from warehouse.lease import lease
from warehouse.settings import ROOT

Fails = Callable[..., WarehouseError]
AT = datetime(2026, 1, 1, tzinfo=UTC)
LATER = datetime(2026, 2, 1, tzinfo=UTC)


@pytest.fixture
def world(home: Path) -> Path:
    """Users 1 to 5, of whom 4 and 5 share an email, and a customer of Stripe who is user 1."""
    with storage.open_warehouse() as connection:
        connection.execute("CREATE SCHEMA raw_postgres; CREATE SCHEMA raw_stripe; CREATE SCHEMA marts; CREATE SCHEMA staging")
        hashes = [subjects.hashed(f"{name}@example.com") for name in ("a", "b", "c", "both", "both")]
        connection.execute("CREATE TABLE raw_postgres.users (id BIGINT, email_hash VARCHAR, accepts BOOLEAN, created_at TIMESTAMPTZ, updated_at TIMESTAMPTZ)")
        users = [[number, one, AT, AT] for number, one in enumerate(hashes, start=1)]
        connection.executemany("INSERT INTO raw_postgres.users VALUES (?, ?, NULL, ?, ?)", users)
        connection.execute("CREATE TABLE raw_stripe.customers AS SELECT 'cus_1' AS id, ? AS email_hash, '{}' AS _object", [hashes[0]])
    return home


def audience() -> list[str]:
    """Whom the mart holds after a build: the models' own queries, over identities and customers made simple."""
    assert macros.consent.consented
    with lease("test"), storage.open_warehouse() as connection:
        consent.expose(connection)
        persons = "SELECT 'postgres' AS source, id::VARCHAR AS source_key, 'postgres:' || id AS customer_key FROM raw_postgres.users"
        connection.execute(f"CREATE OR REPLACE VIEW marts.identity_map AS {persons} UNION ALL SELECT 'stripe', id, 'postgres:1' FROM raw_stripe.customers")
        connection.execute(
            "CREATE OR REPLACE VIEW marts.customer_360 AS SELECT 'postgres:' || id AS customer_key, id AS user_id, false AS is_deleted, 'FR' AS country, "
            "'consumer' AS segment, 'active' AS status, 1 AS orders, DATE '2026-01-01' AS last_order_date FROM raw_postgres.users"
        )
        for path in ("staging/privacy/stg_privacy__consents", "marts/core/consents", "marts/customers/marketing_audience"):
            _build(connection, path)
        return [key for (key,) in connection.execute("SELECT customer_key FROM marts.marketing_audience ORDER BY 1").fetchall()]


def _build(connection: duckdb.DuckDBPyConnection, path: str) -> None:
    text = (ROOT / "models" / f"{path}.sql").read_text()
    header, query = parse(text, default_dialect="duckdb")
    header.set("expressions", [one for one in header.expressions if one.name != "audits"])  # they are found in a context only
    model = load_sql_based_model([header, query], macros=macro.get_registry(), dialect="duckdb")
    connection.execute(f"CREATE OR REPLACE TABLE {model.name} AS {model.render_query().sql('duckdb')}")


def said(subject: str, *, is_given: bool, at: datetime = AT) -> None:
    with lease("test"):
        consent.record([consent.say(subjects.parse(subject), "marketing", is_given=is_given, source="form", at=at)])


def _state() -> str:
    with storage.open_warehouse() as connection:
        return Inputs.now(connection, ROOT).tables["raw_privacy.consents"]


def test_nobody_is_in_the_audience_without_consent_also_after_withdrawal_and_erasure(world: Path) -> None:
    assert audience() == []
    for subject in ("user:1", "email:B@example.com", "email:both@example.com", "user:3", "zendesk:9"):
        said(subject, is_given=True)
    assert audience() == ["postgres:1", "postgres:2", "postgres:3"], "an email of two persons gives for neither"
    before = _state()
    said("stripe:cus_1", is_given=False, at=LATER)
    assert audience() == ["postgres:2", "postgres:3"], "taken back by any of the persons that the customer is"
    assert _state() != before, "the next run builds what reads it"
    said("user:4", is_given=True)
    said("email:both@example.com", is_given=False, at=LATER)
    assert audience() == ["postgres:2", "postgres:3"], "an email of two persons withdraws for both"

    with ledger.run("privacy erase") as run, lease("test"):
        erase.erase([subjects.parse("user:2")], run, lambda models: None)
    assert audience() == ["postgres:3"]
    with storage.open_warehouse() as connection:
        connection.execute("INSERT INTO raw_postgres.users VALUES (6, ?, NULL, now(), now())", [subjects.hashed("b@example.com")])
    assert audience() == ["postgres:3"], "who comes back has said nothing yet"
    said("user:6", is_given=True, at=datetime.now(UTC))
    assert audience() == ["postgres:3", "postgres:6"]
    stored = (world / "erasures" / "consents.jsonl").read_text()
    assert "example.com" not in stored
    assert "postgres:" not in stored


def test_a_column_of_a_raw_table_speaks_for_its_person(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    column = "{table: postgres.users, column: accepts, purpose: %s, version: '2', at: updated_at}"
    declared = "{purposes: {marketing: {meaning: news, version: '2', past: ['1']}}, columns: [" + column + "]}"
    users = "postgres.users: {person: postgres, email: email_hash, erase: blank, keep: [created_at], why: orders}"
    file = tmp_path / "policy.yaml"
    monkeypatch.setattr(policy, "POLICY_FILE", file)
    file.write_text(f"columns: {{}}\nsubjects: {{{users}}}\nconsent: {declared % 'marketing'}\n")
    with storage.open_warehouse() as connection:
        connection.execute("UPDATE raw_postgres.users SET accepts = id <> 2 WHERE id < 4")
    said("user:3", is_given=False, at=LATER)
    assert audience() == ["postgres:1"]
    assert ask("SELECT version, channel, words FROM marts.consents WHERE customer_key = 'postgres:1'") == [("2", "postgres.users.accepts", 1)]
    for wrong, kept, told in (
        ("sales", "created_at", "no purpose sales with version 2; declared: marketing (1, 2)"),
        ("marketing", "accepts", "stays in rows of erased persons"),
    ):
        text = f"columns: {{}}\nsubjects: {{{users.replace('created_at', kept)}}}\nconsent: {declared % wrong}\n"
        file.write_text(text)
        with pytest.raises(DeclarationError) as error:
            policy.policy()
        assert told in error.value.what
        assert "policy.yaml" in error.value.what


def test_an_undeclared_purpose_stops_the_plan_and_names_file_key_and_what_is_allowed() -> None:
    text = "MODEL (name marts.sent, kind FULL); SELECT customer_key FROM marts.customer_360 WHERE @consented('sales')"
    model = load_sql_based_model(parse(text, default_dialect="duckdb"), macros=macro.get_registry(), dialect="duckdb")
    with pytest.raises(Exception, match=r"@consented\('sales'\): privacy/policy.yaml, consent.purposes: not declared; allowed: marketing") as error:
        model.render_query_or_raise()
    assert "sales" in str(error.value)
    assert set(policy.policy().consent.purposes) == {"marketing"}
    assert Policy(columns={}).consent.purposes == {}


def test_a_file_is_recorded_whole_or_not_at_all(world: Path, tmp_path: Path, fails: Fails) -> None:
    good = {"subject": "user:1", "purpose": "marketing", "given": "given", "source": "shop", "at": "2026-01-01T00:00:00Z"}
    for change, told in (
        ({"purpose": "sales"}, "does not declare 'sales'; declared: marketing"),
        ({"version": "9"}, "version '9' of the purpose marketing is not declared"),
        ({"given": "perhaps"}, "allowed are given and withdrawn"),
        ({"at": "yesterday"}, "no ISO date"),
        ({"at": "2999-01-01"}, "has not come yet"),
        ({"subject": "Jo"}, "a subject is a kind and a key"),
        ({"source": ""}, "source: missing"),
        ({"extra": "1"}, "extra: missing, or not a field"),
    ):
        file = tmp_path / "said.jsonl"
        file.write_text(f"{json.dumps(good)}\n{json.dumps({**good, **change})}\n")
        error = fails(consent.read, file)
        assert told in error.what
        assert "line 2" in error.what
    (tmp_path / "said.csv").write_text("subject,purpose,given,source,at\nuser:1,marketing,given,shop,2026-01-01\nuser:2,marketing,withdrawn,shop,2026-01-01\n")
    ran = call("privacy", "consent", "import", str(tmp_path / "said.csv"))
    assert ran.code == 0, ran.err
    assert audience() == ["postgres:1"]
    ran = call("privacy", "export", "--subject", "user:1", "--out", str(tmp_path / "hers"))
    assert ran.code == 0, ran.err
    assert [row["source"] for row in json.loads((tmp_path / "hers" / "held.json").read_text())["tables"]["consents"]["rows"]] == ["shop"]
    ran = call("privacy", "consent", "withdraw", "--subject", "user:1", "--purpose", "marketing", "--source", "a call")
    assert (ran.code, audience()) == (0, []), ran.err
    assert call("privacy", "consent", "record", "--subject", "user:1", "--purpose", "sales", "--source", "a call").code == 2
