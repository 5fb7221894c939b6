"""What must hold from layer to layer, read off the models themselves, so that a new model is held to it from its first day.

Every grain is unique and never null. A column that is handed down as it is, or added up, has the same total as in the layer
below, by currency, of the rows that belong there. A key of another model is found there.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from integration import test_audits
from sqlglot import exp
from sqlmesh.core import lineage
from sqlmesh.core.context import ExecutionContext

from transform.report import readable_name

if TYPE_CHECKING:
    from sqlmesh import Context

PREDICTIONS = "marts.customer_predictions"
pytestmark = pytest.mark.xdist_group("layers")  # they share one built warehouse

clean_environment, loaded, built_once, context = test_audits.clean_environment, test_audits.loaded, test_audits.built_once, test_audits.context
"""One home with a few rows of every source, built once."""

HANDED_DOWN = (exp.Alias, exp.Cast, exp.DataType, exp.DataTypeParam, exp.Column, exp.Identifier, exp.Coalesce, exp.Literal, exp.Paren)
DELETED = {"is_deleted": "NOT is_deleted", "deleted_at": "deleted_at IS NULL", "_deleted_at": "_deleted_at IS NULL"}
ONLY_SOME = {
    ("marts.daily_revenue", "payments"): "status = 'succeeded'",
    ("marts.daily_revenue", "refunds"): "moved_balance",
    ("marts.dispute_facts", "settled_net"): "category = 'disputes'",
    ("marts.attribution", "revenue"): "order_id IN (SELECT order_id FROM marts.attribution)",
    ("marts.marketing_audience", "orders"): "customer_key IN (SELECT customer_key FROM marts.marketing_audience)",
    **{("marts.refund_facts", column): "category = 'refunds'" for column in ("settled_amount", "fee", "settled_net")},
}
"""Of which rows a column is the total, where its model says that it is not of all."""
OPEN = {
    ("marts.payment_facts", "customer_id"), ("marts.refund_facts", "customer_id"), ("marts.dispute_facts", "customer_id"),
    ("marts.subscription_facts", "customer_id"), ("marts.subscription_history", "customer_id"), ("marts.mrr_by_subscription_month", "customer_id"),
    ("marts.mrr_movements", "customer_id"),
}  # fmt: skip
"""References that may lead nowhere, since Stripe deletes customers and keeps what they did: payments of whom nobody knows stay facts."""


@dataclass(frozen=True)
class Total:
    """A column that has the total of another one (SQL, cast to its type): handed down row by row, or added up."""

    model: str
    column: str
    below: str
    column_below: str
    is_sum: bool


@pytest.fixture(scope="module")
def models(context: "Context") -> dict[str, Any]:
    return {readable_name(name): model for name, model in context.models.items()}


@pytest.fixture(scope="module")
def snapshots(context: "Context") -> dict[str, Any]:
    return {readable_name(name): snapshot for name, snapshot in context.snapshots.items()}


@pytest.fixture(scope="module")
def tables(snapshots: dict[str, Any]) -> dict[str, str]:
    """The physical table behind each mart."""
    return {name.split(".")[1]: snapshot.table_name() for name, snapshot in snapshots.items() if name.startswith("marts.")}


@pytest.fixture(scope="module")
def totals(context: "Context", models: dict[str, Any]) -> list[Total]:
    lineage.CACHE.clear()  # it tells models apart by an address in memory, which another context's model may have had
    return [total for name, model in models.items() if hasattr(model, "query") for total in _totals(name, model, models)]


def _grain(model: Any) -> list[str]:
    return [column.name for column in model.grains[0].find_all(exp.Column)] if model.grains else []


def _totals(name: str, model: Any, models: dict[str, Any]) -> Iterator[Total]:
    grain = _grain(model)
    key = _origin(grain[0], model) if len(grain) == 1 else None
    for column, kind in model.columns_to_types.items():
        origin = _origin(column, model) if column not in grain and _is_quantity(column, kind) else None
        if origin is None:
            continue
        below, column_below, is_sum = origin
        is_same_row = key is not None and key[0] == below and (_grain(models[below]) or ["id", key[1]])[-1] == key[1]
        if below in models and (is_sum or (is_same_row and not key[2])):
            yield Total(name, column, below, f"{column_below}::{kind.sql('duckdb')}", is_sum)


def _is_quantity(column: str, kind: exp.DataType) -> bool:
    return kind.is_type("decimal", "bigint", "int", "double") and not column.endswith(("_id", "_key", "_timestamp"))


def _origin(column: str, model: Any) -> tuple[str, str, bool] | None:
    """The one column that it is made of, by nothing but renaming, casts, defaults and at most one SUM; table, column, whether it is a sum."""
    found: set[tuple[str, str]] = set()
    sums = 0
    source = model.query.args.get("from_")
    if not model.query.ctes and source and isinstance(source.this, exp.Table) and not model.query.args.get("joins"):  # staging: seen at a glance
        projection = next((one for one in model.query.selects if one.alias_or_name == column), None)
        parts = [*projection.walk()] if projection else []
        columns = {part.name for part in parts if isinstance(part, exp.Column)}
        is_handed_down = len(columns) == 1 and all(isinstance(part, HANDED_DOWN) for part in parts)
        return (f"{source.this.db}.{source.this.name}", columns.pop(), False) if is_handed_down else None
    for node in lineage.lineage(column, model, trim_selects=True).walk():
        if node.downstream:
            parts = [part for part in node.expression.walk() if not isinstance(part, HANDED_DOWN)]
            if isinstance(node.expression, exp.Query):
                continue
            sums += sum(isinstance(part, exp.Sum) for part in parts)
            if any(not isinstance(part, exp.Sum) for part in parts):
                return None
        elif isinstance(node.expression, exp.Table):
            found.add((f"{node.expression.db}.{node.expression.name}", node.name.rpartition(".")[2].strip('"')))
    return (*found.pop(), sums > 0) if len(found) == 1 and sums <= 1 else None


def _rows_that_belong(total: Total, models: dict[str, Any]) -> str:
    """SQL: which rows of the layer below; raw is kept whole by staging unless that has no word for what is deleted."""
    if (total.model, total.column) in ONLY_SOME:
        return ONLY_SOME[total.model, total.column]
    below, here = models[total.below].columns_to_types, models[total.model].columns_to_types
    demands = ["is_live"] if "is_live" in below and "is_live" not in here else []
    is_kept = total.model.startswith("staging.") and {"is_deleted", "deleted_at"} & set(here)
    demands += [] if is_kept else [said for column, said in DELETED.items() if column in below][:1]
    return " AND ".join(["TRUE", *demands])


def _sums(context: "Context", table: str, column: str, where: str, models: dict[str, Any]) -> dict[Any, Any]:
    columns = models[table].columns_to_types
    is_settled = "settlement_currency" in columns and column.startswith(("settled", "fee"))
    currency = "settlement_currency" if is_settled else "UPPER(currency)" if "currency" in columns else "NULL"
    rows = context.engine_adapter.cursor.execute(f"SELECT {currency}, SUM({column}) FROM {table} WHERE {where} GROUP BY 1 HAVING SUM({column}) <> 0").fetchall()
    return dict(rows)


def _unequal(context: "Context", totals: list[Total], models: dict[str, Any]) -> list[str]:
    wrong = []
    for total in totals:
        here = _sums(context, total.model, total.column, "TRUE", models)
        below = _sums(context, total.below, total.column_below, _rows_that_belong(total, models), models)
        if None in here or None in below:
            here, below = {None: sum(here.values())}, {None: sum(below.values())}
        if here != below:
            wrong.append(f"{total.model}.{total.column} is {here}, {total.below}.{total.column_below} is {below}")
    return wrong


def _doubled(context: "Context", models: dict[str, Any]) -> list[str]:
    wrong = []
    for name, model in models.items():
        if model.kind.is_external:
            continue
        grain = ", ".join(_grain(model))
        nothing = " OR ".join(f"{column} IS NULL" for column in _grain(model))
        query = f"SELECT COUNT(*) - COUNT(DISTINCT ({grain})), COUNT(*) FILTER ({nothing}) FROM {name}"
        wrong += [name] if context.engine_adapter.cursor.execute(query).fetchall() != [(0, 0)] else []
    return wrong


def _references(context: "Context", models: dict[str, Any]) -> Iterator[tuple[str, str, list[str]]]:
    """Model, column, and the models of which this column is the whole grain: those that it is made of, and others of the same sources."""
    for name, model in models.items():
        ancestors = {readable_name(one) for one in context.dag.upstream(model.fqn)}
        sources = {one.split("__")[0] for one in ancestors if one.startswith("staging.")}
        for column in model.columns_to_types if name.startswith("marts.") else ():
            parents = [one for one, parent in models.items() if _grain(parent) == [column] and (one in ancestors or one.split("__")[0] in sources)]
            if parents and _grain(model) != [column]:
                yield name, column, parents


def _lost(context: "Context", models: dict[str, Any]) -> dict[tuple[str, str], int]:
    """How many values of each reference lead nowhere."""
    found = {}
    for name, column, parents in _references(context, models):
        known = " UNION ALL ".join(f"SELECT {column} FROM {parent}" for parent in parents)
        query = f"SELECT COUNT(*) FROM {name} WHERE NOT {column} IS NULL AND NOT {column} IN (SELECT {column} FROM ({known}) WHERE NOT {column} IS NULL)"
        found[name, column] = context.engine_adapter.cursor.execute(query).fetchall()[0][0]
    return found


def test_every_grain_is_unique_and_never_null(context: "Context", models: dict[str, Any]) -> None:
    assert _doubled(context, models) == []


def test_what_is_handed_down_or_added_up_has_the_total_of_the_layer_below(context: "Context", models: dict[str, Any], totals: list[Total]) -> None:
    assert _unequal(context, totals, models) == []


def test_the_totals_found_in_the_models_are_those_that_matter(totals: list[Total]) -> None:
    found = {(total.below.split(".")[0].split("_")[0], total.model, total.column, total.column_below.split("::")[0], total.is_sum) for total in totals}
    assert set(ONLY_SOME) <= {(total.model, total.column) for total in totals}
    assert found >= {
        ("raw", "staging.stg_postgres__orders", "revenue", "revenue", False),
        ("raw", "staging.stg_stripe__charges", "amount", "amount_decimal", False),
        ("staging", "marts.order_facts", "quantity", "quantity", False),
        ("staging", "marts.payment_facts", "amount_captured", "amount_captured", False),
        ("staging", "marts.balance_transaction_facts", "net", "net", False),
        ("marts", "marts.daily_revenue", "units", "quantity", True),
        ("marts", "marts.customer_lifetime_value", "revenue", "revenue", True),
    }


def test_every_reference_is_found_or_is_known_to_be_open(context: "Context", models: dict[str, Any]) -> None:
    lost = _lost(context, models)
    assert {reference for reference, count in lost.items() if count} <= OPEN
    assert set(lost) >= OPEN | {("marts.order_facts", "user_id"), ("marts.customer_predictions", "user_id"), ("marts.refund_facts", "charge_id")}


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        ("UPDATE raw_postgres.orders SET revenue = revenue + 0.01 WHERE id = 1", "marts.order_facts.revenue"),
        ("DELETE FROM {order_facts} WHERE order_id = 5", "marts.daily_revenue.revenue"),
        ("UPDATE raw_stripe.charges SET amount_decimal = 1 WHERE id = '2'", "marts.payment_facts.amount "),
        ("INSERT INTO {daily_revenue} SELECT * FROM {daily_revenue} WHERE orders > 0 LIMIT 1", "marts.daily_revenue"),
        ("UPDATE {order_facts} SET user_id = 99 WHERE order_id = 1", "marts.order_facts.user_id"),
    ],
)
def test_what_differs_is_seen(context: "Context", models: dict[str, Any], totals: list[Total], tables: dict[str, str], statement: str, told: str) -> None:
    connection = context.engine_adapter.cursor
    connection.execute("BEGIN")
    try:
        connection.execute(statement.format(**tables))
        lost = [f"{model}.{column}" for (model, column), count in _lost(context, models).items() if count and (model, column) not in OPEN]
        wrong = [*_unequal(context, totals, models), *_doubled(context, models), *lost]
    finally:
        connection.execute("ROLLBACK")
    assert any(line.startswith(told.strip()) for line in wrong), wrong


@pytest.mark.parametrize(
    ("start", "statement", "is_made"),
    [
        ("1998-01-01", "SELECT 1", False),
        ("1970-01-01", "SELECT 1", True),
        ("1998-01-01", "UPDATE {customer_lifetime_value} SET recency = recency + 1 WHERE user_id = 1", True),
        ("1998-01-01", "DELETE FROM {customer_predictions} WHERE user_id = 1", True),
    ],
)
def test_predictions_are_made_anew_only_of_other_orders_or_when_asked_for(
    context: "Context", snapshots: dict[str, Any], tables: dict[str, str], start: str, statement: str, is_made: bool
) -> None:
    connection = context.engine_adapter.cursor
    connection.execute("BEGIN")
    try:
        connection.execute(statement.format(**tables))
        here = ExecutionContext(context.engine_adapter, snapshots, default_dialect="duckdb", default_catalog=context.default_catalog)
        made = list(context.get_model(PREDICTIONS).render(context=here, start=start, snapshot=snapshots[PREDICTIONS]))
    finally:
        connection.execute("ROLLBACK")
    assert len(made) == is_made
