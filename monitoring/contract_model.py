"""The language of a contract file, strict: what is not named here is an error.

Soda 4 ignores an unknown key, and a check type that only its cloud knows, and calls the rest passed. This vocabulary is the
part of its language that runs without a cloud.
"""

import json
import re
import warnings
from collections import Counter
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Name = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
Number = int | float


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Threshold(_Strict):
    """What the metric must be for the check to pass. Percentages are 5, not 0.05."""

    metric: Literal["count", "percent"] = "count"
    level: Literal["fail", "warn"] = "fail"
    must_be: Number | None = None
    must_not_be: Number | None = None
    must_be_greater_than: Number | None = None
    must_be_greater_than_or_equal: Number | None = None
    must_be_less_than: Number | None = None
    must_be_less_than_or_equal: Number | None = None

    @model_validator(mode="after")
    def _one_comparison(self) -> "Threshold":
        if len(self._comparisons()) != 1:
            raise ValueError(f"exactly one must_be… comparison is needed, found {len(self._comparisons())}")
        return self

    def _comparisons(self) -> list[tuple[str, Number]]:
        return [(key, value) for key, value in self if key.startswith("must") and value is not None]

    def __str__(self) -> str:
        comparison, value = self._comparisons()[0]
        return f"{self.metric} {comparison.replace('_', ' ')} {value}{' %' if self.metric == 'percent' else ''}"


class _CheckBody(_Strict):
    name: str | None = None
    qualifier: Name | None = None
    threshold: Threshold | None = None


class Missing(_CheckBody):
    """Counts nulls."""


class Duplicate(_CheckBody):
    """The column is the table's key."""


class CompositeDuplicate(_CheckBody):
    """The columns together are the table's key."""

    columns: Annotated[list[Name], Field(min_length=2)]


class ValidFormat(_Strict):
    """A regular expression that matches the whole value."""

    name: str
    regex: Annotated[str, Field(pattern=r"^\^.*\$$")]


class Invalid(_CheckBody):
    """Counts values that are neither null nor valid. It lets NaN pass: money is judged by `failed_rows`."""

    valid_format: ValidFormat | None = None
    valid_min: Number | None = None
    valid_max: Number | None = None

    @model_validator(mode="after")
    def _some_rule(self) -> "Invalid":
        if self.valid_format is None and self.valid_min is None and self.valid_max is None:
            raise ValueError("one of valid_format, valid_min, valid_max is needed")
        return self


class FailedRows(_CheckBody):
    """Rows that break a rule written in SQL: a condition on the table's own rows, or a query that selects keys."""

    name: str
    qualifier: Name
    expression: str | None = None
    query: str | None = None

    @model_validator(mode="after")
    def _one_form(self) -> "FailedRows":
        if (self.expression is None) == (self.query is None):
            raise ValueError("either expression or query is needed, not both")
        if self.query is not None and self.threshold is not None and self.threshold.metric == "percent":
            raise ValueError("a percent threshold needs an expression: a query does not say how many rows it judged")
        if self.query is not None and re.search(r"(?i)\bselect\s+(distinct\s+)?(\w+\.)?\*", self.query):
            raise ValueError("query selects *; allowed: key columns alone, for findings show its rows")
        return self


class RowCount(_CheckBody):
    """How many rows the table has; more than 0 unless a threshold says otherwise."""


class Schema(_Strict):
    """Columns and types are as declared. Judged by the schema gate for all tables at once; order is never judged."""

    allow_extra_columns: bool = False
    allow_other_column_order: Literal[True] = True


class _OneCheck(_Strict):
    @model_validator(mode="before")
    @classmethod
    def _one_key(cls, value: Any) -> Any:
        allowed = ", ".join(cls.model_fields)
        if not isinstance(value, dict) or len(value) != 1:
            found = list(value) if isinstance(value, dict) else value
            raise ValueError(f"a check is one key, its type, with a colon (found {found!r}); allowed: {allowed}")
        return {kind: {} if body is None else body for kind, body in value.items()}


class ColumnCheck(_OneCheck):
    """One check of one column."""

    missing: Missing | None = None
    invalid: Invalid | None = None
    duplicate: Duplicate | None = None
    failed_rows: FailedRows | None = None


with warnings.catch_warnings():
    # The file's key is `schema`; pydantic warns that this hides a method it deprecated itself.
    warnings.simplefilter("ignore", UserWarning)

    class TableCheck(_OneCheck):
        """One check of the whole table."""

        schema: Schema | None = None  # type: ignore[assignment]  # the base class has a deprecated method of that name
        row_count: RowCount | None = None
        duplicate: CompositeDuplicate | None = None
        failed_rows: FailedRows | None = None


class Column(_Strict):
    """A column with its DuckDB type, spelled as DuckDB spells it (TIMESTAMPTZ is understood)."""

    name: Name
    data_type: str
    description: str | None = None
    checks: Annotated[list[ColumnCheck], Field(min_length=1)] | None = None


class Variables(_Strict):
    """What a contract may be told. `today` is the date of the warehouse's own clock."""

    today: None


@dataclass(frozen=True)
class Check:
    """One declared check, flattened: `column` is None for a check of the whole table."""

    column: str | None
    kind: str
    body: _CheckBody

    @property
    def name(self) -> str:
        """What a finding calls it: its qualifier, else its type. Unique within a column of a contract."""
        return self.body.qualifier or self.kind

    @property
    def identity(self) -> tuple[str | None, str, str | None]:
        """What Soda calls it in its results: column, type, qualifier."""
        return self.column, self.kind, self.body.qualifier


class Contract(_Strict):
    """One table's contract. `may_be_empty` stands where no row at all is nothing wrong, in place of a check `row_count`."""

    dataset: str
    description: str
    variables: Variables | None = None
    may_be_empty: bool = False
    columns: Annotated[list[Column], Field(min_length=1)]
    checks: Annotated[list[TableCheck], Field(min_length=1)]

    @property
    def table(self) -> str:
        """schema.table"""
        return ".".join(self.dataset.split("/")[1:])

    @property
    def schema_check(self) -> Schema:
        return next(check.schema for check in self.checks if check.schema is not None)

    @property
    def key(self) -> list[str]:
        """The columns that identify a row, read off the contract's `duplicate` check."""
        composite = [check.duplicate.columns for check in self.checks if check.duplicate is not None]
        single = [[check.column] for check in self.all_checks() if check.kind == "duplicate" and check.column]
        return next(iter([*composite, *single]), [])

    def all_checks(self) -> list[Check]:
        """Every check but the schema's, which the gate judges."""
        table = [Check(None, kind, body) for one in self.checks for kind, body in one if body is not None and kind != "schema"]
        written = [(column.name, one) for column in self.columns for one in column.checks or []]
        return [*table, *(Check(column, kind, body) for column, one in written for kind, body in one if body is not None)]

    @model_validator(mode="after")
    def _complete(self) -> "Contract":
        _unique("column", [column.name for column in self.columns])
        _unique("check", [f"{check.column or '(table)'}.{check.name}" for check in self.all_checks()])
        kinds = Counter(kind for one in self.checks for kind, body in one if body is not None)
        if kinds["schema"] != 1:
            raise ValueError(f"exactly one check `schema` of the whole table is needed, found {kinds['schema']}")
        if kinds["row_count"] != (0 if self.may_be_empty else 1):
            raise ValueError(f"either one check `row_count` of the whole table or `may_be_empty: true` is needed, found {kinds['row_count']} checks")
        if not self.key:
            raise ValueError("a `duplicate` check that names the table's key is needed, found none")
        unknown = set(self.key) - {column.name for column in self.columns}
        if unknown:
            raise ValueError(f"the `duplicate` check names columns that are not declared: {', '.join(sorted(unknown))}")
        used = set(re.findall(r"\$\{[^}]*\}?", json.dumps(self.model_dump(mode="json"))))
        if used - {"${var.today}"}:
            raise ValueError(f"variable {sorted(used - {'${var.today}'})} is not known; allowed: ${{var.today}}")
        if bool(used) != (self.variables is not None):
            raise ValueError("`variables: {today: }` stands exactly where ${var.today} is used")
        return self


def _unique(what: str, names: list[str]) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ValueError(f"{what} {', '.join(twice)} stands twice; a second check of one type needs its own `qualifier`")
