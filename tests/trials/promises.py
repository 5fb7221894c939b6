"""What Soda makes of a contract, as one SQL query a table: the same outcomes in a hundredth of its time.

Soda reads each contract anew for each check of a warehouse, which takes longer than all its queries. tests/trials/carried.py
compares both on the faults themselves.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import date
from functools import cache
from typing import Any
from unittest.mock import patch

import duckdb

from monitoring.contract_files import FOLDER, read_contracts
from monitoring.contract_model import Check, Contract, FailedRows, Threshold
from monitoring.contracts import _condition
from monitoring.soda_session import Outcome, Verified
from trials.home import TABLES

Contracts = dict[str, Contract]
_COMPARISONS = {
    "must_be": lambda value, bound: value == bound,
    "must_not_be": lambda value, bound: value != bound,
    "must_be_greater_than": lambda value, bound: value > bound,
    "must_be_greater_than_or_equal": lambda value, bound: value >= bound,
    "must_be_less_than": lambda value, bound: value < bound,
    "must_be_less_than_or_equal": lambda value, bound: value <= bound,
}


@cache
def declared() -> Contracts:
    """The contracts of the tables of a trial, read once."""
    return {table: contract for table, contract in read_contracts().items() if table in TABLES}


def verify(connection: duckdb.DuckDBPyConnection, runnable: Mapping[str, tuple[Contract, list[Check]]], today: date) -> dict[str, Verified]:
    """As monitoring.soda_session.verify."""
    return {table: _verified(connection, table, checks, today) for table, (_, checks) in runnable.items()}


@contextmanager
def instead_of_soda(contracts: Contracts | None = None) -> Iterator[None]:
    """`check_contracts` asks this module, of the declared contracts or of others."""
    given = contracts if contracts is not None else declared()
    with patch("monitoring.contracts.verify", verify), patch("monitoring.contracts.read_contracts", lambda folder=FOLDER: given):
        yield


def _verified(connection: duckdb.DuckDBPyConnection, table: str, checks: list[Check], today: date) -> Verified:
    values = [_value(check, table) for check in checks]
    query = f"SELECT count(*), {', '.join(values)} FROM {table}".replace("${var.today}", today.isoformat())
    try:
        rows, *counts = connection.execute(query).fetchone() or (0,)
    except duckdb.Error as error:
        return Verified({}, [str(error)])
    return Verified({check.identity: _outcome(check, count, rows) for check, count in zip(checks, counts, strict=True)}, [])


def _value(check: Check, table: str) -> str:
    body: Any = check.body
    if check.kind == "row_count":
        return "count(*)"
    if check.kind == "duplicate":
        key = check.column or f"({', '.join(body.columns)})"
        return f"count({key if check.column else '*'}) - count(DISTINCT {key})"
    if isinstance(body, FailedRows) and body.query is not None:
        return f"(SELECT count(*) FROM ({body.query}))"
    return f"count(*) FILTER (WHERE {_condition(check)})"


def _outcome(check: Check, count: int, rows: int) -> Outcome:
    threshold = check.body.threshold or Threshold(**({"must_be_greater_than": 0} if check.kind == "row_count" else {"must_be": 0}))
    value = 100 * count / rows if threshold.metric == "percent" and rows else count
    ((comparison, bound),) = threshold._comparisons()
    word = "PASSED" if _COMPARISONS[comparison](value, bound) else "WARN" if threshold.level == "warn" else "FAILED"
    is_query = isinstance(check.body, FailedRows) and check.body.query is not None
    return Outcome(word, value, None if is_query else rows)
