"""Drift: whatever becomes of a source's tables, no hour fails without a finding, nothing held is lost, and a rebuild agrees."""

from collections.abc import Callable
from typing import Any

import pytest
from conftest import Company, ask, load_postgres

from monitoring.schema_changes import schema_changes
from pipelines import rebuild
from warehouse import clock, ledger, storage
from warehouse.errors import WarehouseError

DECLARED = "deletes: never\ntables:\n  shop.things:\n  shop.notes:\n"


def recorded() -> list[tuple[Any, ...]]:
    return ask("SELECT source_table, column_name, change, before, after, kept_as FROM ops.schema_changes ORDER BY detected_at, 2, 3")


def contents() -> dict[str, list[tuple[Any, ...]]]:
    tables = [row[0] for row in ask("SELECT table_name FROM duckdb_tables() WHERE schema_name = 'raw_postgres' AND NOT starts_with(table_name, '_dlt')")]
    found = {}
    for table in tables:
        columns = ", ".join(f'"{row[0]}"' for row in sorted(ask(f'DESCRIBE raw_postgres."{table}"')))
        found[table] = sorted(ask(f'SELECT {columns} FROM raw_postgres."{table}"'), key=repr)
    return found


def assert_a_rebuild_agrees() -> None:
    before = contents()
    with ledger.run("rebuild postgres") as run:
        rebuild.rebuild("postgres", run)
    assert contents() == before


@pytest.fixture
def things(company: Company, declare: Callable[[str], None]) -> Company:
    """A keyed table with a cursor, one without key, both loaded."""
    company.execute(
        "CREATE TABLE shop.things (id integer PRIMARY KEY, amount numeric(10,2), label text, updated_at timestamptz NOT NULL)",
        "INSERT INTO shop.things SELECT n, n * 1.5, 'label ' || n, '2024-01-01Z' FROM generate_series(1, 50) n",
        "CREATE TABLE shop.notes (body text, weight integer)",
        "INSERT INTO shop.notes SELECT 'note ' || n, n FROM generate_series(1, 40) n",
        "GRANT SELECT ON shop.things, shop.notes TO PUBLIC",
    )
    declare(DECLARED)
    load_postgres()
    return company


def test_nothing_changed_is_nothing_recorded(things: Company) -> None:
    loaded = load_postgres()
    assert all(one.findings == [] for one in loaded.values())
    assert recorded() == []


def test_an_added_column_is_filled_and_recorded_but_harmless(things: Company) -> None:
    things.execute("ALTER TABLE shop.things ADD COLUMN colour text DEFAULT 'red'")
    assert load_postgres()["things"].findings == []
    assert ask("SELECT DISTINCT colour FROM raw_postgres.things") == [("red",)]
    assert recorded() == [("shop.things", "colour", "column added", None, "text", None)]
    with storage.open_warehouse() as connection:
        (told,) = schema_changes(connection, clock.now())
    assert (told.table, told.column, told.severity, told.observed) == ("raw_postgres.things", "colour", "warning", "column added in shop.things: text")
    assert load_postgres()["things"].rows_written == 0
    assert len(recorded()) == 1
    assert_a_rebuild_agrees()


def test_a_dropped_column_keeps_its_values_also_for_rows_that_change(things: Company) -> None:
    things.execute("ALTER TABLE shop.things DROP COLUMN label", "UPDATE shop.things SET amount = 0, updated_at = now() WHERE id = 3")
    (finding,) = load_postgres()["things"].findings
    assert "shop.things.label: column dropped (text)" in finding
    assert ask("SELECT amount::VARCHAR, label FROM raw_postgres.things WHERE id = 3") == [("0.00", "label 3")]
    assert recorded() == [("shop.things", "label", "column dropped", "text", None, "label")]
    assert load_postgres()["things"].findings == []
    assert_a_rebuild_agrees()


def test_a_renamed_column_is_told_from_one_dropped_and_one_added(things: Company) -> None:
    things.execute("ALTER TABLE shop.things RENAME COLUMN label TO title")
    (finding,) = load_postgres()["things"].findings
    assert "shop.things.title: column renamed (label -> title)" in finding
    assert ask("SELECT count(*) FROM raw_postgres.things WHERE title = label") == [(50,)]
    assert recorded() == [("shop.things", "title", "column renamed", "label", "title", "label")]
    assert_a_rebuild_agrees()


@pytest.mark.parametrize(
    ("kind", "in_the_warehouse"), [("numeric(12,4)", "DECIMAL(12,4)"), ("numeric(18,2)", "DECIMAL(18,2)"), ("numeric(30,9)", "DECIMAL(30,9)")]
)
def test_a_widened_type_widens_the_column(things: Company, kind: str, in_the_warehouse: str) -> None:
    things.execute(f"ALTER TABLE shop.things ALTER COLUMN amount TYPE {kind} USING amount * 2")
    loaded = load_postgres()["things"]
    assert (loaded.findings, loaded.window) == ([], "whole table")
    assert ask("SELECT DISTINCT typeof(amount), sum(amount)::DOUBLE FROM raw_postgres.things GROUP BY 1") == [(in_the_warehouse, 3825.0)]
    assert [row[2:5] for row in recorded()] == [("type widened", "numeric(10,2)", kind)]
    assert_a_rebuild_agrees()


def test_a_changed_type_keeps_the_old_column_beside_the_new(things: Company) -> None:
    things.execute("ALTER TABLE shop.things ALTER COLUMN amount TYPE text USING 'EUR ' || amount")
    (finding,) = load_postgres()["things"].findings
    assert "shop.things.amount: type changed (numeric(10,2) -> text)" in finding
    assert ask("SELECT amount, amount_was_decimal_10_2::VARCHAR FROM raw_postgres.things WHERE id = 2") == [("EUR 3.00", "3.00")]
    assert recorded() == [("shop.things", "amount", "type changed", "numeric(10,2)", "text", "amount_was_decimal_10_2")]
    things.execute("UPDATE shop.things SET amount = 'USD 1', updated_at = now() WHERE id = 2")
    loaded = load_postgres()["things"]
    assert (loaded.findings, loaded.rows_written) == ([], 1)
    assert ask("SELECT amount, amount_was_decimal_10_2::VARCHAR FROM raw_postgres.things WHERE id = 2") == [("USD 1", "3.00")]
    assert_a_rebuild_agrees()


def test_a_type_changed_there_and_back_keeps_every_version(things: Company) -> None:
    things.execute("ALTER TABLE shop.things ALTER COLUMN label TYPE integer USING id")
    load_postgres()
    things.execute("ALTER TABLE shop.things ALTER COLUMN label TYPE text USING 'back'")
    load_postgres()
    things.execute("ALTER TABLE shop.things ALTER COLUMN label TYPE integer USING id + 1")
    load_postgres()
    row = ask("SELECT label, label_was_varchar, label_was_integer, label_was_varchar_2 FROM raw_postgres.things WHERE id = 7")
    assert row == [(8, "label 7", 7, "back")]
    assert [change[5] for change in recorded()] == ["label_was_varchar", "label_was_integer", "label_was_varchar_2"]
    assert_a_rebuild_agrees()


@pytest.mark.parametrize(
    "change",
    [
        ("ALTER TABLE shop.things DROP CONSTRAINT things_pkey", "ALTER TABLE shop.things ADD PRIMARY KEY (id, label)"),
        ("ALTER TABLE shop.things DROP CONSTRAINT things_pkey",),
        ("ALTER TABLE shop.things ALTER COLUMN id TYPE text",),
        ("ALTER TABLE shop.things RENAME COLUMN id TO number",),
    ],
    ids=["another", "none", "another type", "another name"],
)
def test_another_key_sets_the_old_table_aside(things: Company, change: tuple[str, ...]) -> None:
    things.execute("DELETE FROM shop.things WHERE id = 50", *change)
    (finding,) = load_postgres()["things"].findings
    assert "schema changed" in finding
    (aside,) = (name for name in contents() if name.startswith("things_until_"))
    assert ask(f'SELECT count(*), sum(amount)::DOUBLE FROM raw_postgres."{aside}"') == [(50, 1912.5)]
    assert ask("SELECT count(*) FROM raw_postgres.things") == [(49,)]
    assert aside in [row[5] for row in recorded()]
    things.execute("UPDATE shop.things SET amount = 0, updated_at = now()")
    assert load_postgres()["things"].findings == []
    assert ask("SELECT count(*), sum(amount)::DOUBLE FROM raw_postgres.things") == [(49, 0.0)]
    assert_a_rebuild_agrees()


def test_a_table_without_key_that_loses_a_column_is_set_aside(things: Company) -> None:
    things.execute("ALTER TABLE shop.notes DROP COLUMN weight")
    load_postgres()
    (aside,) = (name for name in contents() if name.startswith("notes_until_"))
    assert ask(f'SELECT sum(weight) FROM raw_postgres."{aside}"') == [(820,)]
    assert ask("SELECT count(*) FROM raw_postgres.notes") == [(40,)]
    assert load_postgres()["notes"].rows_written == 0
    assert_a_rebuild_agrees()


def test_a_table_without_key_that_is_emptied_is_not_replaced(things: Company) -> None:
    things.execute("TRUNCATE shop.notes")
    (finding,) = load_postgres()["notes"].findings
    assert "notes shrank from 40 to 0 rows at once" in finding
    assert ask("SELECT count(*) FROM raw_postgres.notes") == [(40,)]


def test_a_dropped_table_is_found_at_every_load_and_the_others_are_loaded(things: Company) -> None:
    things.execute("DROP TABLE shop.notes", "INSERT INTO shop.things VALUES (51, 1, 'new', now())")
    for _ in range(2):
        loaded = load_postgres()
        assert "shop.notes is no longer in the source" in loaded["notes"].findings[0]
        assert loaded["things"].findings == []
    assert ask("SELECT (SELECT count(*) FROM raw_postgres.notes), (SELECT count(*) FROM raw_postgres.things)") == [(40, 51)]
    assert recorded() == [("shop.notes", None, "table dropped", None, None, None)]
    things.execute("CREATE TABLE shop.notes (body text, weight integer)", "INSERT INTO shop.notes SELECT 'x', n FROM generate_series(1, 40) n")
    things.execute("GRANT SELECT ON shop.notes TO PUBLIC")
    assert load_postgres()["notes"].findings == []
    assert ask("SELECT DISTINCT body FROM raw_postgres.notes") == [("x",)]


def test_a_table_that_may_no_longer_be_read_is_a_finding_with_the_grant(things: Company) -> None:
    things.execute("REVOKE SELECT ON shop.notes FROM PUBLIC", f"REVOKE SELECT ON shop.notes FROM {_reader(things)}")
    (finding,) = load_postgres()["notes"].findings
    assert "GRANT SELECT ON shop.notes" in finding
    assert recorded() == []


def test_a_renamed_table_is_followed_into_the_same_raw_table(things: Company) -> None:
    things.execute("ALTER TABLE shop.things RENAME TO objects", "UPDATE shop.objects SET label = 'later', updated_at = now() WHERE id = 1")
    for _ in range(2):
        loaded = load_postgres()["things"]
        assert any("shop.things is now shop.objects" in finding for finding in loaded.findings)
    assert ask("SELECT label FROM raw_postgres.things WHERE id = 1") == [("later",)]
    assert [row[:5] for row in recorded()] == [("shop.objects", None, "table renamed", "shop.things", "shop.objects")]


def test_patterns_notice_tables_that_come_go_and_change_their_name(things: Company, declare: Callable[[str], None]) -> None:
    declare("deletes: never\ntables:\n  shop.t*:\n  shop.n*:\n")
    load_postgres()
    things.execute("CREATE TABLE shop.teams (id integer PRIMARY KEY)", "GRANT SELECT ON shop.teams TO PUBLIC", "DROP TABLE shop.notes")
    things.execute("ALTER TABLE shop.things RENAME TO thongs")
    loaded = load_postgres()
    assert "shop.notes is no longer in the source" in loaded["notes"].findings[0]
    assert "table renamed" in loaded["things"].findings[0]
    assert sorted(row[2] for row in recorded()) == ["table added", "table dropped", "table renamed"]
    again = load_postgres()
    assert {name: one.findings for name, one in again.items()} == {"things": [], "teams": [], "notes": []}
    assert len(recorded()) == 3


def test_a_table_replaced_by_another_of_its_name_is_read_whole_and_its_keys_compared(things: Company) -> None:
    things.execute(
        "CREATE TABLE shop.other (LIKE shop.things INCLUDING ALL)",
        "INSERT INTO shop.other SELECT id, amount + 1, label, updated_at FROM shop.things WHERE id <> 9",
        "DROP TABLE shop.things",
        "ALTER TABLE shop.other RENAME TO things",
        "GRANT SELECT ON shop.things TO PUBLIC",
    )
    loaded = load_postgres()["things"]
    assert (loaded.window, loaded.rows_written, loaded.rows_deleted, loaded.findings) == ("whole table", 49, 1, [])
    assert ask("SELECT amount::VARCHAR FROM raw_postgres.things WHERE id = 2") == [("4.00",)]
    assert [row[2] for row in recorded()] == ["table replaced"]
    assert_a_rebuild_agrees()


def test_a_column_dropped_and_added_again_is_read_whole(things: Company) -> None:
    things.execute("ALTER TABLE shop.things DROP COLUMN label", "ALTER TABLE shop.things ADD COLUMN label text DEFAULT 'new'")
    loaded = load_postgres()["things"]
    assert "column replaced" in loaded.findings[0]
    assert ask("SELECT DISTINCT label FROM raw_postgres.things") == [("new",)]
    assert_a_rebuild_agrees()


def test_a_declared_cursor_that_vanished_does_not_stop_the_table(things: Company, declare: Callable[[str], None]) -> None:
    declare(DECLARED.replace("things:", "things:\n    cursor: updated_at"))
    load_postgres()
    things.execute("ALTER TABLE shop.things DROP COLUMN updated_at", "UPDATE shop.things SET label = 'unstamped' WHERE id = 4")
    findings = load_postgres()["things"].findings
    assert any("has no column updated_at any more" in finding for finding in findings)
    assert ask("SELECT label FROM raw_postgres.things WHERE id = 4") == [("unstamped",)]


def test_a_declared_key_that_vanished_stops_its_table_alone(things: Company, declare: Callable[[str], None]) -> None:
    declare(DECLARED.replace("things:", "things:\n    primary_key: id"))
    load_postgres()
    things.execute("ALTER TABLE shop.things DROP COLUMN id", "INSERT INTO shop.notes VALUES ('more', 1)")
    loaded = load_postgres()
    assert "has no column id" in loaded["things"].findings[0]
    assert ask("SELECT (SELECT count(*) FROM raw_postgres.things), (SELECT count(*) FROM raw_postgres.notes)") == [(50, 41)]


def test_a_table_that_never_was_there_is_an_error(things: Company, declare: Callable[[str], None], fails: Callable[..., WarehouseError]) -> None:
    declare(DECLARED + "  shop.typo:\n")
    assert "shop.typo is missing" in fails(load_postgres).what


def test_a_kill_before_the_record_finds_the_change_again(things: Company, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines import drift

    things.execute("ALTER TABLE shop.things ALTER COLUMN amount TYPE text")
    record = drift.record

    def dies(*_: Any) -> list[str]:
        raise KeyboardInterrupt

    monkeypatch.setattr(drift, "record", dies)
    with pytest.raises(KeyboardInterrupt):
        load_postgres()
    monkeypatch.setattr(drift, "record", record)
    (finding,) = load_postgres()["things"].findings
    assert "type changed" in finding
    columns = [row[0] for row in ask("DESCRIBE raw_postgres.things")]
    assert [name for name in columns if name.startswith("amount")] == ["amount_was_decimal_10_2", "amount"]
    assert_a_rebuild_agrees()


def _reader(company: Company) -> str:
    return company.reader_url.split("//")[1].split(":")[0]
