"""What the source's catalog says, and the plan that follows: which tables, by which key and cursor, each column how."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Literal

from pipelines.postgres_server import SOURCE, query, quoted
from pipelines.postgres_types import CatalogColumn, Reading, reading_of
from warehouse.errors import StepFailed

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
        own: the raw table's name.
        way: `changes` by cursor and key, `compare` the whole table by key, or `replace` it where there is no key.
        readings: the columns to read, in the table's order.
    """

    relation: Relation
    own: str
    way: Way
    primary_key: list[str]
    is_key_proved: bool
    cursor: str | None
    readings: dict[str, Reading] = field(default_factory=dict)

    @property
    def in_postgres(self) -> str:
        """The table's name in PostgreSQL's SQL."""
        return f"{quoted(self.relation.schema)}.{quoted(self.relation.name)}"

    def is_nullable(self, column: str) -> bool:
        """Whether a column may be null."""
        return next(one.is_nullable for one in self.relation.columns if one.name == column)


def plans(connection: "DuckDBPyConnection", declared: "Mapping[str, Table]") -> list[Plan]:
    """Match the declared names and patterns with the catalog; a table named in full wins over a pattern.

    Raises:
        StepFailed: a declared table, column or key is missing, a pattern matches nothing, or two tables would get one name.
    """
    relations = {relation.full_name: relation for relation in _relations(connection)}
    chosen: dict[str, Plan] = {}
    for pattern, table in sorted(declared.items(), key=lambda item: is_pattern(item[0])):
        matching = [name for name in relations if fnmatchcase(name, pattern)] if is_pattern(pattern) else [pattern]
        if not matching:
            raise StepFailed(f"{SOURCE}: no table matches {pattern}.", mend=f"correct `tables` in pipelines/{SOURCE}.yaml")
        for name in matching:
            if name in chosen:
                continue
            if name not in relations:
                schema = name.split(".")[0]
                raise StepFailed(
                    f"{SOURCE}: the table {name} is missing, or the user of SOURCES__POSTGRES__CREDENTIALS may not read it.",
                    mend=f"correct `tables` in pipelines/{SOURCE}.yaml, or: GRANT USAGE ON SCHEMA {schema} and GRANT SELECT ON {name}",
                )
            chosen[name] = _plan(relations[name], table)
    taken: dict[str, str] = {}
    for name, plan in chosen.items():
        if plan.own.lower() in taken:
            raise StepFailed(
                f"{SOURCE}: {taken[plan.own.lower()]} and {name} would both become raw_{SOURCE}.{plan.own}.",
                mend=f"declare one of them in full in pipelines/{SOURCE}.yaml with another `name:`",
            )
        taken[plan.own.lower()] = name
    return list(chosen.values())


def is_pattern(name: str) -> bool:
    """Whether a declared name stands for several tables."""
    return any(mark in name for mark in "*?[")


def _plan(relation: Relation, table: "Table") -> Plan:
    names = [column.name for column in relation.columns]
    for wanted in [*(table.primary_key or []), *([table.cursor] if table.cursor not in (None, "none") else []), *table.exclude, *table.columns]:
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
    cursor = _cursor(relation, table)
    readings = {
        column.name: reading_of(column, table.columns[column.name].on_unrepresentable if column.name in table.columns else "error")
        for column in relation.columns
        if column.name not in table.exclude
    }
    way: Way = "replace" if not key else "changes" if cursor else "compare"
    proved = any(set(unique) <= set(key) for unique in [relation.primary_key, *relation.unique_keys] if unique)
    return Plan(relation, table.name or relation.name, way, key, proved, cursor, readings)


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
        SELECT n.nspname::text AS schema, c.relname::text AS relation, c.relkind::text AS kind, a.attname::text AS name, a.attnum::int AS number,
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
    for schema, name, kind, *column in query(connection, columns):
        relation = found.setdefault((schema, name), Relation(schema, name, kind, primary.get((schema, name), []), unique.get((schema, name), []), []))
        relation.columns.append(CatalogColumn(*column))
    return list(found.values())
