"""What every source has in common: what it declares, and how the loader and a source talk."""

import re
from collections.abc import Callable
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

    from pipelines.raw_changes import Changes

FOLDER = Path(__file__).parent
LOADED_AT = "_loaded_at"
"""When the snapshot was taken in which this version of a row was read; rises strictly from load to load of a table."""

SETTLED_AT = "_settled_at"
"""Beside it: every change stamped before was committed by then, so the next load need not go back further."""

DELETED_AT = "_deleted_at"
"""When the source was first seen without this row; null while it is there. The other columns keep their last values."""

OWN_COLUMNS = (LOADED_AT, SETTLED_AT, DELETED_AT)

CursorValue = datetime | date | int
"""What may say how far a table got."""

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
    """The top of every `pipelines/<source>.yaml`.

    Attributes:
        schedule: how often it is loaded.
        freshness: how old its last load may be.
        spool_listed_every: how often `warehouse run --follow` lists the bucket in which its webhooks are spooled, if one is set.
    """

    model_config = ConfigDict(extra="forbid")
    schedule: Literal["hourly", "daily", "weekly"] = "hourly"
    freshness: Duration = timedelta(hours=6)
    spool_listed_every: Duration = timedelta(seconds=5)


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
        rows: how many, deleted ones among them.
        primary_key: by what its rows are told apart; None when nobody noted it.
    """

    columns: dict[str, str] = field(default_factory=dict)
    cursor: CursorValue | None = None
    loaded_at: datetime | None = None
    settled_at: datetime | None = None
    rows: int = 0
    primary_key: list[str] | None = None


@dataclass(frozen=True)
class Shape:
    """What a table of the source looked like when it was last loaded.

    Attributes:
        name: its name there, schema.table.
        identity: what stays the same when it is renamed (an oid); 0 for a table that is gone.
        raw_table: where its rows are kept.
        columns: name -> what stays the same when the column is renamed, and its type there.
        primary_key: the columns by which rows are told apart, in the source's names.
    """

    name: str
    identity: int
    raw_table: str
    columns: dict[str, tuple[int, str]]
    primary_key: list[str]


@dataclass(frozen=True)
class Change:
    """One change of one table of a source, or of one of its columns; before and after are names or types, whatever changed."""

    source_table: str
    raw_table: str
    column: str | None
    change: str
    before: str | None = None
    after: str | None = None

    def __str__(self) -> str:
        what = f"{self.source_table}.{self.column}" if self.column else self.source_table
        values = " -> ".join(value for value in (self.before, self.after) if value)
        return f"{what}: {self.change}" + (f" ({values})" if values else "")


@dataclass
class Extract:
    """What was read from one table in this run.

    Attributes:
        file: the rows; not written when nothing could be read.
        primary_key: by what they are merged, in the warehouse's names.
        shape: what the source's table looks like now; None where the source has no shape of its own.
        changes: how that differs from the last load.
        findings: what an operator must know, each with its mend; the load goes on.
    """

    name: str
    file: Path
    rows_read: int = 0
    rows_changed: int = 0
    rows_deleted: int = 0
    versions: int = 0
    window: Literal["whole table", "changed rows", "log", "nothing"] = "whole table"
    primary_key: list[str] = field(default_factory=list)
    shape: Shape | None = None
    changes: list[Change] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)
    server: str = ""
    """Which kind of server answered, never its name."""
    asked: list[str] = field(default_factory=list)
    """What it was asked, without values of rows."""
    seconds: float = 0.0
    bytes_written: int = 0


class Reading(Protocol):
    """What the loader offers a source while it reads."""

    work: Path
    """A folder for files; emptied before and after."""
    open: ExitStack
    """Closed when the source is read."""
    extracts: dict[str, Extract]
    """What was read, by raw table; the source fills it."""
    loaded: "list[Callable[[], None]]"
    """Called in order after everything was loaded; the source adds what it may forget only then."""

    def known(self) -> list[Shape]:
        """What the source's tables looked like at the last load."""

    def changes(self, shape: Shape, is_widening: Callable[[str, str], bool]) -> list[Change]:
        """How a table differs from what it looked like at the last load; a table never loaded does not differ."""

    def held(self, table: str, cursor: str | None) -> Held:
        """What the warehouse holds of a raw table."""

    def without_known(self, table: str, key: list[str], file: Path, cursor: str | None = None, highest: CursorValue | None = None) -> int:
        """Drop from a file the rows that the raw table holds in exactly the same form; returns how many are left.

        No row beyond the highest cursor held is looked for, where that is given.
        """

    def add_deleted(self, table: str, key: list[str], keys: Path, file: Path, loaded_at: datetime, most: float) -> int:
        """Add to a file, with `_deleted_at`, the rows held whose key is not among the source's keys; returns how many."""

    connection: "DuckDBPyConnection"
    """The warehouse, to ask what it holds."""
    memory: dict[str, Any]
    """Empty at the beginning of a load and kept through its passes; what stands under `told` is kept by the ledger."""
    more: bool
    """Set by a source that wants another pass, begun when what it has read so far is in the warehouse."""

    def is_believable(self, table: str, rows: int, most: float) -> bool:
        """Whether so few rows may replace a table without a key; a finding is added to its extract when not."""

    def followed(self) -> dict[str, tuple[str, int]]:
        """How far a log was followed at the last load: raw table -> slot and place."""

    def follow(self, places: dict[str, tuple[str, int]]) -> None:
        """Note how far the log was followed; call it when everything is loaded."""

    def read_until(self, table: str) -> datetime | None:
        """The instant before which everything was read, of a table that holds no row which could say so."""

    def note_read_until(self, table: str, until: datetime) -> None:
        """Note that instant; call it when everything is loaded."""

    def replay(self, table: str, key: list[str], changes: "Changes", versions: Path, file: Path, most: float | None) -> tuple[int, int]:
        """Write the versions and the last rows of a log's changes; returns the rows changed and deleted.

        When more than a share would be deleted, nothing is, and a finding is added to the table's extract.
        """

    def land(self, table: str, key: list[str], file: Path, newest_by: str | None = None) -> Path:
        """Keep a file in the landing zone; returns the small file that refers to it, for dlt to carry."""

    def deletes_due(self, table: str, schedule: str) -> bool:
        """Whether the schedule asks for a comparison of keys now."""
