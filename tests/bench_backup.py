"""Measure the bars of backups: seconds in which nobody may write, seconds to take and to restore, and memory. `--gigabytes` says of what.

Both stores are one S3 server on this machine, so what a network costs is not in it, and what the server costs is.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from contextlib import closing, suppress
from pathlib import Path

from integration.object_stores import Backups, s3_server

from demo.binaries import programs
from demo.server import Server
from warehouse.settings import ROOT

ROWS_A_GIGABYTE = 29_000_000
POSTGRES_ROWS_A_GIGABYTE = 11_300_000

FILL = """
import duckdb, sys
with duckdb.connect(sys.argv[1]) as connection:
    connection.execute("CREATE SCHEMA raw_x")
    connection.execute(
        "CREATE TABLE raw_x.t AS SELECT i AS id, hash(i) AS h, md5(i::VARCHAR) AS m, random() AS r, (i * 7 % 100000)::DECIMAL(18, 2) / 100 AS a "
        f"FROM range({sys.argv[2]}) t(i)"
    )
    connection.execute("FORCE CHECKPOINT")
"""
WORK = """
import re, sys, time
from pathlib import Path
from backup.postgres import take_postgres
from backup.restore import Choice, restore_warehouse
from backup.restore_postgres import given_target, restore_postgres
from backup.take import take_warehouse
what, began, frozen = sys.argv[1], time.monotonic(), 0.0
if what == "take warehouse":
    frozen = take_warehouse([], 0).frozen_seconds
elif what == "take postgres":
    take_postgres()
else:
    choice = Choice(what.split()[1])
    backup = choice.ids()[-1]
    restore_postgres(choice, backup, given_target()) if what == "restore postgres" else restore_warehouse(choice, backup, Path(sys.argv[2]), [])
peak = re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())
megabytes = int(peak[1]) // 1000 if peak else 0
print(f"{what:20} {time.monotonic() - began:8.1f} s   peak {megabytes:5} MB" + (f"   nobody wrote for {frozen:.2f} s" if frozen else ""))
"""


def _run(program: str, *arguments: str) -> None:
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    subprocess.run([sys.executable, "-c", program, *arguments], env={**os.environ, "PYTHONPATH": path, "COLUMNS": "80"}, check=True)


def _copy_seconds(file: Path, target: Path) -> float:
    began = time.monotonic()
    subprocess.run(["cp", file, target], check=True)
    with target.open("rb") as copy:
        os.fsync(copy.fileno())
    seconds = time.monotonic() - began
    target.unlink()
    return seconds


def _postgres(folder: Path, rows: int) -> Server:
    import psycopg2

    server = Server(folder)
    server.ensure_running()
    with closing(psycopg2.connect(server.url())) as connection, connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE TABLE t AS SELECT i AS id, md5(i::text) AS m, random() AS r, now() AS at FROM generate_series(1, {rows}) i")
        cursor.execute("SELECT pg_database_size(current_database())")
        sys.stdout.write(f"PostgreSQL of {(cursor.fetchone() or [0])[0] / 1e9:.2f} GB\n")
    return server


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=2.0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        work.chmod(0o711)
        os.environ.update(WAREHOUSE_HOME=str(work / "home"), PRIVACY__HMAC_KEY="k" * 40, PATH=f"{programs()}{os.pathsep}{os.environ['PATH']}")
        (work / "home").mkdir()
        file = work / "home" / "warehouse.duckdb"
        _run(FILL, str(file), str(int(given.gigabytes * ROWS_A_GIGABYTE)))
        sys.stdout.write(f"DuckDB of {file.stat().st_size / 1e9:.2f} GB, cp + fsync {_copy_seconds(file, work / 'copy'):.2f} s\n")
        with s3_server(work / "s3") as stores:
            backups = Backups(work, stores, stores)
            kept = "{every: 1d, keep: 30d, stores: [a, b]}"
            backups.write(lock_days=None, warehouse=kept, postgres=kept)
            os.environ.update(backups.settings)
            _run("from backup.store import stores\nfor one in stores().values(): one.set_up()")
            _run(WORK, "take warehouse")
            _run(WORK, "restore warehouse", str(work / "back"))
            server = _postgres(work / "postgres", int(given.gigabytes * POSTGRES_ROWS_A_GIGABYTE))
            try:
                os.environ.update(BACKUP__POSTGRES=server.url(), BACKUP__POSTGRES_TARGET=server.url(database="back"))
                _run(WORK, "take postgres")
                _run(WORK, "restore postgres")
            finally:
                with suppress(Exception):
                    server.stop()


if __name__ == "__main__":
    main()
