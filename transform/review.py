"""Review a change of the models: build what changed in an environment of its own, beside production and never into it.

SQLMesh's virtual environments share every table that did not change, so only what the change touches is built, and after
the merge production takes the tables over as they are (docs/adr/0015-review-in-a-virtual-environment.md).
"""

from dataclasses import dataclass, field
from io import StringIO
from typing import TYPE_CHECKING, Any, Literal

from transform.build import ENVIRONMENT, built_until, open_context
from transform.raw_tables import RawTables, complete, lacking_error
from transform.report import readable_name
from warehouse import storage
from warehouse.console import logger
from warehouse.errors import FindingsFound, StepFailed, UsageError, scrub

if TYPE_CHECKING:
    from sqlmesh import Context
    from sqlmesh.core.plan import Plan
    from sqlmesh.core.snapshot import Snapshot

    from transform.report import Report

Category = Literal["new", "removed", "breaking", "non-breaking", "indirectly breaking", "indirectly non-breaking", "forward-only", "metadata only"]
_CATEGORIES: dict[int, Category] = {
    1: "breaking", 2: "non-breaking", 3: "forward-only", 4: "indirectly breaking", 5: "indirectly non-breaking", 6: "metadata only",
}  # fmt: skip


@dataclass(frozen=True)
class Problem:
    """One thing that would go wrong if the change were merged: where it shows, and what."""

    kind: Literal["build", "audit", "test", "contract", "metric", "dashboard"]
    what: str


@dataclass(frozen=True)
class ChangedModel:
    """A model that is not what production has.

    Attributes:
        is_direct: whether its own text changed; else something that it reads.
        downstream: the models that read it, directly or not.
        table, table_before: the physical tables behind it; None for views and where there is none.
        seconds: how long it took to build in the environment; None when nothing of it was built.
    """

    name: str
    category: Category
    is_direct: bool
    grain: tuple[str, ...] = ()
    downstream: tuple[str, ...] = ()
    table: str | None = None
    table_before: str | None = None
    seconds: float | None = None

    @property
    def has_other_rows(self) -> bool:
        """Whether its rows may differ from production's; else both are one table."""
        return self.category not in ("metadata only", "indirectly non-breaking")


@dataclass
class Environment:
    """What became of the change in its environment.

    Attributes:
        is_built: whether every model was built and audited, so that its rows can be compared.
        views: every model that has a view in the environment.
    """

    name: str
    models: list[ChangedModel] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    tests: int = 0
    is_built: bool = False
    views: frozenset[str] = frozenset()

    def schema(self, model: str) -> str:
        """`marts.order_facts` -> `marts__pr_12.order_facts`."""
        schema, _, name = model.partition(".")
        return f"{schema}__{self.name}.{name}"


def build_environment(name: str, *, megabytes: int) -> Environment:
    """Plan the project as it is against production and build it in the environment. Hold the lease; nothing is published.

    A model that cannot be read or built, an audit that finds rows and a failing model test are `problems`, not errors.

    Args:
        name: lower case letters, digits and underscores.
        megabytes: how much tables may take that are in no way production's; above it, the environments that expire first go.

    Raises:
        UsageError: production was never built, or the name is production's.
        LeaseHeld, StepFailed: the warehouse cannot be opened.
    """
    never_built = UsageError("there is no production to compare with.", mend="`warehouse run` builds it; review the change afterwards")
    if name == ENVIRONMENT:
        raise UsageError("a review never builds production.", mend="give another --environment")
    if not storage.exists():
        raise never_built
    with storage.open_warehouse() as connection:
        raw = complete(connection)
    environment = Environment(name)
    try:
        with open_context() as context:
            production = context.state_reader.get_environment(ENVIRONMENT)
            if production is None or not production.finalized_ts:
                raise never_built
            _make_room(context, name, megabytes)
            _run_tests(context, environment)
            _build(context, environment)
    except FindingsFound as found:
        environment.problems += [Problem("audit", line) for line in found.what.splitlines()]
    except StepFailed as error:
        environment.problems.append(Problem("build", _explained(error, raw)))
    return environment


def _explained(error: StepFailed, raw: RawTables) -> str:
    return (lacking_error(error, raw.lacking) if raw.lacking else error).what


def _run_tests(context: "Context", environment: Environment) -> None:
    result = context.test(stream=StringIO())
    environment.tests = result.testsRun
    for test, trace in (*result.failures, *result.errors):
        cause = " ".join(trace.split("AssertionError:")[-1].split())
        environment.problems.append(Problem("test", f"{getattr(test, 'test_name', test)}: {scrub(cause)[:400]}"))


def _build(context: "Context", environment: Environment) -> None:
    report: Report = context.console
    builder = context.plan_builder(
        environment.name,
        create_from=ENVIRONMENT,
        skip_tests=True,
        skip_linter=True,
        include_unmodified=True,
        # Not now: the environment is built up to where production is, or all that did not change would be built anew.
        execution_time=built_until(context),
    )
    plan = builder.build()
    if plan.uncategorized:
        from sqlmesh.core.snapshot import SnapshotChangeCategory

        for snapshot in plan.uncategorized:
            builder.set_choice(snapshot, SnapshotChangeCategory.BREAKING)
        plan = builder.build()
    environment.models = _changed(context, plan, {})
    environment.views = frozenset(model.name for model in context.models.values() if not model.kind.is_external)
    report.forget()
    context.apply(plan)
    report.raise_if_failed()
    environment.models = _changed(context, plan, {model.name: model.seconds for model in report.models()})
    environment.is_built = True


def _changed(context: "Context", plan: "Plan", seconds: dict[str, float]) -> list[ChangedModel]:
    """What the plan changes, in the order of the data's way; what is removed comes last."""
    diff, found = plan.context_diff, []
    changed = {**dict(diff.modified_snapshots), **{one.name: (diff.snapshots[one], None) for one in diff.added}}
    for fqn in context.dag.sorted:
        if fqn not in changed or not changed[fqn][0].is_model or changed[fqn][0].model.kind.is_external:
            continue
        new, old = changed[fqn]
        found.append(
            ChangedModel(
                name=readable_name(fqn),
                category="new" if old is None else "forward-only" if new.is_forward_only else _CATEGORIES[int(new.change_category)],
                is_direct=old is None or diff.directly_modified(fqn) or diff.metadata_updated(fqn),
                grain=_grain(new),
                downstream=tuple(sorted(readable_name(one) for one in context.dag.downstream(fqn))),
                table=_table(new, plan.deployability_index.is_representative(new)),
                table_before=_table(old, True) if old is not None else None,
                seconds=seconds.get(readable_name(fqn)),
            )
        )
    removed = [one for one in diff.removed_snapshots.values() if one.is_model and not one.model_kind_name.is_external]
    return found + [ChangedModel(readable_name(one.name), "removed", is_direct=True) for one in sorted(removed, key=lambda one: str(one.name))]


def _grain(snapshot: "Snapshot") -> tuple[str, ...]:
    grains = snapshot.model.grains
    return tuple(column.name for column in (grains[0].expressions or [grains[0]])) if grains else ()


def _table(snapshot: "Snapshot", is_deployable: bool) -> str | None:
    kind = snapshot.model.kind
    return None if kind.is_symbolic or kind.is_view else str(snapshot.table_name(is_deployable))


def _make_room(context: "Context", name: str, megabytes: int) -> None:
    """Forget what has expired; then, while tables of no use to production take too much, the environments that expire first."""
    context.run_janitor(ignore_ttl=False)
    others = [one for one in context.state_reader.get_environments() if one.name not in (ENVIRONMENT, name)]
    for other in sorted(others, key=lambda one: one.expiration_ts or 0):
        if _megabytes_beside_production(context) <= megabytes:
            return
        logger.warning("an environment is dropped to make room", extra={"fields": {"environment": other.name}})
        context.invalidate_environment(other.name, sync=True)
        context.run_janitor(ignore_ttl=True)


def _megabytes_beside_production(context: "Context") -> float:
    production = context.state_reader.get_environment(ENVIRONMENT)
    kept = {str(one.table_name()) for one in production.snapshots if one.is_model} if production else set()
    rows: list[Any] = context.engine_adapter.fetchall(
        "SELECT schema_name, table_name, estimated_size * column_count * 8 FROM duckdb_tables() "
        "WHERE database_name = current_database() AND starts_with(schema_name, 'sqlmesh__')"
    )
    held = {name.replace('"', "").split(".", 1)[-1] for name in kept}
    return sum(size or 0 for schema, table, size in rows if f"{schema}.{table}" not in held) / 1e6
