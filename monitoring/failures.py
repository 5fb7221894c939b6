"""Runs that failed, as findings: which step, and since when it has failed run after run; and audits that stopped a build."""

import re
from collections.abc import Sequence
from datetime import datetime

from monitoring.book import record
from monitoring.findings import Finding
from monitoring.incidents import AUDIT, RUN_FAILED
from monitoring.lineage import EVERYTHING
from monitoring.rules import Rules, routed
from warehouse.errors import FindingsFound, LeaseHeld
from warehouse.ledger import Run, Step
from warehouse.sql import literal

REFUSED = "refused by the load"
_AUDITED = re.compile(r"^(\w+\.\w+): audit (\w+) (found \d+ rows)$", re.MULTILINE)
"""How transform/report.py says that an audit failed."""
_PLACES = {"transform": "marts", "check": "contracts", "publish": "published"}


def record_run(run: Run, error: BaseException | None, refused: Sequence[tuple[str, str]], rules: Rules, now: datetime) -> None:
    """Note what failed in a run, and that what failed before has succeeded now.

    Args:
        error: what the run ended with. Findings are told by themselves, those of audits here; an operator's Ctrl+C and a warehouse that another
            process is writing are no failures.
        refused: tables (schema.table) whose load did not believe its source, and why.
    """
    failed = [step for step in run.steps if step.status == "failed"]
    well = {_place(step) for step in run.steps if step.status in ("succeeded", "findings") or step.detail.get("why") == "not configured"}
    is_failure = isinstance(error, Exception) and not isinstance(error, FindingsFound | LeaseHeld)
    found = [_finding(run, _place(step), step.error or "", now) for step in failed] if is_failure else []
    if is_failure and not failed:
        found.append(_finding(run, EVERYTHING, f"{type(error).__name__}: {error}", now))
    if error is None or isinstance(error, FindingsFound):
        well.add(EVERYTHING)
    built = [step for step in run.steps if step.name == "transform" and step.status in ("succeeded", "findings")]
    found += [_audit(model, audit, rows, now) for step in built for model, audit, rows in _AUDITED.findall(step.error or "")]
    found += [Finding(REFUSED, table, None, "error", why.split("\n")[0], "every row of the source is believed", now, "") for table, why in refused]
    places = well - {finding.table for finding in found}

    def looked_at(check: str, table: str) -> bool:
        if check.startswith(AUDIT):
            return bool(built)
        return table in places if check == RUN_FAILED else table.split(".")[0] in places

    record(routed(found, rules), origin="run", now=now, looked_at=looked_at)


def _place(step: Step) -> str:
    """The part of the house that a step fills: a schema, or what it is called."""
    source = step.item.split(".")[0]
    return f"raw_{source}" if source else _PLACES.get(step.name, step.name)


def _finding(run: Run, place: str, why: str, now: datetime) -> Finding:
    query = f"SELECT step, item, status, error FROM ops.run_steps WHERE run_id = {literal(run.run_id)} ORDER BY position"
    return Finding(
        RUN_FAILED,
        place,
        None,
        "error",
        f"`warehouse {run.command}` failed: {why.splitlines()[0] if why else 'no reason given'}",
        "every step ends well",
        now,
        query,
    )


def _audit(model: str, audit: str, found: str, now: datetime) -> Finding:
    observed = f"the audit {found}: neither the table nor what is made of it was built, readers keep what passed"
    return Finding(f"{AUDIT}{audit}", model, None, "error", observed, f"no row of audits/{audit}.sql or of SQLMesh's audit of that name", now, "")
