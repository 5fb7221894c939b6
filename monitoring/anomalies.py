"""Days that are not like the weeks before them: volume, sums, means, null rates and distinct shares, by one SQL query a table.

The query adds up each day of the last twelve weeks; `monitoring/usual.py` says what they let expect and how far off is unusual.
A single day and the last three days together are judged, each segment by itself and all of them together: what hits all
segments is surer in all of them, also where sums of them (of several currencies) would mean nothing.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from monitoring import usual
from monitoring.expectations import Expectations, Watched
from monitoring.findings import SAMPLE_ROWS, Finding
from warehouse.sql import quoted

if TYPE_CHECKING:
    import numpy as np
    from duckdb import DuckDBPyConnection

    Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Series:
    """The days of one metric of one segment; '' is all of them.

    Attributes:
        values: one a day, as they are; NaN where there is none.
        chance: the variance that chance alone gives each, on the scale that is judged.
    """

    metric: str
    kind: str
    segment: str
    values: "Array"
    chance: "Array"

    @property
    def scaled(self) -> "Array":
        """The values on the scale that is judged."""
        import numpy as np

        scaled: Array = np.log1p(np.maximum(self.values, 0)) if self.kind == "amount" else np.arcsin(np.sqrt(np.clip(self.values, 0, 1)))
        return scaled


@dataclass(frozen=True)
class Unusual:
    """One metric of one segment ('' for all) whose last day, or last three, are unusual.

    Attributes:
        value: what it was on the last day; None where segments are told together and have no common value.
        change: by how much it differs from what is usual, on the scale that is judged.
        is_alone: whether the last day is unusual by itself.
    """

    metric: str
    kind: str
    segment: str
    value: float | None
    change: float
    is_alone: bool


def check_anomalies(connection: "DuckDBPyConnection", expectations: Expectations, now: datetime) -> list[Finding]:
    """Judge the last day that is over, and the three days up to it, of every watched table that exists.

    Args:
        now: aware, by the one clock; the UTC day that it is in is not judged, because it is not over.

    Returns:
        warnings: what is unusual may be right.
    """
    query = "SELECT schema_name || '.' || table_name, list(column_name) FROM duckdb_columns() WHERE database_name = current_database() GROUP BY 1"
    there = {table: set(columns) for table, columns in connection.execute(query).fetchall()}
    last, found = now.date() - timedelta(days=1), []
    for table, watched in expectations.anomalies.items():
        named = {watched.day, watched.by or watched.day, *watched.sums, *watched.means, *watched.null_rates, *watched.distinct_shares}
        if named <= there.get(table, set()):  # what is missing is a finding of the contract
            found += [_finding(table, watched, one, last, now) for one in unusual(connection, table, watched, expectations, last)]
    return found


def unusual(connection: "DuckDBPyConnection", table: str, watched: Watched, expectations: Expectations, last: date) -> Iterator[Unusual]:
    """What is unusual about the day `last` of a table, or about the three days up to it."""
    first = last - timedelta(days=usual.WINDOW_DAYS - 1)
    series = daily(connection, table, watched, first, last)
    if not series:
        return
    verdict = judged(series, first, expectations.special_days(first, last))
    pooled = [(series[pool[0]].metric, series[pool[0]].kind, "", None) for pool in pools(series)]
    told = [(one.metric, one.kind, one.segment, float(one.values[-1])) for one in series] + pooled
    for number, (metric, kind, segment, value) in enumerate(told):
        if verdict.is_unusual[0, number]:
            is_alone = bool(verdict.is_alone[0, number])
            change = float((verdict.alone if is_alone else verdict.together)[0, number])
            yield Unusual(metric, kind, segment, value, change, is_alone)


def judged(series: list[Series], first: date, special: list[date]) -> usual.Verdict:
    """Judge every window of days that series hold: as many as they have days more than one window, and one.

    Args:
        first: the day of their first value.
        special: days that are neither judged nor learned from.
    """
    import numpy as np

    def windows(values: "Array") -> "Array":
        return np.moveaxis(np.lib.stride_tricks.sliding_window_view(values, usual.WINDOW_DAYS, axis=-1), -2, 0)

    days = len(series[0].values)
    usable = np.array([first + timedelta(days=day) not in set(special) for day in range(days)])
    weekdays = (first.weekday() + np.arange(days)) % 7
    values, chance = np.stack([one.scaled for one in series]), np.stack([one.chance for one in series])
    return usual.judge(windows(values), windows(chance), windows(usable), windows(weekdays), [one.kind for one in series], pools(series))


def pools(series: list[Series]) -> list[list[int]]:
    """Which series are the segments of one amount, and so are judged together as well. Numbers of rows are added up instead."""
    amounts = dict.fromkeys(one.metric for one in series if one.kind == "amount" and one.metric != "volume")
    members = [[number for number, one in enumerate(series) if one.metric == metric] for metric in amounts]
    return [pool for pool in members if len(pool) > 1]


def daily(connection: "DuckDBPyConnection", table: str, watched: Watched, first: date, last: date) -> list[Series]:
    """Every metric of every segment on the days from `first` to `last`. A day without rows, after a segment's first one, counts as nothing."""
    import numpy as np

    metrics = [("volume", "amount", "count(*)::DOUBLE", "1.0 / count(*)")]
    for column, name in ((quoted(column), column) for column in watched.sums):
        metrics.append((f"sum {name}", "amount", f"sum({column})::DOUBLE", f"sum({column}::DOUBLE ^ 2) / nullif(sum({column})::DOUBLE ^ 2, 0)"))
    for column, name in ((quoted(column), column) for column in watched.means):
        of_a_sum = f"sum({column}::DOUBLE ^ 2) / nullif(sum({column})::DOUBLE ^ 2, 0)"
        metrics.append((f"mean {name}", "amount", f"avg({column})::DOUBLE", f"greatest({of_a_sum} - 1 / nullif(count({column}), 0), 0)"))
    metrics += [(f"null rate {name}", "missing", f"avg(({quoted(name)} IS NULL)::INT)", "0.25 / count(*)") for name in watched.null_rates]
    metrics += [(f"distinct share {name}", "share", f"count(DISTINCT {quoted(name)}) / count(*)", "0.25 / count(*)") for name in watched.distinct_shares]
    segment = f"coalesce({quoted(watched.by)}::VARCHAR, '')" if watched.by else "''"
    columns = ", ".join(f"{value} AS v{number}, {chance} AS c{number}" for number, (_, _, value, chance) in enumerate(metrics))
    query = (
        f"SELECT {segment} AS segment, date_diff('day', $first::DATE, {quoted(watched.day)}::DATE)::INT AS day, {columns} FROM {table} "
        f"WHERE {quoted(watched.day)} >= $first::DATE AND {quoted(watched.day)} < $last::DATE + 1 GROUP BY ALL"
    )
    # Written out, not bound: to bind anything, DuckDB imports pandas, which takes longer than the query.
    rows = connection.execute(query.replace("$first", f"'{first}'").replace("$last", f"'{last}'")).fetchnumpy()
    length, found = (last - first).days + 1, []
    segments, at = np.asarray(rows["segment"]), np.asarray(rows["day"], dtype=int)
    total = np.zeros(length)
    for name in sorted(set(segments.tolist())):
        mine = segments == name
        for number, (metric, kind, _, _) in enumerate(metrics):
            values, chance = np.full(length, np.nan), np.full(length, np.nan)
            if metric.split(" ")[0] in ("volume", "sum"):
                values[at[mine].min() :] = 0
                chance[at[mine].min() :] = 1
            for target, column in ((values, f"v{number}"), (chance, f"c{number}")):
                given: Array = np.ma.filled(np.ma.asarray(rows[column][mine], dtype=float), np.nan)
                target[at[mine]] = np.where(np.isnan(given) & ~np.isnan(target[at[mine]]), target[at[mine]], given)
            found.append(Series(metric, kind, name, values, chance))
            if metric == "volume":
                total += np.nan_to_num(values)
    if watched.by and len(segments):
        total[: int(at.min())] = np.nan
        found.append(Series("volume", "amount", "", total, 1 / np.maximum(total, 1)))
    return found


def _finding(table: str, watched: Watched, one: Unusual, last: date, now: datetime) -> Finding:
    what, _, column = one.metric.rpartition(" ") if " " in one.metric else (one.metric, "", "")
    of = f" of {watched.by} {one.segment}" if one.segment else ""
    if one.value is None:
        observed = f"{one.metric} of every {watched.by} together on {last}: {math.expm1(one.change):+.0%}"
        expected = "about as in the weeks before"
    else:
        observed = f"{one.metric}{of} on {last}: {one.value:,.4g}"
        expected = f"about {_before(one):,.4g}, as in the weeks before"
    observed += "" if one.is_alone else ", and the two days before are alike"
    query = f"SELECT {quoted(watched.day)}::DATE AS day, count(*) AS table_rows FROM {table} GROUP BY 1 ORDER BY 1 DESC LIMIT {SAMPLE_ROWS}"
    if watched.by:
        query = query.replace("AS day,", f"AS day, {quoted(watched.by)},").replace("GROUP BY 1", "GROUP BY ALL")
    since = datetime(last.year, last.month, last.day, tzinfo=now.tzinfo)
    name = f"unusual {what}" + (f" ({one.segment})" if one.segment else "")
    return Finding(name, table, column or None, "warning", observed, expected, since, query)


def _before(one: Unusual) -> float:
    """What is usual, on the scale of the value."""
    value = one.value or 0.0
    if one.kind == "amount":
        return math.expm1(math.log1p(max(value, 0)) - one.change)
    return math.sin(min(max(math.asin(math.sqrt(value)) - one.change, 0), math.pi / 2)) ** 2
