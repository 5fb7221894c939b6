"""Each check of each contract is taken away once, in memory: some fault must then go unseen, or the check is dead weight.

The faults are those of tests/integration/broken*.py, each made in one table alone, as a wrong model makes them: one that comes
from a source is seen once a layer, which says nothing of a single check. A check of which
each fault is seen by another one as well, of any table, adds nothing. Completeness is left out: whoever forks this declares
its own pairs of tables, and the contracts must hold without them.
"""

import sys
from collections import defaultdict
from collections.abc import Collection, Iterator
from pathlib import Path

import duckdb

sys.path.insert(0, str(Path(__file__).parents[1]))

from integration import test_contracts as good

from monitoring.contract_files import read_contracts
from monitoring.contracts import check_contracts
from monitoring.findings import Finding
from trials.promises import instead_of_soda

Check = tuple[str, str | None, str]
"""Table, column, name."""
SCHEMA = "schema"
USERS = {"raw_postgres.users": "id", "staging.stg_postgres__users": "user_id"}
MORE = [((table, key, "missing"), f"INSERT INTO {table} SELECT * REPLACE (NULL AS {key}) FROM {table} WHERE rowid = 0") for table, key in USERS.items()]
IDENTITIES = "marts.identity_map"
MORE += [
    (
        (IDENTITIES, "customer_key", "missing"),
        f"INSERT INTO {IDENTITIES} SELECT * REPLACE (NULL AS customer_key, 'another' AS source_key) FROM {IDENTITIES} WHERE rowid = 0",
    )
]
"""A user without key whom no order misses, and a person without customer who consents to nothing."""
KEPT: set[Check] = {(table, None, "row_count") for table in USERS}
"""Seen by another check as well and kept all the same: an empty table of users is else told as thousands of orders of unknown users."""


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
    connection, contracts = filled(), read_contracts()
    said = {table: contract.model_dump_json(exclude={"columns": {"__all__": {"description"}}}) for table, contract in contracts.items()}
    asks = {table: {table, *(other for other in contracts if other in text)} for table, text in said.items()}
    faults = [((table, column, check), breaks) for table, column, check, breaks in good.BROKEN] + MORE
    faults += [((table, None, SCHEMA), f"ALTER TABLE {table} DROP COLUMN {contract.columns[-1].name}") for table, contract in contracts.items()]
    for made_for, breaks in faults:
        table = made_for[0]
        if tables is not None and table not in tables:
            continue
        looked_at = {one: contract for one, contract in contracts.items() if table in asks[one]}
        connection.begin()
        connection.execute(breaks)
        with instead_of_soda(looked_at):
            seen = check_contracts(connection, now=good.NOW, loaded_at=good.LOADED_AT, only=looked_at)
        connection.rollback()
        yield made_for, breaks, frozenset(_check(one) for one in seen)


def dead_weight(tables: Collection[str] | None = None) -> tuple[dict[Check, int], list[Check]]:
    """Checks, with how many faults nobody sees without them; and those without which every fault is still seen, but for KEPT."""
    alone: dict[Check, int] = defaultdict(int)
    asked: dict[Check, None] = {}
    for made_for, breaks, seen in who_sees(tables):
        asked[made_for] = None
        if made_for not in seen:
            raise AssertionError(f"{made_for} does not see {breaks}")
        alone[made_for] += seen == {made_for}
    return dict(alone), [check for check in asked if not alone[check] and check not in KEPT]


def _check(one: Finding) -> Check:
    # A column that is gone is one finding of its table, whatever column it names.
    return one.table, None if one.check == SCHEMA else one.column, one.check
