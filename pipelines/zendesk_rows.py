"""Zendesk's objects as rows: typed columns, last values kept of what is deleted, and nothing personal in them."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation, localcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from pipelines.source import DELETED_AT, LOADED_AT, Duration, SourceDeclaration
from warehouse.sql import parquet

if TYPE_CHECKING:
    from pipelines.zendesk_fields import CustomFields

Object = dict[str, Any]
Type = Literal["text", "bigint", "boolean", "timestamp", "date", "decimal", "json"]
CURSOR = "_cursor"
"""In a table with an export: where the export goes on after the rows of a load, kept in each of them and so with them."""

_TYPES = {
    "text": "VARCHAR",
    "json": "VARCHAR",
    "bigint": "BIGINT",
    "boolean": "BOOLEAN",
    "timestamp": "TIMESTAMPTZ",
    "date": "DATE",
    "decimal": "DECIMAL(38,9)",
}
_MOST_BIGINT = 2**63 - 1
_DECIMALS, _MOST_DECIMAL, _ENOUGH_DIGITS = 9, Decimal("9" * 29), 100
_DELETED_STATUS = "deleted"


class Column(BaseModel):
    """A column: its type and where its value stands in the object."""

    model_config = ConfigDict(extra="forbid")
    type: Type
    path: list[str]


class Table(BaseModel):
    """One kind of object.

    Attributes:
        path: where it is asked for, below /api/v2/; none when its objects come with those of another table.
        export: how an incremental export goes on, by an opaque cursor or by the time of the newest; none for a list.
        items: the name of the objects in an answer, when it is not the table's.
        parent: the table for each object of which the path is asked, with its id in place of {}.
        newest_by: the column whose highest value makes a version of an object the newest.
        since: how far back a list is asked for again, of those that can be asked by time.
    """

    model_config = ConfigDict(extra="forbid")
    path: str | None = None
    export: Literal["cursor", "time"] | None = None
    items: str | None = None
    parent: str | None = None
    parameters: dict[str, str] = {}
    key: list[str] = ["id"]
    newest_by: str | None = None
    since: Duration | None = None
    columns: dict[str, Column]

    @property
    def keeps_deleted(self) -> bool:
        """Whether its objects may come back as deleted ones."""
        return self.export is not None and self.newest_by is not None

    @field_validator("columns", mode="before")
    @classmethod
    def _type_and_path(cls, columns: Any) -> Any:
        if not isinstance(columns, dict):
            return columns
        words = {name: str(value).split() for name, value in columns.items()}
        return {name: {"type": found[0], "path": (found[1] if len(found) > 1 else name).split(".")} for name, found in words.items() if found}


class ZendeskDeclaration(SourceDeclaration):
    """`pipelines/zendesk.yaml`."""

    exports_per_minute: int = Field(ge=1)
    requests_per_minute: int = Field(ge=1)
    page_size: int = Field(ge=1, le=1000)
    pages_per_pass: int = Field(ge=1)
    timeout: Duration
    tables: dict[str, Table]


@dataclass
class Batch:
    """What is to be written of one table in one pass.

    Attributes:
        objects: in the order they were read.
        beside: objects that came with those of another table, which count only when they are newer than what is held.
        cursor: where the export goes on after them.
        keys: the ids of all objects there are, when a whole list was read.
        findings: what an operator must know.
    """

    objects: list[Object] = field(default_factory=list)
    beside: list[Object] = field(default_factory=list)
    cursor: str | None = None
    keys: list[int] | None = None
    findings: list[str] = field(default_factory=list)


def is_gone(thing: Object) -> bool:
    """Whether an object says of itself that it was deleted."""
    return thing.get("status") == _DELETED_STATUS or bool(thing.get("deleted_at")) or (thing.get("active") is False and "role" in thing)


def gone_at(thing: Object) -> datetime | None:
    """When it was deleted, as far as it says."""
    return instant(thing.get("deleted_at") or thing.get("updated_at"))


def instant(value: Any) -> datetime | None:
    """Unix seconds or ISO 8601 as an instant.

    Raises:
        ValueError: it is neither.
    """
    if value is None or value == "":
        return None
    if isinstance(value, int | float):
        return datetime.fromtimestamp(value, UTC)
    found = datetime.fromisoformat(str(value))
    return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)


def rank(table: Table, thing: Object) -> Any:
    """What makes one version of an object newer than another; comparable within a table."""
    if table.newest_by is None:
        return 0
    column = table.columns[table.newest_by]
    value = _at(thing, column.path)
    if column.type == "timestamp":
        return instant(value) or datetime.min.replace(tzinfo=UTC)
    return int(value or 0)


def converted(value: Any, kind: Type) -> Any:
    """A value as a column of a type holds it; an empty text is no number, date or boolean.

    Raises:
        ValueError: the value is not of that type.
    """
    if value is None or (value == "" and kind not in ("text", "json")):
        return None
    if kind == "text":
        return value if isinstance(value, str) else json.dumps(value) if isinstance(value, bool | dict | list) else str(value)
    if kind == "json":
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    if kind == "boolean":
        return _boolean(value)
    if kind == "timestamp":
        return instant(value)
    if kind == "date":
        return date.fromisoformat(str(value)[:10])
    return _number(value, kind)


def _boolean(value: Any) -> bool:
    words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if str(value).lower() not in words:
        raise ValueError("not a boolean")
    return words[str(value).lower()]


def _number(value: Any, kind: str) -> Any:
    with localcontext(prec=_ENOUGH_DIGITS):
        try:
            number = Decimal(str(value))
            is_exact = number == round(number, _DECIMALS if kind == "decimal" else 0)
        except (InvalidOperation, OverflowError, ValueError):
            raise ValueError("not a number") from None
        if not is_exact or abs(number) > (_MOST_DECIMAL if kind == "decimal" else _MOST_BIGINT):
            raise ValueError("too many digits")
        return number if kind == "decimal" else int(number)


def types_of(name: str, table: Table, custom: "CustomFields | None") -> dict[str, str]:
    """The columns of a table before personal data is replaced, name -> DuckDB type."""
    types = {"id": "BIGINT", "created_at": "TIMESTAMPTZ"}
    types |= {column: _TYPES[what.type] for column, what in table.columns.items()}
    if custom is not None and name == "tickets":
        types |= {"custom_fields": "VARCHAR"} | {column: _TYPES[kind] for column, kind in custom.columns.items()}
    if table.keeps_deleted:
        types |= {"is_deleted": "BOOLEAN", "deleted_at": "TIMESTAMPTZ"}
    if table.export:
        types[CURSOR] = "VARCHAR"
    return types | {LOADED_AT: "TIMESTAMPTZ", DELETED_AT: "TIMESTAMPTZ"}


def row_of(name: str, table: Table, thing: Object, custom: "CustomFields | None") -> Object:
    """One object as a row, before the policy is applied; whatever the policy does not name is looked through for what is personal.

    Raises:
        ValueError: a value is not of its column's type; the message names the column.
    """
    from privacy.free_text import scrub_identifiers, scrub_tree
    from privacy.policy import policy

    rules = policy().rules("zendesk", name)
    row: Object = {"id": thing["id"], "created_at": instant(thing.get("created_at"))}
    for column, what in table.columns.items():
        value = _at(thing, what.path)
        if value is None:
            continue
        if column not in rules:
            value = scrub_identifiers(value) if isinstance(value, str) else scrub_tree(value) if isinstance(value, dict | list) else value
        try:
            row[column] = converted(value, what.type)
        except (ValueError, TypeError, OverflowError):
            raise ValueError(column) from None
    if custom is not None and name == "tickets":
        row |= custom.values(thing.get("custom_fields") or [])
    return row


def write(rows: Iterable[Object], types: Mapping[str, str], name: str, file: Path) -> None:
    """Write rows as the policy wants them.

    Raises:
        UsageError: the policy names a column that the table does not have, or its key is not set.
    """
    import pyarrow as pa

    from privacy import functions
    from privacy.pseudonyms import protect
    from warehouse import storage

    kinds = {"VARCHAR": pa.string(), "BIGINT": pa.int64(), "BOOLEAN": pa.bool_(), "TIMESTAMPTZ": pa.timestamp("us", "UTC"), "DATE": pa.date32(),
             "DECIMAL(38,9)": pa.decimal128(38, 9)}  # fmt: skip
    arriving = pa.Table.from_pylist(list(rows), schema=pa.schema([(column, kinds[kind]) for column, kind in types.items()]))
    watched = [column for column, kind in types.items() if kind == "VARCHAR" and column not in (CURSOR, "custom_fields")]
    protected = protect("zendesk", name, {column: '"' + column + '"' for column in types}, texts=watched)
    chosen = ", ".join(f'{expression} AS "{column}"' for column, expression in protected.columns.items())
    with storage.scratch() as connection:
        functions.bind(connection, "zendesk")
        connection.register("arriving", arriving)
        connection.execute(f"COPY (SELECT {chosen} FROM arriving) TO {parquet(file)}", protected.parameters)


def _at(thing: Any, path: list[str]) -> Any:
    for name in path:
        thing = thing.get(name) if isinstance(thing, dict) else None
    return thing
