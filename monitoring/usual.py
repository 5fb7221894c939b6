"""What days let expect of the next ones, and how far off is unusual: the arithmetic of monitoring/anomalies.py, for any number of series at once.

A series is a metric of a segment, one value a day, on a scale on which ordinary noise is alike at every level: logarithms of
amounts, arc sines of shares. The last three days of a window are judged by those before them:

- a weekday's part is its mean difference from the level of the fortnight around, the level the mean of the last two weeks;
- what lies far from both is drawn in to 2.5 ordinary differences, so that a few bad days move neither;
- an ordinary difference is what chance does to so many rows, which is known, and what the weeks before varied beyond it.
"""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

HISTORY_DAYS = 84
LEVEL_DAYS = 14
JUDGED_DAYS = 3
WINDOW_DAYS = HISTORY_DAYS + JUDGED_DAYS
LEAST_DAYS = 28
"""Days of history that are needed before anything is judged."""
WORSE = {"amount": -1, "share": -1, "missing": 1}
"""Kinds of series, and where harm is: amounts and shares that are less than usual, shares of what is missing that are more."""
LIMIT_WORSE = {"amount": 2.9, "share": 3.3, "missing": 3.3}
"""So many ordinary differences towards harm are unusual, of a day as of three together. Rows and amounts that are lost break nothing else, so most
of the false alarms allowed are spent on them."""
LIMIT_BETTER = 4.2
"""The same away from it."""
LEAST_CHANGE = {"amount": math.log(1.22), "share": 0.12, "missing": 0.12}
"""What must have changed at the least, on the scale that is judged: a fifth of an amount; about 6 points of a share near a half."""
LEAST_NOISE = 0.02
_FAR = 2.5
_UNBIASED = 1.045
"""What drawing in to 2.5 takes from the variance of normal noise."""
_ESTIMATED = 1.2
"""By how much the variance of a difference is larger than that of a day, because level and weekday are estimated."""


@dataclass(frozen=True)
class Verdict:
    """Of each window (first axis) and series (second; then one for each pool): all on the scale that is judged, NaN where nothing can be said.

    Attributes:
        alone: the last day's difference from what is usual.
        together: the mean difference of the last three days.
        low, high: the least and the most that `alone` may be without being unusual.
        is_alone, is_together: whether either is unusual.
    """

    alone: "Array"
    together: "Array"
    low: "Array"
    high: "Array"
    is_alone: "Array"
    is_together: "Array"

    @property
    def is_unusual(self) -> "Array":
        """Whether the last day, or the last three together, are unusual."""
        return self.is_alone | self.is_together


def judge(values: "Array", chance: "Array", usable: "Array", weekdays: "Array", kinds: Sequence[str], pools: Sequence[Sequence[int]] = ()) -> Verdict:
    """Judge the last days of windows of days.

    Args:
        values: (windows, series, WINDOW_DAYS), on the scale that is judged; NaN where there is none.
        chance: the same shape; the variance that chance alone gives each value.
        usable: (windows, WINDOW_DAYS); False for days that are declared to be special.
        weekdays: (windows, WINDOW_DAYS), 0 to 6.
        kinds: of each series, one of `WORSE`.
        pools: series that are also judged as one, by the mean of their differences, the surest weighing most.
    """
    import numpy as np

    windows, series, days = values.shape
    flat = (windows * series, days)
    seen = np.repeat(usable, series, axis=0) & np.isfinite(values).reshape(flat)
    on = np.repeat(weekdays, series, axis=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of series that have no value at all
        differences = _differences(np.where(seen, values.reshape(flat), np.nan), on)
        differences[seen[:, :HISTORY_DAYS].sum(axis=1) < LEAST_DAYS] = np.nan
        by_chance = np.where(seen, chance.reshape(flat), np.nan)
        noise = np.maximum(_noise(differences[:, :HISTORY_DAYS], by_chance[:, :HISTORY_DAYS], on), LEAST_NOISE)
        skew = _skew(by_chance[:, :HISTORY_DAYS], noise)
        shape = (windows, series)
        differences, noise, skew = differences.reshape(values.shape), noise.reshape(shape), skew.reshape(shape)
        kinds = [*kinds, *(kinds[pool[0]] for pool in pools)]
        for pool in pools:
            pooled, its_noise = _pooled(differences[:, list(pool)], noise[:, list(pool)])
            differences = np.concatenate([differences, pooled[:, None]], axis=1)
            noise = np.concatenate([noise, its_noise[:, None]], axis=1)
            skew = np.concatenate([skew, np.zeros((windows, 1))], axis=1)
        history, judged = differences[..., :HISTORY_DAYS], differences[..., HISTORY_DAYS:]
        three_days = (history[..., 2:] + history[..., 1:-1] + history[..., :-2]) / 3
        noise_together = np.fmax(_spread(three_days), noise / math.sqrt(JUDGED_DAYS))
    least = np.array([LEAST_CHANGE[kind] for kind in kinds])
    less, more = (np.array([LIMIT_WORSE[kind] if WORSE[kind] == way else LIMIT_BETTER for kind in kinds]) for way in (-1, 1))
    # A logarithm of few rows falls further than it rises: the limits of a day follow (Cornish and Fisher's first term).
    skew = skew * np.array([kind == "amount" for kind in kinds]) / 6
    low = -np.maximum((less + skew * (less**2 - 1)) * noise, least)
    high = np.maximum((more - skew * (more**2 - 1)) * noise, least)
    alone, together = judged[..., -1], judged.mean(axis=-1)
    is_alone = (alone < low) | (alone > high)
    is_together = (-together > np.maximum(less * noise_together, least)) | (together > np.maximum(more * noise_together, least))
    return Verdict(alone, together, low, high, is_alone, is_together)


def _differences(values: "Array", weekdays: "Array") -> "Array":
    """Of each day from what the two weeks before it let expect on its weekday; the judged days expect nothing of each other."""
    import numpy as np

    history = values.copy()
    history[:, HISTORY_DAYS:] = np.nan
    part = _by_weekday(history, weekdays, np.nanmedian) - np.nanmedian(history, axis=1, keepdims=True)
    drawn_in = level = history
    for around in (np.nanmedian, np.nanmean):
        level = _centred(history - part, around)
        beside = history - part - level
        ordinary = 1.4826 * np.nanmedian(np.abs(beside), axis=1, keepdims=True)
        drawn_in = np.clip(beside, -_FAR * ordinary, _FAR * ordinary)
        part = _by_weekday(drawn_in + part, weekdays, np.nanmean)
        part -= np.nanmean(np.where(np.isfinite(history), part, np.nan), axis=1, keepdims=True)
    before, days = _mean_before(level + drawn_in, LEVEL_DAYS)
    differences: Array = np.where(days >= LEVEL_DAYS // 3, values - part - before, np.nan)
    return differences


def _by_weekday(values: "Array", weekdays: "Array", middle: "Callable[..., Array]") -> "Array":
    import numpy as np

    of_each = np.stack([middle(np.where(weekdays == day, values, np.nan), axis=1) for day in range(7)], axis=1)
    part: Array = np.take_along_axis(of_each, weekdays, axis=1)
    return part


def _centred(values: "Array", middle: "Callable[..., Array]") -> "Array":
    import numpy as np

    half = LEVEL_DAYS // 2
    around = np.pad(values, ((0, 0), (half, half)), constant_values=np.nan)
    level: Array = middle(np.lib.stride_tricks.sliding_window_view(around, 2 * half + 1, axis=1), axis=-1)
    return level


def _mean_before(values: "Array", days: int) -> "tuple[Array, Array]":
    """Of each day, the mean of the days before it, and how many of them have a value."""
    import numpy as np

    there = np.isfinite(values)
    sums = np.cumsum(np.pad(np.where(there, values, 0), ((0, 0), (1, 0))), axis=1)
    counts = np.cumsum(np.pad(there.astype(float), ((0, 0), (1, 0))), axis=1)
    last = np.arange(values.shape[1])
    first = np.maximum(last - days, 0)
    held = counts[:, last] - counts[:, first]
    means: Array = (sums[:, last] - sums[:, first]) / np.maximum(held, 1)
    return means, held


def _noise(differences: "Array", chance: "Array", weekdays: "Array") -> "Array":
    """The ordinary difference of the last day: what chance does on its weekday, and what the history varied beyond chance."""
    import numpy as np

    by_chance = _ESTIMATED * chance
    beyond, far = np.zeros(len(differences)), _FAR * _spread(differences)[:, None]
    for _ in range(4):
        drawn_in = np.clip(differences, -far, far)
        beyond = np.fmax(np.nanmean(drawn_in**2 * _UNBIASED - by_chance, axis=1), 0)
        far = _FAR * np.sqrt(by_chance + beyond[:, None])
    recent = np.where(np.arange(HISTORY_DAYS) >= HISTORY_DAYS // 2, by_chance, np.nan)
    at_last = np.nanmedian(np.where(weekdays[:, :HISTORY_DAYS] == weekdays[:, -1:], recent, np.nan), axis=1)
    noise: Array = np.sqrt(np.where(np.isfinite(at_last), at_last, np.nanmedian(recent, axis=1)) + beyond)
    return noise


def _skew(chance: "Array", noise: "Array") -> "Array":
    """Of the logarithm of a count whose noise is partly chance."""
    import numpy as np

    deviation = np.sqrt(np.nanmedian(chance[:, -LEVEL_DAYS:], axis=1))
    skew: Array = np.nan_to_num(np.minimum(deviation**4 / noise**3, 1))
    return skew


def _spread(differences: "Array") -> "Array":
    """The standard deviation of what is ordinary among differences, along the last axis."""
    import numpy as np

    ordinary: Array = 1.4826 * np.nanmedian(np.abs(differences), axis=-1)
    for _ in range(3):
        far = _FAR * ordinary[..., None]
        ordinary = np.sqrt(np.nanmean(np.clip(differences, -far, far) ** 2, axis=-1) * _UNBIASED)
    return ordinary


def _pooled(differences: "Array", noise: "Array") -> "tuple[Array, Array]":
    """Differences (windows, series, days) as one of each window, with its noise: never less than if the series were independent."""
    import numpy as np

    sure = np.where(np.isfinite(differences), 1 / noise[..., None] ** 2, 0)
    weight = sure.sum(axis=1)
    one = np.where(weight > 0, np.nansum(np.where(sure > 0, differences, 0) * sure, axis=1) / np.where(weight > 0, weight, 1), np.nan)
    least = np.sqrt(1 / np.nansum(1 / noise**2, axis=1))
    return one, np.fmax(_spread(one[:, :HISTORY_DAYS]), least)
