"""Findings as JUnit's XML, which every CI shows: a test case for each declared check, a failure for each finding."""

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from xml.etree import ElementTree

from monitoring.contract_model import Contract
from monitoring.contracts import source_of
from monitoring.findings import Finding
from warehouse.errors import UsageError

_NOT_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def write(file: Path, contracts: Mapping[str, Contract], findings: Iterable[Finding], left_out: Collection[str] = ()) -> None:
    """Write one test suite a table; an error is a failure, a warning passes and says what it saw.

    Args:
        contracts: by table (schema.table); a check without a finding is a case that passed.
        left_out: sources whose tables were not looked at: their cases are skipped.

    Raises:
        UsageError: the file cannot be written.
    """
    found: dict[str, dict[str, list[Finding]]] = defaultdict(lambda: defaultdict(list))
    for one in findings:
        found[one.table][_name(one.column, one.check)].append(one)
    suites = ElementTree.Element("testsuites", name="warehouse check")
    for table in sorted(contracts.keys() | found.keys()):
        declared = [_name(check.column, check.name) for check in contracts[table].all_checks()] if table in contracts else []
        suite = ElementTree.SubElement(suites, "testsuite", name=table)
        is_skipped = source_of(table) in left_out
        for name in dict.fromkeys((*declared, *found[table])):
            _case(suite, table, name, found[table][name], is_skipped)
        suite.set("tests", str(len(suite)))
        suite.set("failures", str(len(suite.findall("*/failure"))))
        suite.set("skipped", str(len(suite.findall("*/skipped"))))
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        ElementTree.ElementTree(suites).write(file, encoding="utf-8", xml_declaration=True)
    except OSError as error:
        raise UsageError(f"{file} cannot be written: {error.strerror}.", mend="name a file in a folder that this user may write to") from None


def _case(suite: ElementTree.Element, table: str, name: str, findings: list[Finding], is_skipped: bool) -> None:
    case = ElementTree.SubElement(suite, "testcase", classname=table, name=name)
    for one in findings:
        said = _NOT_XML.sub("?", f"{one.observed}; expected: {one.expected}; since {one.since.isoformat()}")
        kind = "failure" if one.severity == "error" else "system-out"
        element = ElementTree.SubElement(case, kind, {"message": said, "type": one.check} if kind == "failure" else {})
        element.text = _NOT_XML.sub("?", f"{said}\n{one.query}")
    if is_skipped and not findings:
        ElementTree.SubElement(case, "skipped", message="its source is not configured and was never loaded")


def _name(column: str | None, check: str) -> str:
    return f"{column}.{check}" if column else check
