"""Days of reports as rows: typed by the property's metadata, keyed by all their dimensions, nothing personal in them."""

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from decimal import ROUND_HALF_EVEN, Decimal
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode

from pipelines.google_analytics_client import DayReport
from pipelines.google_analytics_report import METADATA, QUALITY, ROW_ID, Report, column_of
from pipelines.source import DELETED_AT, LOADED_AT
from warehouse.errors import StepFailed
from warehouse.settings import settings
from warehouse.sql import literal, parquet

SOURCE = "google_analytics"
REDACTED = "[redacted]"
KEYS = {METADATA: ["property_id", "kind", "api_name"], QUALITY: ["property_id", "report", "date"]}
"""The keys of the tables that are no reports; a report's is its row_id."""

_MONEY = Decimal("0.000001")
"""Google adds amounts up as doubles of millionths: what stands beyond is an artefact of that."""
_INTEGER, _CURRENCY = "TYPE_INTEGER", "TYPE_CURRENCY"
# Paths that a person's doings may have filled: what follows the path may hold anything.
_LINK = re.compile(r"(?i)(page|path|url|link|referrer|location)")
_NO_LINK = re.compile(r"(?i)title|text|class|group|domain|linkid")
# Not the form with 00 in place of the plus: numbers of articles begin like that.
_PHONE = re.compile(r"(?<![\w.])\+[1-9][0-9 ().-]{6,}[0-9](?!\w)|\([0-9]{2,4}\)[ -]?[0-9]{3,4}[ -]?[0-9]{3,4}(?!\w)")
_SSN = re.compile(r"(?<![0-9-])[0-9]{3}-[0-9]{2}-[0-9]{4}(?![0-9-])")
# Google's own dimensions name nobody; the company's own may.
_PERSON = re.compile(r"(^|_)((user|client|customer|account|member|person|visitor|device|contact|lead|crm)_?(pseudo_?)?id|login)($|_)")


def scrubbed(text: str) -> str:
    """A text without emails, telephone and social security numbers, also where they are encoded as in addresses."""
    from privacy.policy import EMAIL_VALUE

    plain = text
    for _ in range(3):
        plain, before = unquote(plain), plain
        if plain == before:
            break
    clean = _PHONE.sub(REDACTED, _SSN.sub(REDACTED, re.sub(EMAIL_VALUE, REDACTED, plain) if "@" in plain else plain))
    return text if clean == plain else clean


def without_query(text: str, kept: Sequence[str]) -> str:
    """A page or link without its fragment and its query, but for the parameters that are kept."""
    path, mark, query = text.partition("#")[0].partition("?")
    pairs = [(name, value) for name, value in parse_qsl(query, keep_blank_values=True) if name in kept] if mark else []
    return f"{path}?{urlencode(pairs)}" if pairs else path


def is_link(dimension: str) -> bool:
    """Whether a dimension's values are pages or links."""
    return bool(_LINK.search(dimension)) and not _NO_LINK.search(dimension)


def refuse_undeclared(name: str, report: Report) -> None:
    """Stop before anything is read when a dimension names a person and the policy does not say what becomes of it.

    Raises:
        UsageError: with the line to add.
    """
    from privacy.policy import kind_by_name, policy, undeclared

    rules = policy().rules(SOURCE, name)
    for column in (column_of(one) for one in report.described_by if ":" in one or one in ("userId", "clientId")):
        kind = "id" if _PERSON.search(column.removeprefix("custom_user_")) or column == "custom_user_id" else kind_by_name(column)
        if kind and column not in rules:
            problem = undeclared(SOURCE, name, column, kind, "its name")
            problem.mend = problem.mend.replace("class: id, action: redact", "class: id, action: hmac")
            raise problem


def metric_kind(types: Sequence[str]) -> str:
    """The one kind of a column whose metric has these types in the properties: integer, money, or what the API itself has, a double."""
    if set(types) == {_INTEGER}:
        return "integer"
    return "money" if _CURRENCY in types else "double"


def write(name: str, report: Report, kinds: Mapping[str, str], days: Sequence[DayReport], kept: Sequence[str], loaded_at: datetime, file: Path) -> int:
    """Write days of one report; returns how many rows.

    Args:
        kinds: metric -> its kind, as `metric_kind` gives it.
        kept: the parameters that pages and links keep.
    """
    import pyarrow as pa

    from privacy import keys
    from privacy.policy import policy
    from privacy.pseudonyms import KEY_ID_COLUMN, protect

    rules = policy().rules(SOURCE, name)
    hashed, has_money = keys.chainer(), "money" in kinds.values()
    values: dict[str, list[Any]] = {column: [] for column in (ROW_ID, "property_id", "date", *map(column_of, [*report.described_by, *report.metrics]))}
    texts = [(column_of(one), is_link(one), rules[column_of(one)].action != "keep" if column_of(one) in rules else False) for one in report.described_by]
    cleaned: dict[tuple[bool, str], str] = {}
    for day in days:
        for dimensions, metrics in day.rows:
            values[ROW_ID].append(_row_id(hashed, day, report, dimensions))
            for (column, is_page, is_replaced), text in zip(texts, dimensions, strict=True):
                if not is_replaced:
                    if (is_page, text) not in cleaned:
                        cleaned[is_page, text] = scrubbed(without_query(text, kept) if is_page else text)
                    text = cleaned[is_page, text]
                values[column].append(text)
            for metric, value in zip(report.metrics, metrics, strict=True):
                values[column_of(metric)].append(_value(day, metric, kinds[metric], value))
        values["property_id"] += [day.property_id] * len(day.rows)
        values["date"] += [day.day] * len(day.rows)
    if has_money:
        values["currency"] = [day.about.currency for day in days for _ in day.rows]
    values["is_final"] = [day.is_final for day in days for _ in day.rows]
    types = {"integer": pa.int64(), "money": pa.decimal128(38, 6), "double": pa.float64()}
    schema = {column: pa.string() for column in values} | {"date": pa.date32(), "is_final": pa.bool_()}
    schema |= {column_of(metric): types[kinds[metric]] for metric in report.metrics}
    rows = pa.table(values, schema=pa.schema(list(schema.items())))
    protected = protect(SOURCE, name, {column: f'"{column}"' for column in values}, texts=[column for column, _, _ in texts])
    key_id = settings().privacy.hmac_key_id
    _copy(rows, {KEY_ID_COLUMN: literal(key_id), **protected.columns}, loaded_at, file, protected.parameters)  # the row_id is a keyed hash, too
    return len(rows)


def write_quality(days: Sequence[DayReport], loaded_at: datetime, file: Path) -> None:
    """Write what each day of each report was like: the memory of which days were read when, also of those that are empty."""
    import pyarrow as pa

    schema = pa.schema([
        ("property_id", pa.string()), ("report", pa.string()), ("date", pa.date32()), ("row_count", pa.int64()), ("is_final", pa.bool_()),
        ("has_other_row", pa.bool_()), ("other_share", pa.decimal128(38, 6)), ("is_thresholded", pa.bool_()), ("is_sampled", pa.bool_()),
        ("samples_read", pa.int64()), ("sampling_space", pa.int64()), ("empty_reason", pa.string()), ("truncated", pa.string()),
        ("time_zone", pa.string()), ("currency", pa.string()), ("definition", pa.string()), ("requests", pa.int64()),
        ("tokens_left_day", pa.int64()), ("tokens_left_hour", pa.int64()), ("tokens_left_project_hour", pa.int64()), ("read_at", pa.timestamp("us", "UTC")),
    ])  # fmt: skip
    rows = [
        {
            "property_id": day.property_id, "report": day.report, "date": day.day, "row_count": len(day.rows), "is_final": day.is_final,
            "has_other_row": day.has_other_row, "other_share": None if day.other_share is None else day.other_share.quantize(_MONEY),
            "is_thresholded": day.is_thresholded, "is_sampled": day.samples_read is not None, "samples_read": day.samples_read,
            "sampling_space": day.sampling_space, "empty_reason": day.empty_reason, "truncated": day.truncated, "time_zone": day.about.time_zone,
            "currency": day.about.currency, "definition": day.definition, "requests": day.requests, "tokens_left_day": day.about.quota.day,
            "tokens_left_hour": day.about.quota.hour, "tokens_left_project_hour": day.about.quota.project_hour, "read_at": day.read_at,
        }
        for day in days
    ]  # fmt: skip
    _copy(pa.Table.from_pylist(rows, schema=schema), {name: f'"{name}"' for name in schema.names}, loaded_at, file)


def write_metadata(metadata: Mapping[str, Any], loaded_at: datetime, file: Path) -> int:
    """Write the dimensions and metrics that each property knows; returns how many."""
    import pyarrow as pa

    names = ("property_id", "kind", "api_name", "column_name", "ui_name", "description", "category", "type", "expression", "deprecated_api_names",
             "blocked_reasons")  # fmt: skip
    rows = []
    for property_id, known in metadata.items():
        for kind, many in (("dimension", known.dimensions), ("metric", known.metrics)):
            for one in many:
                row = {"property_id": property_id, "kind": kind, "api_name": one.api_name, "column_name": column_of(one.api_name), "ui_name": one.ui_name,
                       "description": one.description, "category": one.category, "deprecated_api_names": json.dumps(list(one.deprecated_api_names)),
                       "is_custom": one.custom_definition}  # fmt: skip
                if kind == "metric":
                    row |= {"type": one.type_.name, "expression": one.expression or None}
                    row["blocked_reasons"] = ", ".join(reason.name for reason in one.blocked_reasons) or None
                rows.append(row)
    schema = pa.schema([*((name, pa.string()) for name in names), ("is_custom", pa.bool_())])
    _copy(pa.Table.from_pylist(rows, schema=schema), {name: f'"{name}"' for name in schema.names}, loaded_at, file)
    return len(rows)


def _copy(rows: Any, chosen: Mapping[str, str], loaded_at: datetime, file: Path, parameters: Mapping[str, Any] | None = None) -> None:
    """Write a table through the expressions of the policy, with the loader's own columns."""
    from privacy import functions
    from warehouse import storage

    own = f"TIMESTAMPTZ '{loaded_at.isoformat()}' AS {LOADED_AT}, NULL::TIMESTAMPTZ AS {DELETED_AT}"
    expressions = ", ".join(f'{sql} AS "{column}"' for column, sql in chosen.items())
    with storage.scratch() as connection:
        functions.bind(connection, SOURCE)
        connection.register("arriving", rows)
        connection.execute(f"COPY (SELECT {expressions}, {own} FROM arriving) TO {parquet(file)}", parameters or {})


def _row_id(hashed: Callable[[str], str], day: DayReport, report: Report, dimensions: Sequence[str]) -> str:
    """The key of a row, of the values as Google gave them: two pages that look the same after scrubbing stay two rows."""
    told = [day.property_id, day.day.isoformat(), sorted(zip(report.described_by, dimensions, strict=True))]
    return hashed(json.dumps(told, ensure_ascii=False, separators=(",", ":")))


def _value(day: DayReport, metric: str, kind: str, text: str) -> int | Decimal | float | None:
    if not text:
        return None
    try:
        if kind == "integer":
            return int(text)
        if kind == "money":
            return Decimal(text).quantize(_MONEY, ROUND_HALF_EVEN)
        number = float(text)
    except (ValueError, ArithmeticError):
        what = f"{metric} of report {day.report}, property {day.property_id}, {day.day}"
        raise StepFailed(f"google_analytics: {what} is no {kind}, though the metadata says so.", mend="run again later") from None
    return number if math.isfinite(number) else None
