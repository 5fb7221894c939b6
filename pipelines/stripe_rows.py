"""Stripe's objects as rows: typed columns, exact money, the whole object as JSON, and nothing personal in either."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from pipelines.source import DELETED_AT, LOADED_AT, SETTLED_AT, Duration, SourceDeclaration
from warehouse.errors import UsageError
from warehouse.sql import parquet

Object = dict[str, Any]
Type = Literal["text", "bigint", "boolean", "timestamp", "money", "decimal", "json"]
_ZERO_DECIMALS = frozenset(["bif", "clp", "djf", "gnf", "jpy", "kmf", "krw", "mga", "pyg", "rwf", "vnd", "vuv", "xaf", "xof", "xpf"])
_THREE_DECIMALS = frozenset(["bhd", "jod", "kwd", "omr", "tnd"])
REDACTED = "[redacted]"


class Column(BaseModel):
    """A column: its type and where its value stands in the object."""

    model_config = ConfigDict(extra="forbid")
    type: Type
    path: list[str]


class Table(BaseModel):
    """One kind of object."""

    model_config = ConfigDict(extra="forbid")
    path: str | None = None
    object: str | None = None
    parameters: dict[str, str] = {}
    children: dict[str, str] = {}
    parent: str | None = None
    follow: bool = False
    unsettled: str | None = None
    columns: dict[str, Column]

    @field_validator("columns", mode="before")
    @classmethod
    def _type_and_path(cls, columns: Any) -> Any:
        if not isinstance(columns, dict):
            return columns
        words = {name: str(value).split() for name, value in columns.items()}
        return {name: {"type": found[0], "path": (found[1] if len(found) > 1 else name).split(".")} for name, found in words.items() if found}


class StripeDeclaration(SourceDeclaration):
    """`pipelines/stripe.yaml`."""

    api_version: str
    lag: Duration
    requests_per_second: float = Field(gt=0)
    timeout: Duration
    tables: dict[str, Table]

    def path(self, table: str) -> str:
        """Where a table's objects are listed, below /v1/."""
        return self.tables[table].path or table

    def table_of(self, object_type: str) -> str | None:
        """The table of an `object`; None when it is not loaded or stands inside another one."""
        for name, table in self.tables.items():
            if (table.object or name.removesuffix("s")) == object_type and not table.parent and name != "events":
                return name
        return None


@dataclass
class Batch:
    """What is to be written of one table: objects with the instant they were read, keys that are gone, keys seen again."""

    objects: list[tuple[Object, datetime]] = field(default_factory=list)
    gone: dict[str, tuple[datetime, datetime]] = field(default_factory=dict)
    again: dict[str, datetime] = field(default_factory=dict)


def exponent(currency: str) -> int:
    """How many decimals an amount of a currency has in Stripe's API.

    ISK, HUF, TWD and UGX have no minor unit of their own, but Stripe counts them in hundredths.
    """
    return 0 if currency.lower() in _ZERO_DECIMALS else 3 if currency.lower() in _THREE_DECIMALS else 2


def amount(minor: int | None, currency: str | None) -> Decimal | None:
    """An amount in a currency's main unit, exactly; None where there is none or no currency."""
    return None if minor is None or not currency else Decimal(minor).scaleb(-exponent(currency))


def instant(seconds: int | None) -> datetime | None:
    """A Unix time as an instant."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def scrubbed(thing: Any, personal: Sequence[Sequence[str]] = ()) -> Any:
    """A tree without the paths declared personal, and with whatever else looks personal replaced."""
    from privacy.policy import EMAIL_VALUE, SSN_VALUE, kind_by_name

    if isinstance(thing, dict):
        is_person = "name" in thing and bool({"email", "phone", "address"} & thing.keys())
        kept: Object = {}
        for name, value in thing.items():
            below = [path[1:] for path in personal if path and path[0] == name]
            if [] in [list(path) for path in below]:
                continue
            hidden = value is not None and (kind_by_name(name) or (is_person and name == "name"))
            kept[name] = REDACTED if hidden else scrubbed(value, below)
        return kept
    if isinstance(thing, list):
        return [scrubbed(one) for one in thing]
    if isinstance(thing, str):
        return re.sub(SSN_VALUE, REDACTED, re.sub(EMAIL_VALUE, REDACTED, thing))
    return thing


def write(name: str, declared: StripeDeclaration, objects: list[tuple[Object, datetime]], loaded_at: datetime, file: Path) -> None:
    """Write objects as pseudonymised rows; the latest of each key."""
    import pyarrow as pa

    from privacy import functions
    from privacy.pseudonyms import protect
    from warehouse import storage

    table = declared.tables[name]
    personal = personal_paths(name, table)
    types = {"text": pa.string(), "json": pa.string(), "bigint": pa.int64(), "boolean": pa.bool_(), "timestamp": pa.timestamp("us", "UTC"),
             "money": pa.int64(), "decimal": pa.decimal128(38, 12)}  # fmt: skip
    fields = [("id", pa.string()), ("created_at", types["timestamp"]), ("livemode", pa.bool_())]
    for column, what in table.columns.items():
        fields.append((column, types[what.type]))
        if what.type == "money":
            fields.append((f"{column}_decimal", pa.decimal128(38, 3)))
    fields += [("api_version", pa.string()), ("is_deleted", pa.bool_()), ("deleted_at", types["timestamp"]), ("_object", pa.string()),
               (SETTLED_AT, types["timestamp"]), (LOADED_AT, types["timestamp"]), (DELETED_AT, types["timestamp"])]  # fmt: skip
    newest = {thing["id"]: (thing, at) for thing, at in sorted(objects, key=lambda one: one[1])}
    rows = [{**_row(thing, table, personal, declared), SETTLED_AT: at, LOADED_AT: loaded_at} for thing, at in newest.values()]
    arriving = pa.Table.from_pylist(rows, schema=pa.schema(fields))
    names = [column for column, _ in fields]
    protected = protect("stripe", name, {column: f'"{column}"' for column in names}, texts=[column for column, kind in fields if kind == pa.string()])
    chosen = ", ".join(f'{expression} AS "{column}"' for column, expression in protected.columns.items())
    with storage.scratch() as connection:
        functions.bind(connection, "stripe")
        connection.register("arriving", arriving)
        connection.execute(f"COPY (SELECT {chosen} FROM arriving) TO {parquet(file)}", protected.parameters)


def personal_paths(name: str, table: Table) -> list[list[str]]:
    """The paths in an object that the policy declares personal.

    Raises:
        UsageError: the policy names a column that pipelines/stripe.yaml does not have.
    """
    from privacy.policy import policy

    rules = policy().rules("stripe", name)
    unknown = sorted(set(rules) - set(table.columns))
    if unknown:
        raise UsageError(f"privacy/policy.yaml declares stripe.{name}.{unknown[0]}, which pipelines/stripe.yaml does not have.", mend="correct either")
    return [table.columns[column].path for column, rule in rules.items() if rule.action != "keep"]


def _row(thing: Object, table: Table, personal: list[list[str]], declared: StripeDeclaration) -> Object:
    clean = scrubbed({name: value for name, value in thing.items() if name not in table.children.values()}, personal)
    row: Object = {"id": thing["id"], "created_at": instant(thing.get("created")), "livemode": thing.get("livemode"), "is_deleted": False,
                   "api_version": thing.get("api_version") or declared.api_version, "_object": json.dumps(clean, separators=(",", ":"))}  # fmt: skip
    for column, what in table.columns.items():
        value = _at(thing if what.path in personal else clean, what.path)
        if value is None:
            continue
        if what.type == "text":
            row[column] = str(value["id"] if isinstance(value, dict) else value)
        elif what.type == "json":
            row[column] = json.dumps(value)
        elif what.type == "timestamp":
            row[column] = instant(value)
        elif what.type == "decimal":
            row[column] = Decimal(str(value))
        else:
            row[column] = value
        if what.type == "money":
            row[f"{column}_decimal"] = amount(value, thing.get("currency"))
    return row


def _at(thing: Any, path: Sequence[str]) -> Any:
    for name in path:
        thing = thing.get(name) if isinstance(thing, dict) else None
    return thing
