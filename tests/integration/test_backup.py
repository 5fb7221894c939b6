"""A backup holds all that is kept and nothing that is made anew, is in both stores, and goes only when newer ones are there."""

import json
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from conftest import call
from integration.backup_home import METRICS, content, fill, trade
from integration.object_stores import Backups, S3Server, s3_server

from backup import manifest, pack, take
from backup.plan import broken_rule, is_due, kept
from backup.policy import policy
from backup.retention import superfluous
from backup.store import Held, Store, StoreFailed, stores
from backup.take import Taken, take_warehouse
from backup.verify import uncover, verify
from cli.main import cli
from warehouse import lease, ledger
from warehouse.errors import FindingsFound, LeaseHeld, StepFailed, UsageError, WarehouseError

Fails = Callable[..., WarehouseError]
Setting = Callable[[str, str | None], None]


@pytest.fixture
def filled(backups: Backups, home: Path) -> Path:
    fill(home)
    return home


def backed_up() -> Taken:
    return take_warehouse(METRICS, 0)


def test_a_backup_holds_what_cannot_be_made_again_in_both_stores(filled: Path, backups: Backups) -> None:
    taken = backed_up()
    assert taken.stores == ["a", "b"]
    assert not taken.failed
    paths = {file.path: file.sha256 for file in taken.backup.files}
    assert paths.items() >= {path: sha for path, sha in content(filled).items() if not path.startswith("backup")}.items()
    assert set(paths) - set(content(filled)) == {"ledger.sqlite", "backup/metrics.json"}
    assert taken.backup.tables["raw_postgres.orders"].rows == 2000
    assert backups.keys("a") == backups.keys("b")
    for store in stores().values():
        held = manifest.listed(store, "warehouse")
        assert list(held) == [taken.backup.id]
        assert manifest.read(store, held[taken.backup.id]) == taken.backup
    assert not list((filled / "backup").glob("staging/*"))
    assert verify("warehouse", everything=True).problems == []


def test_nothing_readable_reaches_a_store(filled: Path, backups: Backups) -> None:
    backed_up()
    client = backups.servers["a"].client()
    for key in backups.keys("a"):
        sealed = client.get_object(Bucket=backups.buckets["a"], Key=key)["Body"].read()
        for secret in (b"an event", b"PAR1", b"snapshots", b"amount"):
            assert secret not in sealed


def test_the_next_backup_uploads_only_what_is_new(filled: Path) -> None:
    first = backed_up()
    trade(filled, 1)
    second = backed_up()
    landed = {file.path for file in first.backup.files if file.path.startswith("landing/")}
    reused = {file.path for file in second.backup.files if file.pack in {one.key for one in first.backup.packs}}
    assert landed <= reused
    assert "sqlmesh_state.duckdb" in reused
    assert {"warehouse.duckdb", "ledger.sqlite"}.isdisjoint(reused)
    new = {file.path for file in second.backup.files} - {file.path for file in first.backup.files}
    assert len([path for path in new if path.startswith("landing/postgres/")]) == 2, "a package and its manifest"
    assert second.backup.tables["raw_postgres.orders"].fingerprint != first.backup.tables["raw_postgres.orders"].fingerprint
    whole = take_warehouse(METRICS, 0, whole=True)
    assert whole.new_bytes == whole.backup.bytes


def test_a_run_that_writes_is_waited_for_and_never_read(filled: Path, fails: Fails, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[float] = []
    monkeypatch.setattr(lease, "_held_here", False)

    def held(purpose: str) -> Iterator[None]:
        tried.append(1)
        raise LeaseHeld("another process is writing.")
        yield

    from contextlib import contextmanager

    from backup import snapshot

    monkeypatch.setattr(snapshot, "lease", contextmanager(held))
    assert isinstance(fails(take_warehouse, METRICS, 0.2), LeaseHeld)
    assert len(tried) > 1
    assert stores()["a"].held("") == {}


def test_a_second_backup_at_the_same_time_is_refused(home: Path, fails: Fails) -> None:
    def both() -> None:
        with take.one_at_a_time(), take.one_at_a_time():
            pass

    assert "another backup" in fails(both).what


def test_what_was_cut_off_goes_on_where_it_was(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spread = take.spread

    def cut(*given: object) -> Taken:
        raise KeyboardInterrupt

    monkeypatch.setattr(take, "spread", cut)
    with pytest.raises(KeyboardInterrupt):
        backed_up()
    assert not manifest.listed(stores()["a"], "warehouse")
    monkeypatch.setattr(take, "spread", spread)
    taken = backed_up()
    again = {file.path for file in taken.backup.files if taken.backup.id in file.pack}
    assert "warehouse.duckdb" not in again
    assert not [path for path in again if path.startswith("landing/")]
    assert verify("warehouse", everything=True).problems == [], "what the first had brought is in both stores now"


def test_a_store_that_is_away_fails_the_step_and_gets_all_it_missed(filled: Path, backups: Backups) -> None:
    backups.write(lock_days=None, endpoints={"b": "http://127.0.0.1:9"})
    taken = backed_up()
    assert taken.stores == ["a"]
    assert "store b lacks the backup" in taken.failed[0]
    trade(filled, 1)
    backups.write(lock_days=None)
    after = backed_up()
    assert after.stores == ["a", "b"]
    assert list(manifest.listed(stores()["b"], "warehouse")) == [taken.backup.id, after.backup.id]
    assert verify("warehouse", everything=True).problems == []


def test_what_arrives_damaged_in_the_second_store_is_no_backup_there(filled: Path, backups: Backups, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = pack.copy

    def lying(one: manifest.Pack, held: Held, source: Store, target: Store, advance: Callable[[int], None]) -> None:
        copy(one, held, source, target, advance)
        backups.flip("b", backups.full(one.key))

    with monkeypatch.context() as patched:
        patched.setattr(pack, "copy", lying)
        taken = backed_up()
    assert taken.stores == ["a"]
    assert "is not what was written" in taken.failed[0]
    assert not manifest.listed(stores()["b"], "warehouse")
    assert verify("warehouse", everything=True, only=["a"]).problems == []
    whole = take_warehouse(METRICS, 0, whole=True)
    assert whole.stores == ["a", "b"], "what needs nothing old is whole again"
    assert list(manifest.listed(stores()["b"], "warehouse")) == [whole.backup.id], "and the other is not called good because its objects are there"
    assert verify("warehouse", everything=True).problems == []


def test_when_the_first_store_is_away_nothing_is_believed(filled: Path, backups: Backups, fails: Fails) -> None:
    backups.write(lock_days=None, endpoints={"a": "http://127.0.0.1:9"})
    assert isinstance(fails(backed_up), StoreFailed)
    assert backups.keys("b") == []


def test_a_store_that_lost_a_pack_gets_it_again(filled: Path, backups: Backups) -> None:
    backed_up()
    client, bucket = backups.servers["b"].client("b"), backups.buckets["b"]
    lost = backups.keys("b", ".age")[0]
    for version in client.list_object_versions(Bucket=bucket, Prefix=lost)["Versions"]:
        client.delete_object(Bucket=bucket, Key=version["Key"], VersionId=version["VersionId"])
    assert [one.store for one in verify("warehouse", everything=False).problems] == ["b"]
    backed_up()
    assert verify("warehouse", everything=True).problems == []


@pytest.mark.parametrize("kind", [".manifest", ".age", ".index"])
def test_a_turned_bit_in_each_kind_of_object_is_found(filled: Path, backups: Backups, kind: str) -> None:
    backed_up()
    key = next(key for key in backups.keys("b") if key.endswith(kind))
    for at in (0, None, -1):
        backups.flip("b", key, at)
        found = verify("warehouse", everything=True, only=["b"]).problems
        assert found, at
        assert all(one.store == "b" for one in found)
        backups.flip("b", key, at)
    assert verify("warehouse", everything=True).problems == []


def test_what_is_damaged_is_not_built_upon(filled: Path, backups: Backups) -> None:
    first = backed_up()
    backups.flip("a", backups.full(manifest.key_of("warehouse", first.backup.id)))
    second = take_warehouse(METRICS, 0)
    assert second.new_bytes > 0
    assert [one.backup for one in verify("warehouse", everything=True).problems] == [first.backup.id]


def test_what_is_hidden_or_covered_is_told_and_brought_back(filled: Path, backups: Backups) -> None:
    backed_up()
    client, bucket = backups.servers["a"].client(), backups.buckets["a"]
    keys = backups.keys("a")
    for key in keys:
        client.delete_object(Bucket=bucket, Key=key)
    client.put_object(Bucket=bucket, Key=keys[0], Body=b"pay up")
    problems = verify("warehouse", everything=True).problems
    assert [one.said for one in problems] == [f"{len(keys)} objects are hidden or covered by what others wrote"], "and read they can be all the same"
    assert kept("warehouse")[0].hidden == len(keys)
    assert len(uncover("warehouse")) == len(keys)
    assert sorted(backups.keys("a")) == sorted(keys)
    assert verify("warehouse", everything=True).problems == []
    assert uncover("warehouse") == []


# -- retention ------------------------------------------------------------------------------------------------------------


def _ids(*days: float) -> list[str]:
    return [f"{datetime(2026, 6, 1, tzinfo=UTC) + timedelta(days=day):%Y%m%dT%H%M%S%fZ}-{index:08x}" for index, day in enumerate(days)]


def test_only_what_is_old_beside_the_newest_and_outnumbered_is_superfluous(backups: Backups) -> None:
    data = policy().data["warehouse"]
    daily = _ids(*range(40))
    assert superfluous(daily, data) == daily[:9]
    assert superfluous(_ids(*range(30)), data) == []
    assert superfluous(_ids(0), data) == superfluous([], data) == []
    assert superfluous(_ids(*range(10), 400), data) == [], "a clock that was wrong takes nothing away"
    assert superfluous(_ids(*range(0, 80, 2)), data) == _ids(*range(0, 80, 2))[:10], "as many newer ones as the policy makes"


def test_superfluous_backups_go_with_what_only_they_hold(filled: Path, backups: Backups, setting: Setting) -> None:
    backups.write(lock_days=None, warehouse="{every: 1d, keep: 2d, stores: [a, b]}")
    taken = []
    for day in range(5):
        setting("WAREHOUSE_NOW", f"2026-06-0{day + 1}T03:00:00Z")
        trade(filled, day + 1)
        taken.append(backed_up())
    assert (taken[4].deleted, taken[2].deleted) == ({name: [taken[1].backup.id] for name in ("a", "b")}, {"a": [], "b": []})
    assert [list(manifest.listed(store, "warehouse")) for store in stores().values()] == [[one.backup.id for one in taken[2:]]] * 2
    packs = {key.removeprefix(backups.full("")) for key in backups.keys("a", ".age") if not key.endswith(".index")}
    assert packs == {one.key for kept_ in taken[2:] for one in kept_.backup.packs}
    assert taken[0].backup.files[0].pack.startswith("warehouse/packs/20260601")
    assert any(key.startswith("warehouse/packs/20260601") for key in packs), "the landing zone's first packages are named by all"
    assert verify("warehouse", everything=True).problems == []


def test_nothing_goes_while_it_is_locked(filled: Path, backups: Backups, setting: Setting) -> None:
    backups.write(lock_days=2, warehouse="{every: 1d, keep: 2d, stores: [a, b]}")
    now = datetime.now(UTC)
    for day in range(4):
        setting("WAREHOUSE_NOW", (now + timedelta(days=day)).isoformat())
        trade(filled, day + 1)
        taken = backed_up()
    assert taken.deleted == {"a": [], "b": []}, "locked by the store's own clock, whatever ours says"
    assert len(manifest.listed(stores()["a"], "warehouse")) == 4
    assert not taken.failed


def test_the_plan_says_what_is_due_and_whether_the_rule_holds(filled: Path, backups: Backups, setting: Setting) -> None:
    assert is_due("warehouse", kept("warehouse"))
    assert "1 copies" in (broken_rule("warehouse", kept("warehouse")) or "")
    backed_up()
    found = kept("warehouse")
    assert not is_due("warehouse", found)
    assert broken_rule("warehouse", found) is None
    assert [one.usd_a_month for one in found] == pytest.approx([one.bytes / 1e9 * 0.02 for one in found])
    backups.write(lock_days=None, endpoints={"b": "http://127.0.0.1:9"})
    found = kept("warehouse")
    assert "cannot be reached" in (found[1].failed or "")
    assert "2 copies" in (broken_rule("warehouse", found) or "")
    backups.write(lock_days=None)
    setting("WAREHOUSE_NOW", (datetime.now(UTC) + timedelta(hours=23)).isoformat())
    assert is_due("warehouse", kept("warehouse")), "a schedule that is a little early finds its work due"
    setting("WAREHOUSE_NOW", (datetime.now(UTC) + timedelta(days=3)).isoformat())
    assert "1 copies" in (broken_rule("warehouse", kept("warehouse")) or "")


def test_there_is_nothing_to_back_up_or_nowhere(home: Path, backups: Backups, setting: Setting, fails: Fails) -> None:
    assert "there is no warehouse yet" in fails(backed_up).what
    setting("BACKUP__A__ACCESS_KEY_ID", None)
    assert isinstance(fails(backed_up), UsageError)


def test_a_full_disk_is_told_and_leaves_nothing(filled: Path, monkeypatch: pytest.MonkeyPatch, fails: Fails) -> None:
    def full(*given: object) -> None:
        raise OSError(28, "No space left on device", "copy")

    with monkeypatch.context() as patched:
        patched.setattr("shutil.copy2", full)
        error = fails(backed_up)
    assert "No space left" in error.what
    assert "free some space" in error.mend
    assert not (filled / "backup" / "staging").exists()
    assert backed_up().stores == ["a", "b"]


def test_a_file_that_changes_while_it_is_read_stops_the_backup(filled: Path, monkeypatch: pytest.MonkeyPatch, fails: Fails) -> None:
    tar = pack._tar

    def changing(sources: list[pack.Source], advance: Callable[[int], None]) -> Iterator[bytes]:
        with sources[0].file.open("ab") as file:
            file.write(b"more")
        yield from tar(sources, advance)

    monkeypatch.setattr(pack, "_tar", changing)
    assert re.search(r"changed while it was read", fails(backed_up).what)
    assert not manifest.listed(stores()["a"], "warehouse")


def test_two_stores_on_two_servers(tmp_path: Path, filled: Path, s3: S3Server, setting: Setting) -> None:
    with s3_server(tmp_path / "region b") as other:
        two = Backups(tmp_path, s3, other)
        for name, value in two.settings.items():
            setting(name, value)
        for store in stores().values():
            store.set_up()
        taken = backed_up()
        assert taken.stores == ["a", "b"]
        assert two.keys("a") == two.keys("b")
        assert verify("warehouse", everything=True).problems == []
    problems = verify("warehouse", everything=True).problems
    assert [one.store for one in problems] == ["b"], "the server is gone"


def test_the_command_line_takes_lists_verifies_and_brings_back(filled: Path, backups: Backups, capsys: pytest.CaptureFixture[str]) -> None:
    def said(*arguments: str) -> str:
        cli.main(["backup", *arguments], standalone_mode=False)
        return capsys.readouterr().out

    before = call("backup", "plan")
    assert before.code == 1, "no copy is anywhere"
    assert "1 copies" in before.err
    assert "# backed up" in said("run", "--due")
    assert "not due" in said("run", "warehouse", "--due")
    (listed,) = [json.loads(line) for line in said("list", "--json").splitlines()]
    assert (listed["stores"], listed["tables"], listed["rows"]) == ("a, b", 1, 2000)
    planned = json.loads(said("plan", "--json"))
    assert [(one["store"], one["due"], len(one["backups"]), one["hidden"]) for one in planned] == [("a", False, 1, 0), ("b", False, 1, 0)]
    assert "# read back" in said("verify", "--all")
    backups.flip("b", backups.keys("b", ".age")[0])
    backups.servers["a"].client().delete_object(Bucket=backups.buckets["a"], Key=backups.keys("a")[0])
    with pytest.raises(FindingsFound, match="2 things are wrong"):
        said("verify")
    assert "is not what was written" in capsys.readouterr().out
    assert said("uncover").count("\n") == 2
    backups.write(lock_days=None, endpoints={"b": "http://127.0.0.1:9"})
    with pytest.raises(StepFailed, match="store b lacks the backup"):
        said("run")
    steps = {(step["step"], step["status"]) for run in ledger.recent_runs(20) for step in run["steps"]}
    assert steps >= {
        ("backup", "succeeded"),
        ("backup", "skipped"),
        ("backup", "failed"),
        ("verify", "succeeded"),
        ("verify", "findings"),
        ("uncover", "succeeded"),
    }


def test_a_clock_that_was_of_the_future_neither_holds_up_backups_nor_deletes_them(filled: Path, backups: Backups, setting: Setting) -> None:
    backups.write(lock_days=None, warehouse="{every: 1d, keep: 2d, stores: [a, b]}")
    now = datetime.now(UTC)
    for days in (400, 401, 402):
        setting("WAREHOUSE_NOW", (now + timedelta(days=days)).isoformat())
        backed_up()
    setting("WAREHOUSE_NOW", (now + timedelta(days=3)).isoformat())
    assert is_due("warehouse", kept("warehouse"))
    taken = backed_up()
    assert taken.backup.id in manifest.listed(stores()["a"], "warehouse")
    assert not is_due("warehouse", kept("warehouse"))


def test_a_package_that_is_damaged_before_it_is_first_kept_is_told(filled: Path) -> None:
    file = sorted(filled.glob("landing/postgres/*/*/*.parquet"))[0]
    content = bytearray(file.read_bytes())
    content[100] ^= 1
    file.chmod(0o644)
    file.write_bytes(content)
    assert [file.parent.name in one and "damaged on this machine" in one for one in backed_up().failed] == [True]
