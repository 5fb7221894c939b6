"""A run killed at any moment loses nothing, doubles nothing and shows readers nothing half done: the next run ends as if it had not happened.

`WAREHOUSE_TRIALS=200` asks for that many kills at random moments instead of 3.
"""

import os
import random
import shutil
import signal
import textwrap
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pytest
from conftest import call
from e2e.homes import Forks, Home, Point, company_of
from e2e.truth import Rows, differences, fingerprint, production

from demo.acts import act
from demo.server import Server
from warehouse import ledger

pytestmark = pytest.mark.xdist_group("killed")  # they share a prepared home

SHORT = 3
TRIALS = int(os.environ.get("WAREHOUSE_TRIALS", SHORT))
SEED = 19_970_101
USERS = 23_570 if TRIALS > SHORT else 4_000
EDITED_USERS = 20
OF_THE_MACHINE = (
    "dlt",
    "work",
    "tmp",
    "sqlmesh",
    "sqlmesh_cache",
    "duckdb_extensions",
    "ledger.sqlite",
    "ledger.sqlite-wal",
    "ledger.sqlite-shm",
    "ledger.ballast",
)
"""What a fresh runner would not have."""

MERGED = "dlt.destinations.job_client_impl:SqlJobClientBase.complete_load"
COPIED = "warehouse.ledger:copy_into"
"""After the run itself is recorded."""
EVALUATE = "sqlmesh.core.snapshot.evaluator:SnapshotEvaluator.evaluate"
ALWAYS: list[Point] = [
    ("pipelines.raw:without_known", "after", 1),
    (MERGED, "before", 1),
    (EVALUATE, "after", 4),
    ("transform.inputs:Inputs.remember", "before", 1),
    ("serving.publish:_write", "after", 2),
    ("serving.publish:_flip", "after", 1),
    (COPIED, "before", 1),
]
IN_LONG_TRIALS: list[Point] = [
    ("monitoring.check:check", "after", 1),
    ("pipelines.landing:mark_loaded", "after", 1),
    ("pipelines.landing:keep", "after", 1),
    ("pipelines.raw:without_known", "before", 1),
    ("dlt.pipeline.pipeline:Pipeline.extract", "after", 1),
    ("dlt.pipeline.pipeline:Pipeline.normalize", "after", 1),
    ("pipelines.landing:keep", "before", 1),
    ("dlt.pipeline.pipeline:Pipeline.load", "before", 1),
    ("dlt.pipeline.pipeline:Pipeline.load", "after", 1),
    ("transform.inputs:Inputs.forget", "before", 1),
    ("transform.inputs:Inputs.forget", "after", 1),
    (EVALUATE, "before", 3),
    ("serving.publish:_flip", "before", 1),
    ("transform.build:_run", "before", 1),
    ("transform.build:_run", "after", 1),
    ("transform.inputs:Inputs.remember", "after", 1),
    ("monitoring.check:check", "before", 1),
    ("serving.publish:_write_read_copy", "after", 1),
    (COPIED, "after", 1),
]
ON_A_FRESH_RUNNER: list[Point] = [("pipelines.landing:keep", "after", 2), (MERGED, "before", 1)]
ON_A_FRESH_RUNNER_IN_LONG_TRIALS: list[Point] = [("pipelines.landing:mark_loaded", "before", 1), (EVALUATE, "after", 4)]
IN_THE_FIRST_RUN: list[Point] = [(EVALUATE, "after", 4), ("serving.publish:_write_read_copy", "before", 1)]
IN_THE_FIRST_RUN_IN_LONG_TRIALS: list[Point] = [(MERGED, "before", 1), ("transform.build:_plan", "after", 1)]


def _points(always: list[Point], in_long_trials: list[Point]) -> list[Point]:
    return always + (in_long_trials if TRIALS > SHORT else [])


def _name(point: Point) -> str:
    place, when, turn = point
    return f"{when} {place.partition(':')[2]} {turn}"


@dataclass
class Prepared:
    """A home after two good runs, with edits waiting in its company; put back for each kill."""

    home: Home
    kept: Path
    expected: dict[str, Rows]
    shown: tuple[Any, ...]

    def restore(self) -> None:
        """Put the home back as it was prepared; at the same place, for its read copy holds absolute paths."""
        shutil.rmtree(self.home.folder)
        shutil.copytree(self.kept, self.home.folder, symlinks=True)


@pytest.fixture(scope="module")
def prepared(company_server: Server, forks: Forks, built_empty: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prepared]:
    """Two runs, so that a third looks back over rows that the second has loaded; then 340 orders and 20 users to load."""
    folder = tmp_path_factory.mktemp("killed")
    with company_of(company_server, f"killed_{os.getpid()}", users=USERS) as company:
        home = Home(shutil.copytree(built_empty, folder / "warehouse"), company)
        _good_run(forks, home)
        act(company.owner_url, place=10, edit=50, seed=1)
        _good_run(forks, home)
        act(company.owner_url, place=40, edit=300, edit_users=EDITED_USERS, seed=2)
        kept = folder / "kept"
        shutil.copytree(home.folder, kept, symlinks=True)
        yield Prepared(home, kept, production(company), fingerprint(home.folder))


@pytest.mark.parametrize("point", _points(ALWAYS, IN_LONG_TRIALS), ids=_name)
def test_a_killed_run_is_made_good_by_the_next(prepared: Prepared, forks: Forks, point: Point) -> None:
    prepared.restore()
    _kill(forks, prepared.home, point)
    shown = fingerprint(prepared.home.folder)
    _good_run(forks, prepared.home)
    assert differences(prepared.home.folder, prepared.expected) == []
    assert shown in (prepared.shown, fingerprint(prepared.home.folder))
    assert _versions_of_users(prepared.home) == USERS + EDITED_USERS
    status = "succeeded" if point[0] == COPIED else "interrupted"
    assert [run["status"] for run in prepared.home.runs(forks=forks)] == ["succeeded", status, "succeeded", "succeeded"]
    assert _recorded_in_the_warehouse(prepared.home) == ["succeeded", "succeeded", status, "succeeded"]


@pytest.mark.parametrize("point", _points(ON_A_FRESH_RUNNER, ON_A_FRESH_RUNNER_IN_LONG_TRIALS), ids=_name)
def test_a_killed_run_is_made_good_on_another_machine(prepared: Prepared, forks: Forks, point: Point) -> None:
    prepared.restore()
    _kill(forks, prepared.home, point)
    forget_the_machine(prepared.home.folder)
    _good_run(forks, prepared.home)
    assert differences(prepared.home.folder, prepared.expected) == []
    assert _versions_of_users(prepared.home) == USERS + EDITED_USERS
    assert [run["status"] for run in prepared.home.runs(forks=forks)] == ["succeeded"] * 3  # read back from the warehouse, which knew of two


@pytest.mark.parametrize("point", _points(IN_THE_FIRST_RUN, IN_THE_FIRST_RUN_IN_LONG_TRIALS), ids=_name)
def test_a_killed_first_run_is_made_good_by_the_next(prepared: Prepared, forks: Forks, point: Point) -> None:
    shutil.rmtree(prepared.home.folder)
    _kill(forks, prepared.home, point)
    assert not (prepared.home.folder / "published" / "warehouse.duckdb").exists()
    _good_run(forks, prepared.home)
    assert differences(prepared.home.folder, prepared.expected) == []
    assert _versions_of_users(prepared.home) == USERS
    assert [run["status"] for run in prepared.home.runs(forks=forks)] == ["succeeded", "interrupted"]


def test_runs_killed_at_random_moments_while_the_company_trades_lose_and_double_nothing(
    company_server: Server, forks: Forks, built_empty: Path, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    kills, versions = 0, USERS
    with company_of(company_server, f"random_{os.getpid()}", users=USERS) as company:
        home = Home(shutil.copytree(built_empty, tmp_path / "warehouse"), company)
        _good_run(forks, home)
        act(company.owner_url, place=1, edit=1, seed=SEED)
        _, cost = home.measured("run")
        for number in range(TRIALS):
            trial = random.Random(f"{SEED}:{number}")
            what = f"trial {number} of seed {SEED}, after {kills} kills that did no harm"
            done = act(company.owner_url, place=trial.randrange(50), edit=trial.randrange(500), edit_users=trial.randrange(50), seed=SEED + number)
            versions += len(done.edited_users)
            before = fingerprint(home.folder)
            fresh, twice = number % 3 == 2, number % 4 == 1
            killed = _killed_after(home, trial.uniform(0.3, cost.seconds))
            between = fingerprint(home.folder)
            if fresh:
                forget_the_machine(home.folder)
            if twice:
                killed += _killed_after(home, trial.uniform(0.3, cost.seconds))
            rerun = forks.warehouse(home, "run")
            assert rerun.code == 0, (what, rerun.err)
            assert differences(home.folder, production(company)) == [], what
            assert between in (before, fingerprint(home.folder)), what
            assert _versions_of_users(home) == versions, what
            last, *earlier = home.runs(forks=forks)
            assert last["status"] == "succeeded", what
            assert {run["status"] for run in earlier} <= {"succeeded", "interrupted"}, what
            assert "running" not in _recorded_in_the_warehouse(home), what
            kills += killed
    assert kills >= TRIALS // 2
    told = f"{kills} runs killed at random moments and none left anything wrong: at most {1 - 0.05 ** (1 / kills):.1%} do, with 95 % confidence"
    record_property("kills", told)
    if TRIALS > SHORT:
        warnings.warn(told, stacklevel=1)


def test_a_killed_run_is_told_from_the_next_that_has_its_process_id(home: Path) -> None:
    """In a container every run may be process 7."""
    script = """
        import os, signal
        real, os.getpid = os.getpid(), lambda: 7
        from cli.run import recorded
        with recorded("run"):
            {}
    """
    killed = call(script=textwrap.dedent(script).format("os.kill(real, signal.SIGKILL)"))
    assert killed.code == -signal.SIGKILL, killed.err
    assert call(script=textwrap.dedent(script).format("pass")).code == 0
    assert [run["status"] for run in ledger.recent_runs()] == ["succeeded", "interrupted"]


def _good_run(forks: Forks, home: Home) -> None:
    ran = forks.warehouse(home, "run")
    assert ran.code == 0, ran.err


def _kill(forks: Forks, home: Home, point: Point) -> None:
    ran = forks.warehouse(home, "run", dies=point)
    assert ran.code == -signal.SIGKILL, (ran.code, ran.err)


def _killed_after(home: Home, seconds: float) -> int:
    """Kill a real run after some seconds; returns 1, or 0 when it had already ended."""
    process = call("run", wait=False, **home.settings)
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    _, error = process.communicate()
    assert process.returncode in (0, -signal.SIGKILL), error
    return int(process.returncode == -signal.SIGKILL)


def forget_the_machine(home: Path) -> None:
    """What a fresh runner would find: without what only this machine had."""
    for name in OF_THE_MACHINE:
        if (home / name).is_dir():
            shutil.rmtree(home / name)
        else:
            (home / name).unlink(missing_ok=True)


def _versions_of_users(home: Home) -> int:
    return _ask(home.folder / "published" / "warehouse.duckdb", "SELECT count(*) FROM marts.user_dim_history")[0][0]


def _recorded_in_the_warehouse(home: Home) -> list[str]:
    return [status for (status,) in _ask(home.folder / "warehouse.duckdb", "SELECT status FROM ops.runs ORDER BY started_at")]


def _ask(file: Path, query: str) -> Rows:
    with duckdb.connect(str(file), read_only=True) as connection:
        return connection.execute(query).fetchall()
