"""What is made from what: the models' own SQL, read without SQLMesh, whose start takes seconds that an alert need not wait for."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from warehouse.settings import ROOT

_NAME = re.compile(r"^\s*name\s+((?:staging|marts)\.\w+)", re.MULTILINE)
_READ = re.compile(r"\b(?:FROM|JOIN)\s+((?:raw_\w+|staging|marts)\.\w+)")
_DECLARED = re.compile(r"depends_on\s*\(([^)]*)\)")
_PYTHON_NAME = re.compile(r"^@model\(\s*\"((?:staging|marts)\.\w+)\"", re.MULTILINE)
_PYTHON_DECLARED = re.compile(r"depends_on=\[([^\]]*)\]")
EVERYTHING = "warehouse"
"""The part of the house that stands for all tables, in a finding that names no table."""


@dataclass(frozen=True)
class Lineage:
    """Table (schema.table) to the tables that its model reads."""

    inputs: Mapping[str, frozenset[str]]

    def above(self, table: str) -> frozenset[str]:
        """Every table that a table is made from, however far up."""
        return self._above.get(table, frozenset())

    def is_above(self, cause: str, table: str) -> bool:
        """Whether what is wrong with one can be seen in the other. A name without a dot is a whole schema."""
        if cause == EVERYTHING:
            return table != EVERYTHING
        if "." in cause:
            return cause in self.above(table)
        return any(one.split(".")[0] == cause for one in (table, *self.above(table)) if one != cause)

    def marts_below(self, table: str) -> list[str]:
        """The marts that are made from a table (or from a whole schema), itself left out; sorted."""
        return sorted(one for one in self.inputs if one.startswith("marts.") and one != table and self.is_above(table, one))

    @cached_property
    def _above(self) -> dict[str, frozenset[str]]:
        found: dict[str, frozenset[str]] = {}

        def climb(table: str) -> frozenset[str]:
            if table not in found:
                found[table] = frozenset()  # a model may name itself
                direct = self.inputs.get(table, frozenset()) - {table}
                found[table] = direct.union(*(climb(one) for one in direct))
            return found[table]

        for table in self.inputs:
            climb(table)
        return found


def read_lineage(folder: Path = ROOT / "models") -> Lineage:
    """Read every model of a folder."""
    inputs: dict[str, frozenset[str]] = {}
    for file in sorted(folder.rglob("*.sql")):
        text = re.sub(r"'(?:[^']|'')*'", "''", file.read_text(encoding="utf-8"))  # descriptions speak of tables too
        name = _NAME.search(text)
        declared = _DECLARED.search(text)
        read = set(_READ.findall(text)) | {one.strip() for one in (declared.group(1) if declared else "").split(",") if "." in one}
        if name:
            inputs[name.group(1)] = frozenset(read)
    for file in sorted(folder.rglob("*.py")):  # a model in Python says itself what it reads
        text = file.read_text(encoding="utf-8")
        name, declared = _PYTHON_NAME.search(text), _PYTHON_DECLARED.search(text)
        if name:
            inputs[name.group(1)] = frozenset(re.findall(r'"([^"]+)"', declared.group(1) if declared else ""))
    return Lineage(inputs)
