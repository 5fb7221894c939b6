"""Freshness: how long ago a table was last loaded successfully, never how old its newest row is."""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from monitoring.findings import Finding

DEFAULT_FRESHNESS = timedelta(hours=6)
CLOCK_SKEW = timedelta(minutes=5)
"""How far ahead a load's clock may run; anything later would hide staleness for as long as it is ahead."""


def check_freshness(
    tables: Iterable[str], *, now: datetime, loaded_at: Mapping[str, datetime], freshness: Mapping[str, timedelta] | None = None
) -> list[Finding]:
    """Judge each table by the time of its last successful load.

    The newest row's own time is no measure: an hour without orders is no fault, and the demo company's orders are of
    1997. A table is fresh until exactly its limit, and stale the moment after.

    Args:
        tables: names as schema.table; those named in the two mappings are judged as well.
        now: aware, by the one clock.
        loaded_at: table to the aware instant its last successful load ended.
        freshness: table to its limit, from its source's declaration; 6 hours where none is given.

    Raises:
        ValueError: an instant has no time zone.
    """
    limits = freshness or {}
    judged = sorted({*tables, *loaded_at, *limits})
    found = (_judge(table, now, loaded_at.get(table), limits.get(table, DEFAULT_FRESHNESS)) for table in judged)
    return [finding for finding in found if finding is not None]


def _judge(table: str, now: datetime, loaded: datetime | None, limit: timedelta) -> Finding | None:
    for instant in (now, loaded):
        if instant is not None and instant.utcoffset() is None:
            raise ValueError(f"freshness of {table}: {instant.isoformat()} has no time zone")
    expected = f"loaded successfully within {_duration(limit)}"
    if loaded is None:
        return _finding(table, "never loaded successfully", expected, now)
    age = now - loaded
    if age < -CLOCK_SKEW:
        return _finding(table, f"loaded at {loaded.isoformat()}, {_duration(-age)} in the future", expected, now)
    if age > limit:
        return _finding(table, f"loaded at {loaded.isoformat()}, {_duration(age)} ago", expected, loaded + limit)
    return None


def _finding(table: str, observed: str, expected: str, since: datetime) -> Finding:
    # Loaded tables carry the instant of each row's load; the other schemas have no column of that meaning.
    is_loaded = table.startswith("raw_")
    query = f"SELECT max(_loaded_at) AS last_loaded_at, count(*) AS table_rows FROM {table}" if is_loaded else ""
    return Finding("freshness", table, None, "error", observed, expected, since, query)


def _duration(length: timedelta) -> str:
    """Exact to the second, rounded up so that one millisecond too late never reads as just in time."""
    seconds = -(-length // timedelta(seconds=1))
    return f"{seconds // 3600}h{seconds // 60 % 60:02d}m{seconds % 60:02d}s"
