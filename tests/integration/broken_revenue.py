"""One bad row for every rule of every contract and every audit of the revenue marts of Stripe, and the statement that breaks it."""

BALANCE, REFUNDS, DISPUTES = "marts.balance_transaction_facts", "marts.refund_facts", "marts.dispute_facts"
RECONCILED, RATES, REPORTED, DAYS = "marts.balance_reconciliation", "marts.exchange_rates", "marts.daily_revenue_reporting", "marts.daily_revenue"
Broken = tuple[str, str | None, str, str]

CATEGORIES = "charges charge_failures refunds disputes adjustments transfers top_ups reserves financing issuing payouts payouts_returned other fees"
MISSING = {
    BALANCE: "balance_transaction_id category currency amount fee net created_at created_date report_date loaded_at",
    REFUNDS: "refund_id created_at report_date currency amount moved_balance loaded_at",
    DISPUTES: "dispute_id created_at report_date currency amount settled_withdrawn settled_reinstated fee fee_reversed settled_net loaded_at",
    RECONCILED: f"currency date movements {CATEGORIES} balance_change difference payouts_stated payouts_in_transit payouts_difference other_movements "
    "amount_without_object balance running_difference running_payouts_difference",
    RATES: "valid_from currency reporting_currency rate",
    REPORTED: "date reporting_currency currencies currencies_without_rate",
    DAYS: "payments refunds disputes fees net",
}
KEYS = {BALANCE: "balance_transaction_id", REFUNDS: "refund_id", DISPUTES: "dispute_id", RECONCILED: None, RATES: None, REPORTED: "date"}
OBJECTS = {BALANCE: "balance_transactions", REFUNDS: "refunds", DISPUTES: "disputes"}
CURRENCIES = [
    (BALANCE, "currency"), (REFUNDS, "currency"), (REFUNDS, "settlement_currency"), (DISPUTES, "currency"), (DISPUTES, "settlement_currency"),
    (RECONCILED, "currency"), (RATES, "currency"), (RATES, "reporting_currency"), (REPORTED, "reporting_currency"),
]  # fmt: skip
TODAY = [(BALANCE, "created_date"), (RECONCILED, "date")]
REPORT_DAYS = [(BALANCE, "report_date"), (REFUNDS, "report_date"), (DISPUTES, "report_date"), (REPORTED, "date")]
NEVER_NEGATIVE = [
    (REFUNDS, "amount", ""), (DISPUTES, "amount", ""), (REPORTED, "revenue", ""), (REPORTED, "payments", ""), (REPORTED, "refunds", ""),
    (DAYS, "payments", ""), (DAYS, "refunds", ""), (DISPUTES, "settled_withdrawn", ", settled_net = 0.01"),
    (DISPUTES, "settled_reinstated", ", settled_net = -0.01"), (DISPUTES, "fee", ", settled_net = 0.01"), (DISPUTES, "fee_reversed", ", settled_net = -0.01"),
]  # fmt: skip
ZERO = "difference payouts_difference running_difference running_payouts_difference"
WARNINGS = {"known_in_time", "is_declared"}
GOOD = {
    (BALANCE, "net"): "0", (REFUNDS, "settled_amount"): "i * -0.01", (REFUNDS, "settled_net"): "i * -0.02",
    **{(RECONCILED, column): "0" for column in (*ZERO.split(), "movements_without_object")},
}  # fmt: skip
"""SQL for good values of row i where those of other tables would not do."""


def _one(table: str, change: str) -> str:
    return f"UPDATE {table} SET {change} WHERE rowid = 0"


BROKEN: list[Broken] = [
    *((table, column, "missing", _one(table, f"{column} = NULL")) for table, columns in MISSING.items() for column in columns.split()),
    *((table, key, "duplicate", f"INSERT INTO {table} SELECT * FROM {table} WHERE rowid = 0") for table, key in KEYS.items()),
    *((table, column, "invalid", _one(table, f"{column} = 'eur'")) for table, column in CURRENCIES),
    *((table, column, "not_in_the_future", _one(table, f"{column} = DATE '2026-03-02'")) for table, column in TODAY),
    *((table, column, "not_in_the_future", _one(table, f"{column} = DATE '2026-03-03'")) for table, column in REPORT_DAYS),
    *((table, column, "not_negative", _one(table, f"{column} = -0.01{more}")) for table, column, more in NEVER_NEGATIVE),
    *((RECONCILED, column, "is_zero", _one(RECONCILED, f"{column} = 0.001")) for column in ZERO.split()),
    *((table, "is_deleted", "not_deleted", _one(table, "is_deleted = true")) for table in OBJECTS),
    *((table, None, "only_live", f"UPDATE staging.stg_stripe__{name} SET is_live = false WHERE rowid = 0") for table, name in OBJECTS.items()),
    (BALANCE, "category", "is_declared", _one(BALANCE, "category = 'other'")),
    (BALANCE, "net", "adds_up", _one(BALANCE, "net = 0.001")),
    (REFUNDS, "settled_amount", "leaves", _one(REFUNDS, "settled_amount = 0.01, settled_net = 0.01")),
    (REFUNDS, "settled_net", "adds_up", _one(REFUNDS, "settled_net = 0.001")),
    (DISPUTES, "settled_net", "adds_up", _one(DISPUTES, "settled_net = 0.001")),
    (RECONCILED, "movements_without_object", "known_in_time", _one(RECONCILED, "movements_without_object = 1")),
    (REFUNDS, "settled_net", "known_in_time", _one(REFUNDS, "settled_net = NULL")),
    (DISPUTES, "settlement_currency", "known_in_time", f"UPDATE {DISPUTES} SET settlement_currency = NULL WHERE rowid = 1"),
    (RATES, "rate", "positive", _one(RATES, "rate = 0")),
    (REPORTED, "currencies_without_rate", "part_of_currencies", _one(REPORTED, "currencies_without_rate = currencies + 1")),
]

NEVER_NULL = {
    BALANCE: ("{balance_transaction_facts}", "balance_transaction_id category currency net"),
    REFUNDS: ("{refund_facts}", "refund_id currency moved_balance"),
    DISPUTES: ("{dispute_facts}", "dispute_id currency settled_net"),
    RECONCILED: ("{balance_reconciliation}", "currency difference payouts_difference"),
    REPORTED: ("{daily_revenue_reporting}", "date currencies_without_rate"),
}


def _rate(day: str = "'1998-01-01'", currency: str = "'EUR'", to: str = "'USD'", rate: str = "1.1") -> str:
    return f"INSERT INTO {{exchange_rates}} (valid_from, currency, reporting_currency, rate) VALUES ({day}, {currency}, {to}, {rate})"


def _raw(name: str, change: str) -> str:
    return f"UPDATE raw_stripe.{name} SET {change} WHERE id = '1'"


def _facts(name: str, facts: str) -> list[str]:
    """How the facts of some objects may differ from staging."""
    return [
        f"DELETE FROM {facts}",
        f"UPDATE {facts} SET amount = amount + 0.001",
        _raw(name, "_loaded_at = '1998-02-21 10:00:00+00'"),
        _raw(name, "livemode = false"),
    ]


_BALANCE, _RECONCILED, _DAYS, _REPORTED = "{balance_transaction_facts}", "{balance_reconciliation}", "{daily_revenue}", "{daily_revenue_reporting}"
BROKEN_AUDITS: list[tuple[str, str, str]] = [
    (BALANCE, "not_in_the_future", f"UPDATE {_BALANCE} SET created_date = DATE '1998-03-02'"),
    *((BALANCE, "balance_matches_staging", statement) for statement in _facts("balance_transactions", _BALANCE)),
    *((BALANCE, "balance_matches_staging", f"UPDATE {_BALANCE} SET {column} = {column} + 0.001") for column in ("fee", "net")),
    *(
        broken
        for model, name, facts in ((REFUNDS, "refunds", "{refund_facts}"), (DISPUTES, "disputes", "{dispute_facts}"))
        for broken in (
            (model, "amount_is_valid", f"UPDATE {facts} SET amount = -0.001"),
            (model, "not_after_the_report_day", f"UPDATE {facts} SET report_date = DATE '1998-03-02'"),
            *((model, "objects_of_charges_match_staging", statement) for statement in _facts(name, facts)),
            (model, "objects_of_charges_match_staging", f"UPDATE {facts} SET charge_loaded_at = NULL"),
            (model, "objects_of_charges_match_staging", _raw("charges", "_loaded_at = '1998-02-21 10:00:00+00'")),
        )
    ),
    *((RECONCILED, "balance_reconciles", f"UPDATE {_RECONCILED} SET {column} = 0.001") for column in ZERO.split()),
    *((RECONCILED, "balance_reconciles", f"UPDATE {_RECONCILED} SET {column} = {column} + 1") for column in ("movements", "balance_change")),
    (RECONCILED, "balance_reconciles", f"DELETE FROM {_RECONCILED}"),
    (RECONCILED, "balance_matches_facts", f"UPDATE {_RECONCILED} SET charges = charges + 0.001"),
    (RECONCILED, "balance_matches_facts", "UPDATE {payment_facts} SET settled_amount = settled_amount + 0.001"),
    (RECONCILED, "balance_matches_facts", "UPDATE {payment_facts} SET settlement_currency = 'GBP'"),
    (RECONCILED, "balance_matches_facts", "UPDATE {refund_facts} SET settled_amount = settled_amount - 0.001"),
    (RECONCILED, "balance_matches_facts", "UPDATE {dispute_facts} SET settled_withdrawn = settled_withdrawn + 0.001"),
    (RECONCILED, "balance_matches_facts", "DELETE FROM {dispute_facts}"),
    *((RATES, "not_null", _rate(**{argument: "NULL"})) for argument in ("day", "rate")),
    (RATES, "unique_combination_of_columns", f"{_rate()}; {_rate(rate='1.2')}"),
    *((RATES, "rate_is_positive", _rate(**wrong)) for wrong in ({"rate": "0"}, {"currency": "'eur'"}, {"to": "'EUR'"})),
    (REPORTED, "days_match_daily_revenue", f"DELETE FROM {_REPORTED}"),
    (REPORTED, "days_match_daily_revenue", f"UPDATE {_REPORTED} SET currencies = currencies + 1"),
    *((REPORTED, "days_match_daily_revenue", f"UPDATE {_REPORTED} SET {column} = NULL") for column in ("revenue", "net")),
    *((DAYS, "amount_is_valid", f"UPDATE {_DAYS} SET {column} = -0.01") for column in ("payments", "refunds")),
    (DAYS, "not_after_the_report_day", f"UPDATE {_DAYS} SET date = DATE '1998-03-02'"),
    *((DAYS, "totals_match_stripe", f"UPDATE {_DAYS} SET {column} = {column} + 0.001") for column in ("payments", "refunds", "fees", "net")),
    (DAYS, "totals_match_stripe", f"DELETE FROM {_DAYS} WHERE currency = 'JPY'"),
]
