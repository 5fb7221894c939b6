"""The snapshots that a warehouse's engine keeps itself: named in the policy, held to what each feature can do, told by `backup plan`.

Nothing here takes one or looks at one: what an engine promises is its own, and is drilled with it.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, model_validator

from backup.duration import Duration, described

Engine = Literal["motherduck", "bigquery", "snowflake"]


@dataclass(frozen=True)
class Feature:
    """What a feature of an engine can do.

    Attributes:
        most: the longest that it keeps anything; None without a limit.
        take: how one is taken, where it is not taken by itself. back: how it is brought back, into a fresh place.
        plan: what has to be bought for it.
    """

    most: timedelta | None
    back: str
    take: str = ""
    plan: str = ""


FEATURES: dict[Engine, dict[str, Feature]] = {
    "motherduck": {
        "automatic snapshots": Feature(timedelta(days=90), "CREATE DATABASE fresh FROM warehouse (SNAPSHOT_TIME '…')", plan="Business beyond 1 day"),
        "named snapshots": Feature(None, "CREATE DATABASE fresh FROM warehouse (SNAPSHOT_NAME '…')", "CREATE SNAPSHOT name OF warehouse", "Business"),
    },
    "bigquery": {
        "time travel": Feature(timedelta(days=7), "SELECT … FROM dataset.table FOR SYSTEM_TIME AS OF …"),
        "table snapshots": Feature(
            None, "CREATE TABLE fresh.table CLONE snapshots.table", "CREATE SNAPSHOT TABLE snapshots.table CLONE dataset.table OPTIONS (…)"
        ),
    },
    "snowflake": {
        "time travel": Feature(timedelta(days=90), "CREATE DATABASE fresh CLONE warehouse AT (TIMESTAMP => …)", plan="Enterprise beyond 1 day"),
        "backup set": Feature(None, "CREATE DATABASE fresh FROM BACKUP SET …", "CREATE BACKUP SET … FOR DATABASE warehouse WITH BACKUP POLICY …"),
        "clone": Feature(None, "CREATE DATABASE fresh CLONE kept", "CREATE DATABASE kept CLONE warehouse"),
    },
}


class EngineSnapshot(BaseModel):
    """The engine's own snapshot: which feature of which engine, how often one is made and how long each is kept."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: Engine
    snapshot: str
    every: Duration
    keep: Duration

    @model_validator(mode="after")
    def _can_be_done(self) -> "EngineSnapshot":
        known = FEATURES[self.name]
        if self.snapshot not in known:
            raise ValueError(f"snapshot: {self.name} has {', '.join(known)}; found {self.snapshot!r}")
        most = known[self.snapshot].most
        if most is not None and self.keep > most:
            longer = ", ".join(name for name, feature in known.items() if feature.most is None or feature.most >= self.keep)
            raise ValueError(f"keep is {self.keep.days} days; {self.name}'s {self.snapshot} keep {most.days} at the most: use {longer}, or keep less")
        if self.keep < 2 * self.every:
            raise ValueError("keep must be at least twice every")
        return self

    @property
    def feature(self) -> Feature:
        """What it can do."""
        return FEATURES[self.name][self.snapshot]


def as_row(one: EngineSnapshot) -> dict[str, Any]:
    """What `backup plan` tells of it."""
    feature = one.feature
    told = {"engine": one.name, "snapshot": one.snapshot, "every": described(one.every), "keep": described(one.keep)}
    return {**told, "taken by": feature.take or "the engine", "back by": feature.back, "needs": feature.plan}
