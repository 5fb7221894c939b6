"""Findings are remembered over time, also on the next machine, and are written for CI."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from xml.etree import ElementTree

import duckdb
import pytest

from monitoring import book, junit
from monitoring.book import record
from monitoring.contract_files import read_contracts
from monitoring.findings import Finding
from warehouse.errors import UsageError

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
MISSING = Finding("missing", "marts.user_dim", "country", "error", "2 of 10 rows", "no null", NOW, "SELECT user_id FROM marts.user_dim", 0.2, "slack")
STALE = Finding("freshness", "raw_postgres.orders", None, "error", "8 h old", "loaded within 6 h", NOW - timedelta(hours=2), "SELECT 1")


@pytest.fixture
def ops(home: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        yield connection


def _kept() -> list[tuple[object, ...]]:
    with book.opened() as kept:
        rows = kept.execute("SELECT check_name, times_seen, first_seen_at, last_seen_at, resolved_at FROM findings ORDER BY first_seen_at, check_name")
        return [(row[0], row[1], *(text and datetime.fromisoformat(text) for text in tuple(row)[2:])) for row in rows]


def test_a_finding_is_first_seen_last_seen_and_resolved(home: Path) -> None:
    later, last = NOW + timedelta(hours=1), NOW + timedelta(hours=2)
    record([MISSING, STALE], origin="check", now=NOW)
    (again,) = record([replace(MISSING, since=later, observed="3 of 10 rows")], origin="check", now=later)
    assert (again.since, again.observed) == (NOW, "3 of 10 rows")
    assert _kept() == [("freshness", 1, NOW, NOW, later), ("missing", 2, NOW, later, None)]
    record([STALE], origin="check", now=last)
    assert _kept()[-1] == ("freshness", 1, last, last, None)
    with book.opened() as kept:
        assert book.active_findings(kept) == [STALE]


def test_a_finding_comes_back_at_the_same_instant_of_a_clock_that_is_set(home: Path) -> None:
    for findings in ([MISSING], [], [MISSING]):
        record(findings, origin="check", now=NOW)
    assert [row[4] is None for row in _kept()] == [False, True]


def test_who_looked_at_something_else_resolves_nothing(home: Path) -> None:
    record([MISSING, STALE], origin="check", now=NOW)
    record([], origin="run", now=NOW)
    record([], origin="check", now=NOW, looked_at=lambda check, table: check == "freshness")
    with book.opened() as kept:
        assert book.active_findings(kept) == [MISSING]


def test_one_rule_is_one_finding_the_gravest_and_oldest(home: Path) -> None:
    warning, old = replace(MISSING, severity="warning"), replace(MISSING, since=NOW - timedelta(days=1))
    assert record([warning, MISSING, old], origin="check", now=NOW) == [old]
    assert len({one.fingerprint for one in (MISSING, STALE, replace(MISSING, column=None), replace(MISSING, table="marts.x"), warning)}) == 4


def test_what_is_kept_holds_no_personal_data(home: Path) -> None:
    record([replace(MISSING, observed="what jo@example.com wrote", query="SELECT 1 -- jo@example.com")], origin="check", now=NOW)
    with book.opened() as kept:
        assert "jo@" not in str([tuple(row) for row in kept.execute("SELECT * FROM findings")])


def test_an_empty_machine_remembers_what_the_last_one_knew(ops: duckdb.DuckDBPyConnection, home: Path) -> None:
    record([MISSING, STALE], origin="check", now=NOW)
    record([MISSING], origin="check", now=NOW + timedelta(hours=1))
    assert (book.copy_into(ops), book.copy_into(ops)) == (2, 0)
    record([MISSING], origin="check", now=NOW + timedelta(hours=2))
    assert book.copy_into(ops) == 1
    assert ops.execute("SELECT check_name, times_seen, resolved_at IS NULL FROM ops.findings ORDER BY ALL").fetchall() == [
        ("freshness", 1, False),
        ("missing", 3, True),
    ]
    before = _kept()
    (home / "ledger.sqlite").unlink()
    book.fill_from(ops)
    assert _kept() == before
    assert book.copy_into(ops) == 0


def test_junit_fails_what_was_found_and_passes_the_rest(tmp_path: Path) -> None:
    contracts = {table: contract for table, contract in read_contracts().items() if table in ("marts.user_dim", "raw_stripe.charges")}
    warning = replace(MISSING, check="schema change", table="raw_postgres.users", severity="warning", observed="\x00<new>")
    junit.write(tmp_path / "ci" / "found.xml", contracts, [MISSING, STALE, warning], ["stripe"])
    suites = {suite.get("name"): suite for suite in ElementTree.parse(tmp_path / "ci" / "found.xml").getroot()}
    dim = suites["marts.user_dim"]
    assert (int(dim.get("tests") or 0), dim.get("failures")) == (len(list(contracts["marts.user_dim"].all_checks())), "1")
    (failure,) = dim.findall("*/failure")
    assert "2 of 10 rows" in (failure.get("message") or "")
    assert MISSING.query in (failure.text or "")
    assert suites["raw_postgres.orders"].get("failures") == "1"
    assert suites["raw_postgres.users"].get("failures") == "0"
    assert suites["raw_stripe.charges"].get("skipped") == suites["raw_stripe.charges"].get("tests")
    with pytest.raises(UsageError, match="cannot be written"):
        junit.write(tmp_path / "ci" / "found.xml" / "x", contracts, [])
