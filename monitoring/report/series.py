"""What the marts say day by day, with the band in which a day is usual: the same comparison that the check of unusual days makes.

The published copy is read (on MotherDuck the marts themselves), never the writer's file.
"""

import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING

from monitoring import anomalies
from monitoring.expectations import Expectations, Watched
from monitoring.report.facts import Point, Series
from warehouse import storage
from warehouse.errors import WarehouseError
from warehouse.settings import settings
from warehouse.sql import quoted

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

DAYS = 90
"""How many days a plot shows."""
SEGMENTS = 4
"""How many segments of a table are shown, those with the most rows; the others are named."""
_LEAST_POINTS = 14
_PATIENCE = 20.0
"""Seconds after which a table's plot is given up."""


def read_series(expectations: Expectations, now: datetime) -> tuple[list[Series], list[str]]:
    """Rows and sums a day of every watched table that is published, up to its newest day that is over.

    Args:
        now: aware, by the one clock.

    Returns:
        the series, and what was left out and why.
    """
    import duckdb

    found: list[Series] = []
    left_out: list[str] = []
    try:
        with _opened() as connection:
            if connection is None:
                return [], ["Nothing is published yet."] if expectations.anomalies else []
            there = {row[0] for row in connection.execute("SELECT table_schema || '.' || table_name FROM information_schema.tables").fetchall()}
            for table, watched in expectations.anomalies.items():
                if table not in there:
                    left_out.append(f"{table} is not published.")
                    continue
                with _bounded(connection):
                    try:
                        series, why = _table(connection, table, watched, expectations, now)
                    except duckdb.InterruptException:
                        series, why = [], [f"{table} took longer than {_PATIENCE:.0f} seconds."]
                    except duckdb.Error:  # its message may quote values
                        series, why = [], [f"{table} could not be read as monitoring/expectations.yaml declares it."]
                found, left_out = found + series, left_out + why
    except (duckdb.Error, WarehouseError):
        left_out.append("The published copy cannot be opened.")
    return found, left_out


def _table(connection: "DuckDBPyConnection", table: str, watched: Watched, expectations: Expectations, now: datetime) -> tuple[list[Series], list[str]]:
    counted = watched.model_copy(update={"means": [], "null_rates": [], "distinct_shares": []})
    day = quoted(watched.day)
    edges = connection.execute(f"SELECT min({day})::DATE, max({day})::DATE FROM {table} WHERE {day} < {_date(now.date())}").fetchone()
    if edges is None or edges[0] is None:
        return [], [f"{table} has no day that is over."]
    begin, last = edges
    shown = max(begin, last - timedelta(days=DAYS - 1))
    daily = f"SELECT metric, segment, day, value, table_rows FROM ({anomalies._daily(table, counted)}) WHERE value IS NOT NULL ORDER BY day"
    values = connection.execute(_written(daily, first=_date(shown), last=_date(last))).fetchall()
    bands = _bands(connection, table, counted, expectations, begin, shown, last)
    rows_of: dict[str, int] = defaultdict(int)
    points: dict[tuple[str, str], list[Point]] = defaultdict(list)
    for metric, segment, at, value, rows in values:
        if metric == "volume":
            rows_of[segment] += int(rows)
        points[metric, segment].append(Point(at, value, *bands.get((metric, segment, at), (None, None, None))))
    wanted, left_out = _wanted(table, rows_of, points, bool(watched.by))
    found = []
    for metric, segment in points:
        if segment in wanted:
            unit = "rows" if metric == "volume" else segment if watched.by == "currency" else ""
            found.append(Series(table, metric, segment, unit, points[metric, segment]))
    return sorted(found, key=lambda one: (wanted.index(one.segment), one.metric != "volume", one.metric)), left_out


def _wanted(table: str, rows_of: Mapping[str, int], points: Mapping[tuple[str, str], Sequence[Point]], is_segmented: bool) -> tuple[list[str], list[str]]:
    """The segments to show, and what is said of the others. The total comes first, and only where it says more than one segment does."""
    busy = {segment for segment in rows_of if sum(1 for one in points["volume", segment] if one.value) >= _LEAST_POINTS}
    ordered = sorted((one for one in busy if one or not is_segmented), key=lambda one: -rows_of[one])
    total = [""] if is_segmented and "" in busy and len(ordered) != 1 else []
    wanted = total + ordered[: SEGMENTS - len(total)]
    others = sorted({one for one in rows_of if one} - set(wanted))
    return wanted, [f"{table}: {', '.join(others)} not drawn: on fewer than {_LEAST_POINTS} days, or with fewer rows than those drawn."] if others else []


def _bands(
    connection: "DuckDBPyConnection", table: str, watched: Watched, expectations: Expectations, begin: date, shown: date, last: date
) -> dict[tuple[str, str, date], tuple[float, float, float]]:
    """What is expected, and the least and the most that is usual, by metric, segment and day."""
    judged = max(shown, begin + timedelta(days=anomalies.LEAST_DAYS + 1))
    first = judged - timedelta(days=anomalies.HISTORY_DAYS)
    sql = anomalies._JUDGE.format(daily=anomalies._daily(table, watched), level_days=anomalies.LEVEL_DAYS, least_days=anomalies.LEAST_DAYS)
    special = f"[{', '.join(_date(one) for one in expectations.special_days(first, last))}]::DATE[]"
    rows = connection.execute(_written(sql, first_judged=_date(judged), first=_date(first), last=_date(last), special=special)).fetchall()
    bands = {}
    for metric, kind, segment, day, _, table_rows, y, difference, _, ordinary, _ in rows:
        if difference is None or ordinary is None:
            continue
        middle = y - difference
        expected = anomalies._value(kind, middle)
        noise = max(ordinary, anomalies.LEAST_NOISE[kind], anomalies._chance(metric, kind, expected, table_rows))
        width = max(anomalies.LIMIT * noise, anomalies.LEAST_CHANGE[kind])
        bands[metric, segment, day] = (expected, max(0.0, anomalies._value(kind, middle - width)), anomalies._value(kind, middle + width))
    return bands


def _written(sql: str, **values: str) -> str:
    """A query with its parameters written out: to bind a date, DuckDB imports pandas, which takes longer than the query."""
    for name, value in values.items():
        sql = sql.replace(f"${name}", value)
    return sql


def _date(day: date) -> str:
    return f"DATE '{day.isoformat()}'"


@contextmanager
def _opened() -> "Iterator[DuckDBPyConnection | None]":
    if settings().storage == "motherduck":
        with storage.open_warehouse(read_only=True) as connection:
            yield connection
        return
    import duckdb

    read_copy = settings().published / "warehouse.duckdb"
    if not read_copy.exists():
        yield None
        return
    with duckdb.connect(str(read_copy), read_only=True, config=storage.duckdb_config()) as connection:
        yield connection


@contextmanager
def _bounded(connection: "DuckDBPyConnection") -> Iterator[None]:
    timer = threading.Timer(_PATIENCE, connection.interrupt)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
