"""What an incremental model has still to do."""

from sqlglot import exp
from sqlmesh import macro
from sqlmesh.core.macros import MacroEvaluator


@macro()  # type: ignore[untyped-decorator]  # SQLMesh types no decorator
def loaded_since_last_build(evaluator: MacroEvaluator, loaded_at: exp.Expression) -> exp.Expression:
    """True for rows loaded after the newest row that the model's own table holds.

    The table itself says how far it got, so a killed build, a restored copy or a run between two schedule ticks can
    neither lose nor repeat a load. `loaded_at` rises strictly from load to load (pipelines/postgres.py sees to it).
    """
    if evaluator.runtime_stage != "evaluating":
        return exp.true()
    newest = exp.select(exp.func("MAX", exp.column(loaded_at.name))).from_(evaluator.this_model)
    return exp.or_(exp.Exists(this=exp.select("1").from_(evaluator.this_model).limit(1)).not_(), exp.GT(this=loaded_at, expression=newest.subquery()))
