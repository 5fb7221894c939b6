"""What the source's catalog says, and the plan that follows: which tables, by which key and cursor, each column how."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Literal

from pipelines.postgres_server import SOURCE, query
from pipelines.postgres_types import CatalogColumn, Reading, reading_of
from pipelines.source import Change, Shape
from warehouse.errors import StepFailed
from warehouse.sql import quoted

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from pipelines.postgres import Table

Way = Literal["changes", "compare", "replace"]
_CURSORS = ("updated_at", "modified_at", "last_modified", "last_modified_at", "updated_on", "modified_on", "changed_at")
_CURSOR_TYPES = ("timestamp", "timestamptz", "date", "int2", "int4", "int8")


@dataclass(frozen=True)
class Relation:
    """A table, partitioned table or view of the source."""

    schema: str
    name: str
    oid: int
    kind: str
    primary_key: list[str]
    unique_keys: list[list[str]]
    columns: list[CatalogColumn]

    @property
    def full_name(self) -> str:
        """schema.table, as it is declared."""
        return f"{self.schema}.{self.name}"


@dataclass(frozen=True)
class Plan:
    """How one table is loaded.

    Attributes:
        table: the declaration that it falls under.
        own: the raw table's name.
        way: `changes` by cursor and key, `compare` the whole table by key, or `replace` it where there is no key.
        readings: the columns to read, in the table's order.
        remarks: where the declaration no longer fits, each with its mend.
    """

    relation: Relation
    table: "Table"
    own: str
    way: Way
    primary_key: list[str]
    is_key_proved: bool
    cursor: str | None
    readings: dict[str, Reading] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    @property
    def shape(self) -> Shape:
        """What the table looks like, to be compared at the next load."""
        columns = {column.name: (column.number, column.declared_type) for column in self.relation.columns}
        return Shape(self.relation.full_name, self.relation.oid, self.own, columns, self.primary_key)

    @property
    def in_postgres(self) -> str:
        """The table's name in PostgreSQL's SQL."""
        return f"{quoted(self.relation.schema)}.{quoted(self.relation.name)}"

    def is_nullable(self, column: str) -> bool:
        """Whether a column may be null."""
        return next(one.is_nullable for one in self.relation.columns if one.name == column)


@dataclass(frozen=True)
class Missing:
    """A table that was loaded before and cannot be read now.

    Attributes:
        before: what it looked like.
        after: what is to be remembered of it.
        change: what became of it, when that is seen for the first time.
        remark: the same for the operator, with its mend; None when a pattern has lost it and that was said before.
    """

    before: Shape
    after: Shape
    change: Change | None
    remark: str | None


@dataclass
class Planned:
    """What to load, and what can no longer be loaded."""

    plans: list[Plan] = field(default_factory=list)
    missing: list[Missing] = field(default_factory=list)


def plans(connection: "DuckDBPyConnection", declared: "Mapping[str, Table]", known: Sequence[Shape] = ()) -> Planned:
    """Match the declared names and patterns with the catalog; a table named in full wins over a pattern.

    Args:
        known: what was loaded before. Such a table is followed when it was renamed, and missing when it was dropped, its key
            was dropped or it may no longer be read; the others are loaded all the same.

    Raises:
        StepFailed: a declared table, column or key that was never there is missing, a pattern matches nothing, or two
            tables would get one name.
    """
    relations = {relation.full_name: relation for relation in _relations(connection)}
    by_oid = {relation.oid: relation for relation in relations.values()}
    by_raw_table = {shape.raw_table: shape for shape in known}
    followed = {
        shape.identity: shape.raw_table
        for shape in known
        if shape.identity in by_oid and (shape.name not in relations or relations[shape.name].oid == shape.identity)
    }
    planned = Planned()
    chosen: set[int] = set()
    for pattern, table in sorted(declared.items(), key=lambda item: is_pattern(item[0])):
        if is_pattern(pattern):
            named = {name: (relation, followed.get(relation.oid, relation.name)) for name, relation in relations.items()}
            matching = {name: found for name, found in named.items() if fnmatchcase(name, pattern)}
            if not matching and not any(fnmatchcase(shape.name, pattern) for shape in known):
                raise StepFailed(f"{SOURCE}: no table matches {pattern}.", mend=f"correct `tables` in pipelines/{SOURCE}.yaml")
        else:
            own = table.name or pattern.split(".", 1)[1]
            shape = by_raw_table.get(own)
            relation = relations.get(pattern) or (by_oid.get(shape.identity) if shape else None)
            if relation is None and shape is None:
                schema = pattern.split(".")[0]
                raise StepFailed(
                    f"{SOURCE}: the table {pattern} is missing, or the user of SOURCES__POSTGRES__CREDENTIALS may not read it.",
                    mend=f"correct `tables` in pipelines/{SOURCE}.yaml, or: GRANT USAGE ON SCHEMA {schema} and GRANT SELECT ON {pattern}",
                )
            matching = {pattern: (relation, own)} if relation else {}
        for relation, own in matching.values():
            if relation.oid not in chosen:
                chosen.add(relation.oid)
                _add(planned, relation, table, own, by_raw_table.get(own), pattern)
    _refuse_one_name_for_two(planned.plans)
    _add_missing(connection, planned, declared, known)
    return planned


def _add(planned: Planned, relation: Relation, table: "Table", own: str, shape: Shape | None, pattern: str) -> None:
    try:
        plan = _plan(relation, table, own, lenient=shape is not None)
    except StepFailed as error:
        if shape is None:
            raise
        planned.missing.append(Missing(shape, shape, None, str(error)))
        return
    planned.plans.append(plan)
    if table.cursor not in (None, "none", plan.cursor):
        plan.remarks.append(
            f"{SOURCE}: {relation.full_name} has no column {table.cursor} any more; all of it is read and compared.\n"
            f"  mend: correct its `cursor` in pipelines/{SOURCE}.yaml"
        )
    if not is_pattern(pattern) and relation.full_name != pattern:
        plan.remarks.append(
            f"{SOURCE}: {pattern} is now {relation.full_name}; it is still loaded into raw_{SOURCE}.{own}.\n"
            f"  mend: declare {relation.full_name} with `name: {own}` in pipelines/{SOURCE}.yaml"
        )


def _refuse_one_name_for_two(found: Sequence[Plan]) -> None:
    taken: dict[str, str] = {}
    for plan in found:
        if plan.own.lower() in taken:
            raise StepFailed(
                f"{SOURCE}: {taken[plan.own.lower()]} and {plan.relation.full_name} would both become raw_{SOURCE}.{plan.own}.",
                mend=f"declare one of them in full in pipelines/{SOURCE}.yaml with another `name:`",
            )
        taken[plan.own.lower()] = plan.relation.full_name


def _add_missing(connection: "DuckDBPyConnection", planned: Planned, declared: "Mapping[str, Table]", known: Sequence[Shape]) -> None:
    """The tables that are declared, were loaded before and are not there now."""
    there = {plan.own for plan in planned.plans} | {one.before.raw_table for one in planned.missing}
    for shape in known:
        in_full = next((name for name, table in declared.items() if (table.name or name.split(".", 1)[1]) == shape.raw_table and not is_pattern(name)), None)
        if shape.raw_table in there or not (in_full or any(is_pattern(name) and fnmatchcase(shape.name, name) for name in declared)):
            continue
        if query(connection, f"SELECT 1 AS one FROM pg_class WHERE oid = {shape.identity}"):
            remark = (
                f"{SOURCE}: {shape.name} may no longer be read by the user of SOURCES__POSTGRES__CREDENTIALS; raw_{SOURCE}.{shape.raw_table} keeps what "
                f"was loaded.\n  mend: GRANT SELECT ON {shape.name}"
            )
            planned.missing.append(Missing(shape, shape, None, remark))
            continue
        remark = (
            f"{SOURCE}: {shape.name} is no longer in the source; raw_{SOURCE}.{shape.raw_table} keeps what was loaded.\n"
            f"  mend: restore it, or remove it from `tables` in pipelines/{SOURCE}.yaml"
        )
        is_new = shape.identity != 0
        change = Change(shape.name, shape.raw_table, None, "table dropped") if is_new else None
        planned.missing.append(Missing(shape, replace(shape, identity=0), change, remark if is_new or in_full else None))


def is_pattern(name: str) -> bool:
    """Whether a declared name stands for several tables."""
    return any(mark in name for mark in "*?[")


def _plan(relation: Relation, table: "Table", own: str, *, lenient: bool) -> Plan:
    """How to load a relation; a declared cursor may be missing where `lenient`, for tables that were loaded before."""
    names = [column.name for column in relation.columns]
    cursor = [table.cursor] if table.cursor not in (None, "none") and not lenient else []
    for wanted in [*(table.primary_key or []), *cursor, *table.exclude, *table.columns]:
        if wanted not in names:
            raise StepFailed(
                f"{SOURCE}: {relation.full_name} has no column {wanted}; it has {', '.join(names)}.",
                mend=f"correct {relation.full_name} in pipelines/{SOURCE}.yaml",
            )
    clashing = [name for name in names if sum(other.lower() == name.lower() for other in names) > 1 and name not in table.exclude]
    if clashing:
        raise StepFailed(
            f"{SOURCE}: {relation.full_name} has columns that differ only in case: {', '.join(clashing)}; the warehouse cannot tell them apart.",
            mend=f"`exclude` all but one of them in pipelines/{SOURCE}.yaml, or read a view that renames them",
        )
    key = table.primary_key or relation.primary_key
    wished = _cursor(relation, table)
    found_cursor = wished if wished in names else None
    readings = {
        column.name: reading_of(column, table.columns[column.name].on_unrepresentable if column.name in table.columns else "error")
        for column in relation.columns
        if column.name not in table.exclude
    }
    way: Way = "replace" if not key else "changes" if found_cursor else "compare"
    proved = any(set(unique) <= set(key) for unique in [relation.primary_key, *relation.unique_keys] if unique)
    return Plan(relation, table, own, way, key, proved, found_cursor, readings)


def _cursor(relation: Relation, table: "Table") -> str | None:
    if table.cursor == "none":
        return None
    if table.cursor is not None:
        return table.cursor
    types = {column.name: column.type_name for column in relation.columns}
    return next((name for name in _CURSORS if types.get(name) in _CURSOR_TYPES and name not in table.exclude), None)


def _relations(connection: "DuckDBPyConnection") -> list[Relation]:
    """Every table and view that this user may read, partitions apart (they are read through their table)."""
    columns = """
        WITH RECURSIVE resolved AS (
          SELECT oid AS type, oid AS base, typbasetype, typtypmod, typtype, 0 AS depth FROM pg_type
          UNION ALL
          SELECT r.type, t.oid, t.typbasetype, CASE WHEN r.typtypmod >= 0 THEN r.typtypmod ELSE t.typtypmod END, t.typtype, r.depth + 1
          FROM resolved r JOIN pg_type t ON t.oid = r.typbasetype WHERE r.typtype = 'd'
        )
        SELECT n.nspname::text AS schema, c.relname::text AS relation, c.oid::bigint AS oid, c.relkind::text AS kind,
          a.attname::text AS name, a.attnum::int AS number,
          t.typname::text AS type_name, t.typtype::text AS type_kind, t.typcategory::text AS category,
          (CASE WHEN a.atttypmod >= 0 THEN a.atttypmod ELSE r.typtypmod END)::int AS modifier, r.depth > 0 AS is_domain,
          NOT a.attnotnull AS is_nullable, format_type(a.atttypid, a.atttypmod)::text AS declared_type
        FROM pg_class c
        JOIN pg_namespace n ON n.oid = c.relnamespace
        JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
        JOIN resolved r ON r.type = a.atttypid AND r.typtype <> 'd'
        JOIN pg_type t ON t.oid = r.base
        WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND NOT c.relispartition
          AND n.nspname NOT IN ('information_schema', 'pg_catalog', 'pg_toast') AND n.nspname NOT LIKE 'pg\\_temp%'
          AND has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT')
        ORDER BY 1, 2, a.attnum
    """
    keys = """
        SELECT n.nspname::text AS schema, c.relname::text AS relation, i.indisprimary AS is_primary,
          string_agg(a.attname::text, chr(31) ORDER BY k.position) AS columns
        FROM pg_index i
        JOIN pg_class c ON c.oid = i.indrelid
        JOIN pg_namespace n ON n.oid = c.relnamespace
        CROSS JOIN LATERAL unnest(i.indkey) WITH ORDINALITY AS k(number, position)
        JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.number
        WHERE i.indisunique AND i.indpred IS NULL AND i.indexprs IS NULL AND k.position <= i.indnkeyatts
        GROUP BY 1, 2, 3, i.indexrelid
    """
    primary: dict[tuple[str, str], list[str]] = {}
    unique: dict[tuple[str, str], list[list[str]]] = {}
    for schema, name, is_primary, joined in query(connection, keys):
        if is_primary:
            primary[schema, name] = joined.split("\x1f")
        else:
            unique.setdefault((schema, name), []).append(joined.split("\x1f"))
    found: dict[tuple[str, str], Relation] = {}
    for schema, name, oid, kind, *column in query(connection, columns):
        relation = found.setdefault((schema, name), Relation(schema, name, oid, kind, primary.get((schema, name), []), unique.get((schema, name), []), []))
        relation.columns.append(CatalogColumn(*column))
    return list(found.values())
