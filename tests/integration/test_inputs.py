"""A build builds what can differ from the last one, and nothing else; on a small project of its own."""

import os
import shutil
from pathlib import Path
from typing import Any

import duckdb
import pytest
import yaml

import transform.build as build_module
from transform.inputs import Inputs
from transform.raw_tables import external_models
from transform.review import build_environment
from warehouse import settings
from warehouse.errors import FindingsFound
from warehouse.settings import ROOT

PROJECT = {
    "models/marts/orders.sql": """
MODEL (name marts.orders, kind INCREMENTAL_BY_UNIQUE_KEY (unique_key order_id), audits (no_negative_revenue));
SELECT id::BIGINT AS order_id, currency::TEXT AS currency, revenue::DECIMAL(12, 2) AS revenue FROM raw_postgres.orders
""",
    "models/marts/revenue.sql": """
MODEL (name marts.revenue, kind FULL);
SELECT currency::TEXT AS currency, SUM(revenue)::DECIMAL(18, 2) AS revenue FROM marts.orders GROUP BY currency
""",
    "models/marts/people.sql": """
MODEL (name marts.people, kind FULL);
SELECT COUNT(*)::BIGINT AS people FROM raw_postgres.users
""",
    "audits/no_negative_revenue.sql": """
AUDIT (name no_negative_revenue);
SELECT order_id FROM @this_model WHERE revenue < 0
""",
}
NOW = "1998-03-01T12:00:00+00:00"
TABLES = ("raw_postgres.orders", "raw_postgres.users")
ALL = {"marts.orders", "marts.revenue", "marts.people"}
OF_ORDERS = {"marts.orders", "marts.revenue"}


@pytest.fixture(scope="module")
def built_once(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A checkout, and a home that it built; to be copied, not changed."""
    place = tmp_path_factory.mktemp("inputs")
    home, checkout = place / "home", place / "checkout"
    home.mkdir()
    for part in ("linter", "macros"):  # config.yaml names their rules
        shutil.copytree(ROOT / part, checkout / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "config.yaml", checkout)
    declared = {name: external_models()[name] for name in TABLES}
    files = PROJECT | {"external_models/postgres.yaml": yaml.safe_dump([model.model_dump() for model in declared.values()])}
    for file, text in files.items():
        (checkout / file).parent.mkdir(parents=True, exist_ok=True)
        (checkout / file).write_text(text)
    with duckdb.connect(str(home / "warehouse.duckdb")) as connection:
        connection.execute("CREATE SCHEMA raw_postgres; CREATE SCHEMA raw_elsewhere; CREATE TABLE raw_elsewhere._dlt_loads (id BIGINT)")
        for name, model in declared.items():
            connection.execute(f"CREATE TABLE {name} ({', '.join(f'{column} {kind}' for column, kind in model.columns.items())})")
            connection.execute(f"INSERT INTO {name} (id) SELECT unnest(range(1, 4))")
        connection.execute("UPDATE raw_postgres.orders SET currency = 'USD', revenue = 10")
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(("WAREHOUSE_", "SOURCES__", "PRIVACY__", "MOTHERDUCK_")):
                patch.delenv(name)
        _point_at(home, checkout, patch)
        assert _built() == ALL
    settings.reload()
    return home, checkout


def _point_at(home: Path, checkout: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setenv("WAREHOUSE_HOME", str(home))
    patch.setenv("WAREHOUSE_NOW", NOW)
    patch.setenv("SQLMESH__CACHE_DIR", str(home / "sqlmesh_cache"))
    patch.setattr(build_module, "ROOT", checkout)
    settings.reload()


@pytest.fixture
def checkout(built_once: tuple[Path, Path], home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the built home, in force, and of its checkout, which is returned."""
    copy = tmp_path / "checkout"
    shutil.copytree(built_once[0], home)
    shutil.copytree(built_once[1], copy)
    _point_at(home, copy, monkeypatch)
    return copy


def _built() -> set[str]:
    return {model.name for model in build_module.build().models}


def _ask(query: str) -> list[tuple[Any, ...]]:
    with duckdb.connect(str(settings.settings().warehouse_file)) as connection:
        return connection.execute(query).fetchall()


def _table_behind(view: str) -> str:
    return str(_ask(f"SELECT sql FROM duckdb_views() WHERE schema_name || '.' || view_name = '{view}'")[0][0]).rpartition(" FROM ")[2].strip(" ;\n")


def test_nothing_is_built_from_the_same_rows(checkout: Path) -> None:
    _ask("INSERT INTO raw_elsewhere._dlt_loads VALUES (1)")  # what loads keep beside their tables is no input
    assert _built() == set()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("UPDATE raw_postgres.orders SET revenue = 10.01 WHERE id = 2", OF_ORDERS),  # by hand: no load stamped it
        ("UPDATE raw_postgres.orders SET revenue = CASE id WHEN 1 THEN 9 WHEN 2 THEN 11 ELSE 10 END", OF_ORDERS),  # the same number and sum
        ("UPDATE raw_postgres.orders SET currency = NULL WHERE id = 2", OF_ORDERS),
        ("DELETE FROM raw_postgres.users WHERE id = 3", {"marts.people"}),
        ("INSERT INTO raw_postgres.users SELECT * FROM raw_postgres.users", {"marts.people"}),
        ("INSERT INTO raw_postgres.users SELECT * FROM raw_postgres.users UNION ALL SELECT * FROM raw_postgres.users", {"marts.people"}),
        ("ALTER TABLE raw_postgres.users ADD COLUMN nickname VARCHAR", {"marts.people"}),
        ("UPDATE {people} SET people = 4", {"marts.people"}),
        ("DELETE FROM {revenue}", {"marts.revenue"}),
    ],
)
def test_what_reads_a_changed_table_is_built_again(checkout: Path, change: str, expected: set[str]) -> None:
    _ask(change.format(people=_table_behind("marts.people"), revenue=_table_behind("marts.revenue")))
    assert _built() == expected
    assert _ask("SELECT * FROM marts.people") == _ask("SELECT COUNT(*) FROM raw_postgres.users")
    assert _ask("SELECT SUM(revenue) FROM marts.revenue") == _ask("SELECT SUM(revenue) FROM raw_postgres.orders")
    assert _built() == set()


def test_what_an_audit_found_is_found_again_until_it_is_mended(checkout: Path) -> None:
    _ask("UPDATE raw_postgres.orders SET revenue = -1 WHERE id = 2")
    for _ in range(2):
        with pytest.raises(FindingsFound, match="audit no_negative_revenue found 1 rows"):
            build_module.build()
    _ask("UPDATE raw_postgres.orders SET revenue = 10 WHERE id = 2")
    assert _built() == OF_ORDERS
    _ask(f"INSERT INTO {_table_behind('marts.orders')} VALUES (9, 'USD', -1)")
    for _ in range(2):
        with pytest.raises(FindingsFound, match="audit no_negative_revenue found 1 rows"):
            build_module.build()
    _ask(f"DELETE FROM {_table_behind('marts.orders')} WHERE order_id = 9")
    assert _built() == OF_ORDERS


def test_another_day_and_other_code_and_a_lost_state_build_everything(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WAREHOUSE_NOW", "1998-03-02T00:00:00+00:00")
    settings.reload()
    built = build_module.build()
    assert ({model.name for model in built.models}, built.planned) == (ALL, False), "there is nothing to plan where the code is the same"
    assert _built() == set()
    people = checkout / "models/marts/people.sql"
    people.write_text(people.read_text().replace("COUNT(*)", "COUNT(*) * 2"))
    assert _built() >= {"marts.people"}
    assert _ask("SELECT * FROM marts.people") == [(6,)]
    assert _built() == set()
    settings.settings().state_file.unlink()
    assert _built() == ALL


@pytest.mark.parametrize("name", ["privacy/policy.yaml", "macros/helper.py", "audits/new.sql", "config.yaml"])
def test_whatever_a_plan_reads_is_code(checkout: Path, name: str) -> None:
    def is_changed() -> bool:
        with duckdb.connect(str(settings.settings().warehouse_file)) as connection:
            return Inputs.now(connection, checkout).changed(connection).code

    assert not is_changed()
    (checkout / name).parent.mkdir(exist_ok=True)
    with (checkout / name).open("a") as file:
        file.write("\n")
    assert is_changed()


def test_a_build_that_failed_is_not_remembered_even_if_its_input_is_taken_back(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _ask("UPDATE raw_postgres.orders SET revenue = 99 WHERE id = 2")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Inputs, "remember", killed)
        with pytest.raises(KeyboardInterrupt):
            build_module.build()
    assert _ask("SELECT SUM(revenue) FROM marts.revenue")[0][0] == 119
    _ask("UPDATE raw_postgres.orders SET revenue = 10 WHERE id = 2")
    assert _built() == OF_ORDERS
    assert _ask("SELECT SUM(revenue) FROM marts.revenue")[0][0] == 30


def test_a_reviewed_change_is_taken_over_with_what_was_loaded_after_the_review(checkout: Path) -> None:
    people = checkout / "models/marts/people.sql"
    before = people.read_text()
    people.write_text(before.replace("COUNT(*)", "COUNT(*) * 2"))
    assert build_environment("pr_12", megabytes=100).is_built
    reviewed = people.read_text()
    people.write_text(before)
    _ask("INSERT INTO raw_postgres.users (id) VALUES (4)")
    assert "marts.people" in _built()
    assert _ask("SELECT * FROM marts.people") == [(4,)]
    people.write_text(reviewed)
    assert _built() == {"marts.people"}
    assert _ask("SELECT * FROM marts.people") == [(8,)]


def test_a_reviewed_change_is_taken_over_as_it_is_when_nothing_was_loaded(checkout: Path) -> None:
    people = checkout / "models/marts/people.sql"
    people.write_text(people.read_text().replace("COUNT(*)", "COUNT(*) * 2"))
    assert build_environment("pr_12", megabytes=100).is_built
    table = _table_behind("marts__pr_12.people")
    built = build_module.build()
    assert (built.models, built.planned) == ([], True)
    assert (_table_behind("marts.people"), _ask("SELECT * FROM marts.people")) == (table, [(6,)])
