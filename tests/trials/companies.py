"""Orders of invented companies, by two generators that know nothing of each other, at any size; and the best that can be known of their days."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import duckdb
import numpy as np
from scipy import stats

from monitoring.expectations import Watched

BEGIN = date(2025, 1, 1)
WATCHED = Watched(day="ordered_at", by="currency", sums=["revenue"], means=["revenue"], null_rates=["country"], distinct_shares=["user_id"])
SERIES = 13
"""Five metrics of two currencies, the volume of both, and the sum and mean of both together."""
Array = np.ndarray[Any, Any]


@dataclass
class Days:
    """What a generator makes of so many days.

    Attributes:
        expected: rows a day, as somebody knows them who knows everything but this day's chance.
        draw: that many again and again: (days) -> (times, days).
        special: days declared to be special.
        lower: by how much the mean amount of so many rows must be lower to be found with that certainty: (rows, factor, false alarm) -> probability.
    """

    counts: Array
    expected: Array
    draw: Callable[[np.random.Generator, Array, int], Array]
    special: list[int]
    amounts: Callable[[int], Array]
    lower: Callable[[Array, float, float], Array]
    nulls: float


def with_season(random: np.random.Generator, days: int, base: float) -> Days:
    """Weekdays, growth and lognormal noise, Poisson counts; holidays that are slow and promotions that are not, all declared."""
    growth, noise = random.uniform(-0.2, 1.0), random.uniform(0.03, 0.08)
    weekday = random.uniform(0.85, 1.15, 7)
    weekday[5:] *= random.uniform(0.4, 1.1)
    expected = base * (1 + growth) ** (np.arange(days) / 365) * weekday[np.arange(days) % 7]
    level, special = expected * np.exp(random.normal(0, noise, days)), []
    for begin in random.choice(days - 4, max(14 * days // 365, 1), replace=False):
        is_promotion = random.random() < 0.3
        length = 3 if is_promotion else 1
        level[begin : begin + length] *= random.uniform(1.5, 2.5) if is_promotion else random.uniform(0.2, 0.6)
        special += range(begin, begin + length)
    spread = random.uniform(0.4, 0.8)

    def lower(rows: Array, factor: float, false: float) -> Array:
        return stats.norm.cdf(-np.log(factor) * np.sqrt(rows) / spread + stats.norm.ppf(false))

    def draw(other: np.random.Generator, mean: Array, times: int) -> Array:
        return other.poisson(mean * np.exp(other.normal(0, noise, (times, len(mean)))))

    return Days(random.poisson(level), expected, draw, special, lambda count: random.lognormal(3, spread, count), lower, random.uniform(0, 0.1))


def with_memory(random: np.random.Generator, days: int, base: float) -> Days:
    """Noise that remembers the day before, a yearly wave, counts that vary more than chance and gamma amounts; a week off, declared."""
    wave, phase = random.uniform(0, 0.3), random.uniform(0, 6.3)
    latent = np.zeros(days)
    for day in range(1, days):
        latent[day] = 0.5 * latent[day - 1] + random.normal(0, 0.04)
    weekday = random.gamma(30, 1 / 30, 7)
    season = base * (1 + wave * np.sin(np.arange(days) * 6.283 / 365 + phase)) * weekday[np.arange(days) % 7]
    level = season * np.exp(latent)
    begin = int(random.integers(0, max(days - 7, 1)))
    special = list(range(begin, min(begin + 7, days))) if days >= 365 else []
    level[special] *= 0.3
    size, shape = random.uniform(200, 1000), random.uniform(1.5, 4)

    def lower(rows: Array, factor: float, false: float) -> Array:
        return stats.gamma.cdf(stats.gamma.ppf(false, rows * shape) / factor, rows * shape)

    def draw(other: np.random.Generator, mean: Array, times: int) -> Array:
        return other.negative_binomial(size, size / (size + mean * np.exp(other.normal(0, 0.04, (times, len(mean))))))

    known = season * np.exp(0.5 * np.concatenate([[0.0], latent[:-1]]))
    counts = random.negative_binomial(size, size / (size + level))
    return Days(counts, known, draw, special, lambda count: random.gamma(shape, 10, count), lower, random.uniform(0, 0.3))


GENERATORS = {"season": with_season, "memory": with_memory}


@dataclass
class Company:
    """Orders of so many days in marts.orders: two currencies; users come back as often as the seed says."""

    connection: duckdb.DuckDBPyConnection
    made: Days
    days: int

    @property
    def last(self) -> date:
        """Its last day."""
        return BEGIN + timedelta(days=self.days - 1)

    @property
    def special(self) -> list[date]:
        """The days that it has declared to be special."""
        return [BEGIN + timedelta(days=int(day)) for day in self.made.special]


def company(generator: str, seed: int, days: int, base: float) -> Company:
    """A company of a seed, with so many orders a day at its beginning."""
    import pyarrow

    random = np.random.default_rng([seed, len(generator), int(base)])
    made = GENERATORS[generator](random, days, base)
    share, rows = random.uniform(0.4, 0.8), int(made.counts.sum())
    users = max(int(made.counts.mean() * random.uniform(2, 50)), 10)
    orders = {
        "day": np.repeat(np.arange(days), made.counts), "second": random.integers(0, 86_400, rows), "is_euro": random.random(rows) < share,
        "amount": made.amounts(rows), "chance": random.random(rows), "has_country": random.random(rows) >= made.nulls,
        "user_id": random.integers(0, users, rows),
    }  # fmt: skip
    connection = duckdb.connect(config={"threads": 2})
    connection.execute("SET TimeZone = 'UTC'; CREATE SCHEMA marts")
    connection.register("orders", pyarrow.table(orders))
    connection.execute(
        f"CREATE TABLE marts.orders AS SELECT TIMESTAMP '{BEGIN}' + INTERVAL (day) DAY + INTERVAL (second) SECOND AS ordered_at, "
        "CASE WHEN is_euro THEN 'EUR' ELSE 'USD' END AS currency, amount::DECIMAL(12, 2) AS revenue, CASE WHEN has_country THEN 'DE' END AS country, "
        "user_id, chance FROM orders"
    )
    connection.unregister("orders")
    return Company(connection, made, days)
