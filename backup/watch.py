"""What is wrong with the backups: the age of what the stores really hold, what others have hidden, and drills failed or overdue."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from backup import manifest
from backup.drill import last_drills
from backup.duration import described
from backup.encryption import Damaged
from backup.log_kept import KIND, received_until
from backup.manifest import Drill
from backup.plan import Kept, is_of_use, kept
from backup.policy import DataDeclaration, Kind, StoreName, configured
from backup.store import StoreFailed, stores
from warehouse import clock

LATE = 2
"""A backup is too old when this many of its intervals have passed."""


@dataclass(frozen=True)
class Watched:
    """One thing wrong: which check saw it, of which data, what was seen, what should be, and since when."""

    check: str
    what: Kind
    observed: str
    expected: str
    since: datetime


def watch() -> list[Watched]:
    """Look at every kind of data in every store of the policy.

    Raises:
        UsageError: backups are not configured.
    """
    found: list[Watched] = []
    for what, data in configured().data.items():
        held = kept(what)
        if not is_of_use(what, held):
            continue
        for one in held:
            found += _age(what, data, one)
            if one.hidden:
                found.append(Watched("backup_hidden", what, f"store {one.store}: {one.hidden} objects hidden or covered", "none", clock.now()))
            if what == KIND and not one.failed:
                found += _log(data, one)
        found += _drills(what, data, held, alone=None)
        if len(data.stores) > 1:
            found += _drills(what, data, held, alone=data.stores[-1])
    return found


def _log(data: DataDeclaration, one: Kept) -> list[Watched]:
    """The age of the log in a store: up to when it has all that was committed. An idle server's log grows old by no second."""
    expected, now = f"the log up to {described(data.log_within)} ago in store {one.store}", clock.now()
    try:
        until = received_until(stores()[one.store])  # type: ignore[index]  # the policy's own names
    except (StoreFailed, Damaged) as error:
        return [Watched("log_age", KIND, error.what, expected, now)]
    if until is None:
        return [Watched("log_age", KIND, f"store {one.store}: no log was received", expected, now)]
    if now - until <= data.log_within:
        return []
    return [Watched("log_age", KIND, f"store {one.store}: it is received up to {until:%Y-%m-%d %H:%M:%S} UTC", expected, until + data.log_within)]


def _age(what: Kind, data: DataDeclaration, one: Kept) -> list[Watched]:
    limit, now = LATE * data.every, clock.now()
    expected = f"a backup younger than {described(limit)} in store {one.store}"
    if one.failed:
        return [Watched("backup_age", what, one.failed, expected, now)]
    if one.newest is None:
        return [Watched("backup_age", what, f"store {one.store} holds none", expected, now)]
    if now - one.newest > limit:
        return [Watched("backup_age", what, f"store {one.store}: the newest shows {one.newest:%Y-%m-%d %H:%M:%S} UTC", expected, one.newest + limit)]
    return []


def _drills(what: Kind, data: DataDeclaration, held: list[Kept], alone: StoreName | None) -> list[Watched]:
    """What drills found, and whether one is overdue. `alone`: only those from this store alone, as if the others were lost."""
    drills: list[Drill] = []
    every = data.alone_every if alone else data.drill_every
    for one in held:
        if not one.failed:
            try:
                drills += last_drills(stores(what)[one.store], what, alone)  # type: ignore[index]  # the policy's own names
            except (StoreFailed, Damaged):
                continue  # the other store has them too; its age is watched above
    drills.sort(key=lambda drill: drill.at, reverse=True)
    found = []
    if drills and not alone and (failed := [drill for drill in drills if drill.failed and drill.at >= drills[0].at - timedelta(hours=1)]):
        why = f"{failed[0].backup} could not be restored: {failed[0].failed}"
        found.append(Watched("drill_failed", what, why, "restored and found equal", failed[0].at))
    good = [drill.at for drill in drills if not drill.failed]
    oldest = [manifest.time_of(one.backups[0]) for one in held if one.backups]
    since = max(good) if good else min(oldest) if oldest else None
    if since is not None and clock.now() - since > every:
        said = f"the last that succeeded was at {since:%Y-%m-%d %H:%M:%S} UTC" if good else "none has succeeded"
        expected = f"one every {described(every)}" + (f" from store {alone} alone" if alone else "")
        found.append(Watched("drill_overdue", what, said, expected, since + every))
    return found
