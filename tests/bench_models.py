"""Measure building models: `make bench-models`. One line of JSON a figure: what, seconds, CPU seconds, beside it, bar, whether it is met."""

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

import transform.build as build_module
from transform.inputs import Inputs
from transform.raw_tables import external_models
from warehouse import settings, storage
from warehouse.console import say
from warehouse.settings import ROOT

MODELS = 200
DAYS = 540
NOW = "1998-07-01T00:00:00+00:00"
START = "TIMESTAMPTZ '1997-01-01 00:00:00+00'"
ORDERS = "raw_postgres.orders"
COLUMNS = "order_id, user_id, ordered_at, order_date, quantity, revenue, currency, status, updated_at, loaded_at, is_deleted"


def main() -> None:
    """Run every measurement."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rows", type=int, default=20_000_000, help="of the fact of which one day is loaded again")
    arguments.add_argument("--runs", type=int, default=3)
    given = arguments.parse_args()
    _many_models(given.runs)
    _one_day_again(given.rows, given.runs)


def _many_models(runs: int) -> None:
    """A project of 200 models, half views, half tables, each audited: a plan without a change, and taking a review's change over."""
    project = {}
    for number in range(MODELS // 2):
        project[f"models/staging/s_{number}.sql"] = (
            f"MODEL (name staging.s_{number}, kind VIEW, audits (not_null(columns := (order_id))));\n"
            f"SELECT id::BIGINT AS order_id, currency::TEXT AS currency, (revenue + {number})::DECIMAL(12, 2) AS revenue FROM {ORDERS}"
        )
        project[f"models/marts/m_{number}.sql"] = (
            f"MODEL (name marts.m_{number}, kind FULL, audits (not_null(columns := (currency))));\n"
            f"SELECT currency::TEXT AS currency, SUM(revenue)::DECIMAL(18, 2) AS revenue FROM staging.s_{number} GROUP BY currency"
        )
    with _home(project, 100_000) as checkout:
        built = build_module.build()
        assert len(built.models) == MODELS
        idle = [_measured(_child, checkout, "build_module.build()") for _ in range(runs)]
        _say(f"`warehouse transform`, {MODELS} models, nothing changed", idle, bar="<= 10 CPU s", is_met=_median(idle, 1) <= 10)
        program = (
            "open_it = build_module.open_context()\nwith open_it as context:\n    assert not build_module._builder(context).build().context_diff.has_changes"
        )
        plan = [_measured(_child, checkout, program) for _ in range(runs)]
        _say(f"a plan of {MODELS} models, nothing changed", plan, bar="<= 10 CPU s", is_met=_median(plan, 1) <= 10)

        changed = checkout / "models/marts/m_0.sql"
        changed.write_text(changed.read_text().replace("SUM(revenue)", "MAX(revenue)"))
        from transform.review import build_environment

        environment = build_environment("pr_1", megabytes=10_000)
        assert environment.is_built, environment.problems
        with storage.open_warehouse() as connection:
            inputs = Inputs.now(connection, checkout)
        evaluated = _evaluated(lambda: build_module.build())
        with storage.open_warehouse() as connection:
            kept = Inputs.now(connection, checkout)
        anew = sum(kept.tables[table] != state for table, state in inputs.tables.items()) + len(kept.tables.keys() - inputs.tables.keys())
        said = {"what": "promotion of a reviewed change", "tables_other_or_new": anew, "models_evaluated": len(evaluated), "bar": "0", "is_met": not evaluated}
        say(json.dumps(said))


def _one_day_again(rows: int, runs: int) -> None:
    """One day of the orders is loaded again: the fact's own merge, beside the same statements by hand."""
    copied = ["macros/incremental.py", "models/marts/core/order_facts.sql"]
    copied += [str(path.relative_to(ROOT)) for path in (ROOT / "models/staging/postgres").glob("*.sql")]
    project = {name: (ROOT / name).read_text() for name in copied}
    for audit in (ROOT / "audits").glob("*.sql"):
        project[f"audits/{audit.name}"] = audit.read_text()
    with _home(project, rows) as checkout:
        build_module.build()
        ours, by_hand, whole = [], [], []
        for run in range(runs + 1):  # the first one warms up
            loaded = f"1998-06-{run + 1:02d} 12:00:00+00"
            with storage.open_warehouse() as connection:
                day = f"UPDATE {ORDERS} SET revenue = revenue + 0.01, _loaded_at = '{loaded}' WHERE ordered_at::DATE = DATE '1997-06-01'"
                connection.execute(day)
                connection.execute("CHECKPOINT")
                fact = connection.execute("SELECT sql FROM duckdb_views() WHERE schema_name = 'marts' AND view_name = 'order_facts'").fetchone()
                assert fact is not None
                connection.execute(f"CREATE OR REPLACE TABLE main.by_hand AS {str(fact[0]).partition(' AS ')[2]}")
                connection.execute("CHECKPOINT")
            with storage.open_warehouse() as connection:
                by_hand.append(_measured(_by_hand, connection))
                connection.execute("DROP TABLE main.by_hand")
            seconds: dict[str, float] = {}
            whole.append(_measured(lambda seconds=seconds: seconds.update(_evaluated(build_module.build))))
            ours.append((seconds["order_facts"], 0.0))
        times = _median(ours[1:], 0) / _median(by_hand[1:], 0)
        _say(f"one day of {rows:,} orders again, the model alone", ours[1:], beside=by_hand[1:], bar="<= 3 x by hand", is_met=times <= 3)
        _say("the same, the whole build with its audits of all rows", whole[1:])
        assert checkout.exists()


def _by_hand(connection: Any) -> None:
    """What somebody would write who knows that these rows are all that came: delete by key, insert."""
    connection.execute("BEGIN")
    connection.execute(
        f"CREATE TEMP TABLE came AS SELECT {COLUMNS} FROM (SELECT *, ordered_at::DATE AS order_date, deleted_at IS NOT NULL AS is_deleted "
        "FROM staging.stg_postgres__orders) WHERE loaded_at > (SELECT MAX(loaded_at) FROM main.by_hand)"
    )
    connection.execute("DELETE FROM main.by_hand WHERE order_id IN (SELECT order_id FROM came)")
    connection.execute(f"INSERT INTO main.by_hand ({COLUMNS}) SELECT {COLUMNS} FROM came")
    connection.execute("COMMIT")
    connection.execute("DROP TABLE came")


@contextmanager
def _home(project: dict[str, str], rows: int) -> Iterator[Path]:
    """A home with that many orders, and a checkout of that project in force; yields the checkout."""
    place = Path(tempfile.mkdtemp(prefix="warehouse_bench_"))
    checkout = place / "checkout"
    for part in ("linter", "macros"):
        shutil.copytree(ROOT / part, checkout / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "config.yaml", checkout)
    tables = {name: external_models()[name] for name in (ORDERS, "raw_postgres.users")}
    for file, text in (project | {"external_models/postgres.yaml": yaml.safe_dump([one.model_dump() for one in tables.values()])}).items():
        (checkout / file).parent.mkdir(parents=True, exist_ok=True)
        (checkout / file).write_text(text)
    os.environ |= {"WAREHOUSE_HOME": str(place / "home"), "WAREHOUSE_NOW": NOW}
    settings.reload()
    build_module.ROOT = checkout  # type: ignore[misc]  # the project that is built
    users = max(rows // 10, 1)
    try:
        with storage.open_warehouse() as connection:
            connection.execute("CREATE SCHEMA raw_postgres")
            for name, model in tables.items():
                connection.execute(f"CREATE TABLE {name} ({', '.join(f'{column} {kind}' for column, kind in model.columns.items())})")
            connection.execute(
                f"INSERT INTO raw_postgres.users (id, created_at, updated_at, _loaded_at) SELECT range, {START}, {START}, {START} FROM range({users})"
            )
            connection.execute(
                f"INSERT INTO {ORDERS} (id, user_id, ordered_at, quantity, revenue, currency, status, updated_at, _loaded_at) "
                f"SELECT range, range % {users}, {START} + INTERVAL (range % {DAYS}) DAY, 1, (range % 10000) / 100, 'USD', 'paid', "
                f"{START}, {START} + INTERVAL 500 DAY FROM range({rows})"
            )
        yield checkout
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _evaluated(do: Callable[[], Any]) -> dict[str, float]:
    """Which models SQLMesh computed meanwhile, and for how many seconds each, audits apart."""
    from sqlmesh.core.snapshot.evaluator import SnapshotEvaluator

    original, seconds = SnapshotEvaluator.evaluate, {}

    def evaluate(self: Any, snapshot: Any, *arguments: Any, **named: Any) -> Any:
        began = time.monotonic()
        result = original(self, snapshot, *arguments, **named)
        seconds[snapshot.model.view_name] = time.monotonic() - began
        return result

    SnapshotEvaluator.evaluate = evaluate
    try:
        do()
    finally:
        SnapshotEvaluator.evaluate = original
    return seconds


def _child(checkout: Path, program: str) -> None:
    """A process of its own, as each command is one."""
    code = f"import transform.build as build_module\nfrom pathlib import Path\nbuild_module.ROOT = Path({str(checkout)!r})\n{program}\n"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})


def _measured(do: Callable[..., Any], *arguments: Any) -> tuple[float, float]:
    """Seconds, and CPU seconds of this process and its children."""

    def used() -> float:
        return sum(one.ru_utime + one.ru_stime for one in (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)))

    began, before = time.monotonic(), used()
    do(*arguments)
    return time.monotonic() - began, used() - before


def _median(figures: list[tuple[float, float]], which: int) -> float:
    return statistics.median(figure[which] for figure in figures)


def _say(what: str, figures: list[tuple[float, float]], *, beside: list[tuple[float, float]] | None = None, bar: str = "", is_met: bool | None = None) -> None:
    said: dict[str, Any] = {"what": what, "seconds": round(_median(figures, 0), 2), "cpu_seconds": round(_median(figures, 1), 2)}
    if beside is not None:
        said |= {"by_hand_seconds": round(_median(beside, 0), 2), "times": round(_median(figures, 0) / _median(beside, 0), 2)}
    say(json.dumps(said | {"bar": bar, "is_met": is_met}))


if __name__ == "__main__":
    main()
