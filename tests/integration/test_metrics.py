"""Prometheus is answered from the ledger: what ran, how old the sources are, what is wrong."""

import fcntl
import json
import re
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from conftest import WAREHOUSE

from cli.run import recorded
from monitoring.book import record
from monitoring.findings import Finding
from monitoring.measures import Limits, measures
from monitoring.metrics import render
from warehouse import clock, ledger
from warehouse.errors import LeaseHeld, StepFailed
from warehouse.lease import held_since, lease


def test_the_text_says_what_ran_how_old_it_is_and_what_is_wrong(setting: Callable[[str, str | None], None]) -> None:
    setting("WAREHOUSE_NOW", "2026-03-01T12:00:00Z")
    with ledger.run("run --due") as run, run.step("load", "postgres"):
        pass
    record([Finding("missing", "marts.x", "a", "error", "1 row", "none", clock.now(), "")], origin="check", now=clock.now())
    text = render(measures(Limits({"postgres": timedelta(hours=6), 'st"ripe': timedelta(days=1)}), clock.now() + timedelta(hours=2)))
    for line in (
        "warehouse_last_run_success 1", "warehouse_last_run_timestamp_seconds 1772366400", 'warehouse_source_age_seconds{source="postgres"} 7200',
        'warehouse_source_limit_seconds{source="st\\"ripe"} 86400', 'warehouse_findings{severity="error"} 1', 'warehouse_findings{severity="warning"} 0',
        "warehouse_open_incidents 0", "warehouse_alerts_waiting 0",
    ):  # fmt: skip
        assert f"\n{line}\n" in text
    assert 'step="load",item="postgres"' in text
    assert 'source_age_seconds{source="st' not in text
    sample = re.compile(r'# (?:HELP \w+ .+|TYPE \w+ gauge)|\w+(?:\{\w+="(?:[^"\\]|\\.)*"(?:,\w+="(?:[^"\\]|\\.)*")*\})? -?[\d.e+-]+')
    assert [line for line in text.splitlines() if not sample.fullmatch(line)] == []
    with pytest.raises(StepFailed), ledger.run("run"):
        raise StepFailed("it broke")
    assert "\nwarehouse_last_run_success 0\n" in render(measures(Limits(), clock.now()))


def test_a_file_is_written_when_a_command_has_ended_however_it_did(setting: Callable[[str, str | None], None], tmp_path: Path) -> None:
    setting("WAREHOUSE_METRICS_FILE", str(tmp_path / "warehouse.prom"))
    with pytest.raises(StepFailed), recorded("run"):
        raise StepFailed("it broke")
    assert "\nwarehouse_last_run_success 0\n" in (tmp_path / "warehouse.prom").read_text()
    with recorded("run"), lease("run"):
        assert "\nwarehouse_writer_held_seconds 0\n" in (tmp_path / "warehouse.prom").read_text()
    assert "\nwarehouse_last_run_success 1\n" in (tmp_path / "warehouse.prom").read_text()
    setting("WAREHOUSE_METRICS_FILE", str(tmp_path / "warehouse.prom" / "below.prom"))
    with recorded("run"):  # a file that cannot be written fails nothing
        pass


def test_a_look_at_the_lease_turns_no_writer_away(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`status`, the report and each scrape ask whether the lease is free by taking it for an instant."""
    home.mkdir(parents=True)
    (home / "lease.lock").touch()
    with (home / "lease.lock").open("r+") as looking:
        fcntl.flock(looking, fcntl.LOCK_EX)
        monkeypatch.setattr(time, "sleep", lambda seconds: fcntl.flock(looking, fcntl.LOCK_UN))  # whoever looks is done while the writer waits
        with lease("run"):
            assert held_since() is not None
    assert held_since() is None


def test_commands_that_were_turned_away_are_counted(home: Path) -> None:
    home.mkdir(parents=True)
    with (home / "lease.lock").open("a") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(LeaseHeld), ledger.run("run"), lease("run"):
            pass
    assert "\nwarehouse_writer_refused_last_day 1\n" in render(measures(Limits(), clock.now()))


def test_it_answers_over_http_before_anything_ran(setting: Callable[[str, str | None], None]) -> None:
    process = subprocess.Popen([WAREHOUSE, "serve", "metrics", "--port", "0"], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["listening"]
        with urllib.request.urlopen(url, timeout=60) as answer:
            assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
            assert "warehouse_open_incidents 0\n" in answer.read().decode()
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(url.replace("/metrics", "/"), timeout=60)
    finally:
        process.terminate()
        process.wait(timeout=60)
