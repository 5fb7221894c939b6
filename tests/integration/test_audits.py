"""Wrong data stops a build: each audit of each model finds the row that it is there for. What a kill leaves is built on."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pytest
from integration import broken_google_analytics, broken_postgres
from integration.broken import OTHERS
from integration.broken_postgres import FIRST_LOAD, ORDER, ORDERS, SECOND_LOAD, THIRD_LOAD, USER, one

from transform.build import build, open_context
from transform.raw_tables import external_models
from warehouse import settings
from warehouse.errors import FindingsFound, UsageError
from warehouse.settings import ROOT

if TYPE_CHECKING:
    from sqlmesh import Context

pytestmark = pytest.mark.xdist_group("audits")  # they share one built warehouse

NOW = "1998-03-01T12:00:00Z"
NEVER_NULL = {model: row for module in (broken_postgres, *OTHERS) for model, row in module.NEVER_NULL.items()}
COMBINED = tuple(model for module in (broken_postgres, *OTHERS) for model in getattr(module, "COMBINED", ()))
UNIQUE = dict.fromkeys(NEVER_NULL, "unique_values") | dict.fromkeys(COMBINED, "unique_combination_of_columns")

# How each audit is broken: model, audit, SQL. Names in braces are the physical tables behind the models.
BROKEN: list[tuple[str, str, str]] = [
    *((model, "not_null", one(table, f"{column} = NULL")) for model, (table, columns) in NEVER_NULL.items() for column in columns.split()),
    *((model, UNIQUE[model], f"INSERT INTO {table} SELECT * FROM {table} LIMIT 1") for model, (table, _) in NEVER_NULL.items()),
    *(broken for module in (broken_postgres, *OTHERS) for broken in getattr(module, "BROKEN_AUDITS", [])),
]


@contextmanager
def _warehouse(home: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect(str(home / "warehouse.duckdb")) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        yield connection


def _change(home: Path, *statements: str) -> None:
    with _warehouse(home) as connection:
        for statement in statements:
            connection.execute(statement)


def _rows(home: Path, query: str) -> list[tuple[Any, ...]]:
    with _warehouse(home) as connection:
        return connection.execute(query).fetchall()


def _orders_edited(change: str, orders: str, loaded_at: str = SECOND_LOAD) -> str:
    """What a load does with rows that production changed."""
    return f"UPDATE raw_postgres.orders SET {change}, updated_at = '{loaded_at}', _loaded_at = '{loaded_at}' WHERE id IN ({orders})"


@pytest.fixture(scope="module")
def clean_environment() -> Iterator[pytest.MonkeyPatch]:
    """No settings; what is set here is undone, and settings are read anew afterwards."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(("WAREHOUSE_", "SOURCES__", "PRIVACY__", "MOTHERDUCK_")):
                patch.delenv(name)
        yield patch
    settings.reload()


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home in which three users and six orders were loaded, and nothing was built."""
    folder = tmp_path_factory.mktemp("loaded")
    declared = {name: model.columns for name, model in external_models().items()}
    _change(
        folder,
        *(f"CREATE SCHEMA {schema}" for schema in sorted({name.split(".")[0] for name in declared})),
        *(f"CREATE TABLE {table} ({', '.join(f'{name} {kind}' for name, kind in columns.items())})" for table, columns in declared.items()),
        f"INSERT INTO raw_postgres.users VALUES {', '.join(USER.format(user, FIRST_LOAD) for user in (1, 2, 3))}",
        f"INSERT INTO raw_postgres.orders VALUES {', '.join(ORDER.format(*order, FIRST_LOAD) for order in ORDERS)}",
        *(row for one in OTHERS for row in getattr(one, "ROWS", [])),
    )
    return folder


def _settings_of(home: Path) -> dict[str, str]:
    """The environment of a build. SQLMesh's cache holds what a state holds, so each home has its own."""
    return {"WAREHOUSE_HOME": str(home), "WAREHOUSE_NOW": NOW, "SQLMESH__CACHE_DIR": str(home / "sqlmesh_cache")}


def _point_at(home: Path, set_one: Callable[[str, str], None]) -> None:
    for name, value in _settings_of(home).items():
        set_one(name, value)
    settings.reload()


@pytest.fixture(scope="module")
def built_once(loaded: Path, tmp_path_factory: pytest.TempPathFactory, clean_environment: pytest.MonkeyPatch) -> Path:
    """The same home after its first build; to be copied, not changed."""
    folder = tmp_path_factory.mktemp("built") / "home"
    shutil.copytree(loaded, folder)
    _point_at(folder, clean_environment.setenv)
    build()
    return folder


@pytest.fixture
def built(built_once: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A built home that the test may break, the clock standing on NOW."""
    shutil.copytree(built_once, home)
    _point_at(home, monkeypatch.setenv)
    return home


@pytest.fixture(scope="module")
def context(built_once: Path, tmp_path_factory: pytest.TempPathFactory, clean_environment: pytest.MonkeyPatch) -> Iterator["Context"]:
    """SQLMesh's context on a copy of the built home."""
    folder = tmp_path_factory.mktemp("audited") / "home"
    shutil.copytree(built_once, folder)
    _point_at(folder, clean_environment.setenv)
    with open_context() as opened:
        yield opened
    _audits.cache_clear()
    _snapshots.cache_clear()


@cache
def _snapshots(context: "Context") -> tuple[dict[str, Any], dict[str, str]]:
    """Asked once, for it asks the state: SQLMesh's snapshots, and the physical table of each model that is broken here."""
    snapshots = context.snapshots
    return snapshots, {name.split(".")[1]: snapshots[context.get_model(name).fqn].table_name() for name in {name for name, *_ in BROKEN}}


@cache
def _audits(context: "Context", model: str) -> list[tuple[str, str]]:
    """A model's audits and their SQL as SQLMesh runs it: to write it takes a hundred times as long as to run it."""
    snapshots, _ = _snapshots(context)
    results = context.snapshot_evaluator.audit(snapshots[context.get_model(model).fqn], snapshots=snapshots, execution_time=NOW)
    return [(result.audit.name, f"SELECT count(*) FROM ({result.query.sql('duckdb', identify=True)}) AS audit") for result in results]


def _failing(context: "Context", model: str, *, broken_by: str = "SELECT 1") -> set[str]:
    """The audits of a model that find rows after a statement, which is undone."""
    (_, tables), audits = _snapshots(context), _audits(context, model)
    connection = context.engine_adapter.cursor  # not `transaction()`: SQLMesh has none on DuckDB and undoes nothing
    connection.execute("BEGIN")
    try:
        connection.execute(broken_by.format(**tables))
        return {name for name, query in audits if connection.execute(query).fetchone()[0]}
    finally:
        connection.execute("ROLLBACK")


def test_every_audit_of_every_model_is_broken_here_once(context: "Context") -> None:
    used = {(model.name, name) for model in context.models.values() for name, _ in model.audits}
    assert {(model, audit) for model, audit, _ in BROKEN} == used
    assert set(context._audits) <= {audit for _, audit in used}, "an audit that no model uses"


@pytest.mark.parametrize("model", NEVER_NULL)
def test_right_data_passes_every_audit(context: "Context", model: str) -> None:
    assert _failing(context, model) == set()


@pytest.mark.parametrize(("model", "audit", "statement"), BROKEN)
def test_an_audit_finds_what_it_is_there_for(context: "Context", model: str, audit: str, statement: str) -> None:
    assert audit in _failing(context, model, broken_by=statement)


def test_wrong_orders_stop_the_build_and_the_next_good_load_mends_it(built: Path) -> None:
    revenue = "SELECT * FROM marts.daily_revenue ORDER BY ALL"
    before = _rows(built, revenue)
    _change(built, _orders_edited("revenue = -5", "1"), _orders_edited("ordered_at = '1998-03-02 00:00:00+00'", "2, 3"), _orders_edited("user_id = 99", "4"))
    with pytest.raises(FindingsFound) as found:
        build()
    assert set(found.value.what.splitlines()) == {
        "marts.order_facts: audit amount_is_valid found 1 rows",
        "marts.order_facts: audit not_in_the_future found 2 rows",
        "marts.order_facts: audit reference_exists found 1 rows",
    }
    assert _rows(built, revenue) == before

    _change(built, _orders_edited("revenue = 5, ordered_at = '1998-03-01 00:00:00+00', user_id = 3", "1, 2, 3, 4", THIRD_LOAD))
    build()
    assert _rows(built, "SELECT date, revenue FROM marts.daily_revenue WHERE date > '1998-02-28' ORDER BY ALL") == [
        (date(1998, 3, 1), Decimal("5.00")),
        (date(1998, 3, 1), Decimal("15.00")),
    ]


def test_rows_without_a_key_or_with_the_same_key_stop_the_build_where_they_come_in(built: Path) -> None:
    _change(
        built,
        f"INSERT INTO raw_postgres.orders VALUES {ORDER.format(6, 3, '1998-02-19 09:00:00+00', '7.00', 'USD', SECOND_LOAD)}",
        f"INSERT INTO raw_postgres.users VALUES {USER.format('NULL', SECOND_LOAD)}",
    )
    with pytest.raises(FindingsFound) as found:
        build()
    assert set(found.value.what.splitlines()) == {
        "staging.stg_postgres__orders: audit unique_values found 1 rows",
        "staging.stg_postgres__users: audit not_null found 1 rows",
    }


def test_a_fact_that_vanished_stops_the_build(built: Path, context: "Context") -> None:
    _change(built, f"DELETE FROM {context.get_snapshot('marts.order_facts').table_name()} WHERE order_id = 5")
    with pytest.raises(FindingsFound, match=r"^marts\.order_facts: audit orders_match_staging found 1 rows\n"):
        build()
    build(restate=["marts.order_facts"])
    assert _rows(built, "SELECT count(*) FROM marts.order_facts WHERE order_id = 5") == [(1,)]


def test_an_unknown_model_cannot_be_restated(built: Path) -> None:
    with pytest.raises(UsageError, match=r"no model 'marts\.nonsense'"):
        build(restate=["marts.nonsense"])


@pytest.fixture(scope="module")
def edited(built_once: Path, context: "Context", tmp_path_factory: pytest.TempPathFactory, clean_environment: pytest.MonkeyPatch) -> Path:
    """The built home after production edited orders and users, with stamps and without, and one more build; to be copied, not changed."""
    folder = tmp_path_factory.mktemp("edited") / "home"
    table = context.get_snapshot("marts.order_facts").table_name()
    shutil.copytree(built_once, folder)
    _point_at(folder, clean_environment.setenv)
    _change(
        folder,
        f"UPDATE {table} SET status = 'touched by nobody' WHERE order_id = 4",
        _orders_edited("revenue = 10.00", "1"),
        _orders_edited("ordered_at = '1998-02-04 00:00:00+00'", "5"),
        *broken_google_analytics.RESTATED,
        f"UPDATE raw_postgres.users SET country = 'FR', updated_at = '1998-02-21 09:00:00+00', _loaded_at = '{SECOND_LOAD}' WHERE id = 1",
        f"UPDATE raw_postgres.users SET updated_at = NULL, country = 'IT', _loaded_at = '{SECOND_LOAD}' WHERE id = 2",
        f"UPDATE raw_postgres.users SET email_hash = 'rotated', _loaded_at = '{SECOND_LOAD}' WHERE id = 3",
        f"INSERT INTO raw_postgres.users VALUES {USER.format(4, SECOND_LOAD)}",
    )
    build()
    return folder


def test_a_build_reads_only_what_was_loaded_since_the_last(edited: Path) -> None:
    assert _rows(edited, "SELECT status FROM marts.order_facts WHERE order_id = 4") == [("touched by nobody",)]
    assert _rows(edited, "SELECT revenue FROM marts.order_facts WHERE order_id = 1") == [(Decimal("10.00"),)]


def test_an_old_order_that_is_edited_later_moves_its_own_day(built_once: Path, edited: Path) -> None:
    revenue = "SELECT date, currency, orders, revenue FROM marts.daily_revenue ORDER BY ALL"
    before = _rows(built_once, revenue)
    assert (date(1997, 12, 31), "USD", 1, Decimal("11.77")) in before
    assert _rows(edited, "SELECT sessions, (SELECT events FROM marts.funnel_daily WHERE step = 1) FROM marts.acquisition_daily") == [(7, 7)]
    expected = {
        *before,
        (date(1997, 12, 31), "USD", 1, Decimal("10.00")),
        (date(1998, 2, 4), "EUR", 1, Decimal("20.00")),
    } - {(date(1997, 12, 31), "USD", 1, Decimal("11.77")), (date(1998, 2, 3), "EUR", 1, Decimal("20.00"))}
    assert _rows(edited, revenue) == sorted(expected)


HISTORY = "SELECT user_id, country, valid_from, valid_to FROM marts.user_dim_history ORDER BY ALL"
BEGAN, CHANGED = datetime(1997, 1, 1), datetime(1998, 2, 21, 9)


def test_a_changed_user_gets_a_second_version(edited: Path) -> None:
    versions = [row for row in _rows(edited, HISTORY) if row[0] in (1, 4)]
    assert versions == [(1, "DE", BEGAN, CHANGED), (1, "FR", CHANGED, None), (4, "DE", BEGAN, None)]


def test_a_change_that_production_did_not_stamp_is_in_the_history_too(edited: Path) -> None:
    loaded = _rows(edited, "SELECT DISTINCT loaded_at FROM marts.user_dim_history WHERE user_id = 3 AND valid_to IS NULL")[0][0]
    for user, column in ((3, "email_hash = 'rotated'"), (2, "country = 'IT'")):
        versions = _rows(edited, f"SELECT {column}, valid_from, valid_to FROM marts.user_dim_history WHERE user_id = {user} ORDER BY valid_from")
        assert versions == [(False, versions[0][1], loaded), (True, loaded, None)]


def test_a_deleted_user_ends_and_the_others_versions_stay(edited: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(edited, home)
    _point_at(home, monkeypatch.setenv)
    before = [row for row in _rows(home, HISTORY) if row[0] != 4]
    _change(home, "DELETE FROM raw_postgres.users WHERE id = 4")
    build()
    assert _rows(home, "SELECT user_id, country FROM marts.user_dim ORDER BY ALL") == [(1, "FR"), (2, "IT"), (3, "DE")]
    assert [row for row in _rows(home, HISTORY) if row[0] != 4] == before
    ((ended,),) = _rows(home, "SELECT valid_to FROM marts.user_dim_history WHERE user_id = 4")
    assert timedelta(0) <= ended - datetime(1998, 3, 1, 12) < timedelta(seconds=1)  # each build is at least a millisecond later than the last


BUILD = "import sys, sqlmesh; from transform.build import build; print('ready', flush=True); build()"


def _build_in_a_process(home: Path, *, kill_after: float | None = None) -> tuple[int, float]:
    """Build in a process of its own, and kill it some seconds after its start-up; returns its exit code and how long it built."""
    environment = {**os.environ, **_settings_of(home), "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", BUILD], cwd=ROOT, env=environment, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        began = time.monotonic()
        if kill_after is not None:
            time.sleep(kill_after)
            process.send_signal(signal.SIGKILL)
        code = process.wait()
    return code, time.monotonic() - began


def _marts(home: Path) -> dict[str, list[tuple[Any, ...]]]:
    tables = [table for (table,) in _rows(home, "SELECT table_name FROM information_schema.tables WHERE table_schema = 'marts' ORDER BY ALL")]
    return {table: _rows(home, f"SELECT * FROM marts.{table} ORDER BY ALL") for table in tables}


def test_a_build_killed_at_any_moment_and_built_again_gives_what_an_undisturbed_one_gives(
    loaded: Path, built_once: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    second_load = (
        _orders_edited("revenue = 10.00, ordered_at = '1998-01-15 00:00:00+00'", "1"),
        f"INSERT INTO raw_postgres.users VALUES {USER.format(4, SECOND_LOAD)}",
        f"INSERT INTO raw_postgres.orders VALUES {ORDER.format(7, 4, '1998-02-20 09:00:00+00', '3.00', 'USD', SECOND_LOAD)}",
    )

    def copy(of: Path, name: str) -> Path:
        folder = home / name
        shutil.copytree(of, folder)
        _change(folder, *second_load)
        return folder

    undisturbed = copy(built_once, "undisturbed")
    code, seconds = _build_in_a_process(undisturbed)
    assert code == 0
    expected = _marts(undisturbed)
    assert len(expected) == len([file for file in (settings.ROOT / "models" / "marts").rglob("*") if file.suffix in (".sql", ".py")])
    assert (7, 4) in [row[:2] for row in expected["order_facts"]]

    moments = random.Random(19970101)
    killed = []
    for number, start in enumerate((loaded, built_once)):
        folder = copy(start, f"killed_{number}")
        code, _ = _build_in_a_process(folder, kill_after=seconds * moments.uniform(0.05, 0.95))
        killed.append(code == -signal.SIGKILL)
        _point_at(folder, monkeypatch.setenv)
        build()
        assert _marts(folder) == expected
    assert any(killed)
