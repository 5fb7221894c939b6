"""The project's own models and audits as SQL, and what a run makes of raw tables with them, in one DuckDB connection in this process.

A `warehouse run` takes half a minute; a trial may take a tenth of a second. So each model's query and each audit's query are
rendered once, by SQLMesh, from the files of models/ and audits/, and a trial evaluates them on damaged raw tables in the order
and by the rules of a run: a model whose audit finds rows keeps what it showed before, and so does all that is made of it.
tests/trials/both_ways.py runs the real thing on the same raw tables and compares the findings.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING

import duckdb

from monitoring.failures import _audit
from monitoring.findings import Finding
from monitoring.lineage import Lineage, read_lineage
from warehouse.settings import ROOT

if TYPE_CHECKING:
    from sqlmesh.core.macros import MacroRegistry

NOW = datetime(2026, 3, 2, 7, 0, 0, tzinfo=UTC)
"""The moment of every run: a Monday, 07:00; the day judged is Sunday, 1 March."""
STAGED = {
    "postgres": ("orders", "users"),
    "stripe": ("balance_transactions", "charges", "disputes", "payouts", "refunds"),
}
MARTS = (
    "order_facts", "user_dim_history", "user_dim", "balance_transaction_facts", "payment_facts", "refund_facts", "dispute_facts",
    "balance_reconciliation", "daily_revenue", "customer_lifetime_value", "cohort_retention",
)  # fmt: skip
CARRIED = (*(f"staging.stg_{source}__{name}" for source, names in STAGED.items() for name in names), *(f"marts.{name}" for name in MARTS))
RAW = tuple(f"raw_{source}.{name}" for source, names in STAGED.items() for name in names)
TABLES = (*RAW, *CARRIED)
"""Every table of a trial, from the sources down."""
_KINDS = {"marts.user_dim_history": "SELECT *, updated_at AS valid_from, NULL::TIMESTAMP AS valid_to FROM ({query})"}


@dataclass(frozen=True)
class Rendered:
    """One model: the SQL of its rows, and of each audit by name."""

    name: str
    is_view: bool
    query: str
    audits: Mapping[str, str]


@cache
def lineage() -> Lineage:
    """What is made from what."""
    return read_lineage()


@cache
def below(table: str) -> frozenset[str]:
    """A table and all that is made of it, of those of a trial."""
    return frozenset(one for one in TABLES if one == table or table in lineage().above(one))


@cache
def models() -> tuple[Rendered, ...]:
    """The models of a trial in the order in which they are built, from their files."""
    import yaml
    from sqlmesh.core.audit import load_audit
    from sqlmesh.core.dialect import parse
    from sqlmesh.core.model import load_sql_based_model

    config = yaml.safe_load(re.sub(r"\{\{.*?\}\}", "0", (ROOT / "config.yaml").read_text()))
    macros, audits = _macros(), {}
    for file in (ROOT / "audits").glob("*.sql"):
        audit = load_audit(parse(file.read_text(), default_dialect="duckdb"), path=file, dialect="duckdb", default_catalog="warehouse")
        audits[audit.name] = audit
    found = []
    for name in CARRIED:
        (file,) = (ROOT / "models").rglob(f"{name.split('.')[1]}.sql")
        model = load_sql_based_model(
            parse(file.read_text(), default_dialect="duckdb"), path=file, dialect="duckdb", macros=macros,
            module_path=ROOT, variables=config["variables"], audit_definitions=audits, default_catalog="warehouse",
        )  # fmt: skip
        query = model.render_query_or_raise(optimize=False, execution_time=NOW).sql("duckdb")
        if "is_deleted" in model.columns_to_types_or_raise and model.kind.is_incremental_by_unique_key:
            query = f"SELECT * FROM ({query}) WHERE NOT is_deleted"
        judged = {one.name: model.render_audit_query(one, execution_time=NOW, **given).sql("duckdb") for one, given in model.audits_with_args}
        found.append(Rendered(name, model.kind.is_view, _KINDS.get(name, "{query}").format(query=query), judged))
    return tuple(found)


def _macros() -> "MacroRegistry":
    """The project's macros beside SQLMesh's own, read anew: another checkout that this process has read may stand in their place."""
    from sqlmesh.core.macros import macro
    from sqlmesh.utils import UniqueKeyDict, sys_path
    from sqlmesh.utils.metaprogramming import import_python_file

    before = macro.get_registry()
    macro.set_registry(UniqueKeyDict("macros", **{name: one for name, one in before.items() if not one.func.__module__.startswith("macros.")}))
    with sys_path(ROOT):
        for file in sorted((ROOT / "macros").glob("*.py")):
            import_python_file(file, ROOT)
    found = macro.get_registry()
    macro.set_registry(before)
    return found


def build(connection: duckdb.DuckDBPyConnection, touched: Collection[str] = TABLES) -> list[Finding]:
    """Build the models that are made of the touched tables anew, and audit them.

    Returns:
        what the audits found; those models, and what is made of them, stay as they were.
    """
    stopped: set[str] = set()
    found: list[Finding] = []
    for model in models():
        if model.name not in touched or stopped & lineage().above(model.name):
            continue
        if model.is_view:
            connection.execute(f"CREATE VIEW IF NOT EXISTS {model.name} AS {model.query}")
        else:
            schema, name = model.name.split(".")
            is_new = connection.execute("SELECT 1 FROM duckdb_tables() WHERE schema_name = ? AND table_name = ?", [schema, name]).fetchone() is None
            if not is_new:
                connection.execute(f"ALTER TABLE {model.name} RENAME TO {name}__before")
            connection.execute(f"CREATE TABLE {model.name} AS {model.query}")
        counts = connection.execute("SELECT " + ", ".join(f"(SELECT count(*) FROM ({query}))" for query in model.audits.values())).fetchone() or ()
        failed = [(audit, rows) for audit, rows in zip(model.audits, counts, strict=True) if rows]
        found += [_audit(model.name, audit, f"found {rows} rows", NOW) for audit, rows in failed]
        if failed:
            stopped.add(model.name)
        if not model.is_view and not is_new:
            gone, kept = (name, f"{name}__before") if failed else (f"{name}__before", name)
            connection.execute(f"DROP TABLE {schema}.{gone}")
            if kept != name:
                connection.execute(f"ALTER TABLE {schema}.{kept} RENAME TO {name}")
    return found
