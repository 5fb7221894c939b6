"""The faults: what goes wrong, where, in three severities; and what an incident about it must begin with, and whom it must reach.

Those of rows touch one row, ten and a hundred; where a contract allows a share (5 %), just more than that, twice and six times as
many. Those of days touch so much of yesterday's rows. SQL says what the fault leaves in the raw tables (or, where it says so, in
a table further down); what becomes of it is the models' business.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from trials.home import NOW

ORDERS, USERS, CHARGES, REFUNDS = "raw_postgres.orders", "raw_postgres.users", "raw_stripe.charges", "raw_stripe.refunds"
BALANCE, STAGED_ORDERS, ORDER_FACTS, PAYMENTS = "raw_stripe.balance_transactions", "staging.stg_postgres__orders", "marts.order_facts", "marts.payment_facts"
DAY = (NOW - timedelta(days=1)).date()
TIMES = {ORDERS: "ordered_at", CHARGES: "created_at", ORDER_FACTS: "ordered_at"}
KEYS = {STAGED_ORDERS: "order_id", ORDER_FACTS: "order_id"}
WHOLE_DAY = "unusual *"


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong.

    Attributes:
        where: at the source, on the way (between source and raw table), in the load, in a model.
        sql: the statements of each severity; `{seed}` is the seed's.
        touched: the tables that the statements change.
        causes: what incidents about it begin with, as (check, table); patterns.
        route: whom it must reach.
        is_of_days: whether it shows only in how many or how much, so that large companies see what small ones cannot.
        age: how long ago the source was loaded, of each severity, where that is the fault.
    """

    name: str
    where: str
    sql: tuple[str, str, str]
    touched: tuple[str, ...]
    causes: tuple[tuple[str, str], ...]
    route: str = "slack"
    is_of_days: bool = False
    age: tuple[timedelta, ...] = field(default=())
    source: str = "postgres"


def _three(sql: str | Callable[[Any], str], values: Sequence[Any]) -> tuple[str, str, str]:
    first, second, third = (sql(value) if callable(sql) else sql.replace("{n}", str(value)) for value in values)
    return first, second, third


def _some(table: str, where: str = "true", order: str = "") -> str:
    """`{n}` rows of a table; of yesterday's where it knows days."""
    key = KEYS.get(table, "id")
    of_day = f"{TIMES[table]}::DATE = DATE '{DAY}'" if table in TIMES else "true"
    return f"{key} IN (SELECT {key} FROM {table} WHERE {of_day} AND {where} ORDER BY {order or f'hash({key}, {{seed}})'} LIMIT {{n}})"


def _rows(name: str, where: str, table: str, change: str, *causes: tuple[str, str], of: str = "true", values: Sequence[Any] = (1, 10, 100)) -> Fault:
    """`change` is what is set, or DELETE, or TWICE."""
    chosen = _some(table, of)
    sql = {
        "DELETE": f"DELETE FROM {table} WHERE {chosen}",
        "TWICE": f"INSERT INTO {table} SELECT * FROM {table} WHERE {chosen}",
    }.get(change, f"UPDATE {table} SET {change} WHERE {chosen}")
    return Fault(name, where, _three(sql, values), (table,), causes)


def _share(name: str, where: str, change: str, values: Sequence[Any], table: str = ORDERS, days: int = 1, of: str = "true", facts: str = ORDER_FACTS,
           cause: tuple[str, str] | None = None) -> Fault:  # fmt: skip
    """So much of the rows of the last days: SET, DELETE or another statement with `{rows}`."""
    key, time = KEYS.get(table, "id"), TIMES[table]
    rows = f"{time}::DATE BETWEEN DATE '{DAY - timedelta(days=days - 1)}' AND DATE '{DAY}' AND {of}"
    chosen = f"{rows} AND hash({key}, {{seed}}) % 1000 < {{n}} * 1000"
    sql = f"DELETE FROM {table} WHERE {chosen}" if change == "DELETE" else change.replace("{rows}", rows).replace("{chosen}", chosen)
    sql = sql if " " in sql.split("=")[0].strip() else f"UPDATE {table} SET {sql} WHERE {chosen}"
    return Fault(name, where, _three(sql, values), (table,), (cause or (WHOLE_DAY, facts),), is_of_days=True)


def _drift(name: str, change: str, sql: Callable[[Any], str], values: Sequence[Any], column: str, after: str = "", kept: str = "") -> Fault:
    """A change of production's table as a load records it, and what the load leaves."""
    noted = (
        f"INSERT INTO ops.schema_changes VALUES ('postgres', 'shop.orders', 'orders', '{column}', '{change}', 'old', {after or 'NULL'}, "
        f"{kept or 'NULL'}, TIMESTAMPTZ '{NOW}')"
    )
    return Fault(name, "at the source", _three(lambda value: f"{noted}; {sql(value)}", values), (ORDERS,), (("schema change", ORDERS),))


def _stale(name: str, source: str, ages: Sequence[timedelta]) -> Fault:
    return Fault(name, "at the source", ("", "", ""), (), (("freshness", f"raw_{source}.*"),), "email", age=tuple(ages), source=source)


LOST, MORE, ALL = (0.3, 0.5, 0.8), (0.3, 0.5, 1), (0.5, 0.8, 1)
OVER_FIVE = (0.051, 0.1, 0.3)
MANY = "(SELECT ceil({n} * count(*))::BIGINT FROM raw_postgres.users)"
HOURS = timedelta(hours=1)


def _users(name: str, where: str, change: str, check: str) -> Fault:
    """A share of all users, above what their contract allows."""
    chosen = f"id IN (SELECT id FROM {USERS} QUALIFY row_number() OVER (ORDER BY hash(id, {{seed}})) <= {MANY} + 1)"
    return Fault(name, where, _three(f"UPDATE {USERS} SET {change} WHERE {chosen}", OVER_FIVE), (USERS,), ((check, USERS),))


ROWS: list[Fault] = [
    _rows("orders of a user that nobody knows", "at the source", ORDERS, "user_id = 1000000000 + id", ("user_is_known", ORDERS)),
    _rows("a batch of orders loaded twice", "in the load", ORDERS, "TWICE", ("duplicate", ORDERS)),
    _rows("orders without currency", "at the source", ORDERS, "currency = NULL", ("missing", ORDERS)),
    _rows("orders without user", "on the way", ORDERS, "user_id = NULL", ("missing", ORDERS)),
    _rows("orders without time", "on the way", ORDERS, "ordered_at = NULL", ("missing", ORDERS)),
    _rows("orders without amount", "on the way", ORDERS, "revenue = NULL", ("missing", ORDERS)),
    _rows("orders without key", "on the way", ORDERS, "id = NULL", ("missing", ORDERS)),
    _rows("orders not stamped by the load", "in the load", ORDERS, "_loaded_at = NULL", ("missing", ORDERS)),
    _rows("negative amounts", "at the source", ORDERS, "revenue = -revenue", ("not_negative", ORDERS)),
    _rows("orders of next month", "at the source", ORDERS, "ordered_at = ordered_at + INTERVAL 30 DAY", ("audit not_in_the_future", ORDER_FACTS)),
    _rows("users lost who have orders", "on the way", USERS, "DELETE", ("user_is_known", ORDERS), of=f"id IN (SELECT user_id FROM {ORDERS})"),
    _rows("a batch of users loaded twice", "in the load", USERS, "TWICE", ("duplicate", USERS)),
    _rows("ages that nobody has", "at the source", USERS, "age = 1000 + age", ("invalid", USERS)),
    _rows("e-mails not pseudonymised", "in the load", USERS, "email_hash = 'someone at home'", ("invalid", USERS)),
    _rows("hashes cut off", "on the way", USERS, "email_hash = email_hash[:32]", ("invalid", USERS)),
    _rows("users pseudonymised with a key nobody knows", "in the load", USERS, "_privacy_key_id = NULL", ("missing", USERS)),
    _users("users without e-mail", "at the source", "email_hash = NULL", "missing"),
    _users("users without country", "at the source", "country = NULL", "missing"),
    _users("e-mails that are none", "at the source", "is_email_valid = false", "share_of_invalid_emails"),
    _rows("a page of charges loaded twice", "in the load", CHARGES, "TWICE", ("duplicate", CHARGES)),
    _rows("charges in a currency that is none", "on the way", CHARGES, "currency = 'EURO'", ("invalid", CHARGES)),
    _rows("charges whose amount in main units is the one in cents", "in the load", CHARGES, "amount_decimal = amount", ("amounts_reconcile", CHARGES)),
    _rows("charges of nobody knows which mode", "on the way", CHARGES, "livemode = NULL", ("mode_is_known", CHARGES)),
    _rows("charges in a state nobody knows", "at the source", CHARGES, "status = 'on_hold'", ("invalid", PAYMENTS)),
    _rows("charges captured for less than nothing", "at the source", CHARGES, "amount_captured = -amount_captured, amount_captured_decimal = "
          "-amount_captured_decimal", ("not_negative", PAYMENTS), ("part_of_captured", PAYMENTS), ("unusual *", PAYMENTS), of="amount_captured > 0"),
    _rows("refunds loaded twice", "in the load", REFUNDS, "TWICE", ("duplicate", REFUNDS)),
    _rows("refunds of more than was taken", "at the source", REFUNDS, "amount = amount * 3, amount_decimal = amount_decimal * 3",
          ("part_of_captured", PAYMENTS), ("unusual *", PAYMENTS)),
    _rows("movements of the balance lost", "on the way", BALANCE, "DELETE", ("known_in_time", "marts.*")),
    _rows("fees that do not add up", "on the way", BALANCE, "fee = fee + 1, fee_decimal = fee_decimal + 0.01", ("adds_up", "marts.*")),
    _rows("rows lost in staging", "in a model", STAGED_ORDERS, "DELETE", ("completeness", STAGED_ORDERS)),
    _rows("facts lost after they were built", "in a model", ORDER_FACTS, "DELETE", ("completeness", ORDER_FACTS)),
    _rows("facts built twice", "in a model", ORDER_FACTS, "TWICE", ("duplicate", ORDER_FACTS)),
    _rows("deletes of the source not seen by a mart", "in a model", ORDERS, f"_deleted_at = TIMESTAMPTZ '{NOW}'", ("completeness", ORDER_FACTS)),
]  # fmt: skip

SHAPES: list[Fault] = [
    _drift("a column dropped at the source", "column dropped", lambda n: f"UPDATE {ORDERS} SET currency = NULL WHERE {_some(ORDERS)}".replace("{n}", str(n)),
           (1, 10, 100), "currency"),
    _drift("a column renamed at the source", "column renamed", lambda n: f"ALTER TABLE {ORDERS} ADD COLUMN {n} VARCHAR", ("state", "order_status", "stage"),
           "status", "'state'"),
    _drift("a type changed at the source", "type changed", lambda n: f"ALTER TABLE {ORDERS} ALTER revenue TYPE {n}", ("VARCHAR", "DOUBLE", "DECIMAL(18, 4)"),
           "revenue", "'text'", "'revenue_was_decimal'"),
    Fault("a column that models read is gone", "in the load", _three(f"ALTER TABLE {ORDERS} DROP COLUMN {{n}}", ("status", "quantity", "currency")), (ORDERS,),
          (("run failed", "marts"),), "page"),
    Fault("a mart lost a column", "in a model", _three(f"ALTER TABLE {ORDER_FACTS} DROP COLUMN {{n}}", ("status", "quantity", "currency")), (ORDER_FACTS,),
          (("schema", ORDER_FACTS),)),
    Fault("a mart is gone", "in a model", _three("DROP TABLE {n}", (ORDER_FACTS, "marts.daily_revenue", PAYMENTS)),
          (ORDER_FACTS, "marts.daily_revenue", PAYMENTS), (("schema", "marts.*"),)),
    Fault("a key that others refer to changed its name", "in a model", _three("ALTER TABLE staging.stg_postgres__users RENAME COLUMN {n} TO former",
          ("user_id", "country", "email_hash")), ("staging.stg_postgres__users",), (("schema", "staging.stg_postgres__users"),)),
    _stale("production silent", "postgres", (6 * HOURS + timedelta(minutes=1), 12 * HOURS, 72 * HOURS)),
    _stale("Stripe silent", "stripe", (6 * HOURS + timedelta(minutes=1), 12 * HOURS, 72 * HOURS)),
    _stale("a clock that is ahead", "postgres", (timedelta(minutes=-6), -HOURS, -24 * HOURS)),
]  # fmt: skip

DAYS: list[Fault] = [
    _share("orders lost by the source", "at the source", "DELETE", LOST),
    _share("orders lost for three days", "at the source", "DELETE", LOST, days=3),
    _share("the cursor jumped: the end of a day lost", "in the load", f"DELETE FROM {ORDERS} WHERE {{rows}} AND hour(ordered_at) >= {{n}}", (16, 12, 5)),
    _share("pages of the API skipped", "in the load", f"DELETE FROM {CHARGES} WHERE {{rows}} AND hour(created_at) * 60 + minute(created_at) < {{n}} * 1440",
           LOST, table=CHARGES, facts=PAYMENTS),
    _share("a batch again under new keys", "in the load",
           f"INSERT INTO {ORDERS} SELECT * REPLACE (id + 1000000000 AS id) FROM {ORDERS} WHERE {{chosen}}", MORE),
    _share("one currency lost", "on the way", "DELETE", ALL, of="currency = 'USD'"),
    _share("one currency lost for three days", "on the way", "DELETE", MORE, days=3, of="currency = 'USD'"),
    _share("currencies cut off to two letters", "on the way", "currency = currency[:2]", LOST),
    _share("everything in one currency", "on the way", "currency = 'EUR'", ALL),
    _share("times shifted by a time zone", "on the way", f"UPDATE {ORDERS} SET ordered_at = ordered_at + INTERVAL ({{n}}) HOUR WHERE {{rows}}", (8, 11, 14)),
    _share("times of a day before", "on the way", "ordered_at = ordered_at - INTERVAL 1 DAY", MORE),
    _share("amounts in cents", "at the source", "revenue = revenue * 100", (0.05, 0.2, 1)),
    _share("amounts a hundredth", "on the way", "revenue = (revenue / 100)::DECIMAL(12, 2)", LOST),
    _share("amounts nought", "at the source", "revenue = 0", LOST),
    _share("amounts too small", "at the source", f"UPDATE {ORDERS} SET revenue = revenue * (1 - {{n}})::DECIMAL(4, 2) WHERE {{rows}}", LOST),
    _share("test orders in production", "at the source",
           f"INSERT INTO {ORDERS} SELECT * REPLACE (id + 1000000000 AS id, 1 AS user_id, 1 AS revenue) FROM {ORDERS} WHERE {{chosen}}", MORE),
    _share("one user has all orders", "on the way", "user_id = 1", ALL),
    _share("deletes en masse", "at the source", f"_deleted_at = TIMESTAMPTZ '{NOW}' - INTERVAL 10 MINUTE", LOST, days=30, cause=("unusual deletes", ORDERS)),
    _share("payments stuck before they are taken", "at the source", "status = 'pending', paid = false, captured = false, amount_captured = 0, "
           "amount_captured_decimal = 0, amount_refunded = 0, amount_refunded_decimal = 0", LOST, table=CHARGES, facts=PAYMENTS, of="amount_refunded = 0"),
    _share("test charges in live mode's place", "at the source", "livemode = false", LOST, table=CHARGES, facts=PAYMENTS),
]  # fmt: skip

CATALOGUE = (*ROWS, *SHAPES, *DAYS)
