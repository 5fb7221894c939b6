"""Production to any second, for a server of one's own: base backups, and its write-ahead log received as it is written.

`pg_receivewal --synchronous` writes the log beside; each segment that is complete is sealed into both stores, and the one being
written every minute. Where the server waits for the receiver (`synchronous_standby_names`), no acknowledged commit is lost as
long as one of the two disks is left; without that, and with the stores alone, a minute is.
"""

import re
import secrets
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from backup import manifest, pack, snapshot
from backup.manifest import File, Index, Manifest
from backup.policy import Kind
from backup.postgres import connected, environment, one_row, program, running, source, target_of
from backup.store import Forbidden, Held, Store, StoreFailed
from backup.take import Taken, copied, prepared, spread
from warehouse import clock
from warehouse.console import logger, progress
from warehouse.errors import StepFailed
from warehouse.files import flush_folder

if TYPE_CHECKING:
    from pyrage import x25519  # type: ignore[import-untyped]  # the library has no types

KIND: Kind = "postgres_base"
BASE = "base.tar"
SLOT = "warehouse_backup"
"""The replication slot, and the name for `synchronous_standby_names`."""

PARTIAL_EVERY = 60.0
"""Seconds after which the segment that is being written is sealed into the stores as well."""

_SEGMENT = re.compile(r"[0-9A-F]{24}|[0-9A-F]{8}\.history")
_NAMED = re.compile(r"(?P<segment>[0-9A-F]{24}|[0-9A-F]{8}\.history)(?:\.partial-(?P<at>\d{20}))?-[0-9a-f]{8}\.wal\.zst\.age")
_PATIENCE = 60


def take_base() -> Taken:
    """Take a base backup of the whole server. Hold `one_at_a_time`.

    Raises:
        UsageError: backups or the database are not configured, or pg_basebackup is missing. StepFailed: the role may not
            replicate, or no store has the backup.
    """
    policy, chosen, keys = prepared(KIND)
    tool, given = program("pg_basebackup"), source()
    with connected(given) as connection:
        server, size = one_row(connection, "SELECT current_setting('server_version'), sum(pg_database_size(oid))::bigint FROM pg_database")
        (wal_from,) = one_row(connection, "SELECT pg_walfile_name(pg_current_wal_lsn())")
        connection.rollback()
        system = system_of(given)
        command = [
            tool, "--pgdata=-", "--format=tar", "--wal-method=fetch", "--checkpoint=fast", "--manifest-checksums=SHA256", "--no-password",
            f"--dbname={target_of(given)}",
        ]  # fmt: skip
        with progress("base backup") as advance, running(command, given) as stream:
            index = pack.write_stream(chosen[0], manifest.pack_key(KIND, manifest.new_id(clock.now()), 0, "tar"), BASE, stream, keys, size, advance)
        taken_at = clock.now()
    made = Manifest(
        id=manifest.new_id(taken_at), what=KIND, taken_at=taken_at, files=index.files, packs=(index.pack,), tables={}, recipients=policy.recipients,
        versions={**manifest.versions(), "postgres": server, "system": system, "wal_from": wal_from},
    )  # fmt: skip
    taken = spread(made, [index], chosen, policy, 0.0)
    for store in chosen:
        if store.name in taken.stores:
            _prune(store, system)
    return taken


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
    archive = _Archive(folder, system, chosen, keys, every)
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


class _Archive:
    """Brings what the receiver wrote into all stores; a segment leaves the folder when each of them has read it back."""

    def __init__(self, folder: Path, system: str, chosen: Sequence[Store], keys: "Sequence[x25519.Recipient]", every: float) -> None:
        self._folder, self._system, self._chosen, self._keys, self._every = folder, system, chosen, keys, every
        self._partial_at = time.monotonic()
        self._partial: tuple[str, int] | None = None
        self._done: set[str] = set()
        self._wait_until = 0.0
        self.failed = ""

    def bring(self, *, finally_: bool = False) -> None:
        """Bring what is new; after a failure not before some seconds have passed."""
        if time.monotonic() < self._wait_until and not finally_:
            return
        try:
            whole = sorted(path for path in self._folder.iterdir() if _SEGMENT.fullmatch(path.name))
            for path in whole:
                if path.name not in self._done:
                    self._keep(path, path.name)
                    self._done.add(path.name)
            for path in whole[:-1]:  # the newest tells pg_receivewal where to go on
                path.unlink()
            if len(whole) > 1:
                flush_folder(self._folder)
            if finally_ or time.monotonic() - self._partial_at >= self._every:
                self._bring_partial()
            self.failed = ""
        except StepFailed as error:
            self.failed = error.what
            self._wait_until = time.monotonic() + 5.0
            logger.warning("the log is not in all stores", extra={"fields": {"why": error.what}})

    def _bring_partial(self) -> None:
        for path in sorted(self._folder.glob("*.partial"))[-1:]:
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


def prefix(system: str) -> str:
    """Where the log of a server is in a store."""
    return f"{KIND}/wal/{system}/"


def segments(store: Store, system: str) -> dict[str, Held]:
    """The log of a server that a store holds whole: by segment, the last thing known of each; raises as `Store.held`."""
    held = store.held(prefix(system))
    found: dict[str, tuple[str, Held]] = {}
    for key, one in held.items():
        match = _NAMED.fullmatch(key.removeprefix(prefix(system)))
        if match and manifest.index_key(key) in held:
            rank = match["at"] or "~"  # a whole segment is above every partial one
            if match["segment"] not in found or rank > found[match["segment"]][0]:
                found[match["segment"]] = (rank, one)
    return {segment: one for segment, (_, one) in sorted(found.items())}


def index_of(store: Store, held: Held) -> tuple[Index, File]:
    """The index of a segment's object, and the file in it."""
    key = manifest.index_key(held.key)
    index = manifest.read_index(store, store.held(key)[key])
    return index, index.files[0]


def _prune(store: Store, system: str) -> None:
    """Delete the log before the oldest base that is kept, and partial segments of which the whole is there."""
    bases = [manifest.read(store, held) for held in manifest.listed(store, KIND).values()]
    oldest = min((base.versions["wal_from"][8:] for base in bases if base.versions["system"] == system), default="")
    held, whole = store.held(prefix(system)), segments(store, system)
    for key, one in held.items():
        match = _NAMED.fullmatch(key.removesuffix(".index").removeprefix(prefix(system)))
        if match is None or match["segment"].endswith(".history"):
            continue
        is_superseded = match["at"] is not None and match["segment"] in whole and ".partial" not in whole[match["segment"]].key
        if match["segment"][8:] < oldest or is_superseded:
            try:
                store.delete(one)
            except Forbidden:
                continue  # locked still
            except StoreFailed:
                return
