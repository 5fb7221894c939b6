"""Whether a customer consents to a purpose."""

from sqlglot import exp
from sqlmesh import macro
from sqlmesh.core.macros import MacroEvaluator


@macro()  # type: ignore[untyped-decorator]  # SQLMesh types no decorator
def consented(evaluator: MacroEvaluator, purpose: exp.Expression, key: exp.Expression | None = None) -> exp.Expression:
    """True for customers who consent to a purpose now: `WHERE @consented('marketing', customers.customer_key)`.

    Args:
        purpose: one that privacy/policy.yaml declares.
        key: the column with the customer's key, `customer_key` unless given.

    Raises:
        ValueError: the policy does not declare the purpose; the models cannot be planned then.
    """
    import yaml

    from warehouse.settings import ROOT

    declared = (yaml.safe_load((ROOT / "privacy" / "policy.yaml").read_text(encoding="utf-8")).get("consent") or {}).get("purposes") or {}
    if purpose.name not in declared:
        known = ", ".join(sorted(declared)) or "none"
        raise ValueError(f"@consented('{purpose.name}'): privacy/policy.yaml, consent.purposes: not declared; allowed: {known}")
    agreed = (
        exp.select(exp.column("customer_key", "consents"))
        .from_(exp.to_table("marts.consents"))
        .where(exp.column("purpose", "consents").eq(exp.Literal.string(purpose.name)), exp.column("is_given", "consents"))
    )
    return exp.In(this=key.copy() if key else exp.column("customer_key"), query=exp.Subquery(this=agreed))
