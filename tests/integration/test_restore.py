"""What was backed up comes back equal, into a fresh place only, from whichever store is whole; and drills say whether it would."""

import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyrage
import pytest
from conftest import ask
from integration.backup_home import METRICS, content, fill, trade
from integration.object_stores import Backups

from backup.drill import drill_warehouse
from backup.encryption import Damaged, WrongKey
from backup.restore import Choice, Restored, restore_warehouse
from backup.store import StoreFailed, stores
from backup.take import take_warehouse
from backup.watch import watch
from cli.main import cli
from pipelines import landing
from warehouse import clock, ledger, storage
from warehouse.errors import FindingsFound, StepFailed, UsageError, WarehouseError

Fails = Callable[..., WarehouseError]
Setting = Callable[[str, str | None], None]


@pytest.fixture
def filled(backups: Backups, home: Path) -> Path:
    fill(home)
    return home


def restored(into: Path, as_of: datetime | None = None, **given: object) -> Restored:
    choice = Choice("warehouse", given.pop("only", None))
    return restore_warehouse(choice, choice.at(as_of or clock.now()), into, METRICS, **given)


def test_what_is_restored_is_what_was_backed_up_at_each_point(filled: Path, tmp_path: Path, setting: Setting) -> None:
    points = []
    for day in range(1, 4):
        trade(filled, day)
        taken = take_warehouse(METRICS, 0).backup
        points.append((taken.taken_at, content(filled), ask("SELECT count(*), sum(amount) FROM raw_postgres.orders")))
    trade(filled, 4)
    for index, (at, files, rows) in enumerate(points):
        done = restored(tmp_path / f"back{index}", at + timedelta(microseconds=1))
        assert content(done.into) == files
        assert (done.tables, done.metrics, done.notes) == (1, 2, [])
        setting("WAREHOUSE_HOME", str(done.into))
        assert ask("SELECT count(*), sum(amount) FROM raw_postgres.orders") == rows
        assert [package.rows for package in landing.packages("postgres")] == [2000] * (index + 2)
        assert all(package.folder.is_relative_to(done.into) for package in landing.unsettled("postgres")), "notes name the restored home's packages"
        assert len(ledger.recent_runs(10)) == index + 2
        setting("WAREHOUSE_HOME", str(filled))


def test_a_restored_home_goes_on(filled: Path, tmp_path: Path, setting: Setting) -> None:
    take_warehouse(METRICS, 0)
    into = restored(tmp_path / "back").into
    setting("WAREHOUSE_HOME", str(into))
    trade(into, 1)
    assert ask("SELECT count(*) FROM raw_postgres.orders") == [(4000,)]
    assert take_warehouse(METRICS, 0).backup.tables["raw_postgres.orders"].rows == 4000, "and is backed up to the same stores"


def test_never_over_anything_that_is_there(filled: Path, tmp_path: Path, fails: Fails) -> None:
    take_warehouse(METRICS, 0)
    before = content(filled)
    assert "the home in use" in fails(restored, filled).what
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "file").touch()
    assert isinstance(fails(restored, tmp_path / "used"), UsageError)
    assert content(filled) == before
    (tmp_path / "empty").mkdir()
    assert restored(tmp_path / "empty").tables == 1
    (tmp_path / ".killed.part").mkdir()
    (tmp_path / ".killed.part" / "half").touch()
    assert not (restored(tmp_path / "killed").into / "half").exists(), "what a kill left is not taken for anything"


def test_the_time_asked_for_decides_and_before_the_first_there_is_none(filled: Path, tmp_path: Path, fails: Fails) -> None:
    first = take_warehouse(METRICS, 0).backup
    second = take_warehouse(METRICS, 0).backup
    choice = Choice("warehouse")
    assert choice.at(second.taken_at) == second.id
    assert choice.at(second.taken_at - timedelta(microseconds=1)) == first.id
    error = fails(choice.at, first.taken_at - timedelta(microseconds=1))
    assert isinstance(error, UsageError)
    assert "the oldest shows" in error.what


@pytest.mark.parametrize(("kind", "at"), [(".manifest", 70), (".age", 0), (".age", None), (".age", -1)])
def test_what_is_damaged_in_one_store_comes_from_the_other_and_in_both_from_none(
    filled: Path, backups: Backups, tmp_path: Path, fails: Fails, kind: str, at: int | None
) -> None:
    take_warehouse(METRICS, 0)
    keys = [key for key in backups.keys("a") if key.endswith(kind)]
    for key in keys:
        backups.flip("a", key, at)
    done = restored(tmp_path / "back")
    assert done.stores == (["a", "b"] if kind == ".manifest" else ["b"]) or done.stores == ["a"]
    assert len(done.notes) == len(keys)
    assert content(done.into) == content(filled)
    error = fails(restored, tmp_path / "a alone", only="a")
    assert isinstance(error, Damaged | WrongKey), "a turned bit in the header of a sealed object reads as another key"
    backups.flip("b", random.Random(1).choice(keys), at)
    assert isinstance(fails(restored, tmp_path / "none"), Damaged | WrongKey)
    assert sorted(path.name for path in tmp_path.iterdir() if path.name not in ("home", "policy.yaml")) == ["back"], "nothing half-restored is left"


def test_a_newer_backup_that_is_damaged_everywhere_keeps_no_older_one_from_coming_back(filled: Path, backups: Backups, tmp_path: Path) -> None:
    older = take_warehouse(METRICS, 0).backup.id
    before = content(filled)
    trade(filled, 1)
    newer = take_warehouse(METRICS, 0).backup.id
    for store in ("a", "b"):
        (key,) = backups.keys(store, f"{newer}.manifest")
        backups.flip(store, key)
    done = restore_warehouse(Choice("warehouse"), older, tmp_path / "back", METRICS)
    assert content(done.into) == before
    assert any("is damaged" in note for note in done.notes)


def test_a_lost_region_a_lost_object_and_hidden_objects_do_no_harm(filled: Path, backups: Backups, tmp_path: Path, fails: Fails) -> None:
    take_warehouse(METRICS, 0)
    client = backups.servers["a"].client()
    for key in backups.keys("a"):
        client.delete_object(Bucket=backups.buckets["a"], Key=key)
        client.put_object(Bucket=backups.buckets["a"], Key=key, Body=b"pay up")
    assert restored(tmp_path / "hidden", only="a").notes == [], "first versions are read, whatever lies above them"
    backups.write(lock_days=None, endpoints={"a": "http://127.0.0.1:9"})
    done = restored(tmp_path / "region b")
    assert done.stores == ["b"]
    assert "cannot be reached" in done.notes[0]
    lost = backups.keys("b", ".age")[0].removeprefix(backups.full(""))
    stores()["b"].delete(stores()["b"].held(lost)[lost])
    assert isinstance(fails(restored, tmp_path / "lost"), StoreFailed)
    backups.write(lock_days=None, endpoints=dict.fromkeys("ab", "http://127.0.0.1:9"))
    assert isinstance(fails(restored, tmp_path / "none"), StoreFailed)


def test_without_the_key_or_with_another_nothing_is_restored_and_each_recipient_can(
    filled: Path, backups: Backups, tmp_path: Path, setting: Setting, fails: Fails
) -> None:
    new = pyrage.x25519.Identity.generate()
    backups.write(lock_days=None, recipients=[str(backups.identity.to_public()), str(new.to_public())])
    take_warehouse(METRICS, 0)
    for key, kind in ((None, UsageError), (str(pyrage.x25519.Identity.generate()), WrongKey)):
        setting("BACKUP__IDENTITIES", key)
        error = fails(restored, tmp_path / "back")
        assert isinstance(error, kind)
        assert "escrow" in error.mend or "recipient" in error.mend
        assert not (tmp_path / "back").exists()
    setting("BACKUP__IDENTITIES", str(new))
    assert restored(tmp_path / "back").tables == 1


def test_what_is_not_equal_is_not_restored(filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: Fails) -> None:
    """Files that are what was written, with a manifest that says otherwise: a fault of ours, or a forged manifest."""
    backup = take_warehouse(METRICS, 0).backup
    table = backup.tables["raw_postgres.orders"]
    for change in ({"rows": table.rows + 1}, {"fingerprint": "0" * 32}):
        forged = backup.model_copy(update={"tables": {"raw_postgres.orders": table.model_copy(update=change)}})
        monkeypatch.setattr(Choice, "read", lambda self, backup, forged=forged: forged)
        assert "raw_postgres.orders" in fails(restored, tmp_path / "back").what
    files = tuple(file.model_copy(update={"path": "../" + file.path}) for file in backup.files)
    monkeypatch.setattr(Choice, "read", lambda self, id_: backup.model_copy(update={"files": files}))
    assert isinstance(fails(restored, tmp_path / "back"), Damaged)
    other = backup.model_copy(
        update={"versions": {**backup.versions, "duckdb": "0.1"}, "tables": {"raw_postgres.orders": forged.tables["raw_postgres.orders"]}}
    )
    monkeypatch.setattr(Choice, "read", lambda self, id_: other)
    assert "by rows only" in restored(tmp_path / "back").notes[0]


# -- drills ---------------------------------------------------------------------------------------------------------------


def test_a_drill_restores_the_newest_and_an_earlier_one_and_leaves_its_result(filled: Path, backups: Backups) -> None:
    ids = [take_warehouse(METRICS, 0).backup.id for _ in range(3)]
    done = drill_warehouse(METRICS, seed=3)
    assert done[0].backup == ids[-1]
    assert done[1].backup in ids[:2]
    assert [(one.failed, one.tables, one.metrics) for one in done] == [(None, 1, 2)] * 2
    assert 0 < done[0].recovery_point_seconds < 600
    assert [one.backup for one in drill_warehouse(METRICS, seed=3)] == [one.backup for one in done]
    assert not (filled / "backup" / "drill").exists()
    assert len([key for key in backups.keys("b") if key.endswith(".drill")]) == 4
    backups.flip("a", backups.keys("a", ".age")[0])
    assert drill_warehouse(METRICS, seed=3)[0].stores == ("b",)
    assert drill_warehouse(METRICS, seed=3, only="a")[0].failed


def test_what_is_wrong_with_backups_is_a_finding(filled: Path, backups: Backups, setting: Setting) -> None:
    assert [(one.check, "holds none" in one.observed) for one in watch()] == [("backup_age", True)] * 2
    take_warehouse(METRICS, 0)
    assert watch() == []
    now = datetime.now(UTC)

    def at(days: float) -> set[str]:
        setting("WAREHOUSE_NOW", (now + timedelta(days=days)).isoformat())
        return {one.check for one in watch()}

    assert (at(1.9), at(2.1), at(7.1)) == (set(), {"backup_age"}, {"backup_age", "drill_overdue"})
    setting("WAREHOUSE_NOW", None)
    drill_warehouse(METRICS, seed=1)
    assert "drill_overdue" not in at(6.9)
    assert "drill_overdue" in at(7.1)
    setting("WAREHOUSE_NOW", None)
    for store in ("a", "b"):
        backups.flip(store, backups.keys(store, ".age")[0])
    drill_warehouse(METRICS, seed=1)
    assert {one.check for one in watch()} == {"drill_failed"}
    backups.servers["b"].client().delete_object(Bucket=backups.buckets["b"], Key=backups.keys("b", ".manifest")[0])
    assert {one.check for one in watch()} == {"drill_failed", "backup_hidden"}


def test_the_command_line_restores_drills_and_shows_it(
    filled: Path, backups: Backups, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def said(*arguments: str) -> str:
        cli.main(list(arguments), standalone_mode=False)
        return capsys.readouterr().out

    said("backup", "run")
    out = said("restore", "warehouse", "--into", str(tmp_path / "back"), "--as-of", "2999-01-01")
    assert "# restored" in out
    assert content(tmp_path / "back").keys() == content(filled).keys()
    assert "equal" in said("drill", "--seed", "5", "--store", "b")
    with storage.open_warehouse() as connection:
        ledger.copy_into(connection)
        query = "SELECT data, status, tables_equal, recovery_point_seconds BETWEEN 0 AND 600 FROM ops.drills"
        assert connection.execute(query).fetchall() == [("warehouse", "succeeded", 1, True)]
    shown = said("status")
    assert "drill warehouse" in shown
    assert "backup warehouse" in shown
    with pytest.raises(WarehouseError, match="no backup of 1999"):
        said("restore", "warehouse", "--into", str(tmp_path / "none"), "--as-of", "1999-01-01T00:00:00Z")
    for store in ("a", "b"):
        backups.flip(store, backups.keys(store, ".age")[0])
    with pytest.raises(StepFailed, match="1 of 1 backups could not be restored"):
        said("drill")
    monkeypatch.setattr("cli.run._check", lambda run: ([], []))
    capsys.readouterr()
    with pytest.raises(FindingsFound, match="1 findings"):
        said("check", "--json")
    assert '"drill_failed"' in capsys.readouterr().out
