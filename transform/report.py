"""What SQLMesh says while it works, kept as data: which model took how long, which failed, and why."""

from dataclasses import dataclass, field
from typing import Any

from sqlmesh.core.console import NoopConsole
from sqlmesh.utils.errors import AuditError, NodeAuditsErrors

from warehouse import telemetry
from warehouse.console import logger
from warehouse.errors import FindingsFound, StepFailed, WarehouseError, mend_of, scrub


@dataclass
class ModelReport:
    """One model of one build."""

    name: str
    seconds: float = 0.0
    rows: int | None = None
    audits_passed: int = 0
    audits_failed: int = 0


@dataclass
class _Failure:
    model: str
    message: str
    is_audit: bool


@dataclass
class Report(NoopConsole):  # type: ignore[misc]  # sqlmesh ships no type information
    """SQLMesh's console, writing nothing and remembering everything."""

    _models: dict[str, ModelReport] = field(default_factory=dict)
    _failures: list[_Failure] = field(default_factory=list)
    _errors: list[str] = field(default_factory=list)

    def models(self) -> list[ModelReport]:
        """The models built, in the order in which they ended."""
        return list(self._models.values())

    @property
    def has_failed(self) -> bool:
        """Whether a model, an audit or anything else went wrong."""
        return bool(self._failures or self._errors)

    def forget(self) -> None:
        """Begin anew: what was said so far was about a build that is being replaced."""
        self._models.clear()
        self._failures.clear()
        self._errors.clear()

    def update_snapshot_evaluation_progress(
        self,
        snapshot: Any,
        interval: Any,
        batch_idx: int,
        duration_ms: int | None,
        num_audits_passed: int,
        num_audits_failed: int,
        audit_only: bool = False,
        execution_stats: Any = None,
        auto_restatement_triggers: Any = None,
    ) -> None:
        """SQLMesh: a model, or a batch of it, is built and audited."""
        name = readable_name(snapshot.name)
        model = self._models.setdefault(name, ModelReport(name))
        model.seconds += (duration_ms or 0) / 1000
        telemetry.past_span("model", (duration_ms or 0) / 1000, model=name, audits_passed=num_audits_passed, audits_failed=num_audits_failed)
        model.audits_passed += num_audits_passed
        model.audits_failed += num_audits_failed
        rows = getattr(execution_stats, "total_rows_processed", None)
        if rows is not None:
            model.rows = (model.rows or 0) + rows

    def log_failed_models(self, errors: list[Any]) -> None:
        """SQLMesh: these models failed."""
        for error in errors:
            cause = error.__cause__ or error
            node = error.node[0] if isinstance(error.node, tuple) else error.node
            name = readable_name(getattr(node, "snapshot_name", None) or str(node))
            audits = cause.errors if isinstance(cause, NodeAuditsErrors) else [cause] if isinstance(cause, AuditError) else []
            if audits:
                for audit in audits:
                    self._failures.append(_Failure(name, f"audit {audit.audit_name} found {audit.count} rows", True))
                    logger.warning("audit failed", extra={"fields": {"model": name, "audit": audit.audit_name, "rows": audit.count}})
            else:
                self._failures.append(_Failure(name, scrub(str(cause).split("\n")[0]), False))

    def log_destructive_change(self, snapshot_name: str, alter_operations: list[Any], dialect: str, error: bool = True) -> None:
        """SQLMesh: a model that keeps history would lose a column or a type."""
        changes = "; ".join(str(getattr(operation, "expression", operation)) for operation in alter_operations)
        self._errors.append(f"{readable_name(snapshot_name)} would lose what it holds: {changes}")

    def log_error(self, message: str) -> None:
        """SQLMesh: something is wrong."""
        self._errors.append(scrub(message))

    def log_warning(self, short_message: str, long_message: str | None = None) -> None:
        """SQLMesh: something may be wrong."""
        logger.warning(scrub(short_message))

    def failure(self, error: BaseException) -> WarehouseError:
        """The error to raise for what SQLMesh raised: its own words only where it named no model."""
        if self._failures:
            return self._from_failures()
        said = "; ".join([*self._errors, scrub(str(error))]) or type(error).__name__
        return StepFailed(
            f"the models cannot be built: {said}", mend=mend_of(said, "`sqlmesh lint` and `sqlmesh plan dev` show the same problem without touching production")
        )

    def raise_if_failed(self) -> None:
        """Raise what went wrong in a run that ended without an exception.

        Raises:
            StepFailed, FindingsFound
        """
        if self.has_failed:
            raise self._from_failures() if self._failures else self.failure(RuntimeError("see above"))

    def _from_failures(self) -> WarehouseError:
        what = "\n".join(f"{failure.model}: {failure.message}" for failure in self._failures)
        if all(failure.is_audit for failure in self._failures):
            return FindingsFound(
                what,
                mend="look at the rows with the audit's query (audits/); correct them at their source, "
                "or, if a built table lost rows, `warehouse transform --restate MODEL`; what depends on them was not built",
            )
        return StepFailed(what, mend=mend_of(what, "mend the model or its input and run `warehouse transform` again; nothing of it is visible"))


def readable_name(name: str) -> str:
    """`"warehouse"."marts"."order_facts"` -> `marts.order_facts`."""
    return ".".join(part for part in name.replace('"', "").split(".")[-2:])
