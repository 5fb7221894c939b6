"""Everything that is held of persons, for them to read: JSON with meanings and sources, and a CSV a table."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from privacy import audit, consent, erasures
from privacy.files import theirs
from privacy.policy import policy
from privacy.pseudonyms import held_names
from privacy.rows import find
from privacy.subjects import Subject, bind_tags, resolve, tag
from warehouse import clock, storage
from warehouse.errors import UsageError
from warehouse.files import write_atomically
from warehouse.settings import settings
from warehouse.sql import quoted

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_OF_ACTION = {
    "hmac": "a pseudonym: a keyed hash, from which the value cannot be read",
    "mask": "all but the last two digits were taken out before it was stored",
    "redact": "that it existed; the value was never stored",
    "scrub": "free text without the emails and the numbers of persons in it",
    "encrypt": "sealed under the person's own key; `warehouse privacy reveal` reads it",
    "keep": "as the source has it",
}
_MARTS = "marts"
_OF_CONSENT = {
    "purpose": "what for", "version": "of the words", "given": "whether it was given or taken back", "source": "where it was said", "at": "when it was said",
    "recorded_at": "when it was recorded",
}  # fmt: skip


def export(named: Sequence[Subject], folder: Path, meanings: Mapping[str, str]) -> dict[str, int]:
    """Write what is held of persons to a folder: `held.json`, and `<table>.csv` for each table. Hold the lease.

    Args:
        folder: must not exist yet, nor be inside the home, where an erasure would find it and not understand it.
        meanings: schema.table -> what it is.

    Returns:
        schema.table -> rows written.

    Raises:
        UsageError: the folder is not one to write to, or an email names several persons.
    """
    if folder.exists() or folder.resolve().is_relative_to(settings().home):
        raise UsageError(f"{folder} exists already, or is inside WAREHOUSE_HOME.", mend="name a new folder outside of it")
    tables: dict[str, Any] = {}
    with storage.open_warehouse() as connection:
        keys = resolve(connection, named)
        bind_tags(connection, [(tag(one.kind, one.value), clock.now().isoformat()) for one in keys])
        for source, table, columns in erasures.raw_tables(connection):
            relation = f"raw_{source}.{quoted(table)}"
            found = find(connection, relation, columns, source, table)
            if found.is_theirs != "false":
                query = f"SELECT r.* FROM {relation} AS r {found.joins} WHERE {found.is_theirs}"
                _add(tables, connection, f"raw_{source}.{table}", query, meanings, source, _column_meanings(source, table))
        for table, names in _marts(connection):
            relation = f"{_MARTS}.{quoted(table)}"
            if condition := theirs(connection, relation, names):
                _add(tables, connection, f"{_MARTS}.{table}", f"SELECT r.* FROM {relation} AS r WHERE {condition}", meanings, "computed from the above", {})
    if said := consent.said_by({tag(one.kind, one.value) for one in keys}):
        told_of = {name: {"type": "VARCHAR", "meaning": one} for name, one in _OF_CONSENT.items()}
        tables["consents"] = {"meaning": "what was agreed to, and taken back", "source": "the record of consents", "columns": told_of, "rows": said}
    folder.mkdir(parents=True, mode=0o700)
    told = {"made_at": clock.now().isoformat(), "keys": [f"{one.kind}:{one.value}" for one in keys], "tables": tables}
    write_atomically(folder / "held.json", json.dumps(told, indent=2, default=str, ensure_ascii=False) + "\n", mode=0o600)
    for name, held in tables.items():
        path = folder / f"{name}.csv"
        path.touch(mode=0o600)
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(held["columns"]))
            writer.writeheader()
            writer.writerows(held["rows"])
    audit.note("export", sorted({tag(one.kind, one.value) for one in named}))
    return {name: len(held["rows"]) for name, held in tables.items()}


def _add(
    tables: dict[str, Any], connection: "DuckDBPyConnection", name: str, query: str, meanings: Mapping[str, str], source: str, columns: Mapping[str, str]
) -> None:
    result = connection.execute(query)
    names = [(one[0], str(one[1])) for one in result.description]
    rows = [dict(zip((column for column, _ in names), row, strict=True)) for row in result.fetchall()]
    if rows:
        described = {column: {"type": kind, "meaning": columns.get(column, "")} for column, kind in names}
        tables[name] = {"meaning": meanings.get(name, ""), "source": source, "columns": described, "rows": rows}


def _column_meanings(source: str, table: str) -> dict[str, str]:
    """Warehouse column -> which of the source's it is made of, and how."""
    found = {}
    for column, rule in policy().rules(source, table.removesuffix("__changes")).items():
        for name in held_names(column, rule):
            found[name] = f"{column} ({rule.personal_class}): {_OF_ACTION[rule.action]}"
    return found


def _marts(connection: "DuckDBPyConnection") -> list[tuple[str, list[str]]]:
    query = (
        "SELECT table_name, list(column_name ORDER BY column_index) FROM duckdb_columns() "
        "WHERE database_name = current_database() AND schema_name = ? GROUP BY ALL ORDER BY ALL"
    )
    return connection.execute(query, [_MARTS]).fetchall()
