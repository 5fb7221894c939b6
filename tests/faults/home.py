"""The catalogue of faults at backups of the warehouse: each is done to a world, which afterwards must hold all that was acknowledged."""

import os
import random
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError
from faults.network import WAYS, bad_network
from faults.worker import kill_group
from faults.world import World, expected, only_covered, own_stores, small_disk
from integration.backup_home import METRICS, content

from backup.drill import drill_warehouse
from backup.manifest import time_of
from backup.plan import is_due, kept
from backup.policy import StoreName
from backup.restore import Choice, restore_warehouse
from backup.store import stores
from backup.verify import uncover, verify
from warehouse.errors import StepFailed, WarehouseError

STORES: tuple[StoreName, ...] = ("a", "b")
Fault = Callable[[World, random.Random], None]


def killed(do: str) -> Fault:
    """The process that does it is killed at some instant of the time it takes."""

    def fault(world: World, chance: random.Random) -> None:
        code = world.worker.killed(do, world.settings(), chance.random() * 1.3 * world.seconds, str(world.folder / "half"))
        assert code in (0, 1, -9)
        half = world.folder / "half"
        if half.exists():
            assert content(half) in world.truth.values(), "a restore that was killed after its folder appeared had ended"
            half.rename(world.folder / f"whole{world.day}")

    return fault


def store_killed(world: World, chance: random.Random) -> None:
    """A store's server is killed while a backup is taken, and starts again."""
    server = world.backups.servers[chance.choice(STORES)]
    process = world.worker.begin("take", world.settings())
    time.sleep(chance.random() * world.seconds)
    server.kill()
    time.sleep(chance.random() * 0.3)
    if chance.random() < 0.5:
        kill_group(process)
    server.start()
    assert world.worker.end(process) in (0, 1, -9)


def network(way: str) -> Fault:
    """A backup and a restore through a bad network may fail; what they say is so."""

    def fault(world: World, chance: random.Random) -> None:
        store = chance.choice(STORES)
        try:
            with bad_network(world.backups.servers[store], chance, way) as address:
                world.write(**{store: address})
                with expected():
                    world.take()
                with expected():
                    world.restore(chance.choice(sorted(world.truth)))
        finally:
            world.write()

    return fault


def bit_in_store(part: str) -> Fault:
    """One bit of an object of a kind is turned: it is found, nothing else is, and what was acknowledged comes back from the other store."""

    def fault(world: World, chance: random.Random) -> None:
        store = chance.choice(STORES)
        if part == ".drill":
            drill_warehouse(METRICS, chance.randrange(100))
        key = chance.choice([key for key in world.backups.keys(store) if key.endswith(part)])
        size = world.backups.servers[store].client(store).head_object(Bucket=world.backups.buckets[store], Key=key)["ContentLength"]
        at = chance.randrange(size)
        world.backups.flip(store, key, at)
        problems = verify("warehouse", everything=True).problems
        assert {one.store for one in problems} == {store}, f"{key} byte {at}: {problems}"
        world.restore(chance.choice(sorted(world.truth)))
        with expected():
            world.restore(chance.choice(sorted(world.truth)), only=store)
        world.backups.flip(store, key, at)

    return fault


def bit_on_disk(pattern: str) -> Fault:
    """One bit of a file of the home is turned before the next backup: that refuses, or brings back what is there; older ones are as they were."""

    def fault(world: World, chance: random.Random) -> None:
        file = chance.choice(sorted(path for path in world.home.glob(pattern) if path.is_file() and path.stat().st_size))
        whole, times = file.read_bytes(), file.stat()
        turned, at = bytearray(whole), chance.randrange(len(whole))
        turned[at] ^= 1 << chance.randrange(8)
        file.write_bytes(turned)
        before, told = set(world.truth), []
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
        try:
            with expected():
                told = world.take()
        finally:
            file.write_bytes(whole)
            if not told:  # else it is as if loaded again: it has a time of its own
                os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
        for backup in set(world.truth) - before:
            if pattern.startswith("landing") and not any("is damaged on this machine" in one for one in told):
                world.truth[backup] = content(world.home)  # what a store has of it already is not read again, and is whole
            world.restore(backup)

    return fault


def disk_full_at_backup(world: World, chance: random.Random) -> None:
    with small_disk(world.home / "backup", chance.randrange(1 << 16, 6 << 20)), expected():
        world.take()


def disk_full_at_restore(world: World, chance: random.Random) -> None:
    backup = sorted(world.truth)[-1]
    with small_disk(world.folder / "small", chance.randrange(1 << 16, 12 << 20)):
        into = world.folder / "small" / "back"
        with suppress(StepFailed):
            restore_warehouse(Choice("warehouse"), backup, into, METRICS)
            assert content(into) == world.truth[backup]
            return
        assert not list((world.folder / "small").iterdir()), "nothing half-done is left"


def covered(world: World, chance: random.Random) -> None:
    """Somebody with the full keys of a store deletes and overwrites; nothing is locked, and no version destroyed."""
    store = chance.choice(STORES)
    _cover(world, store, chance)
    world.take()
    world.forget_superfluous()
    world.restore(sorted(world.truth)[0])
    uncover("warehouse")


def _cover(world: World, store: str, chance: random.Random) -> int:
    client, bucket = world.backups.servers[store].client(store), world.backups.buckets[store]
    done = 0
    for key in world.backups.keys(store):
        if hides := chance.random() < 0.7:
            client.delete_object(Bucket=bucket, Key=key)
        if writes := chance.random() < 0.3:
            client.put_object(Bucket=bucket, Key=key, Body=chance.randbytes(100))
        done += hides or writes
    return done


def ransomware(world: World, chance: random.Random) -> None:
    """Somebody with the full keys of both stores, which are locked: no version can be destroyed, and one command brings back what was hidden."""
    with own_stores(world):
        world.backups.write(lock_days=1)
        world.take()
        hidden = 0
        for store in "ab":
            client, bucket = world.backups.servers[store].client(store), world.backups.buckets[store]
            for one in client.list_object_versions(Bucket=bucket, Prefix=f"{world.backups.prefix}/")["Versions"]:
                at: dict[str, Any] = {"Bucket": bucket, "Key": one["Key"], "VersionId": one["VersionId"]}
                for destroys in (
                    lambda at=at, client=client: client.delete_object(**at),
                    lambda at=at, client=client: client.delete_object(**at, BypassGovernanceRetention=True),
                    lambda at=at, client=client: client.put_object_retention(
                        **at, BypassGovernanceRetention=True, Retention={"Mode": "COMPLIANCE", "RetainUntilDate": datetime.now(UTC) + timedelta(seconds=5)}
                    ),
                ):
                    with pytest.raises(ClientError):
                        destroys()
            with pytest.raises(ClientError):
                client.delete_bucket(Bucket=bucket)
            hidden += _cover(world, store, chance)
        problems = verify("warehouse", everything=True).problems
        assert only_covered(problems)
        assert bool(problems) == bool(hidden)
        world.restore(sorted(world.truth)[-1])
        began = time.monotonic()
        brought = uncover("warehouse")
        world.notes.setdefault("uncover", []).append(time.monotonic() - began)
        assert len(brought) == hidden
        assert verify("warehouse", everything=True).problems == []
        world.restore(sorted(world.truth)[-1])


def bucket_deleted(world: World, chance: random.Random) -> None:
    """A bucket is emptied and deleted: the other store has all, and the next backup after `setup` is in both."""
    with own_stores(world, buckets=True):
        world.take()
        store = chance.choice(STORES)
        client, bucket = world.backups.servers[store].client(store), world.backups.buckets[store]
        for one in client.list_object_versions(Bucket=bucket)["Versions"]:
            client.delete_object(Bucket=bucket, Key=one["Key"], VersionId=one["VersionId"])
        client.delete_bucket(Bucket=bucket)
        if store == "a":
            with pytest.raises(StepFailed, match="does not exist"):
                world.take()
        else:
            assert "does not exist" in "".join(world.take())
        world.restore(chance.choice(sorted(world.truth)))
        for one in stores().values():
            one.set_up()
        world.trade()
        assert world.take() == []


def doubled(world: World, chance: random.Random) -> None:
    """A schedule that begins two at once: one of them is taken, or both after each other."""
    before = set(world.truth)
    process = world.worker.begin("take", world.settings())
    time.sleep(chance.random() * 0.2)
    with expected():
        world.take()
    assert world.worker.end(process) == 0 or set(world.truth) - before


def late(world: World, chance: random.Random) -> None:
    """A schedule that is days late: the backup is due, is taken once, and is due no more."""
    taken, day = [time_of(one) for one in Choice("warehouse").ids()], timedelta(days=1)
    instants = [datetime.now(UTC) + number * day for number in range(2, 20)]
    free = [now for now in instants if not any(timedelta() <= now - at < day for at in taken)]
    world.set("WAREHOUSE_NOW", chance.choice(free).isoformat())  # not just after the time that a clock which was wrong gave to a backup
    try:
        assert is_due("warehouse", kept("warehouse"))
        world.take()
        assert not is_due("warehouse", kept("warehouse"))
    finally:
        world.set("WAREHOUSE_NOW", None)


def clock_wrong(world: World, chance: random.Random) -> None:
    world.set("WAREHOUSE_NOW", (datetime.now(UTC) + timedelta(days=chance.choice([-400, -1, 1, 400]))).isoformat())
    try:
        world.take()
    finally:
        world.set("WAREHOUSE_NOW", None)


def region_lost(store: StoreName) -> Fault:
    """A store is gone, server and all: the other brings everything back; backups go on where the first store is left."""

    def fault(world: World, chance: random.Random) -> None:
        world.backups.servers[store].kill()
        other: StoreName = "b" if store == "a" else "a"
        try:
            world.restore(chance.choice(sorted(world.truth)))
            world.set(f"BACKUP__{store.upper()}__ACCESS_KEY_ID", None)
            world.restore(chance.choice(sorted(world.truth)), only=other)
            world.set(f"BACKUP__{store.upper()}__ACCESS_KEY_ID", world.backups.settings[f"BACKUP__{store.upper()}__ACCESS_KEY_ID"])
            if store == "a":
                with pytest.raises(StepFailed, match="cannot be reached"):
                    world.take()
            else:
                assert "cannot be reached" in "".join(world.take())
        finally:
            world.backups.servers[store].start()

    return fault


def erasure_ledger_missing(world: World, chance: random.Random) -> None:
    """A backup that names an erasure which nobody here knows of is not opened."""
    newest = sorted(world.truth)[-1]
    choice = Choice("warehouse")
    erased = choice.read(newest).model_copy(update={"erasures": "7"})
    into = world.folder / "refused"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Choice, "read", lambda self, backup: erased)
        with pytest.raises(WarehouseError):
            restore_warehouse(choice, newest, into, METRICS)
    assert not into.exists()


HOME_FAULTS: dict[str, Fault] = {
    "backup killed": killed("take"), "restore killed": killed("restore"), "drill killed": killed("drill"), "store's server killed": store_killed,
    "disk full at backup": disk_full_at_backup, "disk full at restore": disk_full_at_restore, **{way: network(way) for way in WAYS},
    "bit turned: manifest": bit_in_store(".manifest"), "bit turned: pack": bit_in_store(".age"), "bit turned: index": bit_in_store(".index"),
    "bit turned: drill": bit_in_store(".drill"),
    "bit turned: landing zone": bit_on_disk("landing/**/*.parquet"), "bit turned: warehouse": bit_on_disk("warehouse.duckdb"),
    "bit turned: state": bit_on_disk("sqlmesh_state.duckdb"), "covered": covered, "ransomware": ransomware, "bucket deleted": bucket_deleted,
    "schedule doubled": doubled, "schedule late": late, "clock wrong": clock_wrong, "region a lost": region_lost("a"), "region b lost": region_lost("b"),
    "erasure ledger missing": erasure_ledger_missing,
}  # fmt: skip
"""Each fault by its name. After each of them a backup must succeed, and what was acknowledged be there."""
