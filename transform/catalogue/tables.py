"""What the catalogue holds, as plain data, read from the models by themselves."""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transform.code_alone import open_code_alone
from transform.report import readable_name
from warehouse.settings import ROOT

if TYPE_CHECKING:
    from sqlmesh import Context
    from sqlmesh.core.model import Model

LAYERS = ("marts", "staging", "raw")


@dataclass(frozen=True, order=True)
class Personal:
    """What personal data a column is made of: its class in the privacy policy, and what was done with it on load."""

    personal_class: str
    action: str

    def __str__(self) -> str:
        return f"{self.personal_class} ({self.action})"


@dataclass(frozen=True)
class Contract:
    """What is promised about a table: checks of the whole table, and of each column, in words."""

    path: str
    table_checks: tuple[str, ...]
    column_checks: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        meaning: what stands in the model's header; empty for raw columns.
        personal: of its own or, by lineage, of what it is computed from.
        upstream: the columns whose values it is computed from, as schema.table.column, one step up; empty where rows are
            counted or the build itself writes the value. Joins and filters are not followed.
        downstream: the columns computed from it, one step down.
    """

    name: str
    type: str
    meaning: str
    personal: tuple[Personal, ...]
    checks: tuple[str, ...]
    upstream: tuple[str, ...]
    downstream: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """One model, or one raw table that models read.

    Attributes:
        layer: one of `LAYERS`.
        group: the domain of a mart, otherwise the source.
        kind: how it is built, in SQLMesh's words; `loaded` for raw tables.
        path: the declaring file, from the root of the project.
        reads: the tables it is built from, or that its audits compare it with.
        pages: the pages of docs/metrics/ that name it, from the root of the project.
    """

    name: str
    layer: str
    group: str
    description: str
    owner: str
    grain: tuple[str, ...]
    kind: str
    path: str
    reads: tuple[str, ...]
    audits: tuple[str, ...]
    contract: Contract | None
    pages: tuple[str, ...]
    columns: tuple[Column, ...]


PersonalColumns = Mapping[str, Mapping[str, Personal]]
"""Of each raw table (raw_<source>.<table>) the columns that are made of personal data."""


@dataclass(frozen=True)
class _Lineage:
    """How columns (schema.table.column) come from one another, and which raw ones are personal."""

    upstream: Mapping[str, set[str]]
    downstream: Mapping[str, set[str]]
    personal: Mapping[str, Personal]

    def origins(self, column: str) -> set[str]:
        """The column itself and all that it is computed from, however far up."""
        found, waiting = {column}, [column]
        while waiting:
            new = self.upstream.get(waiting.pop(), set()) - found
            found |= new
            waiting += new
        return found


def read_tables(contracts: Mapping[str, Contract], personal: PersonalColumns, pages: Mapping[str, str]) -> list[Table]:
    """Every table of the project's models: marts, staging, raw; in each by domain or source, then by name.

    Args:
        contracts: by table.
        pages: the texts of the pages of docs/metrics/, by path.

    Raises:
        StepFailed: a model cannot be read.
    """
    with open_code_alone() as context:
        models = {readable_name(name): model for name, model in context.models.items()}
        lineage = _lineage(context, models, personal)
        tables = [_table(name, model, contracts.get(name), pages, lineage) for name, model in models.items()]
    return sorted(tables, key=lambda table: (LAYERS.index(table.layer), table.group, table.name))


def _table(name: str, model: "Model", contract: Contract | None, pages: Mapping[str, str], lineage: _Lineage) -> Table:
    external = model.kind.is_external
    schema = name.split(".")[0]
    path = Path(model._path) if model._path else ROOT
    return Table(
        name=name,
        layer="raw" if external else "staging" if schema == "staging" else "marts",
        group=schema.removeprefix("raw_") if external else path.parent.name,
        description=model.description or "",
        owner=model.owner or "",
        grain=tuple(column.name for grain in model.grains[:1] for column in _columns_of(grain)),
        kind="loaded" if external else model.kind.name.value.lower().replace("_", " "),
        path=path.resolve().relative_to(ROOT).as_posix(),
        reads=tuple(sorted(map(readable_name, model.depends_on))),
        audits=tuple(dict.fromkeys(audit for audit, _ in model.audits)),
        contract=contract,
        pages=tuple(page for page, text in sorted(pages.items()) if _names(text, name)),
        columns=tuple(_column(name, column, model, contract, lineage) for column in model.columns_to_types or {}),
    )


def _column(table: str, column: str, model: "Model", contract: Contract | None, lineage: _Lineage) -> Column:
    full = f"{table}.{column}"
    return Column(
        name=column,
        type=model.columns_to_types[column].sql(dialect="duckdb"),
        meaning=model.column_descriptions.get(column, ""),
        personal=tuple(sorted({lineage.personal[origin] for origin in lineage.origins(full) if origin in lineage.personal})),
        checks=contract.column_checks.get(column, ()) if contract else (),
        upstream=tuple(sorted(lineage.upstream.get(full, ()))),
        downstream=tuple(sorted(lineage.downstream.get(full, ()))),
    )


def _lineage(context: "Context", models: Mapping[str, "Model"], personal: PersonalColumns) -> _Lineage:
    known = {f"{name}.{column}" for name, model in models.items() for column in model.columns_to_types or {}}
    upstream = {column: parents & known - {column} for column, parents in _parents(context, models)}
    downstream: dict[str, set[str]] = defaultdict(set)
    for column, parents in upstream.items():
        for parent in parents:
            downstream[parent].add(column)
    return _Lineage(upstream, downstream, {f"{table}.{column}": kind for table, columns in personal.items() for column, kind in columns.items()})


def _parents(context: "Context", models: Mapping[str, "Model"]) -> Iterator[tuple[str, set[str]]]:
    """Each column of a model, with the columns that its own SQL computes it from."""
    from sqlmesh.core import lineage
    from sqlmesh.core.model import SqlModel

    lineage.CACHE.clear()  # it tells models apart by an address in memory, which another context's model may have had
    for name, model in models.items():
        for column in model.columns_to_types or {}:
            if isinstance(model, SqlModel):
                parents = lineage.column_dependencies(context, model.fqn, column)
                yield f"{name}.{column}", {f"{readable_name(parent)}.{one}" for parent, columns in parents.items() for one in columns}
            else:  # there is no SQL to follow, so what bears the same name counts as what it is made of
                yield f"{name}.{column}", {f"{readable_name(parent)}.{column}" for parent in model.depends_on}


def _columns_of(expression: Any) -> Sequence[Any]:
    from sqlglot import exp

    return [*expression.find_all(exp.Column)]


def _names(text: str, table: str) -> bool:
    return re.search(rf"(?<![\w.]){re.escape(table)}(?!\w)", text) is not None
