"""What changed in the shape of the sources lately, as the loads recorded it: a warning for a week, so that nobody misses it."""

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from monitoring.findings import Finding
from warehouse.sql import literal

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

TOLD_FOR = timedelta(days=7)


def schema_changes(connection: "DuckDBPyConnection", now: datetime) -> list[Finding]:
    """The rows of `ops.schema_changes` of the last week.

    Args:
        now: aware, by the one clock.
    """
    exists = "SELECT 1 FROM duckdb_tables() WHERE database_name = current_database() AND schema_name = 'ops' AND table_name = 'schema_changes'"
    if connection.execute(exists).fetchone() is None:
        return []
    query = (
        "SELECT source, source_table, raw_table, column_name, change, before, after, kept_as, detected_at FROM ops.schema_changes "
        "WHERE detected_at >= ? ORDER BY detected_at, source_table, column_name"
    )
    return [_finding(*row) for row in connection.execute(query, [now - TOLD_FOR]).fetchall()]


def _finding(
    source: str,
    source_table: str,
    raw_table: str,
    column: str | None,
    change: str,
    before: str | None,
    after: str | None,
    kept_as: str | None,
    detected_at: datetime,
) -> Finding:
    values = " -> ".join(value for value in (before, after) if value)
    observed = f"{change} in {source_table}" + (f": {values}" if values else "") + (f"; what was held is kept in {kept_as}" if kept_as else "")
    query = f"SELECT * FROM ops.schema_changes WHERE source = {literal(source)} AND raw_table = {literal(raw_table)} ORDER BY detected_at"
    return Finding("schema change", f"raw_{source}.{raw_table}", column, "warning", observed, "the shape of the last load", detected_at, query)
