"""What the marts say day by day, with the band in which a day is usual: the same comparison that the check of unusual days makes.

The published copy is read (on MotherDuck the marts themselves), never the writer's file.
"""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from math import expm1, isnan, pi, sin
from typing import TYPE_CHECKING

from monitoring import anomalies, usual
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
    edges = connection.execute(f"SELECT min({day})::DATE, max({day})::DATE FROM {table} WHERE {day} < DATE '{now.date()}'").fetchone()
    if edges is None or edges[0] is None:
        return [], [f"{table} has no day that is over."]
    begin, last = edges
    shown = max(begin, last - timedelta(days=DAYS - 1))
    first = shown - timedelta(days=usual.WINDOW_DAYS - 1)
    series = anomalies.daily(connection, table, counted, first, last)
    verdict = anomalies.judged(series, first, expectations.special_days(first, last))
    points = {(one.metric, one.segment): list(_points(one, number, verdict, shown)) for number, one in enumerate(series)}
    rows_of = {one.segment: float(sum(point.value for point in points[one.metric, one.segment])) for one in series if one.metric == "volume"}
    wanted, left_out = _wanted(table, rows_of, points, bool(watched.by))
    found = []
    for metric, segment in points:
        if segment in wanted:
            unit = "rows" if metric == "volume" else segment if watched.by == "currency" else ""
            found.append(Series(table, metric, segment, unit, points[metric, segment]))
    return sorted(found, key=lambda one: (wanted.index(one.segment), one.metric != "volume", one.metric)), left_out


def _points(one: anomalies.Series, number: int, verdict: usual.Verdict, shown: date) -> Iterator[Point]:
    """The days of a series from the first that is shown, each with what is expected of it where that is known."""
    values, scaled = one.values[usual.WINDOW_DAYS - 1 :], one.scaled[usual.WINDOW_DAYS - 1 :]
    for at, value in enumerate(values):
        if isnan(value):
            continue
        difference, low, high = (float(part[at, number]) for part in (verdict.alone, verdict.low, verdict.high))
        if isnan(difference) or isnan(low):
            yield Point(shown + timedelta(days=at), float(value))
            continue
        middle = float(scaled[at]) - difference
        expected, least, most = (_unscaled(one.kind, middle + far) for far in (0.0, low, high))
        least = max(0.0, least)
        if low <= difference <= high:  # what the check says of the day is what is drawn, also of a sum below nought, which it judges as nought
            least, most = min(least, float(value)), max(most, float(value))
        yield Point(shown + timedelta(days=at), float(value), expected, least, most)


def _unscaled(kind: str, y: float) -> float:
    return float(expm1(y)) if kind == "amount" else float(sin(min(max(y, 0), pi / 2)) ** 2)


def _wanted(table: str, rows_of: Mapping[str, float], points: Mapping[tuple[str, str], Sequence[Point]], is_segmented: bool) -> tuple[list[str], list[str]]:
    """The segments to show, and what is said of the others. The total comes first, and only where it says more than one segment does."""
    busy = {segment for segment in rows_of if sum(1 for one in points["volume", segment] if one.value) >= _LEAST_POINTS}
    ordered = sorted((one for one in busy if one or not is_segmented), key=lambda one: -rows_of[one])
    total = [""] if is_segmented and "" in busy and len(ordered) != 1 else []
    wanted = total + ordered[: SEGMENTS - len(total)]
    others = sorted({one for one in rows_of if one} - set(wanted))
    return wanted, [f"{table}: {', '.join(others)} not drawn: on fewer than {_LEAST_POINTS} days, or with fewer rows than those drawn."] if others else []


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
