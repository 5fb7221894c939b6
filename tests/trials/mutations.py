"""Each check of each contract is taken away once, in memory: some fault must then go unseen, or the check is dead weight.

Two kinds of faults show what a check is worth. Those of the catalogue come from the sources, and often several checks see them,
one a layer. Those of tests/integration/broken*.py are made in one table alone, as a wrong model makes them. A check of which
each fault is seen by another one as well, of any table or by completeness, adds nothing.
"""

import sys
from collections import defaultdict
from collections.abc import Collection, Iterator
from pathlib import Path

import duckdb

sys.path.insert(0, str(Path(__file__).parents[1]))

from integration import test_contracts as good

from monitoring.completeness import check_completeness
from monitoring.contract_files import read_contracts
from monitoring.contracts import check_contracts
from monitoring.expectations import read_expectations
from monitoring.findings import Finding
from trials.promises import instead_of_soda

Check = tuple[str, str | None, str]
"""Table, column, name."""
SCHEMA = "schema"


def filled() -> duckdb.DuckDBPyConnection:
    """Ten good rows in every contracted table, as tests/integration/test_contracts.py has them."""
    connection = duckdb.connect(config={"threads": 2})
    connection.execute("SET TimeZone = 'UTC'")
    for table, contract in read_contracts().items():
        columns = [f"({good._good(table, one.name, one.data_type)})::{one.data_type} AS {one.name}" for one in contract.columns]
        connection.execute(f"CREATE SCHEMA IF NOT EXISTS {table.split('.')[0]}")
        connection.execute(f"CREATE TABLE {table} AS SELECT {', '.join(columns)} FROM range({good.ROWS}) AS rows(i)")
    return connection


def who_sees(tables: Collection[str] | None = None) -> Iterator[tuple[Check, str, frozenset[Check]]]:
    """Each fault of one table alone: the check that it was made for, the statement, and every check that sees it.

    Args:
        tables: only faults of these.
    """
    connection, contracts, expected = filled(), read_contracts(), read_expectations()
    said = {table: contract.model_dump_json(exclude={"columns": {"__all__": {"description"}}}) for table, contract in contracts.items()}
    asks = {table: {table, *(other for other in contracts if other in text)} for table, text in said.items()}
    faults = [((table, column, check), breaks) for table, column, check, breaks in good.BROKEN]
    faults += [((table, None, SCHEMA), f"ALTER TABLE {table} DROP COLUMN {contract.columns[-1].name}") for table, contract in contracts.items()]
    with instead_of_soda(contracts):
        for made_for, breaks in faults:
            table = made_for[0]
            if tables is not None and table not in tables:
                continue
            looked_at = [one for one in contracts if table in asks[one]]
            connection.begin()
            connection.execute(breaks)
            pairs = expected.model_copy(update={"rows": [pair for pair in expected.rows if table in (pair.table, pair.of)]})
            seen = check_contracts(connection, now=good.NOW, loaded_at=good.LOADED_AT, only=looked_at) + check_completeness(connection, pairs, good.NOW)
            connection.rollback()
            yield made_for, breaks, frozenset(_check(one) for one in seen)


def dead_weight(tables: Collection[str] | None = None) -> tuple[dict[Check, int], list[Check]]:
    """Checks, with how many faults nobody sees without them; and those without which every fault is still seen."""
    alone: dict[Check, int] = defaultdict(int)
    asked: dict[Check, None] = {}
    for made_for, breaks, seen in who_sees(tables):
        asked[made_for] = None
        if made_for not in seen:
            raise AssertionError(f"{made_for} does not see {breaks}")
        alone[made_for] += seen == {made_for}
    return dict(alone), [check for check in asked if not alone[check]]


def _check(one: Finding) -> Check:
    # A column that is gone is one finding of its table, whatever column it names.
    return one.table, None if one.check == SCHEMA else one.column, one.check
