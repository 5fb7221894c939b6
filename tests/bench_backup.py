"""Measure the bars of backups: seconds in which nobody may write, seconds to take and to restore, and memory. `--gigabytes` says of what.

Both stores are one S3 server on this machine, so what a network costs is not in it, and what the server costs is.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from integration.object_stores import Backups, s3_server

from demo.binaries import account, programs
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
import os, resource, sys, threading, time
from contextlib import suppress
from pathlib import Path
from backup.postgres import take_postgres
from backup.postgres_log import KIND, take_base
from backup.restore import Choice, restore_warehouse
from backup.restore_log import restore_log
from backup.restore_postgres import given_target, restore_postgres
from backup.take import take_warehouse
from backup.verify import verify
def rss(process):
    with suppress(OSError):
        status = Path(f"/proc/{process}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) if "VmRSS:" in status else 0
    return 0
def children():
    with suppress(OSError):
        return [child for task in os.listdir("/proc/self/task") for child in Path(f"/proc/self/task/{task}/children").read_text().split()]
    return []
def watch():
    while True:
        most[0] = max(most[0], sum(rss(one) for one in ("self", *children())))
        time.sleep(0.05)
most = [0]
threading.Thread(target=watch, daemon=True).start()
what, began, frozen = sys.argv[1], time.monotonic(), 0.0
do, kind = what.split()
if do == "restore":
    choice = Choice(kind)
    backup = choice.ids()[-1]
if what == "take warehouse":
    frozen = take_warehouse([], 0).frozen_seconds
elif do == "take":
    take_base() if kind == KIND else take_postgres()
elif do == "verify":
    assert verify(kind, everything=True).backups
elif kind == "postgres":
    restore_postgres(choice, backup, given_target())
elif kind == KIND:
    restore_log(choice, backup, Path(sys.argv[2]), None)
else:
    restore_warehouse(choice, backup, Path(sys.argv[2]), [])
own, others = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
spent = own.ru_utime + own.ru_stime + others.ru_utime + others.ru_stime
more = f"   nobody wrote for {frozen:.2f} s" if frozen else ""
megabytes = most[0] * 1024 // 1_000_000
print(f"{what:22} {time.monotonic() - began:7.1f} s, {spent:6.1f} s of processors, at most {megabytes:4} MB of memory{more}")
"""
"""`megabytes` is the most that our process and the programs of PostgreSQL that it started held together, looked at twenty times a second
(what the kernel notes of an ended child begins with its parent's memory); the server's own is not in it."""
FRESH = "wal_level = minimal\nmax_wal_senders = 0\nmax_wal_size = 16GB\nautovacuum = off\nfull_page_writes = off\n"
"""A fresh server while it is restored to, as docs/disaster-recovery.md says; with fsync off, and its files flushed afterwards."""


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

    server = Server(folder, fsync=False)
    server.ensure_running()
    with closing(psycopg2.connect(server.url())) as connection, connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE TABLE t AS SELECT i AS id, md5(i::text) AS m, random() AS r, now() AS at FROM generate_series(1, {rows}) i")
        cursor.execute("SELECT pg_database_size(current_database())")
        _say(f"PostgreSQL of {(cursor.fetchone() or [0])[0] / 1e9:.2f} GB")
    return server


def _fresh(folder: Path) -> Server:
    """A server to restore to."""
    server = Server(folder, fsync=False)
    server.ensure_running()
    server.stop()
    with (server.data / "postgresql.conf").open("a") as file:
        file.write(FRESH)
    server.ensure_running()
    return server


def _flushed(server: Server) -> None:
    """Stop a server, and have all of it on the disk."""
    began = time.monotonic()
    server.stop()
    owner = account(server.folder, server.data)
    with server.log.open("ab") as log:
        owner.launch([str(programs() / "initdb"), "--sync-only", f"--pgdata={server.data}"], log).wait()
    _say(f"stopped and flushed     {time.monotonic() - began:6.1f} s")


@contextmanager
def _received() -> Iterator[None]:
    """Receive the log while inside; afterwards the stores have all of it."""
    process = subprocess.Popen([sys.executable, "-c", "from backup.postgres_log import receive\nreceive()"], cwd=ROOT)
    try:
        yield
        time.sleep(2)
    finally:
        process.terminate()
        process.wait()


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


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
        _say(f"DuckDB of {file.stat().st_size / 1e9:.2f} GB, cp + fsync {_copy_seconds(file, work / 'copy'):.2f} s")
        with s3_server(work / "s3") as stores:
            backups = Backups(work, stores, stores)
            kept = "{every: 1d, keep: 30d, stores: [a, b]}"
            backups.write(lock_days=None, warehouse=kept, postgres=kept, postgres_base=kept)
            os.environ.update(backups.settings)
            _run("from backup.store import stores\nfor one in stores().values(): one.set_up()")
            for what in ("take", "verify", "restore"):
                _run(WORK, f"{what} warehouse", str(work / "back"))
            _say(f"cp + fsync again {_copy_seconds(file, work / 'copy'):.2f} s")
            for path in (file, work / "back" / file.name):
                path.unlink()
            server, fresh = _postgres(work / "postgres", int(given.gigabytes * POSTGRES_ROWS_A_GIGABYTE)), _fresh(work / "fresh")
            try:
                os.environ.update(BACKUP__POSTGRES=server.url(), BACKUP__POSTGRES_TARGET=fresh.url(database="back"))
                for what in ("take", "verify", "restore"):
                    _run(WORK, f"{what} postgres")
                _flushed(fresh)
                with _received():
                    _run(WORK, "take postgres_base")
                for what in ("verify", "restore"):
                    _run(WORK, f"{what} postgres_base", str(work / "base"))
            finally:
                for one in (server, fresh):
                    with suppress(Exception):
                        one.stop()


if __name__ == "__main__":
    main()
