"""One bad row for every rule of every contract and every audit of the marts of subscriptions, and the statement that breaks it."""

Broken = tuple[str, str | None, str, str]
CHANGES, HISTORY, FACTS = "staging.stg_stripe__subscription_changes", "marts.subscription_history", "marts.subscription_facts"
MONTHS, MOVEMENTS, RETENTION = "marts.mrr_by_subscription_month", "marts.mrr_movements", "marts.subscription_retention"
PARTS = ["start_mrr", "new_mrr", "expansion_mrr", "contraction_mrr", "churn_mrr", "reactivation_mrr"]
NOTHING_MOVED = dict.fromkeys(PARTS[1:], "0")
"""Good values of the columns of movements: each month ends as it began."""

_MISSING = {
    CHANGES: "event_id subscription_id changed_at loaded_at",
    HISTORY: "subscription_id customer_id currency valid_from basis is_active mrr known_until",
    FACTS: "subscription_id is_active mrr quantity loaded_at",
    MONTHS: "subscription_id customer_id currency month mrr",
    MOVEMENTS: f"customer_id currency month {' '.join(PARTS)} end_mrr",
    RETENTION: "month currency opening_customers churned_customers opening_mrr expansion_mrr contraction_mrr churn_mrr",
}
_KEYS = {CHANGES: "event_id", FACTS: "subscription_id", HISTORY: None, MONTHS: None, MOVEMENTS: None, RETENTION: None}


def _first(table: str, change: str) -> str:
    return f"UPDATE {table} SET {change} WHERE rowid = 0"


BROKEN: list[Broken] = [
    *((table, column, "missing", _first(table, f"{column} = NULL")) for table, columns in _MISSING.items() for column in columns.split()),
    *((table, key, "duplicate", f"INSERT INTO {table} SELECT * FROM {table} WHERE rowid = 0") for table, key in _KEYS.items()),
    *((table, "currency", "invalid", _first(table, "currency = 'eur'")) for table in (HISTORY, FACTS, MONTHS, MOVEMENTS, RETENTION)),
    *((table, "month", "not_in_the_future", _first(table, "month = DATE '2026-03-02'")) for table in (MONTHS, MOVEMENTS, RETENTION)),
    *((table, "mrr", "not_negative", _first(table, "mrr = -0.000001")) for table in (HISTORY, FACTS, MONTHS)),
    (FACTS, "mrr", "only_while_active", _first(FACTS, "mrr = 1, is_active = false")),
    (FACTS, None, "only_live", _first("staging.stg_stripe__subscriptions", "is_live = false")),
    *(
        (MOVEMENTS, part, "not_negative", _first(MOVEMENTS, f"{part} = -1, end_mrr = {1 if part in ('contraction_mrr', 'churn_mrr') else -1}"))
        for part in PARTS
    ),
    (MOVEMENTS, "end_mrr", "adds_up", _first(MOVEMENTS, "end_mrr = 0.000001")),
    *(
        (RETENTION, rate, "between_0_and_1", _first(RETENTION, f"{rate} = {value}"))
        for rate in ("customer_churn_rate", "mrr_churn_rate", "gross_revenue_retention")
        for value in (-0.000001, 1.000001)
    ),
]

_PRICE = '{"unit_amount": 1000, "currency": "usd", "recurring": {"interval": "month", "interval_count": 1}}'
_ITEM = f'{{"price": {_PRICE}, "quantity": 1}}'
_CREATION = f'{{"data": {{"object": {{"id": "1", "status": "active", "items": {{"data": [{_ITEM}]}}}}}}}}'
OF = {
    "subscriptions": "'usd' AS currency, 'c1' AS customer_id, 'active' AS status",
    "subscription_items": f"'1' AS subscription_id, 1 AS quantity, '{_ITEM}' AS _object",
    "events": f"'customer.subscription.created' AS type, '{_CREATION}' AS _object",
}
"""Besides a key: a subscription that goes on, with its item and the event of its creation."""
ENDED = {
    "subscriptions": "'usd' AS currency, 'c2' AS customer_id, 'canceled' AS status, '1998-02-10 00:00:00+00'::TIMESTAMPTZ AS ended_at",
    "subscription_items": OF["subscription_items"].replace("'1' AS sub", "'2' AS sub"),
}
"""One that ended, known by nothing but what it is now."""

COMBINED = (HISTORY, MONTHS, MOVEMENTS, RETENTION)
NEVER_NULL = {
    CHANGES: ("raw_stripe.events", "id created_at"),
    HISTORY: ("{subscription_history}", _MISSING[HISTORY]),
    FACTS: ("{subscription_facts}", "subscription_id is_active mrr quantity"),
    MONTHS: ("{mrr_by_subscription_month}", _MISSING[MONTHS]),
    MOVEMENTS: ("{mrr_movements}", _MISSING[MOVEMENTS]),
    RETENTION: ("{subscription_retention}", "month currency opening_customers churned_customers opening_mrr"),
}
_TABLE = {model: table for model, (table, _) in NEVER_NULL.items()}


def _one(model: str, change: str, where: str = "true") -> str:
    table = _TABLE[model]
    return f"UPDATE {table} SET {change} WHERE rowid = (SELECT MIN(rowid) FROM {table} WHERE {where})"


def _without_one(model: str, where: str = "true") -> str:
    table = _TABLE[model]
    return f"DELETE FROM {table} WHERE rowid = (SELECT MIN(rowid) FROM {table} WHERE {where})"


BROKEN_AUDITS: list[tuple[str, str, str]] = [
    (CHANGES, "not_null", "UPDATE raw_stripe.events SET _object = '{{}}'"),
    *((model, "amount_is_valid", _one(model, "mrr = -0.000001")) for model in (HISTORY, FACTS, MONTHS)),
    *((model, "not_in_the_future", _one(model, "month = DATE '1998-03-02'")) for model in (MONTHS, MOVEMENTS, RETENTION)),
    *(
        (HISTORY, "history_is_whole", statement)
        for statement in (
            _without_one(HISTORY, "valid_to IS NULL"),
            _one(HISTORY, "valid_to = valid_to + INTERVAL 1 SECOND", "NOT valid_to IS NULL"),
            _one(HISTORY, "valid_to = valid_from", "NOT valid_to IS NULL"),
            f"INSERT INTO raw_stripe.subscriptions BY NAME SELECT '9' AS id, true AS livemode, false AS is_deleted, {OF['subscriptions']}",
        )
    ),
    *(
        (FACTS, "subscriptions_match_staging", statement)
        for statement in (
            _without_one(FACTS),
            _one(FACTS, "is_active = NOT is_active"),
            _one(FACTS, "mrr = mrr + 0.000001"),
            "UPDATE raw_stripe.subscriptions SET status = 'unpaid' WHERE id = '1'",
            "UPDATE raw_stripe.subscriptions SET livemode = false WHERE id = '1'",
        )
    ),
    *(
        (MONTHS, "months_match_history", statement)
        for statement in (
            _one(MONTHS, "mrr = mrr + 0.000001"),
            _one(MONTHS, "currency = 'EUR'"),
            *(_without_one(MONTHS, f"month = '{day}'") for day in ("1997-12-01", "1998-02-01")),
        )
    ),
    *((MOVEMENTS, "movements_add_up", _one(MOVEMENTS, f"{column} = {column} + 0.000001")) for column in (*PARTS, "end_mrr")),
    *(
        (MOVEMENTS, "movements_add_up", statement)
        for statement in (
            _without_one(MOVEMENTS, "month = '1998-02-01'"),
            _one(MOVEMENTS, "customer_id = 'c9'", "month = '1998-01-01'"),
            _one(MOVEMENTS, "new_mrr = new_mrr + 1, contraction_mrr = contraction_mrr + 1, churn_mrr = -1, start_mrr = start_mrr - 1"),
            _one(MONTHS, "mrr = mrr + 0.000001"),
            f"DELETE FROM {_TABLE[MOVEMENTS]}",
        )
    ),
    *((RETENTION, "forall", _one(RETENTION, f"gross_revenue_retention = {rate}")) for rate in ("1.000001", "-0.000001")),
    *((RETENTION, "retention_matches_movements", _one(RETENTION, f"{column} = {column} + 0.000001")) for column in ("opening_mrr", "churn_mrr")),
    (RETENTION, "retention_matches_movements", _without_one(RETENTION)),
    (RETENTION, "retention_matches_movements", _one(RETENTION, "currency = 'EUR'")),
]
