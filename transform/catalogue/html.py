"""The catalogue as one HTML file that asks nothing of any other: it is read from a disk, a share or an artefact alike."""

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from itertools import groupby
from pathlib import Path

from transform.catalogue.tables import LAYERS, Column, Table

_HERE = Path(__file__).parent
_TITLES = {"marts": "Marts", "staging": "Staging", "raw": "Raw tables"}


def document(tables: Sequence[Table], links: Mapping[str, str]) -> str:
    """The whole file.

    Args:
        links: where to find pages of the project, by path; those without a link are only named.
    """
    style, script = ((_HERE / name).read_text(encoding="utf-8") for name in ("catalogue.css", "catalogue.js"))
    # The browser itself refuses whatever else a text could smuggle in: no network, no script but this one.
    policy = f"default-src 'none'; style-src '{_digest(style)}'; script-src '{_digest(script)}'"
    layers = [(layer, [table for table in tables if table.layer == layer]) for layer in LAYERS]
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            "<title>Catalogue of the warehouse</title>",
            f"<style>{style}</style>",
            "</head>",
            "<body>",
            '<a class="skip" href="#content">To the tables</a>',
            "<header>",
            "<h1>Catalogue of the warehouse</h1>",
            '<div id="searching" role="search" hidden><label for="search">Search <kbd>/</kbd></label>',
            '<input id="search" type="search" autocomplete="off" spellcheck="false"> <output id="found" for="search"></output></div>',
            "</header>",
            '<div class="page">',
            '<nav aria-label="Tables">',
            *(_contents(layer, members) for layer, members in layers if members),
            "</nav>",
            '<main id="content" tabindex="-1">',
            "<p>A column that is computed from personal data bears its class, and what was done with it on load: <i>hmac</i> a keyed hash,",
            "<i>mask</i> all but two digits, <i>redact</i> only that it existed, <i>encrypt</i> sealed under its person's key, <i>keep</i> as it was.",
            "Where <i>From</i> is empty, rows are counted or the build itself writes the value.</p>",
            *(_layer(layer, members, links) for layer, members in layers if members),
            "</main>",
            "</div>",
            f"<script>{script}</script>",
            "</body>",
            "</html>",
            "",
        ]
    )


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _contents(layer: str, tables: Sequence[Table]) -> str:
    groups = groupby(tables, key=lambda table: table.group)
    lists = (
        f"<div data-group><h3>{escape(group)}</h3>{_list(_link(table.name, table.name.split('.')[-1]) for table in members)}</div>" for group, members in groups
    )
    return f"<div data-group><h2>{_TITLES[layer]}</h2>{''.join(lists)}</div>"


def _layer(layer: str, tables: Sequence[Table], links: Mapping[str, str]) -> str:
    return "\n".join([f"<div data-group><h2>{_TITLES[layer]}</h2>", *(_section(table, links) for table in tables), "</div>"])


def _section(table: Table, links: Mapping[str, str]) -> str:
    facts = {
        "Grain": ", ".join(f"<code>{escape(column)}</code>" for column in table.grain),
        "Owner": escape(table.owner),
        "Built as": escape(table.kind),
        "Declared in": f"<code>{escape(table.path)}</code>",
        "Reads": ", ".join(_link(name, name) for name in table.reads),
        "Audits": escape(", ".join(table.audits)),
        "Contract": f"<code>{escape(table.contract.path)}</code>: {escape('; '.join(table.contract.table_checks))}" if table.contract else "none",
        "Metrics": ", ".join(f'<a href="{escape(links[page])}">{escape(page)}</a>' if page in links else escape(page) for page in table.pages),
    }
    searched = " ".join([table.name, table.group, table.layer, table.owner, table.description]).lower()
    head = "".join(f'<th scope="col">{name}</th>' for name in ("Column", "Type", "Meaning", "Personal", "Checks", "From", "Into"))
    name = escape(table.name)
    return "\n".join(
        [
            f'<section id="{name}" aria-labelledby="{name}:title" data-text="{escape(searched)}">',
            f'<h3 id="{name}:title"><a href="#{name}">{name}</a></h3>',
            f"<p>{escape(table.description)}</p>",
            f"<dl>{''.join(f'<dt>{fact}</dt><dd>{value}</dd>' for fact, value in facts.items() if value)}</dl>",
            '<div class="scroll"><table>',
            f"<caption>Columns of {name}</caption>",
            f"<thead><tr>{head}</tr></thead>",
            "<tbody>",
            *(_row(table.name, column) for column in table.columns),
            "</tbody></table></div>",
            "</section>",
        ]
    )


def _row(table: str, column: Column) -> str:
    cells = [
        f"<code>{escape(column.type)}</code>",
        escape(column.meaning),
        " ".join(f'<span class="personal">{escape(str(one))}</span>' for one in column.personal),
        _list(map(escape, column.checks)),
        _list(_link(parent, parent) for parent in column.upstream),
        _list(_link(child, child) for child in column.downstream),
    ]
    return (
        f'<tr id="{escape(table)}.{escape(column.name)}"><th scope="row"><code>{escape(column.name)}</code></th>'
        f"{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
    )


def _link(target: str, text: str) -> str:
    return f'<a href="#{escape(target)}">{escape(text).replace(".", ".<wbr>")}</a>'


def _list(items: Iterable[str]) -> str:
    written = "".join(f"<li>{item}</li>" for item in items)
    return f"<ul>{written}</ul>" if written else ""
