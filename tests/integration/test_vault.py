"""The vault: personal data sealed under the keys of the persons it is about; destroying a key erases it in every copy."""

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from privacy import audit, erase, policy, reveal, subjects, vault, vault_keys
from tests.conftest import Company, ask, load_postgres
from warehouse import clock, ledger, storage
from warehouse.errors import WarehouseError
from warehouse.lease import lease
from warehouse.settings import reload, settings

POLICY = """
columns:
  crm.people:
    mail: {class: email, action: hmac}
    name: {class: name, action: keep, why: it is sealed in archives}
  crm.tickets:
    body: {class: free_text, action: keep, why: it is sealed in archives}
subjects:
  crm.people: {person: crm, email: mail_hash, erase: blank, keep: [since], why: sales refer to it}
  crm.sales: {of: {buyer: crm, receipt_hash: email}, erase: blank, forget: [note], trees: [_object], why: accounting keeps it}
  crm.tickets: {of: {asked_by: crm}, mentions: {answered_by: crm}, lists: {copied: crm}, erase: remove}
  crm.comments: {within: {ticket: crm.tickets}, erase: remove}
"""
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
MAIL = {number: f"{number:064x}" for number in range(1, 9)}


@pytest.fixture
def vaulted(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[vault.Sealer]:
    file = tmp_path / "policy.yaml"
    file.write_text(f"vault: {{readers: [{audit.who()}]}}\n{POLICY}")
    monkeypatch.setattr(policy, "POLICY_FILE", file)
    monkeypatch.setenv("PRIVACY__VAULT_KEY", "the master key of a test, longer than thirty-two")
    reload()
    with storage.scratch() as connection:
        yield vault.Sealer(connection)


def people(*numbers: int) -> pa.Table:
    return pa.table(
        {
            "id": pa.array(numbers, pa.int32()),
            "mail_hash": pa.array([MAIL[number] for number in numbers], pa.string()),
            "is_mail_valid": [True] * len(numbers),
            "name": pa.array([None if number == 3 else f"Ünal {number}" for number in numbers], pa.string()),
            "born": pa.array([date(1990, 1, number) for number in numbers]),
            "since": pa.array([NOW] * len(numbers), pa.timestamp("us", "UTC")),
            "_loaded_at": pa.array([NOW] * len(numbers), pa.timestamp("us", "UTC")),
        }
    )


def sales(*rows: tuple[int | None, int | None]) -> pa.Table:
    return pa.table(
        {
            "id": pa.array(range(len(rows))),
            "buyer": pa.array([buyer for buyer, _ in rows], pa.int64()),
            "receipt_hash": pa.array([MAIL.get(mail or 0) for _, mail in rows], pa.string()),
            "amount": pa.array([Decimal("3.50")] * len(rows), pa.decimal128(12, 2)),
            "note": ["by hand"] * len(rows),
            "_object": ['{"a": 1}'] * len(rows),
        }
    )


def erased(kind: str, value: str, at: datetime | None = None) -> tuple[str, str]:
    return subjects.tag(kind, value), (at or clock.now() + timedelta(seconds=1)).isoformat()


def opened(sealer: vault.Sealer, table: pa.Table, name: str) -> pa.Table:
    return sealer.unseal(table, "crm", name, purpose="a test")


def test_what_was_sealed_is_opened_as_it_was_and_nothing_personal_is_left_beside(vaulted: vault.Sealer) -> None:
    rows = people(1, 2, 3)
    sealed = vaulted.seal(rows, "crm", "people")
    assert sealed.column_names == ["id_sealed", "mail_hash_sealed", "is_mail_valid_sealed", "name_sealed", "born_sealed", "since", "_loaded_at"]
    assert sealed.column("name_sealed").null_count == 1
    held = b"".join(value for column in sealed.column_names[:5] for value in sealed.column(column).to_pylist() if value)
    assert "Ünal".encode() not in held
    assert MAIL[1].encode() not in held
    assert opened(vaulted, sealed, "people").equals(rows)


def test_a_row_without_a_subject_is_null_and_a_table_of_nobodys_rows_stays(vaulted: vault.Sealer) -> None:
    sealed = vaulted.seal(sales((1, None), (None, None)), "crm", "sales")
    assert sealed.column_names == ["id", "buyer_sealed", "receipt_hash_sealed", "amount", "note_sealed", "_object_sealed"]
    assert sealed.column("note_sealed").to_pylist()[1] is None
    nobodys = pa.table({"name": ["x"]})
    assert vaulted.seal(nobodys, "crm", "shops") is nobodys


@pytest.mark.parametrize(("kind", "value"), [("crm", "1"), ("email", MAIL[7])])
def test_destroying_the_key_of_any_of_its_persons_makes_a_row_unreadable(vaulted: vault.Sealer, kind: str, value: str) -> None:
    rows = sales((1, 7), (2, 8), (1, None))
    sealed = vaulted.seal(rows, "crm", "sales")
    assert vault_keys.destroy([erased(kind, value)]) == 1
    notes = opened(vaulted, sealed, "sales").column("note").to_pylist()
    assert notes == [None, "by hand", None if kind == "crm" else "by hand"]
    assert vaulted.destroyed == (8 if kind == "crm" else 4) - (0 if kind == "email" else 1)


def test_who_comes_later_with_the_same_email_has_a_key_of_his_own(vaulted: vault.Sealer) -> None:
    before = vaulted.seal(sales((None, 7)), "crm", "sales")
    at = erased("email", MAIL[7])
    vault_keys.destroy([at])
    later = clock.now() + timedelta(hours=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clock, "now", lambda: later)
        after = vaulted.seal(sales((None, 7)), "crm", "sales")
    assert vault_keys.destroy([at]) == 0  # as a restore would do it again
    assert opened(vaulted, before, "sales").column("note").to_pylist() == [None]
    assert opened(vaulted, after, "sales").column("note").to_pylist() == ["by hand"]


def test_a_mention_and_a_list_go_with_each_one_they_name_and_a_comment_with_its_ticket(vaulted: vault.Sealer) -> None:
    tickets = pa.table({"id": [10, 11], "asked_by": [1, 2], "answered_by": [5, None], "copied": ["[3, 4]", None], "body": ["help", "thanks"], "score": [1, 2]})
    comments = pa.table({"id": [100, 101], "ticket": [10, 11], "text": ["so", "yes"]})
    sealed, under = vaulted.seal(tickets, "crm", "tickets"), vaulted.seal(comments, "crm", "comments")
    assert sealed.column_names == ["id", "asked_by_sealed", "answered_by_sealed", "copied_sealed", "body_sealed", "score"]
    assert opened(vaulted, sealed, "tickets").equals(tickets)
    assert vault_keys.destroy([erased("crm", "4"), erased("crm", "5")]) == 2
    left = opened(vaulted, sealed, "tickets").to_pylist()[0]
    assert (left["asked_by"], left["answered_by"], left["copied"], left["body"]) == (1, None, None, "help")
    assert vault_keys.destroy([erased("crm", "1")]) == 2  # the ticket's key goes along
    assert opened(vaulted, under, "comments").column("text").to_pylist() == [None, "yes"]


def test_a_destroyed_key_leaves_no_byte_in_the_vault_and_no_copy_opens_what_it_sealed(vaulted: vault.Sealer, tmp_path: Path) -> None:
    sealed = vaulted.seal(people(1, 2), "crm", "people")
    store = vault_keys.file()
    with sqlite3.connect(store) as connection:
        before = dict(connection.execute("SELECT hex(tag), wrapped FROM keys").fetchall())
    gone = before[subjects.tag("crm", "1").upper()]
    assert gone in store.read_bytes()
    shutil.copy(store, tmp_path / "old.sqlite")
    assert vault_keys.destroy([erased("crm", "1")]) == 1
    left = b"".join(path.read_bytes() for path in store.parent.iterdir())
    assert gone not in left
    assert bytes.fromhex(subjects.tag("crm", "1")) not in left
    assert opened(vaulted, sealed, "people").column("id").to_pylist() == [None, 2]
    shutil.copy(tmp_path / "old.sqlite", store)  # a vault restored from before brings the key back, until the replay
    assert opened(vaulted, sealed, "people").column("id").to_pylist() == [1, 2]
    vault_keys.destroy([erased("crm", "1")])
    assert opened(vaulted, sealed, "people").column("id").to_pylist() == [None, 2]


def test_a_value_is_bound_to_its_column_and_an_altered_one_is_refused(vaulted: vault.Sealer, fails: Callable[..., WarehouseError]) -> None:
    sealed = vaulted.seal(sales((1, None)), "crm", "sales")
    moved = sealed.set_column(4, "note_sealed", sealed.column("_object_sealed"))
    assert "crm.sales.note was altered" in fails(opened, vaulted, moved, "sales").what
    value = sealed.column("note_sealed").to_pylist()[0]
    cut = sealed.set_column(4, "note_sealed", pa.array([value[:-1] + bytes([value[-1] ^ 1])], pa.binary()))
    assert "was altered" in fails(opened, vaulted, cut, "sales").what
    assert "is none" in fails(opened, vaulted, sealed.set_column(4, "note_sealed", pa.array([b"note"], pa.binary())), "sales").what


def test_only_who_is_named_reads_and_each_reading_is_noted(
    vaulted: vault.Sealer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: Callable[..., WarehouseError]
) -> None:
    sealed = vaulted.seal(people(1), "crm", "people")
    opened(vaulted, sealed, "people")
    line: dict[str, Any] = list(audit.trail().lines())[-1]
    assert (line["what"], line["table"], line["purpose"]) == ("unseal", "crm.people", "a test")
    assert line["subjects"] == sorted([subjects.tag("crm", "1"), subjects.tag("email", MAIL[1])])
    other = tmp_path / "nobody.yaml"
    other.write_text(POLICY)
    monkeypatch.setattr(policy, "POLICY_FILE", other)
    assert "may not read the vault" in fails(opened, vaulted, sealed, "people").what


def test_a_wrong_master_key_and_another_vault_are_refused(vaulted: vault.Sealer, monkeypatch: pytest.MonkeyPatch, fails: Callable[..., WarehouseError]) -> None:
    sealed = vaulted.seal(people(1), "crm", "people")
    monkeypatch.setenv("PRIVACY__VAULT_KEY", "another master key, also longer than thirty-two")
    reload()
    assert "is not the key of the vault" in fails(vaulted.seal, people(1), "crm", "people").what
    vault_keys.file().unlink()
    assert "another vault" in fails(opened, vaulted, sealed, "people").what
    monkeypatch.delenv("PRIVACY__VAULT_KEY")
    reload()
    assert "PRIVACY__VAULT_KEY is not set" in fails(vaulted.seal, people(1), "crm", "people").what


def test_a_copy_of_the_vault_is_whole_and_none_is_kept_for_too_long(
    vaulted: vault.Sealer, tmp_path: Path, setting: Callable[[str, str | None], None], fails: Callable[..., WarehouseError]
) -> None:
    sealed = vaulted.seal(people(1, 2), "crm", "people")
    assert "inside WAREHOUSE_HOME" in fails(vault_keys.back_up, settings().home / "copies").what
    first = vault_keys.back_up(tmp_path / "copies")
    vault_keys.file().unlink()
    shutil.copy(first, settings().vault_file)
    assert opened(vaulted, sealed, "people").column("id").to_pylist() == [1, 2]
    setting("WAREHOUSE_NOW", (clock.now() + timedelta(days=31)).isoformat())
    second = vault_keys.back_up(tmp_path / "copies")
    assert list((tmp_path / "copies").iterdir()) == [second]


LOADED = """
columns:
  postgres.users:
    email: {class: email, action: hmac}
    phone: {class: phone, action: encrypt}
    ssn: {class: ssn, action: redact}
subjects:
  postgres.users: {person: postgres, email: email_hash, erase: blank, keep: [created_at, updated_at], why: orders refer to it}
  postgres.orders: {of: {user_id: postgres}, erase: blank, why: accounting keeps every order}
"""


def test_a_column_is_sealed_before_it_is_written_and_read_again_until_its_person_is_erased(
    company: Company, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: Callable[..., WarehouseError]
) -> None:
    monkeypatch.setattr(policy, "POLICY_FILE", tmp_path / "policy.yaml")
    policy.POLICY_FILE.write_text(f"vault: {{readers: [{audit.who()}]}}\n{LOADED}")
    company.execute(
        "DELETE FROM shop.orders",
        "DELETE FROM shop.users WHERE id > 50",
        "UPDATE shop.users SET phone = '+1 555 010 4477' WHERE id = 42",
    )
    assert "PRIVACY__VAULT_KEY is not set" in fails(load_postgres).what
    monkeypatch.setenv("PRIVACY__VAULT_KEY", "the master key of a test, longer than thirty-two")
    reload()
    assert load_postgres()["users"].rows_written == 50
    assert ask("SELECT count(DISTINCT phone_sealed) FROM raw_postgres.users") == [(50,)]
    company.execute("UPDATE shop.users SET phone = '+1 555 010 9999', updated_at = now() WHERE id = 7")
    assert load_postgres()["users"].rows_written == 1, "what did not change is the same bytes"
    for file in (path for path in home.rglob("*") if path.is_file() and "duckdb_extensions" not in path.parts):
        assert b"010 4477" not in file.read_bytes() + (repr(pq.read_table(file).to_pydict()).encode() if file.suffix == ".parquet" else b"")
    shutil.copytree(home, tmp_path / "backup")

    named = [subjects.parse("user:42")]
    with lease("test"):
        assert reveal.reveal(named, "a complaint") == {"raw_postgres.users": [{"id": 42, "phone": "+1 555 010 4477"}]}
    with ledger.run("privacy erase") as run, lease("test"):
        certificate = erase.erase(named, run, lambda models: None)
    assert certificate.places["vault"] == {"keys": 2}
    with storage.scratch() as connection:
        connection.execute(f"ATTACH '{tmp_path / 'backup' / 'warehouse.duckdb'}' AS backup (READ_ONLY)")
        old = connection.execute("SELECT phone_sealed FROM backup.raw_postgres.users WHERE id IN (7, 42) ORDER BY id").to_arrow_table()
        landed = connection.execute(
            f"SELECT phone_sealed FROM read_parquet('{tmp_path}/backup/landing/postgres/users/*/*.parquet') WHERE id = 42"
        ).to_arrow_table()
        opened = [vault.Sealer(connection).unseal(rows, "postgres", "users", purpose="a test").to_pylist() for rows in (old, landed)]
    assert opened == [[{"phone": "+1 555 010 9999"}, {"phone": None}], [{"phone": None}]], "no copy from before is read any more"


def test_a_policy_that_encrypts_rows_of_nobody_is_refused(tmp_path: Path, fails: Callable[..., WarehouseError]) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text("columns: {crm.people: {name: {class: name, action: encrypt}}}")
    assert "columns.crm.people.name: what is encrypted is sealed under its person's key" in fails(policy.policy, file).what
