"""Load any source: read, keep in the landing zone, merge into `raw_<source>` by dlt; every moment can be the last one.

The order is: extract and normalise into dlt's local package, keep its files in the landing zone, load, mark as loaded.
A kill leaves a package that is finished first by the next load; a lost working directory leaves a landed package without
its mark, which the next load sets aside, and the warehouse's own highest cursor makes the source be read again from there.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines import landing, postgres
from pipelines.declaration import INTERVALS, common, sources
from warehouse import clock, ledger, storage
from warehouse.console import progress
from warehouse.errors import StepFailed, UsageError, WarehouseError, scrub
from warehouse.ledger import Run
from warehouse.settings import settings

if TYPE_CHECKING:
    from dlt import Pipeline
    from duckdb import DuckDBPyConnection

_NEEDED_MEGABYTES = 200


@dataclass
class Loaded:
    """One table of one load."""

    source: str
    table: str
    rows_read: int
    rows_written: int
    window: str


@dataclass
class Recovered:
    """What an earlier, killed load had left behind and this one settled."""

    finished: list[str] = field(default_factory=list)
    set_aside: list[str] = field(default_factory=list)


def load(source: str, run: Run) -> list[Loaded]:
    """Load one source into `raw_<source>`. Hold the lease.

    Args:
        source: a name of `sources()`.
        run: where each table is recorded as a step `load`, with its rows read and written.

    Raises:
        UsageError: a setting or declaration is missing or wrong. StepFailed: reading or writing failed.
    """
    if source not in sources():
        raise UsageError(f"there is no source {source!r}; sources: {', '.join(sources())}", mend="see the README's `add a source`")
    storage.require_free_space(_NEEDED_MEGABYTES)
    work = settings().home / "work" / source
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    try:
        with run.step("load", source) as step, storage.open_warehouse() as connection:
            settled = _settle(source, connection)
            if settled.finished or settled.set_aside:
                step.detail["recovered"] = {"finished": settled.finished, "set_aside": settled.set_aside}
            loaded = _load(source, connection, work)
            step.rows_in = sum(table.rows_read for table in loaded)
            step.rows_out = sum(table.rows_written for table in loaded)
            step.detail["tables"] = {table.table: {"rows_in": table.rows_read, "rows_out": table.rows_written} for table in loaded}
            return loaded
    finally:
        shutil.rmtree(work, ignore_errors=True)


def due(source: str) -> bool:
    """Whether a source's schedule asks for a load now; a late or doubled scheduler changes nothing.

    A tenth of the interval is given away, so that a schedule that ticks a little early does not skip a turn.
    """
    last = ledger.last_success("load", source)
    return last is None or clock.now() - last >= INTERVALS[common(source).schedule] * 0.9


def rebuild(source: str, run: Run) -> list[Loaded]:
    """Make the raw tables of a source anew from the landing zone alone: the last version of each key, equal to the row.

    Raises:
        StepFailed: a file of the landing zone is missing or damaged; nothing is changed then.
    """
    work = settings().home / "work" / f"rebuild_{source}"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    try:
        with run.step("rebuild", source) as step, storage.open_warehouse() as connection:
            _settle(source, connection)
            kept: dict[str, list[landing.Package]] = {}
            for package in landing.packages(source):
                if package.is_loaded:
                    landing.verify(package)
                    kept.setdefault(package.table, []).append(package)
            if not kept:
                raise StepFailed(f"the landing zone holds no package of {source}.", mend=f"`warehouse load {source}` reads the source itself")
            compacted = {table: _compact(connection, packages, work / f"{table}.parquet") for table, packages in kept.items()}
            _replace(source, connection, {table: (work / f"{table}.parquet", kept[table][-1].primary_key) for table in kept})
            step.rows_in = sum(package.rows for packages in kept.values() for package in packages)
            step.rows_out = sum(compacted.values())
            return [Loaded(source, table, sum(p.rows for p in kept[table]), compacted[table], "landing zone") for table in kept]
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _load(source: str, connection: "DuckDBPyConnection", work: Path) -> list[Loaded]:
    with ExitStack() as stack, progress(f"loading {source}") as advance:
        reading = postgres.Reading(
            work=work,
            held=lambda table, cursor: _held(connection, source, table, cursor),
            without_known=lambda table, key, file: _without_known(connection, source, table, key, file),
            advance=lambda table, rows: advance(rows),
            open=stack,
        )
        pipeline = _pipeline(source, connection)
        with _dlt_errors(source):
            pipeline.extract(_source(source)(reading))
    if any(extract.rows_changed for extract in reading.extracts.values()):
        _finish(source, pipeline)
    else:
        pipeline.drop_pending_packages()  # an empty package: nothing to keep, nothing to load
    return [Loaded(source, one.name, one.rows_read, one.rows_changed, one.window) for one in reading.extracts.values()]


def _source(source: str) -> Callable[[postgres.Reading], Any]:
    import importlib

    return getattr(importlib.import_module(f"pipelines.{source}"), source)  # type: ignore[no-any-return]  # the module's one source, by its name


def _settle(source: str, connection: "DuckDBPyConnection") -> Recovered:
    """Finish what a killed load left in dlt's working directory, and set aside what was landed but can never be loaded."""
    settled = Recovered()
    if _has_pending(source):
        pipeline = _pipeline(source, connection)
        if pipeline.has_pending_data:
            settled.finished = _finish(source, pipeline)
    unmarked = [package for package in landing.packages(source) if not package.is_loaded]
    if unmarked:
        known = _load_ids(connection, source)
        for package in unmarked:
            if package.load_id in known:
                landing.mark_loaded(package)
                settled.finished.append(package.load_id)
            else:
                aside = settings().landing / ".set_aside" / package.source / package.table / package.load_id
                aside.parent.mkdir(parents=True, exist_ok=True)
                os.replace(package.folder, aside)
                settled.set_aside.append(package.load_id)
    shutil.rmtree(settings().landing / ".incoming", ignore_errors=True)
    return settled


def _finish(source: str, pipeline: "Pipeline") -> list[str]:
    """Normalise, keep and load every package in dlt's working directory; returns their load ids."""
    with _dlt_errors(source):
        pipeline.normalize()
        load_ids = list(pipeline.list_normalized_load_packages())
        kept = []
        for load_id in load_ids:
            for jobs in pipeline.get_load_package_info(load_id).jobs.values():
                for job in jobs:
                    table = job.job_file_info.table_name
                    if table.startswith("_dlt") or job.job_file_info.file_format != "parquet":
                        continue
                    columns = pipeline.default_schema.get_table_columns(table)
                    key = [name for name, column in columns.items() if column.get("primary_key")]
                    kept.append(landing.keep(source, table, load_id, Path(job.file_path), key))
        pipeline.load()
        for package in kept:
            landing.mark_loaded(package)
        shutil.rmtree(Path(pipeline.working_dir) / "load" / "loaded", ignore_errors=True)
    return load_ids


def _replace(source: str, connection: "DuckDBPyConnection", tables: dict[str, tuple[Path, list[str]]]) -> None:
    """Load one file a table in place of what the raw tables hold, through the same door as every load."""
    import dlt
    import pyarrow.parquet as pq
    from dlt.extract import with_file_import

    def rows(file: Path) -> Iterator[Any]:
        yield with_file_import(str(file), "parquet", pq.read_metadata(file).num_rows, pq.read_schema(file).empty_table())

    @dlt.source(name=source, max_table_nesting=0)
    def landed() -> Iterator[Any]:
        for table, (file, key) in tables.items():
            yield dlt.resource(rows(file), name=table, primary_key=key, write_disposition="merge")

    pipeline = _pipeline(source, connection)
    with _dlt_errors(source):
        for table in tables:
            connection.execute(f'DROP TABLE IF EXISTS raw_{source}."{table}"')
        pipeline.sync_destination()
        pipeline.extract(landed())
        pipeline.normalize()
        pipeline.load()


def _compact(connection: "DuckDBPyConnection", packages: list[landing.Package], into: Path) -> int:
    """Write the last version of each key of a table's packages into one file; returns its rows."""
    key = ", ".join(f'"{name}"' for name in packages[-1].primary_key)
    files = [str(package.file) for package in packages]
    connection.execute(
        f"COPY (SELECT * FROM read_parquet($files, union_by_name = true) "
        f"QUALIFY row_number() OVER (PARTITION BY {key} ORDER BY {postgres.LOADED_AT} DESC) = 1) TO '{into}' (FORMAT parquet, COMPRESSION zstd)",
        {"files": files},
    )
    row = connection.execute("SELECT count(*) FROM read_parquet($file)", {"file": str(into)}).fetchone()
    return int(row[0]) if row else 0


def _held(connection: "DuckDBPyConnection", source: str, table: str, cursor: str) -> postgres.Held:
    if not _columns(connection, source, table):
        return postgres.Held()
    row = connection.execute(f'SELECT max("{cursor}"), max({postgres.LOADED_AT}) FROM raw_{source}."{table}"').fetchone()
    return postgres.Held(*row) if row else postgres.Held()


def _without_known(connection: "DuckDBPyConnection", source: str, table: str, key: list[str], file: Path) -> int:
    """Drop from a file the rows that the raw table holds in exactly the same form; returns how many are left."""
    read = [row[0] for row in connection.execute("SELECT name FROM parquet_schema($file) WHERE num_children IS NULL", {"file": str(file)}).fetchall()]
    compared = [name for name in read if name != postgres.LOADED_AT]
    if set(compared) - set(_columns(connection, source, table)):
        left = connection.execute("SELECT count(*) FROM read_parquet($file)", {"file": str(file)}).fetchone()
        return int(left[0]) if left else 0
    same = " AND ".join([f'r."{name}" = f."{name}"' for name in key] + [f'r."{name}" IS NOT DISTINCT FROM f."{name}"' for name in compared if name not in key])
    changed = file.with_suffix(".changed")
    connection.execute(
        f'COPY (SELECT f.* FROM read_parquet($file) f ANTI JOIN raw_{source}."{table}" r ON {same}) TO \'{changed}\' (FORMAT parquet, COMPRESSION zstd)',
        {"file": str(file)},
    )
    changed.replace(file)
    left = connection.execute("SELECT count(*) FROM read_parquet($file)", {"file": str(file)}).fetchone()
    return int(left[0]) if left else 0


def _columns(connection: "DuckDBPyConnection", source: str, table: str) -> list[str]:
    query = "SELECT column_name FROM duckdb_columns() WHERE database_name = current_database() AND schema_name = ? AND table_name = ?"
    return [row[0] for row in connection.execute(query, [f"raw_{source}", table]).fetchall()]


def _load_ids(connection: "DuckDBPyConnection", source: str) -> set[str]:
    if not _columns(connection, source, "_dlt_loads"):
        return set()
    return {row[0] for row in connection.execute(f"SELECT load_id FROM raw_{source}._dlt_loads WHERE status = 0").fetchall()}


def _pipelines_folder() -> Path:
    return settings().home / "dlt"


def _has_pending(source: str) -> bool:
    """Whether dlt's working directory holds an unfinished package; a look at folders, without importing dlt."""
    root = _pipelines_folder() / f"{source}_to_warehouse"
    folders = (root / "normalize" / "extracted", root / "load" / "new", root / "load" / "normalized", root / "load" / "extracted")
    return any(folder.exists() and any(folder.iterdir()) for folder in folders)


def _pipeline(source: str, connection: "DuckDBPyConnection") -> "Pipeline":
    folder = _pipelines_folder()
    os.environ.update(
        DLT_DATA_DIR=str(folder), DLT_PROJECT_DIR=str(folder), RUNTIME__DLTHUB_TELEMETRY="false", RUNTIME__LOG_LEVEL="ERROR",
        LOAD__DELETE_COMPLETED_JOBS="true", LOAD__WORKERS="2", LOAD__TRUNCATE_STAGING_DATASET="true",
    )  # fmt: skip
    import dlt

    return dlt.pipeline(
        pipeline_name=f"{source}_to_warehouse",
        pipelines_dir=str(folder),
        destination=dlt.destinations.duckdb(credentials=connection),
        dataset_name=f"raw_{source}",
    )


@contextmanager
def _dlt_errors(source: str) -> Iterator[None]:
    """Give back our own errors from inside dlt's, and turn dlt's own into one that says what to do."""
    try:
        yield
    except WarehouseError:
        raise
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, WarehouseError):
                raise cause from None
            if isinstance(cause, OSError) and cause.errno is not None:
                raise StepFailed(f"{source}: {os.strerror(cause.errno)} while loading.", mend="free some space or mend the permissions of WAREHOUSE_HOME; run again") from None
            cause = cause.__cause__ or cause.__context__
        said = scrub(str(error)).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
        raise StepFailed(f"{source}: loading failed: {said}", mend="run again; what was read is kept and will be finished first") from error
