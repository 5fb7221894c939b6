"""The APIs that the demo company uses, as one background process that outlives the shell.

A stand-in takes part when a `<name>_company.py` stands beside its `<name>.py`: `populate(stand_in)` fills it, and
`environment(stand_in)` gives the settings by which the warehouse reaches it. The process's folder holds `process` (locked
by it as long as it lives, its id inside), `ready` (what it offers; mode 0600), `log` and `lock`.
"""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from warehouse.errors import StepFailed
from warehouse.files import write_atomically
from warehouse.settings import ROOT

PATIENCE = 60.0
"""Seconds to wait for the process to be ready, or to end."""


def names() -> list[str]:
    """The stand-ins that take part."""
    return sorted(path.stem.removesuffix("_company") for path in Path(__file__).parent.glob("*_company.py"))


@dataclass(frozen=True)
class StandIns:
    """The process whose folder (absolute) this is, running or not."""

    folder: Path

    def is_running(self) -> bool:
        """Whether it runs and offers every stand-in there is."""
        return self._process() is not None and self._ready().get("process") == self._process() and list(self._ready()["ports"]) == names()

    def environment(self) -> dict[str, str]:
        """The settings by which the warehouse reaches the stand-ins.

        Raises:
            StepFailed: they never ran.
        """
        if "environment" not in self._ready():
            raise StepFailed(f"there are no stand-ins in {self.folder} yet.", mend="python -m demo start")
        return dict(self._ready()["environment"])

    def addresses(self) -> list[str]:
        """Each stand-in and where it listens."""
        return [f"{name} on port {port}" for name, port in self._ready().get("ports", {}).items()]

    def ensure_running(self) -> bool:
        """Start the process, or start it anew where a stand-in was added. True if it had to be started.

        Raises:
            StepFailed: it did not start; the message has the end of its log.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._lock():
            if self.is_running():
                return False
            self._end()
            log = os.open(self.folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            # It is born with the lock that says that it lives: one that waited for it could outlast a stop.
            with os.fdopen(log, "ab") as said, (self.folder / "process").open("a") as held:
                fcntl.flock(held, fcntl.LOCK_EX)
                held.truncate(0)
                command = [sys.executable, "-m", "demo.stand_ins.company", str(self.folder), str(held.fileno())]
                inherited = (held.fileno(),)
                process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True, pass_fds=inherited)
            self._until(lambda: self.is_running() or process.poll() is not None, "start")
            if process.poll() is not None:
                end = "\n".join(f"  {line}" for line in (self.folder / "log").read_text(errors="replace").splitlines()[-6:])
                raise StepFailed(f"the demo company's stand-ins did not start:\n{end}", mend=f"see {self.folder / 'log'}")
            process.returncode = 0  # it outlives us on purpose: no warning that it still runs
            return True

    def stop(self) -> bool:
        """Stop the process. True if it was running.

        Raises:
            StepFailed: it did not end in time.
        """
        if not self.folder.exists():
            return False
        with self._lock():
            return self._end()

    def _end(self) -> bool:
        if not self._is_held():
            return False
        self._until(lambda: self._process() is not None or not self._is_held(), "say its id")
        process = self._process()
        if process is not None:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGTERM)
        self._until(lambda: not self._is_held(), "stop")
        if process is not None:
            with suppress(ChildProcessError):  # when we started it ourselves it is our child, and ours to bury
                os.waitpid(process, 0)
        return True

    def _process(self) -> int | None:
        """The id of the living process: only that one can hold the lock, so the id is never a stranger's."""
        if not self._is_held():
            return None
        with suppress(FileNotFoundError, ValueError):
            return int((self.folder / "process").read_text())
        return None

    def _is_held(self) -> bool:
        try:
            with (self.folder / "process").open("r") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                return False
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True

    def _ready(self) -> dict[str, Any]:
        with suppress(FileNotFoundError, ValueError):
            return dict(json.loads((self.folder / "ready").read_text()))
        return {}

    @contextmanager
    def _lock(self) -> Iterator[None]:
        with (self.folder / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            if time.monotonic() > deadline:
                raise StepFailed(f"the demo company's stand-ins did not {what} in {PATIENCE:.0f} s.", mend=f"see {self.folder / 'log'}")
            time.sleep(0.02)

    def serve(self, lock: int) -> None:
        """Be the process: fill and offer every stand-in, each on the port it had before if that is free, until told to stop.

        Args:
            lock: the descriptor of the file `process`, locked by who started us; we hold it for as long as we live.
        """
        ends = {signal.SIGTERM, signal.SIGINT}
        signal.pthread_sigmask(signal.SIG_BLOCK, ends)  # before any thread, so that none is interrupted
        with os.fdopen(lock, "a") as held, ExitStack() as opened:
            held.write(str(os.getpid()))
            held.flush()
            ports: dict[str, int] = {}
            environment: dict[str, str] = {}
            for name in names():
                stand_in = _opened(name, self._ready().get("ports", {}).get(name, 0), opened)
                company = import_module(f"demo.stand_ins.{name}_company")
                company.populate(stand_in)
                ports[name] = int(stand_in.url.rpartition(":")[2].split("/")[0])
                environment |= company.environment(stand_in)
            content = {"process": os.getpid(), "ports": ports, "environment": environment}
            write_atomically(self.folder / "ready", json.dumps(content, indent=2) + "\n", mode=0o600)
            signal.sigwait(ends)


def _opened(name: str, port: int, opened: ExitStack) -> Any:
    """A stand-in that listens: on the port given, or where that is taken on another one."""
    kind = getattr(import_module(f"demo.stand_ins.{name}"), f"{name.title().replace('_', '')}StandIn")
    try:
        return opened.enter_context(kind(port=port))
    except OSError:
        return opened.enter_context(kind(port=0))


if __name__ == "__main__":
    StandIns(Path(sys.argv[1])).serve(int(sys.argv[2]))
