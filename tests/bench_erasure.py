"""Measure erasure: `make bench-erasure`. One of a million users with 20 million orders, then a thousand at once; models are not built.

Each line of JSON is one figure: raw tables, landing zone, two built tables, and the file written anew.
"""

import argparse
import json
import os
import shutil
import tempfile
import time
from pathlib import Path

from pipelines import landing
from privacy import erase, subjects
from warehouse import ledger, storage
from warehouse.console import say
from warehouse.lease import lease
from warehouse.settings import reload, settings

_USERS = """
    SELECT range::BIGINT AS id, sha256(range::VARCHAR) AS email_hash, '********' || range % 100 AS phone_masked, 'FR' AS country, now() AS created_at,
      now() AS updated_at, now() AS _loaded_at, NULL::TIMESTAMPTZ AS _deleted_at FROM range({})
"""
_ORDERS = """
    SELECT range::BIGINT AS id, (hash(range) % {})::BIGINT AS user_id, to_timestamp(1600000000 + hash(-range) % 100000000) AS ordered_at,
      (hash(range + 1) % 5)::INTEGER AS quantity, ((hash(range + 2) % 30000) / 100)::DECIMAL(12, 2) AS revenue,
      CASE WHEN hash(range + 3) % 2 = 0 THEN 'USD' ELSE 'EUR' END AS currency, 'paid' AS status,
      to_timestamp(1600000000 + hash(range + 4) % 100000000) AS updated_at, now() AS _loaded_at, NULL::TIMESTAMPTZ AS _deleted_at FROM range({})
"""


def main() -> None:
    """Fill a home and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=1_000_000, help="how many users")
    parser.add_argument("--orders", type=int, default=20_000_000, help="how many orders")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ.update(WAREHOUSE_HOME=folder, PRIVACY__HMAC_KEY="the key of a bench, of more than 32 characters")
        reload()
        _fill(Path(folder), given.users, given.orders)
        for count in (1, 1_000):
            _measure([subjects.Subject("postgres", str(count + number)) for number in range(count)])


def _fill(home: Path, users: int, orders: int) -> None:
    work = home / "made"
    work.mkdir()
    with storage.open_warehouse() as connection:
        connection.execute("CREATE SCHEMA raw_postgres; CREATE SCHEMA sqlmesh__marts")
        for table, rows in (("users", _USERS.format(users)), ("orders", _ORDERS.format(users, orders))):
            connection.execute(f"CREATE TABLE raw_postgres.{table} AS {rows}")
            connection.execute(f"COPY raw_postgres.{table} TO '{work / table}.parquet' (FORMAT parquet, COMPRESSION zstd)")
            landing.mark_loaded(landing.keep("postgres", table, "1.0", work / f"{table}.parquet", ["id"]))
        connection.execute("CREATE TABLE sqlmesh__marts.marts__order_facts__1 AS SELECT * FROM raw_postgres.orders")
        connection.execute("CREATE TABLE sqlmesh__marts.marts__user_dim_history__1 AS SELECT id AS user_id, email_hash, country FROM raw_postgres.users")
    shutil.rmtree(work)


def _measure(named: list[subjects.Subject]) -> None:
    size, began, busy = settings().warehouse_file.stat().st_size, time.monotonic(), time.process_time()
    with ledger.run("privacy erase") as run, lease("bench"):
        erase.erase(named, run, lambda models: None)
    steps = {step.item: round(step.seconds, 1) for step in run.steps}
    busy, seconds = round(time.process_time() - busy, 1), round(time.monotonic() - began, 1)
    say(json.dumps({"subjects": len(named), "seconds": seconds, "cpu_seconds": busy, "warehouse_megabytes": size // 1_000_000, "steps": steps}))


if __name__ == "__main__":
    main()
