"""What every source has in common: what it declares, and how the loader and a source talk."""

import re
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol

from pydantic import BaseModel, BeforeValidator, ConfigDict

from warehouse.declared import read
from warehouse.errors import UsageError

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

FOLDER = Path(__file__).parent
LOADED_AT = "_loaded_at"
"""When the snapshot was taken in which this version of a row was read; rises strictly from load to load of a table."""

SETTLED_AT = "_settled_at"
"""Beside it: every change stamped before was committed by then, so the next load need not go back further."""

DELETED_AT = "_deleted_at"
"""When the source was first seen without this row; null while it is there. The other columns keep their last values."""

OWN_COLUMNS = (LOADED_AT, SETTLED_AT, DELETED_AT)

INTERVALS = {"hourly": timedelta(hours=1), "daily": timedelta(days=1), "weekly": timedelta(weeks=1)}
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def _duration(value: object) -> object:
    if isinstance(value, timedelta):
        return value
    found = re.fullmatch(r"(\d+)\s*([smhd])", str(value).strip())
    if not found:
        raise ValueError("a duration is a whole number and one of s, m, h, d, for example 10m or 6h")
    return timedelta(**{_UNITS[found.group(2)]: int(found.group(1))})


Duration = Annotated[timedelta, BeforeValidator(_duration)]


class SourceDeclaration(BaseModel):
    """The top of every `pipelines/<source>.yaml`."""

    model_config = ConfigDict(extra="forbid")
    schedule: Literal["hourly", "daily", "weekly"] = "hourly"
    freshness: Duration = timedelta(hours=6)


class _AnySource(SourceDeclaration):
    """The common keys alone, for those who need no more; each source's own module validates the rest."""

    model_config = ConfigDict(extra="ignore")


def sources() -> list[str]:
    """The names of all sources: the modules of this folder that have a declaration beside them."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml") if path.with_suffix(".py").exists())


def common(source: str) -> SourceDeclaration:
    """Schedule and freshness of a source.

    Raises:
        UsageError: there is no such source. DeclarationError: its declaration is wrong.
    """
    if source not in sources():
        raise UsageError(f"there is no source {source!r}; sources: {', '.join(sources())}", mend="see the README's `add a source`")
    return read(FOLDER / f"{source}.yaml", _AnySource)


@dataclass(frozen=True)
class Held:
    """What the warehouse holds of a table.

    Attributes:
        columns: name -> type; empty when there is no table yet.
        cursor: the highest cursor; None when the table is empty or has no cursor.
        loaded_at: the newest load.
        settled_at: every change stamped before it was committed when the newest load read the source.
    """

    columns: dict[str, str] = field(default_factory=dict)
    cursor: datetime | date | int | None = None
    loaded_at: datetime | None = None
    settled_at: datetime | None = None


@dataclass
class Extract:
    """What was read from one table in this run."""

    name: str
    file: Path
    rows_read: int = 0
    rows_changed: int = 0
    rows_deleted: int = 0
    window: Literal["whole table", "changed rows"] = "whole table"
    refused: str | None = None


class Reading(Protocol):
    """What the loader offers a source while it reads."""

    work: Path
    """A folder for files; emptied before and after."""
    open: ExitStack
    """Closed when the source is read."""
    extracts: dict[str, Extract]
    """What was read, by raw table; the source fills it."""

    def held(self, table: str, cursor: str | None) -> Held:
        """What the warehouse holds of a raw table."""

    def without_known(self, table: str, key: list[str], file: Path) -> int:
        """Drop from a file the rows that the raw table holds in exactly the same form; returns how many are left."""

    def add_deleted(self, table: str, key: list[str], keys: Path, file: Path, loaded_at: datetime, most: float) -> int:
        """Add to a file, with `_deleted_at`, the rows held whose key is not among the source's keys; returns how many."""

    connection: "DuckDBPyConnection"
    """The warehouse, to ask what it holds."""
    memory: dict[str, Any]
    """Empty at the beginning of a load and kept through its passes."""
    more: bool
    """Set by a source that wants another pass, begun when what it has read so far is in the warehouse."""

    def land(self, table: str, key: list[str], file: Path, newest_by: str | None = None) -> Path:
        """Keep a file in the landing zone; returns the small file that refers to it, for dlt to carry."""

    def deletes_due(self, table: str, schedule: str) -> bool:
        """Whether the schedule asks for a comparison of keys now."""
