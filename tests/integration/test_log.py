"""The log of changes is read completely, in order, as often as needed, and with the values that a query would give."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import psycopg2
import pytest
from conftest import Company
from integration.test_types import EXACT, TYPES

from demo.company import OWNER, READER
from pipelines.postgres import declaration
from pipelines.postgres_catalog import Plan, plans
from pipelines.postgres_changes import Changes
from pipelines.postgres_log import Log
from pipelines.postgres_server import SOURCE, attached
from pipelines.postgres_stream import Stream
from pipelines.postgres_text import refuse_unrepresentable_changes, typed
from pipelines.postgres_types import Choice
from privacy.pseudonyms import protect
from warehouse.errors import StepFailed, WarehouseError
from warehouse.settings import ROOT

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
        return plans(connection, declared.tables).plans


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


def compare(log: Log, plan: Plan, folder: Path, choices: dict[str, Choice] | None = None) -> int:
    """Each column of the log against the same column read by a query: the rows there, by id; returns how many values."""
    changes = log.read([plan], log.current_lsn())
    (chunk,) = changes
    ours = typed(chunk, choices or {}, MINUTE)
    protected = protect(SOURCE, plan.own, ours.columns, texts=ours.texts)
    with attached(MINUTE) as connection:
        Stream(connection, plan, datetime.now(UTC), datetime.now(UTC)).write(folder / "queried.parquet", "")
        connection.register("logged", ours.table)
        for name, expression in protected.columns.items():
            there = connection.execute(f"SELECT typeof({name}), {name}::VARCHAR FROM read_parquet('{folder}/queried.parquet') ORDER BY id").fetchall()
            here = connection.execute(f"SELECT typeof({expression}), ({expression})::VARCHAR FROM logged ORDER BY _position").fetchall()
            assert here == there, (name, plan.readings[name])
    return len(protected.columns)


MORE = [
    ("inet", "'192.168.0.1'"), ("inet", "'::1'"), ("cidr", "'10.0.0.0/8'"), ("date", "'-infinity'"), ("date", "'12345-01-01'"), ("time", "'24:00'"),
    ("timestamp", "'0044-03-15 12:00:00.5 BC'"), ("timestamp", "'294246-12-30 23:59:59.999999'"), ("timestamptz", "'-infinity'"),
    ("real", "'Infinity'"), ("real", "1e-45"), ("double precision", "5e-324"), ("double precision", "'-0'"), ("numeric", "1.50000000000000000"),
    ("numeric", "-99999999999999999999999999999.999999999"), ("numeric(38,38)", "0.1"), ("numeric(50,40)", "-0.5"), ("bytea", "''"), ("money", "12.34"),
    ("boolean", "false"), ("timestamptz[]", "'{2024-01-01 00:00+02}'"), ("real[]", "'{1.1,NaN}'"), ("shop.pair[]", "ARRAY[row(1, 'a,\"b\"')::shop.pair]"),
    ("bit varying", "B'1'"), ("tstzrange", "'[2024-01-01,)'"), ("char(3)[]", "'{a}'"), ("shop.numbers", "'{1,2}'"), ("shop.flag", "true"),
]  # fmt: skip


def test_values_are_those_of_a_query(company: Company, declare: Callable[[str], None], log: Log, tmp_path: Path) -> None:
    kinds = [(kind, value) for kind, value, *_ in EXACT] + MORE
    columns = ", ".join(f"v{number} {kind}" for number, (kind, _) in enumerate(kinds))
    company.execute(
        *TYPES, "CREATE DOMAIN shop.numbers AS integer[]", "CREATE DOMAIN shop.flag AS boolean", f"CREATE TABLE shop.every (id bigint PRIMARY KEY, {columns})"
    )
    log.create_slot()
    declare("tables:\n  shop.every:\n")
    company.execute(f"INSERT INTO shop.every VALUES (1, {', '.join(value for _, value in kinds)})", "INSERT INTO shop.every (id) VALUES (2)")
    (plan,) = planned()
    log.check([plan])
    assert compare(log, plan, tmp_path) == len(kinds) + 1


ODD = [
    ("numeric(12,2)", "'NaN'"), ("numeric", "'NaN'"), ("numeric", "'-Infinity'"), ("numeric", "0.1234567891"), ("numeric", "1e29"),
    ("numeric(50,10)", "1e28"), ("timestamptz", "'294276-12-30 00:00+00'"), ("timestamp", "'294250-01-01'"), ("shop.price_or_not", "'NaN'"),
]  # fmt: skip


def test_values_without_a_counterpart_are_named_or_become_what_was_chosen(
    company: Company, declare: Callable[[str], None], fails: Callable[..., WarehouseError], log: Log, tmp_path: Path
) -> None:
    names = [f"v{number}" for number in range(len(ODD))]
    columns = ", ".join(f"{name} {kind}" for name, (kind, _) in zip(names, ODD, strict=True))
    company.execute("CREATE DOMAIN shop.price_or_not AS numeric(12,3)", f"CREATE TABLE shop.odd (id bigint PRIMARY KEY, {columns})")
    log.create_slot()
    company.execute("INSERT INTO shop.odd (id) VALUES (1)", f"INSERT INTO shop.odd VALUES (4711, {', '.join(value for _, value in ODD)})")
    choices: tuple[Choice, ...] = ("null", "text")
    for choice in choices:
        chosen = ", ".join(f"{name}: {{on_unrepresentable: {choice}}}" for name in names)
        declare(f"tables:\n  shop.odd: {{columns: {{{chosen}}}}}\n")
        (plan,) = planned()
        assert compare(log, plan, tmp_path, dict.fromkeys(names, choice)) == len(names) + 1
    declare("tables:\n  shop.odd:\n")
    (plan,) = planned()
    (chunk,) = log.read([plan], log.current_lsn())
    ours = typed(chunk, {}, MINUTE)
    assert list(ours.faults) == names
    with duckdb.connect() as connection:
        connection.register("logged", ours.table)
        for name, fault in ours.faults.items():
            error = fails(refuse_unrepresentable_changes, connection, plan, "logged", {name: fault})
            assert f"shop.odd.{name}, row 4711" in error.what
            assert f"columns: {{{name}: {{on_unrepresentable: null}}}}" in error.mend
        refuse_unrepresentable_changes(connection, plan, "(FROM logged WHERE id <> '4711')", ours.faults)


def test_old_rows_and_values_stored_apart(company: Company, declare: Callable[[str], None], log: Log) -> None:
    company.execute(
        *(f"CREATE TABLE shop.{name} (id bigint PRIMARY KEY, n integer, big text)" for name in ("brief", "whole")),
        *(f"ALTER TABLE shop.{name} ALTER big SET STORAGE EXTERNAL" for name in ("brief", "whole")),
        "ALTER TABLE shop.whole REPLICA IDENTITY FULL",
    )
    declare("tables:\n  shop.brief:\n  shop.whole:\n")
    log.create_slot()
    for name in ("brief", "whole"):
        company.execute(f"INSERT INTO shop.{name} VALUES (1, 1, repeat('x', 9000))")
        company.execute(f"UPDATE shop.{name} SET n = 2", f"UPDATE shop.{name} SET id = 2", f"DELETE FROM shop.{name}")
    found = read(log)
    big = "x" * 9000
    assert short(found, "_table", "id", "n", "big", "_unchanged") == [
        ("insert", "brief", "1", "1", big, []), ("update", "brief", "1", "2", None, ["big"]),
        ("delete", "brief", "1", None, None, []), ("insert", "brief", "2", "2", None, ["big"]),
        ("delete", "brief", "2", None, None, []), ("insert", "whole", "1", "1", big, []),
        ("update", "whole", "1", "2", big, []), ("delete", "whole", "1", "2", big, []),
        ("insert", "whole", "2", "2", big, []), ("delete", "whole", "2", "2", big, []),
    ]  # fmt: skip


def test_a_large_transaction_comes_in_chunks(company: Company, declare: Callable[[str], None], log: Log) -> None:
    company.execute("CREATE TABLE shop.many (id bigint PRIMARY KEY, v text)")
    declare("tables:\n  shop.many:\n")
    log.create_slot()
    company.execute("INSERT INTO shop.many SELECT i, i FROM generate_series(1, 50000) i")
    company.execute("UPDATE shop.many SET v = 'late' WHERE id = 1")
    upto = log.current_lsn()
    changes = log.read(planned(), upto, max_rows_per_chunk=8000)
    sizes = [chunk.table.num_rows for chunk in changes]
    assert sizes == [8000] * 6 + [2001]
    stopped = iter(log.read(planned(), upto, max_rows_per_chunk=8000))
    next(stopped)
    stopped.close()
    assert sum(chunk.table.num_rows for chunk in log.read(planned(), upto)) == 50001


def test_reading_ends_before_what_a_snapshot_does_not_see(company: Company, declare: Callable[[str], None], log: Log) -> None:
    company.execute("CREATE TABLE shop.t (id bigint PRIMARY KEY)")
    declare("tables:\n  shop.t:\n")
    log.create_slot()
    company.execute("INSERT INTO shop.t VALUES (1)")
    before = log.current_lsn()
    with closing(psycopg2.connect(company.owner_url)) as late, late.cursor() as cursor:
        cursor.execute("INSERT INTO shop.t VALUES (2) RETURNING pg_current_xact_id()::text::bigint & 4294967295")
        ((xid,),) = cursor.fetchall()
        company.execute("INSERT INTO shop.t VALUES (3)")
        late.commit()
    company.execute("INSERT INTO shop.t VALUES (4)")
    assert short(read(log), "id") == [("insert", "1"), ("insert", "3"), ("insert", "2"), ("insert", "4")]
    assert short(rows(log.read(planned(), before)), "id") == [("insert", "1")]
    changes = log.read(planned(), log.current_lsn(), lambda seen: seen != xid)
    assert short(rows(changes), "id") == [("insert", "1"), ("insert", "3")]
    log.advance(changes.confirmable_lsn)
    assert short(read(log), "id") == [("insert", "2"), ("insert", "4")]


def test_names_and_partitions(company: Company, declare: Callable[[str], None], log: Log) -> None:
    company.execute(
        'CREATE TABLE shop."Order Lines" ("Order" bigint, "größe" text, "select" text, PRIMARY KEY ("Order"))',
        "CREATE TABLE shop.measures (id bigint, day date, v integer, PRIMARY KEY (id, day)) PARTITION BY RANGE (day)",
        "CREATE TABLE shop.measures_2024 PARTITION OF shop.measures FOR VALUES FROM ('2024-01-01') TO ('2025-01-01')",
        "CREATE TABLE shop.measures_2025 PARTITION OF shop.measures FOR VALUES FROM ('2025-01-01') TO ('2026-01-01')",
    )
    declare('tables:\n  "shop.Order Lines":\n  shop.measures:\n')
    log.create_slot()
    company.execute("""INSERT INTO shop."Order Lines" VALUES (1, 'ß', E'a\\n''"')""", "INSERT INTO shop.measures VALUES (1, '2024-05-05', 7)")
    company.execute("UPDATE shop.measures SET day = '2025-05-05'")
    lines, measures = planned()
    log.check([lines, measures])
    (chunk,) = log.read([lines], log.current_lsn())
    ours = typed(chunk, {}, MINUTE)
    with duckdb.connect() as connection:
        connection.register("logged", ours.table)
        assert connection.execute(f"SELECT {', '.join(ours.columns.values())} FROM logged").fetchall() == [(1, "ß", "a\n'\"")]
    found = read(log)
    assert short(found[:1], "_table", "größe", "select") == [("insert", "Order Lines", "ß", "a\n'\"")]
    assert short(found[1:], "_table", "day", "v") == [
        ("insert", "measures", "2024-05-05", "7"),
        ("delete", "measures", "2024-05-05", None),
        ("insert", "measures", "2025-05-05", "7"),
    ]


RESHAPED = {
    "added": ["ALTER TABLE shop.added ADD COLUMN w text"],
    "retyped": ["ALTER TABLE shop.retyped ALTER v TYPE bigint USING v::bigint"],
    "renamed": ["ALTER TABLE shop.renamed RENAME v TO w"],
    "anew": ["DROP TABLE shop.anew", "CREATE TABLE shop.anew (id bigint PRIMARY KEY, v text)"],
}


def test_tables_that_were_reshaped_are_named(company: Company, declare: Callable[[str], None], log: Log) -> None:
    names = [*RESHAPED, "still"]
    company.execute(*(f"CREATE TABLE shop.{name} (id bigint PRIMARY KEY, v text)" for name in names))
    declare("tables:\n" + "".join(f"  shop.{name}:\n" for name in names))
    log.create_slot()
    company.execute(*(f"INSERT INTO shop.{name} VALUES (1, '1')" for name in names))
    company.execute(*(statement for alter in RESHAPED.values() for statement in alter), *(f"INSERT INTO shop.{name} (id) VALUES (2)" for name in names))
    changes = log.read(planned(), log.current_lsn())
    assert [row["id"] for row in rows(changes) if row["_table"] == "still"] == ["1", "2"]
    assert changes.reshaped == {f"shop.{name}" for name in RESHAPED}


FAULTS = [
    (["DROP PUBLICATION {p}"], "no publication", "CREATE PUBLICATION {p} FOR TABLE shop.t WITH (publish_via_partition_root = true)"),
    (["DROP PUBLICATION {p}", "CREATE PUBLICATION {p}"], "is not in the publication", "ALTER PUBLICATION {p} ADD TABLE shop.t"),
    (["ALTER PUBLICATION {p} SET (publish = 'insert, update')"], "leaves out delete, truncate", "ALTER PUBLICATION {p} SET (publish ="),
    (["DROP PUBLICATION {p}", "CREATE PUBLICATION {p} FOR TABLE shop.t (id)"], "hides columns of shop.t: v", "DROP TABLE shop.t; ALTER PUBLICATION {p} ADD"),
    (["DROP PUBLICATION {p}", "CREATE PUBLICATION {p} FOR TABLE shop.t WHERE (id > 5)"], "hides rows of shop.t", "DROP TABLE shop.t; ALTER PUBLICATION"),
    (["ALTER TABLE shop.t REPLICA IDENTITY NOTHING"], "shop.t logs updates", "ALTER TABLE shop.t REPLICA IDENTITY DEFAULT"),
    (["ALTER TABLE shop.t DROP CONSTRAINT t_pkey"], "shop.t logs updates", "ALTER TABLE shop.t REPLICA IDENTITY FULL"),
    (["ALTER TABLE shop.t ADD UNIQUE (v)", "ALTER TABLE shop.t ALTER v SET NOT NULL", "ALTER TABLE shop.t REPLICA IDENTITY USING INDEX t_v_key"],
     "without id", "ALTER TABLE shop.t REPLICA IDENTITY DEFAULT"),
    (["ALTER TABLE shop.t ADD w bigint GENERATED ALWAYS AS (id * 2) STORED"], "shop.t.w is generated", "exclude"),
    (["ALTER TABLE shop.t SET UNLOGGED"], "it is unlogged", "ALTER TABLE shop.t SET LOGGED"),
    (["DROP TABLE shop.t", "CREATE TABLE shop.t (id bigint) PARTITION BY RANGE (id)", "ALTER PUBLICATION {p} SET (publish_via_partition_root = false)"],
     "each under its own name", "SET (publish_via_partition_root = true)"),
    (["DROP TABLE shop.t", "CREATE VIEW shop.t AS SELECT 1 AS id"], "is a view", "by query"),
    ([f'ALTER ROLE "{READER}" NOREPLICATION'], "may not replicate", f'ALTER ROLE "{READER}" REPLICATION'),
]  # fmt: skip


@pytest.fixture
def undo_slots(company: Company) -> Iterator[None]:
    yield
    administer(company, "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name LIKE 'other%'")


def test_what_keeps_the_log_from_being_read_is_named_with_its_mend(
    company: Company, declare: Callable[[str], None], fails: Callable[..., WarehouseError], log: Log, undo_slots: None
) -> None:
    declare("tables:\n  shop.t:\n")
    name = f'"{PUBLICATION}"'
    company.execute("CREATE TABLE shop.t (id bigint PRIMARY KEY, v text)")
    log.check(planned())
    for statements, says, mend in FAULTS:
        kind = "VIEW" if company.rows("SELECT 1 FROM pg_views WHERE schemaname = 'shop' AND viewname = 't'") else "TABLE"
        administer(
            company,
            f"DROP {kind} shop.t",
            f"DROP PUBLICATION IF EXISTS {name}",
            f"CREATE PUBLICATION {name} FOR ALL TABLES WITH (publish_via_partition_root = true)",
            "CREATE TABLE shop.t (id bigint PRIMARY KEY, v text)",
            "GRANT SELECT ON shop.t TO PUBLIC",
        )
        administer(company, *(statement.replace("{p}", name) for statement in statements), "GRANT SELECT ON shop.t TO PUBLIC")
        error = fails(log.check, planned())
        assert says in error.what, (statements, error.what)
        assert mend.replace("{p}", name) in error.mend, (statements, error.mend)
    administer(company, f'ALTER ROLE "{READER}" REPLICATION', "SELECT pg_create_physical_replication_slot('other' || i) FROM generate_series(1, 10) i")
    assert "no replication slot is free: 10 of 10" in fails(log.check, planned()).what
    assert "no room for another replication" in fails(log.create_slot).what


def test_a_publication_made_after_the_slot_is_explained(
    company: Company, declare: Callable[[str], None], fails: Callable[..., WarehouseError], log: Log
) -> None:
    company.execute("CREATE TABLE shop.t (id bigint PRIMARY KEY)", "CREATE TABLE shop.u (id bigint PRIMARY KEY, _lsn bigint)")
    declare("tables:\n  shop.t:\n")
    administer(company, f'DROP PUBLICATION "{PUBLICATION}"')
    log.create_slot()
    company.execute("INSERT INTO shop.t VALUES (1)")
    administer(company, f'CREATE PUBLICATION "{PUBLICATION}" FOR ALL TABLES')
    assert "make the publication first" in fails(read, log).mend
    assert "slot" in fails(Log, "No Slot", PUBLICATION).what
    declare("tables:\n  shop.u:\n")
    assert "a name that the warehouse keeps for itself" in fails(read, log).what


def test_the_slots_health(company: Company, declare: Callable[[str], None], fails: Callable[..., WarehouseError], log: Log) -> None:
    company.execute("CREATE TABLE shop.t (id bigint PRIMARY KEY)")
    declare("tables:\n  shop.t:\n")
    assert not log.health().exists
    assert "there is no replication slot" in fails(read, log).what
    start = log.create_slot()
    company.execute("INSERT INTO shop.t SELECT * FROM generate_series(1, 20000)")
    health = log.health()
    assert (health.exists, health.confirmed_lsn, health.wal_status, health.active) == (True, start, "reserved", False)
    assert 0 < (health.restart_lsn or 0) <= start
    assert (health.retained_bytes or 0) > 1_000_000
    reading = iter(log.read(planned(), log.current_lsn(), max_rows_per_chunk=10))
    next(reading)
    assert log.health().active
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipelines.postgres_log._RELEASE", 0.1)
        assert "another process is reading" in fails(read, log).what
    reading.close()
    log.advance(log.current_lsn())
    assert read(log) == []
    log.drop_slot()
    log.drop_slot()
    assert not log.health().exists


def test_a_killed_reader_leaves_the_slot_usable(company: Company, declare: Callable[[str], None], log: Log) -> None:
    company.execute("CREATE TABLE shop.t (id bigint PRIMARY KEY)")
    declare("tables:\n  shop.t:\n")
    log.create_slot()
    company.execute("INSERT INTO shop.t SELECT * FROM generate_series(1, 1000)")
    # It stays with the first transaction until it is killed, the slot in its hand.
    with subprocess.Popen([sys.executable, "-c", READER_TO_KILL, str(log.current_lsn())], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}) as process:
        deadline = time.monotonic() + 90
        while not log.health().active:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.kill()
    assert len(read(log)) == 1000


READER_TO_KILL = f"""
import time; from datetime import timedelta; from pipelines.postgres_log import Log
list(Log({SLOT!r}, {PUBLICATION!r}, timedelta(minutes=1)).read([], 2**62, lambda _: time.sleep(600)))
"""
