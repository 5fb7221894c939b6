"""Contracts: every table is what its `soda/<schema>/<table>.yml` promises, and its source was loaded in time."""

from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from monitoring.contract_files import FOLDER, read_contracts
from monitoring.contract_model import Check, Contract, FailedRows, Invalid
from monitoring.findings import SAMPLE_ROWS, Finding
from monitoring.freshness import check_freshness
from monitoring.schema_gate import judge_schemas
from monitoring.soda_session import Outcome, Verified, verify
from warehouse.sql import literal

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

__all__ = ["Finding", "check_contracts"]

_EXPECTED = {"missing": "no null", "duplicate": "every key once", "row_count": "at least one row", "invalid": "only valid values"}


_OF_RECORDS = "raw_privacy."
"""Tables that no load fills: what privacy's own records say, put in place by every run."""


def check_contracts(
    connection: "DuckDBPyConnection",
    *,
    now: datetime,
    loaded_at: Mapping[str, datetime],
    freshness: Mapping[str, timedelta] | None = None,
    folder: Path = FOLDER,
    only: Collection[str] | None = None,
    left_out: Collection[str] = (),
) -> list[Finding]:
    """Check every contract on an open connection whose current catalog is the warehouse.

    Args:
        now: aware, by the one clock; its UTC date is the contracts' `today`.
        loaded_at: table to the instant its last successful load ended; every contracted table of a `raw_` schema needs one.
        freshness: table to its limit, 6 hours where none is given.
        folder: where the contracts stand.
        only: tables (schema.table) to report on; all when None.
        left_out: sources whose raw tables and staging views are not looked at.

    Returns:
        what is wrong, empty when nothing is; a check that could not be evaluated is wrong too.

    Raises:
        DeclarationError: a contract file is wrong; nothing was checked.
    """
    contracts = {table: contract for table, contract in read_contracts(folder).items() if source_of(table) not in left_out}
    gate = judge_schemas(connection, contracts, now)
    runnable: dict[str, tuple[Contract, list[Check]]] = {}
    for table, contract in contracts.items():
        if only is None or table in only:
            checks = [check for check in contract.all_checks() if gate.allows(table, check)]
            if checks:
                runnable[table] = contract, checks
    verified = verify(connection, runnable, now.astimezone(UTC).date())
    findings = list(gate.findings)
    for table, (contract, checks) in runnable.items():
        findings += _judge(contract, checks, verified[table], now)
    loaded_tables = [table for table in contracts if table.startswith("raw_") and not table.startswith(_OF_RECORDS)]
    limits = {table: limit for table, limit in (freshness or {}).items() if source_of(table) not in left_out}
    findings += check_freshness(loaded_tables, now=now, loaded_at=loaded_at, freshness=limits)
    return [finding for finding in findings if source_of(finding.table) not in left_out and (only is None or finding.table in only)]


def source_of(table: str) -> str | None:
    """The source whose raw table or staging view it is."""
    schema, _, name = table.partition(".")
    if schema.startswith("raw_"):
        return schema.removeprefix("raw_")
    return name.removeprefix("stg_").split("__")[0] if schema == "staging" else None


def _judge(contract: Contract, checks: list[Check], verified: Verified, now: datetime) -> list[Finding]:
    findings: list[Finding] = []
    unevaluated: list[str] = []
    for check in checks:
        outcome = verified.outcomes.get(check.identity)
        if outcome is not None and outcome.word in ("FAILED", "WARN"):
            findings.append(_failed(contract, check, outcome, now))
        elif outcome is None or outcome.word != "PASSED":
            unevaluated.append(f"{check.column}.{check.name}" if check.column else check.name)
    undeclared = len(verified.outcomes.keys() - {check.identity for check in checks})
    if unevaluated or undeclared or verified.errors:
        # One finding: a single broken query leaves all checks of a table without an outcome.
        told = [f"{len(unevaluated)} of {len(checks)} checks were not evaluated: {', '.join(unevaluated)}"] if unevaluated else []
        told += [f"{undeclared} outcomes of undeclared checks"] if undeclared else []
        told += verified.errors[:1]
        query = f"SELECT count(*) AS table_rows FROM {contract.table}"
        findings.append(Finding("evaluation", contract.table, None, "error", "; ".join(told), "every declared check evaluated", now, query))
    return findings


def _failed(contract: Contract, check: Check, outcome: Outcome, now: datetime) -> Finding:
    value, rows, threshold = outcome.value or 0, outcome.rows, check.body.threshold
    share = value / rows if rows and check.kind != "row_count" else None
    if threshold is not None and threshold.metric == "percent":
        observed, share = f"{value:.2f} % of {rows} rows", value / 100
    else:
        observed = f"{value:g} rows" if rows is None or check.kind == "row_count" else f"{value:g} of {rows} rows"
    expected = check.body.name or _EXPECTED[check.kind]
    if threshold is not None:
        expected = f"{expected} ({threshold})"
    severity: Literal["error", "warning"] = "warning" if outcome.word == "WARN" else "error"
    query = _query(contract, check).replace("${var.today}", now.astimezone(UTC).date().isoformat())
    return Finding(check.name, contract.table, check.column, severity, observed, expected, now, query, share)


def _query(contract: Contract, check: Check) -> str:
    """Shows the failing rows by key alone: whoever may read findings may not always read personal data."""
    key = ", ".join(contract.key)
    if check.kind == "row_count":
        return f"SELECT count(*) AS table_rows FROM {contract.table}"
    if check.kind == "duplicate":
        return f"SELECT {key}, count(*) AS copies FROM {contract.table} GROUP BY {key} HAVING count(*) > 1 LIMIT {SAMPLE_ROWS}"
    if isinstance(check.body, FailedRows) and check.body.query is not None:
        return f"WITH failed_rows AS ({check.body.query.strip()}) SELECT * FROM failed_rows LIMIT {SAMPLE_ROWS}"
    return f"SELECT {key} FROM {contract.table} WHERE {_condition(check)} LIMIT {SAMPLE_ROWS}"


def _condition(check: Check) -> str:
    body = check.body
    if isinstance(body, FailedRows) and body.expression is not None:
        return body.expression.strip()
    if not isinstance(body, Invalid):
        return f"{check.column} IS NULL"
    broken = []
    if body.valid_format is not None:
        broken.append(f"NOT regexp_matches({check.column}, {literal(body.valid_format.regex)})")
    if body.valid_min is not None:
        broken.append(f"{check.column} < {body.valid_min}")
    if body.valid_max is not None:
        broken.append(f"{check.column} > {body.valid_max}")
    return " OR ".join(broken)
