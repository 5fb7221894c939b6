"""Comparing raw tables with their source: what is equal, what is wrong and where, and what may rightly differ."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from conftest import Company, ask, call
from integration.test_types import EXACT, TYPES

from monitoring import book
from pipelines import load, source
from pipelines.compare import Difference, TableComparison, compare
from warehouse import ledger, storage
from warehouse.errors import StepFailed, UsageError, WarehouseError

Declare = Callable[[str], None]
Setting = Callable[[str, str | None], None]


def load_postgres() -> None:
    with ledger.run("load postgres") as run:
        load.load("postgres", run)


def compared(*tables: str) -> dict[str, TableComparison]:
    with ledger.run("compare postgres") as run:
        return {one.table: one for one in compare("postgres", tables, run)}


def counts(one: TableComparison) -> tuple[int, int, int, int]:
    return one.missing, one.extra, one.doubled, one.changed


@pytest.fixture
def orders(company: Company, declare: Declare) -> Company:
    """A thousand orders, loaded, keys compared at every load."""
    company.execute("DELETE FROM shop.orders WHERE id > 1000")
    declare("deletes: hourly\ntables:\n  shop.orders:\n")
    load_postgres()
    return company


def test_the_company_is_equal_after_its_load(company: Company) -> None:
    load_postgres()
    found = compared()
    assert {name: one.is_equal for name, one in found.items()} == {"orders": True, "users": True}
    assert (found["orders"].rows_source, found["orders"].rows_warehouse) == (69_659, 69_659)
    assert (found["orders"].ranges, found["orders"].not_yet_loaded, found["orders"].notes) == (256, 0, [])
    assert found["users"].summary == "equal"
    steps = {step["item"]: step for step in ledger.recent_runs(1)[0]["steps"]}
    assert (steps["postgres.users"]["step"], steps["postgres.users"]["status"]) == ("compare", "succeeded")
    assert (steps["postgres.users"]["rows_in"], steps["postgres.users"]["rows_out"]) == (23_570, 23_570)
    assert json.loads(steps["postgres.users"]["detail"])["is_equal"]


def test_every_type_is_equal_after_its_load_and_every_lost_value_is_seen(company: Company, declare: Declare) -> None:
    columns = ", ".join(f"v{number} {kind}" for number, (kind, *_) in enumerate(EXACT))
    company.execute(
        *TYPES,
        f"CREATE TABLE shop.every (id bigint PRIMARY KEY, {columns}, zero double precision)",
        f"INSERT INTO shop.every VALUES (1, {', '.join(value for _, value, *_ in EXACT)}, '-0')",
        "INSERT INTO shop.every (id, zero) VALUES (2, 'NaN'), (-3, NULL)",
    )
    declare("tables:\n  shop.every:\n")
    load_postgres()
    assert compared()["every"].is_equal
    ask("UPDATE raw_postgres.every SET zero = '0' WHERE id = 1")
    assert compared()["every"].is_equal, "a load takes -0 for 0 too"
    for name in [f"v{number}" for number in range(len(EXACT))]:
        ask(f"UPDATE raw_postgres.every SET {name} = NULL WHERE id = 1")
    found = compared()["every"].differences
    assert found == [Difference("1", "differs", [f"v{number}" for number in range(len(EXACT))])]


def test_one_changed_value_among_many_is_found_by_key_and_column(company: Company) -> None:
    load_postgres()
    ask("UPDATE raw_postgres.orders SET revenue = 98765.43 WHERE id = 31415")
    found = compared()
    assert found["users"].is_equal
    assert found["orders"].differences == [Difference("31415", "differs", ["revenue"])]
    assert (counts(found["orders"]), found["orders"].ranges_differing) == ((0, 0, 0, 1), 1)
    assert ledger.recent_runs(1)[0]["steps"][1]["status"] == "findings"
    ran = call("compare", "postgres", "orders")
    assert ran.code == 1
    assert "31415" in ran.out
    assert "revenue" in ran.out
    assert "98765" not in ran.out + ran.err
    assert "users" not in ran.out


def test_two_values_exchanged_between_rows_or_columns_are_seen(company: Company, declare: Declare) -> None:
    company.execute("CREATE TABLE shop.pairs (id integer PRIMARY KEY, a integer, b integer)", "INSERT INTO shop.pairs VALUES (1, 5, NULL), (2, 7, 8)")
    declare("tables:\n  shop.pairs:\n")
    load_postgres()
    ask("UPDATE raw_postgres.pairs SET a = b, b = a WHERE id = 1")
    assert [one.columns for one in compared()["pairs"].differences] == [["a", "b"]]
    ask("UPDATE raw_postgres.pairs SET a = CASE id WHEN 1 THEN 7 ELSE 5 END, b = CASE id WHEN 1 THEN 8 END")
    assert [(one.key, one.columns) for one in compared()["pairs"].differences] == [("1", ["a", "b"]), ("2", ["a", "b"])]


@pytest.mark.parametrize("first", [8605582, 28264730, 41891764])
def test_a_last_value_exchanged_between_rows_does_not_cancel_out(company: Company, declare: Declare, first: int) -> None:
    """Keys found by search, for which the hashes of both rows, not hashed once more, have one sum and one XOR either way."""
    rows = f"({first}, true), ({first + 1}, false), ({first - 1000}, true), ({first + 1001}, true)"
    company.execute("CREATE TABLE shop.flags (id bigint PRIMARY KEY, is_on boolean)", f"INSERT INTO shop.flags VALUES {rows}")
    declare("tables:\n  shop.flags:\n")
    load_postgres()
    assert compared()["flags"].is_equal
    ask(f"UPDATE raw_postgres.flags SET is_on = NOT is_on WHERE id IN ({first}, {first + 1})")
    assert [one.key for one in compared()["flags"].differences] == [str(first), str(first + 1)]


def test_missing_foreign_and_doubled_rows_are_told_apart(orders: Company) -> None:
    ask("DELETE FROM raw_postgres.orders WHERE id IN (4, 500)")
    ask("INSERT INTO raw_postgres.orders SELECT * REPLACE (70000 AS id) FROM raw_postgres.orders WHERE id = 5")
    ask("INSERT INTO raw_postgres.orders SELECT * FROM raw_postgres.orders WHERE id = 6")
    ask("UPDATE raw_postgres.orders SET _deleted_at = now() WHERE id = 8")
    found = compared()["orders"]
    assert counts(found) == (3, 1, 1, 0)
    assert (found.rows_source, found.rows_warehouse) == (1000, 999)
    assert sorted((one.key, one.what) for one in found.differences) == [
        ("4", "missing in the warehouse"),
        ("500", "missing in the warehouse"),
        ("6", "2 times in the warehouse"),
        ("70000", "only in the warehouse"),
        ("8", "marked as deleted in the warehouse"),
    ]


def test_at_most_ten_keys_are_named_some_of_each_kind(orders: Company) -> None:
    ask("UPDATE raw_postgres.orders SET quantity = quantity + 1 WHERE id > 500")
    ask("DELETE FROM raw_postgres.orders WHERE id = 77")
    found = compared()["orders"]
    assert counts(found) == (1, 0, 0, 500)
    assert len(found.differences) == 10
    assert Difference("77", "missing in the warehouse") in found.differences


def test_changes_since_the_load_are_not_yet_loaded(orders: Company) -> None:
    orders.execute(
        "UPDATE shop.orders SET status = 'x', updated_at = now() WHERE id IN (1, 2)",
        "INSERT INTO shop.orders SELECT 70000, id, now(), 1, 1, 'USD', 'completed', now() FROM shop.users LIMIT 1",
    )
    found = compared()["orders"]
    assert (found.is_equal, found.not_yet_loaded, found.rows_source, found.rows_warehouse) == (True, 3, 1001, 1000)
    ask("UPDATE raw_postgres.orders SET status = 'y' WHERE id = 3")
    assert [one.key for one in compared()["orders"].differences] == ["3"]
    ask("UPDATE raw_postgres.orders SET status = 'completed' WHERE id = 3")
    load_postgres()
    found = compared()["orders"]
    assert found.not_yet_loaded == 0, "stamped late, but held as it is"
    ask("INSERT INTO raw_postgres.orders SELECT * FROM raw_postgres.orders WHERE id = 70000")
    assert counts(compared()["orders"]) == (0, 0, 1, 0)


def test_a_change_stamped_as_if_it_had_been_loaded_is_a_difference(orders: Company) -> None:
    orders.execute("UPDATE shop.orders SET status = 'x' WHERE id = 9", "UPDATE shop.orders SET status = 'z', updated_at = '1999-01-01' WHERE id = 10")
    found = compared()["orders"]
    assert [(one.key, one.columns) for one in found.differences] == [("9", ["status"]), ("10", ["status", "updated_at"])]
    assert found.not_yet_loaded == 0


@pytest.mark.parametrize(
    ("kind", "first", "later"),
    [("integer", "i", "1000"), ("timestamp", "timestamp '2024-01-01'", "localtimestamp"), ("date", "date '2024-01-01'", "current_date")],
)
def test_cursors_of_every_kind_and_null_ones(company: Company, declare: Declare, kind: str, first: str, later: str) -> None:
    company.execute(
        f"CREATE TABLE shop.t (id integer PRIMARY KEY, v integer, at {kind})", f"INSERT INTO shop.t SELECT i, i, {first} FROM generate_series(1, 50) i"
    )
    declare("tables:\n  shop.t: {cursor: at}\n")
    load_postgres()
    company.execute(f"UPDATE shop.t SET v = 0, at = {later} WHERE id = 7", "INSERT INTO shop.t VALUES (60, 1, NULL)")
    found = compared()["t"]
    assert (found.is_equal, found.not_yet_loaded) == (True, 2)
    load_postgres()
    found = compared()["t"]
    assert (found.is_equal, found.not_yet_loaded) == (True, 0)


def test_a_row_deleted_in_the_source_is_no_difference_until_loads_should_have_seen_it(orders: Company, setting: Setting, declare: Declare) -> None:
    orders.execute("DELETE FROM shop.orders WHERE id IN (5, 6)")
    found = compared()["orders"]
    assert (found.is_equal, found.not_yet_deleted, counts(found)) == (True, 2, (0, 0, 0, 0))
    assert found.notes == ["2 rows are gone from the source and not yet seen as deleted"]
    setting("WAREHOUSE_NOW", "2100-01-01T00:00:00Z")
    found = compared()["orders"]
    assert [(one.key, one.what) for one in found.differences] == [("5", "only in the warehouse"), ("6", "only in the warehouse")]
    declare("deletes: never\ntables:\n  shop.orders:\n")
    assert compared()["orders"].not_yet_deleted == 2
    setting("WAREHOUSE_NOW", None)
    declare("deletes: hourly\ntables:\n  shop.orders:\n")
    load_postgres()
    found = compared()["orders"]
    assert (found.is_equal, found.not_yet_deleted, found.rows_warehouse) == (True, 0, 998)


def test_a_refused_comparison_of_keys_does_not_excuse_for_ever(orders: Company, setting: Setting) -> None:
    setting("WAREHOUSE_NOW", "2100-01-01T00:00:00Z")
    orders.execute("DELETE FROM shop.orders WHERE id <= 100")
    load_postgres()
    found = compared()["orders"]
    assert (found.extra, found.not_yet_deleted) == (100, 0)


def test_dropped_and_added_columns(orders: Company) -> None:
    orders.execute("ALTER TABLE shop.orders DROP COLUMN quantity")
    found = compared()["orders"]
    assert (found.is_equal, found.left_out) == (True, ["quantity"])
    orders.execute("ALTER TABLE shop.orders ADD COLUMN channel text DEFAULT 'web'")
    found = compared()["orders"]
    assert not found.is_equal
    assert (found.shape, found.ranges_differing) == (["columns that the warehouse lacks: channel"], 0)
    load_postgres()
    assert compared()["orders"].is_equal


def test_a_wider_type_is_equal_and_a_narrower_one_where_it_holds_the_value(orders: Company) -> None:
    orders.execute("ALTER TABLE shop.orders ALTER quantity TYPE bigint", "ALTER TABLE shop.orders ALTER revenue TYPE numeric(14, 4)")
    assert compared()["orders"].is_equal
    orders.execute("UPDATE shop.orders SET revenue = revenue + 0.0001 WHERE id = 3", "UPDATE shop.orders SET quantity = 5000000000 WHERE id = 4")
    assert [(one.key, one.columns) for one in compared()["orders"].differences] == [("3", ["revenue"]), ("4", ["quantity"])]


def test_no_key_composite_text_and_personal_keys(
    company: Company, declare: Declare, fails: Callable[..., WarehouseError], monkeypatch: pytest.MonkeyPatch
) -> None:
    company.execute(
        "CREATE TABLE shop.log (at timestamptz, what text)",
        "INSERT INTO shop.log VALUES ('2024-01-01', 'a'), ('2024-01-01', 'a'), (NULL, NULL), ('2024-01-02', 'b')",
        'CREATE TABLE shop.lines ("Order" bigint, k integer, h text, PRIMARY KEY ("Order", k))',
        "INSERT INTO shop.lines SELECT i / 3, i % 3, 'n' || i FROM generate_series(1, 3000) i",
        "CREATE TABLE shop.codes (code text PRIMARY KEY, v integer)",
        "INSERT INTO shop.codes SELECT 'c' || i, i FROM generate_series(1, 2000) i",
        "CREATE TABLE shop.people (email text PRIMARY KEY, v integer)",
        "INSERT INTO shop.people SELECT 'p' || i || '@example.com', i FROM generate_series(1, 500) i",
    )
    declare("tables:\n  shop.log:\n  shop.lines:\n  shop.codes:\n  shop.people:\n")
    from privacy import policy

    policy.POLICY_FILE.write_text("columns:\n  postgres.people:\n    email: {class: email, action: hmac}\n")
    load_postgres()
    found = compared()
    assert {name: (one.is_equal, one.ranges) for name, one in found.items()} == {
        "log": (True, 1),
        "lines": (True, 256),
        "codes": (True, 256),
        "people": (True, 256),
    }
    ask("INSERT INTO raw_postgres.log SELECT * REPLACE ('c' AS what) FROM raw_postgres.log WHERE what = 'b'")
    ask("DELETE FROM raw_postgres.log WHERE what = 'a'")
    ask("""UPDATE raw_postgres.lines SET h = 'changed' WHERE "Order" = 7 AND k = 1""")
    ask("DELETE FROM raw_postgres.codes WHERE code = 'c17'")
    ask("UPDATE raw_postgres.people SET v = 0 WHERE v = 17")
    ((pseudonym,),) = ask("SELECT email_hash FROM raw_postgres.people WHERE v = 0")
    found = compared()
    assert (counts(found["log"]), found["log"].differences) == ((2, 1, 0, 0), [])
    assert "since the last load" in found["log"].notes[0]
    assert found["lines"].differences == [Difference("7, 1", "differs", ["h"])]
    assert found["codes"].differences == [Difference("c17", "missing in the warehouse")]
    assert found["people"].differences == [Difference(pseudonym, "differs", ["v"])]
    ask("DELETE FROM raw_postgres.people WHERE v = 0")
    assert compared("people")["people"].differences == [Difference(pseudonym, "missing in the warehouse")]


def test_keys_at_both_ends_of_their_type(company: Company, declare: Declare) -> None:
    company.execute(
        "CREATE TABLE shop.wide (id bigint PRIMARY KEY, v text)",
        "INSERT INTO shop.wide VALUES (-9223372036854775808, 'a'), (-1, 'b'), (0, 'c'), (9223372036854775807, 'd')",
    )
    declare("tables:\n  shop.wide:\n")
    load_postgres()
    assert compared()["wide"].is_equal
    ask("UPDATE raw_postgres.wide SET v = 'x' WHERE id <> 0")
    found = compared()["wide"]
    assert found.ranges <= 256
    assert [one.key for one in found.differences] == ["-9223372036854775808", "-1", "9223372036854775807"]


def test_tables_empty_or_never_loaded(company: Company, declare: Declare) -> None:
    company.execute("CREATE TABLE shop.nothing (id bigint PRIMARY KEY, v text)")
    declare("tables:\n  shop.nothing:\n")
    load_postgres()
    assert compared()["nothing"].is_equal
    company.execute("INSERT INTO shop.nothing VALUES (1, 'a')")
    assert compared()["nothing"].differences == [Difference("1", "missing in the warehouse")]
    declare("tables:\n  shop.nothing:\n  shop.orders:\n")
    found = compared("shop.orders")["orders"]
    assert (found.is_equal, found.shape, found.rows_source, found.rows_warehouse) == (False, ["never loaded"], 69_659, 0)


def test_what_cannot_be_compared_is_said(orders: Company, fails: Callable[..., WarehouseError], setting: Setting) -> None:
    error = fails(compared, "order")
    assert isinstance(error, UsageError)
    assert "no declared table 'order'; tables: orders" in error.what
    with ledger.run("compare other") as run:
        assert "there is no source 'other'" in fails(compare, "other", [], run).what
        for name in ("other.py", "other.yaml"):
            (source.FOLDER / name).touch()
        error = fails(compare, "other", [], run)
    assert isinstance(error, UsageError)
    assert (error.what, error.mend) == ("other cannot be compared with its source.", "sources that can: postgres")
    setting("SOURCES__POSTGRES__CREDENTIALS", "postgresql://nobody:nothing@127.0.0.1:1/shop")
    assert isinstance(fails(compared), StepFailed)


def test_the_command_line(company: Company) -> None:
    def told() -> list[dict[str, Any]]:
        with book.opened() as kept:
            return [dict(row) for row in kept.execute("SELECT * FROM findings WHERE resolved_at IS NULL AND origin = 'compare'")]

    assert call("load", "postgres").code == 0
    ran = call("compare", "postgres", "--json")
    assert ran.code == 0, ran.err
    lines = [json.loads(line) for line in ran.out.splitlines()]
    assert [(line["table"], line["is_equal"], line["differences"]) for line in lines] == [("users", True, []), ("orders", True, [])]
    with storage.open_warehouse() as connection:
        connection.execute("UPDATE raw_postgres.orders SET status = 'lost' WHERE id = 4711")
    ran = call("compare")
    assert ran.code == 1
    assert "1 of 2 tables differ from their source: orders" in ran.err
    (found,) = told()
    assert (found["table_name"], found["check_name"], found["observed"], found["route"]) == ("raw_postgres.orders", "source differs", "1 changed", "slack")
    assert "-- 4711: differs (status)\n" in found["query"]
    assert call("compare", "postgres", "users").code == 0
    assert told() == [found], "orders were not looked at"
    with storage.open_warehouse() as connection:
        connection.execute("DELETE FROM raw_postgres.orders WHERE id = 4711")
    assert call("compare").code == 1
    assert [one["observed"] for one in told()] == ["1 missing"]
    ran = call("compare", "postgres", "nonsense")
    assert ran.code == 2
    assert "tables: orders, users" in ran.err
