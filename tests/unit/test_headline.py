"""Headline metrics and dashboards are of marts and columns that exist, a wrong declaration is refused, and a change reaches whom it should."""

from pathlib import Path

import pytest
from sqlglot import exp, parse_one

from transform.dashboards import Dashboard, dashboards, reached
from transform.effect import Difference
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


@pytest.mark.parametrize("dashboard", dashboards(), ids=lambda dashboard: dashboard.name)
def test_a_dashboard_reads_columns_that_its_marts_describe(dashboard: Dashboard) -> None:
    for mart, columns in dashboard.reads.items():
        (model,) = (ROOT / "models" / "marts").rglob(f"{mart.split('.')[1]}.sql")
        assert [column for column in columns if f"    {column} = '" not in model.read_text()] == []


WEEK = Dashboard(name="Week", owner="founders", reads={"marts.revenue": ["date", "revenue"]})
TAX = Dashboard(name="Tax", owner="finance", reads={"marts.revenue": ["currency"], "marts.orders": ["id"]})


@pytest.mark.parametrize(
    ("difference", "shown", "broken"),
    [
        (Difference("marts.people", 1, 2, added=1), [], []),
        (Difference("marts.revenue", 5, 5, 0, 0, 3, values_changed={"revenue": 3}), ["Week (founders)"], []),
        (Difference("marts.revenue", 5, 5, 0, 0, 3, columns_added=["net"]), [], []),
        (Difference("marts.revenue", 5, 5, 0, 0, 0, types_changed=["currency: VARCHAR -> BIGINT"]), ["Tax (finance)"], []),
        (Difference("marts.revenue", 5, 6, 1, 0, 0), ["Week (founders)", "Tax (finance)"], []),
        (Difference("marts.revenue", 5, 6, note="the grain is not unique"), ["Week (founders)", "Tax (finance)"], []),
        (
            Difference("marts.revenue", 5, 5, 0, 0, 0, columns_removed=["revenue"]),
            ["Week (founders)"],
            ["Week (founders) reads marts.revenue.revenue, which is gone"],
        ),
        (Difference("marts.orders", 5, None, 0, 5, 0), ["Tax (finance)"], ["Tax (finance) reads marts.orders.id, which is gone"]),
    ],
)
def test_a_change_reaches_the_dashboards_that_show_it_and_breaks_those_that_lose_a_column(difference: Difference, shown: list[str], broken: list[str]) -> None:
    assert reached(difference, [WEEK, TAX]) == (shown, broken)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("dashboards: [{name: a, owner: b}]", "key dashboards.0.reads is missing"),
        ("dashboards: [{name: a, owner: b, reads: {}}]", "at least 1 item"),
        ("dashboards: [{name: a, owner: b, reads: {marts.c: []}}]", "at least 1 item"),
        ("dashboards: [{name: a, owner: b, reads: {staging.c: [d]}}]", "key dashboards.0.reads.staging.c"),
        ("dashboards: [{name: a, owner: b, url: 'javascript:x', reads: {marts.c: [d]}}]", "key dashboards.0.url"),
        ("dashboards: [{name: a, owner: b, reads: {marts.c: [d]}}, {name: a, owner: e, reads: {marts.c: [d]}}]", "the dashboard 'a' stands twice"),
    ],
)
def test_a_wrong_dashboard_is_refused(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "dashboards.yaml"
    file.write_text(text)
    with pytest.raises(DeclarationError, match=said):
        dashboards(file)


def test_a_project_without_dashboards_has_none(tmp_path: Path) -> None:
    assert dashboards(tmp_path / "dashboards.yaml") == []
