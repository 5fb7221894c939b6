"""What is declared of Google Analytics: its reports, their filters, and how their fields are named in the warehouse."""

import hashlib
import json
import re
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from pipelines.source import OWN_COLUMNS, Duration, SourceDeclaration

if TYPE_CHECKING:
    from google.analytics.data_v1beta import types

ApiName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*(:[A-Za-z0-9_\-\[\] ]+)?$")]
"""A dimension or metric as the API names it, for example `sessionSource` or `customEvent:plan`."""

MOST_DIMENSIONS = 9
MOST_METRICS = 10
MOST_ROWS = 250_000
"""The API's own bounds of one report and of one page."""

METADATA, QUALITY = "metadata", "report_quality"
ROW_ID = "row_id"
"""The key of a row: a keyed hash of property, date and all dimensions."""

_OWN = {ROW_ID, "property_id", "date", "currency", "is_final", *OWN_COLUMNS}
_TEXT_TESTS = {"begins_with": "BEGINS_WITH", "ends_with": "ENDS_WITH", "contains": "CONTAINS", "matches": "FULL_REGEXP"}
_NUMBER_TESTS = ("less_than", "less_than_or_equal", "greater_than", "greater_than_or_equal")
_GROUPS = ("all_of", "any_of", "none_of")
_LEAVES = ("equals", *_TEXT_TESTS, "one_of", *_NUMBER_TESTS, "between", "is_empty")
Number = int | float


def column_of(name: str) -> str:
    """The column of a dimension or metric: its API name in snake case, so that it never changes with a title."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name)
    return re.sub(r"[^a-z0-9]+", "_", words.lower()).strip("_")


class Filter(BaseModel):
    """One test of one field, or a group of filters."""

    model_config = ConfigDict(extra="forbid")
    all_of: Annotated[list["Filter"], Field(min_length=1)] | None = None
    any_of: Annotated[list["Filter"], Field(min_length=1)] | None = None
    none_of: Annotated[list["Filter"], Field(min_length=1)] | None = None
    field: ApiName | None = None
    equals: str | Number | None = None
    begins_with: str | None = None
    ends_with: str | None = None
    contains: str | None = None
    matches: str | None = None
    one_of: Annotated[list[str], Field(min_length=1)] | None = None
    less_than: Number | None = None
    less_than_or_equal: Number | None = None
    greater_than: Number | None = None
    greater_than_or_equal: Number | None = None
    between: tuple[Number, Number] | None = None
    is_empty: bool | None = None
    case_sensitive: bool = False

    @model_validator(mode="after")
    def _one_form(self) -> "Filter":
        groups = [name for name in _GROUPS if getattr(self, name) is not None]
        tests = [name for name in _LEAVES if getattr(self, name) is not None]
        if (len(groups), len(tests), self.field is None) not in ((1, 0, True), (0, 1, False)):
            raise ValueError(f"a filter is either one of {', '.join(_GROUPS)}, or a `field` with exactly one of {', '.join(_LEAVES)}")
        if self.is_empty is False:
            raise ValueError("is_empty is true or left out; `none_of` turns it around")
        if self.matches is not None:
            try:
                re.compile(self.matches)
            except re.error as error:
                raise ValueError(f"matches is no regular expression: {error}") from None
        return self

    def fields(self) -> set[str]:
        """The fields it tests."""
        inner = [one for name in _GROUPS for one in getattr(self, name) or []]
        return {self.field} if self.field else set().union(*(one.fields() for one in inner))

    def expression(self) -> "types.FilterExpression":
        """The same in the API's words."""
        from google.analytics.data_v1beta import types

        for name in _GROUPS:
            inner = getattr(self, name)
            if inner is not None:
                many = types.FilterExpressionList(expressions=[one.expression() for one in inner])
                if name == "all_of":
                    return types.FilterExpression(and_group=many)
                either = types.FilterExpression(or_group=many)
                return either if name == "any_of" else types.FilterExpression(not_expression=either)
        return types.FilterExpression(filter=types.Filter(field_name=self.field, **self._test()))

    def _test(self) -> dict[str, Any]:
        sensitive = {"case_sensitive": self.case_sensitive}
        if self.one_of is not None:
            return {"in_list_filter": {"values": self.one_of, **sensitive}}
        if self.is_empty:
            return {"empty_filter": {}}
        if self.between is not None:
            return {"between_filter": {"from_value": _number(self.between[0]), "to_value": _number(self.between[1])}}
        for name in _NUMBER_TESTS:
            if getattr(self, name) is not None:
                return {"numeric_filter": {"operation": name.upper(), "value": _number(getattr(self, name))}}
        if self.equals is not None and not isinstance(self.equals, str):
            return {"numeric_filter": {"operation": "EQUAL", "value": _number(self.equals)}}
        kind, value = next(((kind, getattr(self, name)) for name, kind in _TEXT_TESTS.items() if getattr(self, name) is not None), ("EXACT", self.equals))
        return {"string_filter": {"match_type": kind, "value": value, **sensitive}}


class Report(BaseModel):
    """One report, which becomes one table: a row for each combination of its dimensions on each day."""

    model_config = ConfigDict(extra="forbid")
    dimensions: list[ApiName] = Field(min_length=1, max_length=MOST_DIMENSIONS)
    metrics: list[ApiName] = Field(min_length=1, max_length=MOST_METRICS)
    dimension_filter: Filter | None = None
    metric_filter: Filter | None = None
    properties: Annotated[list[str], Field(min_length=1)] | None = None

    @field_validator("properties", mode="before")
    @classmethod
    def _as_text(cls, numbers: Any) -> Any:
        return [str(number) for number in numbers] if isinstance(numbers, list) else numbers

    @model_validator(mode="after")
    def _fields_are_told_apart(self) -> "Report":
        seen: dict[str, str] = {}
        for name in [*self.dimensions, *self.metrics]:
            column = column_of(name)
            if column in seen:
                raise ValueError(f"{name} and {seen[column]} would both be the column {column}; leave one out")
            if column in _OWN and name != "date":
                raise ValueError(f"{name} would be the column {column}, which each report has of its own")
            seen[column] = name
        unknown = self.metric_filter.fields() - set(self.metrics) if self.metric_filter else set()
        if unknown:
            raise ValueError(f"metric_filter tests {sorted(unknown)[0]}, which is not a metric of the report")
        return self

    @property
    def described_by(self) -> list[str]:
        """Its dimensions without the date, which is a column of every report."""
        return [name for name in self.dimensions if name != "date"]

    @property
    def definition(self) -> str:
        """What days read by another definition are told by; the order of the fields does not count."""
        filters = [one.model_dump(exclude_none=True) if one else None for one in (self.dimension_filter, self.metric_filter)]
        content = [sorted(self.described_by), sorted(self.metrics), *filters]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


class Shares(BaseModel):
    """From which share on something is a finding; 0 is always, 1 is never."""

    model_config = ConfigDict(extra="forbid")
    other: float = Field(ge=0, le=1)
    unsampled: float = Field(ge=0, le=1)
    thresholded: float = Field(ge=0, le=1)


class GoogleAnalyticsDeclaration(SourceDeclaration):
    """`pipelines/google_analytics.yaml`."""

    restate_days: int = Field(default=7, ge=1, le=90)
    rows_per_request: int = Field(default=100_000, ge=2, le=MOST_ROWS)
    requests_per_second: float | None = Field(default=None, gt=0)
    timeout: Duration
    quota_reserve: int = Field(default=0, ge=0)
    findings_above: Shares
    query_parameters: list[str] = Field(default_factory=list)
    reports: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9]*(_[a-z0-9]+)*$")], Report] = Field(min_length=1)

    @field_validator("reports")
    @classmethod
    def _other_names(cls, reports: dict[str, Report]) -> dict[str, Report]:
        taken = sorted({METADATA, QUALITY} & reports.keys())
        if taken:
            raise ValueError(f"{taken[0]} is a table of its own; name the report otherwise")
        return reports

    def reports_of(self, property_id: str) -> dict[str, Report]:
        """The reports that are read of a property."""
        return {name: report for name, report in self.reports.items() if report.properties is None or property_id in report.properties}


def _number(value: Number) -> dict[str, Any]:
    return {"int64_value": value} if isinstance(value, int) else {"double_value": value}
