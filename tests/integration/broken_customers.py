"""One bad row for every rule of every contract and every audit of the marts of customers and days, and the statement that breaks it."""

from integration import broken_revenue

Broken = tuple[str, str | None, str, str]
DAYS, IDENTITIES, CUSTOMERS = "marts.date_dim", "marts.identity_map", "marts.customer_360"
PREDICTIONS, CHURNED, LIFETIME = "marts.customer_predictions", "marts.churned_customers", "marts.customer_lifetime_value"

_MISSING = {
    DAYS: "date year iso_year iso_week weekday is_weekend fiscal_year",
    IDENTITIES: "source source_key customer_key match_method is_ambiguous",
    CUSTOMERS: "customer_key orders active_subscriptions disputes tickets status",
    PREDICTIONS: "user_id currency prediction_days fitted_customers inputs_hash",
    CHURNED: "customer_key kind reason last_active_date churned_date",
    LIFETIME: "repeat_revenue",
}
_KEYS = {DAYS: "date", IDENTITIES: None, CUSTOMERS: "customer_key", PREDICTIONS: None, CHURNED: None}
WARNINGS = broken_revenue.WARNINGS | {"rarely_ambiguous"}
GOOD = broken_revenue.GOOD | {
    (IDENTITIES, "source_key"): "i::VARCHAR",
    (IDENTITIES, "is_ambiguous"): "false",
    **{(table, "customer_key"): "i::VARCHAR" for table in (IDENTITIES, CUSTOMERS, CHURNED)},
    (CUSTOMERS, "status"): "'active'",
}
"""SQL for good values of row i where those of other tables would not do."""


def _first(table: str, change: str) -> str:
    return f"UPDATE {table} SET {change} WHERE rowid = 0"


BROKEN: list[Broken] = [
    *((table, column, "missing", _first(table, f"{column} = NULL")) for table, columns in _MISSING.items() for column in columns.split()),
    *((table, key, "duplicate", f"INSERT INTO {table} SELECT * FROM {table} WHERE rowid = 0") for table, key in _KEYS.items()),
    (DAYS, "iso_week", "invalid", _first(DAYS, "iso_week = 54")),
    (IDENTITIES, "is_ambiguous", "rarely_ambiguous", _first(IDENTITIES, "is_ambiguous = true")),
    (CUSTOMERS, None, "customer_is_known", _first(IDENTITIES, "customer_key = 'nobody'")),
    (CUSTOMERS, "status", "invalid", _first(CUSTOMERS, "status = 'lost'")),
    (CHURNED, "churned_date", "not_before_last_active", _first(CHURNED, "churned_date = last_active_date - 1")),
    *((table, "probability_alive", "between_0_and_1", _first(table, f"probability_alive = {value}"))
      for table in (CUSTOMERS, PREDICTIONS, CHURNED) for value in ("1.000001", "-0.000001")),
    *((table, column, "not_negative", _first(table, f"{column} = -0.01"))
      for table, column in ((CUSTOMERS, "revenue"), (CUSTOMERS, "mrr"), (PREDICTIONS, "predicted_purchases"), (PREDICTIONS, "predicted_revenue"),
                            (LIFETIME, "repeat_revenue"))),
]  # fmt: skip

COMBINED = (IDENTITIES, PREDICTIONS, CHURNED)
NEVER_NULL = {
    DAYS: ("{date_dim}", "date year iso_year iso_week weekday fiscal_year"),
    IDENTITIES: ("{identity_map}", _MISSING[IDENTITIES]),
    CUSTOMERS: ("{customer_360}", "customer_key orders tickets disputes active_subscriptions status"),
    PREDICTIONS: ("{customer_predictions}", "user_id currency inputs_hash"),
    CHURNED: ("{churned_customers}", _MISSING[CHURNED]),
}
_TABLE = {model: table for model, (table, _) in NEVER_NULL.items()}


def _one(model: str, change: str, where: str = "true") -> str:
    table = _TABLE[model]
    return f"UPDATE {table} SET {change} WHERE rowid = (SELECT MIN(rowid) FROM {table} WHERE {where})"


BROKEN_AUDITS: list[tuple[str, str, str]] = [
    *((DAYS, "no_day_is_missing", f"DELETE FROM {_TABLE[DAYS]} WHERE date = '{day}'") for day in ("1997-06-15", "1998-02-19")),
    (DAYS, "no_day_is_missing", f"DELETE FROM {_TABLE[DAYS]} WHERE date < '1998-01-02'"),
    (IDENTITIES, "identities_match_staging", f"DELETE FROM {_TABLE[IDENTITIES]} WHERE source_key = '2'"),
    (IDENTITIES, "identities_match_staging", "DELETE FROM raw_postgres.users WHERE id = 2"),
    (IDENTITIES, "identities_match_staging", "UPDATE raw_stripe.customers SET livemode = false"),
    *(
        (IDENTITIES, "identities_are_of_one_user", _one(IDENTITIES, change, where))
        for change, where in (
            ("customer_key = 'postgres:2'", "user_id = 1"),
            ("user_id = 2, customer_key = 'postgres:2'", "source_key = '1' AND source = 'postgres'"),
            ("customer_key = 'postgres:1'", "source = 'stripe'"),
            ("unmatched_reason = NULL", "source = 'stripe'"),
            ("unmatched_reason = 'no_email'", "source = 'postgres'"),
            ("is_ambiguous = true", "source = 'postgres'"),
            ("is_ambiguous = true, keys_of_customer = 2", "source = 'stripe'"),
        )
    ),
    *(
        (PREDICTIONS, "predictions_match_lifetime_value", statement)
        for statement in (
            f"DELETE FROM {_TABLE[PREDICTIONS]} WHERE user_id = 2",
            "DELETE FROM {customer_lifetime_value} WHERE user_id = 2",
            _one(PREDICTIONS, "currency = 'GBP'"),
            _one(PREDICTIONS, "unpredicted_reason = NULL"),
            _one(PREDICTIONS, "probability_alive = 1.1"),
            _one(PREDICTIONS, "predicted_purchases = -0.1"),
            _one(PREDICTIONS, "predicted_revenue = -0.1"),
        )
    ),
    (CHURNED, "accepted_values", _one(CHURNED, "reason = 'moved'")),
    *(
        (CHURNED, "churned_are_customers_who_left", statement)
        for statement in (
            f"DELETE FROM {_TABLE[CHURNED]}",
            _one(CHURNED, "customer_key = 'stripe:c1'"),
            _one(CHURNED, "kind = 'orders'"),
            "UPDATE {subscription_history} SET valid_to = NULL WHERE mrr > 0",
        )
    ),
    *(
        (CUSTOMERS, "customers_hold_everything", statement)
        for statement in (
            f"DELETE FROM {_TABLE[CUSTOMERS]} WHERE user_id = 2",
            _one(CUSTOMERS, 'amounts = replace(amounts, \'"revenue":"\', \'"revenue":"1\')', "orders > 0"),
            *(_one(CUSTOMERS, f"{column} = {column} + 1") for column in ("orders", "tickets", "disputes")),
            "UPDATE {order_facts} SET revenue = revenue + 0.01 WHERE order_id = 1",
            "UPDATE {order_facts} SET currency = 'GBP' WHERE order_id = 1",
        )
    ),
]
