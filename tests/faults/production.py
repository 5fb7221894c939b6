"""Production: a server, its receiver, its dumps, its bases; and the catalogue of faults at them.

The truth is the client's: each commit that was acknowledged is written down, flushed, with the instant at which it was.
"""

import os
import random
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from faults.worker import Worker, children, kill_group
from faults.world import Setting, expected
from integration.object_stores import Backups, S3Server

from backup import drill_log, log_kept, postgres_log
from backup.encryption import Damaged
from backup.postgres import take_postgres
from backup.postgres_log import take_base
from backup.restore import Choice, Restored
from backup.restore_log import restore_log
from backup.restore_postgres import drop, restore_postgres
from backup.store import StoreFailed, stores
from backup.take import one_at_a_time
from backup.verify import verify
from demo.binaries import account, programs
from demo.server import Server
from warehouse import clock, settings
from warehouse.errors import StepFailed

KINDS = {"postgres": "{every: 1h, keep: 7d, stores: [a, b]}", "postgres_base": "{every: 1d, keep: 7d, stores: [a, b]}"}
LOST_AT_MOST = 10.0
"""Seconds of commits that the stores alone may lack, where the receiver brings what is being written every half second; the rest is an upload."""
SEGMENT = 1 << 20
_TEMPLATE: list[Path] = []


class Production:
    """A server with a receiver that it waits for, and the commits that it acknowledged."""

    def __init__(self, folder: Path, servers: dict[str, S3Server], worker: Worker, setting: Setting, chance: random.Random) -> None:
        folder.mkdir(parents=True)
        self.folder, self.worker, self.set = folder, worker, setting
        self.home = folder / "home"
        self.home.mkdir()
        self.day, self.seconds, self.next = 0, 1.0, 0
        self.notes: dict[str, list[float]] = {}
        self.acknowledged: dict[int, datetime] = {}
        self.attempted: set[int] = set()
        self.backups = Backups(folder, servers["a"], servers["b"])
        self.server = Server(folder / "production", fsync=False)
        self.receiver = 0
        _made(folder / "production")
        self.server.ensure_running()
        setting("WAREHOUSE_HOME", str(self.home))
        for name, value in {**self.backups.settings, "BACKUP__POSTGRES": self.server.url(), "BACKUP__POSTGRES_TARGET": self.target}.items():
            setting(name, value)
        settings.reload()
        for store in stores().values():
            store.set_up()
        self.write()
        self.execute("CREATE TABLE bookings (id int PRIMARY KEY, note text)")
        self.system = postgres_log.system_of(self.server.url())
        self.receive()
        self.execute("ALTER SYSTEM SET synchronous_standby_names = 'warehouse_backup'", "SELECT pg_reload_conf()")
        self.book(20)
        self.base()

    @property
    def target(self) -> str:
        """The database that a dump is restored to."""
        return self.server.url(database="back")

    def write(self) -> None:
        """The policy."""
        self.backups.write(lock_days=None, **KINDS)

    def settings(self) -> dict[str, str]:
        """What a process of its own needs."""
        own = {"WAREHOUSE_HOME": str(self.home), "BACKUP__POSTGRES": self.server.url(), "BACKUP__POSTGRES_TARGET": self.target, "PATH": os.environ["PATH"]}
        return {**own, **self.backups.settings}

    def execute(self, *statements: str) -> list[tuple[Any, ...]]:
        """Run statements outside of transactions; what the last answered."""
        with closing(psycopg2.connect(self.server.url(), connect_timeout=10)) as connection, connection.cursor() as cursor:
            connection.autocommit = True
            for statement in statements:
                cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def receive(self) -> None:
        """Have a receiver, and wait until production waits for it."""
        self.receiver = self.worker.begin("receive", self.settings())
        self.wait(lambda: bool(self.execute("SELECT 1 FROM pg_stat_replication WHERE application_name = 'warehouse_backup'")))

    def wait(self, condition: Callable[[], bool]) -> None:
        """Until it is so."""
        deadline = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < deadline, "waited in vain"
            time.sleep(0.05)

    def book(self, count: int, ended: threading.Event | None = None) -> None:
        """Commit rows one by one; each that is acknowledged is written down and flushed."""
        with (
            suppress(psycopg2.Error),
            closing(psycopg2.connect(self.server.url(), connect_timeout=10)) as connection,
            (self.folder / "commits").open("a") as log,
        ):
            for _ in range(count):
                if ended is not None and ended.is_set():
                    return
                number, self.next = self.next, self.next + 1
                self.attempted.add(number)
                with connection, connection.cursor() as cursor:
                    cursor.execute("INSERT INTO bookings VALUES (%s, md5(%s::text))", (number, number))
                log.write(f"{number}\n")
                log.flush()
                os.fsync(log.fileno())
                self.acknowledged[number] = datetime.now(UTC)

    def trade(self) -> None:
        """Some commits, and now and then the end of a segment."""
        self.day += 1
        self.book(10)
        if self.day % 2:
            self.execute("SELECT pg_switch_wal()")

    def dump(self) -> None:
        """A dump that is acknowledged."""
        began = time.monotonic()
        with one_at_a_time():
            assert take_postgres().failed == []
        self.seconds = time.monotonic() - began

    def base(self) -> None:
        """A base backup that is acknowledged."""
        with one_at_a_time():
            assert take_base().failed == []

    def restore_dump(self, at_least: set[int]) -> None:
        """The newest dump comes back equal to its manifest, and holds what was acknowledged before it."""
        choice = Choice("postgres")
        restore_postgres(choice, choice.ids()[-1], self.target)
        try:
            self._compare(self._rows(self.target), at_least)
        finally:
            drop(self.target)

    def restore(self, *, received: bool = True, to: datetime | None = None) -> set[int]:
        """Base and log come back in a server of their own; returns the rows."""
        into = self.folder / "back"
        choice = Choice("postgres_base")
        folder = postgres_log.wal_folder(self.system)
        try:
            done = restore_log(choice, choice.at(to or clock.now()), into, to, folder if received and folder.exists() else None)
            return self._recovered(done)
        finally:
            shutil.rmtree(into, ignore_errors=True)

    def _recovered(self, done: Restored) -> set[int]:
        with drill_log.server(done.into, done.backup, {"hot_standby": "off"}) as text:
            drill_log.until(text, "SELECT NOT pg_is_in_recovery()", done.into)
            return self._rows(text)

    def _rows(self, text: str) -> set[int]:
        with closing(psycopg2.connect(text)) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT id, note = md5(id::text) FROM bookings")
            rows = cursor.fetchall()
        assert all(row[1] for row in rows), "a row came back otherwise"
        return {row[0] for row in rows}

    def _compare(self, rows: set[int], at_least: set[int]) -> None:
        assert not at_least - rows, f"lost: {sorted(at_least - rows)[:10]}"
        assert rows <= self.attempted, "rows that nobody wrote"

    def compare_all(self, **given: Any) -> None:
        """Everything that was acknowledged comes back."""
        everything = set(self.acknowledged)
        self._compare(self.restore(**given), everything)

    def kill_server(self) -> None:
        """SIGKILL of the server's main process."""
        process = self.server._process()
        if process:
            os.kill(process, signal.SIGKILL)

    def start_again(self) -> None:
        """Production goes on: the server, and a receiver where none is left."""
        self.server.ensure_running()
        if self.receiver == 0:
            self.receive()
        self.wait(lambda: bool(self.execute("SELECT 1 FROM pg_stat_replication WHERE application_name = 'warehouse_backup'")))

    def end_receiver(self) -> None:
        """SIGKILL of the receiver with all it started."""
        kill_group(self.receiver)
        self.worker.end(self.receiver)
        self.receiver = 0

    def check(self, chance: random.Random) -> None:
        """It goes on, and nothing is wrong with what the stores hold."""
        self.start_again()
        self.book(3)
        for kind in ("postgres", "postgres_base"):
            if Choice(kind).ids():  # type: ignore[arg-type]  # the policy's own names
                problems = verify(kind, everything=True).problems  # type: ignore[arg-type]
                assert problems == [], problems

    def close(self) -> None:
        """End the receiver and the server."""
        if self.receiver:
            self.end_receiver()
        with suppress(StepFailed):
            self.kill_server()
            time.sleep(0.1)


def _made(folder: Path) -> None:
    """A cluster with short segments; made once, and copied."""
    if not _TEMPLATE:
        template = Path(folder.parent.parent / "template")
        template.mkdir(mode=0o711)
        (template / "secret").write_text("a secret of trials")
        owner, scratch = account(template, template / "data"), template / "password"
        scratch.write_text(Server(template).password("postgres"))
        owner.owns(template)
        command = [str(programs() / "initdb"), f"--pgdata={template / 'data'}", "--username=postgres", f"--pwfile={scratch}", "--auth=scram-sha-256"]
        command += ["--encoding=UTF8", "--locale=C", "--no-instructions", "--no-sync", f"--wal-segsize={SEGMENT >> 20}"]
        with (template / "log").open("wb") as log:
            assert owner.launch(command, log).wait() == 0, (template / "log").read_text()
        with (template / "data" / "postgresql.conf").open("a") as file:
            file.write("listen_addresses = '127.0.0.1'\nunix_socket_directories = ''\nshared_buffers = 16MB\nmin_wal_size = 4MB\nmax_wal_size = 64MB\n")
            file.write("autovacuum = off\n")
        _TEMPLATE.append(template)
    subprocess.run(["cp", "-a", _TEMPLATE[0], folder], check=True)


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
        return open(f"/proc/{process}/stat").read().rpartition(")")[2].split()[0] != "Z"
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
