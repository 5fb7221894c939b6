"""Production to any second, for a server of one's own: base backups, and its write-ahead log received as it is written.

`pg_receivewal --synchronous` writes the log beside; each segment that is complete is sealed into both stores, and the one being
written every half a minute. Where the server waits for the receiver (`synchronous_standby_names`), no acknowledged commit is lost as
long as one of the two disks is left; without that, and with the stores alone, less than a minute is.
"""

import os
import re
import secrets
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from backup import manifest, pack, snapshot
from backup.log_kept import KIND, keep_received, prefix, prune
from backup.manifest import Manifest, Received, Table
from backup.postgres import connected, environment, fingerprints, one_row, program, running, source, target_of
from backup.store import Store
from backup.take import Taken, copied, prepared, spread
from warehouse import clock
from warehouse.console import logger, progress, tell
from warehouse.errors import StepFailed
from warehouse.files import flush_folder

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection
    from pyrage import x25519

BASE = "base.tar"
SLOT = "warehouse_backup"
"""The replication slot, and the name for `synchronous_standby_names`."""

PARTIAL_EVERY = 30.0
"""Seconds after which the segment that is being written is sealed into the stores as well: with the upload less than a minute."""

RECEIVED_EVERY = 300.0
"""Seconds after which it is said in the stores how far they have the log; also of a server that writes none."""

_SERVER = """
    SELECT current_setting('server_version'), (SELECT sum(pg_database_size(oid))::bigint FROM pg_database), pg_walfile_name(pg_current_wal_lsn()),
        (SELECT setting FROM pg_settings WHERE name = 'wal_segment_size'), (SELECT rolname FROM pg_roles WHERE oid = 10), current_database()
"""
_STILL = "SELECT pg_snapshot_xmin(s) = pg_snapshot_xmax(s), pg_current_wal_insert_lsn()::text FROM pg_current_snapshot() AS s"
_POSITIONS = f"""
    SELECT (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_flush_lsn() END - '0/0')::bigint, (restart_lsn - '0/0')::bigint,
        restart_lsn::text FROM pg_replication_slots WHERE slot_name = '{SLOT}' AND active
"""
_WITNESS_TRIES, _WITNESS_PAUSE = 200, 0.05
_AGAIN = 2.0
_SEGMENT = re.compile(r"[0-9A-F]{24}|[0-9A-F]{8}\.history")
_PATIENCE = 60
_PID = "pg_receivewal.pid"


def take_base() -> Taken:
    """Take a base backup of the whole server. Hold `one_at_a_time`.

    Raises:
        UsageError: backups or the database are not configured, or pg_basebackup is missing. StepFailed: the role may not
            replicate, or no store has the backup.
    """
    policy, chosen, keys = prepared(KIND)
    tool, given = program("pg_basebackup"), source()
    with connected(given) as connection:
        server, size, wal_from, segment_bytes, superuser, database = one_row(connection, _SERVER)
        connection.rollback()
        system = system_of(given)
        command = [
            tool, "--pgdata=-", "--format=tar", "--wal-method=fetch", "--checkpoint=fast", "--manifest-checksums=SHA256", "--no-password",
            f"--dbname={target_of(given)}",
        ]  # fmt: skip
        with progress("base backup") as advance, running(command, given) as stream:
            index = pack.write_stream(chosen[0], manifest.pack_key(KIND, manifest.new_id(clock.now()), 0, "tar"), BASE, stream, keys, size, advance)
        taken_at = clock.now()
        position, tables = _witness(connection)
    made = Manifest(
        id=manifest.new_id(taken_at), what=KIND, taken_at=taken_at, files=index.files, packs=(index.pack,), tables=tables, recipients=policy.recipients,
        versions={
            **manifest.versions(), "postgres": server, "system": system, "wal_from": wal_from, "segment_bytes": segment_bytes, "superuser": superuser,
            "database": database, **({"witness": position} if position else {}),
        },
    )  # fmt: skip
    taken = spread(made, [index], chosen, policy, 0.0)
    for store in chosen:
        if store.name in taken.stores:
            prune(store, system)
    return taken


def _witness(connection: "Connection") -> tuple[str, dict[str, Table]]:
    """A position of the log, and the fingerprints of the database exactly there: what a drill recovers to, and compares.

    A snapshot is what the log says up to a position when nobody was in the middle of a transaction and nothing was written
    around it. A server that is never still for so long has no such position: the position is empty then.
    """
    for _ in range(_WITNESS_TRIES):
        connection.set_session(isolation_level="READ COMMITTED", readonly=False)
        _, before = one_row(connection, _STILL)
        connection.rollback()
        connection.set_session(isolation_level="REPEATABLE READ", readonly=True)
        still, after = one_row(connection, _STILL)
        if still and before == after:
            tell(f"fingerprints at {after}")
            tables = fingerprints(connection)
            connection.rollback()
            connection.set_session(isolation_level="READ COMMITTED", readonly=False)
            one_row(connection, "SELECT pg_logical_emit_message(true, 'warehouse backup', 'witness')")  # a record after it: recovery stops before that
            connection.commit()
            return str(after), tables
        connection.rollback()
        time.sleep(_WITNESS_PAUSE)
    return "", {}


def system_of(given: str) -> str:
    """The identifier of a server's cluster: logs of different clusters must never be mixed.

    Raises:
        StepFailed: the role may not replicate.
    """
    import psycopg2
    from psycopg2.extras import PhysicalReplicationConnection

    try:
        connection = psycopg2.connect(given, connection_factory=PhysicalReplicationConnection, connect_timeout=10)
    except psycopg2.OperationalError as error:
        mend = "the role needs REPLICATION, and pg_hba.conf a line for replication from this machine"
        raise StepFailed(f"the log cannot be received: {str(error).strip().splitlines()[0]}", mend=mend) from None
    try:
        with connection.cursor() as cursor:
            cursor.execute("IDENTIFY_SYSTEM")
            row = cursor.fetchone()
            return str(row[0]) if row else ""
    finally:
        connection.close()


def wal_folder(system: str) -> Path:
    """Where the receiver writes the log of a server."""
    return snapshot.folder() / "wal" / system


def receive(every: float = PARTIAL_EVERY) -> None:
    """Receive the log until SIGTERM or Ctrl+C; then what was received is in the stores.

    Args:
        every: seconds after which the segment that is being written is sealed into the stores as well.

    Raises:
        UsageError: backups or the database are not configured. StepFailed: the role may not replicate; or, at the end, a store
            lacks something: it stays in the folder, and the next receiver brings it there.
    """
    _, chosen, keys = prepared(KIND)
    tool, given = program("pg_receivewal"), source()
    system = system_of(given)
    folder = wal_folder(system)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    ended = False

    def end(number: int, frame: object) -> None:
        nonlocal ended
        ended = True

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    arguments = target_of(given, application_name=SLOT)
    ran = subprocess.run([tool, f"--dbname={arguments}", f"--slot={SLOT}", "--create-slot", "--if-not-exists", "--no-password"],
                         env=environment(given), capture_output=True, check=False)  # fmt: skip
    if ran.returncode != 0:
        raise StepFailed(f"the slot {SLOT} cannot be made.", mend="the role needs REPLICATION; max_replication_slots may be used up")
    archive = _Archive(folder, system, chosen, keys, every, given)
    _end_orphan(folder)
    with _receiver(tool, arguments, folder, given) as alive:
        while not ended:
            alive()
            archive.bring()
            time.sleep(0.2)
    archive.bring(finally_=True)
    if archive.failed:
        raise StepFailed(f"the stores lack what is left in {folder}: {archive.failed}", mend="start the receiver again: it brings it there")


@contextmanager
def _receiver(tool: str, arguments: str, folder: Path, given: str) -> "Iterator[Callable[[], None]]":
    """pg_receivewal beside us; what is yielded starts it again when it has ended."""
    command = [tool, f"--directory={folder}", f"--dbname={arguments}", f"--slot={SLOT}", "--synchronous", "--no-loop", "--no-password"]
    process: subprocess.Popen[bytes] | None = None
    again = 0.0

    def alive() -> None:
        nonlocal process, again
        if (process is None or process.poll() is not None) and time.monotonic() >= again:
            if process is not None:
                logger.warning("pg_receivewal ended, and is started again", extra={"fields": {"code": process.returncode}})
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment(given))
            (folder / _PID).write_text(str(process.pid))
            again = time.monotonic() + 1.0

    try:
        yield alive
    finally:
        if process is not None:
            process.terminate()
            try:
                process.wait(timeout=_PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _end_orphan(folder: Path) -> None:
    """End the pg_receivewal of a receiver that was killed: it holds the slot, and goes on into the folder without anybody."""
    try:
        pid = int((folder / _PID).read_text())
    except (FileNotFoundError, ValueError):
        return

    def lives() -> bool:
        told = _command_of(pid)
        return "pg_receivewal" in told and f"--directory={folder}" in told  # not somebody else who has its number by now

    until = time.monotonic() + _PATIENCE
    while lives():
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM if time.monotonic() < until else signal.SIGKILL)
        time.sleep(0.1)


def _command_of(pid: int) -> str:
    """The command line of a process, empty when there is none; slim images have no `ps`, macOS has no `/proc`."""
    if Path("/proc/self/cmdline").exists():
        try:
            return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            return ""
    return subprocess.run(["ps", "-ww", "-o", "args=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout


class _Archive:
    """Brings what the receiver wrote into all stores; a segment leaves the folder when each of them has read it back."""

    def __init__(self, folder: Path, system: str, chosen: Sequence[Store], keys: "Sequence[x25519.Recipient]", every: float, given: str) -> None:
        self._folder, self._system, self._chosen, self._keys, self._every = folder, system, chosen, keys, every
        self._given = given
        self._partial_at = self._received_at = time.monotonic() - every
        self._partial: tuple[str, int] | None = None
        self._asked: list[tuple[datetime, int]] = []
        self._done: set[str] = set()
        self._wait_until = 0.0
        self.failed = ""

    def bring(self, *, finally_: bool = False) -> None:
        """Bring what is new; after a failure not before some seconds have passed."""
        if time.monotonic() < self._wait_until and not finally_:
            return
        is_due = finally_ or time.monotonic() - self._partial_at >= self._every
        try:
            received = self._received() if is_due else None
            # Looked for before those that are complete: else one that is completed between would be missing before the next one's half.
            partial = max(self._folder.glob("*.partial"), default=None) if is_due else None
            whole = sorted(path for path in self._folder.iterdir() if _SEGMENT.fullmatch(path.name))
            for path in whole:
                if path.name not in self._done:
                    self._keep(path, path.name)
                    self._done.add(path.name)
            for path in whole[:-1]:  # the newest tells pg_receivewal where to go on
                path.unlink()
            if len(whole) > 1:
                flush_folder(self._folder)
            if is_due:
                self._bring_partial(partial)
            if received and time.monotonic() - self._received_at >= min(RECEIVED_EVERY, self._every):
                for store in self._chosen:
                    keep_received(store, received)
                self._received_at = time.monotonic()
            if is_due and received is None:  # not yet, or not any more: asked again soon
                self._partial_at = time.monotonic() - self._every + min(_AGAIN, self._every)
            self.failed = ""
        except StepFailed as error:
            self.failed = error.what
            self._wait_until = time.monotonic() + 5.0
            logger.warning("the log is not in all stores", extra={"fields": {"why": error.what}})

    def _received(self) -> Received | None:
        """Up to when what was committed is in the folder by now: the last time the server was asked where it stood, and is received to there."""
        try:
            with connected(self._given) as connection:
                at = clock.now()
                row = one_row(connection, _POSITIONS)
        except StepFailed:
            return None
        if row is None or row[1] is None:  # nobody receives
            return None
        self._asked = [*self._asked[-120:], (at, row[0])]
        reached = [asked for asked, position in self._asked if position <= row[1]]
        return Received(system=self._system, at=max(reached), position=row[2]) if reached else None

    def _bring_partial(self, path: Path | None) -> None:
        if path is not None:
            with suppress(FileNotFoundError):  # it was completed meanwhile: it comes whole, with the next
                seen = (path.name, path.stat().st_mtime_ns)
                if seen != self._partial:
                    self._keep(path, f"{path.name}-{time.time_ns():020d}")
                    self._partial = seen
        self._partial_at = time.monotonic()

    def _keep(self, path: Path, name: str) -> None:
        first, *others = self._chosen
        with path.open("rb") as file:
            key = f"{prefix(self._system)}{name}-{secrets.token_hex(4)}.wal.zst.age"
            index = pack.write_stream(first, key, path.name.removesuffix(".partial"), file, self._keys, path.stat().st_size, lambda count: None)
        copied([index.pack], first, first.held(key), others)
