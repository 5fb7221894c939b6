"""Tables followed by the log: the same rows as by query, every version besides, and the thread taken up again wherever it breaks."""

from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime
from typing import Any

import psycopg2
import pytest
from conftest import Company, ask, load_postgres

from demo.company import OWNER, READER
from pipelines import raw_changes, rebuild
from pipelines.postgres import check_connection, declaration
from pipelines.postgres_follow import visible_in
from pipelines.postgres_log import Log
from pipelines.postgres_session import session
from warehouse import ledger
from warehouse.errors import WarehouseError

BY_LOG = "deletes: never\nlog:\n  slot: {slot}\n  publication: warehouse\n  max_wal_mb: {most}\ntables:\n  shop.things:\n    changes: log\n"


def held(columns: str = "id, amount::VARCHAR, label") -> list[tuple[Any, ...]]:
    return ask(f"SELECT {columns} FROM raw_postgres.things WHERE _deleted_at IS NULL ORDER BY ALL")


def slot_of(company: Company) -> str:
    return f"w_{company.database}"


def place(company: Company) -> int:
    return Log(slot_of(company), "warehouse").health().confirmed_lsn or 0


@pytest.fixture
def things(company: Company, declare: Callable[[str], None]) -> Iterator[Company]:
    """A table loaded whole and followed by the log from there, and its slot dropped afterwards."""
    with closing(psycopg2.connect(company.server.url(database=company.database))) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(f"ALTER ROLE {READER} REPLICATION")
            cursor.execute("CREATE TABLE shop.things (id integer PRIMARY KEY, amount numeric(10,2), label text, updated_at timestamptz DEFAULT now())")
            cursor.execute("INSERT INTO shop.things SELECT n, n * 1.5, 'label ' || n FROM generate_series(1, 60) n")
            cursor.execute(f"ALTER TABLE shop.things OWNER TO {OWNER}")
            cursor.execute(f"GRANT SELECT ON shop.things TO {READER}")
            cursor.execute("CREATE PUBLICATION warehouse FOR TABLE shop.things")
            declare(BY_LOG.format(slot=slot_of(company), most=5000))
            try:
                load_postgres()
                yield company
            finally:
                with suppress(psycopg2.Error):
                    cursor.execute(
                        "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = %s AND NOT active", (slot_of(company),)
                    )


def test_changes_deletes_and_every_version_between_two_loads_arrive(things: Company) -> None:
    assert held("count(*)") == [(60,)]
    things.execute("UPDATE shop.things SET amount = 1, label = 'first' WHERE id = 1")  # the cursor does not move
    things.execute("UPDATE shop.things SET label = 'second' WHERE id = 1", "INSERT INTO shop.things VALUES (61, 7, 'new')")
    things.execute("DELETE FROM shop.things WHERE id = 2", "UPDATE shop.things SET id = 100 WHERE id = 3")
    things.execute("INSERT INTO shop.things VALUES (62, 1, 'brief')", "DELETE FROM shop.things WHERE id = 62")
    loaded = load_postgres()["things"]
    assert (loaded.window, loaded.rows_read, loaded.rows_written, loaded.rows_deleted, loaded.findings) == ("log", 8, 3, 2, [])
    assert held() == things.rows("SELECT id, amount::text, label FROM shop.things ORDER BY id")
    assert ask("SELECT id, amount::VARCHAR, label, _deleted_at IS NOT NULL FROM raw_postgres.things WHERE id IN (2, 3) ORDER BY id") == [
        (2, "3.00", "label 2", True),
        (3, "4.50", "label 3", True),
    ]
    versions = ask("SELECT _op, id, label FROM raw_postgres.things__changes ORDER BY _lsn, _position")
    assert versions == [
        ("update", 1, "first"),
        ("update", 1, "second"),
        ("insert", 61, "new"),
        ("delete", 2, "label 2"),
        ("delete", 3, "label 3"),
        ("insert", 100, "label 3"),
        ("insert", 62, "brief"),
        ("delete", 62, "brief"),
    ]
    again = load_postgres()["things"]
    assert (again.rows_read, again.rows_written, again.rows_deleted) == (0, 0, 0)


def test_the_log_gives_the_same_rows_as_queries(things: Company, declare: Callable[[str], None]) -> None:
    for turn in range(3):
        things.execute(
            f"UPDATE shop.things SET amount = amount + {turn}, updated_at = now() WHERE id % 7 = {turn}",
            f"DELETE FROM shop.things WHERE id = {10 + turn}",
            f"INSERT INTO shop.things VALUES ({200 + turn}, NULL, repeat('x', 9000))",
        )
        load_postgres()
    everything = "* EXCLUDE (_loaded_at, _settled_at, _deleted_at), _deleted_at IS NULL AS is_there"
    by_log = ask(f"SELECT {everything} FROM raw_postgres.things WHERE _deleted_at IS NULL ORDER BY id")
    declare("deletes: never\ntables:\n  shop.things:\n")
    ask("DROP TABLE raw_postgres.things")
    load_postgres()
    assert ask(f"SELECT {everything} FROM raw_postgres.things ORDER BY id") == by_log
    assert Log(slot_of(things), "warehouse").health().exists is False  # nobody follows it any more


def test_a_value_stored_apart_that_did_not_change_is_filled_in(things: Company) -> None:
    long = "md5(n::text || i::text)"
    things.execute(f"UPDATE shop.things SET label = (SELECT string_agg({long}, '') FROM generate_series(1, 600) i, (SELECT 5 AS n) one) WHERE id = 5")
    load_postgres()
    things.execute("UPDATE shop.things SET amount = 2 WHERE id = 5", "UPDATE shop.things SET amount = NULL WHERE id = 5")
    load_postgres()
    assert held() == things.rows("SELECT id, amount::text, label FROM shop.things ORDER BY id")
    assert ask("SELECT count(DISTINCT label), count(*) FROM raw_postgres.things__changes WHERE id = 5") == [(1, 3)]


@pytest.mark.parametrize("moment", ["before the note", "before the source is told"])
def test_a_kill_repeats_and_repeating_changes_nothing(things: Company, monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    things.execute("UPDATE shop.things SET label = 'a' WHERE id = 1", "DELETE FROM shop.things WHERE id = 2")
    target, name = (raw_changes, "follow") if moment == "before the note" else (Log, "advance")

    def dies(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(target, name, dies)
        with pytest.raises(KeyboardInterrupt):
            load_postgres()
    before = place(things)
    things.execute("UPDATE shop.things SET label = 'b' WHERE id = 1")
    loaded = load_postgres()["things"]
    assert (loaded.findings, loaded.rows_read) == ([], 3)
    assert place(things) > before
    assert held() == things.rows("SELECT id, amount::text, label FROM shop.things ORDER BY id")
    assert ask("SELECT _op, label FROM raw_postgres.things__changes ORDER BY _lsn, _position") == [("update", "a"), ("delete", "label 2"), ("update", "b")]


def test_a_truncated_table_is_not_believed(things: Company) -> None:
    things.execute("TRUNCATE shop.things", "INSERT INTO shop.things VALUES (1, 9, 'after')")
    loaded = load_postgres()["things"]
    assert loaded.window == "whole table"
    assert "59 of 60 rows of things vanished" in loaded.findings[0]
    assert held("count(*)") == [(60,)]
    assert ask("SELECT label FROM raw_postgres.things WHERE id = 1") == [("after",)]
    assert ask("SELECT _op FROM raw_postgres.things__changes ORDER BY _lsn, _position") == [("truncate",), ("insert",)]


def test_too_many_deletes_at_once_are_not_believed(things: Company) -> None:
    things.execute("DELETE FROM shop.things WHERE id > 20", "UPDATE shop.things SET label = 'changed' WHERE id = 1")
    loaded = load_postgres()["things"]
    assert "40 of 60 rows of things vanished" in loaded.findings[0]
    assert held("count(*), count(*) FILTER (label = 'changed')") == [(60, 1)]


@pytest.mark.parametrize("breaks", ["dropped", "read by another", "too much log"])
def test_a_broken_thread_is_found_and_the_table_read_whole(things: Company, declare: Callable[[str], None], breaks: str) -> None:
    things.execute("UPDATE shop.things SET label = 'missed' WHERE id = 1", "DELETE FROM shop.things WHERE id = 2")
    log = Log(slot_of(things), "warehouse")
    if breaks == "dropped":
        log.drop_slot()
    elif breaks == "read by another":
        log.advance(log.current_lsn())
    else:
        things.execute("CREATE TABLE shop.bulk AS SELECT repeat(md5(n::text), 50) AS x FROM generate_series(1, 4000) n")
        declare(BY_LOG.format(slot=slot_of(things), most=1))
    loaded = load_postgres()["things"]
    assert any("the replication slot" in finding for finding in loaded.findings)
    assert (loaded.window, loaded.rows_deleted) == ("whole table", 1)
    assert held() == things.rows("SELECT id, amount::text, label FROM shop.things ORDER BY id")
    things.execute("UPDATE shop.things SET label = 'later' WHERE id = 4")
    loaded = load_postgres()["things"]
    assert (loaded.window, loaded.rows_written, loaded.findings) == ("log", 1, [])


def test_an_altered_table_is_read_whole_and_followed_again(things: Company) -> None:
    things.execute("UPDATE shop.things SET label = 'old shape' WHERE id = 1")
    things.execute("ALTER TABLE shop.things ADD COLUMN colour text DEFAULT 'red'", "ALTER TABLE shop.things ALTER COLUMN amount TYPE numeric(12,4)")
    things.execute("UPDATE shop.things SET colour = 'blue' WHERE id = 2")
    loaded = load_postgres()["things"]
    assert (loaded.window, loaded.findings) == ("whole table", [])
    things.execute("UPDATE shop.things SET colour = 'green' WHERE id = 3")
    assert load_postgres()["things"].window == "log"
    assert held("id, amount::VARCHAR, label, colour") == things.rows("SELECT id, amount::text, label, colour FROM shop.things ORDER BY id")


def test_a_transaction_that_is_open_in_the_snapshot_comes_with_the_next_load(things: Company) -> None:
    with closing(psycopg2.connect(things.owner_url)) as connection, connection.cursor() as cursor:
        cursor.execute("UPDATE shop.things SET label = 'late' WHERE id = 1")
        things.execute("UPDATE shop.things SET label = 'early' WHERE id = 2")
        assert load_postgres()["things"].rows_written == 1
        connection.commit()
    assert load_postgres()["things"].rows_written == 1
    assert held() == things.rows("SELECT id, amount::text, label FROM shop.things ORDER BY id")


def test_a_rebuild_makes_rows_and_versions_again(things: Company) -> None:
    things.execute("UPDATE shop.things SET label = 'a' WHERE id = 1", "DELETE FROM shop.things WHERE id = 2")
    load_postgres()
    things.execute("UPDATE shop.things SET label = 'b' WHERE id = 1")
    load_postgres()
    queries = ("SELECT * FROM raw_postgres.things ORDER BY id", "SELECT * FROM raw_postgres.things__changes ORDER BY _lsn, _position")
    before = [ask(query) for query in queries]
    with ledger.run("rebuild postgres") as run:
        rebuild.rebuild("postgres", run)
    assert [ask(query) for query in queries] == before


def test_personal_data_of_the_log_is_pseudonymised_too(things: Company, declare: Callable[[str], None], fails: Callable[..., WarehouseError]) -> None:
    things.execute("UPDATE shop.things SET label = 'someone@example.com' WHERE id = 1")
    error = fails(load_postgres)
    assert "label" in error.what
    assert "someone" not in str(error)
    assert ask("SELECT count(*) FROM raw_postgres.things WHERE label LIKE '%@%'") == [(0,)]


def test_a_table_without_key_cannot_be_followed(things: Company, fails: Callable[..., WarehouseError]) -> None:
    things.execute("ALTER TABLE shop.things DROP CONSTRAINT things_pkey")
    assert "no primary key" in fails(load_postgres).what


def test_without_the_right_to_replicate_no_slot_is_made(company: Company, declare: Callable[[str], None], fails: Callable[..., WarehouseError]) -> None:
    with closing(psycopg2.connect(company.server.url())) as connection, connection, connection.cursor() as cursor:
        cursor.execute(f"ALTER ROLE {READER} NOREPLICATION")
    declare(BY_LOG.format(slot=slot_of(company), most=5000).replace("shop.things", "shop.orders"))
    error = fails(load_postgres)
    assert "ALTER ROLE" in error.mend
    with session(declaration().statement_timeout, "looking") as cursor:
        cursor.execute("SELECT count(*) FROM pg_replication_slots WHERE slot_name = %s", (slot_of(company),))
        assert cursor.fetchone() == (0,)


@pytest.mark.parametrize(
    ("snapshot", "xid", "is_visible"),
    [("10:20:12,15", 11, True), ("10:20:12,15", 12, False), ("10:20:12,15", 20, False), ("10:20:", 19, True), ("8589934590:8589934594:", 0xFFFFFFFE, True),
     ("8589934590:8589934594:8589934591", 0xFFFFFFFF, False), ("8589934590:8589934594:", 1, True), ("8589934590:8589934594:", 2, False)],
)  # fmt: skip
def test_ids_wrap_around(snapshot: str, xid: int, is_visible: bool) -> None:
    assert visible_in(snapshot)(xid) is is_visible


def test_the_doctor_says_how_much_log_is_kept(things: Company) -> None:
    assert f"for the replication slot {slot_of(things)} the source keeps 0 of 5,000 MB of log (reserved)" in check_connection()
    Log(slot_of(things), "warehouse").drop_slot()
    assert "is not there yet" in check_connection()


def test_deletion_is_dated_by_its_commit(things: Company) -> None:
    things.execute("DELETE FROM shop.things WHERE id = 2")
    committed = datetime.now(UTC)
    load_postgres()
    ((deleted_at,),) = ask("SELECT _deleted_at FROM raw_postgres.things WHERE id = 2")
    assert deleted_at <= committed
