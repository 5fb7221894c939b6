"""Measure loading PostgreSQL beside DuckDB's own limits, interleaved in one run: `make bench-postgres`.

A table of 5 M rows and 13 columns is loaded whole beside `CREATE TABLE AS` over DuckDB's postgres scanner, and 50,000
changed rows of it beside a hand-written delete and insert. Each work is a process of its own, started with its imports
done, so that what is timed is the work: connecting, reading, writing, closing.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path

from warehouse.console import say
from warehouse.settings import ROOT

TABLE = """
CREATE TABLE big (id bigint PRIMARY KEY, user_id bigint, reference uuid, created_at timestamptz, updated_at timestamptz NOT NULL,
  amount numeric(12,2), quantity integer, price double precision, status text, note text, is_paid boolean, day date, country varchar(2))
"""
ROWS = """
INSERT INTO big SELECT i, i % 1000003, md5(i::text)::uuid, timestamptz '2024-01-01' + i * interval '1 second',
  timestamptz '2024-01-01' + i * interval '1 second', (i % 100000) / 100.0, i % 17, i / 3.0, (array['paid', 'open', 'refunded'])[1 + i % 3],
  'order number ' || i, i % 2 = 0, date '2024-01-01' + (i % 365)::int, (array['US', 'DE', 'FR'])[1 + i % 3]
FROM generate_series(1, {rows}) i
"""
CHANGE = "UPDATE big SET amount = amount + 1, updated_at = clock_timestamp() WHERE id % {every} = {turn}"

WORK = """
import json, os, resource, sys, time
sys.path.insert(0, {root!r})
import duckdb, dlt, pyarrow.parquet
from pathlib import Path
import pipelines.source, pipelines.postgres, pipelines.load
from pipelines import landing, raw
from pipelines.postgres_server import attached
from datetime import timedelta
from warehouse import ledger, storage
pipelines.source.FOLDER = pipelines.postgres.FOLDER = Path({declared!r})
home, what = Path(os.environ["WAREHOUSE_HOME"]), {what!r}
began = time.monotonic()
if what in ("load", "compare keys"):
    with ledger.run("load") as run:
        pipelines.load.load("postgres", run)
    seconds = time.monotonic() - began
    if what == "compare keys":
        seconds = sum(step.seconds for step in run.steps if step.name == "compare keys")
else:
    with attached(timedelta(minutes=30)) as source:
        source.execute("ATTACH '" + str(home / "limit.duckdb") + "' AS limits")
        if what == "create table as":
            source.execute("CREATE OR REPLACE TABLE limits.big AS SELECT * FROM source.public.big")
        else:
            changed = "postgres_query('source', 'SELECT * FROM big WHERE updated_at >= ''" + {since!r} + "''')"
            source.execute("CREATE TEMP TABLE changed AS SELECT * FROM " + changed)
            source.execute("BEGIN")
            source.execute("DELETE FROM limits.big AS b USING changed AS c WHERE b.id = c.id")
            source.execute("INSERT INTO limits.big SELECT * FROM changed")
            source.execute("COMMIT")
        source.execute("DETACH limits")
    seconds = time.monotonic() - began
print(json.dumps([seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)]))
"""


def main() -> None:
    """Run every measurement and write one JSON line each."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--runs", type=int, default=5)
    arguments.add_argument("--rows", type=int, default=5_000_000)
    given = arguments.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="warehouse_bench_"))
    folder.chmod(0o755)
    from demo.server import Server

    server = Server(folder / "server", fsync=False)
    (folder / "server").mkdir()
    (folder / "declared").mkdir()
    try:
        server.ensure_running()
        _measure(folder, server.url(), given.rows, given.runs)
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _measure(folder: Path, url: str, rows: int, runs: int) -> None:
    (folder / "declared" / "postgres.py").touch()
    _sql(url, TABLE, ROWS.format(rows=rows), "CREATE INDEX ON big (updated_at)", "VACUUM ANALYZE big")
    limit, loads = [], []
    for _ in range(runs):
        _declare(folder, "never")
        shutil.rmtree(folder / "home", ignore_errors=True)
        limit.append(_work(folder, url, "create table as"))
        loads.append(_work(folder, url, "load"))
    _report(f"full load of {rows:,} rows x 13 columns", loads, "CREATE TABLE AS over the scanner", limit, "<= 1.5 x, <= 1,000 MB")
    limit, loads = [], []
    for turn in range(runs):
        since = _sql(url, "SELECT now()::text")
        _sql(url, CHANGE.format(every=rows // 50_000, turn=turn))
        limit.append(_work(folder, url, "delete and insert", since))
        loads.append(_work(folder, url, "load"))
    _report(f"50,000 changed of {rows:,} rows", loads, "delete and insert by hand", limit, "<= 3 x, <= 1,000 MB")
    _declare(folder, "hourly")
    keys = [_work(folder, url, "compare keys") for _ in range(1)]
    say(json.dumps({"what": f"comparison of {rows:,} keys", "seconds": round(keys[0][0], 2), "peak_mb": round(keys[0][1]), "bar": "<= 5 s"}))


def _declare(folder: Path, deletes: str) -> None:
    (folder / "declared" / "postgres.yaml").write_text(f"deletes: {deletes}\nlag: 1s\ntables:\n  public.big:\n")


def _work(folder: Path, url: str, what: str, since: str = "") -> tuple[float, float]:
    """Seconds and peak memory (MB) of one work in a process of its own."""
    program = WORK.format(root=str(ROOT), declared=str(folder / "declared"), what=what, since=since)
    settings = {"WAREHOUSE_HOME": str(folder / "home"), "SOURCES__POSTGRES__CREDENTIALS": url, "PRIVACY__HMAC_KEY": "k" * 40, "TZ": "UTC"}
    ran = subprocess.run([sys.executable, "-c", program], env={**os.environ, **settings}, capture_output=True, text=True, check=False)
    if ran.returncode != 0:
        raise SystemExit(f"{what} failed: {ran.stderr[-2000:]}")
    seconds, peak = json.loads(ran.stdout.splitlines()[-1])
    return seconds, peak


def _report(what: str, loads: list[tuple[float, float]], beside: str, limit: list[tuple[float, float]], bar: str) -> None:
    ours, theirs = statistics.median(one[0] for one in loads), statistics.median(one[0] for one in limit)
    figures = {
        "what": what, "seconds": round(ours, 2), "beside": beside, "limit_seconds": round(theirs, 2), "times": round(ours / theirs, 2),
        "peak_mb": round(max(one[1] for one in loads)), "bar": bar, "runs": len(loads),
    }  # fmt: skip
    say(json.dumps(figures))


def _sql(url: str, *statements: str) -> str:
    import psycopg2

    with closing(psycopg2.connect(url)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            return str(cursor.fetchone()[0]) if cursor.description else ""


if __name__ == "__main__":
    os.chdir(ROOT)
    main()
