"""A load killed at any moment loses, doubles and stales no row of a hostile source, whatever of the machine is lost with it.

Most of a run's time is not the loader's; here the loader is killed alone. `WAREHOUSE_TRIALS=200` asks for that many
trials instead of 20. Each is made of random statements, one to three killed loads, and one good load that must give
PostgreSQL's own answer.
"""

import os
import random
import shutil
import signal
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import pytest
from conftest import Ran
from e2e.homes import Forks, Home, company_of, copy_checkout
from e2e.hostile import DECLARATION, POLICY, TABLES, Hostile, Seen
from e2e.test_killed import forget_the_machine

from demo.server import Server

SHORT = 20
TRIALS = int(os.environ.get("WAREHOUSE_TRIALS", SHORT))
SEED = 20_240_229
REBUILT_EVERY = 5
STAGES = {
    "merge": "pipelines.raw:merge",
    "land": "pipelines.landing:keep",
    "mark": "pipelines.landing:mark_loaded",
    "settle": "pipelines.load:settle",
    "extract": "dlt.pipeline.pipeline:Pipeline.extract",
    "normalize": "dlt.pipeline.pipeline:Pipeline.normalize",
    "load": "dlt.pipeline.pipeline:Pipeline.load",
}
"""The innermost first."""


@dataclass
class Warehouse:
    """A home of the loader, and what it must know by now."""

    home: Home
    source: Hostile
    forks: Forks
    seen: Seen = field(default_factory=Seen)

    def killed_load(self, dies_after: float, dies_in: str) -> list[str]:
        """A load killed after some seconds (of its process, or of a stage); returns where it was then, nothing when it had already ended."""
        self.seen.reads(self.source.rows())
        ran = self._warehouse("load", dies_after, dies_in)
        assert ran.code in (0, -signal.SIGKILL), ran.err
        return [_moment(self.forks)] if ran.code else []

    def good_load(self) -> list[str]:
        """Load to the end; returns how the raw tables differ from the source."""
        self.seen.reads(self.source.rows())
        ran = self._warehouse("load")
        return self.seen.differences(self.home.folder, self.source.rows(), self.source.now()) if ran.code == 0 else [ran.err]

    def rebuild(self) -> list[str]:
        """Rebuild from the landing zone; returns the tables that changed by it."""
        before = self._content()
        ran = self._warehouse("rebuild")
        return [name for name, rows in self._content().items() if rows != before[name]] if ran.code == 0 else [ran.err]

    def lose_all_but_the_landing_zone(self) -> None:
        """The warehouse is made anew from it."""
        for path in self.home.folder.iterdir():
            if path.name != "landing":
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        if any((self.home.folder / "landing" / "postgres").glob("*/*/LOADED")):
            ran = self._warehouse("rebuild")
            assert ran.code == 0, ran.err

    def _warehouse(self, verb: str, dies_after: float | None = None, dies_in: str = "") -> Ran:
        # The clock moves on by an hour whenever the source changes and stands otherwise: keys are due to be compared when rows
        # may have vanished, and a killed load must not have used that up. The owner sees its own open transactions.
        given = {"WAREHOUSE_NOW": self.source.clock.isoformat(), "SOURCES__POSTGRES__CREDENTIALS": self.home.company.owner_url}
        return self.forks.warehouse(self.home, verb, "postgres", dies_after=dies_after, dies_in=dies_in, **given)

    def _content(self) -> dict[str, list[Any]]:
        with duckdb.connect(str(self.home.folder / "warehouse.duckdb"), read_only=True) as connection:
            return {name: connection.execute(_all_of(connection, name)).fetchall() for name in TABLES}


@pytest.fixture(scope="module")
def traced_forks(no_settings: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    """Runs of a checkout that declares the hostile source."""
    checkout = copy_checkout(tmp_path_factory.mktemp("hostile"))
    (checkout / "pipelines" / "postgres.yaml").write_text(DECLARATION)
    (checkout / "privacy" / "policy.yaml").write_text(POLICY)
    forks = Forks(tmp_path_factory.mktemp("forks"), checkout, STAGES)
    yield forks
    forks.close()


def test_a_killed_load_is_made_good_by_the_next(
    company_server: Server, traced_forks: Forks, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """Two warehouses load one source: the landing zone of the first is never lost, that of the second whenever its machine is."""
    moments: Counter[str] = Counter()
    killed_trials = 0
    with company_of(company_server, f"hostile_{os.getpid()}", template="template0") as company, closing(Hostile(company)) as source:
        source.fill()
        lasting, fleeting = (Warehouse(Home(tmp_path / name, company), source, traced_forks) for name in ("lasting", "fleeting"))
        for warehouse in (fleeting, lasting):
            assert warehouse.good_load() == []
        source.live(random.Random(SEED))
        began = time.monotonic()
        assert lasting.good_load() == []
        # Uniform over the whole process, and as often over its last part, which writes the tables and is short.
        durations = {"": time.monotonic() - began, "load": traced_forks.seconds_in("load")}
        for number in range(TRIALS * 2):
            if killed_trials == TRIALS:
                break
            chance = random.Random(f"{SEED}:{number}")
            warehouse = fleeting if number % 3 == 2 else lasting
            source.live(chance)
            what = []
            for _ in range(chance.choice((1, 1, 1, 2, 2, 3))):
                dies_in = chance.choice(list(durations))
                what += [f"killed in {moment}" for moment in warehouse.killed_load(chance.uniform(0, durations[dies_in]), dies_in)]
                loss = chance.choice((None, None, None, None, "machine", "machine", "warehouse"))
                if loss:
                    what.append(f"lost the {loss}")
                    forget_the_machine(warehouse.home.folder)
                    if warehouse is fleeting:
                        shutil.rmtree(warehouse.home.folder / "landing", ignore_errors=True)
                    elif loss == "warehouse":
                        warehouse.lose_all_but_the_landing_zone()
                if chance.random() < 0.3:
                    source.live(chance)
            assert warehouse.good_load() == [], (number, what)
            if warehouse is lasting and number % REBUILT_EVERY == 0:
                assert warehouse.rebuild() == [], (number, what)
            kills = [one.removeprefix("killed in ") for one in what if one.startswith("killed")]
            moments.update(kills)
            killed_trials += bool(kills)
        assert lasting.rebuild() == []
    assert killed_trials == TRIALS
    assert moments["merge"] + moments["settle: merge"] > TRIALS // 40
    bound = f"at most {1 - 0.05 ** (1 / killed_trials):.1%} do, with 95 % confidence"
    told = (
        f"{killed_trials} trials with {moments.total()} killed loads, and none lost, doubled or staled a row: {bound}; killed in {dict(moments.most_common())}"
    )
    record_property("kills", told)
    if TRIALS > SHORT:
        warnings.warn(told, stacklevel=1)


def _moment(forks: Forks) -> str:
    """Where in the load the last kill landed."""
    begun, still_open = forks.calls_when_it_ended()
    inner = next((stage for stage in STAGES if stage in still_open), None)
    if inner is None:
        return "after the load" if "load" in begun else "before reading" if not begun else "between stages"
    return f"settle: {inner}" if "settle" in still_open and inner != "settle" else inner


def _all_of(connection: duckdb.DuckDBPyConnection, table: str) -> str:
    described = connection.execute(f"DESCRIBE raw_postgres.{table}").fetchall()
    chosen = ", ".join(f"epoch_us({name})" if kind == "TIMESTAMP WITH TIME ZONE" else name for name, kind, *_ in sorted(described))
    return f"SELECT {chosen} FROM raw_postgres.{table} ORDER BY ALL"
