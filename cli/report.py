"""`warehouse report`: joins what the rooms declare, and writes what is known of the warehouse's health as one page."""

import os
from pathlib import Path

from cli.seeing import limits
from warehouse import clock
from warehouse.console import progress, say
from warehouse.errors import UsageError
from warehouse.files import write_atomically
from warehouse.settings import ROOT, settings


def write(output: Path | None, *, as_json: bool) -> None:
    """Write the page, or the same as JSON. A file is replaced whole; without one, JSON and pages for others' pipes go to standard output.

    Raises:
        UsageError: a declaration is wrong, or the file cannot be written.
    """
    from monitoring.report.facts import DeclaredSource, House
    from monitoring.report.gather import gather
    from monitoring.report.page import as_json as to_json
    from monitoring.report.page import document
    from pipelines.source import common, sources

    file = output if as_json else output or settings().home / "report.html"
    declared = [DeclaredSource(source, common(source).schedule, common(source).freshness, settings().is_configured(source)) for source in sources()]
    pages = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in (ROOT / "docs" / "metrics").glob("*.md")}
    allowed = limits()
    house = House(declared, allowed.backups, allowed.drills, pages, _links(file, pages))
    with progress("gathering the report"):
        report = gather(house, clock.now())
    text = to_json(report) if as_json else document(report, house)
    if file is None:
        say(text.rstrip("\n"))
        return
    try:
        write_atomically(file, text)
    except OSError as error:
        raise UsageError(f"{file} cannot be written: {error.strerror}.", mend="name a file in a folder that this user may write to") from None
    say(f"{report.headline.says}. The report: {file}")


def _links(file: Path | None, pages: dict[str, str]) -> dict[str, str]:
    """Where the reader finds pages of the project: by `runbook_base`, or beside the file, when it lies in the checkout."""
    from monitoring.rules import read_rules

    rules = read_rules()
    named = {*pages, *(rule.runbook for rule in rules.rules), "docs/runbooks/which-number-is-right.md", "docs/dictionary.md", "docs/how-to/back-up.md"}
    if rules.runbook_base:
        return {page: rules.runbook_base + page for page in named}
    folder = file.resolve().parent if file is not None else None
    if folder is None or not folder.is_relative_to(ROOT):
        return {}
    return {page: Path(os.path.relpath(ROOT / page, folder)).as_posix() for page in named}
