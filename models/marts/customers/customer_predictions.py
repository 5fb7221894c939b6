"""marts.customer_predictions: what each customer will buy, by models of the customer base that are fitted here."""

from typing import Any

from sqlglot import exp
from sqlmesh import model

from macros.customer_base import fingerprint, predictions


@model(
    "marts.customer_predictions",
    kind="FULL",
    owner="data",
    grains=["(user_id, currency)"],
    references=["user_id"],
    depends_on=["marts.customer_lifetime_value"],
    description="What each customer will buy in the next days (config.yaml: prediction_days) after the last order day held, per currency, by BG/NBD and "
    "gamma-gamma, fitted to all customers of the currency (docs/metrics/customers.md). The same orders give the same numbers; they are computed anew only "
    "when the orders have changed. Null, with the reason, where nothing can be said.",
    columns={
        "user_id": "BIGINT",
        "currency": "TEXT",
        "probability_alive": "DOUBLE",
        "predicted_purchases": "DOUBLE",
        "predicted_purchase_value": "DECIMAL(18, 2)",
        "predicted_revenue": "DECIMAL(18, 2)",
        "predicted_margin": "DECIMAL(18, 2)",
        "prediction_days": "INT",
        "unpredicted_reason": "TEXT",
        "fitted_customers": "BIGINT",
        "r": "DOUBLE",
        "alpha": "DOUBLE",
        "a": "DOUBLE",
        "b": "DOUBLE",
        "p": "DOUBLE",
        "q": "DOUBLE",
        "v": "DOUBLE",
        "inputs_hash": "TEXT",
    },
    column_descriptions={
        "user_id": "Key of the user; see marts.user_dim.",
        "currency": "ISO 4217 code of the amounts; never add rows of different currencies.",
        "probability_alive": "Probability, 0 to 1, that the customer will ever buy again in this currency; 1 of who bought on one day only: of those the "
        "model cannot tell, see marts.churned_customers.",
        "predicted_purchases": "Expected number of days with a purchase in the days ahead.",
        "predicted_purchase_value": "Expected revenue of such a day, rounded to cents.",
        "predicted_revenue": "Expected revenue in the days ahead: purchases times value, rounded to cents; no discounting.",
        "predicted_margin": "Predicted revenue times the declared share gross_margin, rounded to cents; null where none is declared.",
        "prediction_days": "How many days ahead, from the last order day held.",
        "unpredicted_reason": "Why something is null: too_few_customers (fewer than prediction_minimum_customers bought again), no_fit (no most likely "
        "model was found) or no_value (purchases are predicted, their values are too few or have no mean).",
        "fitted_customers": "Number of customers of the currency to whom the models were fitted.",
        "r": "BG/NBD: shape of how often customers buy; the same in all rows of a currency, as all parameters are.",
        "alpha": "BG/NBD: scale of how often customers buy, in days.",
        "a": "BG/NBD: first parameter of how likely a customer leaves after a purchase.",
        "b": "BG/NBD: second parameter of how likely a customer leaves after a purchase.",
        "p": "Gamma-gamma: shape of the values of a customer's purchases.",
        "q": "Gamma-gamma: shape of the values among customers; their mean exists above 1.",
        "v": "Gamma-gamma: scale of the values among customers, in units of the currency.",
        "inputs_hash": "SHA-256 of what the predictions of all rows were computed from; while it stays, nothing is computed anew.",
    },
    audits=[
        ("not_null", {"columns": exp.Tuple(expressions=[exp.column("user_id"), exp.column("currency"), exp.column("inputs_hash")])}),
        ("unique_combination_of_columns", {"columns": exp.Tuple(expressions=[exp.column("user_id"), exp.column("currency")])}),
        ("predictions_match_lifetime_value", {}),
    ],
)
def execute(context: Any, start: Any, **kwargs: Any) -> Any:
    """The rows; none at all, which leaves the table as it is, where it was made from the same orders with the same settings.

    SQLMesh takes no table without rows from Python, so where there are no customers any more what is held is taken out here.
    """
    settings = {
        "prediction_days": context.var("prediction_days"),
        "minimum_customers": context.var("prediction_minimum_customers"),
        "gross_margin": context.var("gross_margin"),
    }
    customers = context.fetchdf(
        "SELECT user_id, currency, frequency, recency, t, repeat_revenue::TEXT AS repeat_revenue "
        f"FROM {context.resolve_table('marts.customer_lifetime_value')} ORDER BY currency, user_id"
    )
    inputs_hash = fingerprint(customers, settings)
    snapshot = kwargs.get("snapshot")
    is_from_the_start = start.year == 1970  # `start` in config.yaml: the first build, or one that was asked for
    if customers.empty and snapshot is not None:
        context.engine_adapter.delete_from(snapshot.table_name(), "TRUE")
        return
    if snapshot is None or is_from_the_start or not _is_held(context, snapshot.table_name(), inputs_hash, len(customers)):
        yield predictions(customers, inputs_hash, **settings)


def _is_held(context: Any, table: str, inputs_hash: str, rows: int) -> bool:
    """Whether the table was made of the same."""
    held = context.fetchdf(f"SELECT inputs_hash, COUNT(*) AS held FROM {table} GROUP BY inputs_hash")
    return bool(len(held) == 1 and held["inputs_hash"][0] == inputs_hash and held["held"][0] == rows)
