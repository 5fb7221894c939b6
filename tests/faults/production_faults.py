"""The catalogue of faults at production's backups: each is done to a world, whose server then goes on, and whose commits must all come back."""

import os
import random
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from faults.production import LOST_AT_MOST, Production
from faults.worker import children
from faults.world import expected

from backup import drill_log, log_kept, postgres_log
from backup.encryption import Damaged
from backup.restore import Choice
from backup.restore_postgres import drop
from backup.store import StoreFailed, stores
from backup.verify import verify
from warehouse.errors import StepFailed

Fault = Callable[[Production, random.Random], None]


def dump_killed(world: Production, chance: random.Random) -> None:
    before = set(world.acknowledged)
    world.worker.killed("dump", world.settings(), chance.random() * 1.3 * world.seconds)
    world.dump()
    world.restore_dump(before)


def pg_dump_killed(world: Production, chance: random.Random) -> None:
    """pg_dump alone is killed: half a dump passes for none."""
    process = world.worker.begin("dump", world.settings())
    ended = time.monotonic() + 5
    while time.monotonic() < ended and not (found := children(process, "pg_dump")) and _lives(process):
        time.sleep(0.001)
    time.sleep(chance.random() * 0.05)
    for one in found:
        with suppress(ProcessLookupError):
            os.kill(one, signal.SIGKILL)
    world.worker.end(process)
    world.dump()
    world.restore_dump(set())


def _lives(process: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def server_killed_at_dump(world: Production, chance: random.Random) -> None:
    process = world.worker.begin("dump", world.settings())
    time.sleep(chance.random() * world.seconds)
    world.kill_server()
    world.worker.end(process)
    world.start_again()
    before = set(world.acknowledged)
    world.dump()
    world.restore_dump(before)


def dump_restore_killed(world: Production, chance: random.Random) -> None:
    world.dump()
    world.worker.killed("restore dump", world.settings(), chance.random() * 2 * world.seconds, world.target)
    if world.execute("SELECT 1 FROM pg_database WHERE datname = 'back'"):
        assert world._rows(world.target) <= world.attempted, "it had ended before the kill"
        drop(world.target)
    world.restore_dump(set())
    for (name,) in world.execute("SELECT datname FROM pg_database WHERE datname LIKE 'restoring%'"):
        world.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


def bit_in_dump(part: str) -> Fault:
    """One bit is turned in one store: found, and the other brings it back; in both: refused."""

    def fault(world: Production, chance: random.Random) -> None:
        world.dump()
        _turn(world, "postgres", part, chance, lambda: world.restore_dump(set()))

    return fault


def bit_in_log(part: str) -> Fault:
    """The same for a base, or a segment of the log."""

    def fault(world: Production, chance: random.Random) -> None:
        _turn(world, "postgres_base", part, chance, lambda: world.compare_all())

    return fault


def _turn(world: Production, kind: Any, part: str, chance: random.Random, comes_back: Callable[[], None]) -> None:
    keys = [key for key in world.backups.keys("b", part) if f"/{kind}/" in key and key.endswith(part)]
    key, first = chance.choice(keys), chance.choice("ab")
    size = world.backups.servers["a"].client("a").head_object(Bucket=world.backups.buckets["a"], Key=key)["ContentLength"]
    at = chance.randrange(size)
    world.backups.flip(first, key, at)
    assert {one.store for one in verify(kind, everything=True).problems} == {first}, f"{key} byte {at}"
    comes_back()
    if chance.random() < 0.3:
        other = "b" if first == "a" else "a"
        world.backups.flip(other, key, at)
        assert {one.store for one in verify(kind, everything=True).problems} == {"a", "b"}
        with expected(Damaged, StoreFailed, StepFailed):
            comes_back()
        world.backups.flip(other, key, at)
    world.backups.flip(first, key, at)


def log_missing(world: Production, chance: random.Random) -> None:
    """A segment is gone from a store: found, and the other has it. From both: refused, and never passed over."""
    world.book(5)
    world.execute("SELECT pg_switch_wal()")
    world.book(5)
    world.execute("SELECT pg_switch_wal()")
    world.book(5)
    ((last,),) = world.execute("SELECT pg_walfile_name(pg_current_wal_lsn())")
    world.wait(lambda: all(last in log_kept.segments(store, world.system) for store in stores().values()))
    newest = Choice("postgres_base").read(Choice("postgres_base").ids()[-1]).versions["wal_from"]
    names = [name for name in log_kept.segments(stores()["a"], world.system) if newest[8:] <= name[8:24] < last[8:] and len(name) == 24]
    name, gone = chance.choice(names), []
    for store in [stores()["a"], stores()["b"]][:: chance.choice([1, -1])]:
        for key, held in store.held(log_kept.prefix(world.system)).items():
            if f"/{name}" in key:
                gone.append((store, key, store.read(held)))
                store.delete(held)
        assert store.name in {one.store for one in verify("postgres_base", everything=True).problems}, "a gap was not found"
        if len({one[0].name for one in gone}) == 1:
            world.compare_all()
    local = postgres_log.wal_folder(world.system) / name
    if not local.exists():
        with pytest.raises(StepFailed, match=name[8:]):
            world.compare_all()
    for store, key, content in gone:
        store.put(key, content)


def receiver_killed(world: Production, chance: random.Random) -> None:
    """The receiver is killed while commits go on; the next one has all that was acknowledged."""
    with _booking(world):
        time.sleep(chance.random() * 0.5)
        if chance.random() < 0.5:
            world.end_receiver()
        else:
            for one in children(world.receiver, "pg_receivewal"):
                os.kill(one, signal.SIGKILL)
            time.sleep(0.2)
        if world.receiver == 0:
            world.receive()
        time.sleep(0.2)
    world.kill_server()
    world.compare_all()


def server_killed(world: Production, chance: random.Random) -> None:
    """The server's machine is lost while commits go on: none that was acknowledged is."""
    with _booking(world):
        time.sleep(0.1 + chance.random() * 0.5)
        world.kill_server()
    if chance.random() < 0.5:
        world.end_receiver()
    world.compare_all()


def receiver_lost(world: Production, chance: random.Random) -> None:
    """Server and receiver are lost with their disks: the stores alone lack what was committed in the last moments."""
    with _booking(world):
        time.sleep(0.5 + chance.random())
        world.kill_server()
        lost_at = datetime.now(UTC)
        world.end_receiver()
    old = {number for number, at in world.acknowledged.items() if (lost_at - at).total_seconds() > LOST_AT_MOST}
    rows = world.restore(received=False)
    world._compare(rows, old)
    lost = [(lost_at - world.acknowledged[number]).total_seconds() for number in world.acknowledged if number not in rows]
    world.notes.setdefault("seconds lost by the stores alone", []).append(max(lost, default=0.0))


def random_instant(world: Production, chance: random.Random) -> None:
    """Any instant since the base comes back: what was acknowledged before it, and nothing that was begun after."""
    with _booking(world):
        time.sleep(0.3)
    base = Choice("postgres_base").read(Choice("postgres_base").ids()[-1]).taken_at
    times = sorted(at for at in world.acknowledged.values() if at > base)
    to = chance.choice(times[:-1])
    world.kill_server()
    rows = world.restore(to=to)
    before = {number for number, at in world.acknowledged.items() if at < to}
    later = {number for number, at in world.acknowledged.items() if number > max(before) + 1}
    world._compare(rows, before)
    assert not rows & later, "rows of a later time"


def base_killed(world: Production, chance: random.Random) -> None:
    world.worker.killed("base", world.settings(), chance.random() * 1.5)
    assert verify("postgres_base", everything=True).problems == []
    world.base()
    world.compare_all()


def log_drill_killed(world: Production, chance: random.Random) -> None:
    world.worker.killed("drill log", world.settings(), chance.random() * 3)
    drill_log.end_left(world.home / "backup" / "drill")
    world.compare_all()


class _booking:
    """Commits go on while inside."""

    def __init__(self, world: Production) -> None:
        self._ended = threading.Event()
        self._thread = threading.Thread(target=world.book, args=(100_000, self._ended), daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *given: object) -> None:
        self._ended.set()
        self._thread.join(timeout=30)


PRODUCTION_FAULTS: dict[str, Fault] = {
    "dump killed": dump_killed, "pg_dump killed": pg_dump_killed, "server killed at dump": server_killed_at_dump,
    "restore of a dump killed": dump_restore_killed,
    "bit turned: dump": bit_in_dump(".dump.zst.age"), "bit turned: roles": bit_in_dump(".sql.zst.age"), "bit turned: base": bit_in_log(".tar.zst.age"),
    "bit turned: log": bit_in_log(".wal.zst.age"), "bit turned: manifest of a base": bit_in_log(".manifest"), "log missing": log_missing,
    "receiver killed": receiver_killed, "database server killed": server_killed, "receiver's disk lost": receiver_lost, "any instant": random_instant,
    "base backup killed": base_killed, "drill of the log killed": log_drill_killed,
}  # fmt: skip
"""Each fault by its name. After each of them production goes on, and what the stores hold is verified."""
