"""A drill of base and log: a server of its own that nobody can reach, recovered, compared where the manifest says what was there, and ended."""

import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from backup.manifest import Manifest
from backup.postgres import connected, fingerprints, one_row, program, target
from backup.restore import Choice, Restored
from backup.restore_log import restore_log
from warehouse.account import account_for
from warehouse.connection_string import parameters
from warehouse.console import progress, tell
from warehouse.errors import StepFailed, scrub

_PATIENCE = 24 * 3600.0
"""Seconds for a recovery at the most; one that ended badly says so itself."""
_ENDED_BEFORE = "recovery ended before configured recovery target was reached"
_FATAL = re.compile(r"(?:FATAL|PANIC):(?! *the database system is )[^\n]*")
"""Why the server ended; not what it told us, who ask again and again, while it started or ended."""
_AT_LEAST = ("max_connections", "max_worker_processes", "max_wal_senders", "max_prepared_xacts", "max_locks_per_xact")
"""What a server that is asked while it recovers must have as much of as the one that wrote the log; as `pg_controldata` names it."""
_CALLED = {"max_prepared_xacts": "max_prepared_transactions", "max_locks_per_xact": "max_locks_per_transaction"}
_OWN = {
    "listen_addresses": "", "unix_socket_permissions": "0700", "port": "5432", "shared_buffers": "128MB", "fsync": "off", "full_page_writes": "off",
    "ssl": "off", "archive_mode": "off", "autovacuum": "off", "shared_preload_libraries": "", "session_preload_libraries": "", "local_preload_libraries": "",
    "synchronous_standby_names": "", "primary_conninfo": "", "primary_slot_name": "", "logging_collector": "off", "log_destination": "stderr",
    "log_min_error_statement": "panic", "lc_messages": "C", "huge_pages": "off", "max_wal_size": "4GB", "external_pid_file": "",
}  # fmt: skip
"""What is not as in production: nobody reaches it but through a folder, it is thrown away, and it starts on a small machine."""


class _Ended(StepFailed):
    """The server ended by itself; what it said last is told."""


@dataclass(frozen=True)
class Started:
    """A server that was started on a restored folder."""

    text: str
    """The connection string of its superuser."""
    process: "subprocess.Popen[bytes]"
    log: Path

    def until(self, query: str) -> None:
        """Wait until the server answers a query with true.

        Raises:
            StepFailed: it ended before it did, or did not within a day.
        """
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            with suppress(StepFailed), connected(self.text) as connection:
                if one_row(connection, query)[0]:
                    return
            if self.process.poll() is not None:
                said = _FATAL.findall(self.log.read_text(errors="replace"))
                reason = scrub(said[-1]) if said else f"it was ended (exit status {self.process.returncode})"
                raise _Ended(f"the restored server ended: {reason}", mend="restore an earlier base: `--to`")
            time.sleep(0.05)
        raise StepFailed("the restored server did not recover in a day.", mend="is its log whole? `warehouse backup verify postgres_base --all`")


def rehearse(choice: Choice, backup: str, into: Path, to: datetime | None) -> Restored:
    """Restore a base with its log, start it, compare it with the manifest at the position that this has fingerprints of, and recover on.

    Args:
        to: the instant to recover to; to the end of the log unless given.

    Raises:
        StepFailed: it does not start, does not reach the instant, a table cannot be read, or is not what it was.
        What `restore_log` raises.
    """
    began = time.monotonic()
    restored = restore_log(choice, backup, into, None)
    one = restored.backup
    if "witness" in one.versions:
        given = {"hot_standby": "on", "recovery_target_lsn": one.versions["witness"], "recovery_target_inclusive": "off", "recovery_target_action": "pause"}
        with server(into, one, {**_as_large(into / "data"), **given}) as started, progress("comparing"):
            started.until("SELECT pg_get_wal_replay_pause_state() = 'paused'")
            with connected(started.text) as connection:
                tables = fingerprints(connection)
        wrong = sorted(name for name in {*tables, *one.tables} if tables.get(name) != one.tables.get(name))
        if wrong:
            raise StepFailed(f"what was restored is not what was backed up: {', '.join(wrong[:10])}.", mend="restore an earlier base: `--to`")
        restored.tables = len(tables)
    else:
        restored.notes.append("production was never still when the base was taken: its tables were read, and not compared")
    try:
        _recover(into, one, to)
    except _Ended as error:
        if to is None or _ENDED_BEFORE not in error.what:
            raise
        _recover(into, one, None)  # nothing was committed between the end of the log and the instant: the receiver has said so
    restored.seconds = time.monotonic() - began
    return restored


def _recover(into: Path, one: Manifest, to: datetime | None) -> None:
    """Recover, open, and read every row of every database."""
    given = {"hot_standby": "off", **({"recovery_target_time": to.isoformat()} if to else {})}
    with server(into, one, given) as started, progress("reading every table"):
        started.until("SELECT NOT pg_is_in_recovery()")
        for name in _databases(started.text):
            tell(f"reading {name}")
            with connected(_database(started.text, name)) as connection:
                fingerprints(connection)


def end_left(folder: Path) -> None:
    """End the servers that drills left behind which were killed."""
    for file in folder.glob("*/data/postmaster.pid"):
        with suppress(OSError, ValueError):
            process = int(file.read_text().splitlines()[0])
            if os.readlink(f"/proc/{process}/cwd") == str(file.parent.resolve()):
                os.kill(process, signal.SIGQUIT)


def _databases(text: str) -> list[str]:
    with connected(text) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT datname FROM pg_database WHERE datallowconn AND NOT datistemplate")
        return [row[0] for row in cursor.fetchall()]


def _database(text: str, name: str) -> str:
    return target({**parameters(text), "dbname": name})


def _as_large(data: Path) -> dict[str, str]:
    ran = subprocess.run([program("pg_controldata"), str(data)], capture_output=True, text=True, check=False, env={"LC_ALL": "C"})
    found: dict[str, str] = {}
    for name in _AT_LEAST:
        said = re.search(rf"^{name} setting:\s*(\d+)$", ran.stdout, re.MULTILINE)
        found |= {_CALLED.get(name, name): said[1]} if said else {}
    return found


@contextmanager
def server(into: Path, one: Manifest, given: Mapping[str, str]) -> Iterator[Started]:
    """A server on the restored folder while inside, which its superuser reaches through a socket in a folder of its own."""
    postgres, data, log = program("postgres"), into / "data", into / "log"
    owner = account_for(into, data, Path(postgres))
    sockets = Path(tempfile.mkdtemp(prefix="drill-"))  # a short path: the names of sockets have 107 bytes
    try:
        (into / "hba").write_text("local all all trust\n")
        (into / "configuration").write_text("")
        for path in (into, sockets):
            owner.owns(path)
        options = {**_OWN, "config_file": str(into / "configuration"), "hba_file": str(into / "hba"), "unix_socket_directories": str(sockets), **given}
        command = [postgres, "-D", str(data), *(word for name, value in options.items() for word in ("-c", f"{name}={value}"))]
        with log.open("wb") as said:
            process = owner.launch(command, said)
        try:
            text = target({"host": str(sockets), "port": "5432", "user": one.versions["superuser"], "dbname": one.versions["database"]})
            yield Started(text, process, log)
        finally:
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGINT)  # at once, and cleanly
            process.wait()
    finally:
        shutil.rmtree(sockets, ignore_errors=True)
