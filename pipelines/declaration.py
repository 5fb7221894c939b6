"""What every source declares: how often it is loaded and how fresh it must be."""

import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict

from warehouse.declared import read
from warehouse.errors import UsageError

FOLDER = Path(__file__).parent
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
