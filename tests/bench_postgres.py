"""Measure loading PostgreSQL beside DuckDB's own limits and beside ingestr, interleaved in one run: `make bench-postgres`.

A table of 5 M rows and 13 columns is loaded whole beside `CREATE TABLE AS` over DuckDB's postgres scanner, and 50,000
changed rows of it beside a hand-written delete and insert; then keys are compared, and types read exactly beside the
scanner's own reading of them. Each work is a process of its own, started with its imports done, so that what is timed is
the work: connecting, reading, writing, closing. Beside ingestr whole processes are timed, imports and all.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
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
CHANGED = 50_000
CHANGE = "UPDATE big SET amount = amount + 1, updated_at = clock_timestamp() WHERE id % {every} = {turn}"
CASTS = {
    "numeric(12,2)": "(i % 100000) / 100.0 + 1",
    "numeric": "i / 8.0 + 1",
    "timestamptz": "timestamptz '2024-01-01' + i * interval '1 second'",
    "timestamp": "timestamp '2024-01-01' + i * interval '1 second'",
    "jsonb": "jsonb_build_object('number', i, 'name', 'order ' || i)",
    "text[]": "array['a' || i % 100, 'b', NULL]",
    "integer[]": "array[i, i + 1, i + 2]",
    "interval": "i * interval '1 second'",
    "char(4)": "'c' || i % 100",
    "bytea": "sha256(i::text::bytea)",
    "uuid": "md5(i::text)::uuid",
}
"""Each type, and its value in row i."""

INGESTR = "ingestr==0.14.*"

WORK = """
import json, os, resource, sys, time
what, given, declared, root = json.loads(sys.argv[1])
sys.path.insert(0, root)
import duckdb, dlt, pyarrow.parquet
from datetime import timedelta
from pathlib import Path
import pipelines.source, pipelines.postgres, pipelines.load
from pipelines import landing, raw
from pipelines.postgres_catalog import plans
from pipelines.postgres_server import attached
from pipelines.postgres_stream import Stream, refuse_unrepresentable
from warehouse import clock, ledger, storage
from warehouse.sql import parquet
pipelines.source.FOLDER = pipelines.postgres.FOLDER = Path(declared)
home = Path(os.environ["WAREHOUSE_HOME"])


def load():
    with ledger.run("load") as run:
        pipelines.load.load("postgres", run)
    return sum(step.seconds for step in run.steps if step.name == "compare keys")


def limit(source):
    source.execute(f"ATTACH '{home}/limit.duckdb' AS limits")
    if what == "create table as":
        source.execute("CREATE OR REPLACE TABLE limits.big AS SELECT * FROM source.public.big")
    else:
        changed = f"postgres_query('source', 'SELECT * FROM big WHERE updated_at >= ''{given}''')"
        source.execute(f"CREATE TEMP TABLE changed AS SELECT * FROM {changed}")
        source.execute("BEGIN")
        source.execute("DELETE FROM limits.big AS b USING changed AS c WHERE b.id = c.id")
        source.execute("INSERT INTO limits.big SELECT * FROM changed")
        source.execute("COMMIT")
    source.execute("DETACH limits")


def write(source, file, table, columns):
    chosen = ", ".join(f"{expression} AS {name}" for name, expression in columns.items())
    source.execute(f"COPY (SELECT {chosen} FROM {table}) TO {parquet(file)}")


def cast(source):
    # Without what else the loader does to a row: hashing, looking for personal data, columns of its own.
    source.begin()
    file = home / "cast.parquet"
    if what == "native cast":
        return write(source, file, "source.public.casts", {name: name for name in ["id", *given["read"]]})
    plan = plans(source, {"public.casts": pipelines.postgres.Table(exclude=given["exclude"])}).plans[0]
    refuse_unrepresentable(source, plan, {}, "")
    rows = Stream(source, plan, clock.now(), clock.now())._from("")
    write(source, file, rows, {name: reading.in_duckdb.replace("{}", name) for name, reading in plan.readings.items()})
    refuse_unrepresentable(source, plan, {}, "", file)


home.mkdir(parents=True, exist_ok=True)
began, compared = time.monotonic(), None
if what in ("load", "compare keys"):
    compared = load()
else:
    with attached(timedelta(minutes=30)) as source:
        (cast if what.endswith("cast") else limit)(source)
seconds = compared if what == "compare keys" else time.monotonic() - began
print(json.dumps([seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)]))
"""


@dataclass(frozen=True)
class Cost:
    """Seconds of the work, seconds of its whole process, and the most memory it held (MB)."""

    seconds: float
    process_seconds: float
    megabytes: float


@dataclass(frozen=True)
class Bench:
    """A database of the server with a table of `rows` rows, and the home that loads it."""

    folder: Path
    url: str
    rows: int

    @property
    def home(self) -> Path:
        """The WAREHOUSE_HOME of the loads."""
        return self.folder / "home"

    def declare(self, deletes: str) -> None:
        """Say how often keys are compared."""
        (self.folder / "declared").mkdir(parents=True, exist_ok=True)
        (self.folder / "declared" / "postgres.py").touch()
        (self.folder / "declared" / "postgres.yaml").write_text(f"deletes: {deletes}\nlag: 1s\ntables:\n  public.big:\n")

    def work(self, what: str, given: object = "", hours: int = 0) -> Cost:
        """Do one work in a process of its own, its clock that many hours ahead."""
        settings = {"WAREHOUSE_HOME": str(self.home), "SOURCES__POSTGRES__CREDENTIALS": self.url, "PRIVACY__HMAC_KEY": "k" * 40, "TZ": "UTC"}
        if hours:
            settings["WAREHOUSE_NOW"] = (datetime.now(UTC) + timedelta(hours=hours)).isoformat()
        order = json.dumps([what, given, str(self.folder / "declared"), str(ROOT)])
        began = time.monotonic()
        ran = subprocess.run([sys.executable, "-c", WORK, order], env={**os.environ, **settings}, capture_output=True, text=True, check=False)
        process_seconds = time.monotonic() - began
        if ran.returncode != 0:
            raise SystemExit(f"{what} failed: {ran.stderr[-2000:]}")
        seconds, peak = json.loads(ran.stdout.splitlines()[-1])
        return Cost(seconds, process_seconds, peak)

    def change(self, turn: int) -> str:
        """Change 50,000 rows (all of a smaller table); returns the instant before.

        They are read once, since PostgreSQL makes the first reader of a changed row note that its transaction is over.
        """
        since = _sql(self.url, "SELECT now()::text")
        every = max(self.rows // CHANGED, 1)
        _sql(self.url, CHANGE.format(every=every, turn=turn % every), f"SELECT count(note) FROM big WHERE updated_at >= '{since}'")
        return since


def main() -> None:
    """Run every measurement and write one JSON line each."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--runs", type=int, default=5, help="runs of each work, of which the median is told")
    arguments.add_argument("--rows", type=int, default=5_000_000, help="rows of the table")
    arguments.add_argument("--large", type=int, default=0, metavar="ROWS", help="change as many rows of a table of that size, too, such as 20000000")
    arguments.add_argument("--ingestr", action="store_true", help="load with ingestr, too; it is installed into a cache of its own at the first time")
    arguments.add_argument("--only", nargs="+", choices=["load", "changes", "keys", "casts"], help="measure that alone")
    given = arguments.parse_args()
    wanted = given.only or ["load", "changes", "keys", "casts"]
    ingestr = _installed_ingestr() if given.ingestr else None
    folder = Path(tempfile.mkdtemp(prefix="warehouse_bench_"))
    folder.chmod(0o755)
    from demo.server import Server

    server = Server(folder / "server", fsync=False)
    (folder / "server").mkdir()
    try:
        server.ensure_running()
        bench = _filled(server.url, folder / "usual", given.rows)
        if {"load", "changes", "keys"} & set(wanted):
            _full_loads(bench, given.runs if "load" in wanted else 1, ingestr)
        if "changes" in wanted:
            _changes(bench, _filled(server.url, folder / "large", given.large) if given.large else None, given.runs)
        if "keys" in wanted:
            _keys(bench, given.runs)
        if "casts" in wanted:
            _casts(bench, given.runs)
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _filled(url: Callable[..., str], folder: Path, rows: int) -> Bench:
    """A database named like its folder, with its table."""
    _sql(url(), f"CREATE DATABASE {folder.name}")
    bench = Bench(folder, url(database=folder.name), rows)
    bench.declare("never")
    _sql(bench.url, TABLE, ROWS.format(rows=rows), "CREATE INDEX ON big (updated_at)", "VACUUM ANALYZE big")
    return bench


def _full_loads(bench: Bench, runs: int, ingestr: Path | None) -> None:
    limits, loads, others = [], [], []
    for turn in range(runs):
        shutil.rmtree(bench.home, ignore_errors=True)
        limits.append(bench.work("create table as"))
        loads.append(bench.work("load"))
        if ingestr:
            others.append(_load_by_ingestr(ingestr, bench, turn))
    what = f"full load of {bench.rows:,} rows x 13 columns"
    _report(what, loads, "CREATE TABLE AS over the scanner", limits, most_times=1.5)
    if ingestr:
        _report(f"{what}, whole process", loads, f"{INGESTR}, merged by key, whole process", others, most_times=0.25, whole=True)


def _changes(bench: Bench, large: Bench | None, runs: int) -> None:
    """Both tables of the usual home hold all rows since the full loads; the large one is loaded first."""
    limits, loads, large_loads = [], [], []
    if large:
        large.work("load")
    for turn in range(runs):
        since = bench.change(turn)
        limits.append(bench.work("delete and insert", since))
        loads.append(bench.work("load"))
        if large:
            large.change(turn)
            large_loads.append(large.work("load"))
    what = f"{min(CHANGED, bench.rows):,} changed of {bench.rows:,} rows"
    _report(what, loads, "delete and insert by hand", limits, most_times=3)
    if large:
        _report(f"{min(CHANGED, large.rows):,} changed of {large.rows:,} rows", large_loads, what, loads, most_times=1.5)


def _keys(bench: Bench, runs: int) -> None:
    bench.declare("hourly")
    _report(f"comparison of {bench.rows:,} keys", [bench.work("compare keys", hours=2 * turn + 1) for turn in range(runs)], most_seconds=5)


def _casts(bench: Bench, runs: int) -> None:
    """Each type, then all of them: read exactly, with the search for values without a counterpart, beside the scanner's own reading."""
    names = {f"c{number}": kind for number, kind in enumerate(CASTS)}
    columns = ", ".join(f"{name} {kind}" for name, kind in names.items())
    fill = f"INSERT INTO casts SELECT i, {', '.join(CASTS.values())} FROM generate_series(1, {bench.rows}) i"
    _sql(bench.url, f"CREATE TABLE casts (id bigint PRIMARY KEY, {columns})", fill, "VACUUM ANALYZE casts")
    for what, chosen in [*((kind, [name]) for name, kind in names.items()), (f"all {len(names)} types", list(names))]:
        given = {"read": chosen, "exclude": [name for name in names if name not in chosen]}
        exact, native = [], []
        for _ in range(runs):
            native.append(bench.work("native cast", given))
            exact.append(bench.work("exact cast", given))
        _report(f"{bench.rows:,} values of {what}, read exactly", exact, "the scanner's own reading", native)


def _installed_ingestr() -> Path:
    """ingestr in an environment of its own, outside the repository and apart from the warehouse's."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "startup-warehouse" / INGESTR.replace("==", "-").removesuffix(".*")
    if not (folder / ".complete").exists():
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([str(folder / "bin" / "python"), "-m", "pip", "install", "-qq", "--disable-pip-version-check", INGESTR], check=True)
        (folder / ".complete").touch()
    return folder / "bin" / "ingestr"


def _load_by_ingestr(program: Path, bench: Bench, turn: int) -> Cost:
    """The same load into a new DuckDB file, merged by key as ours is."""
    import duckdb

    scratch = bench.folder / f"ingestr_{turn}"
    scratch.mkdir()
    file = scratch / "ingestr.duckdb"
    command = [
        str(program), "ingest", "--yes", "--progress", "log", "--sql-backend", "pyarrow", "--incremental-strategy", "merge", "--primary-key", "id",
        "--source-uri", bench.url, "--source-table", "public.big", "--dest-uri", f"duckdb:///{file}", "--dest-table", "raw.big",
        "--pipelines-dir", str(scratch / "pipelines"),
    ]  # fmt: skip
    settings = {"DISABLE_TELEMETRY": "true", "RUNTIME__DLTHUB_TELEMETRY": "false", "TZ": "UTC", "PYTHONPATH": ""}
    began = time.monotonic()
    with (scratch / "said").open("w") as said:
        process = subprocess.Popen(command, cwd=scratch, env={**os.environ, **settings}, stdout=said, stderr=said)
        _, status, used = os.wait4(process.pid, 0)
    seconds = time.monotonic() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"ingestr failed: {(scratch / 'said').read_text()[-2000:]}")
    with duckdb.connect(str(file), read_only=True) as connection:
        loaded = connection.execute("SELECT count(*) FROM raw.big").fetchall()[0][0]
    if loaded != bench.rows:
        raise SystemExit(f"ingestr loaded {loaded:,} of {bench.rows:,} rows")
    shutil.rmtree(scratch)
    return Cost(seconds, seconds, used.ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3))


def _report(
    what: str,
    ours: list[Cost],
    beside: str = "",
    theirs: list[Cost] | None = None,
    *,
    most_times: float | None = None,
    most_seconds: float | None = None,
    whole: bool = False,
) -> None:
    """One line: medians of both, how many times the other's seconds ours are, the most memory, and whether it is within the bar."""

    def median(costs: list[Cost]) -> float:
        return statistics.median(cost.process_seconds if whole else cost.seconds for cost in costs)

    seconds, peak = median(ours), max(cost.megabytes for cost in ours)
    figures: dict[str, object] = {"what": what, "seconds": round(seconds, 2), "peak_mb": round(peak)}
    bars, met = ["<= 1,000 MB"], peak <= 1_000
    if theirs:
        times, their_peak = seconds / median(theirs), max(cost.megabytes for cost in theirs)
        figures |= {"beside": beside, "beside_seconds": round(median(theirs), 2), "beside_peak_mb": round(their_peak), "times": round(times, 2)}
        if most_times is not None:
            bars, met = [f"<= {most_times:g} x", *bars], met and times <= most_times
    if most_seconds is not None:
        bars, met = [f"<= {most_seconds:g} s", *bars], met and seconds <= most_seconds
    say(json.dumps({**figures, "bar": ", ".join(bars), "met": met, "runs": len(ours)}))


def _sql(url: str, *statements: str) -> str:
    """Run statements; returns the first value of the last one's answer."""
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
