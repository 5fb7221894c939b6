"""Faults that show only in how many or how much, at three sizes of company, beside two baselines and what anybody could find at best.

Each fault is done to every day of a company. Of a day that is tried, its damaged sums stand in for the true ones, alone or with
those of the two days after it; the days before are as they were. So the code that judges is the product's own, from the query on.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from monitoring import usual
from monitoring.anomalies import Series, daily, judged
from trials.companies import BEGIN, GENERATORS, WATCHED, Company, company
from trials.counted import Counted

TRIED = 8
"""Days of each company that are tried."""
DAYS = usual.WINDOW_DAYS + 5 * TRIED + 3
YEAR = 365
ALLOWED = 2.0
"""Unexplained alarms a metric and year."""
TABLE = "marts.orders"
Fault = tuple[str, tuple[str, str, str]]
LOST, SMALLER = "rows lost", "amounts too small"


def _each(sql: str, *values: float | str) -> tuple[str, str, str]:
    first, second, third = (sql.replace("SEVERITY", str(value)) for value in values)
    return first, second, third


FAULTS: tuple[Fault, ...] = (
    (LOST, _each(f"DELETE FROM {TABLE} WHERE chance < SEVERITY", 0.3, 0.5, 0.8)),
    (SMALLER, _each(f"UPDATE {TABLE} SET revenue = revenue * SEVERITY", 0.7, 0.5, 0.2)),
    ("one currency lost", _each(f"DELETE FROM {TABLE} WHERE currency = 'USD' AND chance < SEVERITY", 0.3, 0.5, 1)),
    ("rows twice", _each(f"INSERT INTO {TABLE} SELECT * FROM {TABLE} WHERE chance < SEVERITY", 0.3, 0.5, 1)),
    ("amounts in minor units", _each(f"UPDATE {TABLE} SET revenue = revenue * 100 WHERE chance < SEVERITY", 0.05, 0.2, 1)),
    ("the end of the day lost", _each(f"DELETE FROM {TABLE} WHERE hour(ordered_at) >= SEVERITY", 16, 12, 5)),
    ("amounts nought", _each(f"UPDATE {TABLE} SET revenue = 0 WHERE chance < SEVERITY", 0.3, 0.5, 0.8)),
    ("countries empty", _each(f"UPDATE {TABLE} SET country = NULL WHERE chance < SEVERITY", 0.3, 0.5, 0.8)),
    ("one user has all orders", _each(f"UPDATE {TABLE} SET user_id = 1 WHERE chance < SEVERITY", 0.5, 0.8, 1)),
)


@dataclass
class Found:
    """How often one fault was found: on its first day, within three days that it lasts, by the 14-day z-score within them, and by who knows all."""

    at_once: Counted
    in_time: Counted
    z_score: Counted
    best: list[float]
    best_of_table: list[float]


def series_of(one: Company) -> list[Series]:
    """Every metric of every day."""
    return daily(one.connection, TABLE, WATCHED, BEGIN, one.last)


def clean_years(generator: str, seed: int, base: float, length: int = YEAR) -> tuple[int, int]:
    """Alarms of a clean company in so many days: ours (all metrics), and the z-score's (four metrics). Days of a series that follow each other are one."""
    one = company(generator, seed, usual.WINDOW_DAYS - 1 + length, base)
    series = series_of(one)
    ours = judged(series, BEGIN, one.special).is_unusual
    alarms = [alarm[-length:] for alarm in (ours, _z_scores(series))]
    one.connection.close()
    first, second = (int((alarm & ~np.pad(alarm, ((1, 0), (0, 0)))[:-1]).sum()) for alarm in alarms)
    return first, second


def faults(seeds: Sequence[int], base: float, false_alarms: float, generators: Sequence[str] = tuple(GENERATORS),
           wanted: Sequence[Fault] = FAULTS) -> Iterator[tuple[str, str, int, Found]]:  # fmt: skip
    """Each generator, fault and severity of companies of a size.

    Args:
        false_alarms: alarms a day that the clean companies of this size have in all metrics.
    """
    for generator in generators:
        counted: dict[tuple[str, int], Found] = defaultdict(lambda: Found(Counted(), Counted(), Counted(), [], []))
        for seed in seeds:
            one = company(generator, seed, DAYS, base)
            series, special = series_of(one), set(one.made.special)
            tried = [day for day in range(usual.WINDOW_DAYS, DAYS - 2, 5) if not special & set(range(day - 2, day + 3))]
            usual_alarms = judged(series, BEGIN, one.special).is_unusual
            usual_scores = _z_scores(series)
            for name, severities in wanted:
                for severity, sql in enumerate(severities):
                    one.connection.begin()
                    one.connection.execute(sql)
                    damaged = series_of(one)
                    one.connection.rollback()
                    here = counted[name, severity]
                    for day in tried:
                        alarms = [_new(series, damaged, day, last, one, usual_alarms) for last in range(day, day + 3)]
                        here.at_once.add(alarms[0])
                        here.in_time.add(any(alarms))
                        scores = _z_scores(_mixed(series, damaged, day, day + 2)) & ~usual_scores
                        here.z_score.add(scores[day : day + 3].any())
                    if severity < 2 and name in (LOST, SMALLER):
                        left = (0.7, 0.5)[severity]
                        here.best.append(_best(one, tried, name, left, ALLOWED / YEAR))
                        here.best_of_table.append(_best(one, tried, name, left, max(false_alarms, ALLOWED / YEAR)))
            one.connection.close()
        yield from ((generator, name, severity, found) for (name, severity), found in counted.items())


def _new(series: list[Series], damaged: list[Series], first: int, last: int, one: Company, usually: np.ndarray) -> bool:
    """Whether a day has an alarm that it has not without the fault."""
    begin = last - usual.WINDOW_DAYS + 1
    mixed = [replace(each, values=each.values[begin : last + 1], chance=each.chance[begin : last + 1]) for each in _mixed(series, damaged, first, last)]
    day = BEGIN.fromordinal(BEGIN.toordinal() + begin)
    return bool((judged(mixed, day, one.special).is_unusual[0] & ~usually[begin]).any())


def _mixed(series: list[Series], damaged: list[Series], first: int, last: int) -> list[Series]:
    """The series, with damaged days. A segment that lost every row of every day counts nothing."""
    other = {(each.metric, each.segment): each for each in damaged}
    made = []
    for each in series:
        values, chance = each.values.copy(), each.chance.copy()
        nothing = 0.0 if each.metric.split(" ")[0] in ("volume", "sum") else np.nan
        found = other.get((each.metric, each.segment))
        values[first : last + 1] = nothing if found is None else found.values[first : last + 1]
        chance[first : last + 1] = 1.0 if found is None else found.chance[first : last + 1]
        made.append(replace(each, values=values, chance=chance))
    return made


def _z_scores(series: list[Series]) -> np.ndarray:
    """The second baseline: volume and revenue of a segment against the mean and deviation of its last 14 days, limit 3. (days, series)"""
    watched = np.stack([each.values for each in series if each.segment and each.metric.split(" ")[0] in ("volume", "sum")])
    before = np.lib.stride_tricks.sliding_window_view(np.nan_to_num(watched), 14, axis=1)[:, :-1]
    far = np.abs(np.nan_to_num(watched)[:, 14:] - before.mean(axis=2)) > 3 * before.std(axis=2, ddof=1)
    return np.pad(far, ((0, 0), (14, 0))).T


def _best(one: Company, tried: Sequence[int], name: str, left: float, false: float) -> float:
    """The power of the best test of whoever knows the generator, its parameters and yesterday's noise, and that rows or amounts are `left` of themselves."""
    expected = one.made.expected[list(tried)]
    if name == SMALLER:
        return float(one.made.lower(np.maximum(expected, 1), left, false).mean())
    random = np.random.default_rng(7)
    limit = np.quantile(one.made.draw(random, expected, 4000), false, axis=0)
    return float((random.binomial(one.made.draw(random, expected, 4000).astype(int), left) <= limit).mean())
