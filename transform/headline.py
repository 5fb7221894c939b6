"""The headline metrics, `models/headline_metrics.yaml`: the few numbers that no change of a model may move unseen."""

from collections import Counter
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

from warehouse import declared
from warehouse.settings import ROOT

FILE = ROOT / "models" / "headline_metrics.yaml"
_Column = Annotated[str, Field(pattern=r"^[a-z_][a-z0-9_]*$")]


class Metric(BaseModel):
    """One metric: an aggregate in DuckDB's SQL over one mart, one number for each value of `by`."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: Annotated[str, Field(min_length=1, max_length=60)]
    mart: Annotated[str, Field(pattern=r"^marts\.[a-z_][a-z0-9_]*$")]
    value: Annotated[str, Field(min_length=1, pattern=r"^[^;]+$")]
    by: _Column | None = None


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")
    metrics: Annotated[list[Metric], Field(min_length=1)]

    @model_validator(mode="after")
    def _named_once(self) -> "_File":
        twice = [name for name, count in Counter(metric.name for metric in self.metrics).items() if count > 1]
        if twice:
            raise ValueError(f"the metric {twice[0]!r} stands twice")
        return self


def headline_metrics(file: Path | None = None) -> list[Metric]:
    """The declared metrics, in their order.

    Raises:
        DeclarationError: the file is missing or wrong.
    """
    return declared.read(file or FILE, _File).metrics
