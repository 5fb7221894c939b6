"""Google Analytics 4: whole days of declared reports, read anew until Google has stopped changing them.

The unit of truth is a day of a report of a property. All its rows are read before one of them is written; rows held of it
that were not among them become tombstones in the same package, so that a day is replaced in one transaction, and the
landing zone alone makes the same tables anew (docs/adr/0013-analytics-days-are-replaced.md).
"""

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.google_analytics_client import Client, DayReport, OutOfQuota
from pipelines.google_analytics_days import Plan
from pipelines.google_analytics_report import METADATA, QUALITY, ROW_ID, GoogleAnalyticsDeclaration
from pipelines.google_analytics_rows import KEYS, SOURCE, refuse_undeclared, write, write_metadata, write_quality
from pipelines.source import DELETED_AT, FOLDER, LOADED_AT, Extract, Reading
from warehouse import clock
from warehouse.declared import read
from warehouse.settings import settings
from warehouse.sql import parquet

if TYPE_CHECKING:
    from dlt.extract import DltSource

_SERVER = "Google Analytics Data API"


def declaration() -> GoogleAnalyticsDeclaration:
    """The validated `pipelines/google_analytics.yaml`."""
    return read(FOLDER / "google_analytics.yaml", GoogleAnalyticsDeclaration)


def google_analytics(reading: Reading) -> "DltSource":
    """The dlt source: one chunk of days; the load asks for passes until nothing is left.

    What is remembered of a chunk (`report_quality`) is written one pass after its rows, when they are in the warehouse.

    Raises:
        UsageError: credentials, properties or the declaration are wrong. StepFailed: Google does not answer.
    """
    import dlt

    memory, is_first = reading.memory, not reading.memory
    if is_first:
        memory["plan"], memory["chunks"] = _begin(reading)
    plan: Plan = memory["plan"]
    chunk: list[DayReport] | None = next(memory["chunks"], None)
    reading.more = chunk is not None
    in_the_warehouse, memory["read"] = memory.get("read", []), chunk or []

    @dlt.source(name="google_analytics", max_table_nesting=0)  # type: ignore[untyped-decorator]  # dlt types no decorator
    def source() -> Iterator[Any]:
        bodies = {name: _report_rows(reading, plan, name, days) for name in plan.kinds if (days := _of(chunk or [], name)) or is_first}
        if is_first:
            bodies[METADATA] = _metadata_rows(reading, plan)
        bodies[QUALITY] = _quality_rows(reading, plan, in_the_warehouse)
        for name, rows in bodies.items():
            yield dlt.resource(rows, name=name, write_disposition="append", columns={LOADED_AT: {"data_type": "timestamp"}})

    return source()


def check_connection() -> str:
    """Ask each property for its time zone and what is left of its quota, for `warehouse doctor`.

    Raises:
        StepFailed, UsageError: as in `google_analytics`.
    """
    declared = declaration()
    client, said = Client(declared), []
    for property_id in settings().google_analytics_properties():
        try:
            about = client.about(property_id)
            said.append(f"{property_id} in {about.time_zone}, {about.currency}, {about.quota.hour} tokens left this hour")
        except OutOfQuota:
            said.append(f"{property_id} out of quota for now")
    return "; ".join(said)


def _begin(reading: Reading) -> tuple[Plan, Iterator[list[DayReport]]]:
    declared = declaration()
    settings().hmac_key()
    for name, report in declared.reports.items():
        refuse_undeclared(name, report)
    plan = Plan(reading, declared)
    plan.learn()
    return plan, plan.chunks()


def _of(chunk: Sequence[DayReport], report: str) -> list[DayReport]:
    return [day for day in chunk if day.report == report]


def _report_rows(reading: Reading, plan: Plan, name: str, days: list[DayReport]) -> Iterator[Any]:
    report, kinds = plan.declared.reports[name], plan.kinds[name]
    asked = [f"{report.dimensions} {report.metrics} of {len(days)} days"] if days else []

    def body(loaded_at: datetime, file: Path) -> tuple[int, int]:
        rows = write(name, report, kinds, days, plan.declared.query_parameters, loaded_at, file)
        scope: dict[str, list[Any]] = {"property_id": [day.property_id for day in days], "date": [day.day for day in days]}
        return rows, _add_vanished(reading, name, [ROW_ID], scope, loaded_at, file)

    yield from _written(reading, name, [ROW_ID], body, asked)


def _metadata_rows(reading: Reading, plan: Plan) -> Iterator[Any]:
    def body(loaded_at: datetime, file: Path) -> tuple[int, int]:
        rows = write_metadata(plan.metadata, loaded_at, file)
        return rows, _add_vanished(reading, METADATA, KEYS[METADATA], {"property_id": list(plan.metadata)}, loaded_at, file)

    yield from _written(reading, METADATA, KEYS[METADATA], body, [METADATA])


def _quality_rows(reading: Reading, plan: Plan, days: list[DayReport]) -> Iterator[Any]:
    def body(loaded_at: datetime, file: Path) -> tuple[int, int]:
        write_quality(days, loaded_at, file)
        return len(days), 0

    yield from _written(reading, QUALITY, KEYS[QUALITY], body, [])
    reading.extracts[QUALITY].findings, plan.findings = plan.findings, []


def _written(reading: Reading, name: str, key: list[str], body: Callable[[datetime, Path], tuple[int, int]], asked: list[str]) -> Iterator[Any]:
    """The body of a resource: write, drop what is known, land what is left."""
    from dlt.extract import with_file_import

    held, now = reading.held(name, None), clock.now()
    loaded_at = max(now, held.loaded_at + timedelta(microseconds=1)) if held.loaded_at else now
    file = reading.work / f"{name}-{loaded_at.timestamp()}.parquet"
    rows, vanished = body(loaded_at, file)
    extract = reading.extracts[name] = Extract(name, file, rows_read=rows, primary_key=key, window="changed rows", server=_SERVER, asked=asked)
    extract.rows_deleted = vanished
    left = reading.without_known(name, key, file) if held.loaded_at and rows + vanished else rows + vanished
    extract.rows_changed, extract.bytes_written = left - vanished, file.stat().st_size
    if left:
        yield with_file_import(str(reading.land(name, key, file)), "jsonl", left)


def _add_vanished(reading: Reading, name: str, key: list[str], scope: dict[str, list[Any]], loaded_at: datetime, file: Path) -> int:
    """Add the rows held within the scope that the file does not have, with their last values and `_deleted_at`; returns how many."""
    import pyarrow as pa

    from pipelines.raw_shape import clashing, file_columns

    held, arriving = reading.held(name, None).columns, file_columns(reading.connection, file)
    if not held or not next(iter(scope.values())):
        return 0
    # Columns that the file has not are kept by the merge; one whose type has changed keeps its values under another name.
    apart = clashing(held, arriving)
    shared = ", ".join(f'r."{column}"' for column in arriving if column in held and column not in apart and column not in (LOADED_AT, DELETED_AT))
    within = " AND ".join(f'r."{column}" = s."{column}"' for column in scope)
    same = " AND ".join(f'r."{column}" = f."{column}"' for column in key)
    reading.connection.register("_scope", pa.table(scope))
    gone = f"FROM raw_{SOURCE}.{name} r SEMI JOIN _scope s ON {within} ANTI JOIN read_parquet($file) f ON {same} WHERE r.{DELETED_AT} IS NULL"
    row = reading.connection.execute(f"SELECT count(*) {gone}", {"file": str(file)}).fetchone()
    vanished = int(row[0]) if row else 0
    if vanished:
        both = file.with_suffix(".both")
        at = f"TIMESTAMPTZ '{loaded_at.isoformat()}'"
        reading.connection.execute(
            f"COPY (SELECT * FROM read_parquet($file) UNION ALL BY NAME SELECT {shared}, {at} AS {LOADED_AT}, {at} AS {DELETED_AT} {gone}) TO {parquet(both)}",
            {"file": str(file)},
        )
        both.replace(file)
    reading.connection.unregister("_scope")
    return vanished
