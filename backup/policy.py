"""The policy, `backup/policy.yaml`: what is kept, how often, how long, where, and for whose keys; and the rules it must obey."""

from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from backup import prices
from backup.duration import Duration
from backup.engines import EngineSnapshot
from backup.prices import StorageClass, Tier
from privacy.policy import policy as privacy_policy
from warehouse import declared
from warehouse.errors import UsageError
from warehouse.settings import ROOT, settings

Kind = Literal["warehouse", "postgres", "export", "postgres_base", "archive", "deep_archive", "vault"]
StoreName = Literal["a", "b", "c"]
ARCHIVES: tuple[Kind, ...] = ("archive", "deep_archive")
"""What is kept for years as whole objects, each in one store, locked for as long: the one that is read at once, and its copy that must be thawed."""
COPIES, MEDIA = 3, 2


class _Declared(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Place(_Declared):
    """What a copy lies on, and where: two copies with the same words may be lost together."""

    medium: Annotated[str, Field(min_length=1)]
    site: Annotated[str, Field(min_length=1)]


class Lock(_Declared):
    """Object Lock: for how many days nobody can delete a version, with COMPLIANCE not even the owner of the account."""

    mode: Literal["COMPLIANCE", "GOVERNANCE"] = "COMPLIANCE"
    days: Annotated[int, Field(ge=1, le=36_500)]


class Lifecycle(_Declared):
    """The rules of a bucket: after how many days an upload that was never finished is removed. There is no other."""

    unfinished_uploads: Duration = timedelta(days=7)

    @model_validator(mode="before")
    @classmethod
    def _moves_and_deletes_nothing(cls, given: Any) -> Any:
        if isinstance(given, dict) and (wrong := [key for key in given if str(key).startswith(("transition", "expir", "noncurrent"))]):
            raise ValueError(
                f"{wrong[0]} is not allowed, only unfinished_uploads: what is kept is written in its storage_class and never moved, "
                "and deleted by retention, never by a clock; say data.….storage_class and data.….keep instead"
            )
        return given

    @model_validator(mode="after")
    def _whole_days(self) -> "Lifecycle":
        if self.unfinished_uploads % timedelta(days=1) or not 1 <= self.unfinished_uploads.days <= 30:
            raise ValueError("unfinished_uploads must be whole days, 1d to 30d: shorter would break off uploads that are slow")
        return self


class Thaw(_Declared):
    """How an archive is asked for: the tier (its price and hours are in backup/prices.yaml), and for how many days it then lies open."""

    tier: Tier = "Bulk"
    days: Annotated[int, Field(ge=1, le=365)] = 7


class StoreDeclaration(Place):
    """One bucket of an S3 service. `endpoint` is None on AWS; `lock` None where the service has no Object Lock.

    `usd_per_gb_month` is of objects in `storage_class`; without it the list price in backup/prices.yaml is taken.
    """

    bucket: Annotated[str | None, Field(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")] = None
    region: Annotated[str, Field(min_length=1)]
    endpoint: Annotated[str | None, Field(pattern=r"^https?://[^\s/@]+$")] = None
    prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]*[A-Za-z0-9]$")] = "warehouse"
    storage_class: StorageClass = "STANDARD"
    lock: Lock | None = None
    lifecycle: Lifecycle = Lifecycle()
    usd_per_gb_month: Annotated[float | None, Field(ge=0)] = None


class DataDeclaration(_Declared):
    """How one kind of data is kept. What is older than `keep`, counted from the newest backup, is superfluous.

    Attributes:
        drill_every: how often a backup is restored to see whether it can be. alone_every: the same from the last store alone, as
            if the others were lost.
        log_within: how old what the stores hold of a server's log may be; for base backups.
        storage_class, lock: those of its stores unless they are given here. thaw: for a class that needs one.
    """

    every: Duration
    keep: Duration
    stores: Annotated[tuple[StoreName, ...], Field(min_length=1)]
    drill_every: Duration = timedelta(days=7)
    storage_class: StorageClass | None = None
    lock: Lock | None = None
    thaw: Thaw = Thaw()
    alone_every: Duration = timedelta(days=35)
    log_within: Duration = timedelta(minutes=15)

    @model_validator(mode="after")
    def _keeps_several(self) -> "DataDeclaration":
        if self.keep < 2 * self.every:
            raise ValueError("keep must be at least twice every: one backup alone is none to go back from")
        if len(set(self.stores)) != len(self.stores):
            raise ValueError("stores names each store once")
        return self


class Policy(_Declared):
    """The whole of `backup/policy.yaml`."""

    home: Place
    recipients: tuple[Annotated[str, Field(pattern=r"^age1[02-9ac-hj-np-z]{58}$")], ...] = ()
    stores: dict[StoreName, StoreDeclaration]
    data: dict[Kind, DataDeclaration]
    engine: EngineSnapshot | None = None

    @model_validator(mode="after")
    def _obeys_the_rules(self) -> "Policy":
        missing = {"a", "b"} - set(self.stores)
        if missing:
            raise ValueError(f"stores: {', '.join(sorted(missing))} is missing")
        for kind, data in self.data.items():
            if unknown := [name for name in data.stores if name not in self.stores]:
                raise ValueError(f"data.{kind}.stores: {unknown[0]} is not declared under stores")
            if kind == "vault" and data.keep > (longest := timedelta(days=privacy_policy().vault.copies_kept_days)):
                raise ValueError(
                    f"data.vault.keep is longer than vault.copies_kept_days of privacy/policy.yaml, {longest.days}: a destroyed key would outlive it"
                )
            if kind in ARCHIVES:
                self._check_archive(kind, data)
            elif data.stores[0] != "a":
                raise ValueError(f"data.{kind}: stores begins with a, the store that is written first")
            broken = rule_321(self.home, [self.stores[name] for name in self.copies(kind)])
            if broken:
                raise ValueError(f"data.{kind}: {broken}")
            for name in data.stores:
                _check_store(kind, data, name, self.placed(kind, name))
        places = {name: (store.endpoint, store.bucket) for name, store in self.stores.items() if store.bucket}
        for name, place in places.items():
            if same := [other for other in places if other < name and places[other] == place]:
                raise ValueError(f"stores {same[0]} and {name} are one bucket: what deletes the one deletes the other")
        if self.engine and "export" not in self.data:
            raise ValueError(f"engine {self.engine.name} keeps its snapshots itself: data.export is missing, the copy that is not the engine's")
        return self

    def _check_archive(self, kind: Kind, data: DataDeclaration) -> None:
        if kind == "deep_archive" and "archive" not in self.data:
            raise ValueError("data.deep_archive is a copy of the newest archive: data.archive is missing")
        if len(data.stores) != 1:
            raise ValueError(f"data.{kind}.stores names one store, found {', '.join(data.stores)}: the other copies are those of data.export and data.archive")
        name = data.stores[0]
        lock, where = self.placed(kind, name).lock, f"data.{kind}.lock" if data.lock else f"stores.{name}.lock, which data.{kind} takes over,"
        if lock is None:  # a service without Object Lock: `backup plan` says that it is not locked
            return
        if lock.mode != "COMPLIANCE":
            raise ValueError(f"{where} has mode {lock.mode}; an archive needs COMPLIANCE: write lock: {{mode: COMPLIANCE, days: {data.keep.days}}}")
        if not data.keep <= timedelta(days=lock.days) <= data.keep + data.every:
            raise ValueError(
                f"{where} is {lock.days} days; an archive is locked as long as it is kept, {data.keep.days} days, and no longer than one interval more: "
                f"write data.{kind}.lock: {{mode: COMPLIANCE, days: {data.keep.days}}}"
            )

    def copies(self, kind: Kind) -> list[StoreName]:
        """The stores that hold the same content as one kind of data does: for export and archives, those of all three."""
        alike: tuple[Kind, ...] = ("export", *ARCHIVES) if kind in ("export", *ARCHIVES) else (kind,)
        return list(dict.fromkeys(name for one in alike if one in self.data for name in self.data[one].stores))

    def placed(self, kind: Kind, name: StoreName) -> StoreDeclaration:
        """A store as one kind of data uses it: with the storage class and the lock of that kind."""
        data, store = self.data[kind], self.stores[name]
        chosen, lock = data.storage_class or store.storage_class, data.lock or store.lock
        price = store.usd_per_gb_month if chosen == store.storage_class else None
        return store.model_copy(update={"storage_class": chosen, "lock": lock, "usd_per_gb_month": price})

    @property
    def used(self) -> list[StoreName]:
        """The stores that hold anything, and A and B."""
        return [name for name in self.stores if name in ("a", "b") or any(name in data.stores for data in self.data.values())]

    @property
    def is_configured(self) -> bool:
        """Whether there is somewhere to keep backups, and somebody who can read them."""
        return bool(self.recipients) and all(self.stores[name].bucket for name in self.used)


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


def _check_store(kind: Kind, data: DataDeclaration, name: str, store: StoreDeclaration) -> None:
    """Args: store: as the kind uses it."""
    price = prices.of(store.storage_class)
    of_class = f"data.{kind}.storage_class" if data.storage_class else f"stores.{name}.storage_class"
    of_lock = f"data.{kind}.lock.days" if data.lock else f"stores.{name}.lock.days"
    if store.lock and timedelta(days=store.lock.days) > data.keep and kind not in ARCHIVES:
        raise ValueError(f"{of_lock} is {store.lock.days}, longer than data.{kind}.keep: what is superfluous could not be deleted, only paid for")
    if data.keep < timedelta(days=price.minimum_days):
        raise ValueError(f"{of_class} {store.storage_class} is charged for {price.minimum_days} days at the least, longer than data.{kind}.keep")
    if price.thaw and kind != "deep_archive":
        raise ValueError(f"{of_class} {store.storage_class} is read after hours only: it could not be verified; allowed for data.deep_archive alone")
    if price.thaw and data.thaw.tier not in price.thaw:
        raise ValueError(f"data.{kind}.thaw.tier is {data.thaw.tier}; {store.storage_class} has {', '.join(price.thaw)}")


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
    now, access = policy(), settings().backup
    return now.is_configured and all(getattr(access, name).is_given for name in now.used)


def configured(only: StoreName | None = None) -> Policy:
    """The policy, when all is there that a backup needs.

    Args:
        only: the one store that is needed, where the others are lost.

    Raises:
        UsageError: something is missing; it is named.
    """
    now, access = policy(), settings().backup
    needed = [name for name in now.used if only in (None, name)]
    missing = [f"stores.{name}.bucket" for name in needed if not now.stores[name].bucket]
    missing += [] if now.recipients else ["recipients"]
    missing = [f"{one} in {settings().backup.policy}" for one in missing]
    missing += [f"BACKUP__{name.upper()}__ACCESS_KEY_ID and …SECRET_ACCESS_KEY" for name in needed if not getattr(access, name).is_given]
    if missing:
        raise UsageError(f"backups are not configured: {', '.join(missing)} not set.", mend="docs/how-to/back-up.md says how")
    return now
