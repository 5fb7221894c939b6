"""How much of a table its source deleted lately: rows that leave one by one are nothing unusual, a part of all of them at once is."""

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from monitoring.expectations import Expectations
from monitoring.findings import SAMPLE_ROWS, Finding
from monitoring.incidents import DELETES
from warehouse.sql import literal, quoted

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

LATELY = timedelta(days=1)


def check_deletes(connection: "DuckDBPyConnection", expectations: Expectations, now: datetime) -> list[Finding]:
    """Judge each declared table: the share of its rows that were first seen to be gone within the last day.

    Args:
        now: aware, by the one clock.

    Returns:
        warnings: a source may have had its reasons.
    """
    query = "SELECT schema_name || '.' || table_name, list(column_name) FROM duckdb_columns() WHERE database_name = current_database() GROUP BY 1"
    there = {table: set(columns) for table, columns in connection.execute(query).fetchall()}
    found = []
    for table, one in expectations.deletes.items():
        if one.time not in there.get(table, ()):
            continue
        at, since = quoted(one.time), literal((now - LATELY).isoformat())
        gone = f"{at} > {since}::TIMESTAMPTZ"
        deleted, before = connection.execute(f"SELECT count(*) FILTER ({gone}), count(*) FILTER ({gone} OR {at} IS NULL) FROM {table}").fetchone() or (0, 0)
        if deleted > one.above * before:
            shown = f"SELECT {at}, count(*) AS table_rows FROM {table} WHERE {gone} GROUP BY 1 ORDER BY 2 DESC LIMIT {SAMPLE_ROWS}"
            observed, expected = f"{deleted} of {before} rows were deleted within a day", f"at most {one.above:.0%} of them"
            found.append(Finding(DELETES, table, None, "warning", observed, expected, now, shown, deleted / before))
    return found
