"""The headline metrics are of marts and columns that exist, and a wrong declaration is refused."""

from pathlib import Path

import pytest
from sqlglot import exp, parse_one

from transform.headline import Metric, headline_metrics
from warehouse.errors import DeclarationError
from warehouse.settings import ROOT


@pytest.mark.parametrize("metric", headline_metrics(), ids=lambda metric: metric.name)
def test_a_metric_asks_for_columns_that_its_mart_describes(metric: Metric) -> None:
    (model,) = (ROOT / "models" / "marts").rglob(f"{metric.mart.split('.')[1]}.sql")
    asked = {column.name for column in parse_one(metric.value, dialect="duckdb").find_all(exp.Column)} | ({metric.by} if metric.by else set())
    described = model.read_text()
    assert [column for column in asked if f"    {column} = '" not in described] == []


@pytest.mark.parametrize("metric", headline_metrics(), ids=lambda metric: metric.name)
def test_money_is_told_by_currency(metric: Metric) -> None:
    assert "SUM" not in metric.value or metric.by == "currency"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("metrics: []", "at least 1 item"),
        ("metrics: [{name: a, mart: marts.b}]", "key metrics.0.value is missing"),
        ("metrics: [{name: a, mart: marts.b, value: COUNT(*), per: day}]", "key metrics.0.per is not known"),
        ("metrics: [{name: a, mart: staging.b, value: COUNT(*)}]", "key metrics.0.mart"),
        ("metrics: [{name: a, mart: marts.b, value: 1; DROP TABLE b}]", "key metrics.0.value"),
        ("metrics: [{name: a, mart: marts.b, value: COUNT(*)}, {name: a, mart: marts.c, value: COUNT(*)}]", "the metric 'a' stands twice"),
    ],
)
def test_a_wrong_declaration_is_refused(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "headline_metrics.yaml"
    file.write_text(text)
    with pytest.raises(DeclarationError, match=said):
        headline_metrics(file)
