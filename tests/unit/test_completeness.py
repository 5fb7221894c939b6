"""Rows on their way: pairs of tables by one or several keys, what cannot be compared, and that no staging model is left out."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pytest

from monitoring.completeness import check_completeness
from monitoring.expectations import Expectations, read_expectations
from warehouse.errors import DeclarationError
from warehouse.settings import ROOT

NOW = datetime(2026, 3, 11, 9, 30, tzinfo=UTC)
PAIR = {"table": "staging.b", "key": ["day", "kind"], "of": "raw_x.a"}


@pytest.fixture
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    """A table of ten days of two kinds, and one made from it."""
    with duckdb.connect() as opened:
        opened.execute("CREATE SCHEMA raw_x; CREATE SCHEMA staging")
        opened.execute("CREATE TABLE raw_x.a AS SELECT DATE '2026-01-01' + i::INTEGER // 2 AS day, i % 2 AS kind FROM range(20) AS rows(i)")
        opened.execute("CREATE TABLE staging.b AS FROM raw_x.a")
        yield opened


def _found(connection: duckdb.DuckDBPyConnection, *pairs: dict[str, object], left_out: tuple[str, ...] = ()) -> list[tuple[str, str, str]]:
    expected = Expectations.model_validate({"rows": list(pairs)})
    return [(one.check, one.table, one.observed) for one in check_completeness(connection, expected, NOW, left_out)]


def test_rows_are_compared_by_all_columns_of_a_key(connection: duckdb.DuckDBPyConnection) -> None:
    assert _found(connection, PAIR) == []
    connection.execute("UPDATE staging.b SET kind = 0 WHERE day = '2026-01-03' AND kind = 1")
    assert _found(connection, PAIR) == [("completeness", "staging.b", "20 rows, 1 missing, 0 too many, 1 more than once")]


def test_the_other_table_may_name_its_key_differently(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute("ALTER TABLE raw_x.a RENAME kind TO sort")
    assert _found(connection, {**PAIR, "of_key": ["day", "sort"]}) == []


@pytest.mark.parametrize(
    ("pair", "lacking"),
    [
        ({**PAIR, "of": "raw_x.gone"}, "no raw_x.gone.day, raw_x.gone.kind"),
        ({**PAIR, "key": ["day", "colour"]}, "no staging.b.colour, raw_x.a.colour"),
    ],
)
def test_what_cannot_be_compared_is_said_and_not_passed_over(connection: duckdb.DuckDBPyConnection, pair: dict[str, object], lacking: str) -> None:
    assert _found(connection, pair) == [("evaluation", "staging.b", lacking)]
    assert _found(connection, pair, left_out=("x",)) == []


def test_a_key_of_another_width_is_refused(tmp_path: Path) -> None:
    (tmp_path / "expectations.yaml").write_text("rows: [{table: staging.b, key: [day, kind], of: raw_x.a, of_key: day}]")
    with pytest.raises(DeclarationError, match="key and of_key need equally many columns"):
        read_expectations(tmp_path / "expectations.yaml")


def test_every_staging_model_is_compared_with_its_raw_table() -> None:
    models = {f"staging.{file.stem}" for file in (ROOT / "models" / "staging").rglob("*.sql")}
    compared = {one.table: one.of for one in read_expectations().rows}
    assert models <= set(compared)
    assert all(of.startswith("raw_") for table, of in compared.items() if table in models)
