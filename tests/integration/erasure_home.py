"""A home with a person in everything that could keep her, made without any server: small tables and large ones, and every kind of file."""

import gzip
import json
import shutil
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines import landing
from privacy import subjects
from warehouse import clock, ledger, spool_format, storage
from warehouse.settings import settings

EMAIL, PHONE, NAME = "zoe.unique@example.com", "+1 555 010 4477", "Zoe Unmistakable"
USER, AT_STRIPE, AT_ZENDESK = 410_000_042, "cus_OfZoe42", 900_000_000_042
ORDERS, LARGE = 40_000, 12_000


def pseudonym() -> str:
    """What stands in place of her email."""
    return subjects.hashed(EMAIL)


def wanted() -> list[str]:
    """What must not be found of her: her data, her keys, and what stood in their place."""
    return [EMAIL, PHONE, NAME, AT_STRIPE, str(AT_ZENDESK), str(USER), pseudonym(), subjects.tag("email", EMAIL)]


def bodies() -> list[bytes]:
    """Webhooks: two of hers, one of somebody else."""
    hers = {"id": "evt_1", "created": 1, "type": "customer.updated", "data": {"object": {"id": AT_STRIPE, "name": NAME, "phone": PHONE}}}
    escaped = b'{"id":"evt_2","created":2,"type":"charge.succeeded","data":{"object":{"receipt_email":"' + EMAIL.replace("@", "\\u0040").encode() + b'"}}}'
    return [json.dumps(hers).encode(), escaped, b'{"id":"evt_3","created":3,"type":"charge.succeeded","data":{"object":{"customer":"cus_Other"}}}']


def fill() -> None:
    """Make the home of the settings. Integer keys are far from the numbers of rows, so that their bytes mean her alone."""
    home = settings().home
    home.mkdir(parents=True)
    with ledger.run("load postgres") as run, run.step("load", "postgres"), storage.open_warehouse() as connection:
        connection.execute("CREATE SCHEMA raw_postgres; CREATE SCHEMA raw_stripe; CREATE SCHEMA raw_zendesk; CREATE SCHEMA sqlmesh__marts; CREATE SCHEMA marts")
        for source, table, rows in _tables(connection):
            _land(connection, source, table, rows)
        _build(connection)
    _files(home)


def _tables(connection: duckdb.DuckDBPyConnection) -> list[tuple[str, str, str]]:
    connection.execute("SET VARIABLE hashed = $1", [pseudonym()])
    tree = json.dumps({"id": AT_STRIPE, "metadata": {"user_id": str(USER)}, "description": NAME})
    charge = json.dumps({"id": "ch_1", "customer": AT_STRIPE, "description": NAME, "amount": 5})
    times = "TIMESTAMPTZ '2026-01-01' AS created_at, TIMESTAMPTZ '2026-01-01' AS updated_at, now() AS _loaded_at, NULL::TIMESTAMPTZ AS _deleted_at"

    def mixed(hers: str, others: str) -> str:
        return f"CASE WHEN range = {LARGE // 2} THEN {hers} ELSE {others} END"

    users = {
        "id": f"{mixed(str(USER), 'range')}::BIGINT", "email_hash": mixed("getvariable('hashed')", "sha256(range::VARCHAR)"),
        "phone_masked": mixed(f"'{PHONE}'", "'x' || range"), "is_email_valid": "true", "country": "'FR'",
    }  # fmt: skip
    orders = {
        "id": "range::BIGINT", "user_id": f"CASE WHEN range % 20000 = 7 THEN {USER} ELSE range % 2000 END::BIGINT", "ordered_at": "now()", "quantity": "1",
        "revenue": "3.50::DECIMAL(12, 2)", "currency": "'USD'", "status": "'paid'",
    }  # fmt: skip
    charges = {
        "id": "'ch_' || range", "customer_id": mixed(f"'{AT_STRIPE}'", "'cus_' || range"), "receipt_email_hash": "NULL::VARCHAR",
        "description": mixed(f"'for {NAME}'", "'order ' || range"), "amount": "5", "_object": mixed(f"'{charge}'", "'{}'"),
    }  # fmt: skip
    customers = f"(VALUES ('{AT_STRIPE}', getvariable('hashed'), '{tree}'), ('cus_Other', repeat('f', 64), '{{}}')) t(id, email_hash, _object)"
    people = f"(VALUES ({AT_ZENDESK}::BIGINT, getvariable('hashed'), 'end-user', NULL), (7, NULL, 'agent', NULL)) t(id, email_hash, role, external_id)"
    of_two = f"(1::BIGINT, {AT_ZENDESK}::BIGINT, 7::BIGINT, 'from {NAME}'), (2, 8, {AT_ZENDESK}, 'other')"
    large = [("postgres", "users", users, LARGE), ("postgres", "orders", orders, ORDERS), ("stripe", "charges", charges, LARGE)]
    return [
        *(
            (source, table, f"SELECT {', '.join(f'{sql} AS {name}' for name, sql in columns.items())}, {times} FROM range({rows})")
            for source, table, columns, rows in large
        ),
        ("stripe", "customers", f"SELECT * FROM {customers}"),
        ("zendesk", "users", f"SELECT * FROM {people}"),
        ("zendesk", "tickets", f"SELECT * FROM (VALUES {of_two}) t(id, requester_id, assignee_id, subject)"),
    ]


def _land(connection: duckdb.DuckDBPyConnection, source: str, table: str, rows: str) -> None:
    file = settings().home / f"{table}.parquet"
    connection.execute(f"CREATE TABLE raw_{source}.{table} AS {rows}")
    connection.execute(f"COPY raw_{source}.{table} TO '{file}' (FORMAT parquet, COMPRESSION zstd)")
    landing.mark_loaded(landing.keep(source, table, "1.0", file, ["id"]))
    if table == "users":  # one that a killed load left, and one that was set aside
        landing.keep(source, table, "2.0", file, ["id"])
        landing.set_aside(landing.keep(source, table, "3.0", file, ["id"]))
    file.unlink()


def _build(connection: duckdb.DuckDBPyConnection) -> None:
    """Tables as builds leave them: production's, a history, a review's, and one whose model is gone; and two published copies."""
    users = "SELECT id AS user_id, email_hash, country, created_at FROM raw_postgres.users"
    tickets = "SELECT id AS ticket_id, requester_id, assignee_id, subject FROM raw_zendesk.tickets"
    for table, rows in {
        "marts__user_dim__1": users, "marts__user_dim_history__1": users, "marts__user_dim__2__dev": users, "marts__once_there__9": users,
        "marts__order_facts__1": "SELECT id AS order_id, user_id, revenue FROM raw_postgres.orders", "marts__ticket_facts__1": tickets,
        "marts__customer_360__1": "SELECT 'postgres:' || id AS customer_key FROM raw_postgres.users",
    }.items():  # fmt: skip
        connection.execute(f"CREATE TABLE sqlmesh__marts.{table} AS {rows}")
    connection.execute("CREATE VIEW marts.order_facts AS SELECT * FROM sqlmesh__marts.marts__order_facts__1")
    for version in ("v1", "v2"):
        folder = settings().published / version
        folder.mkdir(parents=True)
        connection.execute(f"COPY ({users}) TO '{folder / 'user_dim.parquet'}' (FORMAT parquet)")
        connection.execute(f"COPY ({tickets}) TO '{folder / 'ticket_facts.parquet'}' (FORMAT parquet)")


def _files(home: Path) -> None:
    stamp = clock.now()
    lines = [spool_format.encode(spool_format.Record(stamp, body)) for body in bodies()]
    spool = home / "spool" / "stripe"
    (spool / "quarantine").mkdir(parents=True)
    (spool / spool_format.name_of(stamp)).write_bytes(b"".join(lines))
    (spool / "quarantine" / spool_format.name_of(stamp)).write_bytes(b"damaged " + lines[0] + lines[2])
    logs = home / "logs"
    logs.mkdir()
    log = json.dumps({"level": "ERROR", "message": f"no row of {AT_STRIPE}, of {pseudonym()}"}) + "\n" + json.dumps({"message": "begin"}) + "\n"
    (logs / "warehouse.jsonl").write_text(log)
    (logs / "warehouse.jsonl.1").write_text(log)
    pending = home / "dlt" / "postgres_to_warehouse" / "normalize" / "extracted" / "2.0"
    pending.mkdir(parents=True)
    (pending / "users.jsonl").write_text(json.dumps({"landed": str(home / "landing" / "postgres" / "users" / "2.0")}))
    for left in ("work/postgres", "tmp", "backup/staging"):
        (home / left).mkdir(parents=True)
        pq.write_table(pa.table({"email": [EMAIL], "name": [NAME]}), home / left / "left.parquet")
    (home / "published" / ".user_dim.parquet.erased").write_bytes(EMAIL.encode())
    (home / "tmp" / "spilled.gz").write_bytes(gzip.compress(PHONE.encode()))
    with duckdb.connect(str(settings().state_file)) as state:
        state.execute("CREATE TABLE IF NOT EXISTS _snapshots AS SELECT range AS id FROM range(100)")


def copy(made: Path, home: Path) -> None:
    """A home that was filled before, in the place of this test's."""
    shutil.copytree(made, home, symlinks=True)
