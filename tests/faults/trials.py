"""Trials: a fault by seed, then everything that was acknowledged must be there. A trial's number and the seed say all of its choices."""

import json
import os
import random
import shutil
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import pytest
from faults import network
from faults.home import HOME_FAULTS
from faults.production import Production
from faults.production_faults import PRODUCTION_FAULTS
from faults.worker import Worker
from faults.world import World
from integration.object_stores import s3_server
from scipy import stats

from backup import store
from demo.binaries import programs
from warehouse import settings

LIFE = 12
"""Trials that one world lives through: what one fault leaves behind meets the next."""

_WEIGHT_HOME, _WEIGHT_PRODUCTION = 6, 1


@dataclass(frozen=True)
class Trial:
    """What came of one: `outcome` is held, failed or skipped; `notes` are seconds that were measured."""

    number: int
    kind: str
    outcome: str
    seconds: float
    error: str
    notes: dict[str, list[float]]


def kinds(seed: int, count: int) -> list[str]:
    """The kind of each trial: all of them take turns, in an order by chance; those that need no server of PostgreSQL more often."""
    chance = random.Random(seed)
    turn = [*HOME_FAULTS] * _WEIGHT_HOME + [*PRODUCTION_FAULTS] * _WEIGHT_PRODUCTION
    chance.shuffle(turn)
    first = [*HOME_FAULTS, *PRODUCTION_FAULTS]
    chance.shuffle(first)
    turns = [*first, *(turn * (count // len(turn) + 1))]
    return turns[:count]


def run(folder: Path, seed: int, chosen: Sequence[tuple[int, str]]) -> Iterator[Trial]:
    """Run trials by their numbers and kinds, with servers of their own in `folder`."""
    with ExitStack() as stack:
        set_ = stack.enter_context(_settings())
        set_("PATH", f"{programs()}{os.pathsep}{os.environ['PATH']}")
        patched = stack.enter_context(pytest.MonkeyPatch.context())
        patched.setattr(store, "CONNECT_SECONDS", network.PATIENCE)
        patched.setattr(store, "ANSWER_SECONDS", network.PATIENCE * 4)
        patched.setattr(store, "connect", lru_cache(store.connect))
        patched.setattr(os, "sync", lambda: None)  # what a process wrote outlives its SIGKILL; the machine stays up
        servers = {name: stack.enter_context(s3_server(folder / f"region-{name}")) for name in "ab"}
        worker = Worker(str(folder / "said"))
        stack.callback(worker.close)
        world: World | Production | None = None
        stack.callback(lambda: _end(world))
        for number, kind in sorted(chosen, key=lambda one: one[1] in PRODUCTION_FAULTS):
            chance, began = random.Random(seed * 1_000_003 + number), time.monotonic()
            outcome, error, notes = "held", "", {}
            wanted = Production if kind in PRODUCTION_FAULTS else World
            try:
                if world is None or world.day >= LIFE or not isinstance(world, wanted):
                    _end(world)
                    world = None
                    world = wanted(folder / f"world{number}", servers, worker, set_, chance)
                world.notes = notes
                world.trade()
                if isinstance(world, Production):
                    PRODUCTION_FAULTS[kind](world, chance)
                    world.check(chance)
                else:
                    HOME_FAULTS[kind](world, chance)
                    world.check(chance)
            except PermissionError as why:
                outcome, error = "skipped", str(why)
            except (Exception, pytest.fail.Exception):
                outcome, error = "failed", traceback.format_exc()
                _end(world)
                world = None
                for server in servers.values():
                    server.start()
                set_("WAREHOUSE_NOW", None)
            yield Trial(number, kind, outcome, time.monotonic() - began, error, notes)


def _end(world: World | Production | None) -> None:
    if world is not None:
        if isinstance(world, Production):
            world.close()
        shutil.rmtree(world.folder, ignore_errors=True)


@contextmanager
def _settings() -> "Iterator[object]":
    before = dict(os.environ)

    def change(name: str, value: str | None) -> None:
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
        settings.reload()

    os.environ.setdefault("PRIVACY__HMAC_KEY", "k" * 40)
    try:
        yield change
    finally:
        os.environ.clear()
        os.environ.update(before)
        settings.reload()


def at_most(failed: int, of: int) -> float:
    """With 95 % confidence no larger share of such trials fails (Clopper and Pearson; for none failed it is about 3 of so many)."""
    return 1.0 if of == 0 or failed == of else float(stats.beta.ppf(0.95, failed + 1, of - failed))


def report(trials: Iterable[Trial], seed: int) -> list[str]:
    """The result by kind of fault, as lines of a table in Markdown."""
    done = sorted(trials, key=lambda one: one.number)
    by: dict[str, Counter[str]] = {}
    for one in done:
        by.setdefault(one.kind, Counter())[one.outcome] += 1
    lines = ["| fault | trials | failed | at most, with 95 % confidence |", "|---|---|---|---|"]
    for kind in [*HOME_FAULTS, *PRODUCTION_FAULTS]:
        if kind in by:
            of = by[kind]["held"] + by[kind]["failed"]
            skipped = f" ({by[kind]['skipped']} skipped)" if by[kind]["skipped"] else ""
            lines.append(f"| {kind}{skipped} | {of} | {by[kind]['failed']} | {at_most(by[kind]['failed'], of):.1%} |")
    failed, of = sum(one["failed"] for one in by.values()), sum(one["held"] + one["failed"] for one in by.values())
    lines.append(f"| all, seed {seed} | {of} | {failed} | {at_most(failed, of):.2%} |")
    return lines


def as_line(trial: Trial) -> str:
    """A trial as JSON, for another process."""
    return json.dumps(asdict(trial))
