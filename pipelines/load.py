"""Load any source: read, keep in the landing zone, merge into `raw_<source>` by dlt; every moment can be the last one.

The order is: extract and normalise into dlt's local package, keep its files in the landing zone, load, mark as loaded.
A kill leaves a package that is finished first by the next load; a lost working directory leaves a landed package without
its mark, which the next load sets aside, and the warehouse's own highest cursor makes the source be read again from there.
"""

import shutil
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines import landing, raw
from pipelines.dlt_pipeline import dlt_errors, has_pending, open_pipeline
from pipelines.source import INTERVALS, Reading, common, sources
from warehouse import clock, ledger, storage
from warehouse.console import progress
from warehouse.errors import UsageError
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
            settled = settle(source, connection)
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


def _load(source: str, connection: "DuckDBPyConnection", work: Path) -> list[Loaded]:
    with ExitStack() as stack, progress(f"loading {source}") as advance:
        reading = Reading(
            work=work,
            held=lambda table, cursor: raw.held(connection, source, table, cursor),
            without_known=lambda table, key, file: raw.without_known(connection, source, table, key, file),
            advance=lambda table, rows: advance(rows),
            open=stack,
        )
        pipeline = open_pipeline(source, connection)
        with dlt_errors(source):
            pipeline.extract(_source(source)(reading))
    if any(extract.rows_changed for extract in reading.extracts.values()):
        _finish(source, pipeline, connection)
    else:
        pipeline.abort_packages()  # an empty package: nothing to keep, nothing to load
    for extract in reading.extracts.values():
        if extract.file is not None and not extract.rows_changed:
            raw.create_empty(connection, source, extract.name, extract.file)
    return [Loaded(source, one.name, one.rows_read, one.rows_changed, one.window) for one in reading.extracts.values()]


def _source(source: str) -> Callable[[Reading], Any]:
    return getattr(import_module(f"pipelines.{source}"), source)  # type: ignore[no-any-return]  # the module's one source, by its name


def settle(source: str, connection: "DuckDBPyConnection") -> Recovered:
    """Finish what a killed load left in dlt's working directory, and set aside what was landed but can never be loaded."""
    settled = Recovered()
    if has_pending(source):
        pipeline = open_pipeline(source, connection)
        if pipeline.has_pending_data:
            settled.finished = _finish(source, pipeline, connection)
    settled.finished += mark_known(source, connection)
    for package in landing.packages(source):
        if not package.is_loaded:
            landing.set_aside(package)
            settled.set_aside.append(package.load_id)
    shutil.rmtree(settings().landing / ".incoming", ignore_errors=True)
    return settled


def mark_known(source: str, connection: "DuckDBPyConnection") -> list[str]:
    """Mark the landed packages that were loaded but whose process died before it could say so; returns their load ids."""
    unmarked = [package for package in landing.packages(source) if not package.is_loaded]
    known = raw.load_ids(connection, source) if unmarked else set()
    marked = [package for package in unmarked if package.load_id in known]
    for package in marked:
        landing.mark_loaded(package)
    return [package.load_id for package in marked]


def _finish(source: str, pipeline: "Pipeline", connection: "DuckDBPyConnection") -> list[str]:
    """Normalise, keep and load every package in dlt's working directory; returns their load ids."""
    with dlt_errors(source):
        pipeline.normalize()
        load_ids = list(pipeline.list_normalized_load_packages())
        kept, tables = [], set()
        for load_id in load_ids:
            for jobs in pipeline.get_load_package_info(load_id).jobs.values():
                for job in jobs:
                    table = job.job_file_info.table_name
                    if table.startswith("_dlt"):
                        continue
                    tables.add(table)
                    if job.job_file_info.file_format != "parquet":
                        continue
                    columns = pipeline.default_schema.get_table_columns(table)
                    key = [name for name, column in columns.items() if column.get("primary_key")]
                    kept.append(landing.keep(source, table, load_id, Path(job.file_path), key))
        raw.make_dlt_look(connection, source, tables)
        pipeline.load()
        for package in kept:
            landing.mark_loaded(package)
        shutil.rmtree(Path(pipeline.working_dir) / "load" / "loaded", ignore_errors=True)
    return load_ids
