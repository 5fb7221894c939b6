"""What every source has in common: what it declares, and how the loader and a source talk."""

import re
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict

from warehouse.declared import read
from warehouse.errors import UsageError

FOLDER = Path(__file__).parent
LOADED_AT = "_loaded_at"
"""When the snapshot was taken in which this version of a row was read; rises strictly from load to load of a table."""

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
    """What the warehouse holds of a table: the highest cursor and the time of the last load; None when it is empty."""

    exists: bool = False
    cursor: datetime | date | int | None = None
    loaded_at: datetime | None = None


@dataclass
class Extract:
    """What was read from one table in this run."""

    name: str
    rows_read: int = 0
    rows_changed: int = 0
    window: Literal["whole table", "changed rows"] = "whole table"
    loaded_at: datetime | None = None
    file: Path | None = None


@dataclass
class Reading:
    """How the loader and the source talk: what is held before, what was read after."""

    work: Path
    held: Callable[[str, str], Held]
    without_known: Callable[[str, list[str], Path], int]
    advance: Callable[[str, int], None]
    open: ExitStack
    extracts: dict[str, Extract] = field(default_factory=dict)
