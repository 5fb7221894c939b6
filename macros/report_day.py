"""The day on which something counts in reports."""

from zoneinfo import ZoneInfo

from sqlglot import exp
from sqlmesh import macro
from sqlmesh.core.macros import MacroEvaluator


@macro()  # type: ignore[untyped-decorator]  # SQLMesh types no decorator
def report_date(evaluator: MacroEvaluator, instant: exp.Expression) -> exp.Expression:
    """The date of a naive UTC timestamp in the report's time zone, the variable `report_time_zone` of config.yaml.

    What is stored stays in UTC. Another zone changes the models that use this, so the next build makes them anew.

    Raises:
        ZoneInfoNotFoundError: there is no such time zone.
    """
    zone = str(evaluator.var("report_time_zone", "UTC"))
    ZoneInfo(zone)  # a wrong name is refused when models are read, not in the middle of a build
    if zone == "UTC":
        return exp.cast(instant, "DATE")
    at_utc = exp.AtTimeZone(this=exp.cast(instant, "TIMESTAMP"), zone=exp.Literal.string("UTC"))
    return exp.cast(exp.AtTimeZone(this=exp.paren(at_utc), zone=exp.Literal.string(zone)), "DATE")
