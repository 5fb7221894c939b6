"""A small home with something of everything that is kept: a warehouse, SQLMesh's state, landing packages, a spool, a ledger."""

import atexit
import hashlib
import shutil
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines import landing
from warehouse import ledger, spool, storage
from warehouse.settings import settings

METRICS = [
    ("orders", "marts.order_facts", "SELECT COUNT(*) FROM marts.order_facts"),
    ("revenue", "marts.order_facts", "SELECT currency, SUM(amount) FROM marts.order_facts GROUP BY currency ORDER BY currency"),
    ("not built", "marts.nothing", "SELECT COUNT(*) FROM marts.nothing"),
]


_MADE: list[Path] = []
"""A copy of the first home that was filled in this process."""


def fill(home: Path) -> None:
    """Make the home's warehouse and what lies beside it."""
    if _MADE:
        shutil.copytree(_MADE[0], home, dirs_exist_ok=True)
        return
    _fill(home)
    _MADE.append(Path(tempfile.mkdtemp(prefix="filled-home-")) / "home")
    atexit.register(shutil.rmtree, _MADE[0].parent, ignore_errors=True)
    shutil.copytree(home, _MADE[0])


def _fill(home: Path) -> None:
    home.mkdir(parents=True, exist_ok=True)
    with storage.open_warehouse() as connection:
        connection.execute("CREATE SCHEMA marts")
        connection.execute("CREATE SCHEMA raw_postgres")
        connection.execute("CREATE TABLE raw_postgres.orders (id BIGINT, amount DECIMAL(18, 2), sold_at TIMESTAMPTZ, tags VARCHAR[])")
        currency = "CASE WHEN id % 3 = 0 THEN 'USD' ELSE 'EUR' END AS currency"
        connection.execute(f"CREATE VIEW marts.order_facts AS SELECT id, amount, {currency} FROM raw_postgres.orders")
    import duckdb

    with duckdb.connect(str(settings().state_file)) as state:
        state.execute("CREATE TABLE snapshots AS SELECT range AS id FROM range(1000)")
    writer = spool.Writer("stripe")
    writer.append(b"an event", datetime(2026, 1, 1, tzinfo=UTC)).result(60)
    writer.close()
    for name in ("published/v1/order_facts.parquet", "logs/warehouse.jsonl", "demo/data/base"):
        file = home / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"made anew")
    trade(home, 0)


def trade(home: Path, day: int, rows: int = 2000) -> None:
    """One more load: rows in the warehouse, a package in the landing zone, a run in the ledger."""
    with ledger.run("load postgres") as run, run.step("load", "postgres"), storage.open_warehouse() as connection:
        connection.execute(
            "INSERT INTO raw_postgres.orders SELECT i, (hash(i) % 100000)::DECIMAL(18, 2) / 100, TIMESTAMPTZ '2026-01-01' + i * INTERVAL 1 SECOND, "
            "[i::VARCHAR, md5(i::VARCHAR)] FROM range(?, ?) t(i)",
            [day * rows, (day + 1) * rows],
        )
        file = home / f"package{day}.parquet"
        pq.write_table(pa.table({"id": list(range(day * rows, (day + 1) * rows))}), file)
        package = landing.keep("postgres", "public.orders", f"{1764000000 + day}.5", file, ["id"])
        file.unlink()
        if day % 2 == 0:
            landing.mark_loaded(package)


def content(home: Path) -> dict[str, str]:
    """SHA-256 of every file of a home that is kept, by its path; the ledger and the lease change by being looked at."""
    left_out = ("backup", "ledger", "lease", "published", "logs", "demo", "tmp", "duckdb_extensions")
    found = {}
    for path in home.rglob("*"):
        name = path.relative_to(home)
        if path.is_file() and not name.parts[0].startswith(left_out):
            found[name.as_posix()] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found
