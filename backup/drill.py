"""Drills: a backup is what was restored. The newest and a random earlier one are, compared, timed, and thrown away again."""

import random
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime

from backup import manifest, snapshot
from backup.archive import copies_of
from backup.drill_log import end_left, rehearse
from backup.export import restore_export
from backup.log_kept import KIND, received_until
from backup.manifest import Drill
from backup.policy import Kind, StoreName
from backup.prices import needs_thaw
from backup.restore import Choice, Restored, restore_warehouse
from backup.restore_archive import restore_archive
from backup.restore_postgres import drop, given_target, renamed, restore_postgres
from backup.snapshot import Metric
from backup.store import Store, StoreFailed, stores
from backup.vault import restore_vault
from privacy.vault_keys import overwrite
from warehouse import clock
from warehouse.errors import StepFailed, UsageError, scrub

_Restores = Callable[[Choice, str], AbstractContextManager[Restored]]
"""Restores a backup for as long as the context lasts."""


def drill_warehouse(metrics: Sequence[Metric], seed: int, only: StoreName | None = None) -> list[Drill]:
    """Restore the newest backup of the warehouse and one that chance chooses among the earlier, and keep the results in the stores.

    Args:
        metrics: see `restore_warehouse`.
        seed: of the choice, to repeat it.
        only: restore from this store alone, as if the other were lost.

    Raises:
        UsageError: backups are not configured, there is none, or the private key is not set. StoreFailed: no store answers.
    """

    @contextmanager
    def restored(choice: Choice, backup: str) -> Iterator[Restored]:
        into = snapshot.folder() / "drill" / backup
        shutil.rmtree(into.parent, ignore_errors=True)
        try:
            yield restore_warehouse(choice, backup, into, metrics)
        finally:
            shutil.rmtree(into.parent, ignore_errors=True)

    return _drills("warehouse", restored, seed, only)


def drill_export(seed: int, only: StoreName | None = None) -> list[Drill]:
    """The same for the export; raises as it does."""

    @contextmanager
    def restored(choice: Choice, backup: str) -> Iterator[Restored]:
        into = snapshot.folder() / "drill" / backup
        shutil.rmtree(into.parent, ignore_errors=True)
        try:
            yield restore_export(choice, backup, into)
        finally:
            shutil.rmtree(into.parent, ignore_errors=True)

    return _drills("export", restored, seed, only)


def drill_vault(seed: int, only: StoreName | None = None) -> list[Drill]:
    """The same for the keys of the vault; raises as it does."""

    @contextmanager
    def restored(choice: Choice, backup: str) -> Iterator[Restored]:
        into = snapshot.folder() / "drill_vault" / backup

        def leave_nothing() -> None:
            for left in (*into.parent.glob("*/*"), *into.parent.glob(".*/*")):
                overwrite(left)
            shutil.rmtree(into.parent, ignore_errors=True)

        leave_nothing()
        try:
            yield restore_vault(choice, backup, into)
        finally:
            leave_nothing()

    return _drills("vault", restored, seed, only)


def drill_postgres(seed: int, only: StoreName | None = None) -> list[Drill]:
    """The same for production, in databases of other names on the server of `BACKUP__POSTGRES_TARGET`; raises as it does."""
    text = renamed(given_target(), f"_drill_{secrets.token_hex(4)}")

    @contextmanager
    def restored(choice: Choice, backup: str) -> Iterator[Restored]:
        try:
            yield restore_postgres(choice, backup, text)
        finally:
            drop(text)

    return _drills("postgres", restored, seed, only)


def drill_archive(what: Kind, seed: int, only: StoreName | None = None) -> list[Drill]:
    """The same for the archives. Of one that must be thawed, one that chance chooses is asked for; called again, the drill goes on with it.

    Raises:
        ComeBack: it thaws; nothing is wrong.
    """

    @contextmanager
    def restored(choice: Choice, backup: str) -> Iterator[Restored]:
        into = snapshot.folder() / f"drill_{what}" / backup
        for left in into.parent.glob("*"):
            if left.name != f".{backup}.download":
                shutil.rmtree(left, ignore_errors=True)
        copies = [copy for copy in copies_of(backup, only)[0] if copy.kind == what]
        yield restore_archive(copies, into)
        shutil.rmtree(into.parent, ignore_errors=True)  # what was downloaded stays when it fails, and is not downloaded twice

    return _drills(what, restored, seed, only, _thawing(what, only))


def _thawing(what: Kind, only: StoreName | None) -> list[str]:
    """The backups of which something was asked for; none where nothing has to be."""
    found = []
    for store in stores(what, only).values():
        held = store.held(f"{what}/packs/")
        found += [key for key, one in held.items() if needs_thaw(one.storage_class) and store.head(one).state in ("thawing", "open")]
    return sorted(key.rpartition("/")[2].rpartition("-")[0] for key in found)


def drill_log(seed: int, only: StoreName | None = None) -> list[Drill]:
    """The same for base and log, in servers of its own that nobody else can reach: to the last commit there is, and to an instant by chance.

    Each recovers first to the position that the base's manifest has fingerprints of, and is compared there.
    """
    choice = Choice(KIND, only)
    ids = choice.ids()
    if not ids:
        raise UsageError(f"there is no backup of {KIND} to drill.", mend=f"`warehouse backup run {KIND}` takes one")
    said = [until for place in choice.places if (until := received_until(place.store))]
    until = max(said, default=manifest.time_of(ids[-1]))
    first = manifest.time_of(ids[0])
    by_chance = first + (until - first) * _chance(seed).random()
    point, done = (clock.now() - until).total_seconds(), []
    for to in (None, max(by_chance, first)):

        @contextmanager
        def restored(choice: Choice, backup: str, to: datetime | None = to) -> Iterator[Restored]:
            into = snapshot.folder() / "drill" / backup
            end_left(into.parent)
            shutil.rmtree(into.parent, ignore_errors=True)
            try:
                yield rehearse(choice, backup, into, to)
            finally:
                shutil.rmtree(into.parent, ignore_errors=True)

        done.append(_drill(KIND, choice, choice.at(to) if to else ids[-1], restored, point))
    for place in choice.places:
        for one in done:
            _keep(place.store, one, only)
    return done


def _drills(what: Kind, restored: _Restores, seed: int, only: StoreName | None, thawing: Sequence[str] = ()) -> list[Drill]:
    """Args: thawing: backups of which one is drilled instead of the newest and another: it was paid for."""
    choice = Choice(what, only)
    ids = choice.ids()
    if not ids:
        raise UsageError(f"there is no backup of {what} to drill.", mend=f"`warehouse backup run {what}` takes one")
    chosen = [ids[-1], *_chance(seed).sample(ids[:-1], min(1, len(ids) - 1))]
    if what == "deep_archive":  # one is asked for, and the same again when it has thawed
        chosen = [one for one in ids if one in thawing][-1:] or [_chance(seed).choice(ids)]
    point = (clock.now() - manifest.time_of(ids[-1])).total_seconds()
    done = [_drill(what, choice, backup, restored, point) for backup in chosen]
    for place in choice.places:
        for one in done:
            _keep(place.store, one, only)
    return done


def _chance(seed: int) -> random.Random:
    return random.Random(seed)  # noqa: S311 - a choice that a seed repeats, no secret


def _drill(what: Kind, choice: Choice, backup: str, restored: _Restores, point: float) -> Drill:
    began = time.monotonic()
    stores: list[str] = [place.store.name for place in choice.places]
    size, tables, metrics, failed = 0, 0, 0, None
    try:
        with restored(choice, backup) as done:
            stores, size, tables, metrics = list(done.stores), done.backup.bytes, done.tables, done.metrics
    except StepFailed as error:
        failed = scrub(error.what)
    return Drill(
        what=what, backup=backup, at=clock.now(), stores=tuple(stores), recovery_point_seconds=point, seconds=time.monotonic() - began, bytes=size,
        tables=tables, metrics=metrics, failed=failed,
    )  # fmt: skip


def _keep(store: Store, drill: Drill, only: StoreName | None) -> None:
    """Best effort: what a drill found is told in any case, and in the ledger."""
    try:
        alone = f"-{only}" if only else ""
        store.at_once().put(f"{_folder(drill.what)}{manifest.new_id(drill.at)}{alone}.drill", manifest.encode(drill))
    except StoreFailed:
        return


def last_drills(store: Store, what: Kind, alone: StoreName | None = None) -> list[Drill]:
    """What the last drills found, newest first; at most four are read. `alone`: of those from this store alone."""
    held = {key: one for key, one in store.held(_folder(what)).items() if alone is None or key.endswith(f"-{alone}.drill")}
    return [manifest.decode(store.read(held[key]), Drill, f"store {store.name}: {key}") for key in sorted(held, reverse=True)[:4]]


def _folder(what: Kind) -> str:
    return f"{what}/drills/"
