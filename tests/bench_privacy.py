"""Measure pseudonyms, the vault and a change of key: `make bench-privacy`. Each line of JSON is one figure, by the clock and by CPU time.

CPU time is what counts on a machine that others use too: two cores give at the most twice what a second of it gives.
"""

import argparse
import gc
import json
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pyarrow as pa

from privacy import key_state, pseudonyms, rekey, vault, vault_keys
from warehouse import clock, storage
from warehouse.console import say
from warehouse.settings import reload

OLD, NEW, MASTER = (f"the {name} key of a bench, of more than 32 characters" for name in ("old", "new", "master"))


def main() -> None:
    """Measure everything in a home that is thrown away."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--values", type=int, default=5_000_000, help="how many values are hashed")
    parser.add_argument("--rows", type=int, default=200_000, help="how many rows are sealed, and hashed again")
    given = parser.parse_args()
    gc.set_threshold(50_000, 20, 50)  # as the command does
    with tempfile.TemporaryDirectory() as folder:
        os.environ.update(WAREHOUSE_HOME=folder, PRIVACY__HMAC_KEY=OLD, PRIVACY__VAULT_KEY=MASTER)
        reload()
        _pseudonyms(given.values)
        _vault(given.rows)
        _rekey(given.values)


def _pseudonyms(values: int) -> None:
    with duckdb.connect(config={"threads": 2}) as connection:
        connection.execute(f"CREATE TABLE emails AS SELECT 'User' || range || '@example.com' AS email FROM range({values})")
        hashed = pseudonyms.keyed_hash(pseudonyms.normalised_email("email"))
        for _ in range(3):
            with _measured("emails normalised and hashed, 2 threads", values):
                connection.execute(f"SELECT max({hashed}) FROM emails", pseudonyms.parameters())


def _vault(rows: int) -> None:
    stamp = pa.array([clock.now()] * rows, pa.timestamp("us", "UTC"))
    users = pa.table({"id": range(rows), "email_hash": [f"{number:064x}" for number in range(rows)], "phone_masked": ["********12"] * rows,
                      "ssn_redacted": ["[redacted]"] * rows, "country": ["FR"] * rows, "created_at": stamp})  # fmt: skip
    orders = pa.table({"id": range(rows), "user_id": [number % (rows // 20) for number in range(rows)], "revenue": [1] * rows})
    with storage.scratch() as connection:
        sealer = vault.Sealer(connection)
        sealings = (("orders", orders, rows), ("users, each with a new key", users, rows * 5), ("users, whose keys are known", users, rows * 5))
        for name, table, values in sealings:
            with _measured(f"sealed: {name}", values):
                sealed = sealer.seal(table, "postgres", name.partition(",")[0])
    say(json.dumps({"what": "users as Arrow, plain and sealed", "megabytes": [users.nbytes // 1_000_000, sealed.nbytes // 1_000_000]}))
    numbers = {number for value in sealed.column("country_sealed").to_pylist() for number in vault.numbers_of(value)}
    with _measured("keys read", len(numbers)):
        vault_keys.keys_by_number(numbers)
    with _measured("one person's key destroyed", 1):
        vault_keys.destroy([(vault_keys.tags_of(sorted(numbers)[:1])[0], "2100-01-01T00:00:00+00:00")])


def _rekey(rows: int) -> None:
    with storage.open_warehouse() as connection:
        made = "SELECT range AS id, sha256(range::VARCHAR) AS email_hash, 'k1' AS _privacy_key_id"
        connection.execute(f"CREATE SCHEMA raw_postgres; CREATE TABLE raw_postgres.users AS {made} FROM range({rows})")
        key_state.check(connection)
        os.environ.update(PRIVACY__HMAC_KEYS_BEFORE=json.dumps({"k1": OLD}), PRIVACY__HMAC_KEY=NEW, PRIVACY__HMAC_KEY_ID="k2")
        reload()
        with _measured("rows of a raw table hashed again", rows):
            rekey.rekey(connection, Path(os.environ["WAREHOUSE_HOME"]) / "landing")


@contextmanager
def _measured(what: str, values: int) -> Iterator[None]:
    wall, cpu = time.monotonic(), time.process_time()
    yield
    wall, cpu = time.monotonic() - wall, time.process_time() - cpu
    rates = {"per_s": round(values / wall), "per_cpu_s": round(values / cpu)}
    say(json.dumps({"what": what, "values": values, "seconds": round(wall, 2), "cpu_seconds": round(cpu, 2), **rates}))


if __name__ == "__main__":
    main()
