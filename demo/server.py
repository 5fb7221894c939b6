"""An embedded PostgreSQL server that lives in one folder and outlives the process that started it.

The folder holds `data/` (the cluster), `log`, `port` (kept over restarts while it is free), `secret` (passwords are
derived from it; mode 0600) and `lock`. Only 127.0.0.1 is listened on, and every connection needs a password.
"""

import fcntl
import hmac
import os
import secrets
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from demo.binaries import account, programs
from warehouse.account import Account
from warehouse.errors import StepFailed, UsageError
from warehouse.files import flush_folder, write_atomically

HOST = "127.0.0.1"
SUPERUSER = "postgres"
PORTS = range(15_432, 30_000)
"""Below the ports that systems hand out for outgoing connections, so that a stopped server finds its own free again."""
PATIENCE = 60.0
"""Seconds to wait for the server to start (it may have to recover) or to stop."""
CONFIGURATION = f"""
# The demo company's settings; port and fsync are given on start.
listen_addresses = '{HOST}'
unix_socket_directories = ''
password_encryption = 'scram-sha-256'
shared_buffers = 64MB
max_connections = 50
wal_level = logical
timezone = 'UTC'
log_timezone = 'UTC'
log_min_error_statement = panic  # statements hold personal data and passwords
"""


@dataclass(frozen=True)
class Server:
    """A PostgreSQL server in `folder` (absolute). `fsync=False` is for tests: a crash of the machine may lose data."""

    folder: Path
    fsync: bool = True

    @property
    def data(self) -> Path:
        """The cluster's data folder."""
        return self.folder / "data"

    @property
    def log(self) -> Path:
        """What the server says."""
        return self.folder / "log"

    @property
    def port(self) -> int:
        """The port on 127.0.0.1 that the server has, or had when it last ran.

        Raises:
            StepFailed: it never ran.
        """
        try:
            return int((self.folder / "port").read_text())
        except (FileNotFoundError, ValueError):
            raise StepFailed(f"there is no server in {self.folder} yet.", mend="python -m demo start") from None

    def url(self, user: str = SUPERUSER, database: str = "postgres") -> str:
        """The connection string, with password, of one of the server's users for one of its databases."""
        return f"postgresql://{user}:{self.password(user)}@{HOST}:{self.port}/{database}"

    def password(self, user: str) -> str:
        """The password that a user of this server has or is to be given: 40 hex digits.

        Raises:
            StepFailed: the server never ran.
        """
        try:
            secret = (self.folder / "secret").read_bytes()
        except FileNotFoundError:
            raise StepFailed(f"there is no server in {self.folder} yet.", mend="python -m demo start") from None
        return hmac.digest(secret, user.encode(), "sha256").hex()[:40]

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other processes from starting, filling or stopping this server meanwhile. Does not nest."""
        with (self.folder / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def is_running(self) -> bool:
        """Whether the server runs and takes connections."""
        return self._process() is not None and self._status() == "ready" and _answers(self.port)

    def ensure_running(self) -> bool:
        """Start the server, making its cluster first if there is none. True if it had to be started.

        Safe to repeat and to run at the same time as another; what a kill left behind is cleared.

        Raises:
            UsageError: the programs are missing or cannot run here, or the cluster is of another PostgreSQL version.
            StepFailed: the server did not start; the message has the end of its log.
        """
        if self.is_running():
            return False
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.lock():
            # One that is being started or is dying of a kill is alive, too, and becomes the one or the other.
            self._until(lambda: self._process() is None or self.is_running(), "answer")
            if self._process() is not None:
                return False
            owner = account(self.folder, self.data)
            if owner.uid is not None:
                self.folder.chmod(0o711)
            for leftover in self.folder.glob("initializing-*"):
                shutil.rmtree(leftover, ignore_errors=True)
            if not self.data.exists():
                self._initialize(owner)
            self._check_version()
            self._clear_stale_lock_file()
            self._start(owner)
            return True

    def stop(self) -> bool:
        """Stop the server, cutting off its connections. True if it was running.

        Raises:
            StepFailed: it did not stop in time.
        """
        if not self.folder.exists():
            return False
        with self.lock():
            process = self._process()
            if process is None:
                return False
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGINT)
            self._until(lambda: self._has_ended(process), "stop")
            return True

    def _initialize(self, owner: Account) -> None:
        """Make the cluster beside its place and rename it when it is whole."""
        if not (self.folder / "secret").exists():
            write_atomically(self.folder / "secret", secrets.token_hex(32), mode=0o600)
        scratch = Path(tempfile.mkdtemp(prefix="initializing-", dir=self.folder))
        password_file, data = scratch / "password", scratch / "data"
        write_atomically(password_file, self.password(SUPERUSER), mode=0o600)
        owner.owns(scratch)
        command = [str(programs() / "initdb"), f"--pgdata={data}", f"--username={SUPERUSER}", f"--pwfile={password_file}"]
        command += ["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-instructions"]
        with self._open_log() as log:
            failed = owner.launch([*command, *([] if self.fsync else ["--no-sync"])], log).wait()
        if failed:
            shutil.rmtree(scratch, ignore_errors=True)
            raise StepFailed(f"the demo company's database cluster could not be made:\n{self._end_of_log()}", mend=f"see {self.log}")
        with (data / "postgresql.conf").open("a") as file:
            file.write(CONFIGURATION)
            file.flush()
            os.fsync(file.fileno())
        data.rename(self.data)
        flush_folder(self.folder)
        shutil.rmtree(scratch)

    def _check_version(self) -> None:
        made_by = (self.data / "PG_VERSION").read_text().strip()
        said = subprocess.run([programs() / "postgres", "--version"], capture_output=True, text=True, check=True).stdout
        installed = said.split()[-1].split(".")[0]
        if made_by != installed:
            raise UsageError(
                f"{self.data} was made by PostgreSQL {made_by}, and PostgreSQL {installed} is installed in this Python's environment.",
                mend="use the Python it was made with, or make the company anew: python -m demo reset --yes && python -m demo start",
            )

    def _start(self, owner: Account) -> None:
        for _ in range(5):
            port = self._choose_port()
            if self._starts_on(port, owner):
                return
            if _is_free(port):
                break  # it ended for another reason than a port taken in the meantime
        raise StepFailed(f"the demo company's PostgreSQL did not start:\n{self._end_of_log()}", mend=f"see {self.log}")

    def _starts_on(self, port: int, owner: Account) -> bool:
        command = [str(programs() / "postgres"), "-D", str(self.data), "-c", f"port={port}"]
        command += ["-c", f"fsync={'on' if self.fsync else 'off'}"]
        with self._open_log() as log:
            process = owner.launch(command, log)
        self._until(lambda: self.is_running() or process.poll() is not None, "start")
        if process.poll() is not None:
            return False
        process.returncode = 0  # it outlives us on purpose: no warning that it still runs
        return True

    def _choose_port(self) -> int:
        with suppress(StepFailed):
            if _is_free(self.port):
                return self.port
        while not _is_free(port := secrets.choice(PORTS)):
            pass
        write_atomically(self.folder / "port", str(port))
        return port

    def _process(self) -> int | None:
        """The id of the server's main process, if it is alive and is really ours."""
        try:
            process = int((self.data / "postmaster.pid").read_text().splitlines()[0])
        except (FileNotFoundError, ValueError, IndexError, PermissionError):
            return None
        return process if self._alive(process) else None

    def _status(self) -> str:
        with suppress(FileNotFoundError, IndexError):
            return (self.data / "postmaster.pid").read_text().splitlines()[7].strip()
        return ""

    def _alive(self, process: int) -> bool:
        """Ids are used again and the dead may linger as zombies: on Linux the working folder tells the server from both."""
        if Path("/proc/self/cwd").exists():
            with suppress(OSError):
                return os.readlink(f"/proc/{process}/cwd") == str(self.data.resolve())
            return False
        with suppress(ProcessLookupError):
            os.kill(process, 0)
            return True
        return False

    def _has_ended(self, process: int) -> bool:
        with suppress(ChildProcessError):  # when we started it ourselves it is our child, and ours to bury
            os.waitpid(process, os.WNOHANG)
        return not self._alive(process)

    def _clear_stale_lock_file(self) -> None:
        """After a kill, wait for the orphans to end, then remove a lock file that PostgreSQL might take for a living server's."""
        if not Path("/proc/self/cwd").exists():
            return  # elsewhere PostgreSQL's own check of the lock file has to do
        numbers = [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]
        orphans = [number for number in numbers if self._alive(number)]
        self._until(lambda: not any(self._alive(number) for number in orphans), "end after a kill")
        (self.data / "postmaster.pid").unlink(missing_ok=True)

    def _until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            if time.monotonic() > deadline:
                raise StepFailed(f"the demo company's PostgreSQL did not {what} in {PATIENCE:.0f} s.", mend=f"see {self.log}")
            time.sleep(0.01)

    def _open_log(self) -> BinaryIO:
        return os.fdopen(os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab")

    def _end_of_log(self) -> str:
        return "\n".join(f"  {line}" for line in self.log.read_text(errors="replace").splitlines()[-6:])


def _is_free(port: int) -> bool:
    with socket.socket() as attempt:
        attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            attempt.bind((HOST, port))
        except OSError:
            return False
        return True


def _answers(port: int) -> bool:
    """Whether a living server is behind the port: while one dies, its process and its socket can still be seen for a moment."""
    ask_for_encryption = struct.pack("!ii", 8, 80_877_103)  # any server answers this with one letter, before any password
    try:
        with socket.create_connection((HOST, port), timeout=5) as attempt:
            attempt.sendall(ask_for_encryption)
            return attempt.recv(1) in (b"N", b"S")
    except OSError:
        return False
