"""What follows from the policy and from what the stores really hold: due, kept, locked, expiring, the rule of three, the cost."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from backup import manifest, prices, retention
from backup.policy import ARCHIVES, Kind, Policy, configured, is_configured, rule_321
from backup.store import Held, Store, StoreFailed, stores
from backup.verify import hidden
from privacy import vault_keys
from warehouse import clock

_SEALED: tuple[Kind, ...] = ("warehouse", "export", "archive")
_SLACK = 12
"""A schedule may start early by this part of its interval and still find its work due."""


@dataclass(frozen=True)
class Kept:
    """One kind of data in one store.

    Attributes:
        backups: ids, oldest first. newest: when the newest was taken.
        bytes: of all objects, packs that no backup names among them. by_class: the same by the storage class the store says they have.
        early_usd: what deleting all of it today would be charged for, by the minimum of its class.
        locked_until: when the lock of the newest backup ends, as the policy says; None without one.
        expiring: the next backup to become superfluous, and when the one that makes it so is due.
        hidden: objects that somebody put something over.
        failed: why the store could not be asked.
    """

    what: Kind
    store: str
    backups: tuple[str, ...] = ()
    newest: datetime | None = None
    bytes: int = 0
    by_class: tuple[tuple[str, int], ...] = ()
    usd_a_month: float = 0.0
    early_usd: float = 0.0
    locked_until: datetime | None = None
    expiring: tuple[str, datetime] | None = None
    hidden: int = 0
    failed: str | None = None


def kept(what: Kind) -> list[Kept]:
    """What the stores of the policy hold of one kind of data; a store that cannot be asked says why.

    Raises:
        UsageError: backups are not configured.
    """
    policy = configured()
    return [_kept(what, store, policy) for store in stores(what).values()]


def _kept(what: Kind, store: Store, policy: Policy) -> Kept:
    try:
        held, packs = manifest.listed(store, what), store.held(f"{what}/packs/")
    except StoreFailed as error:
        return Kept(what, store.name, failed=error.what)
    data, declared, backups = policy.data[what], store.declared, tuple(held)
    newest = max((_shown(backup, one) for backup, one in held.items()), default=None)
    expiring = (backups[0], manifest.time_of(backups[0]) + max(data.keep, data.every * (data.keep // data.every))) if backups else None
    locked = newest + timedelta(days=declared.lock.days) if newest and declared.lock else None
    sizes: dict[str, list[Held]] = {}
    for one in (*held.values(), *packs.values()):
        sizes.setdefault(one.storage_class, []).append(one)
    by_class = {name: sum(one.bytes for one in objects) for name, objects in sorted(sizes.items())}
    own: dict[str, float | None] = {declared.storage_class: declared.usd_per_gb_month}
    cost = sum(prices.month(name, by_class[name], len(objects), own.get(name)) for name, objects in sizes.items())
    early = sum(prices.early(name, one.bytes, 1, _days_left(name, one)) for name, objects in sizes.items() for one in objects)
    return Kept(what, store.name, backups, newest, sum(by_class.values()), tuple(by_class.items()), cost, early, locked, expiring, len(hidden(held, packs)))


def _days_left(storage_class: str, one: Held) -> int:
    """How many days of its class's minimum an object has before it."""
    return (one.modified + timedelta(days=prices.of(storage_class).minimum_days) - clock.now()).days


def _shown(backup: str, held: Held) -> datetime:
    """The instant that a backup shows; of one that was taken by a clock of the future, when it came to the store: it must not make the next ones not due."""
    now, at = clock.now(), manifest.time_of(backup)
    return at if at <= now else min(held.modified, now)


def is_of_use(what: Kind, found: list[Kept]) -> bool:
    """Whether there is anything to keep: where nothing was sealed yet, and nothing is kept, there are no keys of a vault."""
    return what != "vault" or vault_keys.file().exists() or any(one.backups for one in found)


def is_due(what: Kind, found: list[Kept], others: Mapping[Kind, list[Kept]] | None = None) -> bool:
    """Whether a backup is due: the first store has none that is young enough. Decided by what it holds, not by what ran.

    Args:
        others: what the stores hold of the other kinds: the keys of the vault follow each backup of what is sealed under them.
    """
    first, every = found[0], configured().data[what].every
    if what == "vault":
        sealed = [one.newest for kind in _SEALED for one in (others or {}).get(kind, ()) if one.newest]
        if not vault_keys.file().exists() or (first.newest and max(sealed, default=first.newest) > first.newest):
            return vault_keys.file().exists()
    return first.newest is None or clock.now() - first.newest >= every - every / _SLACK


def broken_rule(what: Kind, found: list[Kept], others: Mapping[Kind, list[Kept]] | None = None) -> str | None:
    """The rule of three copies, two media, one off site, counted with the stores that really hold a young backup.

    Args:
        others: what the stores hold of the other kinds; an export and the archives are copies of the same.
    """
    policy = configured()
    alike: dict[str, list[Kept]] = {kind: kept for kind, kept in (others or {}).items() if {kind, what} <= {"export", *ARCHIVES}}
    holding = {one.store for kept in ({**alike, what: found}).values() for one in kept if _is_young(one, policy)}
    return rule_321(policy.home, [policy.stores[name] for name in policy.stores if name in holding])


def _is_young(one: Kept, policy: Policy) -> bool:
    return one.newest is not None and clock.now() - one.newest <= 2 * policy.data[one.what].every


def next_superfluous(what: Kind, found: list[Kept]) -> dict[str, list[str]]:
    """The backups that the next run may delete, by store."""
    return {one.store: retention.superfluous(list(one.backups), configured().data[what], what) for one in found}


_OF_BACKUPS = "sealed and locked, so they cannot be changed; a restore erases again before anyone can open it. The date holds while backups go on"
_OF_ARCHIVES = "what is personal in them was left out, or is sealed under the person's own key, which is destroyed: nobody can read it any more"


def remains() -> list[dict[str, str]]:
    """What backups made before an erasure still hold, until when and why, for its certificate; by the policy, from now on."""
    if not is_configured():
        return [{"what": "backups of your own, made before", "until": "you delete them", "why": "backup/policy.yaml names no stores, so none is known here"}]
    found = []
    for what, data in configured().data.items():
        until = clock.now() + max(data.keep, data.every * (data.keep // data.every)) + data.every
        why = _OF_ARCHIVES if what in ARCHIVES else _OF_BACKUPS
        found.append({"what": f"backups of {what} made before", "until": f"{until:%Y-%m-%d}", "why": why})
    return found
