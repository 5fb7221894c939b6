"""What is wrong with the backups: the age of what the stores really hold, what others have hidden, and drills failed or overdue."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from backup import manifest
from backup.drill import last_drills
from backup.duration import described
from backup.encryption import Damaged
from backup.manifest import Drill
from backup.plan import Kept, kept
from backup.policy import DataDeclaration, Kind, configured
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
        for one in held:
            found += _age(what, data, one)
            if one.hidden:
                found.append(Watched("backup_hidden", what, f"store {one.store}: {one.hidden} objects hidden or covered", "none", clock.now()))
        if what != "postgres_base":  # it needs a server to start: docs/disaster-recovery.md says how it is rehearsed
            found += _drills(what, data, held)
    return found


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


def _drills(what: Kind, data: DataDeclaration, held: list[Kept]) -> list[Watched]:
    drills: list[Drill] = []
    for one in held:
        if not one.failed:
            try:
                drills += last_drills(stores(what)[one.store], what)  # type: ignore[index]  # the policy's own names
            except (StoreFailed, Damaged):
                continue  # the other store has them too; its age is watched above
    drills.sort(key=lambda drill: drill.at, reverse=True)
    found = []
    if drills and (failed := [drill for drill in drills if drill.failed and drill.at >= drills[0].at - timedelta(hours=1)]):
        why = f"{failed[0].backup} could not be restored: {failed[0].failed}"
        found.append(Watched("drill_failed", what, why, "restored and found equal", failed[0].at))
    good = [drill.at for drill in drills if not drill.failed]
    oldest = [manifest.time_of(one.backups[0]) for one in held if one.backups]
    since = max(good) if good else min(oldest) if oldest else None
    if since is not None and clock.now() - since > data.drill_every:
        said = f"the last that succeeded was at {since:%Y-%m-%d %H:%M:%S} UTC" if good else "none has succeeded"
        found.append(Watched("drill_overdue", what, said, f"one every {described(data.drill_every)}", since + data.drill_every))
    return found
