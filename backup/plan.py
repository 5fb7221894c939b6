"""What follows from the policy and from what the stores really hold: due, kept, locked, expiring, the rule of three, the cost."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from backup import manifest, retention
from backup.policy import Kind, Policy, configured, is_configured, rule_321
from backup.store import Store, StoreFailed, stores
from backup.verify import hidden
from warehouse import clock

_SLACK = 12
"""A schedule may start early by this part of its interval and still find its work due."""


@dataclass(frozen=True)
class Kept:
    """One kind of data in one store.

    Attributes:
        backups: ids, oldest first. newest: when the newest was taken.
        bytes: of all objects, packs that no backup names among them.
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
    usd_a_month: float = 0.0
    locked_until: datetime | None = None
    expiring: tuple[str, datetime] | None = None
    hidden: int = 0
    failed: str | None = None


def kept(what: Kind) -> list[Kept]:
    """What the stores of the policy hold of one kind of data; a store that cannot be asked says why.

    Raises:
        UsageError: backups are not configured.
    """
    policy, places = configured(), stores()
    return [_kept(what, places[name], policy) for name in policy.data[what].stores]


def _kept(what: Kind, store: Store, policy: Policy) -> Kept:
    try:
        held, packs = manifest.listed(store, what), store.held(f"{what}/packs/")
    except StoreFailed as error:
        return Kept(what, store.name, failed=error.what)
    data, declared, backups = policy.data[what], policy.stores[store.name], tuple(held)
    size = sum(one.bytes for one in (*held.values(), *packs.values()))
    newest = manifest.time_of(backups[-1]) if backups else None
    expiring = (backups[0], manifest.time_of(backups[0]) + max(data.keep, data.every * (data.keep // data.every))) if backups else None
    locked = newest + timedelta(days=declared.lock.days) if newest and declared.lock else None
    cost = size / 1e9 * declared.usd_per_gb_month
    return Kept(what, store.name, backups, newest, size, cost, locked, expiring, len(hidden(held, packs)))


def is_due(what: Kind, found: list[Kept]) -> bool:
    """Whether a backup is due: the first store has none that is young enough. Decided by what it holds, not by what ran."""
    first, every = found[0], configured().data[what].every
    return first.newest is None or clock.now() - first.newest >= every - every / _SLACK


def broken_rule(what: Kind, found: list[Kept]) -> str | None:
    """The rule of three copies, two media, one off site, counted with the stores that really hold a young backup."""
    policy = configured()
    limit = 2 * policy.data[what].every
    holding = [policy.stores[one.store] for one in found if one.newest is not None and clock.now() - one.newest <= limit]  # type: ignore[index]  # the policy's own names
    return rule_321(policy.home, holding)


def next_superfluous(what: Kind, found: list[Kept]) -> dict[str, list[str]]:
    """The backups that the next run may delete, by store."""
    return {one.store: retention.superfluous(list(one.backups), configured().data[what]) for one in found}


def remains() -> list[dict[str, str]]:
    """What backups made before an erasure still hold, until when and why, for its certificate; by the policy, from now on."""
    if not is_configured():
        return [{"what": "backups of your own, made before", "until": "you delete them", "why": "backup/policy.yaml names no stores, so none is known here"}]
    found = []
    for what, data in configured().data.items():
        until = clock.now() + max(data.keep, data.every * (data.keep // data.every)) + data.every
        why = "sealed and locked, so they cannot be changed; a restore erases again before anyone can open it. The date holds while backups go on"
        found.append({"what": f"backups of {what} made before", "until": f"{until:%Y-%m-%d}", "why": why})
    return found
