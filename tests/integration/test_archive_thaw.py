"""A deep archive is asked for once, waited for or come back to, and read when it has thawed; killed at any moment, the same command goes on.

What the stand-in for Glacier does not prove is said in `integration.glacier`.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from conftest import call
from integration.backup_home import fill
from integration.glacier import KEY, Glacier, glacier_server
from integration.object_stores import Backups

from backup import thaw
from backup.archive import Copy, copies_of, take_archive, take_deep_archive
from backup.drill import drill_archive
from backup.policy import Thaw
from backup.restore_archive import restore_archive
from backup.setup import RULE
from backup.store import Frozen, stores
from backup.thaw import ComeBack, Head
from backup.verify import verify
from backup.watch import watch
from cli.main import cli
from warehouse.errors import UsageError, WarehouseError
from warehouse.settings import ROOT

Fails = Callable[..., WarehouseError]
Setting = Callable[[str, str | None], None]


@pytest.fixture(scope="module")
def glacier() -> Iterator[Glacier]:
    with glacier_server() as server:
        yield server


@pytest.fixture
def third(glacier: Glacier, backups: Backups, setting: Setting) -> None:
    """Store C, for archives that are frozen."""
    backups.third = glacier.store(f"archives-{backups.prefix}", backups.prefix)
    for part, value in zip(("ACCESS_KEY_ID", "SECRET_ACCESS_KEY"), KEY, strict=True):
        setting(f"BACKUP__C__{part}", value)
    cold = "{every: 30d, keep: 7y, stores: [c], storage_class: DEEP_ARCHIVE, drill_every: 100d, thaw: {tier: Bulk, days: 3}}"
    backups.write(lock_days=None, export="{every: 7d, keep: 90d, stores: [a, b]}", archive="{every: 7d, keep: 7y, stores: [b]}", deep_archive=cold)
    stores()["c"].set_up()


@pytest.fixture
def deep(third: None, glacier: Glacier, home: Path) -> Iterator[str]:
    """The id of an archive that is in store B and, frozen, in store C."""
    glacier.thaws_after(2)
    fill(home)
    take_archive(0)
    yield take_deep_archive().backup.id
    glacier.thaws_after(0)


def _copy(backup: str) -> Copy:
    ((copy,), _) = copies_of(backup, "c")
    return copy


def test_it_is_asked_for_once_and_comes_back_when_it_has_thawed(deep: str, tmp_path: Path, home: Path, fails: Fails, setting: Setting) -> None:
    copy = _copy(deep)
    (held,) = copy.objects
    assert held.storage_class == "DEEP_ARCHIVE"
    assert isinstance(fails(copy.store.read, held), Frozen)
    assert copy.store.at_once().held("deep_archive/manifests/").popitem()[1].storage_class == "STANDARD", "what it holds is seen without a thaw"
    asked: list[Any] = []
    copy.store.client.meta.events.register("before-parameter-build.s3.RestoreObject", lambda params, **_: asked.append(params["RestoreRequest"]))
    waiting = fails(restore_archive, [copy], tmp_path / "back")
    assert isinstance(waiting, ComeBack)
    assert waiting.exit_code == 4
    assert timedelta(hours=47) < waiting.ready_at - datetime.now(UTC) <= timedelta(hours=48)
    assert waiting.mend == f"come back then with: warehouse restore archive {deep} --into {tmp_path / 'back'} --store c"
    for name in "AB":
        setting(f"BACKUP__{name}__SECRET_ACCESS_KEY", None)
    assert restore_archive([_copy(deep)], tmp_path / "back").stores == ["c"], "A and B may be lost with their keys"
    assert asked == [{"Days": 3, "GlacierJobParameters": {"Tier": "Bulk"}}]
    assert (tmp_path / "back" / "README.md").exists()
    assert [note["tier"] for note in (json.loads(file.read_text()) for file in (home / "backup" / "thaws").iterdir())] == ["Bulk"]


@pytest.mark.parametrize(
    ("said", "state"),
    [
        (None, "frozen"),
        ('ongoing-request="true"', "thawing"),
        ('ongoing-request="false", expiry-date="Fri, 21 Dec 2096 00:00:00 GMT"', "open"),
        ('ongoing-request="false", expiry-date="Fri, 21 Dec 2012 00:00:00 GMT"', "frozen"),
    ],
)
def test_how_a_thaw_stands_is_read_off_the_store_s_answer(home: Path, said: str | None, state: str) -> None:
    assert Head("GLACIER", datetime.now(UTC), thaw=said).state == state
    assert Head("STANDARD", datetime.now(UTC), thaw=said).state == "at once"


def test_a_wait_that_is_killed_goes_on_with_the_same_command(deep: str, tmp_path: Path, glacier: Glacier, monkeypatch: pytest.MonkeyPatch) -> None:
    copy, into = _copy(deep), tmp_path / "back"
    thaw.ask(copy.store, copy.objects[0], Thaw())
    assert copy.store.head(copy.objects[0]).state == "thawing"
    glacier.thaws_after(1_000_000)
    waiting = call("restore", "archive", deep, "--into", str(into), "--store", "c", "--wait", wait=False)
    deadline = time.monotonic() + 60
    while not (tmp_path / ".back.part").exists():
        assert waiting.poll() is None, waiting.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    time.sleep(0.3)
    os.killpg(waiting.pid, signal.SIGKILL)
    waiting.communicate()
    assert not into.exists()
    ended = call("restore", "archive", deep, "--into", str(into), "--store", "c")
    assert ended.code == 4
    assert "come back then with: warehouse restore archive" in ended.err
    glacier.thaws_after(3)
    monkeypatch.setattr(thaw, "PAUSE", 0.01)
    cli.main(["restore", "archive", deep, "--into", str(into), "--store", "c", "--wait"], standalone_mode=False)
    assert sorted(path.name for path in into.iterdir()) == ["README.md", "landing", "marts", "raw_postgres", "schema.json", "sqlmesh_state"]
    assert not list(tmp_path.glob(".back*"))


def test_an_archive_that_is_killed_leaves_nothing_that_counts_and_the_next_one_is_good(deep: str, home: Path, backups: Backups, tmp_path: Path) -> None:
    before = set(backups.keys("b", "archive/manifests"))
    code = "import backup.archive as a, os, signal\na.pack.verify = lambda *given: os.kill(os.getpid(), signal.SIGKILL)\na.take_archive(0)"
    killed = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert set(backups.keys("b", "archive/manifests")) == before
    assert len(backups.keys("b", "archive/packs")) == 2, "an object that nobody names, not locked"
    taken = take_archive(0)
    assert verify("archive", everything=True).problems == []
    code = code.replace("a.pack.verify", "a._finish").replace("take_archive(0)", "take_deep_archive()")
    killed = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert take_deep_archive().backup.packs[0].key.endswith(f"{taken.backup.id}-0001.tar.zst.age"), "beside what the killed one left"


def test_it_is_looked_at_when_it_cannot_be_read_and_the_drill_goes_on_with_what_it_asked_for(
    deep: str, fails: Fails, setting: Setting, capsys: pytest.CaptureFixture[str]
) -> None:
    looked = verify("deep_archive", everything=True)
    assert (looked.frozen, looked.problems) == (1, [])
    cli.main(["drill", "deep_archive"], standalone_mode=False)
    assert "goes on with it" in capsys.readouterr().out
    (done,) = drill_archive("deep_archive", 1)
    assert (done.backup, done.failed, done.stores) == (deep, None, ("c",))
    assert verify("deep_archive", everything=True).frozen == 0, "it lies open: it is read"
    late = [one for one in watch() if one.what == "deep_archive"]
    assert late == []
    setting("WAREHOUSE_NOW", (datetime.now(UTC) + timedelta(days=101)).isoformat())
    assert {one.check for one in watch() if one.what == "deep_archive"} == {"backup_age", "drill_overdue"}


def test_the_cost_is_told_before_it_is_asked_for_and_what_somebody_asked_for_or_ran_out_is_no_error(
    deep: str, capsys: pytest.CaptureFixture[str], setting: Setting, monkeypatch: pytest.MonkeyPatch, glacier: Glacier
) -> None:
    copy = _copy(deep)
    (held,) = copy.objects
    one = thaw.cost(copy.store, copy.objects, Thaw(tier="Standard", days=2))
    size = one.bytes / 1e9
    assert one.usd == pytest.approx({"thaw": size * 0.02 + 0.0001, "open copy": size * 0.023 * 2 / 30.4375, "reading": 0.0, "transfer": size * 0.09})
    assert one.hours == 12
    assert one.early_usd > 0
    assert one.paid_until
    assert timedelta(days=179) < one.paid_until - datetime.now(UTC) <= timedelta(days=180)
    cli.main(["restore", "archive", deep, "--store", "c", "--dry-run", "--tier", "Standard"], standalone_mode=False)
    assert "DEEP_ARCHIVE" in capsys.readouterr().out
    with pytest.raises(UsageError, match="DEEP_ARCHIVE has Standard and Bulk"):
        cli.main(["restore", "archive", deep, "--store", "c", "--dry-run", "--tier", "Expedited"], standalone_mode=False)
    assert copy.store.head(held).state == "frozen", "nothing was asked for"

    def refuses(**given: Any) -> None:
        answer: Any = {"Error": {"Code": "RestoreAlreadyInProgress"}, "ResponseMetadata": {"HTTPStatusCode": 409}}
        raise ClientError(answer, "RestoreObject")

    with monkeypatch.context() as patched:
        patched.setattr(copy.store.client, "restore_object", refuses)
        assert thaw.ask(copy.store, held, Thaw()) is False
    glacier.thaws_after(0)
    assert [thaw.ask(copy.store, held, Thaw(days=3)) for _ in range(2)] == [True, False]
    setting("WAREHOUSE_NOW", (datetime.now(UTC) + timedelta(days=4)).isoformat())
    assert copy.store.head(held).state == "frozen"
    assert thaw.ask(copy.store, held, Thaw(days=3)) is True


def test_rules_of_the_bucket_are_ours_or_leave_backups_alone(third: None, backups: Backups, fails: Fails, glacier: Glacier) -> None:
    store = stores()["c"]
    client, bucket = glacier.client(), store.bucket
    harmless = {"ID": "theirs", "Status": "Enabled", "Filter": {"Prefix": "elsewhere/"}, "Expiration": {"Days": 1}}
    client.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": [harmless]})
    store.set_up()
    rules = {rule["ID"]: rule for rule in client.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]}
    assert set(rules) == {"theirs", RULE}
    assert rules[RULE]["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 7}
    for taking in ({"Expiration": {"Days": 3650}}, {"Transitions": [{"Days": 1, "StorageClass": "GLACIER"}]}):
        for prefix in ("", f"{backups.prefix}/archive/"):
            rule = {"ID": "harmful", "Status": "Enabled", "Filter": {"Prefix": prefix}, **taking}
            client.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": [rule]})
            assert "lifecycle rule 'harmful'" in fails(store.set_up).what
