"""Load any source: read, keep in the landing zone, merge into `raw_<source>` by dlt; every moment can be the last one.

The order is: extract and normalise into dlt's local package, keep its files in the landing zone, load, mark as loaded.
A kill leaves a package that is finished first by the next load; a lost working directory leaves a landed package without
its mark, which the next load sets aside, and the warehouse's own highest cursor makes the source be read again from there.
"""

import json
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines import drift, landing, raw, raw_changes, raw_shape, read_until
from pipelines.dlt_pipeline import dlt_errors, has_pending, open_pipeline
from pipelines.source import INTERVALS, Change, CursorValue, Extract, Held, Reading, Shape, common, sources
from privacy import key_state, retention
from warehouse import clock, ledger, storage, telemetry
from warehouse.console import progress
from warehouse.errors import FindingsFound, StepFailed, UsageError
from warehouse.ledger import Run, Step
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
    rows_deleted: int
    window: str
    findings: list[str] = field(default_factory=list)


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
            key_state.check(connection)
            settled = settle(source, connection)
            if settled.finished or settled.set_aside:
                step.detail["recovered"] = {"finished": settled.finished, "set_aside": settled.set_aside}
            loaded = _load_in_passes(source, connection, work, run, step)
            step.rows_in = sum(table.rows_read for table in loaded)
            step.rows_out = sum(table.rows_written for table in loaded)
            return loaded
    finally:
        shutil.rmtree(work, ignore_errors=True)


def due(source: str) -> bool:
    """Whether a source's schedule asks for a load now; a late or doubled scheduler changes nothing.

    A tenth of the interval is given away, so that a schedule that ticks a little early does not skip a turn.
    """
    last = ledger.last_success("load", source)
    return last is None or clock.now() - last >= INTERVALS[common(source).schedule] * 0.9


def _load_in_passes(source: str, connection: "DuckDBPyConnection", work: Path, run: Run, step: Step) -> list[Loaded]:
    """Load until the source wants no further pass; each pass is in the warehouse before the next one reads."""
    memory: dict[str, Any] = {}
    sums: dict[str, Loaded] = {}
    more = True
    while more:
        loaded, more = _load(source, connection, work, run, step, memory)
        for one in loaded:
            known = sums.setdefault(one.table, one)
            if known is not one:
                known.rows_read, known.rows_written = known.rows_read + one.rows_read, known.rows_written + one.rows_written
                known.rows_deleted, known.findings = known.rows_deleted + one.rows_deleted, known.findings + one.findings
    step.detail |= memory.get("told", {})
    return list(sums.values())


def _load(source: str, connection: "DuckDBPyConnection", work: Path, run: Run, step: Step, memory: dict[str, Any]) -> tuple[list[Loaded], bool]:
    pipeline = open_pipeline(source, connection)
    with ExitStack() as stack, progress(f"loading {source}"), dlt_errors(source):
        reading = _Reading(source, connection, work, stack, run, memory)
        try:
            with telemetry.span("extract", item=source):
                pipeline.extract(_source(source)(reading))
        finally:
            step.detail["tables"] = step.detail.get("tables", {}) | {one.name: _told(one) for one in reading.extracts.values()}
    kept = drift.kept_before(connection, source, list(reading.extracts.values()))
    if any(extract.rows_changed or extract.rows_deleted or extract.versions for extract in reading.extracts.values()):
        _finish(source, pipeline, connection)
    else:
        pipeline.abort_packages()  # an empty package: nothing to load
    for extract in reading.extracts.values():
        if extract.file.exists():
            raw_shape.complete(connection, source, extract.name, extract.primary_key, extract.file)
    step.detail["schema_changes"] = step.detail.get("schema_changes", []) + drift.record(connection, source, list(reading.extracts.values()), kept, run.run_id)
    for remember in reading.loaded:
        remember()
    every = [Loaded(source, one.name, one.rows_read, one.rows_changed, one.rows_deleted, one.window, one.findings) for one in reading.extracts.values()]
    return every, reading.more


def _told(one: Extract) -> dict[str, Any]:
    """What the ledger keeps of one table: what was asked of which kind of server, how long that took, what came of it."""
    return {
        "rows_in": one.rows_read, "rows_out": one.rows_changed, "rows_deleted": one.rows_deleted, "window": one.window, "server": one.server,
        "asked": one.asked, "seconds": round(one.seconds, 3), "bytes": one.bytes_written,
    }  # fmt: skip


@dataclass
class _Reading:
    """What a source is offered while it reads: see pipelines.source.Reading."""

    source: str
    connection: "DuckDBPyConnection"
    work: Path
    open: ExitStack
    run: Run
    memory: dict[str, Any]
    extracts: dict[str, Extract] = field(default_factory=dict)
    loaded: list[Callable[[], None]] = field(default_factory=list)
    more: bool = False

    def known(self) -> list[Shape]:
        return drift.known(self.connection, self.source)

    def changes(self, shape: Shape, is_widening: Callable[[str, str], bool]) -> list[Change]:
        before = {one.raw_table: one for one in self.known()}
        if shape.raw_table in before:
            return drift.changes(before[shape.raw_table], shape, is_widening)
        return [Change(shape.name, shape.raw_table, None, "table added")] if before else []

    def held(self, table: str, cursor: str | None) -> Held:
        return raw.held(self.connection, self.source, table, cursor)

    def without_known(self, table: str, key: list[str], file: Path, cursor: str | None = None, highest: CursorValue | None = None) -> int:
        retention.keep_out(self.source, table, file)  # before, or rows kept without their person would look changed with every load
        return raw.without_known(self.connection, self.source, table, key, file, cursor, highest)

    def add_deleted(self, table: str, key: list[str], keys: Path, file: Path, loaded_at: datetime, most: float) -> int:
        with self.run.step("compare keys", f"{self.source}.{table}") as step:
            step.rows_in = raw.count(self.connection, keys)
            try:
                step.rows_out = raw.add_deleted(self.connection, self.source, table, key, keys, file, loaded_at, most)
            except FindingsFound as refused:  # the changed rows are loaded all the same
                step.status, step.error = "findings", refused.what
                self.extracts[table].findings.append(str(refused))
                return 0
            return step.rows_out

    def is_believable(self, table: str, rows: int, most: float) -> bool:
        refusal = raw.refuse_shrunk(self.connection, self.source, table, rows, most)
        self.extracts[table].findings += [refusal] if refusal else []
        return refusal is None

    def followed(self) -> dict[str, tuple[str, int]]:
        return raw_changes.followed(self.connection, self.source)

    def follow(self, places: dict[str, tuple[str, int]]) -> None:
        raw_changes.follow(self.connection, self.source, places)

    def read_until(self, table: str) -> datetime | None:
        return read_until.read_until(self.connection, self.source, table)

    def note_read_until(self, table: str, until: datetime) -> None:
        read_until.note_read_until(self.connection, self.source, table, until)

    def replay(self, table: str, key: list[str], changes: raw_changes.Changes, versions: Path, file: Path, most: float | None) -> tuple[int, int]:
        changed, deleted = raw_changes.replay(self.connection, self.source, table, key, changes, versions, file)
        refusal = None if most is None else raw.refuse_deletes(self.connection, self.source, table, file, deleted, most)
        if refusal:
            self.extracts[table].findings.append(refusal)
            return changed, 0
        return changed, deleted

    def land(self, table: str, key: list[str], file: Path, newest_by: str | None = None) -> Path:
        import dlt

        retention.keep_out(self.source, table, file)
        package = landing.keep(self.source, table, dlt.current.load_package_state()["load_id"], file, key, newest_by)
        reference = file.with_name(f"{file.name}.jsonl")
        reference.write_text(json.dumps({"landed": str(package.folder)}))
        return reference

    def deletes_due(self, table: str, schedule: str) -> bool:
        if schedule == "never":
            return False
        # What was compared in a load that did not end well never reached the table.
        last = ledger.last_success("compare keys", f"{self.source}.{table}", within=("load", self.source))
        return last is None or clock.now() - last >= INTERVALS[schedule] * 0.9


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
    for package in landing.unsettled(source):
        landing.set_aside(package)
        settled.set_aside.append(package.load_id)
    shutil.rmtree(settings().landing / ".incoming", ignore_errors=True)
    return settled


def mark_known(source: str, connection: "DuckDBPyConnection") -> list[str]:
    """Mark the landed packages that were loaded but whose process died before it could say so; returns their load ids.

    A load of several tables that was killed between them, on a machine that is lost, is in some of them: those rows are
    known now and will not be read again, so the landing zone has to keep them.
    """
    unmarked = landing.unsettled(source)
    known = raw.load_ids(connection, source) if unmarked else set()
    marked = [package for package in unmarked if package.load_id in known or raw.holds(connection, source, package.table, package.file)]
    for package in marked:
        landing.mark_loaded(package)
    return [package.load_id for package in marked]


def _finish(source: str, pipeline: "Pipeline", connection: "DuckDBPyConnection") -> list[str]:
    """Load every package in dlt's working directory and mark what was landed of it; returns their load ids.

    Raises:
        StepFailed: the warehouse does not hold a row that was landed.
    """
    with dlt_errors(source):
        with telemetry.span("normalize", item=source):
            pipeline.normalize()
        load_ids = list(pipeline.list_normalized_load_packages())
        for package in landing.unsettled(source):
            if not raw_shape.columns(connection, source, package.table):  # before dlt makes it, with types of its own
                raw_shape.fit(connection, source, package.table, package.primary_key, package.file)
        landed = [package for package in landing.unsettled(source) if package.load_id in load_ids]
        with telemetry.span("write", item=source):
            pipeline.load()
        _reconcile(connection, landed)
        mark_known(source, connection)
        shutil.rmtree(Path(pipeline.working_dir) / "load" / "loaded", ignore_errors=True)
    return load_ids


def _reconcile(connection: "DuckDBPyConnection", landed: list[landing.Package]) -> None:
    """See that the warehouse holds every row that was landed; what it lacks is in the landing zone still."""
    for one in landed:
        if raw_shape.columns(connection, one.source, one.table) and (lost := raw.lacking(connection, one.source, one.table, one.primary_key, one.file)):
            raise StepFailed(
                f"{one.source}: {lost:,} of the {one.rows:,} rows that were read for {one.table} did not reach raw_{one.source}.{one.table}.",
                mend=f"they are kept in {one.folder}; `warehouse rebuild {one.source}` makes the raw tables anew from what was landed",
            )
