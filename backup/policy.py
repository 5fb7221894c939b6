"""The policy, `backup/policy.yaml`: what is kept, how often, how long, where, and for whose keys; and the rules it must obey."""

import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from warehouse import declared
from warehouse.errors import UsageError
from warehouse.settings import ROOT, settings

Kind = Literal["warehouse", "postgres", "export", "postgres_base"]
StoreName = Literal["a", "b"]
COPIES, MEDIA = 3, 2
_MINIMUM_DAYS = {"STANDARD_IA": 30, "ONEZONE_IA": 30, "GLACIER_IR": 90, "GLACIER": 90, "DEEP_ARCHIVE": 180}
"""The days that AWS charges at the least for an object of a storage class."""
_NEEDS_A_THAW = ("GLACIER", "DEEP_ARCHIVE")
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}


def _duration(value: object) -> object:
    if isinstance(value, timedelta):
        return value
    found = re.fullmatch(r"([1-9]\d*)\s*([mhd])", str(value).strip())
    if not found:
        raise ValueError("a duration is a whole number and one of m, h, d, for example 6h or 30d")
    return timedelta(**{_UNITS[found.group(2)]: int(found.group(1))})


Duration = Annotated[timedelta, BeforeValidator(_duration)]


class _Declared(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Place(_Declared):
    """What a copy lies on, and where: two copies with the same words may be lost together."""

    medium: Annotated[str, Field(min_length=1)]
    site: Annotated[str, Field(min_length=1)]


class Lock(_Declared):
    """Object Lock: for how many days nobody can delete a version, with COMPLIANCE not even the owner of the account."""

    mode: Literal["COMPLIANCE", "GOVERNANCE"] = "COMPLIANCE"
    days: Annotated[int, Field(ge=1, le=3650)]


class StoreDeclaration(Place):
    """One bucket of an S3 service. `endpoint` is None on AWS; `lock` None where the service has no Object Lock."""

    bucket: Annotated[str | None, Field(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")] = None
    region: Annotated[str, Field(min_length=1)]
    endpoint: Annotated[str | None, Field(pattern=r"^https?://[^\s/@]+$")] = None
    prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]*[A-Za-z0-9]$")] = "warehouse"
    storage_class: Literal["STANDARD", "STANDARD_IA", "ONEZONE_IA", "INTELLIGENT_TIERING", "GLACIER_IR", "GLACIER", "DEEP_ARCHIVE"] = "STANDARD"
    lock: Lock | None = None
    usd_per_gb_month: Annotated[float, Field(ge=0)] = 0.0


class DataDeclaration(_Declared):
    """How one kind of data is kept. What is older than `keep`, counted from the newest backup, is superfluous.

    Attributes:
        drill_every: how often a backup is restored to see whether it can be. alone_every: the same from the last store alone, as
            if the others were lost.
        log_within: how old what the stores hold of a server's log may be; for base backups.
    """

    every: Duration
    keep: Duration
    stores: Annotated[tuple[StoreName, ...], Field(min_length=1)]
    drill_every: Duration = timedelta(days=7)
    alone_every: Duration = timedelta(days=35)
    log_within: Duration = timedelta(minutes=15)

    @model_validator(mode="after")
    def _keeps_several(self) -> "DataDeclaration":
        if self.keep < 2 * self.every:
            raise ValueError("keep must be at least twice every: one backup alone is none to go back from")
        if self.stores[0] != "a" or len(set(self.stores)) != len(self.stores):
            raise ValueError("stores begins with a, the store that is written first, and names each once")
        return self


class Policy(_Declared):
    """The whole of `backup/policy.yaml`."""

    home: Place
    recipients: tuple[Annotated[str, Field(pattern=r"^age1[02-9ac-hj-np-z]{58}$")], ...] = ()
    stores: dict[StoreName, StoreDeclaration]
    data: dict[Kind, DataDeclaration]

    @model_validator(mode="after")
    def _obeys_the_rules(self) -> "Policy":
        missing = {"a", "b"} - set(self.stores)
        if missing:
            raise ValueError(f"stores: {', '.join(sorted(missing))} is missing")
        for kind, data in self.data.items():
            broken = rule_321(self.home, [self.stores[name] for name in data.stores])
            if broken:
                raise ValueError(f"data.{kind}: {broken}")
            for name in data.stores:
                _check_store(kind, data, name, self.stores[name])
        first, second = self.stores["a"], self.stores["b"]
        if first.bucket and (first.endpoint, first.bucket) == (second.endpoint, second.bucket):
            raise ValueError("stores a and b are one bucket: what deletes the one deletes the other")
        return self

    @property
    def is_configured(self) -> bool:
        """Whether there is somewhere to keep backups, and somebody who can read them."""
        return bool(self.recipients) and all(store.bucket for store in self.stores.values())


def rule_321(home: Place, stores: "list[StoreDeclaration]") -> str | None:
    """What is wrong with the copies of some data by the rule of three copies, two media, one off site; None when nothing is."""
    copies, media = 1 + len(stores), {home.medium, *(store.medium for store in stores)}
    if copies < COPIES:
        return f"{copies} copies, the one in use among them; the rule is {COPIES}"
    if len(media) < MEDIA:
        return f"all copies lie on {home.medium}; the rule is {MEDIA} media"
    if all(store.site == home.site for store in stores):
        return f"all copies are at {home.site}; the rule is one off site"
    return None


def _check_store(kind: str, data: DataDeclaration, name: str, store: StoreDeclaration) -> None:
    keep, minimum = data.keep, _MINIMUM_DAYS.get(store.storage_class, 0)
    if store.lock and timedelta(days=store.lock.days) > keep:
        raise ValueError(f"stores.{name}.lock.days is {store.lock.days}, longer than data.{kind}.keep: what is superfluous could not be deleted, only paid for")
    if keep < timedelta(days=minimum):
        raise ValueError(f"stores.{name}.storage_class {store.storage_class} is charged for {minimum} days at the least, longer than data.{kind}.keep")
    if store.storage_class in _NEEDS_A_THAW:
        raise ValueError(f"stores.{name}.storage_class {store.storage_class} is read after hours only: it could not be verified")


def file() -> Path:
    """Where the policy stands: `BACKUP__POLICY`, relative to the checkout."""
    return ROOT / settings().backup.policy


def policy() -> Policy:
    """The policy in force.

    Raises:
        DeclarationError: it is missing or breaks a rule.
    """
    return declared.read(file(), Policy)


def is_configured() -> bool:
    """Whether backups are wished for on this machine: somewhere to keep them, somebody to read them, and the credentials."""
    access = settings().backup
    return policy().is_configured and access.a.is_given and access.b.is_given


def configured(only: StoreName | None = None) -> Policy:
    """The policy, when all is there that a backup needs.

    Args:
        only: the one store that is needed, where the others are lost.

    Raises:
        UsageError: something is missing; it is named.
    """
    now, access = policy(), settings().backup
    missing = [f"stores.{name}.bucket" for name, store in now.stores.items() if not store.bucket and only in (None, name)]
    missing += [] if now.recipients else ["recipients"]
    missing = [f"{one} in {settings().backup.policy}" for one in missing]
    missing += [
        f"BACKUP__{name.upper()}__ACCESS_KEY_ID and …SECRET_ACCESS_KEY" for name in ("a", "b") if only in (None, name) and not getattr(access, name).is_given
    ]
    if missing:
        raise UsageError(f"backups are not configured: {', '.join(missing)} not set.", mend="docs/how-to/back-up.md says how")
    return now


def described(duration: timedelta) -> str:
    """A duration as the policy writes it."""
    if duration % timedelta(hours=1):
        return f"{duration // timedelta(minutes=1)}m"
    hours: Any = duration // timedelta(hours=1)
    return f"{hours // 24}d" if hours % 24 == 0 else f"{hours}h"
