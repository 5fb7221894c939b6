"""One bad row for every rule of every contract and every audit of Stripe's tables, and the statement that breaks it."""

from integration import broken_subscriptions

from pipelines.stripe import declaration
from transform.raw_tables import external_models

TABLES = list(declaration().tables)
PARENTS = {"subscription_items": "subscription", "invoice_line_items": "invoice"}
FACTS = "marts.payment_facts"
FACTS_MISSING = "charge_id created_at created_date currency amount amount_captured amount_refunded net_amount loaded_at"
Broken = tuple[str, str | None, str, str]


def _one(table: str, change: str) -> str:
    return f"UPDATE {table} SET {change} WHERE rowid = 0"


def _twice(table: str) -> str:
    return f"INSERT INTO {table} SELECT * FROM {table} WHERE rowid = 0"


def _raw(name: str) -> list[Broken]:
    table, columns = f"raw_stripe.{name}", external_models()[f"raw_stripe.{name}"].columns
    never_null = ["id", "is_deleted", "_settled_at", "_loaded_at", *(["_privacy_key_id"] if "_privacy_key_id" in columns else [])]
    broken: list[Broken] = [(table, column, "missing", _one(table, f"{column} = NULL")) for column in never_null]
    broken += [(table, "id", "duplicate", _twice(table)), (table, "livemode", "mode_is_known", _one(table, "livemode = NULL"))]
    broken += [(table, column, "invalid", _one(table, f"{column} = 'A' || {column}[2:]")) for column in columns if column.endswith("_hash")]
    broken += [(table, "currency", "invalid", _one(table, "currency = 'EUR'"))] if "currency" in columns else []
    money = [column for column in columns if f"{column}_decimal" in columns]
    broken += [(table, None, "amounts_reconcile", _one(table, f"{column} = {column} + 1")) for column in money]
    # A currency without decimals, one with three, and an amount that was not carried over.
    broken += [(table, None, "amounts_reconcile", _one(table, f"{column} = 5, {column}_decimal = 0.05, currency = 'jpy'")) for column in money[:1]]
    broken += [(table, None, "amounts_reconcile", _one(table, f"{column} = 5, {column}_decimal = 0.05, currency = 'kwd'")) for column in money[:1]]
    broken += [(table, None, "amounts_reconcile", _one(table, f"{column}_decimal = NULL")) for column in money[:1]]
    if name in PARENTS:
        broken += [(table, None, f"{PARENTS[name]}_is_known", _one(table, f"{PARENTS[name]}_id = {value}")) for value in ("'nobody'", "NULL")]
    return broken


def _staged(name: str) -> list[Broken]:
    table, key = f"staging.stg_stripe__{name}", f"{name.removesuffix('s')}_id"
    broken: list[Broken] = [(table, column, "missing", _one(table, f"{column} = NULL")) for column in (key, "is_deleted", "loaded_at")]
    broken += [(table, key, "duplicate", _twice(table))]
    broken += [(table, "currency", "invalid", _one(table, "currency = 'eur'"))] if "currency" in external_models()[f"raw_stripe.{name}"].columns else []
    if name in PARENTS:
        broken += [(table, None, f"{PARENTS[name]}_is_known", _one(table, f"{PARENTS[name]}_id = {value}")) for value in ("'nobody'", "NULL")]
    return broken


BROKEN: list[Broken] = [
    *(one for name in TABLES for one in (*_raw(name), *_staged(name))),
    *((FACTS, column, "missing", _one(FACTS, f"{column} = NULL")) for column in FACTS_MISSING.split()),
    (FACTS, "charge_id", "duplicate", _twice(FACTS)),
    (FACTS, "status", "invalid", _one(FACTS, "status = 'paid'")),
    *((FACTS, column, "invalid", _one(FACTS, f"{column} = 'eur'")) for column in ("currency", "settlement_currency")),
    (FACTS, "created_date", "not_in_the_future", _one(FACTS, "created_date = DATE '2026-03-02'")),
    (FACTS, "amount", "not_negative", _one(FACTS, "amount = -0.001")),
    (FACTS, "amount_captured", "not_negative", _one(FACTS, "amount_captured = -0.001, amount_refunded = -0.001")),
    (FACTS, "amount_refunded", "part_of_captured", _one(FACTS, "amount_refunded = 0.001, net_amount = -0.001")),
    (FACTS, "net_amount", "adds_up", _one(FACTS, "net_amount = 0.001")),
    (FACTS, "settled_net", "adds_up", _one(FACTS, "settled_net = 0.001")),
    (FACTS, "fee", "known_in_time", "UPDATE marts.payment_facts SET fee = NULL, settled_net = NULL WHERE rowid = 1"),
    (FACTS, "is_deleted", "not_deleted", _one(FACTS, "is_deleted = true")),
    (FACTS, None, "only_live", "UPDATE staging.stg_stripe__charges SET is_live = false WHERE rowid = 0"),
]

LOADED = "1998-02-20 10:00:00+00"
LATER = "1998-02-21 10:00:00+00"
_AT = f"'{LOADED}'::TIMESTAMPTZ"
_EVERY = f"'1998-02-01 00:00:00+00'::TIMESTAMPTZ AS created_at, true AS livemode, false AS is_deleted, {_AT} AS _settled_at, {_AT} AS _loaded_at"
_OF = {
    "charges": "'usd' AS currency, 'succeeded' AS status, 15.00 AS amount_decimal, 15.00 AS amount_captured_decimal, '1' AS balance_transaction_id",
    "refunds": "'usd' AS currency, 'succeeded' AS status, 5.00 AS amount_decimal, '1' AS charge_id, '2' AS balance_transaction_id",
    "disputes": "'usd' AS currency, 15.00 AS amount_decimal, '1' AS charge_id",
    "balance_transactions": "'usd' AS currency, 15.00 AS amount_decimal, 0.74 AS fee_decimal, 14.26 AS net_decimal, 'charge' AS reporting_category",
    "payouts": "'usd' AS currency, 'paid' AS status, 10.00 AS amount_decimal, '4' AS balance_transaction_id",
    **broken_subscriptions.OF,
}


def _insert(name: str, key: str, more: str = "") -> str:
    return f"INSERT INTO raw_stripe.{name} BY NAME SELECT '{key}' AS id, {_EVERY}{', ' if more else ''}{more}"


def _moved(key: str, category: str, amount: str, fee: str = "0") -> str:
    net = f"{amount} - ({fee}) AS net_decimal, '1' AS source_id, '{category}' AS reporting_category"
    return _insert("balance_transactions", key, f"'usd' AS currency, {amount} AS amount_decimal, {fee} AS fee_decimal, {net}")


ROWS = [
    *(_insert(name, "1", _OF.get(name, "")) for name in TABLES),
    _insert("charges", "2", "'jpy' AS currency, 'succeeded' AS status, 1500 AS amount_decimal, 1500 AS amount_captured_decimal"),
    _moved("2", "refund", "-5.00"),
    _moved("3", "dispute", "-15.00", "15.00"),
    _moved("4", "payout", "-10.00"),
    _insert("charges", "3", _OF["charges"]).replace("true AS livemode", "false AS livemode"),
    *(_insert(name, "2", of).replace("1998-02-01", "1997-12-01") for name, of in broken_subscriptions.ENDED.items()),
]
"""A row of each of Stripe's tables; a charge that was partly refunded and disputed, one in yen, one of the test mode; what moved the balance."""

FACTS_TABLE = "{payment_facts}"
NEVER_NULL = {
    **{f"staging.stg_stripe__{name}": (f"raw_stripe.{name}", "id is_deleted _loaded_at") for name in TABLES},
    FACTS: (FACTS_TABLE, "charge_id created_at created_date status currency amount amount_captured amount_refunded net_amount"),
}


def _fact(change: str) -> str:
    return f"UPDATE {FACTS_TABLE} SET {change} WHERE charge_id = '1'"


BROKEN_AUDITS: list[tuple[str, str, str]] = [
    (FACTS, "amount_is_valid", _fact("amount = -0.001")),
    (FACTS, "not_in_the_future", _fact("created_date = DATE '1998-03-02'")),
    *(
        (FACTS, "payments_match_staging", statement)
        for statement in (
            f"DELETE FROM {FACTS_TABLE}",
            f"DELETE FROM {FACTS_TABLE} WHERE charge_id = '2'",
            f"INSERT INTO {FACTS_TABLE} SELECT * REPLACE ('3' AS charge_id, 0 AS amount, 0 AS amount_captured) FROM {FACTS_TABLE} WHERE charge_id = '2'",
            *(_fact(f"{column} = {column} + 0.001") for column in ("amount", "amount_captured", "amount_refunded", "fee", "settled_net")),
            *(_fact(f"{column} = {column} + 1") for column in ("refunds", "disputes")),
            *(_fact(f"{column} = 'GBP'") for column in ("currency", "settlement_currency")),
            *(f"UPDATE raw_stripe.{name} SET _loaded_at = '{LATER}' WHERE id = '1'" for name in ("charges", "disputes", "balance_transactions")),
            "UPDATE raw_stripe.charges SET livemode = false WHERE id = '2'",
            "UPDATE raw_stripe.charges SET is_deleted = true WHERE id = '2'",
            "UPDATE raw_stripe.refunds SET status = 'failed'",
            *(_insert(name, "9", _OF[name]) for name in ("refunds", "disputes")),
        )
    ),
]
