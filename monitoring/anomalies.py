"""Days that are not like the weeks before them: volume, sums, means, null rates and distinct shares, by one SQL query a table.

A day is compared with what its weekday and the last two weeks let expect, on a scale on which ordinary noise is alike at every
level: logarithms of amounts, arc sines of shares. How much is ordinary is learned from how the eight weeks before it differed
from the same expectation (the median of absolute differences), which a few bad days cannot move. A difference must also be
large in itself to be told. A single day and the last three days together are judged.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING

from monitoring.expectations import Expectations, Watched
from monitoring.findings import SAMPLE_ROWS, Finding
from warehouse.sql import literal, quoted

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

HISTORY_DAYS = 56
LEVEL_DAYS = 14
LEAST_DAYS = 28
"""Days of history that are needed before anything is judged."""
LIMIT = 4.2
"""How many times the ordinary difference is unusual."""
LIMIT_TOGETHER = 3.0
"""The same for the mean of the last three days."""
LEAST_CHANGE = {"amount": math.log(1.25), "share": 0.12}
"""What must have changed at the least, on the scale that is judged: a quarter of an amount; about 6 points of a share near a half."""
LEAST_NOISE = {"amount": 0.02, "share": 0.01}

_JUDGE = """
WITH daily AS MATERIALIZED ({daily}),
spread AS MATERIALIZED (
  SELECT metric, kind, segment, day, value, table_rows,
    CASE kind WHEN 'amount' THEN ln(1 + greatest(value, 0)) ELSE asin(sqrt(least(greatest(value, 0), 1))) END AS y,
    isodow(day) AS weekday
  FROM daily
  WHERE NOT list_contains($special, day) AND value IS NOT NULL
),
weekdays AS (
  SELECT metric, segment, weekday, median(y) AS y FROM spread WHERE day < $first_judged GROUP BY ALL
),
middles AS (
  SELECT metric, segment, median(y) AS y FROM spread WHERE day < $first_judged GROUP BY ALL
),
level AS MATERIALIZED (
  SELECT spread.*, spread.y - (weekdays.y - middles.y) AS flat
  FROM spread JOIN weekdays USING (metric, segment, weekday) JOIN middles USING (metric, segment)
),
compared AS (
  SELECT *,
    flat - median(flat) OVER before AS difference,
    count(*) OVER before AS days_before
  FROM level
  WINDOW before AS (PARTITION BY metric, segment ORDER BY day RANGE BETWEEN INTERVAL {level_days} DAYS PRECEDING AND INTERVAL 1 DAY PRECEDING)
),
threes AS (
  SELECT *,
    avg(difference) OVER three AS together,
    count(*) OVER three AS days_together
  FROM compared WHERE days_before >= {level_days} // 2
  WINDOW three AS (PARTITION BY metric, segment ORDER BY day RANGE BETWEEN INTERVAL 2 DAYS PRECEDING AND CURRENT ROW)
),
noise AS (
  SELECT metric, segment,
    1.4826 * median(abs(difference)) AS ordinary,
    1.4826 * median(abs(together)) FILTER (days_together = 3) AS ordinary_together,
    count(*) AS days
  FROM threes WHERE day < $first_judged GROUP BY ALL
)
SELECT metric, kind, segment, day, value, table_rows, y, difference, CASE WHEN days_together = 3 THEN together END, ordinary, ordinary_together
FROM threes JOIN noise USING (metric, segment)
WHERE day >= $first_judged AND days >= {least_days} - {level_days} // 2
ORDER BY metric, segment, day
"""


def check_anomalies(connection: "DuckDBPyConnection", expectations: Expectations, now: datetime) -> list[Finding]:
    """Judge the last day that is over, and the three days up to it, of every watched table that exists.

    Args:
        now: aware, by the one clock; the UTC day that it is in is not judged, because it is not over.

    Returns:
        warnings: what is unusual may be right.
    """
    query = "SELECT schema_name || '.' || table_name, list(column_name) FROM duckdb_columns() WHERE database_name = current_database() GROUP BY 1"
    there = {table: set(columns) for table, columns in connection.execute(query).fetchall()}
    found = []
    for table, watched in expectations.anomalies.items():
        named = {watched.day, watched.by or watched.day, *watched.sums, *watched.means, *watched.null_rates, *watched.distinct_shares}
        if named <= there.get(table, set()):  # what is missing is a finding of the contract
            found += [_finding(table, watched, one, now) for one in judged(connection, table, watched, expectations, now) if one.is_unusual]
    return found


@dataclass(frozen=True)
class Judged:
    """One metric of one segment on its last day; differences are on the scale that is judged.

    Attributes:
        noise: the ordinary difference of one day.
        noise_together: that of the mean of three days, which is larger than chance would have it where noise lasts.
        alone: the last day's difference; None when that day is special.
        together: the mean difference of the last three days; None when one of them is special.
    """

    metric: str
    kind: str
    segment: str
    day: date
    value: float
    y: float
    noise: float
    noise_together: float
    alone: float | None
    together: float | None

    @property
    def is_alone(self) -> bool:
        """Whether the last day is unusual by itself."""
        return self.alone is not None and abs(self.alone) > max(LIMIT * self.noise, LEAST_CHANGE[self.kind])

    @property
    def is_unusual(self) -> bool:
        """Whether the last day, or the last three together, are unusual."""
        least = max(LIMIT_TOGETHER * self.noise_together, LEAST_CHANGE[self.kind])
        return self.is_alone or (self.together is not None and abs(self.together) > least)


def judged(connection: "DuckDBPyConnection", table: str, watched: Watched, expectations: Expectations, now: datetime) -> Iterator[Judged]:
    """Every metric of a table that has enough history, on the last day that is over."""
    last = now.date() - timedelta(days=1)
    first = last - timedelta(days=HISTORY_DAYS + 2)
    special = expectations.special_days(first, last)
    sql = _JUDGE.format(daily=_daily(table, watched), level_days=LEVEL_DAYS, least_days=LEAST_DAYS)
    rows = connection.execute(sql, {"first": first, "last": last, "special": special, "first_judged": last - timedelta(days=2)}).fetchall()
    newest: dict[tuple[str, str], tuple[str, date, float, float, float, float, float | None, float, float | None]] = {}
    for metric, kind_of_it, segment, *of_day in rows:
        newest[metric, segment] = (kind_of_it, *of_day)
    for (metric, segment), (kind, day, value, rows_of_day, y, difference, together, ordinary, ordinary_together) in newest.items():
        noise = max(ordinary, LEAST_NOISE[kind], _chance(metric, kind, _value(kind, y - difference), rows_of_day))
        lasting = max(ordinary_together or 0, noise / math.sqrt(3))
        yield Judged(metric, kind, segment, day, value, y, noise, lasting, *((difference, together) if day == last else (None, None)))


def _daily(table: str, watched: Watched) -> str:
    """One row a metric, segment and day. A day without rows between the first one and the last judged one counts as nothing."""
    day, total = quoted(watched.day), ""
    segment = f"coalesce({quoted(watched.by)}::VARCHAR, '')" if watched.by else "''"
    metrics = [("volume", "", "amount", "count(*)::DOUBLE")]
    metrics += [("sum", column, "amount", f"sum({quoted(column)})::DOUBLE") for column in watched.sums]
    metrics += [("mean", column, "amount", f"avg({quoted(column)})::DOUBLE") for column in watched.means]
    metrics += [("null rate", column, "share", f"avg(({quoted(column)} IS NULL)::INT)") for column in watched.null_rates]
    metrics += [("distinct share", column, "share", f"count(DISTINCT {quoted(column)}) / count(*)") for column in watched.distinct_shares]
    values = ", ".join(f"{sql} AS m{number}" for number, (_, _, _, sql) in enumerate(metrics))
    names = [f"{what} {column}".strip() for what, column, _, _ in metrics]
    told = [
        f"SELECT {literal(name)} AS metric, {literal(metrics[number][2])} AS kind, segment, day, "
        + (f"coalesce(m{number}, 0)" if metrics[number][0] in ("volume", "sum") else f"m{number}")
        + " AS value, coalesce(m0, 0) AS table_rows FROM filled"
        for number, name in enumerate(names)
    ]
    if watched.by:  # what hits all segments is seen sooner in all of them; sums of several currencies mean nothing
        total = " UNION ALL SELECT 'volume', 'amount', '', day, sum(coalesce(m0, 0)), sum(coalesce(m0, 0)) FROM filled GROUP BY ALL"
    return f"""
    WITH grouped AS MATERIALIZED (
      SELECT {segment} AS segment, {day}::DATE AS day, {values}
      FROM {table} WHERE {day} >= $first::DATE AND {day} < $last::DATE + 1 GROUP BY ALL
    ),
    stretches AS (SELECT segment, min(day) AS begin FROM grouped GROUP BY ALL),
    days AS (SELECT segment, unnest(generate_series(begin, $last::DATE, INTERVAL 1 DAY))::DATE AS day FROM stretches),
    filled AS MATERIALIZED (SELECT * FROM days LEFT JOIN grouped USING (segment, day))
    {" UNION ALL ".join(told)}{total}
    """


def _chance(metric: str, kind: str, expected: float, rows: float) -> float:
    """How much chance alone moves a count or a share of so many rows: few rows vary more than the weeks before may have shown."""
    if kind == "share":
        return 0.5 / math.sqrt(max(rows, 1))
    return 1 / math.sqrt(max(expected, 1)) if metric == "volume" else 0.0


def _value(kind: str, y: float) -> float:
    return math.exp(y) - 1 if kind == "amount" else math.sin(min(max(y, 0), math.pi / 2)) ** 2


def _finding(table: str, watched: Watched, one: Judged, now: datetime) -> Finding:
    what, _, column = one.metric.rpartition(" ") if " " in one.metric else (one.metric, "", "")
    of = f" of {watched.by} {one.segment}" if one.segment else ""
    observed = f"{one.metric}{of} on {one.day}: {one.value:,.4g}" + ("" if one.is_alone else ", and the two days before are alike")
    usual = _value(one.kind, one.y - ((one.alone if one.is_alone else one.together) or 0))
    query = f"SELECT {quoted(watched.day)}::DATE AS day, count(*) AS table_rows FROM {table} GROUP BY 1 ORDER BY 1 DESC LIMIT {SAMPLE_ROWS}"
    since = datetime(one.day.year, one.day.month, one.day.day, tzinfo=now.tzinfo)
    name = f"unusual {what}" + (f" ({one.segment})" if one.segment else "")
    return Finding(name, table, column or None, "warning", observed, f"about {usual:,.4g}, as in the weeks before", since, query)
