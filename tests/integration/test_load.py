"""Loading PostgreSQL: exact, incremental, pseudonymised, kept in the landing zone."""

import re
import shutil
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from conftest import Company, ask, load_postgres
from integration.byte_search import found_in

from pipelines import landing, load, raw, rebuild, source
from warehouse import ledger, settings, storage
from warehouse.errors import StepFailed, UsageError, WarehouseError

FIRST_ORDERS = 69_659
USERS = 23_570


def orders_of_raw() -> list[tuple[Any, ...]]:
    return ask("SELECT id, user_id, ordered_at::VARCHAR, quantity, revenue, currency, status, updated_at::VARCHAR FROM raw_postgres.orders ORDER BY id")


def orders_of(company: Company) -> list[tuple[Any, ...]]:
    query = "SELECT id, user_id, ordered_at::text, quantity, revenue, currency, status, updated_at::text FROM shop.orders ORDER BY id"
    company.execute("SET TIME ZONE 'UTC'")
    return company.rows("SET TIME ZONE 'UTC'; " + query)


def test_first_load_is_whole_and_exact(company: Company) -> None:
    loaded = load_postgres()
    assert (loaded["orders"].rows_written, loaded["users"].rows_written) == (FIRST_ORDERS, USERS)
    assert loaded["orders"].window == "whole table"
    assert orders_of_raw() == orders_of(company)


def test_nothing_new_moves_no_row(company: Company) -> None:
    load_postgres()
    before = len(list(landing.packages("postgres")))
    again = load_postgres()
    assert [(one.rows_read, one.rows_written) for one in again.values()] == [(0, 0), (0, 0)]
    assert len(list(landing.packages("postgres"))) == before


def test_only_edited_rows_are_read_and_written(company: Company) -> None:
    load_postgres()
    company.execute("UPDATE shop.orders SET revenue = revenue + 1, updated_at = now() WHERE id % 139 = 0")
    edited = company.rows("SELECT count(*) FROM shop.orders WHERE id % 139 = 0")[0][0]
    second = load_postgres()
    assert (second["orders"].rows_read, second["orders"].rows_written) == (edited, edited)
    assert second["users"].rows_read == 0
    assert orders_of_raw() == orders_of(company)


def test_rows_inside_the_lag_are_read_again_but_not_written_again(company: Company) -> None:
    load_postgres()
    company.execute("UPDATE shop.orders SET status = 'returned', updated_at = now() WHERE id <= 5")
    load_postgres()
    third = load_postgres()
    assert (third["orders"].rows_read, third["orders"].rows_written) == (5, 0)


def test_a_late_commit_and_a_tie_at_the_cursor_are_not_missed(company: Company) -> None:
    load_postgres()
    company.execute("UPDATE shop.orders SET status = 'first', updated_at = now() WHERE id = 1")
    stamp = company.rows("SELECT updated_at::text FROM shop.orders WHERE id = 1")[0][0]
    load_postgres()
    # Both become visible after the load, one stamped before its cursor and one at the same instant.
    company.execute(
        f"UPDATE shop.orders SET status = 'late', updated_at = timestamptz '{stamp}' - interval '9 minutes' WHERE id = 2",
        f"UPDATE shop.orders SET status = 'tie', updated_at = timestamptz '{stamp}' WHERE id = 3",
    )
    load_postgres()
    assert ask("SELECT id, status FROM raw_postgres.orders WHERE id <= 3 ORDER BY id") == [(1, "first"), (2, "late"), (3, "tie")]


def test_a_frozen_clock_loses_nothing(company: Company, setting: Callable[[str, str | None], None]) -> None:
    setting("WAREHOUSE_NOW", "1998-07-01T00:00:00Z")
    load_postgres()
    for status in ("a", "b"):
        company.execute(f"UPDATE shop.orders SET status = '{status}', updated_at = '1998-07-01T00:00:00Z' WHERE id = 7")
        load_postgres()
        assert ask("SELECT status FROM raw_postgres.orders WHERE id = 7") == [(status,)]
    loads = ask("SELECT DISTINCT _loaded_at FROM raw_postgres.orders ORDER BY 1")
    assert len(loads) == 2
    assert loads[0][0] < loads[1][0]


def test_a_null_cursor_is_loaded_once_and_followed(company: Company) -> None:
    company.execute("ALTER TABLE shop.orders ALTER updated_at DROP NOT NULL", "UPDATE shop.orders SET updated_at = NULL WHERE id = 11")
    assert load_postgres()["orders"].rows_written == FIRST_ORDERS
    assert load_postgres()["orders"].rows_written == 0
    company.execute("UPDATE shop.orders SET status = 'odd' WHERE id = 11")
    assert load_postgres()["orders"].rows_written == 1
    assert ask("SELECT status, updated_at FROM raw_postgres.orders WHERE id = 11") == [("odd", None)]


def test_tables_are_read_in_one_snapshot(company: Company, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user who signs up and orders between two tables being read must not leave an order without a user."""
    from pipelines.postgres_stream import Stream

    write = Stream.write

    def write_then_trade(self: Stream, *others: Any) -> int:
        rows = write(self, *others)
        if self._plan.own == "users":
            company.execute(
                "INSERT INTO shop.users SELECT 900001, 'new@example.com', phone, ssn, age, country, segment, now(), now() FROM shop.users LIMIT 1",
                "INSERT INTO shop.orders SELECT 900001, 900001, now(), 1, 1, 'USD', 'completed', now()",
            )
        return rows

    monkeypatch.setattr(Stream, "write", write_then_trade)
    load_postgres()
    assert ask("SELECT count(*) FROM raw_postgres.orders WHERE id = 900001") == [(0,)]
    monkeypatch.setattr(Stream, "write", write)
    load_postgres()
    assert ask("SELECT count(*) FROM raw_postgres.orders o JOIN raw_postgres.users u ON u.id = o.user_id WHERE o.id = 900001") == [(1,)]


def test_an_empty_table_becomes_an_empty_table(company: Company) -> None:
    company.execute("TRUNCATE shop.orders")
    assert load_postgres()["orders"].rows_written == 0
    assert ask("SELECT count(*) FROM raw_postgres.orders") == [(0,)]
    company.execute("INSERT INTO shop.orders SELECT 1, id, now(), 1, 1, 'USD', 'completed', now() FROM shop.users LIMIT 1")
    load_postgres()
    assert ask("SELECT count(*) FROM raw_postgres.orders") == [(1,)]


def test_a_dropped_raw_table_is_loaded_whole_again(company: Company) -> None:
    load_postgres()
    ask("DROP TABLE raw_postgres.orders")
    assert load_postgres()["orders"].rows_written == FIRST_ORDERS
    assert orders_of_raw() == orders_of(company)


def test_a_lost_working_directory_changes_nothing(company: Company, home: Path) -> None:
    import shutil

    load_postgres()
    shutil.rmtree(home / "dlt")
    company.execute("UPDATE shop.orders SET status = 'x', updated_at = now() WHERE id = 5")
    assert load_postgres()["orders"].rows_written == 1
    assert orders_of_raw() == orders_of(company)


def test_no_plain_personal_data_reaches_a_file(company: Company, home: Path) -> None:
    load_postgres()
    people = company.rows("SELECT email, phone, ssn FROM shop.users ORDER BY id LIMIT 300")
    assert len([file for file in home.rglob("*") if file.is_file()]) > 10
    assert found_in(home, [value for person in people for value in person]) == {}
    columns = ask("SELECT schema_name, table_name, column_name FROM duckdb_columns() WHERE data_type = 'VARCHAR' AND schema_name LIKE 'raw%'")
    assert len(columns) > 10
    for schema, table, column in columns:
        for pattern in ("@example", r"\d{3}-\d{2}-\d{4}", r"\+\d{9}"):
            assert ask(f'SELECT count(*) FROM {schema}."{table}" WHERE regexp_matches("{column}", \'{pattern}\')') == [(0,)], (table, column)
    for package in landing.packages("postgres"):
        with storage.open_warehouse() as connection:
            for row in connection.execute("SELECT COLUMNS(*)::VARCHAR FROM read_parquet(?) LIMIT 1000", [str(package.file)]).fetchall():
                assert not [value for value in row if value and ("@" in value or re.search(r"\d{3}-\d{2}-\d{4}", value))]


def test_pseudonyms_are_keyed_and_judged_before_hashing(company: Company) -> None:
    import hashlib
    import hmac

    from conftest import KEY

    company.execute("UPDATE shop.users SET email = ' Jo.Doe@Example.COM ' WHERE id = 1", "UPDATE shop.users SET email = 'nobody at home' WHERE id = 2")
    load_postgres()
    expected = hmac.new(KEY.encode(), b"jo.doe@example.com", hashlib.sha256).hexdigest()
    assert ask("SELECT email_hash, is_email_valid, _privacy_key_id FROM raw_postgres.users WHERE id = 1") == [(expected, True, "k1")]
    assert ask("SELECT is_email_valid FROM raw_postgres.users WHERE id = 2") == [(False,)]
    phone = company.rows("SELECT right(phone, 2) FROM shop.users WHERE id = 3")[0][0]
    assert ask("SELECT phone_masked, ssn_redacted FROM raw_postgres.users WHERE id = 3") == [(f"********{phone}", "[redacted]")]


@pytest.mark.parametrize(
    ("column", "value", "named"),
    [("contact_mail", "'x'", "contact_mail"), ("remark", "'write to jo@example.com please'", "remark"), ("reference", "'078-05-1120'", "reference")],
)
def test_an_undeclared_personal_column_stops_the_load(company: Company, fails: Callable[..., WarehouseError], column: str, value: str, named: str) -> None:
    company.execute(f"ALTER TABLE shop.orders ADD COLUMN {column} text", f"UPDATE shop.orders SET {column} = {value} WHERE id = 40000")
    error = fails(load_postgres)
    assert isinstance(error, UsageError)
    assert f"postgres.orders.{named}" in error.what
    assert "privacy/policy.yaml" in error.mend
    assert "jo@example" not in str(error)
    with storage.open_warehouse() as connection:
        assert connection.execute("SELECT count(*) FROM duckdb_tables() WHERE schema_name = 'raw_postgres'").fetchone() == (0,)


def test_a_declared_personal_column_that_vanished_stops_the_load(company: Company, fails: Callable[..., WarehouseError]) -> None:
    company.execute("ALTER TABLE shop.users RENAME email TO electronic_post")
    assert "postgres.users.e" in fails(load_postgres).what


def test_nan_is_refused_with_its_row(company: Company, fails: Callable[..., WarehouseError]) -> None:
    company.execute("UPDATE shop.orders SET revenue = 'NaN' WHERE id = 4711")
    error = fails(load_postgres)
    assert "shop.orders.revenue, row 4711" in error.what
    assert "on_unrepresentable: null" in error.mend


def test_manifest_and_mark_stand_beside_every_package(company: Company) -> None:
    import json

    load_postgres()
    packages = list(landing.packages("postgres"))
    assert {package.table for package in packages} == {"orders", "users"}
    for package in packages:
        assert package.is_loaded
        assert package.primary_key == ["id"]
        landing.verify(package)
        manifest = json.loads((package.folder / landing.MANIFEST).read_text())
        assert "_loaded_at" in [column["name"] for column in manifest["schema"]]
        assert package.rows == {"orders": FIRST_ORDERS, "users": USERS}[package.table]


def test_rebuild_from_the_landing_zone_alone_is_equal_to_the_row(company: Company, home: Path) -> None:
    load_postgres()
    company.execute(
        "UPDATE shop.orders SET revenue = revenue * 2, updated_at = now() WHERE id % 1000 = 0",
        "INSERT INTO shop.orders SELECT 900000 + id, user_id, now(), 1, 5, 'EUR', 'completed', now() FROM shop.orders WHERE id <= 10",
    )
    load_postgres()
    tables = {"orders": "raw_postgres.orders", "users": "raw_postgres.users"}
    before = {name: ask(f"SELECT * FROM {table} ORDER BY id") for name, table in tables.items()}
    columns = "SELECT table_name, column_name, data_type FROM duckdb_columns() WHERE schema_name = 'raw_postgres'"
    types = ask(f"{columns} AND table_name IN ('orders', 'users') ORDER BY ALL")
    (home / "warehouse.duckdb").unlink()
    settings.reload()
    with ledger.run("rebuild postgres") as run:
        rebuilt = rebuild.rebuild("postgres", run)
    assert {one.table: one.rows_written for one in rebuilt} == {"orders": FIRST_ORDERS + 10, "users": USERS}
    names = {name: [row[1] for row in types if row[0] == name] for name in tables}
    for name, table in tables.items():
        now = ask(f"SELECT * FROM {table} ORDER BY id")
        assert len(now) == len(before[name])
        order = [row[0] for row in ask(f"SELECT column_name FROM duckdb_columns() WHERE schema_name = 'raw_postgres' AND table_name = '{name}'")]
        assert sorted(order) == sorted(names[name])
        assert now == before[name]
    assert ask(f"{columns} ORDER BY ALL") == types
    third = load_postgres()
    assert [one.rows_written for one in third.values()] == [0, 0]
    company.execute("UPDATE shop.orders SET status = 'after', updated_at = now() WHERE id = 1")
    assert load_postgres()["orders"].rows_written == 1
    assert orders_of_raw() == orders_of(company)


def test_rebuild_refuses_a_damaged_file_and_changes_nothing(company: Company, fails: Callable[..., WarehouseError]) -> None:
    load_postgres()
    package = next(landing.packages("postgres", "orders"))
    content = bytearray(package.file.read_bytes())
    content[len(content) // 2] ^= 1
    package.file.chmod(0o644)
    package.file.write_bytes(content)
    before = orders_of_raw()

    def rebuild_postgres() -> None:
        with ledger.run("rebuild postgres") as run:
            rebuild.rebuild("postgres", run)

    error = fails(rebuild_postgres)
    assert isinstance(error, StepFailed)
    assert "damaged" in error.what
    assert orders_of_raw() == before


def test_what_is_due_is_decided_from_the_ledger(company: Company, setting: Callable[[str, str | None], None]) -> None:
    assert load.due("postgres")
    setting("WAREHOUSE_NOW", "2030-01-01T10:00:00Z")
    load_postgres()
    assert not load.due("postgres")
    setting("WAREHOUSE_NOW", "2030-01-01T10:30:00Z")
    assert not load.due("postgres")
    setting("WAREHOUSE_NOW", "2030-01-01T10:57:00Z")
    assert load.due("postgres")
    assert source.common("postgres").freshness == timedelta(hours=6)
    assert ledger.last_success("load", "postgres") == datetime.fromisoformat("2030-01-01T10:00:00+00:00")


def test_a_new_column_is_filled_for_old_rows_too_and_a_dropped_one_keeps_what_it_held(company: Company) -> None:
    load_postgres()
    status = ask("SELECT status FROM raw_postgres.orders WHERE id = 1")
    company.execute("ALTER TABLE shop.orders ADD COLUMN channel text DEFAULT 'web'", "ALTER TABLE shop.orders DROP COLUMN status")
    company.execute("UPDATE shop.orders SET revenue = 1, updated_at = now() WHERE id = 1")
    loaded = load_postgres()["orders"]
    assert (loaded.window, loaded.rows_written) == ("whole table", FIRST_ORDERS)
    assert ask("SELECT count(*) FROM raw_postgres.orders WHERE channel = 'web'") == [(FIRST_ORDERS,)]
    assert ask("SELECT status FROM raw_postgres.orders WHERE id = 1") == status
    assert load_postgres()["orders"].window == "changed rows"


def test_an_open_transaction_that_may_be_seen_holds_the_window_back(company: Company) -> None:
    from contextlib import closing

    import psycopg2

    with closing(psycopg2.connect(company.server.url())) as superuser, superuser, superuser.cursor() as cursor:
        cursor.execute("GRANT pg_monitor TO warehouse_reader")
    with closing(psycopg2.connect(company.owner_url)) as slow, slow.cursor() as cursor:
        cursor.execute("UPDATE shop.orders SET status = 'slow', updated_at = now() WHERE id = 9 RETURNING now()")
        began = cursor.fetchone()[0]
        load_postgres()
        settled = ask("SELECT max(_settled_at) FROM raw_postgres.orders")[0][0]
        assert settled < began
        slow.commit()
    load_postgres()
    assert ask("SELECT status FROM raw_postgres.orders WHERE id = 9") == [("slow",)]


def test_what_reached_one_of_two_tables_before_the_machine_was_lost_is_kept_for_a_rebuild(
    company: Company, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_postgres()
    company.execute("UPDATE shop.users SET segment = 'x', updated_at = now() WHERE id = 1", "UPDATE shop.orders SET status = 'x', updated_at = now()")
    merge = raw.merge

    def merge_users_alone(connection: Any, source_name: str, table: str, *others: Any) -> None:
        if table == "orders":
            time.sleep(1)
            raise OSError(5, "Input/output error")
        merge(connection, source_name, table, *others)

    with monkeypatch.context() as patch:
        patch.setattr(raw, "merge", merge_users_alone)
        with pytest.raises(StepFailed):
            load_postgres()
    changed = "SELECT (SELECT count(*) FROM raw_postgres.users WHERE segment = 'x'), (SELECT count(*) FROM raw_postgres.orders WHERE status = 'x')"
    assert ask(changed) == [(1, 0)]
    shutil.rmtree(home / "dlt")
    load_postgres()
    assert ask(changed) == [(1, FIRST_ORDERS)]
    with ledger.run("rebuild postgres") as run:
        rebuild.rebuild("postgres", run)
    assert ask(changed) == [(1, FIRST_ORDERS)]


def test_free_text_of_a_table_is_scrubbed_on_its_way(company: Company, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from privacy import policy

    text = policy.POLICY_FILE.read_text() + "  postgres.orders:\n    status: {class: free_text, action: scrub}\n"
    (tmp_path / "policy.yaml").write_text(text)
    monkeypatch.setattr(policy, "POLICY_FILE", tmp_path / "policy.yaml")
    company.execute("UPDATE shop.orders SET status = 'ask a@example.com or +15557654321' WHERE id = 7")
    load_postgres()
    assert ask("SELECT status FROM raw_postgres.orders WHERE id = 7") == [("ask [email] or [phone]",)]
    assert ask("SELECT count(DISTINCT status) > 1 FROM raw_postgres.orders") == [(True,)]


@pytest.mark.parametrize("lost", ["id = 4711", "id % 2 = 0"])
def test_a_row_lost_between_the_landing_zone_and_the_table_stops_the_load_and_is_brought_back(
    company: Company, monkeypatch: pytest.MonkeyPatch, fails: Callable[..., WarehouseError], lost: str
) -> None:
    load_postgres()
    company.execute("UPDATE shop.orders SET status = 'returned', updated_at = now() WHERE id BETWEEN 4000 AND 4999")
    number = company.rows(f"SELECT count(*) FROM shop.orders WHERE {lost} AND id BETWEEN 4000 AND 4999")[0][0]
    merge = raw.merge

    def lossy(connection: Any, source: str, table: str, *rest: Any) -> None:
        merge(connection, source, table, *rest)
        connection.execute(f"DELETE FROM raw_postgres.{table} WHERE {lost} AND id BETWEEN 4000 AND 4999" if table == "orders" else "SELECT 1")

    with monkeypatch.context() as patch:
        patch.setattr(raw, "merge", lossy)
        error = fails(load_postgres)
    assert f"{number:,} of the 1,000 rows that were read for orders did not reach raw_postgres.orders" in error.what
    assert "warehouse rebuild postgres" in (error.mend or "")
    with ledger.run("rebuild postgres") as run:
        rebuild.rebuild("postgres", run)
    load_postgres()
    assert orders_of_raw() == orders_of(company)
