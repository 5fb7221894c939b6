"""The catalogue as Markdown: docs/dictionary.md."""

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby

from transform.catalogue.tables import LAYERS, Column, Personal, Table

LONGEST = 3_000
"""Lines. A dictionary that would be longer names the columns of the marts alone."""

_INTRODUCTION = """# Dictionary
Generated: do not edit, `make dictionary` writes it anew. A meaning is corrected in the header of its model, a class of
personal data in `privacy/policy.yaml`. `warehouse catalogue --format html --out catalogue.html` writes the same to search
in a browser, with the columns of the raw tables and what is computed from each column.

*From* names the columns whose values a column is computed from, one step up, not those by which rows are joined or
filtered; it is empty where rows are counted or the build itself writes the value. *Personal* is the class of personal data
and what was done with it on load (hmac: keyed hash; mask: all but two digits; redact: only that it existed; encrypt: sealed
under its person's key; keep: as it was). It follows *from*, however far: whatever is computed from a personal column bears its class."""
_TITLES = {"marts": "Marts", "staging": "Staging", "raw": "Raw tables"}


def document(tables: Sequence[Table], links: Mapping[str, str], longest: int = LONGEST) -> str:
    """The dictionary, ending in a line feed.

    Args:
        links: where to find pages of the project, by path; those without a link are only named.
        longest: lines; where more are needed, staging is listed a row a table.
    """
    whole = _document(tables, links, short=("raw",))
    return whole if whole.count("\n") <= longest else _document(tables, links, short=("staging", "raw"))


def _document(tables: Sequence[Table], links: Mapping[str, str], short: Sequence[str]) -> str:
    shown = {table.name for table in tables if table.layer not in short}
    blocks = [_INTRODUCTION]
    for layer in LAYERS:
        of_layer = [table for table in tables if table.layer == layer]
        if of_layer:
            blocks.append(f"## {_TITLES[layer]}")
        if of_layer and layer in short:
            blocks.append(_grid(("table", "rows", "columns", "personal"), map(_row_of_table, of_layer)))
            continue
        for group, members in groupby(of_layer, key=lambda table: table.group):
            blocks.append(f"### {_plain(group)}")
            for table in members:
                blocks += _blocks_of_table(table, links, shown)
    return "\n\n".join(blocks) + "\n"


def _blocks_of_table(table: Table, links: Mapping[str, str], shown: set[str]) -> list[str]:
    facts = [
        f"Grain {', '.join(map(_code, table.grain)) or 'unknown'}",
        f"owner {_plain(table.owner) or 'none'}",
        f"built as {_plain(table.kind)}",
        f"in `{table.path}`",
        f"audits: {', '.join(map(_plain, table.audits)) or 'none'}",
    ]
    if table.pages:
        facts.append("metrics: " + ", ".join(f"[{page}]({links[page]})" if page in links else page for page in table.pages))
    blocks = [f"#### {table.name}", _plain(table.description), "; ".join(facts) + "."]
    if table.contract:
        blocks.append(f"Contract `{table.contract.path}`: {_plain('; '.join(table.contract.table_checks))}.")
    return [*blocks, _grid(("column", "type", "meaning", "personal", "checks", "from"), (_row_of_column(column, shown) for column in table.columns))]


def _row_of_column(column: Column, shown: set[str]) -> list[str]:
    upstream = ", ".join(_reference(parent, shown) for parent in column.upstream)
    return [_code(column.name), _plain(column.type), _plain(column.meaning), _badges(column.personal), _plain("; ".join(column.checks)), upstream]


def _row_of_table(table: Table) -> list[str]:
    personal = [f"{_code(column.name)} {_badges(column.personal)}" for column in table.columns if column.personal]
    return [_plain(table.name), _plain(table.description), str(len(table.columns)), ", ".join(personal)]


def _reference(column: str, shown: set[str]) -> str:
    table, _, name = column.rpartition(".")
    return f"[{table}](#{anchor(table)}).{_plain(name)}" if table in shown else _plain(column)


def anchor(heading: str) -> str:
    """What a heading is linked by, as GitHub makes it."""
    return re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-")


def _badges(personal: Iterable[Personal]) -> str:
    return _plain(", ".join(map(str, personal)))


def _grid(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))


def _code(text: str) -> str:
    return f"`{_plain(text)}`" if not re.search(r"[`|\\]", text) else _plain(text)


def _plain(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    return re.sub(r"([\\|<&*\[\]`])", r"\\\1", " ".join(text.split()))
