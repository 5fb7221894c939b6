"""What a customer base that buys without a contract will buy: BG/NBD for how often, gamma-gamma for how much.

Fader, Hardie and Lee (2005), "Counting Your Customers" the Easy Way; Fader and Hardie (2013), The Gamma-Gamma Model of Monetary
Value. In their notation a customer bought again on `x` days, the last time at age `t_x`, and is observed until age `T`; the
repeat days brought `m` on average. No macro: marts.customer_predictions calls these functions, and SQLMesh keeps their text with it.
"""

from collections.abc import Callable
from typing import Any

Array = Any
"""A numpy array; numpy is imported where it is used."""

Frame = Any
"""A pandas data frame."""


def fit_purchases(x: Array, t_x: Array, age: Array) -> "tuple[float, float, float, float] | None":
    """The most likely r, alpha, a, b of BG/NBD, in the unit of time of the ages; None where no maximum is found.

    Customers who bought alike count together, so that the time grows with the kinds of histories and not with the customers.
    """
    import numpy as np
    from scipy.special import gammaln  # type: ignore[import-untyped]  # scipy ships no types

    if not np.any(x > 0):
        return None
    kinds, customers = np.unique(np.stack([x, t_x, age]).astype(float), axis=1, return_counts=True)
    x, t_x, age = kinds
    # Ages are scaled to at most 1, or alpha would be hundreds where the others are about 1; alpha is scaled back at the end.
    unit = float(age.max()) or 1.0
    t_x, age, again = t_x / unit, age / unit, x > 0
    share = customers / customers.sum()
    often, which = np.unique(x, return_inverse=True)  # few counts differ, and theirs are the slow functions

    def surprise(logarithms: Array) -> float:
        r, alpha, a, b = np.exp(logarithms)
        alive = -(r + x) * np.log(alpha + age)
        gone = (np.log(a) - np.log(np.maximum(b + often - 1, 1e-300)))[which] - (r + x) * np.log(alpha + t_x)
        bought = gammaln(r + often) - gammaln(r) + r * np.log(alpha) + gammaln(a + b) + gammaln(b + often) - gammaln(b) - gammaln(a + b + often)
        return -float(np.sum(share * (bought[which] + np.where(again, np.logaddexp(alive, gone), alive))))

    found = _most_likely(surprise, [0.5, 0.2, 1.0, 2.0])
    return None if found is None else (found[0], found[1] * unit, found[2], found[3])


def fit_values(x: Array, m: Array) -> "tuple[float, float, float] | None":
    """The most likely p, q, v of gamma-gamma, of customers with x > 0 and m > 0; None where no maximum is found or there is no mean (q <= 1)."""
    import numpy as np
    from scipy.special import gammaln

    if not len(m):
        return None
    scale = float(np.mean(m))
    m = m / scale

    def surprise(logarithms: Array) -> float:
        p, q, v = np.exp(logarithms)
        shape = p * x
        terms = gammaln(shape + q) - gammaln(shape) - gammaln(q) + q * np.log(v) + (shape - 1) * np.log(m) + shape * np.log(x)
        return -float(np.mean(terms - (shape + q) * np.log(x * m + v)))

    found = _most_likely(surprise, [2.0, 3.0, 1.0])
    return (found[0], found[1], found[2] * scale) if found and found[1] > 1 else None


def _most_likely(surprise: "Callable[[Array], float]", start: "list[float]") -> "list[float] | None":
    """The parameters, all above 0, of whose logarithms the function is least; None where none is found.

    One at the edge is an answer too: customers who never leave, who are all alike, or a price that never varies.
    """
    import numpy as np
    from scipy.optimize import minimize  # type: ignore[import-untyped]  # scipy ships no types

    edges = [(-7.0, 7.0)] * len(start)
    best = minimize(surprise, np.log(start), method="L-BFGS-B", jac="3-point", bounds=edges, options={"maxiter": 1000, "ftol": 1e-14, "gtol": 1e-7})
    slope = np.where(np.abs(best.x) < edges[0][1], best.jac, 0.0)
    is_least = bool(np.isfinite(best.fun)) and bool(np.all(np.abs(slope) < 1e-4))
    return [float(value) for value in np.exp(best.x)] if is_least else None


def fingerprint(customers: Frame, settings: "dict[str, Any]") -> str:
    """SHA-256 of everything that `predictions` computes from."""
    import hashlib
    import json

    rows = customers.to_csv(index=False).encode()
    return hashlib.sha256(rows + json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()


def predictions(customers: Frame, inputs_hash: str, prediction_days: int, minimum_customers: int, gross_margin: "float | None") -> Frame:
    """The rows of marts.customer_predictions.

    Args:
        customers: user_id, currency, frequency, recency and t in days, repeat_revenue as text; sorted, so that sums are the same each time.
        minimum_customers: of a currency in which fewer bought again, nothing is predicted.
        gross_margin: share of revenue, 0 to 1; None where none is declared.
    """
    import pandas as pd  # type: ignore[import-untyped]  # pandas ships no types

    parts = [_of_currency(rows, prediction_days, minimum_customers) for _, rows in customers.groupby("currency", sort=True)]
    columns = ["user_id", "currency", "probability_alive", "predicted_purchases", "predicted_purchase_value", "predicted_revenue", "predicted_margin"]
    names = [*columns, "prediction_days", "unpredicted_reason", "fitted_customers", "r", "alpha", "a", "b", "p", "q", "v", "inputs_hash"]
    frame = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=names)
    margin = None if gross_margin is None else float(gross_margin)
    frame["predicted_margin"] = None if margin is None else (frame["predicted_revenue"].astype(float) * margin).round(2)
    return frame.assign(prediction_days=prediction_days, inputs_hash=inputs_hash)[names]


def _of_currency(rows: Frame, prediction_days: int, minimum_customers: int) -> Frame:
    import numpy as np

    x, t_x, age, repeated = (rows[name].to_numpy(dtype=float) for name in ("frequency", "recency", "t", "repeat_revenue"))
    made = rows[["user_id", "currency"]].copy()
    made[["probability_alive", "predicted_purchases", "predicted_purchase_value", "predicted_revenue", "r", "alpha", "a", "b", "p", "q", "v"]] = np.nan
    made["fitted_customers"] = len(rows)
    if int((x > 0).sum()) < minimum_customers:
        return made.assign(unpredicted_reason="too_few_customers")
    bought = fit_purchases(x, t_x, age)
    if bought is None:
        return made.assign(unpredicted_reason="no_fit")
    ahead = purchases_ahead(bought, x, t_x, age, float(prediction_days))
    if not np.all(np.isfinite(ahead)):
        return made.assign(unpredicted_reason="no_fit")
    made["probability_alive"], made["predicted_purchases"] = alive(bought, x, t_x, age).round(6), ahead.round(6)
    made["r"], made["alpha"], made["a"], made["b"] = bought
    spent = np.divide(repeated, x, out=np.zeros_like(repeated), where=x > 0)
    priced = (x > 0) & (spent > 0)  # a gift is a purchase of no value, of which the model of values cannot speak
    worth = fit_values(x[priced], spent[priced]) if int(priced.sum()) >= minimum_customers else None
    if worth is None:
        return made.assign(unpredicted_reason="no_value")
    value = value_ahead(worth, x, spent)
    made["predicted_purchase_value"], made["predicted_revenue"] = value.round(2), (ahead * value).round(2)
    made["p"], made["q"], made["v"] = worth
    return made.assign(unpredicted_reason=None)


def alive(fitted: "tuple[float, float, float, float]", x: Array, t_x: Array, age: Array) -> Array:
    """The probability that each customer will ever buy again; 1 for those who bought once, of whom the model cannot tell."""
    import numpy as np

    r, alpha, a, b = fitted
    odds = np.log(a) - np.log(np.maximum(b + x - 1, 1e-300)) + (r + x) * (np.log(alpha + age) - np.log(alpha + t_x))
    return np.where(x > 0, 1 / (1 + np.exp(np.minimum(odds, 700))), 1.0)


def purchases_ahead(fitted: "tuple[float, float, float, float]", x: Array, t_x: Array, age: Array, ahead: float) -> Array:
    """On how many days each customer is expected to buy in the time `ahead`."""
    import numpy as np
    from scipy.special import hyp2f1

    r, alpha, a, b = fitted
    a = a if abs(a - 1) > 1e-5 else 1 + 1e-5  # the formula has a removable gap at 1
    z, c = ahead / (alpha + age + ahead), a + b + x - 1
    # Two spellings of one term, by Euler's transformation: the first is the published one, and each overflows where the other does not.
    with np.errstate(over="ignore", invalid="ignore"):
        left = np.where(
            r + x <= np.maximum(a - 1, 20),
            (1 - z) ** (r + x) * hyp2f1(r + x, b + x, c, z),
            (1 - z) ** (a - 1) * hyp2f1(a + b - 1 - r, a - 1, c, z),
        )
    return np.maximum(c / (a - 1) * (1 - left), 0) * alive(fitted, x, t_x, age)


def value_ahead(fitted: "tuple[float, float, float]", x: Array, m: Array) -> Array:
    """What a day with a purchase is expected to bring of each customer: the mean of all where nothing was bought again."""
    p, q, v = fitted
    return p * (v + x * m) / (p * x + q - 1)
