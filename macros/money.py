"""Amounts of money that are computed, not only carried over."""

from sqlglot import exp
from sqlmesh import macro
from sqlmesh.core.macros import MacroEvaluator

_ZERO_DECIMALS = "('BIF', 'CLP', 'DJF', 'GNF', 'JPY', 'KMF', 'KRW', 'MGA', 'PYG', 'RWF', 'VND', 'VUV', 'XAF', 'XOF', 'XPF')"
_THREE_DECIMALS = "('BHD', 'JOD', 'KWD', 'OMR', 'TND')"
"""As in pipelines/stripe_rows.py; a model carries the macro's own text, so it cannot ask there."""


@macro()  # type: ignore[untyped-decorator]  # SQLMesh types no decorator
def monthly_amount(
    evaluator: MacroEvaluator, minor: exp.Expression, currency: exp.Expression, recurring_interval: exp.Expression, recurring_count: exp.Expression
) -> exp.Expression:
    """An amount in minor units that is due every so many days, weeks, months or years, as DECIMAL(38, 6) in the main unit a month.

    A year has 12 months, 52 weeks and 365 days. One exact integer division, rounded once, half away from zero, to a
    millionth; NULL where an argument is NULL or the interval is none of the four. `minor` may have twelve decimals.
    """
    text = (
        "(((2 * ({minor} * CAST(1000000000000 AS DECIMAL(13, 0)))::HUGEINT "
        "* CASE WHEN UPPER({currency}) IN {zero} THEN 1000000 WHEN UPPER({currency}) IN {three} THEN 1000 ELSE 10000 END "
        "* CASE {interval} WHEN 'day' THEN 365 WHEN 'week' THEN 52 WHEN 'month' THEN 12 WHEN 'year' THEN 1 END "
        "+ SIGN({minor})::HUGEINT * 12 * {count} * 1000000000000) "
        "// (24 * {count} * 1000000000000::HUGEINT))::DECIMAL(30, 0) * CAST(0.000001 AS DECIMAL(7, 6)))::DECIMAL(38, 6)"
    )
    names = {"minor": minor, "currency": currency, "interval": recurring_interval, "count": recurring_count}
    spelled = {name: f"({argument.sql(dialect='duckdb')})" for name, argument in names.items()}
    return exp.maybe_parse(text.format(**spelled, zero=_ZERO_DECIMALS, three=_THREE_DECIMALS), dialect="duckdb")
