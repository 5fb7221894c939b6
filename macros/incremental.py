"""What an incremental model has still to do."""

from sqlglot import exp
from sqlmesh import macro
from sqlmesh.core.macros import MacroEvaluator

_FROM_THE_START = "1970-01-01"
"""`start` in config.yaml: a build from there is the first one or a restatement, and nothing counts as built before it."""


@macro()  # type: ignore[untyped-decorator]  # SQLMesh types no decorator
def loaded_since_last_build(evaluator: MacroEvaluator, loaded_at: exp.Expression) -> exp.Expression:
    """True for rows loaded after the newest row that the model's own table holds; for all rows when it is built anew.

    A model of several inputs keeps the time of each in a column of its own and asks for each (marts.payment_facts): times
    rise from load to load of one table, not across tables. Where the table holds no such time yet, every time is newer.

    The table itself says how far it got, so a killed build, a restored copy or a run between two schedule ticks can
    neither lose nor repeat a load. `loaded_at` rises strictly from load to load (pipelines/postgres.py sees to it).
    """
    if evaluator.runtime_stage != "evaluating" or evaluator.locals["start_ds"] == _FROM_THE_START:
        return exp.true()
    before_all = exp.cast(exp.Literal.string(_FROM_THE_START), "TIMESTAMP")
    newest = exp.select(exp.func("COALESCE", exp.func("MAX", exp.column(loaded_at.name)), before_all)).from_(evaluator.this_model)
    return exp.or_(exp.Exists(this=exp.select("1").from_(evaluator.this_model).limit(1)).not_(), exp.GT(this=loaded_at, expression=newest.subquery()))


@macro()  # type: ignore[untyped-decorator]  # SQLMesh types no decorator
def changed_at(evaluator: MacroEvaluator, key: exp.Expression, updated_at: exp.Expression, loaded_at: exp.Expression) -> exp.Expression:
    """When the row's present version came to be, for a history (SCD_TYPE_2_BY_TIME) that keeps `updated_at` and `loaded_at`.

    The arguments must be qualified (`users.loaded_at`): they stand inside a subquery on the history.

    A history notices a change only by a rising time. Sources change rows without it: stamps of whole seconds, no stamp at
    all, corrections by hand. A row that was loaded again is a row that changed, so then the time of the load counts.
    """
    stamped = exp.func("COALESCE", updated_at, exp.cast(exp.Literal.string("1970-01-01"), "TIMESTAMP"))
    if evaluator.runtime_stage != "evaluating":
        return stamped
    held = exp.to_table("held")
    known = (
        exp.select(exp.func("MAX", exp.column("updated_at", "held")))
        .from_(exp.alias_(exp.to_table(evaluator.this_model, dialect=evaluator.dialect), held.name, table=True))
        .where(exp.column(key.name, "held").eq(key.copy()))
        .where(exp.column("valid_to", "held").is_(exp.null()))
        .where(exp.column("loaded_at", "held") < loaded_at.copy())
    )
    return exp.case().when(stamped.copy() <= known.subquery(), loaded_at.copy()).else_(stamped.copy())
