"""Gather a report: the ledger and the book, the contracts, the lineage and the published copy. Nothing is locked, nothing written."""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import PurePosixPath

from monitoring import book
from monitoring.contract_files import read_contracts
from monitoring.contracts import source_of
from monitoring.expectations import read_expectations
from monitoring.findings import Finding
from monitoring.lineage import Lineage, read_lineage
from monitoring.report import ledgered
from monitoring.report.facts import (
    Broken,
    ContractResult,
    DeclaredSource,
    Definition,
    Headline,
    House,
    Incident,
    Kept,
    LoadedTable,
    Node,
    Reason,
    Report,
    SourceFreshness,
    State,
)
from monitoring.report.series import read_series
from monitoring.rules import read_rules
from warehouse import ledger
from warehouse.lease import held_since

_ORDER: Mapping[State, int] = {"unknown": 0, "well": 1, "warning": 2, "wrong": 3}


def gather(house: House, now: datetime) -> Report:
    """Everything a report says.

    Args:
        now: aware, by the one clock.

    Raises:
        DeclarationError: a contract, a rule or an expectation cannot be read.
    """
    rules, expectations, lineage = read_rules(), read_expectations(), read_lineage()
    writing = held_since()
    with book.opened() as kept:
        findings = book.active_findings(kept)
        broken = ledgered.broken(findings)
        states: dict[str, State] = {table: _worst(found) for table, found in broken.items()}
        still, past = ledgered.incidents(kept, rules, now)
        days, runs = ledgered.run_days(kept, now), ledgered.run_rows(kept, now, writing is not None)
        failing, mended, error = ledgered.trouble(kept)
        resolved, waiting = ledgered.last_resolved(kept), ledgered.waiting_alerts(kept)
        loaded, marts = ledgered.loaded_tables(kept, [one.name for one in house.sources], states), ledgered.mart_history(kept)
    sources = [_source(one, loaded.get(one.name, []), now, has_run=bool(runs)) for one in house.sources]
    known = {one.name for one in sources if one.loaded_at is not None or one.state != "unknown"}
    checked, published = ledger.last_success("check"), ledger.last_success("publish")
    contracts = _contracts(broken, known, checked)
    backups = _backups(house, now)
    series, left_out = read_series(expectations, now)
    reasons = _reasons(sources, backups, findings, still, (failing, error), waiting, now)
    return Report(
        now, _headline(reasons, bool(runs), mended, resolved), writing, sources, days, runs, still, past, contracts, checked, published, series, left_out,
        marts, _nodes(lineage, sources, known, states), backups, _definitions(house, lineage), waiting,
    )  # fmt: skip


def _worst(found: Sequence[Broken]) -> State:
    return "wrong" if any(one.severity == "error" for one in found) else "warning"


def _source(declared: DeclaredSource, tables: list[LoadedTable], now: datetime, *, has_run: bool) -> SourceFreshness:
    at = ledger.last_success("load", declared.name)
    state: State = "well"
    if at is None:
        state = "wrong" if declared.is_configured and has_run else "unknown"
        says = "never loaded" if declared.is_configured else "not configured"
    elif now - at > declared.limit:
        state, says = "wrong", f"{_length(now - at - declared.limit)} over its limit"
    else:
        says = "fresh"
    return SourceFreshness(declared.name, declared.schedule, at, declared.limit, state, says, tables)


def _contracts(broken: Mapping[str, list[Broken]], known: set[str], checked: datetime | None) -> list[ContractResult]:
    found = []
    contracts = read_contracts()
    for table in sorted({*contracts, *(one for one in broken if "." in one and not one.startswith("backup."))}, key=_by_layer):
        checks = sum(1 for _ in contracts[table].all_checks()) if table in contracts else 0
        faults, source = broken.get(table, []), source_of(table)
        state: State
        if faults:
            state = _worst(faults)
            unknown = sum(1 for one in faults if one.check == "evaluation")
            says = f"{unknown} not evaluated" if unknown == len(faults) else f"{len(faults)} broken" + (f", {unknown} not evaluated" if unknown else "")
        elif checked is None:
            state, says = "unknown", "not checked yet"
        elif source is not None and source not in known:
            state, says = "unknown", "its source is not configured"
        else:
            state, says = "well", "kept"
        found.append(ContractResult(table, checks, state, says, faults))
    return found


def _by_layer(table: str) -> tuple[int, str]:
    schema = table.split(".")[0]
    return (0 if schema == "marts" else 1 if schema == "staging" else 2, table)


def _backups(house: House, now: datetime) -> list[Kept]:
    done = {step["item"] for step in ledger.last_steps("backup")} | {step["item"] for step in ledger.last_steps("drill")}
    found = []
    for data in [*house.backups, *sorted(done - set(house.backups))]:
        taken, drilled = (ledger.last_success(step, data, findings_too=False) for step in ("backup", "drill"))
        limit, drill_limit = house.backups.get(data), house.drills.get(data)
        faults = []
        if limit is not None and (taken is None or now - taken > limit):
            faults.append("no backup yet" if taken is None else f"the last backup is {_length(now - taken)} old")
        if drill_limit is not None and (drilled is None or now - drilled > drill_limit):
            faults.append("never restored to prove it" if drilled is None else f"last restored {_length(now - drilled)} ago")
        state: State = "wrong" if faults else "well" if limit is not None else "unknown"
        found.append(Kept(data, state, "; ".join(faults) or ("in time" if limit is not None else "no longer asked for"), taken, limit, drilled, drill_limit))
    return found


def _reasons(
    sources: Sequence[SourceFreshness],
    backups: Sequence[Kept],
    findings: Sequence[Finding],
    incidents: Sequence[Incident],
    failing: tuple[datetime | None, str],
    waiting: int,
    now: datetime,
) -> list[Reason]:
    """What is not well, what is wrong before what may be; each thing once: incidents speak for their findings."""
    since, error = failing
    found = [Reason(one.state, one.title, one.broken_since, "incidents") for one in incidents]
    told = bool(incidents)
    if since is not None and not any(one.title.startswith("Run failed") for one in incidents):
        found.append(Reason("wrong", f"Runs fail: {error}", since, "runs"))
    for source in sources:
        if source.state == "wrong" and not any(source.name in one.title for one in incidents):
            began = source.loaded_at + source.limit if source.loaded_at else None
            found.append(Reason("wrong", f"Source {source.name} is not fresh: {source.says}", began, "freshness"))
    ill = [one for one in backups if one.state == "wrong" and not any(one.data in incident.title for incident in incidents)]
    found += [Reason("wrong", f"Backups of {one.data}: {one.says}", None, "backups") for one in ill]
    judged: tuple[tuple[str, State], ...] = (("error", "wrong"), ("warning", "warning"))
    for severity, state in judged:
        members = [one for one in findings if one.severity == severity]
        if members and not told:  # no rule made an incident of them, or none was looked for since
            tables = sorted({one.table for one in members})
            says = f"{len(members)} {'findings' if severity == 'error' else 'warnings'} in {', '.join(tables[:3])}" + (" and others" if len(tables) > 3 else "")
            found.append(Reason(state, says, min(one.since for one in members), "contracts"))
    if waiting:
        found.append(Reason("wrong", f"{waiting} alerts reach nobody: their channels refuse them", None, "incidents"))
    return sorted(found, key=lambda one: -_ORDER[one.state])


def _headline(reasons: list[Reason], has_run: bool, mended: datetime | None, resolved: datetime | None) -> Headline:
    if not has_run:
        return Headline("unknown", "Nothing has run yet", None, [])
    wrong = [one for one in reasons if one.state == "wrong"]
    instants = [one.since for one in (wrong or reasons) if one.since is not None]
    since = min(instants) if instants else None
    if wrong:
        return Headline("wrong", "One thing is wrong" if len(wrong) == 1 else f"{len(wrong)} things are wrong", since, reasons)
    well = max((one for one in (mended, resolved) if one is not None), default=None)
    if reasons:
        return Headline("warning", "Nothing is broken, something is unusual", since, reasons)
    return Headline("well", "Everything is well", well, []) if well else Headline("unknown", "No whole run has ended yet", None, [])


def _nodes(lineage: Lineage, sources: Sequence[SourceFreshness], known: set[str], states: Mapping[str, State]) -> list[Node]:
    """Sources, raw tables, views and marts; those of sources that are neither configured nor loaded are left out."""
    tables = {*lineage.inputs, *(one for inputs in lineage.inputs.values() for one in inputs)}
    shown = sorted(one for one in tables if (source_of(one) or "") in {"", *known})
    depths: dict[str, int] = {}

    def depth(table: str) -> int:
        if table not in depths:
            depths[table] = 0  # a model may name itself
            depths[table] = 1 + max((depth(one) for one in lineage.inputs.get(table, ()) if one.startswith("marts.")), default=-1)
        return depths[table]

    stale = {f"raw_{one.name}": one.says for one in sources if one.state == "wrong"}
    nodes = [Node(one.name, "source", 0, [], one.state, one.says) for one in sources if one.name in known]
    for table in shown:
        schema = table.split(".")[0]
        above = lineage.above(table)
        ill = sorted(one for one in above if states.get(one) == "wrong")
        old = sorted({one.split(".")[0] for one in (table, *above)} & set(stale))
        state = states.get(table, "well")
        says = "its own checks found something" if table in states else "well"
        if state == "well" and (ill or old):
            state, says = "warning", f"made from {', '.join(ill[:3])}" if ill else f"made from old data: {', '.join(one.removeprefix('raw_') for one in old)}"
        reads = sorted(lineage.inputs.get(table, frozenset()) - {table}) or ([schema.removeprefix("raw_")] if schema.startswith("raw_") else [])
        layer = "raw" if schema.startswith("raw_") else schema
        nodes.append(Node(table, layer, depth(table) if layer == "marts" else 0, [one for one in reads if one in shown or one in known], state, says))  # type: ignore[arg-type]  # the lineage knows these three schemas alone
    return nodes


def _definitions(house: House, lineage: Lineage) -> list[Definition]:
    found = []
    for path, text in sorted(house.pages.items()):
        marts = sorted(name for name in lineage.inputs if name.startswith("marts.") and re.search(rf"\b{name.split('.')[1]}\b", text))
        title = next((line.removeprefix("# ") for line in text.splitlines() if line.startswith("# ")), PurePosixPath(path).stem)
        found.append(Definition(title, path, house.links.get(path, ""), marts))
    return found


def _length(length: timedelta) -> str:
    minutes = int(length.total_seconds() // 60)
    if minutes < 120:
        return f"{minutes} min"
    hours = minutes // 60
    return f"{hours} h" if hours < 72 else f"{hours // 24} days"
