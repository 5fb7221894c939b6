"""Retention: only what a newer, verified backup makes superfluous is deleted; never the last good one, never by a clock alone."""

from collections.abc import Iterable
from contextlib import suppress
from datetime import timedelta

from backup import manifest
from backup.encryption import Damaged
from backup.manifest import Manifest
from backup.policy import DataDeclaration, Kind
from backup.store import Forbidden, Held, Store, StoreFailed
from warehouse import clock

_ORPHAN = timedelta(days=2)
"""A pack that no backup names may belong to one that is being written: it is left alone so long, by the newest backup's time."""


def superfluous(backups: list[str], data: DataDeclaration, what: Kind | None = None) -> list[str]:
    """Which of the backups in a store are superfluous.

    Older than `keep` counted from the newest one, not from now: when backups stop, nothing goes. And only when there are as
    many newer ones as the policy makes in that time: one with a time of the future, by a clock that was wrong, takes none away.
    Of the keys of the vault one newer copy is enough: it holds all that may still be held.

    Args:
        backups: ids, oldest first.
    """
    if not backups:
        return []
    cutoff, enough = manifest.time_of(backups[-1]) - data.keep, 1 if what == "vault" else data.keep // data.every
    return [backup for index, backup in enumerate(backups) if manifest.time_of(backup) < cutoff and len(backups) - index > enough]


def delete_superfluous(store: Store, what: Kind, data: DataDeclaration, taken: str = "") -> list[str]:
    """Delete superfluous backups and the packs that none of the others names; call it when the newest was verified.

    Those with a time of the future, by a clock that was wrong, make none superfluous.

    Args:
        taken: the backup that was taken just now: it stays, whatever time its name has.

    Returns:
        the backups deleted. What is locked still stays for a later call.

    Raises:
        StoreFailed: the newest backup is not whole, or the store cannot be reached; nothing was deleted then.
    """
    held, whole = manifest.listed(store, what), {}
    if not superfluous(_past(held), data, what):  # with those that are damaged more could be, not less: nothing needs to be read
        return []
    for backup, one in held.items():
        with suppress(Damaged):  # no good backup: it makes none superfluous, and it is kept for whoever looks into it
            whole[backup] = manifest.read(store, one)
    going = [backup for backup in superfluous(_past(whole), data, what) if backup != taken]
    if not going:
        return []
    packs = store.held(f"{what}/packs/")
    newest = whole[_past(whole)[-1]]
    _require_whole(store, newest, packs)
    deleted = [backup for backup in going if _delete(store, held[backup])]
    if len(whole) < len(held):
        return deleted  # what the damaged ones name is not known
    named = {one.key for backup in set(whole) - set(deleted) for one in whole[backup].packs}
    for key, one in packs.items():
        own = key.removesuffix(".index")
        if own not in named and manifest.time_of(own.rpartition("/")[2].rpartition("-")[0]) < newest.taken_at - _ORPHAN:
            _delete(store, one)
    return deleted


def _past(backups: Iterable[str]) -> list[str]:
    return [backup for backup in backups if manifest.time_of(backup) <= clock.now()]


def _require_whole(store: Store, newest: Manifest, packs: dict[str, Held]) -> None:
    lacking = [one.key for one in newest.packs if one.key not in packs or packs[one.key].bytes != one.bytes]
    if lacking:
        what = f"store {store.name}: the newest backup lacks {lacking[0]}; nothing was deleted."
        raise StoreFailed(what, mend="`warehouse backup verify` says what is damaged", store=store.name)


def _delete(store: Store, held: Held) -> bool:
    try:
        store.delete(held)
    except Forbidden:
        return False
    return True
