"""The verbs that do work, and the order of a scheduled run. Each is recorded in the ledger and holds the lease."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cli import tables
from cli.alert import after_run
from cli.check import show
from cli.demo_company import start_if_needed
from cli.seeing import tell
from warehouse import clock, ledger, storage
from warehouse.console import log_to_file, logger, progress
from warehouse.errors import FindingsFound, LeaseHeld
from warehouse.lease import lease
from warehouse.settings import settings

if TYPE_CHECKING:
    from pathlib import Path

    from monitoring.findings import Finding
    from warehouse.ledger import Run


def run_everything(*, only_due: bool) -> None:
    """Load (all sources, or those that are due), transform, check, publish, record."""
    from pipelines.load import due

    run_sources("run --due" if only_due else "run", lambda source: not only_due or due(source))


def run_sources(command: str, is_wanted: Callable[[str], bool], between: Callable[[], None] = lambda: None) -> None:
    """Load the sources that are wanted, transform, check, publish, record.

    Args:
        command: what the ledger calls the run.
        is_wanted: asked of each source that is configured, just before it would be loaded.
        between: called between two steps; what it raises ends the run there.
    """
    from pipelines.load import load
    from pipelines.source import sources

    began = time.monotonic()
    refused: list[tuple[str, str]] = []
    with recorded(command, after=lambda run, error: after_run(run, error, refused)) as run:
        start_if_needed()
        for source in sources():
            if not settings().is_configured(source):
                with run.step("load", source) as step:
                    step.status, step.detail["why"] = "skipped", "not configured"
                continue
            if not is_wanted(source):
                with run.step("load", source) as step:
                    step.status, step.detail["why"] = "skipped", "not due"
                continue
            between()
            loaded = load(source, run)
            refused += [(f"raw_{source}.{table.table}", finding) for table in loaded for finding in table.findings]
            tables.loads(loaded)
        tables.webhooks(run)
        between()
        try:
            _transform(run)
        except FindingsFound:  # an audit stopped the build: the contracts say of which rows, and whoever is told must know
            tables.findings(*_check(run))
            raise
        between()
        findings, left_out = _check(run)
        tables.findings(findings, left_out)
        wrong = [finding for finding in findings if finding.severity == "error"]
        if wrong:
            mend = "`warehouse check` lists them; mend the data or the rule and run again"
            raise FindingsFound(f"{len(wrong)} findings; readers keep the last copy that passed.", mend=mend)
        between()
        _publish(run)
        _raise_refused([why for _, why in refused])
    tables.steps(run, time.monotonic() - began)


def load_one(source: str) -> None:
    """Load one source."""
    from pipelines.load import load

    with recorded(f"load {source}") as run:
        start_if_needed()
        loaded = load(source, run)
        tables.loads(loaded)
        tables.webhooks(run)
        _raise_refused([finding for table in loaded for finding in table.findings])


def rebuild_one(source: str) -> None:
    """Make a source's raw tables anew from the landing zone."""
    from pipelines.rebuild import rebuild

    with recorded(f"rebuild {source}") as run:
        tables.loads(rebuild(source, run))


def transform_all(restate: Sequence[str] = ()) -> None:
    """Plan and build the models."""
    with recorded("transform") as run:
        _transform(run, restate)


def check_all(*, as_json: bool, junit: "Path | None", alert: bool) -> None:
    """Check contracts and freshness."""
    from cli.backup_work import watched
    from monitoring.book import record
    from monitoring.rules import routed

    with recorded("check") as run:
        findings, left_out = _check(run)
        with run.step("check", "backups") as step:
            old = watched()
            step.rows_out = len(old)
        findings += record(routed(old), origin="backup", now=clock.now())
        show(findings, left_out, as_json=as_json, junit=junit, alert=alert)


def publish_all() -> None:
    """Publish the marts."""
    with recorded("publish") as run:
        _publish(run)


def _raise_refused(refused: list[str]) -> None:
    """What a load refused to believe is a finding, said after all else is done."""
    if refused:
        raise FindingsFound("\n".join(refused))


def _transform(run: "Run", restate: Sequence[str] = ()) -> None:
    from transform.build import build

    expose_consents()
    with run.step("transform") as step, progress("building the models"):
        built = build(restate)
        step.detail = {"planned": built.planned, "models": {model.name: round(model.seconds, 3) for model in built.models}}
    tables.models(built)


def expose_consents() -> None:
    """Let the models that are about to be built read who has consented by now."""
    from privacy.consent import expose

    with storage.open_warehouse() as connection:
        expose(connection)


def _check(run: "Run") -> "tuple[list[Finding], list[str]]":
    """Check, as a step of a run. What is wrong, and the sources that were not looked at: those that are neither configured nor ever loaded."""
    from monitoring.book import record
    from monitoring.check import check
    from monitoring.rules import routed
    from pipelines.source import common, sources

    with run.step("check") as step, progress("checking the contracts"):
        left_out = [source for source in sources() if not settings().is_configured(source) and ledger.last_success("load", source) is None]
        found = check({source: common(source).freshness for source in sources()}, left_out)
        findings = record(routed(found), origin="check", now=clock.now())
        step.rows_out = len(findings)
        step.detail = {"findings": [f"{finding.table}: {finding.check}" for finding in findings][:50], "not_checked": left_out}
        if any(finding.severity == "error" for finding in findings):
            step.status = "findings"
    return findings, left_out


def _publish(run: "Run") -> None:
    from serving.publish import publish

    with run.step("publish") as step, progress("publishing"):
        published = publish()
        step.rows_in = sum(published.tables.values())
        step.rows_out = sum(rows for table, rows in published.tables.items() if table in published.rewritten)
        step.detail = {"rewritten": published.rewritten}
        if published.rewritten:
            step.detail["rows"] = {table: published.tables[table] for table in published.rewritten}
    tables.published(published)


@contextmanager
def recorded(command: str, after: "Callable[[Run, BaseException | None], None] | None" = None) -> "Iterator[Run]":
    """Record a run in the ledger, hold the lease in it, and copy the ledger into the warehouse afterwards.

    Args:
        after: called when the run has ended, with what it raised; it must not raise.
    """
    begun: Run | None = None
    error: BaseException | None = None
    try:
        with ledger.run(command) as run:
            begun = run
            settings().home.mkdir(parents=True, exist_ok=True)
            log_to_file()
            logger.info("begin", extra={"fields": {"run_id": run.run_id, "command": command}})
            with lease(command):
                _prepare_ledger(run)
                yield run
    except BaseException as raised:
        error = raised
        raise
    finally:
        if after is not None and begun is not None:
            after(begun, error)
        _copy_ledger()
        tell()


@contextmanager
def recorded_beside(command: str) -> "Iterator[Run]":
    """Record a run that goes on beside the writer: a backup, a restore or a drill, one of them at a time."""
    from backup.take import one_at_a_time

    try:
        with ledger.run(command) as run:
            log_to_file()
            logger.info("begin", extra={"fields": {"run_id": run.run_id, "command": command}})
            with one_at_a_time():
                ledger.mark_interrupted(run.run_id, beside=True)
                yield run
    finally:
        _copy_ledger()
        tell()


def _prepare_ledger(run: "Run") -> None:
    """Fill an empty machine's ledger from the warehouse, so that it knows what is due and was told; note which runs were killed."""
    from monitoring import book

    if ledger.is_new(run.run_id) and storage.exists():
        with storage.open_warehouse() as connection:
            ledger.fill_from(connection)
            book.fill_from(connection)
    ledger.mark_interrupted(run.run_id)


def _copy_ledger() -> None:
    """Best effort after the run has ended: a failure here is logged, and the next run copies what is missing."""
    from monitoring import book

    try:
        if storage.exists():
            with lease("ledger"), storage.open_warehouse() as connection:
                ledger.copy_into(connection)
                ledger.prune(connection)
                book.copy_into(connection)
    except LeaseHeld:
        pass  # the run that holds it copies this one too when it ends
    except Exception as error:  # the run's own result must stay what the operator sees
        logger.warning("the ledger was not copied into the warehouse", extra={"fields": {"why": type(error).__name__, "at": str(clock.now())}})
