"""A review as Markdown: what needs a decision first, details after it."""

from collections.abc import Iterator, Sequence
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cli.review import Review
    from transform.effect import Difference, MetricChange
    from transform.review import ChangedModel


def markdown(review: "Review") -> str:
    """The whole report."""
    parts = [_head(review), _problems(review), _metrics(review.metrics), _marts(review), _others(review), _warnings(review)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _head(review: "Review") -> str:
    environment, problems = review.environment, review.environment.problems
    kinds = sorted({problem.kind for problem in problems})
    if problems:
        verdict = f"**{_count(len(problems), 'problem')}**: {', '.join(kinds)}."
    elif environment.models:
        verdict = "**No problem found.**"
    else:
        verdict = "**No model changed**, and no problem found."
    built = "" if environment.is_built else " The change could not be built, so its data is not compared."
    counts = f"{_count(len(environment.models), 'model')} changed, {_count(environment.tests, 'model test')} run, environment `{environment.name}`."
    return f"## What this change does to the warehouse\n\n{verdict}{built} {counts}"


def _problems(review: "Review") -> str:
    lines = [f"- **{problem.kind}**: {_safe(problem.what)}" for problem in review.environment.problems]
    return "### What would fail\n\n" + "\n".join(lines) if lines else ""


def _metrics(metrics: "Sequence[MetricChange]") -> str:
    moved = [one for one in metrics if one.before != one.after]
    if not metrics:
        return ""
    if not moved:
        return "### Headline metrics\n\nNone moved."
    rows = [(one.metric, one.by or "", one.before or "none", one.after or "none", _delta(one.before, one.after)) for one in moved]
    same = len(metrics) - len(moved)
    rest = f"\n\nThe other {same} did not move." if same else ""
    return "### Headline metrics\n\n" + _table(("metric", "by", "before", "after", "difference"), rows) + rest


def _marts(review: "Review") -> str:
    models = {model.name: model for model in review.environment.models if model.name.startswith("marts.")}
    if not models:
        return ""
    differences = {one.mart: one for one in review.differences}
    rows = [_row(review, model, differences.get(name)) for name, model in models.items()]
    columns = ("mart", "change", "rows before", "rows after", "added", "removed", "changed", "seconds", "size")
    details = [text for name, model in models.items() if (text := _details(model, differences.get(name)))]
    return "\n\n".join(["### Changed marts", _table(columns, rows), *details])


def _row(review: "Review", model: "ChangedModel", difference: "Difference | None") -> tuple[str, ...]:
    seconds = _then(_seconds(review.seconds_before.get(model.name)), _seconds(model.seconds))
    if difference is None:
        return (f"`{model.name}`", model.category, *[""] * 5, seconds, "")
    counts = (difference.rows_before, difference.rows_after, difference.added, difference.removed, difference.changed)
    size = _then(_megabytes(difference.bytes_before), _megabytes(difference.bytes_after))
    return (f"`{model.name}`", model.category, *("" if count is None else f"{count:,}" for count in counts), seconds, size)


def _details(model: "ChangedModel", difference: "Difference | None") -> str:
    lines = [f"- {line}" for line in _detail_lines(model, difference)]
    return f"<details><summary><code>{model.name}</code></summary>\n\n" + "\n".join(lines) + "\n\n</details>" if lines else ""


def _detail_lines(model: "ChangedModel", difference: "Difference | None") -> Iterator[str]:
    if difference is not None:
        if difference.note:
            yield difference.note
        for what, columns in (("added", difference.columns_added), ("removed", difference.columns_removed), ("of another type", difference.types_changed)):
            if columns:
                yield f"columns {what}: " + ", ".join(f"`{column}`" for column in columns)
        if difference.values_changed:
            yield "other values: " + ", ".join(f"`{column}` in {_count(count, 'row')}" for column, count in difference.values_changed.items())
        for key in difference.keys:
            yield _safe(key)
        if difference.dashboards:
            yield "shown on " + ", ".join(_safe(name) for name in difference.dashboards)
    if model.downstream and model.category != "metadata only":
        yield "read by " + ", ".join(f"`{name}`" for name in model.downstream)


def _others(review: "Review") -> str:
    lines = [f"- `{model.name}`: {model.category}" for model in review.environment.models if not model.name.startswith("marts.")]
    return "### Other changed models\n\n" + "\n".join(lines) if lines else ""


def _warnings(review: "Review") -> str:
    return "### To know\n\n" + "\n".join(f"- {_safe(line)}" for line in review.warnings) if review.warnings else ""


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *([_safe(cell) if not cell.startswith("`") else cell for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _delta(before: str | None, after: str | None) -> str:
    try:
        return f"{Decimal(after or 0) - Decimal(before or 0):+}"
    except InvalidOperation:
        return ""


def _then(before: str, after: str) -> str:
    return f"{before} → {after}" if before and after else after or before


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _megabytes(value: int | None) -> str:
    return "" if value is None else f"{value / 1e6:.1f} MB"


def _count(count: int, what: str) -> str:
    return f"{count:,} {what}" + ("" if count == 1 else "s")


def _safe(text: str) -> str:
    """Text of the data or of an error, unable to end a cell, begin HTML or call somebody."""
    one_line = " ".join(text.split())
    return one_line.replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|").replace("@", "&#64;")
