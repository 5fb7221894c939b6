"""Predictions: the published fits of the published data, what they got wrong in the months after, and nothing where nothing can be said."""

import csv
from collections import defaultdict
from collections.abc import Iterator
from datetime import date
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
from scipy.integrate import quad
from scipy.stats import beta

from macros.customer_base import alive, fingerprint, fit_purchases, fit_values, predictions, purchases_ahead, value_ahead
from warehouse.settings import ROOT

WHEEL = find_spec("lifetimes")  # located, not imported: its code needs packages that are not installed
assert WHEEL is not None
assert WHEEL.origin is not None
DATASETS = Path(WHEEL.origin).parent / "datasets"
END, HOLDOUT_END = date(1997, 9, 30), date(1998, 6, 30)
DAYS_AHEAD = (HOLDOUT_END - END).days
SETTINGS = {"prediction_days": 365, "minimum_customers": 100, "gross_margin": None}


def _published(name: str, *columns: str) -> list["np.ndarray[tuple[int], np.dtype[np.float64]]"]:
    with (DATASETS / name).open(encoding="ascii") as file:
        rows = list(csv.DictReader(file))
    return [np.array([float(row[column]) for row in rows]) for column in columns]


class Customer(NamedTuple):
    """What is known of a customer at the end of the training, in days, and what came after."""

    frequency: int
    recency: int
    t: int
    repeat_revenue: float
    later_purchases: int
    later_revenue: float


def _customers(name: str) -> Iterator[Customer]:
    sums: dict[str, dict[date, float]] = defaultdict(lambda: defaultdict(float))
    with (DATASETS / name).open(encoding="ascii") as file:
        for line in file:
            *_, customer, day, _, dollars = line.split()
            if day.isdigit():
                sums[customer][date(int(day[:4]), int(day[4:6]), int(day[6:]))] += float(dollars)
    for days in sums.values():
        trained = sorted(day for day in days if day <= END)
        later = [revenue for day, revenue in days.items() if day > END]
        repeated = sum(days[day] for day in trained[1:])
        yield Customer(len(trained) - 1, (trained[-1] - trained[0]).days, (END - trained[0]).days, repeated, len(later), sum(later))


def test_the_fits_of_the_published_sample_are_the_published_ones() -> None:
    """Fader, Hardie and Lee (2005), table 2 and the conditional expectation of customer 1 in 39 weeks; Fader and Hardie (2013), section 4."""
    x, t_x, age = _published("cdnow_customers_summary.csv", "frequency", "recency", "T")
    fitted = fit_purchases(x, t_x, age)
    assert fitted == pytest.approx((0.243, 4.414, 0.793, 2.426), abs=0.0006)
    assert purchases_ahead(fitted, x[:1], t_x[:1], age[:1], 39.0) == pytest.approx([1.226], abs=0.0005)
    x, m = _published("cdnow_customers_summary_with_transactions.csv", "x", "zbar")
    assert int((x > 0).sum()) == 946
    assert fit_values(x[x > 0], m[x > 0]) == pytest.approx((6.25, 3.74, 15.44), abs=0.01)


@pytest.mark.parametrize("fitted", [(0.243, 30.9, 0.793, 2.426), (0.57, 63.9, 1096.0, 1096.0), (57.0, 5949.0, 0.5, 1.6), (0.5, 60.0, 1.0, 2.0)])
def test_the_expectation_is_the_average_over_what_a_customer_may_be_like(fitted: tuple[float, float, float, float]) -> None:
    """By numerical integration over the probability of leaving, which knows nothing of hypergeometric functions; also where those overflow."""
    r, alpha, a, b = fitted
    x, t_x, age = np.array([0.0, 0.0, 1.0, 7.0, 170.0]), np.array([0.0, 0.0, 90.0, 200.0, 500.0]), np.array([0.0, 100.0, 100.0, 272.0, 520.0])
    found = purchases_ahead(fitted, x, t_x, age, 365.0) / alive(fitted, x, t_x, age)
    for number, expected in enumerate(found):
        leaves, shape, observed = beta(a, b + x[number]), r + x[number], alpha + age[number]

        def bought(share: float, leaves: Any = leaves, shape: float = shape, observed: float = observed) -> float:
            p = leaves.ppf(share)
            return float(-np.expm1(shape * np.log(observed / (observed + p * 365))) / p)

        assert quad(bought, 1e-12, 1, limit=200)[0] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("name", ["CDNOW_sample.txt", "CDNOW_master.txt"])
def test_the_error_of_39_weeks_is_the_one_that_the_page_states(name: str) -> None:
    customers = list(_customers(name))
    x, t_x, age, repeated, actual, spent = (np.array(column, dtype=float) for column in zip(*customers, strict=True))
    value = np.divide(repeated, x, out=np.zeros_like(x), where=x > 0)
    bought, worth = fit_purchases(x, t_x, age), fit_values(x[value > 0], value[value > 0])
    assert bought
    assert worth
    ahead = purchases_ahead(bought, x, t_x, age, float(DAYS_AHEAD))
    dollars = ahead * value_ahead(worth, x, value)
    error, naive = np.abs(ahead - actual).mean(), np.abs(x / age * DAYS_AHEAD - actual).mean()
    page = (ROOT / "docs/metrics/customers.md").read_text()
    column = {"CDNOW_sample.txt": 0, "CDNOW_master.txt": 1}[name]
    stated = [row.split("|")[2 + column].strip() for row in page[page.index("### How wrong it is") :].splitlines() if row.startswith("| ") and "---" not in row]
    assert stated[1:] == [
        f"{actual.sum():,.0f}, {ahead.sum():,.0f}",
        f"{100 * (ahead.sum() / actual.sum() - 1):.1f} %",
        f"{error:.3f}",
        f"{naive:.3f}",
        f"{spent.sum():,.0f}, {dollars.sum():,.0f}",
        f"{100 * (dollars.sum() / spent.sum() - 1):.1f} %",
    ]
    assert error < 0.8 * naive
    assert f"({len(customers):,}" in stated[0]


def _shop(customers: int, *, leave: bool = True, price: float | None = None) -> "pd.DataFrame":
    """Customers who buy and leave as BG/NBD says, each for about the same, or all for one price."""
    random = np.random.default_rng(1997)
    rows = []
    for customer in range(customers):
        rate, leaves, age = random.gamma(0.6) / 60, random.beta(0.8, 2.5), int(random.integers(50, 300))
        day, days = 0.0, {0}
        while (day := day + random.exponential(1 / rate)) < age:
            days.add(int(day))
            if leave and random.random() < leaves:
                break
        paid = (len(days) - 1) * (random.gamma(9, 3) if price is None else price)
        rows.append((customer, "USD", len(days) - 1, max(days), age, f"{paid:.2f}"))
    return pd.DataFrame(rows, columns=["user_id", "currency", "frequency", "recency", "t", "repeat_revenue"])


def test_the_same_orders_give_the_same_numbers_and_each_currency_its_own() -> None:
    dollars, euros, few = _shop(400), _shop(300).assign(currency="EUR"), _shop(50).assign(currency="GBP")
    together = pd.concat([dollars, euros, few], ignore_index=True)
    made = predictions(together, "h", 365, 100, 0.25)
    pd.testing.assert_frame_equal(made, predictions(together, "h", 365, 100, 0.25))
    alone = predictions(euros, "h", 365, 100, 0.25)
    pd.testing.assert_frame_equal(made[made.currency == "EUR"].reset_index(drop=True), alone)
    assert set(made[made.currency == "GBP"].unpredicted_reason) == {"too_few_customers"}
    assert made[made.currency == "GBP"].predicted_margin.isna().all()
    predicted = made[made.currency != "GBP"]
    assert predicted.unpredicted_reason.isna().all()
    assert predicted.probability_alive.between(0, 1).all()
    assert (predicted.predicted_margin.astype(float) - predicted.predicted_revenue.astype(float) * 0.25).abs().max() <= 0.005 + 1e-9


def test_customers_who_never_leave_and_a_price_that_never_varies_are_no_obstacle_and_gifts_have_no_value() -> None:
    made = predictions(_shop(400, leave=False), "h", **SETTINGS)
    assert made.probability_alive.min() > 0.99
    priced = predictions(_shop(400, price=10.0), "h", **SETTINGS)
    assert priced.predicted_purchase_value.astype(float).between(9.98, 10.02).all()
    free = predictions(_shop(400, price=0.0), "h", **SETTINGS)
    assert set(free.unpredicted_reason) == {"no_value"}
    assert free.predicted_purchases.gt(0).all()
    assert free.predicted_revenue.isna().all()


def test_what_was_computed_from_anything_else_has_another_hash() -> None:
    shop = _shop(5)
    known = fingerprint(shop, SETTINGS)
    assert known == fingerprint(shop.copy(), SETTINGS)
    assert known != fingerprint(shop, SETTINGS | {"prediction_days": 364})
    assert known != fingerprint(shop.assign(t=shop.t + 1), SETTINGS)
    assert known != fingerprint(shop.assign(repeat_revenue="0.01"), SETTINGS)
