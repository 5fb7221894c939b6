"""Does the work of backups in processes of their own, which may be killed: forks of one that has imported all of it."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from warehouse.settings import ROOT

_WORKER = """
import json, os, sys
from pathlib import Path
import boto3, botocore.config, duckdb, psycopg2, pyarrow, pyrage, zstandard
import backup.drill, backup.postgres, backup.postgres_log, backup.restore, backup.restore_postgres, backup.take, backup.verify
from integration.backup_home import METRICS
from warehouse import settings

def work(do, argument):
    if do == "receive":
        return backup.postgres_log.receive(0.5)
    with backup.take.one_at_a_time():
        if do == "take":
            backup.take.take_warehouse(METRICS, 0)
        elif do == "restore":
            choice = backup.restore.Choice("warehouse")
            backup.restore.restore_warehouse(choice, choice.ids()[-1], Path(argument), METRICS)
        elif do == "drill":
            backup.drill.drill_warehouse(METRICS, 1)
        elif do == "dump":
            backup.postgres.take_postgres()
        elif do == "restore dump":
            choice = backup.restore.Choice("postgres")
            backup.restore_postgres.restore_postgres(choice, choice.ids()[-1], argument)
        elif do == "base":
            backup.postgres_log.take_base()
        elif do == "drill log":
            backup.drill.drill_log(1)

for line in sys.stdin:
    order = json.loads(line)
    if order["do"] == "end":
        _, status = os.waitpid(order["process"], 0)
        answer = os.waitstatus_to_exitcode(status)
    else:
        answer = os.fork()
        if answer == 0:
            os.setsid()
            os.environ.update(order["settings"])
            settings.reload()
            code = 0
            try:
                work(order["do"], order["argument"])
            except BaseException as error:
                with open(order["said"], "a") as said:
                    said.write(f"{type(error).__name__}: {error}\\n")
                code = 1
            os._exit(code)
    sys.stdout.write(f"{answer}\\n")
    sys.stdout.flush()
"""


class Worker:
    """Begins and ends such processes. `said`: a file for what they failed with."""

    def __init__(self, said: str) -> None:
        path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
        self.said = said
        self._process = subprocess.Popen(
            [sys.executable, "-c", _WORKER], cwd=ROOT, env={**os.environ, "PYTHONPATH": path}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def _ask(self, **order: object) -> int:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def begin(self, do: str, given: dict[str, str], argument: str = "") -> int:
        """Begin some work; returns its process, the leader of a group."""
        return self._ask(do=do, settings=given, argument=argument, said=self.said)

    def end(self, process: int) -> int:
        """Wait for its end; returns its exit code."""
        return self._ask(do="end", process=process)

    def killed(self, do: str, given: dict[str, str], after: float, argument: str = "") -> int:
        """Begin some work, and kill its whole group after so many seconds; returns its exit code."""
        process = self.begin(do, given, argument)
        time.sleep(after)
        kill_group(process)
        return self.end(process)

    def close(self) -> None:
        """End what does the work."""
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(timeout=60)


def kill_group(process: int) -> None:
    """SIGKILL a process with all it started."""
    with suppress(ProcessLookupError):
        os.killpg(process, signal.SIGKILL)


def children(process: int, name: str) -> list[int]:
    """The programs of a name that a process started and that live."""
    found = []
    for entry in os.listdir("/proc"):
        with suppress(OSError, ValueError, IndexError):
            command, _, rest = Path(f"/proc/{entry}/stat").read_text().partition("(")[2].rpartition(")")
            if command == name[:15] and int(rest.split()[1]) == process:
                found.append(int(entry))
    return found
