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
from faults.worker import Worker, kill_group
from faults.world import Setting
from integration.object_stores import Backups, S3Server

from backup import drill_log, postgres_log
from backup.policy import Kind
from backup.postgres import take_postgres
from backup.postgres_log import take_base
from backup.restore import Choice, Restored
from backup.restore_log import restore_log
from backup.restore_postgres import drop, restore_postgres
from backup.store import stores
from backup.take import one_at_a_time
from backup.verify import verify
from demo.binaries import account, programs
from demo.server import Server
from warehouse import clock, settings
from warehouse.errors import StepFailed

KINDS: dict[Kind, str] = {"postgres": "{every: 1h, keep: 7d, stores: [a, b]}", "postgres_base": "{every: 1d, keep: 7d, stores: [a, b]}"}
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
        self.backups.write(lock_days=None, **{str(kind): kept for kind, kept in KINDS.items()})

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
        with drill_log.server(done.into, done.backup, {"hot_standby": "off"}) as started:
            started.until("SELECT NOT pg_is_in_recovery()")
            return self._rows(started.text)

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
        for kind in KINDS:
            if Choice(kind).ids():
                problems = verify(kind, everything=True).problems
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
