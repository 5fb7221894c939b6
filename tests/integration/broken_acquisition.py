"""One bad row for every rule of every contract and every audit of the marts of acquisition, and the statement that breaks it."""

Broken = tuple[str, str | None, str, str]
VISITS, FUNNEL, ATTRIBUTION = "marts.acquisition_daily", "marts.funnel_daily", "marts.attribution"
SPENT, COST = "marts.marketing_spend", "marts.customer_acquisition_cost"
_MISSING = {
    VISITS: "property_id date source medium campaign channel sessions engaged_sessions users new_users key_events transactions",
    FUNNEL: "property_id date step event_name events users",
    ATTRIBUTION: "order_id user_id ordered_at is_first_order revenue currency property_id source medium campaign channel basis credited_order_id",
    SPENT: "date source medium campaign currency spend",
    COST: "month source medium new_customers reporting_currency spend_without_rate",
}
_KEYS = {VISITS: None, FUNNEL: None, ATTRIBUTION: "order_id", SPENT: None, COST: None}
_CURRENCIES = {VISITS: "currency", ATTRIBUTION: "currency", SPENT: "currency", COST: "reporting_currency"}
_NEVER_NEGATIVE = {VISITS: "users transactions", FUNNEL: "events users", ATTRIBUTION: "revenue", SPENT: "spend", COST: "spend"}
GOOD = {(ATTRIBUTION, "basis"): "'session'", (COST, "spend_without_rate"): "0", (COST, "new_customers"): "i + 1"}
"""SQL for good values of row i where those of other tables would not do."""


def _first(table: str, change: str) -> str:
    return f"UPDATE {table} SET {change} WHERE rowid = 0"


BROKEN: list[Broken] = [
    *((table, column, "missing", _first(table, f"{column} = NULL")) for table, columns in _MISSING.items() for column in columns.split()),
    *((table, key, "duplicate", f"INSERT INTO {table} SELECT * FROM {table} WHERE rowid = 0") for table, key in _KEYS.items()),
    *((table, column, "invalid", _first(table, f"{column} = 'eur'")) for table, column in _CURRENCIES.items()),
    *((table, "date", "not_in_the_future", _first(table, "date = DATE '2026-03-03'")) for table in (VISITS, FUNNEL)),
    *((table, column, "not_negative", _first(table, f"{column} = -1")) for table, columns in _NEVER_NEGATIVE.items() for column in columns.split()),
    (VISITS, "sessions", "not_negative", _first(VISITS, "sessions = -1, engaged_sessions = -1")),
    (VISITS, "engaged_sessions", "part_of_sessions", _first(VISITS, "engaged_sessions = sessions + 1")),
    *(
        (ATTRIBUTION, "credited_order_id", "own_or_earlier", _first(ATTRIBUTION, change))
        for change in ("credited_order_id = order_id + 1", "basis = 'earlier_order'")
    ),
    (COST, "new_customers", "not_negative", _first(COST, "new_customers = -1")),
    (COST, "spend", "whole_or_missing", _first(COST, "spend_without_rate = 1")),
    *((COST, "cost_per_customer", "only_of_spend", _first(COST, change)) for change in ("spend = NULL", "new_customers = 0")),
]

COMBINED = (VISITS, FUNNEL, COST)
NEVER_NULL = {
    VISITS: ("{acquisition_daily}", "property_id date source sessions"),
    FUNNEL: ("{funnel_daily}", "property_id step users"),
    ATTRIBUTION: ("{attribution}", "order_id basis"),
    COST: ("{customer_acquisition_cost}", "month new_customers"),
}
_TABLE = {model: table for model, (table, _) in NEVER_NULL.items()}


def _one(model: str, change: str, where: str = "true") -> str:
    table = _TABLE[model]
    return f"UPDATE {table} SET {change} WHERE rowid = (SELECT MIN(rowid) FROM {table} WHERE {where})"


def _spent(**changed: str) -> str:
    row = {"date": "'1998-01-01'", "source": "'google'", "medium": "'cpc'", "campaign": "'sale'", "currency": "'USD'", "spend": "1"} | changed
    return f"INSERT INTO {{marketing_spend}} ({', '.join(row)}) VALUES ({', '.join(row.values())})"


_STATEMENTS = {
    (VISITS, "visits_match_staging"): (
        *(_one(VISITS, f"{column} = COALESCE({column}, 0) + 1") for column in ("sessions", "new_users", "transactions", "revenue")),
        f"DELETE FROM {_TABLE[VISITS]}",
        "UPDATE raw_google_analytics.acquisition SET _deleted_at = '1998-02-21 10:00:00+00'",
        "UPDATE raw_google_analytics.acquisition SET date = DATE '1998-02-02'",
    ),
    (FUNNEL, "funnel_matches_events"): (
        *(_one(FUNNEL, f"{column} = {column} + 1") for column in ("events", "users")),
        f"DELETE FROM {_TABLE[FUNNEL]} WHERE step = 4",
        f"DELETE FROM {_TABLE[FUNNEL]}",
        "UPDATE raw_google_analytics.events SET event_count = 9 WHERE event_name = 'view_item'",
    ),
    (ATTRIBUTION, "credit_is_given_once"): (
        f"DELETE FROM {_TABLE[ATTRIBUTION]}",
        _one(ATTRIBUTION, "revenue = revenue + 0.01"),
        _one(ATTRIBUTION, "currency = 'GBP'"),
        _one(ATTRIBUTION, "credited_order_id = 99"),
        _one(ATTRIBUTION, "ordered_at = ordered_at + INTERVAL 1 DAY", "order_id = 1"),
        _one(ATTRIBUTION, "ordered_at = ordered_at - INTERVAL 31 DAY", "order_id = 1"),
        "UPDATE raw_google_analytics.transactions SET transaction_id = '4'",
    ),
    (COST, "customers_and_spend_are_whole"): (
        _one(COST, "new_customers = new_customers + 1"),
        _one(COST, "spend = 1"),
        _one(COST, "spend_without_rate = 1"),
        f"DELETE FROM {_TABLE[COST]}",
        _spent(),
    ),
    (SPENT, "not_null"): tuple(_spent(**{column: "NULL"}) for column in ("date", "spend")),
    (SPENT, "unique_combination_of_columns"): (f"{_spent()}; {_spent(spend='2')}",),
    (SPENT, "forall"): (_spent(spend="-1"), _spent(currency="'usd'")),
}
BROKEN_AUDITS: list[tuple[str, str, str]] = [(model, audit, statement) for (model, audit), statements in _STATEMENTS.items() for statement in statements]
