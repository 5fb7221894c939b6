"""Plots as inline SVG: a line in its band, columns, a row of a gauge, a spark, and the lineage. Every text is escaped; colours are classes.

Each has a title and a description for those who do not see it. Widths are those of a telephone, so that text keeps its size.
"""

from collections.abc import Mapping, Sequence
from datetime import date
from html import escape
from math import floor, isfinite, log10

from markupsafe import Markup

from monitoring.report.facts import MartRows, Node, RunDay, Series

WIDTH, HEIGHT = 340, 170
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 8, 10, 22
_NODE_WIDTH, _NODE_HEIGHT, _ROW, _COLUMN = 222, 18, 22, 282
_NAME = 38


def series_plot(series: Series, number: int) -> Markup:
    """A line over the band of what is usual, unusual days marked."""
    points = series.points
    top = _nice(max(max(one.value, one.high if one.high is not None else one.value) for one in points))
    x, y = _scale(len(points), top)
    parts = [_axes(top, points[0].day, points[-1].day)]
    for first, last in _stretches([one.low is not None for one in points]):
        band = range(first, last + 1)
        upper = [f"{x(at):.1f},{y(points[at].high or 0):.1f}" for at in band]
        lower = [f"{x(at):.1f},{y(points[at].low or 0):.1f}" for at in reversed(band)]
        parts.append(f'<polygon class="band" points="{" ".join([*upper, *lower])}"/>')
        expected = " ".join(f"{x(at):.1f},{y(points[at].expected or 0):.1f}" for at in band)
        parts.append(f'<polyline class="expected" points="{expected}"/>')
    parts.append(f'<polyline class="line" points="{" ".join(f"{x(at):.1f},{y(one.value):.1f}" for at, one in enumerate(points))}"/>')
    parts.append(f'<circle class="last" cx="{x(len(points) - 1):.1f}" cy="{y(points[-1].value):.1f}" r="3"/>')
    parts += [f'<circle class="unusual" cx="{x(at):.1f}" cy="{y(one.value):.1f}" r="4"/>' for at, one in enumerate(points) if one.is_unusual]
    return _figure(f"plot-{number}", series_title(series), series_says(series), WIDTH, HEIGHT, parts)


def series_title(series: Series) -> str:
    """What a plot shows."""
    what = "Rows" if series.metric == "volume" else series.metric.removeprefix("sum ").replace("_", " ").capitalize()
    return f"{what} per day" + (f", {series.segment}" if series.segment else "")


def series_says(series: Series) -> str:
    """A plot in words."""
    last = series.points[-1]
    value, *usual = (amount(one or 0, series.unit) for one in (last.value, last.expected, last.low, last.high))
    said = f"{last.day}: {value} {series.unit}".rstrip()
    if last.low is not None:
        said += f", expected {usual[0]} (usual: {usual[1]} to {usual[2]})"
    unusual = [str(one.day) for one in series.points if one.is_unusual]
    count = f"; unusual days: {', '.join(unusual[-5:])}" if unusual else "; no unusual day" if last.low is not None else "; too little history for a band"
    return said + count


def runs_plot(days: Sequence[RunDay]) -> Markup:
    """Runs a day, stacked by how they ended."""
    top = _nice(max(1, *(one.succeeded + one.findings + one.failed for one in days)))
    _, y = _scale(len(days), top)
    wide = (WIDTH - _LEFT - _RIGHT) / len(days)
    parts = [_axes(top, days[0].day, days[-1].day)]
    for at, day in enumerate(days):
        base = 0
        for kind, count in (("succeeded", day.succeeded), ("findings", day.findings), ("failed", day.failed)):
            if count:
                low, high = y(base), y(base + count)
                parts.append(
                    f'<rect class="{kind}" x="{_LEFT + at * wide + 1:.1f}" y="{high:.1f}" width="{wide - 2:.1f}" height="{max(low - high, 1.5):.1f}"/>'
                )
                base += count
    sums = [sum(getattr(one, kind) for one in days) for kind in ("succeeded", "findings", "failed")]
    return _figure(
        "runs-plot", "Commands per day", f"In {len(days)} days: {sums[0]} succeeded, {sums[1]} with findings, {sums[2]} failed", WIDTH, HEIGHT, parts
    )


def duration_plot(days: Sequence[RunDay]) -> Markup:
    """The longest run of each day."""
    longest = max(one.seconds for one in days)
    return _columns("seconds-plot", "Longest run per day, seconds", f"The longest took {longest:,.0f} seconds", days, [one.seconds for one in days])


def rows_plot(days: Sequence[RunDay]) -> Markup:
    """The rows that loads wrote each day."""
    return _columns("rows-plot", "Rows loaded per day", f"In {len(days)} days: {sum(one.rows for one in days):,} rows", days, [one.rows for one in days])


def gauge(share: float, state: str, says: str) -> Markup:
    """How much of what is allowed has passed; the limit stands at two thirds of the width."""
    parts = [
        '<rect class="track" x="0" y="3" width="120" height="8" rx="4"/>',
        f'<rect class="{escape(state)}" x="0" y="3" width="{max(share, 0.02) * 80:.1f}" height="8" rx="4"/>',
        '<line class="limit" x1="80" x2="80" y1="0" y2="14"/>',
    ]
    return Markup(f'<svg class="gauge" viewBox="0 0 120 14" role="img" aria-label="{escape(says)}">{"".join(parts)}</svg>')  # noqa: S704  # every text in it is escaped above


def spark(rows: MartRows) -> Markup:
    """Rows of a mart over its publications."""
    values = [count for _, count in rows.history]
    low, high = min(values), max(values)
    step = 96 / max(len(values) - 1, 1)
    points = " ".join(f"{2 + at * step:.1f},{20 - (value - low) / (high - low or 1) * 18:.1f}" for at, value in enumerate(values))
    says = f"{rows.table}: {values[0]:,} to {values[-1]:,} rows in {len(values)} publications"
    return Markup(f'<svg class="spark" viewBox="0 0 100 22" role="img" aria-label="{escape(says)}"><polyline class="line" points="{points}"/></svg>')  # noqa: S704  # every text in it is escaped above


def lineage_plot(nodes: Sequence[Node]) -> Markup:
    """Sources to marts from left to right, coloured by health; each column in the order that crosses the fewest lines."""
    columns = _arranged(nodes)
    longest = max((len(column) for column in columns), default=0)
    place: dict[str, tuple[float, float]] = {}
    for number, column in enumerate(columns):
        step = _ROW * min(longest / len(column), 3)  # a short column is spread out, so that lines are less steep
        above = (longest * _ROW - step * len(column)) / 2
        for row, node in enumerate(column):
            place[node.name] = (8 + number * _COLUMN, 34 + above + (row + 0.5) * step - _NODE_HEIGHT / 2)
    ill = {node.name for node in nodes if node.state in ("wrong", "warning")}
    edges, boxes = [], []
    for node in (one for column in columns for one in column):
        x, y = place[node.name]
        for parent in (one for one in node.reads if one in place):
            from_x, from_y = place[parent][0] + _NODE_WIDTH, place[parent][1] + _NODE_HEIGHT / 2
            to_y, bend = y + _NODE_HEIGHT / 2, max((x - from_x) / 2, 20)
            marked = " ill" if parent in ill and node.name in ill else ""
            path = f"M{from_x:.0f} {from_y:.0f}C{from_x + bend:.0f} {from_y:.0f} {x - bend:.0f} {to_y:.0f} {x:.0f} {to_y:.0f}"
            edges.append((bool(marked), f'<path class="edge{marked}" d="{path}"/>'))
        name = node.name.split(".")[-1]
        shown = name if len(name) <= _NAME else f"{name[: _NAME - 1]}…"
        boxes.append(
            f'<g class="node {escape(node.state)}"><title>{escape(node.name)}: {escape(node.says)}</title>'
            f'<rect x="{x:.0f}" y="{y:.0f}" width="{_NODE_WIDTH}" height="{_NODE_HEIGHT}" rx="3"/>'
            f'<text x="{x + 16:.0f}" y="{y + 13:.0f}">{escape(shown)}</text>{_mark(node.state, x + 8, y + 9)}</g>'
        )
    heads = "".join(f'<text class="head" x="{8 + at * _COLUMN}" y="20">{escape(_heading(column))}</text>' for at, column in enumerate(columns))
    width, height = len(columns) * _COLUMN - (_COLUMN - _NODE_WIDTH) + 16, 44 + _ROW * longest
    counts = f"{len(nodes)} sources and tables, {len(ill)} of them not well. The list below says the same in words"
    return _figure("lineage-plot", "Lineage", counts, width, height, [*(edge for _, edge in sorted(edges)), heads, *boxes])


def amount(value: float, unit: str = "") -> str:
    """A number for people: rows, and what is above 100, whole; else two decimals."""
    return f"{value:,.0f}" if unit == "rows" or abs(value) >= 100 or value == floor(value) else f"{value:,.2f}"


def _arranged(nodes: Sequence[Node]) -> list[list[Node]]:
    """Columns by layer and depth. Each node goes to the mean place of what it reads, then of what reads it, twice."""
    order = {"source": 0, "raw": 1, "staging": 2, "marts": 3}
    columns: dict[tuple[int, int], list[Node]] = {}
    for node in nodes:
        columns.setdefault((order[node.layer], node.depth), []).append(node)
    arranged = [columns[key] for key in sorted(columns)]
    readers: dict[str, list[str]] = {}
    for node in nodes:
        for parent in node.reads:
            readers.setdefault(parent, []).append(node.name)
    above = {node.name: node.reads for node in nodes}
    for neighbours in (above, readers, above, readers, above):
        rank = {node.name: row / max(len(column), 1) for column in arranged for row, node in enumerate(column)}
        for column in arranged:
            column.sort(key=lambda node: _mean([rank[one] for one in neighbours.get(node.name, []) if one in rank], rank[node.name]))
            rank |= {node.name: row / max(len(column), 1) for row, node in enumerate(column)}
    return arranged


def _heading(column: Sequence[Node]) -> str:
    first = column[0]
    names: Mapping[str, str] = {"source": "Sources", "raw": "Raw tables", "staging": "Staging views"}
    return names.get(first.layer, "Marts" if first.depth == 0 else "Marts made from marts")


def _mark(state: str, x: float, y: float) -> str:
    """The state once more by a shape, for those who do not tell its colour."""
    if state == "wrong":
        return f'<path class="mark" d="M{x - 3:.0f} {y - 3:.0f}l6 6m0 -6l-6 6"/>'
    if state == "warning":
        return f'<path class="mark" d="M{x:.0f} {y - 4:.0f}l4 7h-8z"/>'
    return f'<circle class="mark" cx="{x:.0f}" cy="{y:.0f}" r="3"/>'


def _columns(identity: str, title: str, says: str, days: Sequence[RunDay], values: Sequence[float]) -> Markup:
    top = _nice(max(1.0, *values))
    _, y = _scale(len(days), top)
    wide = (WIDTH - _LEFT - _RIGHT) / len(days)
    parts = [_axes(top, days[0].day, days[-1].day)]
    for at, value in enumerate(values):
        if value:
            parts.append(
                f'<rect class="plain" x="{_LEFT + at * wide + 1:.1f}" y="{y(value):.1f}" width="{wide - 2:.1f}" height="{max(y(0) - y(value), 1.5):.1f}"/>'
            )
    return _figure(identity, title, says, WIDTH, HEIGHT, parts)


def _figure(identity: str, title: str, says: str, width: float, height: float, parts: Sequence[str]) -> Markup:
    head = f'<title id="{identity}-title">{escape(title)}</title><desc id="{identity}-says">{escape(says)}</desc>'
    opening = f'<svg id="{identity}" class="plot" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" height="{height:.0f}" role="img"'
    return Markup(f'{opening} aria-labelledby="{identity}-title {identity}-says">{head}{"".join(parts)}</svg>')  # noqa: S704  # every text in it is escaped where it is written


def _axes(top: float, first: date, last: date) -> str:
    lines = []
    for share in (0, 0.5, 1):
        at = HEIGHT - _BOTTOM - share * (HEIGHT - _TOP - _BOTTOM)
        lines.append(f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
        lines.append(f'<text class="tick" x="{_LEFT - 5}" y="{at + 4:.1f}" text-anchor="end">{_short(top * share)}</text>')
    lines.append(f'<text class="tick" x="{_LEFT}" y="{HEIGHT - 6}">{first:%Y-%m-%d}</text>')
    lines.append(f'<text class="tick" x="{WIDTH - _RIGHT}" y="{HEIGHT - 6}" text-anchor="end">{last:%Y-%m-%d}</text>')
    return "".join(lines)


class _Scale:
    """A linear scale of an axis."""

    def __init__(self, zero: float, unit: float) -> None:
        self._zero, self._unit = zero, unit

    def __call__(self, value: float) -> float:
        return self._zero + value * self._unit


def _scale(count: int, top: float) -> tuple[_Scale, _Scale]:
    return _Scale(_LEFT, (WIDTH - _LEFT - _RIGHT) / max(count - 1, 1)), _Scale(HEIGHT - _BOTTOM, -(HEIGHT - _TOP - _BOTTOM) / top)


def _stretches(there: Sequence[bool]) -> list[tuple[int, int]]:
    """First and last place of each stretch that is there."""
    found: list[tuple[int, int]] = []
    for at, is_there in enumerate(there):
        if is_there:
            found = [*found[:-1], (found[-1][0], at)] if found and found[-1][1] == at - 1 else [*found, (at, at)]
    return found


def _nice(value: float) -> float:
    """The next round number: 1, 2, 4 or 5 times a power of ten."""
    if not isfinite(value) or value <= 0:
        return 1.0
    power: float = 10.0 ** floor(log10(value))
    return next(step * power for step in (1, 2, 4, 5, 10) if step * power >= value * 0.9999)


def _short(value: float) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"


def _mean(values: Sequence[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise
