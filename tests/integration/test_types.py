"""Every PostgreSQL type arrives exactly, or stops with an error that names table, column, row and choice."""

import math
from collections.abc import Callable
from datetime import UTC, date, datetime, time
from decimal import Decimal
from uuid import UUID

import pytest
from conftest import Company, ask, load_postgres

from warehouse.errors import StepFailed, WarehouseError

# type, value in SQL, the type in the warehouse, and the value as text there (None: PostgreSQL's own text)
EXACT = [
    ("boolean", "true", "BOOLEAN", None),
    ("smallint", "-32768", "SMALLINT", None),
    ("integer", "2147483647", "INTEGER", None),
    ("bigint", "-9223372036854775808", "BIGINT", None),
    ("numeric(38,9)", "12345678901234567890123456789.123456789", "DECIMAL(38,9)", None),
    ("numeric(12,2)", "-0.01", "DECIMAL(12,2)", None),
    ("numeric(50,10)", "1234567890123456789012345678.0123456789", "DECIMAL(38,10)", None),
    ("numeric(5,-2)", "12300", "DECIMAL(38,0)", None),
    ("numeric", "98765432109876543210987654321.123456789", "DECIMAL(38,9)", None),
    ("numeric", "99999999999999999999999999999.999999999", "DECIMAL(38,9)", None),
    ("numeric", "-1000000000", "DECIMAL(38,9)", "-1000000000.000000000"),
    ("numeric", "999999999.1000000000000", "DECIMAL(38,9)", "999999999.100000000"),
    ("real", "1.1", "FLOAT", None),
    ("double precision", "1.7976931348623157e+308", "DOUBLE", None),
    ("double precision", "'NaN'", "DOUBLE", "nan"),
    ("double precision", "'-Infinity'", "DOUBLE", "-inf"),
    ("text", "E'a\\nb\\t\\U0001D11E \\'\"'", "VARCHAR", None),
    ("text", "''", "VARCHAR", None),
    ("varchar(5)", "'ab '", "VARCHAR", None),
    ("char(5)", "'ab'", "VARCHAR", "ab   "),
    ("uuid", "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'", "UUID", None),
    ("bytea", "'\\xdeadbeef00'", "BLOB", "\\xDE\\xAD\\xBE\\xEF\\x00"),
    ("date", "'2024-02-29'", "DATE", None),
    ("date", "'infinity'", "DATE", None),
    ("date", "'4713-01-01 BC'", "DATE", "4713-01-01 (BC)"),
    ("time", "'23:59:59.999999'", "TIME", None),
    ("timestamp", "'2024-01-01 00:00:00.123456'", "TIMESTAMP", None),
    ("timestamp", "'-infinity'", "TIMESTAMP", None),
    ("timestamptz", "'2024-06-01 00:00:00.5+05:30'", "TIMESTAMP WITH TIME ZONE", None),
    ("timestamptz", "'infinity'", "TIMESTAMP WITH TIME ZONE", None),
    ("timestamptz", "'0044-03-15 00:00:00+00 BC'", "TIMESTAMP WITH TIME ZONE", "0044-03-15 (BC) 00:00:00+00"),
    ("timetz", "'23:59:59.999999+05:30'", "VARCHAR", None),
    ("interval", "'1 year -2 months 3 days 04:05:06.789'", "VARCHAR", "P10M3DT4H5M6.789S"),
    ("json", """'{"a": 12345678901234567890, "b": 1.0}'""", "VARCHAR", None),
    ("jsonb", """'{"n": 12345678901234567890.12345678901234567890, "x": [1, null]}'""", "VARCHAR", None),
    ("integer[]", "'{1,2,NULL}'", "VARCHAR", "[1,2,null]"),
    ("integer[]", "'{{1,2},{3,4}}'", "VARCHAR", "[[1,2],[3,4]]"),
    ("text[]", """'{a,"b,c",NULL,"NULL"}'""", "VARCHAR", '["a","b,c",null,"NULL"]'),
    ("numeric[]", "'{1.123456789012345678901234567890}'", "VARCHAR", "[1.123456789012345678901234567890]"),
    ("inet", "'192.168.0.1/24'", "VARCHAR", None),
    ("macaddr", "'08:00:2b:01:02:03'", "VARCHAR", None),
    ("int4range", "'[1,5)'", "VARCHAR", None),
    ("tsvector", "'a:1 b:2'", "VARCHAR", None),
    ("point", "'(1,2)'", "VARCHAR", None),
    ("bit(3)", "B'101'", "VARCHAR", None),
    ("shop.mood", "'it''s'", "VARCHAR", None),
    ("shop.mood[]", "'{sad}'", "VARCHAR", '["sad"]'),
    ("shop.price", "1.500", "DECIMAL(12,3)", None),
    ("shop.deep", "2.250", "DECIMAL(12,3)", None),
    ("shop.pair", "row(1, 'x')", "VARCHAR", '{"a":1,"b":"x"}'),
]
TYPES = (
    "CREATE TYPE shop.mood AS ENUM ('sad', 'it''s')",
    "CREATE DOMAIN shop.price AS numeric(12,3) CHECK (value > 0)",
    "CREATE DOMAIN shop.deep AS shop.price",
    "CREATE TYPE shop.pair AS (a integer, b text)",
)


@pytest.mark.parametrize("by_query", [False, True], ids=["scanner", "query"])
def test_every_value_arrives_exactly(company: Company, declare: Callable[[str], None], by_query: bool) -> None:
    """Both ways of reading: in parallel by the scanner where all columns allow it, and by a query in PostgreSQL."""
    columns = ", ".join(f"v{number} {kind}" for number, (kind, *_) in enumerate(EXACT))
    values = ", ".join(value for _, value, *_ in EXACT)
    company.execute(
        *TYPES,
        f"CREATE TABLE shop.every (id bigint PRIMARY KEY, {columns})",
        f"INSERT INTO shop.every VALUES (1, {values})",
        "INSERT INTO shop.every (id) VALUES (2)",
    )
    names = [f"v{number}" for number in range(len(EXACT))]
    if not by_query:
        for name in names:
            company.execute(f"CREATE TABLE shop.t_{name} AS SELECT id, {name} FROM shop.every", f"ALTER TABLE shop.t_{name} ADD PRIMARY KEY (id)")
        declare('tables:\n  "shop.t_v*":\n')
    else:
        declare("tables:\n  shop.every:\n")
    load_postgres()
    texts = dict(zip(names, company.rows(f"SELECT {', '.join(f'{name}::text' for name in names)} FROM shop.every WHERE id = 1")[0], strict=True))
    for name, (kind, _, type_there, text_there) in zip(names, EXACT, strict=True):
        table = "raw_postgres.every" if by_query else f"raw_postgres.t_{name}"
        found = ask(f"SELECT typeof({name}), {name}::VARCHAR FROM {table} ORDER BY id")
        expected = texts[name] if text_there is None else text_there
        if kind == "real":
            expected = "1.1"
        assert found == [(type_there, expected), (type_there, None)], (kind, name)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("numeric(12,2)", "'NaN'"),
        ("numeric", "'NaN'"),
        ("numeric", "'-Infinity'"),
        ("numeric", "0.1234567891"),
        ("numeric", "1e29"),
        ("numeric(50,10)", "1e28"),
        ("timestamptz", "'294276-12-30 00:00+00'"),
        ("timestamp", "'294250-01-01'"),
        ("shop.price_or_not", "'NaN'"),
    ],
)
def test_a_value_without_a_counterpart_stops_or_becomes_what_was_chosen(
    company: Company, declare: Callable[[str], None], fails: Callable[..., WarehouseError], kind: str, value: str
) -> None:
    company.execute(
        "CREATE DOMAIN shop.price_or_not AS numeric(12,3)",
        f"CREATE TABLE shop.odd (id bigint PRIMARY KEY, v {kind})",
        f"INSERT INTO shop.odd VALUES (1, NULL), (4711, {value})",
    )
    declare("tables:\n  shop.odd:\n")
    error = fails(load_postgres)
    assert isinstance(error, StepFailed)
    assert "shop.odd" in error.what
    if "timestamp" not in kind:
        assert "shop.odd.v, row 4711" in error.what
        assert "columns: {v: {on_unrepresentable: null}}" in error.mend
    assert ask("SELECT count(*) FROM duckdb_tables() WHERE schema_name = 'raw_postgres' AND table_name = 'odd'") == [(0,)]
    declare("tables:\n  shop.odd: {columns: {v: {on_unrepresentable: null}}}\n")
    load_postgres()
    assert ask("SELECT id, v FROM raw_postgres.odd ORDER BY id") == [(1, None), (4711, None)]
    ask("DROP TABLE raw_postgres.odd")
    declare("tables:\n  shop.odd: {columns: {v: {on_unrepresentable: text}}}\n")
    load_postgres()
    text = company.rows("SELECT v::text FROM shop.odd WHERE id = 4711")[0][0]
    assert ask("SELECT typeof(v), v FROM raw_postgres.odd ORDER BY id") == [("VARCHAR", None), ("VARCHAR", text)]


def test_zero_is_not_taken_for_nan(company: Company, declare: Callable[[str], None]) -> None:
    company.execute(
        "CREATE TABLE shop.zeros (code text PRIMARY KEY, v numeric(12,2))",
        "INSERT INTO shop.zeros SELECT i::text, i % 2 FROM generate_series(1, 5000) i",
        "CREATE TABLE shop.many (id integer PRIMARY KEY, v numeric(12,2))",
        "INSERT INTO shop.many SELECT i, i % 2 FROM generate_series(1, 5000) i",
    )
    declare("tables:\n  shop.zeros:\n  shop.many:\n")
    load_postgres()
    assert ask("SELECT sum(v), count(*) FROM raw_postgres.zeros") == [(Decimal(2500), 5000)]
    company.execute("UPDATE shop.many SET v = 'NaN' WHERE id = 4242", "ALTER TABLE shop.many ADD COLUMN updated_at timestamptz DEFAULT now()")
    with pytest.raises(StepFailed, match=r"shop\.many\.v, row 4242"):
        load_postgres()


def test_any_schema_loads_by_pattern(company: Company, declare: Callable[[str], None]) -> None:
    company.execute(
        'CREATE TABLE shop."Order Lines" ("Order" bigint, "LineNo" integer, "größe" text, "select" text, PRIMARY KEY ("Order", "LineNo"))',
        """INSERT INTO shop."Order Lines" VALUES (1, 1, 'x', 'y'), (1, 2, NULL, 'z')""",
        "CREATE TABLE shop.log (at timestamptz, what text)",
        "INSERT INTO shop.log VALUES ('2024-01-01', 'a'), ('2024-01-01', 'a'), (NULL, NULL)",
        "CREATE TABLE shop.measures (id bigint, day date NOT NULL, v integer, PRIMARY KEY (id, day)) PARTITION BY RANGE (day)",
        "CREATE TABLE shop.measures_2024 PARTITION OF shop.measures FOR VALUES FROM ('2024-01-01') TO ('2025-01-01')",
        "CREATE TABLE shop.measures_2025 PARTITION OF shop.measures FOR VALUES FROM ('2025-01-01') TO ('2026-01-01')",
        "INSERT INTO shop.measures SELECT i, date '2024-01-01' + i, i FROM generate_series(1, 700) i",
        "CREATE VIEW shop.big_orders AS SELECT id, revenue FROM shop.orders WHERE revenue > 1000",
        "CREATE TABLE shop.nothing (id bigint PRIMARY KEY, v text)",
        "CREATE TABLE shop.doubled (id bigint PRIMARY KEY, v integer, twice integer GENERATED ALWAYS AS (v * 2) STORED)",
        "INSERT INTO shop.doubled VALUES (1, 21)",
    )
    declare('tables:\n  "shop.*":\n    exclude: []\n')
    import privacy.policy

    assert privacy.policy.POLICY_FILE.name == "policy.yaml"
    loaded = load_postgres()
    tables = {"users", "orders", "Order Lines", "log", "measures", "big_orders", "nothing", "doubled"}
    assert set(loaded) == tables
    assert ask('SELECT * EXCLUDE (_loaded_at, _settled_at, _deleted_at) FROM raw_postgres."Order Lines" ORDER BY ALL') == [(1, 1, "x", "y"), (1, 2, None, "z")]
    assert ask("SELECT count(*) FROM raw_postgres.log") == [(3,)]
    assert ask("SELECT count(*), sum(v) FROM raw_postgres.measures") == [(700, 245350)]
    assert ask("SELECT count(*) FROM raw_postgres.big_orders") == company.rows("SELECT count(*) FROM shop.big_orders")
    assert ask("SELECT count(*) FROM raw_postgres.nothing") == [(0,)]
    assert ask("SELECT twice FROM raw_postgres.doubled") == [(42,)]
    assert all(one.rows_written == 0 for one in load_postgres().values())
    company.execute(
        """UPDATE shop."Order Lines" SET "select" = 'w' WHERE "LineNo" = 2""",
        "DELETE FROM shop.log WHERE at IS NULL",
        "UPDATE shop.measures SET v = 0 WHERE id = 5",
    )
    changed = {name: one.rows_written for name, one in load_postgres().items() if one.rows_written}
    assert changed == {"Order Lines": 1, "log": 2, "measures": 1}
    assert ask("SELECT count(*) FROM raw_postgres.log") == [(2,)]


def test_a_declared_key_that_is_not_one_is_refused(company: Company, declare: Callable[[str], None], fails: Callable[..., WarehouseError]) -> None:
    company.execute("CREATE TABLE shop.log (at integer, what text)", "INSERT INTO shop.log VALUES (1, 'a'), (1, 'b'), (2, 'c')")
    declare("tables:\n  shop.log: {primary_key: at}\n")
    assert "1 values of the declared key (at) stand twice" in fails(load_postgres).what
    company.execute("DELETE FROM shop.log WHERE what = 'b'")
    assert load_postgres()["log"].rows_written == 2


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("tables:\n  shop.gone:\n", "shop.gone is missing"),
        ('tables:\n  "gone.*":\n', "no table matches gone.*"),
        ("tables:\n  shop.orders: {cursor: changed}\n", "no column changed; it has id, user_id"),
        ("tables:\n  shop.orders: {columns: {price: {on_unrepresentable: text}}}\n", "no column price"),
    ],
)
def test_what_is_declared_and_missing_is_named(
    company: Company, declare: Callable[[str], None], fails: Callable[..., WarehouseError], text: str, says: str
) -> None:
    declare(text)
    assert says in fails(load_postgres).what


def test_python_reads_what_arrived(company: Company, declare: Callable[[str], None]) -> None:
    company.execute(
        "CREATE TABLE shop.some (id uuid PRIMARY KEY, d date, t time, at timestamptz, f double precision)",
        "INSERT INTO shop.some VALUES ('a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '2024-02-29', '12:00', '2024-06-01 00:00+05:30', 'NaN')",
    )
    declare("tables:\n  shop.some:\n")
    load_postgres()
    ((key, day, clock, at, number),) = ask('SELECT id, d, t, "at", f FROM raw_postgres.some')
    assert (key, day, clock) == (UUID("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"), date(2024, 2, 29), time(12))
    assert at == datetime(2024, 5, 31, 18, 30, tzinfo=UTC)
    assert math.isnan(number)
