"""Faults of the catalogue, carried from the raw tables to the marts, and judged by everything that a run judges with."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from fnmatch import fnmatchcase
from functools import cache

import duckdb

from monitoring.anomalies import check_anomalies
from monitoring.completeness import check_completeness, check_newest
from monitoring.contracts import check_contracts
from monitoring.deletes import check_deletes
from monitoring.expectations import Expectations, read_expectations
from monitoring.findings import Finding
from monitoring.incidents import RUN_FAILED, Group, grouped
from monitoring.rules import Rules, read_rules, routed
from monitoring.schema_changes import schema_changes
from trials import promises
from trials.catalogue import Fault
from trials.home import NOW, RAW, TABLES, below, build, lineage
from trials.shop import shop

LEFT_OUT = ("zendesk", "google_analytics")
FRESH = timedelta(minutes=10)


@dataclass(frozen=True)
class Seen:
    """What became of one trial.

    Attributes:
        found: what is wrong that is not wrong in the same shop without the fault.
        skipped: declared checks of the tables looked at that were neither evaluated nor told to be left out.
    """

    found: tuple[Finding, ...]
    groups: tuple[Group, ...]
    skipped: int


@cache
def _asked() -> tuple[Expectations, Rules]:
    return read_expectations(), read_rules()


@cache
def _depends(touched: tuple[str, ...]) -> frozenset[str]:
    """The tables below the touched ones, and those whose contracts ask something of one of these: all others are as they were."""
    made = frozenset().union(*(below(table) for table in touched))
    return made | {table for table, contract in promises.declared().items() if any(one in contract.model_dump_json() for one in made)}


class Trial:
    """A shop of a seed in which one fault at a time happens and is undone."""

    def __init__(self, seed: int) -> None:
        self.seed, self.connection = seed, shop(seed)
        self.clean = {one.fingerprint for one in self._judge(TABLES, {})[0]}

    def run(self, fault: Fault, severity: int, *, by_soda: bool = False) -> Seen:
        """Let a fault happen, build, check, and undo it."""
        self.connection.begin()
        try:
            stopped = self._happens(fault, severity)
            loaded = {fault.source: NOW - fault.age[severity]} if fault.age else {}
            looked_at = TABLES if fault.age else tuple(sorted(_depends(fault.touched)))
            if any(one.check == RUN_FAILED for one in stopped):
                found, skipped = stopped, 0  # as a run: what was built before is neither checked nor published
            else:
                found, skipped = self._judge(looked_at, loaded, by_soda=by_soda)
                found = [*stopped, *found]
        finally:
            self.connection.rollback()
        new = sorted(routed([one for one in found if one.fingerprint not in self.clean], _asked()[1]), key=_order)
        return Seen(tuple(new), tuple(grouped(new, lineage())), skipped)

    def _happens(self, fault: Fault, severity: int) -> list[Finding]:
        sql = fault.sql[severity].replace("{seed}", str(self.seed))
        if fault.where != "in a model":
            self.connection.execute(sql)
            try:
                return build(self.connection, frozenset().union(*(below(table) for table in fault.touched))) if fault.touched else []
            except duckdb.Error as error:
                return [Finding(RUN_FAILED, "marts", None, "error", f"`warehouse run` failed: {str(error).splitlines()[0]}", "every step ends well", NOW, "")]
        for table in fault.touched:  # a view that loses rows is a table here
            schema, name = table.split(".")
            if self.connection.execute("SELECT 1 FROM duckdb_views() WHERE schema_name = ? AND view_name = ?", [schema, name]).fetchone():
                self.connection.execute(f"CREATE TEMP TABLE wrong AS FROM {table}; DROP VIEW {table}; CREATE TABLE {table} AS FROM temp.wrong")
                self.connection.execute("DROP TABLE temp.wrong")
        self.connection.execute(sql)
        return []

    def _judge(self, looked_at: Sequence[str], loaded: Mapping[str, object], *, by_soda: bool = False) -> tuple[list[Finding], int]:
        at = {table: loaded.get(table.split(".")[0].removeprefix("raw_"), NOW - FRESH) for table in RAW if table in looked_at}
        given = {"now": NOW, "loaded_at": at, "only": looked_at, "left_out": LEFT_OUT}
        expected, _ = _asked()
        counted = _Counted()
        if by_soda:
            contracts = check_contracts(self.connection, **given)
        else:
            with promises.instead_of_soda(), counted.listening():
                contracts = check_contracts(self.connection, **given)
        watched = expected.model_copy(update={"anomalies": {table: one for table, one in expected.anomalies.items() if table in looked_at}})
        found = schema_changes(self.connection, NOW) + contracts
        for look in (check_completeness, check_newest, check_deletes, check_anomalies):
            found += look(self.connection, watched, NOW)
        return found, 0 if by_soda else counted.skipped(looked_at, contracts)


class _Counted:
    """Which checks had an outcome."""

    def __init__(self) -> None:
        self.evaluated: dict[str, int] = {}

    def listening(self) -> "Iterator[None]":
        from unittest.mock import patch

        def verify(connection: duckdb.DuckDBPyConnection, runnable: Mapping[str, tuple], today: object) -> dict:
            verified = promises.verify(connection, runnable, today)
            self.evaluated = {table: len(one.outcomes) for table, one in verified.items()}
            return verified

        return patch("monitoring.contracts.verify", verify)

    def skipped(self, looked_at: Sequence[str], found: Sequence[Finding]) -> int:
        """Declared checks less those with an outcome and those that a finding says were not run."""
        declared = sum(len(promises.declared()[table].all_checks()) for table in looked_at)
        told = 0
        for one in found:
            if one.check == "schema" and one.observed == "the table is missing":
                told += len(promises.declared()[one.table].all_checks())
            elif one.check in ("schema", "evaluation"):
                told += sum(int(number) for number in re.findall(r"(\d+)(?: of \d+)? checks (?:of other tables )?(?:that|were)", one.observed))
        return max(declared - sum(self.evaluated.values()) - told, 0)


def is_right(fault: Fault, seen: Seen) -> bool:
    """Whether every incident begins with a cause that the fault has, and the first of them reaches whom it must."""
    causes = [group.cause for group in seen.groups]
    fits = [any(fnmatchcase(cause.check, check) and fnmatchcase(cause.table, table) for check, table in fault.causes) for cause in causes]
    return bool(causes) and all(fits)


def is_routed(fault: Fault, seen: Seen) -> bool:
    """Whether every incident reaches whom it must."""
    return bool(seen.groups) and all(_asked()[1].rule(group.cause).to == fault.route for group in seen.groups)


def comparable(finding: Finding) -> Finding:
    """A finding without what two ways of asking may say in other words."""
    return replace(finding, observed="", expected="", query="", share=None)


def _order(one: Finding) -> tuple[str, str, str, str]:
    return one.severity, one.table, one.check, one.column or ""
