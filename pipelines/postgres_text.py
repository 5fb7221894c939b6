"""From PostgreSQL's text, in which the log gives every value, to the value and type that a query would have given."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

from pipelines.postgres_catalog import Plan
from pipelines.postgres_changes import Chunk
from pipelines.postgres_server import SOURCE
from pipelines.postgres_session import session
from pipelines.postgres_types import LAST_TIMESTAMP, CatalogColumn, Choice, decimal_of_text, reading_of
from pipelines.raw_changes import OP
from warehouse.errors import StepFailed
from warehouse.sql import literal, quoted

if TYPE_CHECKING:
    import pyarrow as pa
    from duckdb import DuckDBPyConnection
    from psycopg2.extensions import cursor

_BATCH = 20_000
_NEW = f"{quoted(OP)} IN ('insert', 'update')"
# The server's own types whose cast to text, by which a query reads them, is what the log says. Others are sent back and asked.
_AS_LOGGED = {
    "text", "varchar", "bpchar", "json", "jsonb", "timetz", "interval", "cidr", "macaddr", "macaddr8", "tsvector", "tsquery",
    "point", "line", "lseg", "box", "path", "polygon", "circle", "bit", "varbit", "money", "name", "xml", "oid", "xid", "xid8", "pg_lsn",
}  # fmt: skip
_CAST = {"int2", "int4", "int8", "float4", "float8", "uuid", "time"}


@dataclass(frozen=True)
class Typed:
    """A chunk and how to read it.

    Attributes:
        table: the chunk's table; register it with DuckDB under any name.
        columns: name -> DuckDB SQL over that table, which gives the value and the type that a query (`Stream`) gives, ready for
            `privacy.pseudonyms.protect`; a value without a counterpart is null.
        faults: name -> DuckDB SQL that is true for such values, of the columns where they were not declared to become null.
        texts: the columns that hold text.
    """

    table: "pa.Table"
    columns: dict[str, str]
    faults: dict[str, str] = field(default_factory=dict)
    texts: Sequence[str] = ()


def typed(chunk: Chunk, choices: Mapping[str, Choice], statement_timeout: timedelta) -> Typed:
    """How to read a chunk, whose arrays and composites PostgreSQL has turned into JSON meanwhile.

    Args:
        choices: what becomes of values that have no counterpart, by column; an error where nothing is said.

    Raises:
        StepFailed: PostgreSQL cannot read one of its own older values, because their type has changed since.
    """
    plan, table = chunk.plan, chunk.table
    catalog = {column.name: column for column in plan.relation.columns}
    columns: dict[str, str] = {}
    faults: dict[str, str] = {}
    asked: dict[str, str] = {}
    for name in plan.readings:
        column, choice, here = catalog[name], choices.get(name, "error"), quoted(name)
        exact = reading_of(column)
        if exact.unrepresentable and choice == "text":
            columns[name] = here
        elif column.type_name == "numeric" and column.category != "A":
            columns[name], fault = _decimal(here, exact.type)
            faults.update({name: fault} if choice == "error" else {})
        elif column.type_name in ("timestamp", "timestamptz"):
            columns[name], fault = _timestamp(here, exact.type, choice)
            faults.update({name: fault} if choice == "error" else {})
        else:
            columns[name] = _plain(column, here, exact.type)
            if not _is_as_logged(column):
                asked[name] = f"({exact.in_postgres or '{}::text'})::text".replace("{}", f"v::{column.declared_type}")
    if asked:
        with session(statement_timeout, f"reading {plan.relation.full_name}") as cur:
            for name, expression in asked.items():
                table = _asked(cur, table, plan, name, expression)
    return Typed(table, columns, faults, [name for name in plan.readings if plan.readings[name].is_text])


def refuse_unrepresentable_changes(connection: "DuckDBPyConnection", plan: Plan, relation: str, faults: Mapping[str, str]) -> None:
    """Look for values without a counterpart in new rows.

    The log keeps a value after it was corrected in PostgreSQL, so look only at what is to be kept: where just the last
    version of a row is, only at that.

    Args:
        connection: where the relation is registered.
        relation: DuckDB SQL for a relation with the columns of `Typed.table`.

    Raises:
        StepFailed: names table, column, row and the choices.
    """
    if not faults:
        return
    which = " ".join(f"WHEN {fault} THEN {literal(name)}" for name, fault in faults.items())
    row = " || ', ' || ".join(f"coalesce({quoted(name)}, 'null')" for name in plan.primary_key) or "'(it has no key)'"
    wrong = " OR ".join(f"({fault})" for fault in faults.values())
    found = connection.execute(f"SELECT CASE {which} END, {row} FROM {relation} WHERE {_NEW} AND ({wrong}) LIMIT 1").fetchone()
    if found:
        column, key = found
        raise StepFailed(
            f"{SOURCE}: {plan.relation.full_name}.{column}, row {key}: a value that {plan.readings[column].type} cannot hold "
            "(NaN, infinity, too many digits, or too late).",
            mend=f"correct it in PostgreSQL and read the table whole, or declare under {plan.relation.full_name} in pipelines/{SOURCE}.yaml "
            f"`columns: {{{column}: {{on_unrepresentable: null}}}}` to load null in its place, `text` to load the column as text",
        )


def _plain(column: CatalogColumn, here: str, kind: str) -> str:
    if column.category == "A" or column.kind != "b":
        return here
    if column.type_name == "bool":
        return f"({here} = 't')"
    if column.type_name == "bytea":
        return f"unhex(substr({here}, 3))"
    if column.type_name == "date":
        return f"replace({here}, ' BC', ' (BC)')::DATE"
    if column.type_name in _CAST:
        return f"{here}::{kind}"
    if column.type_name == "inet":  # the log leaves out a mask of the whole address, and a query does not
        return f"CASE WHEN contains({here}, '/') THEN {here} WHEN contains({here}, ':') THEN {here} || '/128' ELSE {here} || '/32' END"
    return here


def _is_as_logged(column: CatalogColumn) -> bool:
    if column.category == "A" or column.kind == "c":
        return False
    return column.kind != "b" or column.type_name in _AS_LOGGED | _CAST | {"bool", "bytea", "date", "inet"}


def _decimal(here: str, kind: str) -> tuple[str, str]:
    """The value, null where the type cannot hold it exactly, and whether that is so."""
    precision, scale = (int(number) for number in kind.removeprefix("DECIMAL(").rstrip(")").split(","))
    value = decimal_of_text(here, precision, scale)
    return value, f"{here} IS NOT NULL AND {value} IS NULL"


def _timestamp(here: str, kind: str, choice: Choice) -> tuple[str, str]:
    text = rf"CASE WHEN ends_with({here}, ' BC') THEN regexp_replace({here}, '^(\S+) (.*) BC$', '\1 (BC) \2') ELSE {here} END"
    value = f"TRY_CAST({text} AS {kind})"
    fault = f"{here} IS NOT NULL AND {value} IS NULL"
    if choice == "null":  # a query turns the last days that DuckDB could still count into null, too
        value = f"CASE WHEN isfinite({value}) AND {value} > {kind} '{LAST_TIMESTAMP} 00:00:00' THEN NULL ELSE {value} END"
    return value, fault


def _asked(cur: "cursor", table: "pa.Table", plan: Plan, name: str, expression: str) -> "pa.Table":
    """The table with the values of a column replaced by what PostgreSQL makes of them."""
    import psycopg2
    import pyarrow as pa

    values = table.column(name).to_pylist()
    if name not in plan.primary_key:  # old values may be of a time when the type was another, and are not needed
        values = [value if op in ("insert", "update") else None for value, op in zip(values, table.column(OP).to_pylist(), strict=True)]
    distinct = list({value for value in values if value is not None})
    known: dict[str | None, str | None] = {None: None}
    for start in range(0, len(distinct), _BATCH):
        batch = distinct[start : start + _BATCH]
        try:
            cur.execute(f"SELECT {expression.replace('%', '%%')} FROM unnest(%s::text[]) WITH ORDINALITY AS given(v, place) ORDER BY place", (batch,))
        except psycopg2.DataError:  # its message would hold the value
            raise StepFailed(
                f"{SOURCE}: {plan.relation.full_name}.{name}: the log has values that its type no longer allows.",
                mend="the type was changed since: read the table whole",
            ) from None
        known.update(zip(batch, (one for (one,) in cur.fetchall()), strict=True))
    return table.set_column(table.column_names.index(name), name, pa.array([known[value] for value in values], pa.string()))
