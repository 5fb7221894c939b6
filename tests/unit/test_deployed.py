"""What deploy/ hands to Prometheus, Grafana and Datadog speaks of metrics that there are, and each alert has its page."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from monitoring.measures import METRICS, Limits, measures
from monitoring.metrics import render, write
from warehouse import ledger
from warehouse.errors import UsageError
from warehouse.settings import ROOT, settings

DEPLOY = ROOT / "deploy"
NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
LIMITS = Limits({"postgres": timedelta(hours=6)}, {"warehouse": timedelta(days=2)}, {"warehouse": timedelta(days=7)})
PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed (Debian: the package prometheus)")
RUNBOOKS = sorted((ROOT / "docs" / "runbooks").glob("*.md"))


def _rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((DEPLOY / "prometheus" / "warehouse.rules.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def _panels() -> list[dict[str, Any]]:
    panels: list[dict[str, Any]] = json.loads((DEPLOY / "grafana" / "dashboards" / "warehouse.json").read_text())["panels"]
    return panels


def _grafana() -> Iterator[str]:
    for panel in _panels():
        yield from (target["expr"] for target in panel["targets"])


def _datadog() -> Iterator[str]:
    for widget in json.loads((DEPLOY / "datadog" / "warehouse.json").read_text())["widgets"]:
        for request in widget["definition"]["requests"]:
            names = {query["name"] for query in request["queries"]}
            assert {name for one in request["formulas"] for name in re.findall(r"query\d+", one["formula"])} <= names
            yield from (query["query"] for query in request["queries"])


@pytest.mark.parametrize("said", [lambda: (rule["expr"] for rule in _rules()), _grafana, _datadog], ids=["prometheus", "grafana", "datadog"])
def test_each_query_names_metrics_and_labels_that_there_are(said: Callable[[], Iterator[str]]) -> None:
    queries = list(said())
    assert len(queries) > 10
    for query in queries:
        found = re.findall(r"\bwarehouse_\w+", query)
        assert found, query
        assert set(found) <= set(METRICS), query
        labels = {label for name in found for label in METRICS[name][1]}
        used = re.findall(r"\b(\w+)(?:=|:)\"?\w", re.sub(r"^\w+:", "", query)) + [
            one.strip() for group in re.findall(r"\b(?:by|on) [({]([^)}]*)[)}]", query) for one in group.split(",")
        ]
        assert {one for one in used if one} <= labels, query


def test_what_a_dashboard_says_of_labels_is_so() -> None:
    """Legends name labels; panels do not lie over each other."""
    taken: set[tuple[int, int]] = set()
    for panel in _panels():
        for target in panel["targets"]:
            labels = {label for name in re.findall(r"\bwarehouse_\w+", target["expr"]) for label in METRICS[name][1]}
            assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) <= labels
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
    assert len({panel["id"] for panel in _panels()}) == len(_panels())


def test_every_metric_is_looked_at_somewhere() -> None:
    said = "\n".join([*(rule["expr"] for rule in _rules()), *_grafana(), *_datadog()])
    assert set(METRICS) - set(re.findall(r"\bwarehouse_\w+", said)) <= {
        "warehouse_last_run_timestamp_seconds", "warehouse_last_run_step_rows",
    }  # fmt: skip


def test_each_alert_of_prometheus_has_its_page_and_each_page_its_alert() -> None:
    told = {(name, f"docs/runbooks/{file.name}") for file in RUNBOOKS for name in re.findall(r"^Prometheus: `(\w+)`", file.read_text(), re.MULTILINE)}
    assert told == {(rule["alert"], rule["annotations"]["runbook"]) for rule in _rules()}
    tested = {
        one["alertname"] for test in yaml.safe_load((DEPLOY / "prometheus" / "warehouse.test.yml").read_text())["tests"] for one in test["alert_rule_test"]
    }
    assert tested == {rule["alert"] for rule in _rules()}


@needs_promtool
@pytest.mark.parametrize(
    "command", [["check", "rules", "warehouse.rules.yml"], ["test", "rules", "warehouse.test.yml"], ["check", "config", "prometheus.yml"]], ids=" ".join
)
def test_promtool_agrees(command: list[str]) -> None:
    ran = subprocess.run([str(PROMTOOL), *command], cwd=DEPLOY / "prometheus", capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


@needs_promtool
def test_promtool_reads_each_query_of_the_dashboard(tmp_path: Path) -> None:
    rules = [{"record": f"panel:{number}", "expr": expr} for number, expr in enumerate(_grafana())]
    (tmp_path / "panels.yml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    ran = subprocess.run([str(PROMTOOL), "check", "rules", str(tmp_path / "panels.yml")], capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_the_text_is_what_prometheus_reads(home: Path) -> None:
    """By Prometheus' own parser, and by promtool where there is one; also with names that need care."""
    name = 'st"ri\\pe\n'
    with ledger.run("run") as run, run.step("load", name) as step:
        step.rows_out, step.detail = 7, {"tables": {"orders": {"rows_out": 7}}}
    text = render(measures(Limits({name: timedelta(hours=6)}), NOW))
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert set(families) <= set(METRICS)
    assert all(family.type == "gauge" and family.documentation for family in families.values())
    (loaded,) = families["warehouse_last_load_rows"].samples
    assert (loaded.labels, loaded.value) == ({"source": name, "table": "orders"}, 7)
    if PROMTOOL is not None:
        ran = subprocess.run([PROMTOOL, "check", "metrics"], input=text, capture_output=True, text=True, timeout=60, check=False)
        assert (ran.returncode, ran.stderr) == (0, "")


def test_the_file_is_replaced_whole(home: Path, setting: Callable[[str, str | None], None], tmp_path: Path) -> None:
    setting("WAREHOUSE_METRICS_FILE", str(tmp_path / "collected" / "warehouse.prom"))
    file = settings().metrics_file
    assert file is not None
    for limits in (LIMITS, Limits()):
        values = measures(limits, NOW)
        write(file, values)
        assert file.read_text() == render(values)
    assert [one.name for one in file.parent.iterdir()] == ["warehouse.prom"]
    assert file.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("value", ["/var/lib/node_exporter/warehouse.txt", "warehouse.prom"])
def test_a_file_that_nobody_would_collect_is_refused(setting: Callable[[str, str | None], None], value: str) -> None:
    setting("WAREHOUSE_METRICS_FILE", value)
    with pytest.raises(UsageError, match=r"ends in \.prom"):
        settings()
