"""Results as tables for people; plain tab-separated lines when standard output is not a terminal."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from warehouse.console import say

if TYPE_CHECKING:
    from monitoring.findings import Finding
    from pipelines.compare import TableComparison
    from pipelines.load import Loaded
    from serving.publish import Published
    from transform.build import Built
    from warehouse.ledger import Run


def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Write one table: aligned with a title on a terminal, otherwise one tab-separated line a row under a `# title`."""
    if not sys.stdout.isatty():
        say(f"# {title}\t" + "\t".join(columns))
        for row in rows:
            say("\t".join(_text(value) for value in row))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", header_style="bold")
    for index, column in enumerate(columns):
        numeric = all(isinstance(row[index], int | float) or row[index] is None for row in rows)
        table.add_column(column, justify="right" if numeric and rows else "left")
    for row in rows:
        table.add_row(*(_text(value) for value in row))
    Console().print(table)


def loads(loaded: "list[Loaded]") -> None:
    """What was loaded."""
    rows = [(one.source, one.table, one.rows_read, one.rows_written, one.rows_deleted, one.window) for one in loaded]
    show("loaded", ("source", "table", "read", "written", "deleted", "what"), rows)


def webhooks(run: "Run") -> None:
    """What webhooks brought, and what they missed and asking found; nothing where none are received."""
    told = [(step.item, step.detail["webhooks"]) for step in run.steps if "webhooks" in step.detail]
    columns = ("drained", "again", "healed", "torn", "damaged")
    if told:
        show("webhooks", ("source", *columns), [(source, *(counts[column] for column in columns)) for source, counts in told])


def models(built: "Built") -> None:
    """What was built."""
    title = "built (the code had changed)" if built.planned else "built"
    show(title, ("model", "seconds", "audits"), [(model.name, round(model.seconds, 2), f"{model.audits_passed} passed") for model in built.models])


def findings(found: "list[Finding]", left_out: Sequence[str]) -> None:
    """What the checks found, and the sources whose tables were not checked."""
    rows = [(one.severity, one.table, one.column or "", one.check, one.observed, one.expected) for one in found]
    show("checked: nothing found" if not found else "findings", ("severity", "table", "column", "check", "observed", "expected"), rows)
    if left_out:
        show("not checked", ("source", "why"), [(source, "not configured and never loaded") for source in left_out])


def compared(results: "list[TableComparison]") -> None:
    """How each raw table compares with its source; then, if there are any, the keys that differ."""
    columns = ("table", "result", "rows source", "rows warehouse", "ranges", "ranges differing", "not yet loaded", "not yet deleted", "seconds")
    rows = [
        (
            one.table,
            one.summary,
            one.rows_source,
            one.rows_warehouse,
            one.ranges,
            one.ranges_differing,
            one.not_yet_loaded,
            one.not_yet_deleted,
            round(one.seconds, 2),
        )
        for one in results
    ]
    show("compared", columns, rows)
    differences = [(one.table, difference.key, difference.what, ", ".join(difference.columns)) for one in results for difference in one.differences]
    if differences:
        show("the first keys that differ", ("table", "key", "what", "columns"), differences)
    notes = [(one.table, note) for one in results for note in one.notes]
    if notes:
        show("to know", ("table", "note"), notes)


def published(what: "Published") -> None:
    """What readers see now."""
    rows = [(table, count, "new" if table in what.rewritten else "unchanged") for table, count in what.tables.items()]
    show(f"published: {what.read_copy}" if what.read_copy else "published: MotherDuck itself", ("mart", "rows", "content"), rows)


def steps(run: "Run", seconds: float) -> None:
    """How long each step took."""
    rows: list[tuple[Any, ...]] = [(f"{step.name} {step.item}".strip(), step.status, step.rows_in, step.rows_out, round(step.seconds, 2)) for step in run.steps]
    show("steps", ("step", "status", "rows in", "rows out", "seconds"), [*rows, ("all", "succeeded", None, None, round(seconds, 2))])


def _text(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) and sys.stdout.isatty() else str(value)
