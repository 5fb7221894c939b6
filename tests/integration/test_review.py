"""A review tells what a change does to production before it is merged, and production stays as it is."""

import json
import os
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
import yaml
from integration.github import pull_request

from cli.main import cli
from cli.pull_request import MARKER
from transform import build as build_module
from transform.build import build, open_context
from transform.effect import Difference, differences
from transform.raw_tables import external_models
from transform.review import Category, ChangedModel, Environment, build_environment
from warehouse import restate, settings
from warehouse.errors import UsageError, WarehouseError
from warehouse.settings import ROOT

pytestmark = pytest.mark.xdist_group("review")  # they share one built warehouse

BUILT, REVIEWED = "1998-03-01T12:00:00Z", "1998-03-01T15:00:00Z"
ORDER = "({}, {}, '{}', 2, {}, '{}', 'paid', '1998-01-01 00:00:00+00', '1998-02-20 10:00:00+00', NULL, NULL)"
ORDERS = [
    (1, 1, "1997-12-31 09:00:00+00", "11.77", "USD"),
    (2, 1, "1998-01-01 00:00:00+00", "12.00", "USD"),
    (3, 2, "1998-01-01 09:00:00+00", "0.00", "EUR"),
    (4, 2, "1998-02-03 09:00:00+00", "20.00", "EUR"),
    (5, 3, "1998-02-19 09:00:00+00", "7.00", "USD"),
]
# A project small enough to be built anew in each test: what it says of itself is what the reviews are about.
FACTS, REVENUE, CONTRACT = "models/marts/facts.sql", "models/marts/revenue.sql", "soda/marts/revenue.yml"
PROJECT = {
    FACTS: """
MODEL (name marts.facts, kind FULL, grain order_id, description 'Orders.');
SELECT id::BIGINT AS order_id, ordered_at::DATE AS date, currency::TEXT AS currency, revenue::DECIMAL(12, 2) AS revenue FROM raw_postgres.orders
""",
    REVENUE: """
MODEL (name marts.revenue, kind FULL, grain (date, currency), description 'Revenue of a day.', audits (totals_match));
SELECT date::DATE AS date, currency::TEXT AS currency, COUNT(*)::BIGINT AS orders, SUM(revenue)::DECIMAL(18, 2) AS revenue
FROM marts.facts GROUP BY date, currency
""",
    "models/marts/currencies.sql": """
MODEL (name marts.currencies, kind FULL, grain currency);
SELECT currency::TEXT AS currency, SUM(revenue)::DECIMAL(18, 2) AS revenue FROM marts.revenue GROUP BY currency
""",
    "audits/totals_match.sql": """
AUDIT (name totals_match);
SELECT currency, SUM(revenue) AS revenue FROM marts.facts GROUP BY currency EXCEPT SELECT currency, SUM(revenue) FROM @this_model GROUP BY currency
""",
    "models/headline_metrics.yaml": """
metrics:
  - {name: revenue, mart: marts.revenue, value: SUM(revenue), by: currency}
  - {name: orders, mart: marts.facts, value: COUNT(*)}
""",
    "models/dashboards.yaml": "dashboards: [{name: Week, owner: founders, reads: {marts.revenue: [date, revenue]}}]",
    "tests/models/test_revenue.yaml": """
test_a_day_has_one_row_a_currency:
  model: marts.revenue
  inputs: {marts.facts: [{order_id: 1, date: '1998-01-01', currency: USD, revenue: 2}, {order_id: 2, date: '1998-01-01', currency: USD, revenue: 3}]}
  outputs: {partial: true, query: [{date: '1998-01-01', currency: USD, orders: 2}]}
""",
    CONTRACT: """
dataset: warehouse/marts/revenue
description: Revenue of a day.
checks:
  - schema:
  - row_count:
  - duplicate: {columns: [date, currency]}
  - failed_rows:
      name: no more than there are
      qualifier: of_facts
      query: SELECT date FROM marts.revenue WHERE orders > (SELECT COUNT(*) FROM marts.facts)
columns:
  - {name: date, data_type: DATE}
  - {name: currency, data_type: VARCHAR}
  - {name: orders, data_type: BIGINT}
  - name: revenue
    data_type: DECIMAL(18,2)
    checks:
      - failed_rows: {name: within the limit, qualifier: limit, expression: revenue > 1000}
""",
    "soda/marts/facts.yml": """
dataset: warehouse/marts/facts
description: Orders.
checks:
  - schema:
  - row_count:
columns:
  - {name: order_id, data_type: BIGINT, checks: [duplicate: ]}
  - {name: date, data_type: DATE}
  - {name: currency, data_type: VARCHAR}
  - {name: revenue, data_type: "DECIMAL(12,2)"}
""",
}


@pytest.fixture(scope="module")
def built_once(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A checkout, and a home that it built; to be copied, not changed."""
    place = tmp_path_factory.mktemp("review")
    home, checkout = place / "home", place / "checkout"
    home.mkdir()
    for part in ("linter", "macros"):  # config.yaml names their rules
        shutil.copytree(ROOT / part, checkout / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "config.yaml", checkout)
    for file, text in PROJECT.items():
        (checkout / file).parent.mkdir(parents=True, exist_ok=True)
        (checkout / file).write_text(text)
    orders = external_models()["raw_postgres.orders"]
    (checkout / "external_models").mkdir()
    (checkout / "external_models/postgres.yaml").write_text(yaml.safe_dump([orders.model_dump()]))
    with duckdb.connect(str(home / "warehouse.duckdb")) as connection:
        connection.execute("CREATE SCHEMA raw_postgres")
        connection.execute(f"CREATE TABLE raw_postgres.orders ({', '.join(f'{name} {kind}' for name, kind in orders.columns.items())})")
        connection.execute(f"INSERT INTO raw_postgres.orders VALUES {', '.join(ORDER.format(*order) for order in ORDERS)}")
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(("WAREHOUSE_", "SOURCES__", "PRIVACY__", "MOTHERDUCK_")):
                patch.delenv(name)
        _point_at(home, checkout, BUILT, patch)
        cli.main(["transform"], standalone_mode=False)
    settings.reload()
    return home, checkout


def _point_at(home: Path, checkout: Path, now: str, patch: pytest.MonkeyPatch) -> None:
    patch.setenv("WAREHOUSE_HOME", str(home))
    patch.setenv("WAREHOUSE_NOW", now)
    patch.setenv("SQLMESH__CACHE_DIR", str(home / "sqlmesh_cache"))
    patch.setattr(build_module, "ROOT", checkout)
    patch.setattr("monitoring.environments.FOLDER", checkout / "soda")
    patch.setattr("transform.headline.FILE", checkout / "models/headline_metrics.yaml")
    patch.setattr("transform.dashboards.FILE", checkout / "models/dashboards.yaml")
    settings.reload()


@pytest.fixture
def change(built_once: tuple[Path, Path], home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str, str], None]:
    """A copy of the built home and of its checkout; changes a file of the checkout."""
    checkout = tmp_path / "checkout"
    shutil.copytree(built_once[0], home)
    shutil.copytree(built_once[1], checkout)
    _point_at(home, checkout, REVIEWED, monkeypatch)

    def replace(file: str, right: str, wrong: str) -> None:
        text = (checkout / file).read_text()
        assert right in text
        (checkout / file).write_text(text.replace(right, wrong))

    return replace


def _review(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[str, Any, str]:
    """The report as text of its own and as JSON values, and what the command ended with."""
    raised = ""
    try:
        cli.main(["review", "--environment", "pr_12", *arguments], standalone_mode=False)
    except WarehouseError as error:
        raised = f"{error.exit_code} {error.what}"
    said = capsys.readouterr().out
    return said, json.loads(said) if "--json" in arguments else None, raised


def _production(home: Path) -> list[tuple[Any, ...]]:
    with duckdb.connect(str(home / "warehouse.duckdb")) as connection:
        views = "SELECT view_name, sql FROM duckdb_views() WHERE schema_name IN ('marts') ORDER BY ALL"
        return connection.execute(views).fetchall() + connection.execute("SELECT * FROM marts.revenue ORDER BY ALL").fetchall()


def test_no_change_then_metadata_only_in_one_comment(
    change: Callable[..., None], capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pull_request(tmp_path, monkeypatch) as github:
        text, _, raised = _review(capsys, "--comment")
        assert raised == ""
        assert "**No model changed**, and no problem found. 0 models changed, 1 model test run, environment `pr_12`." in text
        assert "None moved." in text
        assert [one["body"] for one in github.comments] == [f"{MARKER}\n{text}"]

        change(REVENUE, "'Revenue of a day.'", "'What the orders of a day brought.'")
        text, _, raised = _review(capsys, "--comment")
        assert raised == ""
        assert "| `marts.revenue` | metadata only | 5 | 5 | 0 | 0 | 0 |" in text
        assert [one["body"] for one in github.comments] == [f"{MARKER}\n{text}"]


def test_a_column_added_is_non_breaking_and_builds_nothing_below(change: Callable[..., None], home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = _production(home)
    change(FACTS, "SELECT id::BIGINT AS order_id,", "SELECT id::BIGINT AS order_id, quantity::BIGINT AS units,")
    change("soda/marts/facts.yml", "columns:\n", "columns:\n  - {name: units, data_type: BIGINT}\n")
    _, told, raised = _review(capsys, "--json")
    assert raised == ""
    assert [(model["name"], model["category"]) for model in told["models"]] == [
        ("marts.facts", "non-breaking"),
        ("marts.revenue", "indirectly non-breaking"),
        ("marts.currencies", "indirectly non-breaking"),
    ]
    assert [model["name"] for model in told["models"] if model["seconds"] is not None] == ["marts.facts"]
    assert told["models"][0]["seconds_before"] is not None
    assert told["models"][0]["downstream"] == ["marts.currencies", "marts.revenue"]
    mart = told["marts"][0]
    assert (mart["columns_added"], mart["columns_removed"], mart["values_changed"], mart["keys"]) == (["units"], [], {}, [])
    assert (mart["rows_before"], mart["rows_after"], mart["added"], mart["removed"], mart["changed"]) == (5, 5, 0, 0, 0)
    assert mart["bytes_before"] > 0
    assert mart["bytes_after"] > 0
    _, again, _ = _review(capsys, "--json")
    assert [(model["name"], model["category"], model["seconds"]) for model in again["models"]] == [
        (model["name"], model["category"], None) for model in told["models"]
    ], "compared with production, not with the review before, and nothing is built twice"
    assert told["warnings"] == ["marts.currencies: contract: it has no contract; expected: a contract soda/marts/currencies.yml"]
    assert _production(home) == before


def test_an_audit_stops_a_breaking_change_and_without_it_the_numbers_it_moves_are_told(
    change: Callable[..., None], home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = _production(home)
    change(REVENUE, "SUM(revenue)::", "SUM(revenue * 2)::")
    change(REVENUE, "FROM marts.facts", "FROM marts.facts WHERE date <> '1998-02-19'")
    text, _, raised = _review(capsys)
    assert raised == "1 1 problems: audit."
    assert "- **audit**: marts.revenue: audit totals_match found 2 rows" in text
    assert "The change could not be built, so its data is not compared." in text

    change(REVENUE, ", audits (totals_match)", "")
    text, _, raised = _review(capsys)
    assert raised == ""
    assert "| revenue | EUR | 20.00 | 40.00 | +20.00 |\n| revenue | USD | 30.77 | 47.54 | +16.77 |\n\nThe other 1 did not move." in text
    assert "| `marts.revenue` | breaking | 5 | 4 | 0 | 1 | 3 |" in text
    assert "- other values: `revenue` in 3 rows\n- removed: date=1998-02-19, currency=USD\n- changed: date=1997-12-31, currency=USD\n" in text
    assert "| `marts.currencies` | indirectly breaking | 2 | 2 | 0 | 0 | 2 |" in text
    assert "- shown on Week (founders)\n- read by `marts.currencies`" in text
    assert _production(home) == before

    environment = _table_behind(home, "marts__pr_12.revenue")
    build()
    assert _table_behind(home, "marts.revenue") == environment, "production takes the table over"


def _table_behind(home: Path, view: str) -> str:
    with duckdb.connect(str(home / "warehouse.duckdb")) as connection:
        row = connection.execute("SELECT sql FROM duckdb_views() WHERE schema_name || '.' || view_name = ?", [view]).fetchone()
        assert row
        return str(row[0]).split("FROM")[1]


def test_a_failing_contract_model_test_and_headline_metric_are_told(change: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    change(CONTRACT, "revenue > 1000", "revenue > 15")
    change(REVENUE, "COUNT(*)::", "(COUNT(*) + 5)::")
    change("models/headline_metrics.yaml", "SUM(revenue)", "SUM(price)")
    text, _, raised = _review(capsys)
    assert raised == "1 4 problems: contract, metric, test."
    assert "- **contract**: marts.revenue.revenue: limit: 1 of 5 rows" in text
    assert "- **contract**: marts.revenue: of_facts: 5 rows" in text
    assert "- **test**: test_a_day_has_one_row_a_currency: Data mismatch" in text
    assert "- **metric**: revenue cannot be computed from marts.revenue: Binder Error" in text


def test_a_model_that_does_not_build_or_cannot_be_read_is_told(change: Callable[..., None], home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = _production(home)
    change(FACTS, "revenue::DECIMAL", "revenue::TEXT::DATE::TEXT::DECIMAL")
    text, _, raised = _review(capsys)
    assert raised == "1 1 problems: build."
    assert "- **build**: marts.facts: Conversion Error" in text
    assert "| `marts.facts` | breaking |" in text

    change(REVENUE, "GROUP BY", "GROUP BUY")
    text, _, raised = _review(capsys)
    assert raised == "1 1 problems: build."
    assert "revenue.sql" in text
    assert _production(home) == before


def test_an_environment_ends_by_itself_and_goes_first_where_there_is_no_room(change: Callable[..., None], home: Path) -> None:
    before = _production(home)
    change(REVENUE, "COUNT(*)::", "COUNT(order_id)::")
    assert build_environment("pr_12", megabytes=1).is_built
    with open_context() as context:
        ends = context.state_reader.get_environment("pr_12").expiration_ts / 1000
    assert timedelta(days=6) < datetime.fromtimestamp(ends, UTC) - datetime.now(UTC) <= timedelta(days=7)
    assert (_schemas(home), len(_tables(home))) == ({"marts", "marts__pr_12"}, 5)

    change(REVENUE, "COUNT(order_id)::", "COUNT(currency)::")
    assert build_environment("pr_13", megabytes=1).is_built
    assert (_schemas(home), len(_tables(home))) == ({"marts", "marts__pr_12", "marts__pr_13"}, 7)
    change(REVENUE, "COUNT(currency)::", "COUNT(date)::")
    assert build_environment("pr_14", megabytes=0).is_built
    assert (_schemas(home), len(_tables(home))) == ({"marts", "marts__pr_14"}, 5)
    assert _production(home) == before


def _schemas(home: Path) -> set[str]:
    with duckdb.connect(str(home / "warehouse.duckdb")) as connection:
        return {row[0] for row in connection.execute("SELECT schema_name FROM duckdb_views() WHERE starts_with(schema_name, 'marts')").fetchall()}


def _tables(home: Path) -> list[str]:
    with duckdb.connect(str(home / "warehouse.duckdb")) as connection:
        return [row[0] for row in connection.execute("SELECT table_name FROM duckdb_tables() WHERE schema_name = 'sqlmesh__marts'").fetchall()]


PEOPLE = "SELECT 'a@example.com' AS email, 1 AS number, 10 AS age UNION ALL SELECT 'b@example.com', 2, 20"


def _compared(grain: tuple[str, ...], after: str, category: Category = "breaking", personal: tuple[str, ...] = ("email",)) -> Difference:
    """Two people, and what a change makes of them."""
    environment = Environment("pr_12", [ChangedModel("marts.people", category, is_direct=True, grain=grain)])
    with duckdb.connect() as connection:
        for schema, rows in (("marts", PEOPLE), ("marts__pr_12", after)):
            connection.execute(f"CREATE SCHEMA {schema}")
            connection.execute(f"CREATE TABLE {schema}.people AS {rows}")
        return differences(connection, environment, personal)[0]


def test_no_key_with_personal_data_is_named() -> None:
    after = PEOPLE.replace("20", "21").replace("a@", "c@")
    found = _compared(("email",), after)
    assert (found.added, found.removed, found.changed, found.values_changed, found.keys) == (1, 1, 1, {"age": 1}, [])
    found = _compared(("number",), after)
    assert (found.added, found.removed, found.changed, found.values_changed) == (0, 0, 2, {"email": 1, "age": 1})
    assert found.keys == ["changed: number=1", "changed: number=2"]


def test_keys_are_few_and_in_their_own_order() -> None:
    found = _compared(("number",), "SELECT 'x' AS email, range AS number, 10 AS age FROM range(2, 100)")
    assert (found.added, found.removed, found.changed) == (97, 1, 1)
    assert found.keys == [*(f"added: number={number}" for number in (3, 4, 5, 6, 7)), "removed: number=1", "changed: number=2"]


@pytest.mark.parametrize(
    ("grain", "after", "note"),
    [
        (("number",), f"{PEOPLE} UNION ALL {PEOPLE}", "the grain is not unique in marts__pr_12.people"),
        (("id",), PEOPLE.replace("number", "id"), "production does not have this grain"),
        ((), PEOPLE, "production does not have this grain"),
    ],
)
def test_where_the_grain_cannot_tell_rows_are_only_counted(grain: tuple[str, ...], after: str, note: str) -> None:
    found = _compared(grain, after)
    assert found.note.startswith(note)
    assert (found.rows_before, found.added, found.removed, found.changed) == (2, None, None, None)


def test_columns_that_come_go_or_change_their_type_are_told_and_whole_marts_too() -> None:
    found = _compared(("number",), PEOPLE.replace("1 AS number, 10 AS age", "1 AS number, 10.5 AS years").replace("2, 20", "2::BIGINT, 20"))
    assert (found.columns_added, found.columns_removed, found.types_changed) == (["years"], ["age"], ["number: INTEGER -> BIGINT"])
    assert found.columns == ["age", "number", "years"]
    assert (found.added, found.removed, found.changed) == (0, 0, 0)
    new, removed = _compared(("number",), PEOPLE, "new"), _compared(("number",), PEOPLE, "removed")
    assert [(one.rows_before, one.rows_after, one.added, one.removed, one.changed) for one in (new, removed)] == [(None, 2, 2, 0, 0), (2, None, 0, 2, 0)]


def test_a_review_needs_production_and_a_name_that_is_not_its_own(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _review(capsys)[2] == "2 there is no production to compare with."
    with pytest.raises(UsageError, match="cannot name an environment"):
        cli.main(["review", "--environment", "Prod"], standalone_mode=False)
    assert not (home / "warehouse.duckdb").exists()


def test_a_new_mart_that_a_review_built_before_an_erasure_has_all_facts_when_it_becomes_production(
    change: Callable[..., None], home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What production has too, SQLMesh itself builds anew everywhere; of a mart that production has not yet, nobody knew."""
    monkeypatch.setattr("warehouse.restate.ROOT", tmp_path / "checkout")
    mart = tmp_path / "checkout/models/marts/sales.sql"
    piece_by_piece = "kind INCREMENTAL_BY_TIME_RANGE (time_column date), start '1997-01-01', grain order_id"
    columns = "id::BIGINT AS order_id, ordered_at::DATE AS date"
    sales = f"SELECT {columns} FROM raw_postgres.orders WHERE ordered_at::DATE BETWEEN @start_date AND @end_date"
    mart.write_text(f"MODEL (name marts.sales, {piece_by_piece});\n{sales}\n")
    assert _review(capsys)[2] == ""
    with duckdb.connect(str(home / "warehouse.duckdb")) as connection:
        found = connection.execute("SELECT table_name FROM duckdb_tables() WHERE schema_name = 'sqlmesh__marts'").fetchall()
        (table,) = [table for (table,) in found if "sales" in table]
        connection.execute(f'DELETE FROM sqlmesh__marts."{table}" WHERE order_id = 1')
        restate.note(connection, ["marts.sales"], f"sqlmesh__marts.{table}")
    text = mart.read_text()
    mart.unlink()
    for _ in range(2):
        cli.main(["transform"], standalone_mode=False)
    mart.write_text(text)
    cli.main(["transform"], standalone_mode=False)
    with duckdb.connect(str(home / "warehouse.duckdb")) as connection:
        assert connection.execute("SELECT order_id FROM marts.sales ORDER BY 1").fetchall() == [(1,), (2,), (3,), (4,), (5,)]
        assert connection.execute("FROM ops.to_restate").fetchall() == []
