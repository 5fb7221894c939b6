"""A home with its two stores, and the truth about what was acknowledged: the SHA-256 of every file at the instant of each backup."""

import json
import os
import random
import secrets
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from faults.worker import Worker
from integration.backup_home import METRICS, content, fill, trade
from integration.object_stores import Backups, S3Server

from backup import policy
from backup.manifest import time_of
from backup.policy import StoreName
from backup.restore import Choice, restore_warehouse
from backup.store import stores
from backup.take import one_at_a_time, take_warehouse
from backup.verify import Problem, verify
from warehouse import settings
from warehouse.errors import StepFailed

Setting = Callable[[str, str | None], None]
KEPT = ("{every: 1d, keep: 30d, stores: [a, b]}", "{every: 1d, keep: 2d, stores: [a, b]}")


class World:
    """One home. `acknowledged` is written and flushed to the disk before anybody believes that a backup was taken."""

    def __init__(self, folder: Path, servers: dict[str, S3Server], worker: Worker, setting: Setting, chance: random.Random) -> None:
        folder.mkdir(parents=True)
        self.folder, self.home, self.worker, self.set = folder, folder / "home", worker, setting
        self.home.mkdir()
        self.truth: dict[str, dict[str, str]] = {}
        self.day, self.seconds, self.is_fresh = 0, 1.0, False
        self.notes: dict[str, list[float]] = {}
        self.backups = Backups(folder, servers["a"], servers["b"])
        self.kept = chance.choice(KEPT)
        setting("WAREHOUSE_HOME", str(self.home))
        for name, value in self.backups.settings.items():
            setting(name, value)
        settings.reload()
        for store in stores().values():
            store.set_up()
        self.write()
        fill(self.home)
        self.trade()
        self.take()

    def write(self, **endpoints: str) -> None:
        """The policy, with other addresses of stores where given."""
        self.backups.write(lock_days=None, endpoints=endpoints, warehouse=self.kept)

    def settings(self) -> dict[str, str]:
        """What a process of its own needs to work on this home."""
        return {"WAREHOUSE_HOME": str(self.home), **self.backups.settings}

    def trade(self) -> None:
        """One more load."""
        self.day += 1
        self.is_fresh = False
        trade(self.home, self.day, rows=200)

    def take(self) -> list[str]:
        """A backup in this process; it is acknowledged when it returns. Returns what failed beside it."""
        began = time.monotonic()
        with one_at_a_time():
            taken = take_warehouse(METRICS, 60)
        self.seconds = time.monotonic() - began
        self.is_fresh = True
        self.acknowledge(taken.backup.id)
        return taken.failed

    def acknowledge(self, backup: str) -> None:
        """Write down what a backup must bring back."""
        self.truth[backup] = content(self.home)
        with (self.folder / "acknowledged").open("a") as log:
            log.write(json.dumps([backup, self.truth[backup]]) + "\n")
            log.flush()
            os.fsync(log.fileno())

    def forget_superfluous(self) -> None:
        """What retention deleted, be it of a run that was killed: only what was too old for its newest, and when enough newer ones were there."""
        data = policy.policy().data["warehouse"]
        there = set(Choice("warehouse").ids())
        for backup in self.truth.keys() - there:
            newer = sorted(other for other in there if other > backup)
            assert len(newer) >= data.keep // data.every, f"{backup} is gone"
            assert time_of(newer[-1]) - time_of(backup) > data.keep, f"{backup} is gone"
            del self.truth[backup]

    def restore(self, backup: str, *, only: StoreName | None = None) -> float:
        """Restore an acknowledged backup and compare each file with the truth; returns the seconds it took."""
        into = self.folder / "back"
        try:
            done = restore_warehouse(Choice("warehouse", only), backup, into, METRICS)
            found = content(done.into)
            differing = {path for path in found.keys() | self.truth[backup].keys() if found.get(path) != self.truth[backup].get(path)}
            assert not differing, f"{backup} came back otherwise: {sorted(differing)}"
            return done.seconds
        finally:
            shutil.rmtree(into, ignore_errors=True)

    def check(self, chance: random.Random) -> None:
        """A backup can be taken, nothing is wrong with it, everything acknowledged is there, and one of it, by chance, comes back."""
        if not self.is_fresh:
            self.take()
        self.forget_superfluous()
        problems = verify("warehouse", everything=chance.random() < 0.2).problems
        assert problems == [], problems
        self.restore(chance.choice(sorted(self.truth)))


@contextmanager
def own_stores(world: World, *, buckets: bool = False) -> Iterator[None]:
    """Other stores of the same home while inside, empty ones: another prefix, or other buckets; what happens there stays there."""
    kept = world.backups.prefix, dict(world.backups.buckets), world.truth
    world.backups.prefix, world.truth = f"apart-{secrets.token_hex(4)}", {}
    if buckets:
        world.backups.buckets = {name: f"{name}-{secrets.token_hex(4)}" for name in kept[1]}
    try:
        world.write()
        if buckets:
            for store in stores().values():
                store.set_up()
        yield
    finally:
        world.backups.prefix, world.backups.buckets, world.truth = kept
        world.is_fresh = False
        world.write()


def only_covered(problems: list[Problem]) -> bool:
    """Whether all that is wrong is that somebody put something over objects."""
    return all("hidden or covered" in one.said for one in problems)


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[None]:
    """A real disk of so many bytes at a folder while inside.

    Raises:
        PermissionError: this user may not mount one.
    """
    folder.mkdir(exist_ok=True, parents=True)
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=0711", "tmpfs", folder], capture_output=True).returncode:
        raise PermissionError("no disk can be mounted by this user")
    try:
        yield
    finally:
        for _ in range(50):
            if subprocess.run(["umount", folder], capture_output=True).returncode == 0:
                break
            time.sleep(0.1)


@contextmanager
def expected(*errors: type[Exception]) -> Iterator[None]:
    """It may fail, and then clearly."""
    with suppress(*(errors or (StepFailed,))):
        yield
