"""Homes of the warehouse for tests that run it as an operator does: in processes of their own, against a company of their own."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import psycopg2
from conftest import KEY, WAREHOUSE, Company, Ran, call
from pace import Pace

from demo.company import DATABASE, OWNER, READER
from demo.server import Server
from warehouse.settings import ROOT

Point = tuple[str, str, int]
"""A function (`module:Class.name`), `before` or `after`, and which of its calls."""

SETTINGS = ("WAREHOUSE_", "SOURCES__", "PRIVACY__", "MOTHERDUCK_", "BACKUP__", "ALERTS__")


@dataclass
class Cost:
    """What a process used: seconds by the clock and of the processors, the most memory it held; and what the machine could do meanwhile."""

    seconds: float
    cpu_seconds: float
    megabytes: float
    slowness: float
    waiting: float


@dataclass
class Home:
    """A WAREHOUSE_HOME and the company it loads from."""

    folder: Path
    company: Company
    checkout: Path = ROOT

    @property
    def settings(self) -> dict[str, str]:
        """The environment that points the command at both."""
        return {"WAREHOUSE_HOME": str(self.folder), "SOURCES__POSTGRES__CREDENTIALS": self.company.reader_url, "PRIVACY__HMAC_KEY": KEY}

    def warehouse(self, *arguments: str, **environment: str) -> Ran:
        """Run `warehouse …` to its end; an empty value unsets a setting."""
        given = {name: value for name, value in (self.settings | environment).items() if value}
        ran: Ran = call(*arguments, **given)
        return ran

    def measured(self, *arguments: str, **environment: str) -> tuple[Ran, Cost]:
        """Run `warehouse …` and say what it cost."""
        out, err = (self.folder.with_name(f"{self.folder.name}.{name}") for name in ("out", "err"))
        given = {**os.environ, **self.settings, "PYTHONPATH": str(self.checkout), **environment}
        began = time.monotonic()
        with out.open("w") as stdout, err.open("w") as stderr, Pace() as pace:
            process = subprocess.Popen([WAREHOUSE, *arguments], cwd=self.checkout, env=given, stdout=stdout, stderr=stderr)
            _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        unit = 1_000_000 if sys.platform == "darwin" else 1_000
        cost = Cost(time.monotonic() - began, used.ru_utime + used.ru_stime, used.ru_maxrss / unit, pace.slowness, pace.waiting)
        return Ran(process.returncode, out.read_text(), err.read_text()), cost

    def runs(self, limit: int = 10, forks: "Forks | None" = None) -> list[dict[str, Any]]:
        """The last runs as `warehouse status` tells them, newest first; asked in one of the `forks` where they are there."""
        asked = ("status", "--json", "--runs", str(limit))
        ran = forks.warehouse(self, *asked) if forks else self.warehouse(*asked)
        assert ran.code == 0, ran.err
        runs: list[dict[str, Any]] = json.loads(ran.out)["runs"]
        return runs


def copy_checkout(target: Path) -> Path:
    """What git keeps of the checkout, in another folder that a test may change."""
    command = ["git", "-c", f"safe.directory={ROOT}", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    for name in listed.stdout.split("\0"):
        if name and (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    return target


@contextmanager
def company_of(server: Server, name: str, template: str = DATABASE, *, users: int | None = None) -> Iterator[Company]:
    """A copy of the company (or of another database), dropped afterwards; with `users` of its first users and their orders alone."""
    with closing(psycopg2.connect(server.url())) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}" OWNER "{OWNER}"')
            cursor.execute(f'GRANT CONNECT ON DATABASE "{name}" TO "{READER}"')
            company = Company(server, name)
            if users is not None:
                company.execute(f"DELETE FROM shop.orders WHERE user_id > {users}", f"DELETE FROM shop.users WHERE id > {users}")
            yield company
            cursor.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


# Imports once, then forks: each run is a process of its own that need not spend two seconds on imports.
FORKS = """
import importlib, json, os, signal, sys, threading, time
import cli.main, cli.run, duckdb, dlt, pandas, sqlmesh, pyarrow.dataset, pyarrow.parquet
import monitoring.check, pipelines.load, pipelines.merge_destination, pipelines.postgres, privacy.pseudonyms, serving.publish
import transform.build, transform.report, warehouse.ledger
from warehouse import settings


def fill(file):
    with open(file, "wb", buffering=0) as balloon:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while True:
                    balloon.write(bytes(size))
            except OSError:
                pass


def around(place, before, after):
    # Calls of this function call `before` first and `after` afterwards.
    module, _, path = place.partition(":")
    *owners, name = path.split(".")
    owner = importlib.import_module(module)
    for one in owners:
        owner = getattr(owner, one)
    original = getattr(owner, name)

    def surrounded(*arguments, **named):
        before()
        result = original(*arguments, **named)
        after()
        return result

    setattr(owner, name, surrounded)


def happens(what, place, when, turn):
    # The turn-th call of this function kills the process (or fills the disk), before or after it does its work.
    calls = {"before": 0, "after": 0}

    def count(now):
        calls[now] += 1
        if (now, calls[now]) == (when, turn):
            what()

    around(place, lambda: count("before"), lambda: count("after"))


def traces(file, places, dies_in, dies_after):
    # Each call of these functions leaves a line when it begins and one when it has ended, and the lines outlive a kill.
    trace = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
    killer = threading.Timer(dies_after or 0, os.kill, (os.getpid(), signal.SIGKILL))
    killer.daemon = True

    def note(sign, name):
        os.write(trace, f"{sign}{name} {time.monotonic()}\\n".encode())
        if (sign, name) == ("+", dies_in) and not killer.ident:
            killer.start()

    for name, place in places.items():
        around(place, lambda name=name: note("+", name), lambda name=name: note("-", name))


for line in sys.stdin:
    order = json.loads(line)
    process = os.fork()
    if process == 0:
        for number, file in ((1, order["out"]), (2, order["err"])):
            os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        os.environ.update(order["settings"])
        settings.reload()
        signal.alarm(600)
        traces(order["trace"], order["traced"], order["dies_in"], order["dies_after"])
        if order["dies"]:
            happens(lambda: os.kill(os.getpid(), signal.SIGKILL), *order["dies"])
        if order["fills"]:
            happens(lambda: fill(os.environ["WAREHOUSE_HOME"] + "/balloon"), *order["fills"])
        sys.argv = ["warehouse", *order["arguments"]]
        code = 0
        try:
            cli.main.main()
        except SystemExit as ended:
            code = ended.code
        sys.stdout.flush()
        os._exit(code)  # what the imports left for the end belongs to the process that imported
    timer = threading.Timer(order["dies_after"] if order["dies_after"] and not order["dies_in"] else 3600, os.kill, (process, signal.SIGKILL))
    timer.start()
    _, status = os.waitpid(process, 0)
    timer.cancel()
    timer.join()  # the next fork must not happen beside a second thread
    sys.stdout.write(json.dumps({"code": os.waitstatus_to_exitcode(status)}) + "\\n")
    sys.stdout.flush()
"""


class Forks:
    """Runs of the command that share their imports, each in a process of its own that may be told where or when to die."""

    def __init__(self, folder: Path, checkout: Path = ROOT, traced: Mapping[str, str] | None = None) -> None:
        """`traced` names functions (`module:Class.name`) whose calls `calls_when_it_ended` tells."""
        self._out, self._err, self._trace, self._traced = folder / "fork.out", folder / "fork.err", folder / "fork.trace", dict(traced or {})
        self._process = subprocess.Popen(
            [sys.executable, "-c", FORKS],
            cwd=checkout,
            env={**os.environ, "PYTHONPATH": str(checkout), "MAX_FORK_WORKERS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def warehouse(
        self,
        home: Home,
        *arguments: str,
        dies: Point | None = None,
        dies_after: float | None = None,
        dies_in: str = "",
        fills: Point | None = None,
        **environment: str,
    ) -> Ran:
        """Run `warehouse …`; at `dies` or `dies_after` it is killed, at `fills` it fills the disk. An empty value unsets a setting.

        Args:
            dies_after: seconds from its start, or from the first call of the traced function `dies_in`.
        """
        given = {name: value for name, value in (home.settings | environment).items() if value}
        order = {
            "settings": given, "arguments": arguments, "dies": dies, "dies_after": dies_after, "dies_in": dies_in, "fills": fills,
            "out": str(self._out), "err": str(self._err), "trace": str(self._trace), "traced": self._traced,
        }  # fmt: skip
        self._pipe(self._process.stdin).write(json.dumps(order) + "\n")
        self._pipe(self._process.stdin).flush()
        answer = json.loads(self._pipe(self._process.stdout).readline())
        return Ran(answer["code"], self._out.read_text(), self._err.read_text())

    def calls_when_it_ended(self) -> tuple[set[str], set[str]]:
        """The traced functions of the last run that had begun, and those of them that had not ended when the process did."""
        lines = Counter(line.split()[0] for line in self._trace.read_text().splitlines())
        begun = {line[1:] for line in lines if line.startswith("+")}
        return begun, {name for name in begun if lines[f"+{name}"] > lines[f"-{name}"]}

    def seconds_in(self, name: str) -> float:
        """How long the first call of a traced function took in the last run, which was not killed."""
        lines = [line.split() for line in self._trace.read_text().splitlines()]
        began, ended = (next(float(at) for what, at in lines if what == f"{sign}{name}") for sign in "+-")
        return ended - began

    def close(self) -> None:
        """End the process that forks."""
        self._pipe(self._process.stdin).close()
        self._process.wait(timeout=30)

    @staticmethod
    def _pipe(pipe: IO[str] | None) -> IO[str]:
        assert pipe is not None
        return pipe
