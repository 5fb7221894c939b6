"""The same faults through the real thing: SQLMesh builds them into a home, Soda judges them, and both must find what a trial finds.

The home is built once without yesterday's rows. For each fault a copy of it is given these rows and the fault, as one load
brings them, and built and checked as `warehouse run` does.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from monitoring.completeness import check_completeness, check_newest
from monitoring.contracts import check_contracts
from monitoring.deletes import check_deletes
from monitoring.expectations import read_expectations
from monitoring.failures import _AUDITED, _audit
from monitoring.findings import Finding
from monitoring.lineage import read_lineage
from monitoring.schema_changes import schema_changes
from trials.carried import FRESH, LEFT_OUT, Trial
from trials.catalogue import CATALOGUE, DAY
from trials.home import NOW, RAW, TABLES
from trials.shop import raw_tables

NAMES = ("negative amounts", "a batch of orders loaded twice", "orders of next month", "users without country", "charges in a currency that is none",
         "orders lost by the source", "amounts nought")  # fmt: skip
GROWING = {"raw_postgres.orders": "ordered_at", **{f"raw_stripe.{name}": "created_at" for name in ("charges", "refunds", "balance_transactions")}}


def both_ways(seed: int, said: Callable[[str], None], names: Sequence[str] = NAMES) -> str:
    """Compare, fault by fault; as Markdown."""
    trial, equal, told = Trial(seed), 0, []
    faults = [fault for fault in CATALOGUE if fault.name in names]
    with tempfile.TemporaryDirectory(prefix="both-ways-") as place, _settings():
        base = Path(place, "base")
        _home(base)
        _begin(seed)
        for fault in faults:
            home = Path(place, "fault")
            shutil.rmtree(home, ignore_errors=True)
            shutil.copytree(base, home)
            _home(home)
            real = [one for one in _run(fault.sql[1].replace("{seed}", str(seed))) if one.fingerprint not in trial.clean]
            here, kept = trial.run(fault, 1).found, _kept_back(real)
            there, tried = ({(one.check, one.table, one.column) for one in found if one.table not in kept} for found in (real, here))
            equal += there == tried
            sides = (("in the home alone", there - tried), ("in the trial alone", tried - there))
            differing = [f"{side}: {', '.join(sorted(f'{table} {check}' for check, table, _ in found))}" for side, found in sides if found]
            told += [f"{fault.name}: {'; '.join(differing)}"] if differing else []
            said(f"both ways: {fault.name}: {'; '.join(differing) or 'the same'}")
    differ = "".join(f"\n- {one}" for one in told)
    return (
        f"## Both ways\n\n{len(faults)} faults built by SQLMesh and judged by Soda in a home of their own: the same findings in {equal}, "
        f"but for tables that an audit kept from being built: a build that stops shows what it showed before, a trial goes on.{differ}\n"
    )


def _kept_back(found: Iterable[Finding]) -> set[str]:
    """The tables that a failed audit kept from being built anew: its own, and all that is made of it."""
    lineage, stopped = read_lineage(), {one.table for one in found if one.check.startswith("audit ")}
    return {table for table in lineage.inputs if table in stopped or stopped & lineage.above(table)}


@contextmanager
def _settings() -> Iterator[None]:
    from warehouse.settings import reload

    before = {name: os.environ.get(name) for name in ("WAREHOUSE_HOME", "WAREHOUSE_NOW")}
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        reload()


def _home(folder: Path) -> None:
    from warehouse.settings import reload

    os.environ |= {"WAREHOUSE_HOME": str(folder), "WAREHOUSE_NOW": NOW.isoformat()}
    reload()


def _begin(seed: int) -> None:
    """Every raw table, those of a trial with the rows of a seed up to the day before yesterday, and all models built."""
    from transform.build import build
    from transform.raw_tables import external_models
    from warehouse import storage

    with storage.open_warehouse() as connection:
        raw_tables(connection, seed)
        for name, model in external_models().items():
            if name not in RAW:
                columns = ", ".join(f"{column} {kind}" for column, kind in model.columns.items())
                connection.execute(f"CREATE SCHEMA IF NOT EXISTS {name.split('.')[0]}; CREATE TABLE {name} ({columns})")
        connection.execute("CREATE SCHEMA later")
        for table, time in GROWING.items():
            kept = f"later.{table.replace('.', '_')}"
            connection.execute(f"CREATE TABLE {kept} AS FROM {table} WHERE {time} >= '{DAY}'; DELETE FROM {table} WHERE {time} >= '{DAY}'")
    build()


def _run(sql: str) -> list[Finding]:
    from monitoring.anomalies import check_anomalies
    from transform.build import build
    from warehouse import storage
    from warehouse.errors import FindingsFound

    with storage.open_warehouse() as connection:
        for table in GROWING:
            connection.execute(f"INSERT INTO {table} FROM later.{table.replace('.', '_')}")
        connection.execute("DROP SCHEMA later CASCADE")
        connection.execute("CREATE TABLE before AS FROM raw_postgres.users")
        connection.execute(sql)
        stamped = "FROM before WHERE before.id = users.id AND before IS DISTINCT FROM users"  # a load stamps each row that it brings
        connection.execute(f"UPDATE raw_postgres.users AS users SET _loaded_at = '{NOW - FRESH}' {stamped}; DROP TABLE before")
    found: list[Finding] = []
    try:
        build()
    except FindingsFound as stopped:
        found += [_audit(*audited, NOW) for audited in _AUDITED.findall(stopped.what)]
    with storage.open_warehouse() as connection:
        at = dict.fromkeys(RAW, NOW - FRESH)
        found += schema_changes(connection, NOW) + check_contracts(connection, now=NOW, loaded_at=at, only=TABLES, left_out=LEFT_OUT)
        for look in (check_completeness, check_newest, check_deletes, check_anomalies):
            found += look(connection, read_expectations(), NOW)
    return found
