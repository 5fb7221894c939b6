"""The dashboards that people look at, `models/dashboards.yaml`: whom a change of a mart would reach."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

from warehouse import declared
from warehouse.settings import ROOT

if TYPE_CHECKING:
    from transform.effect import Difference

FILE = ROOT / "models" / "dashboards.yaml"
_Mart = Annotated[str, Field(pattern=r"^marts\.[a-z_][a-z0-9_]*$")]
_Column = Annotated[str, Field(pattern=r"^[a-z_][a-z0-9_]*$")]


class Dashboard(BaseModel):
    """One dashboard, report or other reader of the published marts, and the columns that it reads of each."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: Annotated[str, Field(min_length=1, max_length=60)]
    owner: Annotated[str, Field(min_length=1, max_length=60)]
    url: Annotated[str, Field(pattern=r"^https?://\S+$")] | None = None
    reads: Annotated[dict[_Mart, Annotated[list[_Column], Field(min_length=1)]], Field(min_length=1)]


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")
    dashboards: list[Dashboard] = []

    @model_validator(mode="after")
    def _named_once(self) -> "_File":
        twice = [name for name, count in Counter(dashboard.name for dashboard in self.dashboards).items() if count > 1]
        if twice:
            raise ValueError(f"the dashboard {twice[0]!r} stands twice")
        return self


def dashboards(file: Path | None = None) -> list[Dashboard]:
    """The declared dashboards, in their order; none where the file is missing.

    Raises:
        DeclarationError: the file is wrong.
    """
    where = file or FILE
    return declared.read(where, _File).dashboards if where.exists() else []


def reached(difference: "Difference", declared_ones: Iterable[Dashboard]) -> tuple[list[str], list[str]]:
    """Those that show other numbers by a change of one mart, with their owners, and what of it would break which."""
    shown, broken = [], []
    for dashboard in declared_ones:
        columns = dashboard.reads.get(difference.mart)
        if columns is None:
            continue
        gone = columns if difference.rows_after is None else [column for column in columns if column in difference.columns_removed]
        broken += [f"{dashboard.name} ({dashboard.owner}) reads {difference.mart}.{column}, which is gone" for column in gone]
        if gone or difference.added or difference.removed or set(columns) & set(difference.columns) or difference.note:
            shown.append(f"{dashboard.name} ({dashboard.owner})")
    return shown, broken
