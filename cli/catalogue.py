"""The verb `catalogue`: joins models, contracts and the privacy policy, which are rooms of their own, and writes what they say."""

import json
import os
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from warehouse.console import say
from warehouse.errors import UsageError
from warehouse.settings import ROOT

if TYPE_CHECKING:
    from monitoring.contract_model import Check, Contract
    from transform.catalogue.tables import Contract as Promise
    from transform.catalogue.tables import PersonalColumns, Table

METRICS = ROOT / "docs" / "metrics"
DICTIONARY = ROOT / "docs" / "dictionary.md"


def write(form: str, out: Path | None) -> None:
    """Write the catalogue as `markdown`, `html` or `json` to a file, or to standard output.

    Raises:
        UsageError: a declared file is wrong, or the file cannot be written.
        StepFailed: a model cannot be read.
    """
    text = rendered(read(), form, out)
    if out is None:
        say(text.rstrip("\n"))
        return
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{out} cannot be written: {error.strerror}.", mend="name a file in a folder that this user may write to") from None


def read() -> "list[Table]":
    """Every table, with its contract and its personal data.

    Raises:
        UsageError: a declared file is wrong.
        StepFailed: a model cannot be read.
    """
    from monitoring.contract_files import read_contracts
    from transform.catalogue.tables import read_tables

    pages = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in METRICS.glob("*.md")}
    return read_tables({table: _promise(contract) for table, contract in read_contracts().items()}, _personal(), pages)


def rendered(tables: "list[Table]", form: str, out: Path | None) -> str:
    """The catalogue as text; pages of the project are linked from where it will lie, and only named where that is elsewhere."""
    from transform.catalogue import html, markdown

    if form == "json":
        return json.dumps([asdict(table) for table in tables], indent=2, ensure_ascii=False) + "\n"
    folder = (out or DICTIONARY).resolve().parent
    pages = {page for table in tables for page in table.pages}
    links = {page: Path(os.path.relpath(ROOT / page, folder)).as_posix() for page in pages} if folder.is_relative_to(ROOT) else {}
    return html.document(tables, links) if form == "html" else markdown.document(tables, links)


def _personal() -> "PersonalColumns":
    from privacy.policy import policy
    from privacy.pseudonyms import held_names
    from transform.catalogue.tables import Personal

    found: dict[str, dict[str, Personal]] = defaultdict(dict)
    for table, rules in policy().columns.items():
        for column, rule in rules.items():
            if rule.personal_class != "none":
                found[f"raw_{table}"] |= dict.fromkeys(held_names(column, rule), Personal(rule.personal_class, rule.action))
    return found


def _promise(contract: "Contract") -> "Promise":
    from transform.catalogue.tables import Contract as Promise

    columns: dict[str, list[str]] = defaultdict(list)
    table = ["may be empty"] if contract.may_be_empty else []
    for check in contract.all_checks():
        (columns[check.column] if check.column else table).append(_in_words(check))
    schema, name = contract.table.split(".")
    return Promise(f"soda/{schema}/{name}.yml", tuple(table), {column: tuple(checks) for column, checks in columns.items()})


def _in_words(check: "Check") -> str:
    from monitoring.contract_model import CompositeDuplicate, Invalid

    body = check.body
    said = body.name or {"missing": "never null", "duplicate": "unique", "row_count": "has rows"}.get(check.kind, check.kind)
    if isinstance(body, CompositeDuplicate) and not body.name:
        said = f"{', '.join(body.columns)} together unique"
    if isinstance(body, Invalid) and not body.name:
        limits = [("", body.valid_format and body.valid_format.name), ("at least ", body.valid_min), ("at most ", body.valid_max)]
        said = ", ".join(f"{word}{limit}" for word, limit in limits if limit is not None)
    return f"{said} ({body.threshold}{', warns' if body.threshold.level == 'warn' else ''})" if body.threshold else said
