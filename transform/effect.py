"""What a built change does to the data: rows, columns and headline metrics of the environment beside production's."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from transform.headline import Metric
from transform.review import ChangedModel, Environment, Problem
from warehouse.errors import scrub
from warehouse.sql import quoted
from warehouse.storage import CATALOG

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

SAMPLE_KEYS = 5
"""How many keys of rows added, removed or changed are named."""


@dataclass
class Difference:
    """One mart of the environment beside production's.

    Attributes:
        added, removed, changed: rows by the grain; None where the grain cannot tell, because one side lacks it or has it twice.
        values_changed: column to the number of rows in which its value is another, for columns both sides have.
        keys: up to SAMPLE_KEYS of the rows added, removed and changed, as "added: date=1998-01-01".
        bytes_before, bytes_after: of the blocks on the disk; None where there is no table or the storage does not tell.
        dashboards: those declared that show other numbers by it, with their owners.
    """

    mart: str
    rows_before: int | None = None
    rows_after: int | None = None
    added: int | None = None
    removed: int | None = None
    changed: int | None = None
    columns_added: list[str] = field(default_factory=list)
    columns_removed: list[str] = field(default_factory=list)
    types_changed: list[str] = field(default_factory=list)
    values_changed: dict[str, int] = field(default_factory=dict)
    keys: list[str] = field(default_factory=list)
    bytes_before: int | None = None
    bytes_after: int | None = None
    note: str = ""
    dashboards: list[str] = field(default_factory=list)

    @property
    def columns(self) -> list[str]:
        """Every column that is not as it was."""
        retyped = [column.split(":")[0] for column in self.types_changed]
        return sorted({*self.columns_added, *self.columns_removed, *retyped, *self.values_changed})


@dataclass(frozen=True)
class MetricChange:
    """One headline metric for one value of what it is told by, as text; None where there is none."""

    metric: str
    by: str | None
    before: str | None
    after: str | None


def differences(connection: "DuckDBPyConnection", environment: Environment, personal: Collection[str]) -> list[Difference]:
    """Compare each changed mart of a built environment with production.

    Args:
        personal: columns whose values are shown nowhere, so that no key with one of them is named.
    """
    marts = [model for model in environment.models if model.name.startswith("marts.")]
    return [_difference(connection, environment, model, {one.lower() for one in personal}) for model in marts]


def headline(connection: "DuckDBPyConnection", environment: Environment, metrics: Sequence[Metric]) -> list[MetricChange]:
    """Each metric before and after; one that cannot be computed any more is added to the environment's problems."""
    changed = {model.name: model.category for model in environment.models}
    found = []
    for metric in metrics:
        before = {} if changed.get(metric.mart) == "new" else _metric(connection, metric, metric.mart)
        after: dict[str | None, str | None] = {}
        if isinstance(before, str):
            before = {}  # production never had it
        if metric.mart in environment.views:
            now = _metric(connection, metric, environment.schema(metric.mart))
            if isinstance(now, str):
                environment.problems.append(Problem("metric", f"{metric.name} cannot be computed from {metric.mart}: {now}"))
            else:
                after = now
        else:
            environment.problems.append(Problem("metric", f"{metric.name} cannot be computed: there is no {metric.mart}"))
        told_by = sorted(before.keys() | after.keys(), key=lambda one: (one is None, one or ""))
        found += [MetricChange(metric.name, one, before.get(one), after.get(one)) for one in told_by]
    return found


def _metric(connection: "DuckDBPyConnection", metric: Metric, table: str) -> dict[str | None, str | None] | str:
    """The values by what the metric is told by, or why there are none."""
    import duckdb

    by = f"{quoted(metric.by)}::VARCHAR" if metric.by else "NULL::VARCHAR"
    try:
        rows = connection.execute(f"SELECT {by} AS told_by, ({metric.value})::VARCHAR FROM {table} GROUP BY 1").fetchall()
    except duckdb.Error as error:
        return scrub(str(error).splitlines()[0])
    return dict(rows)


def _difference(connection: "DuckDBPyConnection", environment: Environment, model: ChangedModel, personal: set[str]) -> Difference:
    difference = Difference(model.name)
    difference.bytes_before, difference.bytes_after = _bytes(connection, model.table_before), _bytes(connection, model.table)
    before = {} if model.category == "new" else _columns(connection, model.name)
    after = {} if model.category == "removed" else _columns(connection, environment.schema(model.name))
    difference.rows_before = _count(connection, model.name) if before else None
    difference.rows_after = _count(connection, environment.schema(model.name)) if after else None
    if not before or not after:
        difference.added, difference.removed, difference.changed = difference.rows_after or 0, difference.rows_before or 0, 0
        return difference
    difference.columns_added = [column for column in after if column not in before]
    difference.columns_removed = [column for column in before if column not in after]
    difference.types_changed = [f"{column}: {before[column]} -> {after[column]}" for column in after if column in before and before[column] != after[column]]
    if not model.has_other_rows:
        difference.added = difference.removed = difference.changed = 0
    elif not model.grain or not set(model.grain) <= before.keys() & after.keys():
        difference.note = "production does not have this grain, so rows are only counted"
    elif doubled := [table for table in (model.name, environment.schema(model.name)) if _is_doubled(connection, table, model.grain)]:
        difference.note = f"the grain is not unique in {doubled[0]}, so rows are only counted"
    else:
        _compare_rows(connection, environment, model, [column for column in after if column in before], difference, personal)
    return difference


def _compare_rows(
    connection: "DuckDBPyConnection", environment: Environment, model: ChangedModel, shared: list[str], difference: Difference, personal: set[str]
) -> None:
    rest = [column for column in shared if column not in model.grain]
    on = " AND ".join(f"b.{quoted(column)} IS NOT DISTINCT FROM a.{quoted(column)}" for column in model.grain)
    differs = [f"b.{quoted(column)} IS DISTINCT FROM a.{quoted(column)}" for column in rest]
    source = f"(SELECT *, TRUE AS _there FROM {model.name}) AS b FULL OUTER JOIN (SELECT *, TRUE AS _there FROM {environment.schema(model.name)}) AS a ON {on}"
    both, any_differs = "b._there AND a._there", f"({' OR '.join(differs) or 'FALSE'})"
    counts = [
        "count(*) FILTER (WHERE b._there IS NULL)",
        "count(*) FILTER (WHERE a._there IS NULL)",
        f"count(*) FILTER (WHERE {both} AND {any_differs})",
        *(f"count(*) FILTER (WHERE {both} AND {one})" for one in differs),
    ]
    row = connection.execute(f"SELECT {', '.join(counts)} FROM {source}").fetchone() or ()
    difference.added, difference.removed, difference.changed, *values = row
    difference.values_changed = {column: count for column, count in zip(rest, values, strict=True) if count}
    if personal & {column.lower() for column in model.grain}:
        return
    key = [f"coalesce(a.{quoted(column)}, b.{quoted(column)})" for column in model.grain]
    shown = ", ".join(f"{one}::VARCHAR" for one in key)
    for word, count, condition in (
        ("added", difference.added, "b._there IS NULL"),
        ("removed", difference.removed, "a._there IS NULL"),
        ("changed", difference.changed, f"{both} AND {any_differs}"),
    ):
        if count:
            keys = connection.execute(f"SELECT {shown} FROM {source} WHERE {condition} ORDER BY {', '.join(key)} LIMIT {SAMPLE_KEYS}").fetchall()
            difference.keys += [f"{word}: " + ", ".join(f"{name}={value}" for name, value in zip(model.grain, one, strict=True)) for one in keys]


def _columns(connection: "DuckDBPyConnection", table: str) -> dict[str, str]:
    return {name: str(kind) for name, kind, *_ in connection.execute(f"DESCRIBE SELECT * FROM {table}").fetchall()}


def _count(connection: "DuckDBPyConnection", table: str) -> int:
    return int(_one(connection, f"SELECT count(*) FROM {table}"))


def _is_doubled(connection: "DuckDBPyConnection", table: str, grain: Sequence[str]) -> bool:
    keys = ", ".join(quoted(column) for column in grain)
    return bool(_one(connection, f"SELECT count(*) <> (SELECT count(*) FROM (SELECT DISTINCT {keys} FROM {table})) FROM {table}"))


def _bytes(connection: "DuckDBPyConnection", table: str | None) -> int | None:
    """The blocks a table lies in, times their size; tables smaller than a block share it, and each counts it whole."""
    import duckdb

    if table is None:
        return None
    name = table.replace('"', "").replace("'", "''")
    try:
        blocks = _one(connection, f"SELECT count(DISTINCT block_id) FROM pragma_storage_info('{name}') WHERE persistent AND block_id >= 0")
        size = _one(connection, f"SELECT block_size FROM pragma_database_size() WHERE database_name = '{CATALOG}'")
    except duckdb.Error:
        return None  # MotherDuck does not tell
    return int(blocks) * int(size)


def _one(connection: "DuckDBPyConnection", query: str) -> Any:
    row = connection.execute(query).fetchone()
    return row[0] if row else None
