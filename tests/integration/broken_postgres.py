"""Three users and six orders, and how each audit of the models made of them is broken."""

FIRST_LOAD, SECOND_LOAD, THIRD_LOAD = "1998-02-20 10:00:00+00", "1998-02-21 10:00:00+00", "1998-02-22 10:00:00+00"
USER = "({}, 'a1', true, '***12', '***', 41, 'DE', 'consumer', '1996-12-31 23:00:00+00', '1997-01-01 00:00:00+00', '{}', NULL, NULL, 'k1')"
ORDER = "({}, {}, '{}', 2, {}, '{}', 'paid', '1998-01-01 00:00:00+00', '{}', NULL, NULL)"
ORDERS = [
    (1, 1, "1997-12-31 23:59:59.999+00", "11.77", "USD"),
    (2, 1, "1998-01-01 00:00:00+00", "12.00", "USD"),
    (3, 1, "1998-01-01 00:00:00+00", "12.00", "USD"),
    (4, 2, "1998-01-01 09:00:00+00", "0.00", "EUR"),
    (5, 2, "1998-02-03 09:00:00+00", "20.00", "EUR"),
    (6, 3, "1998-02-19 09:00:00+00", "7.00", "USD"),
]

# How each audit is broken: model, audit, SQL. Names in braces are the physical tables behind the models.
NEVER_NULL = {
    "staging.stg_postgres__orders": ("raw_postgres.orders", "id user_id ordered_at"),
    "staging.stg_postgres__users": ("raw_postgres.users", "id"),
    "marts.order_facts": ("{order_facts}", "order_id user_id ordered_at order_date revenue currency"),
    "marts.user_dim_history": ("{user_dim_history}", "user_id valid_from"),
    "marts.user_dim": ("{user_dim_history}", "user_id signup_date"),
    "marts.daily_revenue": ("{daily_revenue}", "date currency revenue net"),
    "marts.customer_lifetime_value": ("{customer_lifetime_value}", "user_id currency revenue"),
    "marts.cohort_retention": ("{cohort_retention}", "cohort_month months_since_first cohort_size active_customers retention_rate"),
}
COMBINED = ("marts.balance_reconciliation", "marts.user_dim_history", "marts.daily_revenue", "marts.customer_lifetime_value", "marts.cohort_retention")
MONEY = ("order_facts", "daily_revenue", "customer_lifetime_value")
TOTALS = ("daily_revenue", "customer_lifetime_value")


def one(table: str, change: str) -> str:
    return f"UPDATE {table} SET {change} WHERE rowid = (SELECT MIN(rowid) FROM {table})"


BROKEN_AUDITS: list[tuple[str, str, str]] = [
    *((f"marts.{name}", "amount_is_valid", one(f"{{{name}}}", "revenue = -0.01")) for name in MONEY),
    ("marts.order_facts", "amount_is_valid", "CREATE OR REPLACE TABLE {order_facts} AS SELECT * REPLACE ('NaN'::DOUBLE AS revenue) FROM {order_facts}"),
    ("marts.order_facts", "not_in_the_future", one("{order_facts}", "order_date = DATE '1998-03-02'")),
    ("marts.order_facts", "reference_exists", one("{order_facts}", "user_id = 99")),
    ("marts.order_facts", "reference_exists", "DELETE FROM raw_postgres.users WHERE id = 3"),
    ("marts.customer_lifetime_value", "reference_exists", one("{customer_lifetime_value}", "user_id = 99")),
    ("marts.customer_lifetime_value", "reference_exists", "DELETE FROM raw_postgres.users WHERE id = 3"),
    ("marts.order_facts", "orders_match_staging", "DELETE FROM {order_facts} WHERE order_id = 4"),
    ("marts.order_facts", "orders_match_staging", "INSERT INTO {order_facts} SELECT * REPLACE (9 AS order_id, 0 AS revenue) FROM {order_facts} LIMIT 1"),
    ("marts.order_facts", "orders_match_staging", "DELETE FROM {order_facts}"),
    *(
        ("marts.order_facts", "orders_match_staging", one("{order_facts}", change))
        for change in ("revenue = revenue + 0.01", "quantity = quantity + 1", "currency = 'GBP'")
    ),
    ("marts.order_facts", "orders_match_staging", one("raw_postgres.orders", f"_loaded_at = '{SECOND_LOAD}'")),
    (
        "marts.user_dim_history",
        "one_current_version",
        "INSERT INTO {user_dim_history} SELECT * REPLACE (valid_from + INTERVAL 1 DAY AS valid_from) FROM {user_dim_history}",
    ),
    ("marts.user_dim_history", "one_current_version", one("{user_dim_history}", "valid_to = valid_from")),
    ("marts.user_dim", "users_match_staging", "UPDATE {user_dim_history} SET valid_to = '1998-02-28' WHERE user_id = 3"),
    ("marts.user_dim", "users_match_staging", "DELETE FROM raw_postgres.users WHERE id = 3"),
    *(
        ("marts.user_dim", "users_match_staging", one("{user_dim_history}", change))
        for change in ("email_hash = 'b2'", "country = 'FR'", "segment = 'enterprise'", "age = 42", "age = NULL")
    ),
    *((f"marts.{name}", "totals_match_order_facts", one(f"{{{name}}}", "revenue = revenue + 0.01")) for name in TOTALS),
    *((f"marts.{name}", "totals_match_order_facts", one(f"{{{name}}}", "orders = orders + 1")) for name in TOTALS),
    *((f"marts.{name}", "totals_match_order_facts", one(f"{{{name}}}", "currency = 'GBP'")) for name in TOTALS),
    *((f"marts.{name}", "totals_match_order_facts", f"DELETE FROM {{{name}}} WHERE currency = 'EUR' AND orders > 0") for name in TOTALS),
    *(("marts.cohort_retention", "forall", one("{cohort_retention}", f"retention_rate = {rate}")) for rate in ("1.000001", "-0.000001")),
    ("marts.cohort_retention", "cohorts_hold_every_customer", one("{cohort_retention}", "active_customers = active_customers - 1, months_since_first = 0")),
    ("marts.cohort_retention", "cohorts_hold_every_customer", "DELETE FROM {cohort_retention} WHERE cohort_month = DATE '1998-02-01'"),
    (
        "marts.cohort_retention",
        "cohorts_hold_every_customer",
        "UPDATE {cohort_retention} SET cohort_size = cohort_size + 1, active_customers = active_customers + 1",
    ),
    ("marts.cohort_retention", "cohorts_hold_every_customer", "DELETE FROM {cohort_retention}"),
]
