"""The keys of the vault: kept in the stores after what is sealed under them, brought back without those of who was erased, and killed at any moment."""

import os
import signal
import sqlite3
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from integration.backup_home import fill
from integration.object_stores import Backups

from backup.drill import drill_vault
from backup.encryption import Damaged
from backup.plan import is_due, is_of_use, kept, remains
from backup.policy import policy
from backup.restore import Choice, Restored
from backup.take import take_warehouse
from backup.vault import FILE, restore_vault, take_vault
from backup.verify import verify
from backup.watch import watch
from cli.main import cli
from privacy import erasures, subjects, vault_keys
from warehouse import clock
from warehouse.errors import DeclarationError, StepFailed, UsageError, WarehouseError

Fails = Callable[..., WarehouseError]
Setting = Callable[[str, str | None], None]
MASTER = "the master key of a test, longer than thirty-two"


@pytest.fixture
def kept_vault(backups: Backups, home: Path, setting: Setting) -> Path:
    backups.write(lock_days=None, warehouse="{every: 1d, keep: 30d, stores: [a, b]}", vault="{every: 1d, keep: 30d, stores: [a, b]}")
    setting("PRIVACY__VAULT_KEY", MASTER)
    return vault_keys.file()


def _restored(into: Path) -> Restored:
    choice = Choice("vault")
    return restore_vault(choice, choice.at(clock.now()), into)


def _keys(file: Path) -> dict[str, bytes]:
    with sqlite3.connect(file) as connection:
        return dict(connection.execute("SELECT lower(hex(tag)), wrapped FROM keys").fetchall())


def test_the_keys_come_back_without_those_of_who_was_erased_since(kept_vault: Path, tmp_path: Path, backups: Backups, fails: Fails, setting: Setting) -> None:
    made = vault_keys.keys_for(["crm:1", "crm:2", "crm:3"])
    taken = take_vault()
    assert taken.stores == ["a", "b"]
    assert taken.backup.tables["vault.keys"].rows == 3
    assert verify("vault", everything=True).problems == []
    gone = _keys(kept_vault)[subjects.tag("crm", "2")]
    erasures.begin([subjects.tag("crm", "2")], [])
    into = _restored(tmp_path / "back").into
    assert sorted(path.name for path in into.iterdir()) == [FILE]
    assert (into / FILE).stat().st_mode & 0o777 == 0o600
    assert gone not in (into / FILE).read_bytes()
    kept_vault.unlink()
    setting("PRIVACY__VAULT", str(into / FILE))
    numbers = [number for number, _ in made.values()]
    assert vault_keys.keys_by_number(numbers) == {number: key for person, (number, key) in made.items() if person != "crm:2"}
    assert not kept_vault.with_name(".being_backed_up.sqlite").exists()
    assert [(one.failed, one.tables) for one in drill_vault(seed=1)] == [(None, 1)]
    for store in ("a", "b"):
        backups.flip(store, backups.keys(store, ".age")[0])
    assert isinstance(fails(_restored, tmp_path / "damaged"), Damaged)
    assert not (tmp_path / "damaged").exists()
    assert not list(tmp_path.glob(".damaged*"))
    assert drill_vault(seed=1)[0].failed


def test_they_are_due_after_each_backup_of_what_is_sealed_and_never_without_a_vault(
    kept_vault: Path, home: Path, backups: Backups, setting: Setting, fails: Fails, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not is_due("vault", kept("vault"))
    assert not is_of_use("vault", kept("vault"))
    assert [one for one in watch() if one.what == "vault"] == []
    assert "there is no vault" in fails(take_vault).what
    fill(home)
    cli.main(["backup", "run", "vault"], standalone_mode=False)
    assert "no vault: nothing is sealed yet" in capsys.readouterr().out
    take_warehouse([], 0)
    for everything in (["backup", "verify"], ["backup", "list"], ["backup", "plan"], ["backup", "uncover"], ["drill"]):
        cli.main(everything, standalone_mode=False)  # each raises what it finds wrong
    vault_keys.keys_for(["crm:1"])
    assert is_due("vault", kept("vault"))
    assert [one.check for one in watch() if one.what == "vault"] == ["backup_age", "backup_age"]
    take_vault()
    assert not is_due("vault", kept("vault"), {"warehouse": kept("warehouse")})
    setting("WAREHOUSE_NOW", (clock.now() + timedelta(minutes=1)).isoformat())
    take_warehouse([], 0)  # after the keys
    assert is_due("vault", kept("vault"), {"warehouse": kept("warehouse")})
    cli.main(["backup", "run", "vault", "--due"], standalone_mode=False)
    assert not is_due("vault", kept("vault"), {"warehouse": kept("warehouse")})
    assert len(kept("vault")[0].backups) == 2
    kept_vault.unlink()
    assert is_of_use("vault", kept("vault"))  # a vault that is lost is missed


def test_a_destroyed_key_is_gone_from_the_stores_after_thirty_days(kept_vault: Path, backups: Backups, setting: Setting) -> None:
    vault_keys.keys_for(["crm:1", "crm:2"])
    take_vault()
    vault_keys.destroy([(subjects.tag("crm", "1"), (clock.now() + timedelta(seconds=1)).isoformat())])
    assert any(one["what"] == "backups of vault made before" for one in remains())
    setting("WAREHOUSE_NOW", (clock.now() + timedelta(days=31)).isoformat())
    taken = take_vault()
    assert {store: len(gone) for store, gone in taken.deleted.items()} == {"a": 1, "b": 1}
    assert [len(backups.keys(store, ".index")) for store in ("a", "b")] == [1, 1]


def test_a_policy_that_keeps_keys_for_longer_than_thirty_days_is_refused(kept_vault: Path, backups: Backups, fails: Fails) -> None:
    backups.write(lock_days=None, warehouse="{every: 1d, keep: 30d, stores: [a, b]}", vault="{every: 1d, keep: 31d, stores: [a, b]}")
    error = fails(policy)
    assert isinstance(error, DeclarationError)
    assert "data.vault.keep is longer than vault.copies_kept_days of privacy/policy.yaml, 30" in str(error)


def test_the_master_key_is_changed_and_the_one_before_opens_nothing_any_more(kept_vault: Path, setting: Setting, fails: Fails) -> None:
    made = vault_keys.keys_for(["crm:1", "crm:2"])
    before = _keys(kept_vault)
    setting("PRIVACY__VAULT_KEY", "another master key, also longer than thirty-two")
    assert "PRIVACY__VAULT_KEY_BEFORE is not set" in fails(vault_keys.change_master).what
    setting("PRIVACY__VAULT_KEY_BEFORE", "a third master key, which is not that of the vault")
    assert "PRIVACY__VAULT_KEY_BEFORE is not the key of the vault" in fails(vault_keys.change_master).what
    setting("PRIVACY__VAULT_KEY_BEFORE", MASTER)
    cli.main(["privacy", "rotate-vault-key"], standalone_mode=False)
    assert vault_keys.change_master() == 0
    assert vault_keys.keys_for(["crm:1", "crm:2"]) == made
    left = b"".join(path.read_bytes() for path in kept_vault.parent.iterdir())
    assert not any(wrapped in left for wrapped in before.values())
    setting("PRIVACY__VAULT_KEY", MASTER)
    assert "is not the key of the vault" in fails(vault_keys.keys_for, ["crm:1"]).what


def _killed_at(statement: int, work: Callable[[], object]) -> bool:
    """Do it in a process of its own that is killed when SQLite begins its so-manieth statement; whether it came so far."""
    child = os.fork()
    if child == 0:
        seen, connect = [0], sqlite3.connect

        def traced(*given: object, **named: object) -> sqlite3.Connection:
            made: sqlite3.Connection = connect(*given, **named)  # type: ignore[call-overload]  # passed through

            def count(text: str) -> None:
                seen[0] += 1
                if seen[0] == statement:
                    os.kill(os.getpid(), signal.SIGKILL)

            made.set_trace_callback(count)
            return made

        sqlite3.connect = traced  # type: ignore[assignment]  # in the child alone
        try:
            work()
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("work", ["destroy", "change master"])
def test_killed_at_any_statement_it_is_done_by_the_next_and_leaves_no_byte(kept_vault: Path, setting: Setting, work: str) -> None:
    made = vault_keys.keys_for(["crm:1", "crm:2"])
    setting("PRIVACY__VAULT_KEY_BEFORE", MASTER)
    tag, statement, before = subjects.tag("crm", "1"), 0, kept_vault.read_bytes()
    while True:
        statement += 1
        for path in kept_vault.parent.iterdir():
            path.unlink()
        kept_vault.write_bytes(before)
        wrapped = _keys(kept_vault)
        setting("PRIVACY__VAULT_KEY", MASTER if work == "destroy" else "another master key, also longer than thirty-two")
        again = (lambda: vault_keys.destroy([(tag, "2100-01-01T00:00:00+00:00")])) if work == "destroy" else vault_keys.change_master
        was_killed = _killed_at(statement, again)
        again()
        left = b"".join(path.read_bytes() for path in kept_vault.parent.iterdir())
        if work == "destroy":
            assert wrapped[tag] not in left
            assert bytes.fromhex(tag) not in left
            assert vault_keys.keys_by_number(number for number, _ in made.values()) == {made["crm:2"][0]: made["crm:2"][1]}
        else:
            assert not any(one in left for one in wrapped.values())
            assert vault_keys.keys_for(["crm:1", "crm:2"]) == made
        if not was_killed:
            break
    assert statement > 15


def test_a_restore_whose_ledger_is_missing_is_refused(kept_vault: Path, tmp_path: Path, fails: Fails) -> None:
    vault_keys.keys_for(["crm:1"])
    erasures.begin([subjects.tag("crm", "2")], [])
    take_vault()
    for path in erasures.ledger().path.parent.iterdir():
        path.unlink()
    error = fails(_restored, tmp_path / "back")
    assert isinstance(error, StepFailed)
    assert not isinstance(error, UsageError)
    assert "ledger of erasures is missing" in error.what
    assert not (tmp_path / "back").exists()
