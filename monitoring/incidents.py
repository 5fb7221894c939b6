"""Findings become incidents: one for each cause, with everything that follows from it inside."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from monitoring.findings import Finding
from monitoring.lineage import Lineage

RUN_FAILED = "run failed"
OUTDATED = {"freshness", "completeness", "newest row"}
"""What is seen of tables whose source was not loaded: they are old, or lack rows. Nothing else follows from that alone."""
AUDIT = "audit "
"""What audits are called by that stopped a build: rows further up say why, and what was not built lacks rows."""
SHAPE = {"schema", "schema change"}
UNUSUAL = "unusual "
"""What the checks of unusual days are called by: symptoms, never a cause of anything but each other."""
DELETES = f"{UNUSUAL}deletes"
_UNUSUAL_FIRST = ("volume", "mean", "null", "distinct", "sum")
"""Of what is unusual about the days of one table, what says most stands first: fewer rows have smaller sums, and so have smaller amounts."""
_FOLLOWS_FROM_SHAPE = {"schema", "evaluation", "missing", "contract"}


@dataclass(frozen=True)
class Group:
    """What one incident is about; `findings` begins with the cause."""

    key: str
    findings: tuple[Finding, ...]

    @property
    def cause(self) -> Finding:
        """What everything else in it follows from."""
        return self.findings[0]


def grouped(findings: Sequence[Finding], lineage: Lineage) -> list[Group]:
    """Put each finding under its cause, the furthest up that explains it.

    Args:
        findings: what is wrong now, the oldest first.

    Returns:
        one group for each cause, in the order in which the causes were found.
    """
    causes = {one.fingerprint: _cause(one, findings, lineage) for one in findings}
    groups: dict[str, list[Finding]] = {}
    for one in findings:
        cause = causes[one.fingerprint]
        groups.setdefault(_key(cause), [cause])
        if one.fingerprint != cause.fingerprint:
            groups[_key(cause)].append(one)
    return [Group(key, tuple({one.fingerprint: one for one in members}.values())) for key, members in groups.items()]


def explains(cause: Finding, finding: Finding, lineage: Lineage) -> bool:
    """Whether a finding follows from another one, which is further up or says why."""
    if cause.fingerprint == finding.fingerprint:
        return False
    if finding.check.startswith(UNUSUAL):
        return _explains_unusual(cause, finding, lineage)
    if cause.check.startswith(UNUSUAL):
        return False
    if finding.check.startswith(AUDIT) or (cause.check.startswith(AUDIT) and finding.check in OUTDATED):
        return _explains_stopped_build(cause, finding, lineage)
    if cause.check == RUN_FAILED:
        return finding.check in OUTDATED and lineage.is_above(cause.table, finding.table)
    if cause.check == "duplicate" and finding.check == "completeness":
        return cause.table == finding.table or lineage.is_above(cause.table, finding.table)  # rows that are there twice are rows too many
    if RUN_FAILED in (finding.check, cause.check) or cause.check in OUTDATED or finding.check == "freshness":
        follows = OUTDATED - {"freshness"} if cause.check == "freshness" else {cause.check}
        return cause.check in OUTDATED and finding.check in follows and finding.check != "freshness" and lineage.is_above(cause.table, finding.table)
    is_above = lineage.is_above(cause.table, finding.table)
    if cause.check in SHAPE:
        is_column = cause.column is not None and cause.column == finding.column
        is_shape = finding.check == "evaluation" or (cause.check == "schema change" and (finding.check == "schema" or is_column))
        same_table = cause.table == finding.table and is_shape
        return same_table or (is_above and finding.check in _FOLLOWS_FROM_SHAPE)
    if finding.check in SHAPE:
        return False
    return is_above and (cause.check == finding.check or (cause.column is not None and cause.column == finding.column))


def _explains_stopped_build(cause: Finding, finding: Finding, lineage: Lineage) -> bool:
    """Whether wrong rows (or a shape) further up or in the same table stopped a build, or a stopped build is why a table lacks rows."""
    if cause.check.startswith(AUDIT) or finding.check in OUTDATED:
        is_same_table = cause.table == finding.table and not finding.check.startswith(AUDIT)
        return finding.check != "freshness" and (is_same_table or lineage.is_above(cause.table, finding.table))
    is_cause = cause.severity == "error" and cause.check != RUN_FAILED and cause.check not in OUTDATED
    return is_cause and (cause.table == finding.table or lineage.is_above(cause.table, finding.table))


def _explains_unusual(cause: Finding, finding: Finding, lineage: Lineage) -> bool:
    """Whatever is wrong further up, or with the rows of the same table, shows in its days, in several metrics and segments at once."""
    if DELETES in (cause.check, finding.check):
        return cause.check == DELETES and lineage.is_above(cause.table, finding.table)
    if cause.check.startswith(UNUSUAL):
        if cause.table == finding.table:
            return _says_more(cause) < _says_more(finding)
        return lineage.is_above(cause.table, finding.table) and cause.check == finding.check
    is_same_table = cause.table == finding.table and (cause.column in (None, finding.column) or cause.check in OUTDATED)
    return cause.severity == "error" and (is_same_table or lineage.is_above(cause.table, finding.table))


def _says_more(unusual: Finding) -> tuple[int, bool, str, str]:
    """The place of an unusual metric among those of its table: what says most first, all segments together before each of them."""
    what, _, segment = unusual.check.removeprefix(UNUSUAL).partition(" (")
    place = next((number for number, name in enumerate(_UNUSUAL_FIRST) if what.startswith(name)), len(_UNUSUAL_FIRST))
    return place, bool(segment), unusual.check, unusual.column or ""


def _cause(finding: Finding, findings: Sequence[Finding], lineage: Lineage) -> Finding:
    """Climb from a finding to what explains it, until nothing does; of several that do, the furthest up and then the oldest."""
    current, seen = finding, {finding.fingerprint}
    while found := [one for one in findings if one.fingerprint not in seen and explains(one, current, lineage)]:
        order = {one.fingerprint: position for position, one in enumerate(findings)}
        current = min(found, key=lambda one: (one.check != RUN_FAILED, len(lineage.above(one.table)), order[one.fingerprint]))
        seen.add(current.fingerprint)
    if current.check == "freshness":  # tables of one source are loaded together: the first stands for all
        schema = current.table.split(".")[0]
        together = [one for one in findings if one.check == "freshness" and one.table.split(".")[0] == schema]
        return next(one for one in together if not any(explains(other, one, lineage) for other in findings))
    return current


def _key(cause: Finding) -> str:
    """What an incident is known by as long as it lasts, also when other tables of a stale source, or other metrics of a table, join or leave it."""
    if cause.check == "freshness":
        return _hashed("freshness", cause.table.split(".")[0])
    if cause.check.startswith(UNUSUAL) and cause.check != DELETES:
        return _hashed(UNUSUAL.strip(), cause.table)
    return cause.fingerprint


def _hashed(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
