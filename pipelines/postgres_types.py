"""How each PostgreSQL type is read so that every value arrives exactly, or stops with an error that names it.

Measured against DuckDB's postgres scanner 1.5.5, value by value (tests/integration/test_types.py): NaN of numeric became
0.00, numeric without precision or with more than 38 digits went through DOUBLE, timestamps after 294246 wrapped around to
BC, interval and time with time zone changed in Parquet, arrays of two dimensions failed, char(n) lost its padding.
"""

import re
from dataclasses import dataclass
from typing import Literal

Choice = Literal["error", "null", "text"]

LAST_TIMESTAMP = "294246-12-31"
"""DuckDB counts microseconds in 64 bits and ends in January 294247; PostgreSQL goes on for 30 years."""
_MOST_DIGITS = 38
_FEW_DIGITS = 18
"""What DuckDB keeps in 64 bits."""
_DEFAULT_SCALE = 9
# The scanner and Parquet give these exactly, with the type on the right in the warehouse.
_NATIVE = {
    "bool": "BOOLEAN", "int2": "SMALLINT", "int4": "INTEGER", "int8": "BIGINT", "float4": "FLOAT", "float8": "DOUBLE",
    "text": "VARCHAR", "varchar": "VARCHAR", "uuid": "UUID", "date": "DATE", "time": "TIME", "bytea": "BLOB",
    "json": "VARCHAR", "jsonb": "VARCHAR",
}  # fmt: skip

_WHOLE_DIGITS = {"smallint": 5, "integer": 10, "bigint": 19}


@dataclass(frozen=True)
class CatalogColumn:
    """A column as PostgreSQL's catalog describes it; a domain is resolved to its base type."""

    name: str
    number: int
    type_name: str
    kind: str
    category: str
    modifier: int
    is_domain: bool
    is_nullable: bool
    declared_type: str


@dataclass(frozen=True)
class Reading:
    """How a column is read.

    Attributes:
        in_postgres: SQL for PostgreSQL; None when the scanner's own reading is exact, so that it can read in parallel.
        in_duckdb: SQL for DuckDB over the column so read, `{}` standing for it, that gives the warehouse's type.
        type: the warehouse's type.
        unrepresentable: a predicate in PostgreSQL, `{}` standing for the column, that is true for the values that have no
            counterpart in that type; None when there are none.
        fails_in_stream: whether DuckDB itself notices such a value while it reads, so that nobody need look for it.
        arrives_as: what such a value becomes, when it is always the same one: only rows with it need be looked at.
        as_null: SQL for DuckDB in place of `in_duckdb` that gives null for such a value; None when only PostgreSQL can tell.
    """

    in_postgres: str | None
    in_duckdb: str
    type: str
    unrepresentable: str | None = None
    fails_in_stream: bool = False
    arrives_as: str | None = None
    as_null: str | None = None

    @property
    def is_text(self) -> bool:
        """Whether the warehouse holds text."""
        return self.type == "VARCHAR"


def reading_of(column: CatalogColumn, choice: Choice = "error") -> Reading:
    """How to read a column.

    Args:
        choice: what to do with values that have no counterpart: fail, load null in their place, or load the whole column
            as PostgreSQL's text.
    """
    exact = _exact_reading(column)
    if exact.unrepresentable is None or choice == "error":
        return exact
    if choice == "text":
        return Reading("{}::text", "{}", "VARCHAR")
    if exact.as_null is not None:
        return Reading(exact.in_postgres, exact.as_null, exact.type)
    value = f"CASE WHEN {exact.unrepresentable} THEN NULL ELSE {exact.in_postgres or '{}'} END"
    if exact.arrives_as is not None:  # CASE forgets the precision, and without one the scanner gives DOUBLE
        value = f"({value})::{exact.type.replace('DECIMAL', 'numeric')}"
    return Reading(value, exact.in_duckdb, exact.type)


def decimal_of_text(text: str, precision: int, scale: int) -> str:
    """DuckDB SQL that gives a DECIMAL of PostgreSQL's text of a numeric (SQL, too): null where the type cannot hold it exactly."""
    kind = f"DECIMAL({precision},{scale})"
    whole, fraction = f"split_part({text}, '.', 1)", f"rtrim(split_part({text}, '.', 2), '0')"
    if precision <= _FEW_DIGITS:
        value = f"TRY_CAST({text} AS {kind})"
    else:  # DuckDB takes seventy times as long to read more digits than that as a DECIMAL as to read a whole number
        value = f"TRY_CAST(TRY_CAST({whole} || rpad({fraction}, {scale}, '0') AS HUGEINT) AS DECIMAL({precision},0))"
        value = f"({value} * 1e-{scale}::DECIMAL({scale},{scale}))::{kind}" if scale else value
    return f"CASE WHEN length({fraction}) <= {scale} THEN {value} END"


def is_widening(before: str, after: str) -> bool:
    """Whether a declared type holds every value of another, as text, a longer varchar or a larger number does."""
    if before.startswith("character varying") and after.startswith(("character varying", "text")):
        limits = [re.search(r"\((\d+)\)", kind) for kind in (before, after)]
        return limits[1] is None or (limits[0] is not None and int(limits[0].group(1)) <= int(limits[1].group(1)))
    if (before, after) == ("real", "double precision"):
        return True
    held, arriving = _digits(before), _digits(after)
    return held is not None and arriving is not None and held[0] <= arriving[0] and held[1] <= arriving[1]


def _digits(declared_type: str) -> tuple[int, int] | None:
    """Digits before and after the point."""
    if declared_type in _WHOLE_DIGITS:
        return _WHOLE_DIGITS[declared_type], 0
    if declared_type == "numeric":
        return 131_072, 16_383
    found = re.fullmatch(r"numeric\((\d+),(\d+)\)", declared_type)
    return (int(found.group(1)) - int(found.group(2)), int(found.group(2))) if found else None


def _exact_reading(column: CatalogColumn) -> Reading:
    if column.category == "A":
        return Reading("to_json({})::text", "{}", "VARCHAR")
    if column.kind == "e":
        return Reading("{}::text" if column.is_domain else None, "{}::VARCHAR", "VARCHAR")
    if column.kind == "c":
        return Reading("to_json({})::text", "{}", "VARCHAR")
    if column.type_name == "numeric":
        return _numeric(column)
    if column.type_name in ("timestamp", "timestamptz"):
        return _timestamp(column)
    if column.type_name == "bpchar":
        return Reading("CASE WHEN {} IS NULL THEN NULL ELSE format('%s', {}) END", "{}", "VARCHAR")  # a cast to text would strip the padding
    native = _NATIVE.get(column.type_name)
    if native is None:  # PostgreSQL's own text is exact for every type
        return Reading("{}::text", "{}", "VARCHAR")
    return Reading(f"{{}}::{column.type_name}" if column.is_domain else None, "{}", native)


def _numeric(column: CatalogColumn) -> Reading:
    if column.modifier >= 4:
        precision = ((column.modifier - 4) >> 16) & 0xFFFF
        scale = (((column.modifier - 4) & 0x7FF) ^ 0x400) - 0x400
        if precision <= _MOST_DIGITS and 0 <= scale <= precision:
            kind = f"DECIMAL({precision},{scale})"
            return Reading(f"{{}}::numeric({precision},{scale})" if column.is_domain else None, "{}", kind, "{} = 'NaN'", arrives_as="0")
        scale = min(max(scale, 0), _MOST_DIGITS)
    else:
        scale = _DEFAULT_SCALE
    kind = f"DECIMAL({_MOST_DIGITS},{scale})"
    special = "{}::text IN ('NaN', 'Infinity', '-Infinity')"
    # The order matters: nothing may be computed with an infinity.
    too_much = f"CASE WHEN {special} THEN true ELSE {{}} <> trunc({{}}, {scale}) OR abs({{}}) >= power(10::numeric, {_MOST_DIGITS - scale}) END"
    # PostgreSQL takes ten times as long to find such a value as to send all of them, so DuckDB tells by the text.
    held = decimal_of_text("{}", _MOST_DIGITS, scale)
    highest = f"'{'9' * (_MOST_DIGITS - scale)}.{'9' * scale}'::{kind}"
    stream = f"CASE WHEN {{}} IS NOT NULL THEN coalesce({held}, {highest}) END"
    return Reading("{}::text", stream, kind, too_much, arrives_as=highest, as_null=held)


def _timestamp(column: CatalogColumn) -> Reading:
    kind = "TIMESTAMP" if column.type_name == "timestamp" else "TIMESTAMPTZ"
    too_late = f"(isfinite({{}}) AND {{}} > '{LAST_TIMESTAMP}')"
    # What is too late wraps around to before PostgreSQL's first year, 4713 BC, which no true value can be.
    wrapped = f"isfinite({{}}) AND {{}} < {kind} '4714-01-01 (BC) 00:00:00'"
    stream = f"CASE WHEN {wrapped} THEN error('a timestamp after {LAST_TIMESTAMP}') ELSE {{}} END"
    return Reading(f"{{}}::{column.type_name}" if column.is_domain else None, stream, kind, too_late, fails_in_stream=True)
