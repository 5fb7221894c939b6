"""The log of changes is read completely, in order, as often as needed, and with the values that a query would give."""

from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from datetime import timedelta
from typing import Any

import psycopg2
import pytest
from conftest import Company

from demo.company import OWNER, READER
from pipelines.postgres import declaration
from pipelines.postgres_catalog import Plan, plans
from pipelines.postgres_changes import Changes
from pipelines.postgres_log import Log
from pipelines.postgres_server import attached
from warehouse.errors import StepFailed

SLOT, PUBLICATION = "warehouse_test", "Warehouse é"
MINUTE = timedelta(minutes=1)


def administer(company: Company, *statements: str) -> None:
    with closing(psycopg2.connect(company.server.url(database=company.database))) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)


@pytest.fixture
def log(company: Company) -> Iterator[Log]:
    administer(
        company,
        f'ALTER ROLE "{READER}" REPLICATION',
        f'GRANT CREATE ON DATABASE "{company.database}" TO "{OWNER}"',
        f'CREATE PUBLICATION "{PUBLICATION}" FOR ALL TABLES WITH (publish_via_partition_root = true)',
    )
    ours = Log(SLOT, PUBLICATION, MINUTE)
    yield ours
    with suppress(StepFailed):
        ours.drop_slot()
    administer(company, f'ALTER ROLE "{READER}" NOREPLICATION')


def planned() -> list[Plan]:
    declared = declaration()
    with attached(MINUTE) as connection:
        return plans(connection, declared.tables)


def rows(changes: Changes) -> list[dict[str, Any]]:
    """All changes, in the order of the log."""
    found = [{"_table": chunk.plan.own, **row} for chunk in changes for row in chunk.table.to_pylist()]
    assert changes.is_complete
    return sorted(found, key=lambda row: (row["_lsn"], row["_position"]))


def short(found: list[dict[str, Any]], *names: str) -> list[tuple[Any, ...]]:
    return [(row["_op"], *(row[name] for name in names)) for row in found]


def read(log: Log, **options: Any) -> list[dict[str, Any]]:
    return rows(log.read(planned(), log.current_lsn(), **options))


def test_changes_come_in_order_until_they_are_confirmed(company: Company, declare: Callable[[str], None], log: Log) -> None:
    company.execute("CREATE TABLE shop.t (id bigint PRIMARY KEY, v text, secret text)", "CREATE TABLE shop.other (id bigint PRIMARY KEY)")
    declare("tables:\n  shop.t: {exclude: [secret]}\n")
    start = log.create_slot()
    assert log.create_slot() == start
    company.execute("INSERT INTO shop.t VALUES (1, 'a', 'x'), (2, NULL, 'x')", "INSERT INTO shop.other VALUES (1)", "UPDATE shop.t SET v = 'b' WHERE id = 1")
    company.execute("UPDATE shop.t SET v = 'c' WHERE id = 1", "UPDATE shop.t SET id = 3 WHERE id = 2", "DELETE FROM shop.t WHERE id = 1")
    company.execute("SAVEPOINT s", "INSERT INTO shop.t VALUES (8, 'undone')", "ROLLBACK TO s", "SAVEPOINT r", "INSERT INTO shop.t VALUES (9, 'é')", "RELEASE r")
    with pytest.raises(psycopg2.Error):
        company.execute("INSERT INTO shop.t VALUES (10)", "SELECT 1 / 0")
    company.execute("TRUNCATE shop.t, shop.other")
    changes = log.read(planned(), log.current_lsn())
    found = rows(changes)
    assert short(found, "id", "v") == [
        ("insert", "1", "a"), ("insert", "2", None), ("update", "1", "b"), ("update", "1", "c"), ("delete", "2", None), ("insert", "3", None),
        ("delete", "1", None), ("insert", "9", "é"), ("truncate", None, None),
    ]  # fmt: skip
    assert "secret" not in found[0]
    assert len({row["_lsn"] for row in found}) == 4
    assert found[5]["_lsn"] == found[4]["_lsn"]
    assert found[5]["_position"] == found[4]["_position"] + 1
    assert (changes.transactions, changes.changes) == (4, 9)
    assert log.health().confirmed_lsn == start
    assert read(log) == found
    log.advance(changes.confirmable_lsn)
    assert log.health().confirmed_lsn == changes.confirmable_lsn
    assert read(log) == []
    log.advance(start)
    assert read(log) == []
