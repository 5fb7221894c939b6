"""The schema gate: columns and types of all tables in one query, before any check runs.

Soda bundles a table's checks into one query, so one missing column fails every check of the table. The gate makes it one
finding, and withholds only the checks that need the column.
"""

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from monitoring.contract_model import Check, Contract
from monitoring.findings import Finding

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_COLUMNS = """
SELECT schema_name || '.' || table_name AS qualified_name, column_name, data_type
FROM duckdb_columns()
WHERE database_name = current_database() AND NOT internal
"""
_ALIASES = {"TIMESTAMPTZ": "TIMESTAMP WITH TIME ZONE", "TEXT": "VARCHAR", "INT": "INTEGER"}
_FAMILIES = {
    "number": ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "DECIMAL", "FLOAT",
               "DOUBLE"),
    "time": ("DATE", "TIMESTAMP", "TIMESTAMP WITH TIME ZONE", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS"),
}  # fmt: skip


@dataclass(frozen=True)
class Gate:
    """What the tables are like. `unusable` holds, by table, the columns no check may touch."""

    findings: list[Finding] = field(default_factory=list)
    missing_tables: set[str] = field(default_factory=set)
    unusable: dict[str, set[str]] = field(default_factory=dict)

    def allows(self, table: str, check: Check) -> bool:
        """Whether everything the check touches is there. A name merely mentioned in its SQL counts as touched."""
        if not self.missing_tables and not any(self.unusable.values()):
            return True
        text = " ".join(str(value) for value in check.body.model_dump(exclude={"name", "qualifier"}, exclude_none=True).values())
        words = {*re.findall(r"\w+", text), check.column}
        if table in self.missing_tables or any(re.search(rf"\b{re.escape(other)}\b", text) for other in self.missing_tables):
            return False
        touched = [other for other, columns in self.unusable.items() if words & columns]
        return not any(other == table or re.search(rf"\b{re.escape(other)}\b", text) for other in touched)


def judge_schemas(connection: "DuckDBPyConnection", contracts: Mapping[str, Contract], now: datetime) -> Gate:
    """Compare every table of the current catalog with its contract.

    Returns:
        at most one finding per table: missing, or with columns missing, changed or undeclared; and a warning for each
        table of a governed schema that has no contract.
    """
    actual: dict[str, dict[str, str]] = {}
    for table, column, data_type in connection.execute(_COLUMNS).fetchall():
        actual.setdefault(table, {})[column] = data_type
    gate = Gate()
    for table, contract in contracts.items():
        if table not in actual:
            gate.missing_tables.add(table)
            gate.findings.append(_finding(table, None, "the table is missing", "the table is there", now))
            continue
        _note(gate, contract, actual[table])
    for table, contract in contracts.items():
        if table not in gate.missing_tables:
            _compare(gate, contract, actual[table], contracts, now)
    for table in sorted(actual.keys() - contracts.keys()):
        if _is_governed(*table.split(".", 1)):
            expected = f"a contract soda/{table.replace('.', '/')}.yml"
            gate.findings.append(Finding("contract", table, None, "warning", "the table has no contract", expected, now, _query(table)))
    return gate


def _difference(contract: Contract, actual: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """The columns that are missing, and those that have another type."""
    expected = {column.name: _canonical(column.data_type) for column in contract.columns}
    return [name for name in expected if name not in actual], [name for name in expected if name in actual and actual[name] != expected[name]]


def _note(gate: Gate, contract: Contract, actual: Mapping[str, str]) -> None:
    expected = {column.name: _canonical(column.data_type) for column in contract.columns}
    missing, changed = _difference(contract, actual)
    gate.unusable[contract.table] = {*missing, *(name for name in changed if _family(actual[name]) != _family(expected[name]))}


def _compare(gate: Gate, contract: Contract, actual: Mapping[str, str], contracts: Mapping[str, Contract], now: datetime) -> None:
    expected = {column.name: _canonical(column.data_type) for column in contract.columns}
    missing, changed = _difference(contract, actual)
    extra = [] if contract.schema_check.allow_extra_columns else [name for name in actual if name not in expected]
    if not (missing or changed or extra):
        return
    others = [table for table in contracts if table != contract.table and gate.unusable[contract.table] and table not in gate.missing_tables]
    elsewhere = sum(_asks(check, contract.table) and not gate.allows(table, check) for table in others for check in contracts[table].all_checks())
    withheld = sum(not gate.allows(contract.table, check) for check in contract.all_checks())
    observed = [f"column {name} is missing" for name in missing]
    observed += [f"column {name} is {actual[name]}" for name in changed]
    observed += [f"column {name} is not declared" for name in extra]
    if withheld:
        observed.append(f"{withheld} checks that need these columns were not run")
    if elsewhere:
        observed.append(f"{elsewhere} checks of other tables that need these columns were not run")
    wanted = [f"{name} {expected[name]}" for name in (*missing, *changed)] or ["only the declared columns"]
    named = [*missing, *changed, *extra]
    gate.findings.append(_finding(contract.table, named[0] if len(named) == 1 else None, "; ".join(observed), ", ".join(wanted), now))


def _asks(check: Check, table: str) -> bool:
    return bool(re.search(rf"\b{re.escape(table)}\b", check.body.model_dump_json(exclude={"name"})))


@functools.cache
def _canonical(data_type: str) -> str:
    spelled = re.sub(r"\s*([(),])\s*", r"\1", data_type.strip().upper())
    return _ALIASES.get(spelled, spelled)


def _family(data_type: str) -> str:
    """Types that the same checks can judge: a number that became another kind of number still has a sign."""
    base = data_type.split("(")[0]
    return next((family for family, members in _FAMILIES.items() if base in members), base)


def _is_governed(schema: str, table: str) -> bool:
    # The loader keeps its own tables (_dlt_…) and a merge area (…_staging) beside the data.
    is_raw = schema.startswith("raw_") and not schema.endswith("_staging")
    return (is_raw or schema in ("staging", "marts")) and not table.startswith("_dlt_")


def _finding(table: str, column: str | None, observed: str, expected: str, now: datetime) -> Finding:
    return Finding("schema", table, column, "error", observed, expected, now, _query(table))


def _query(table: str) -> str:
    schema, name = table.split(".", 1)
    return f"SELECT column_name, data_type FROM duckdb_columns() WHERE schema_name = '{schema}' AND table_name = '{name}'"
