"""Archives: for years, as few large objects as can be, locked as long as they are kept, and never part of anything that changes.

`archive` is written weekly and read back at once. `deep_archive` is a copy of the newest archive in a class that must be thawed: it is made by
reading the archive back, each part with its SHA-256, because what was made cannot be read for hours.
"""

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

from backup import archive_files, manifest, pack, prices, retention
from backup.encryption import Damaged
from backup.manifest import File, Manifest, Pack
from backup.policy import ARCHIVES, Kind, Policy, StoreName, configured
from backup.store import Held, Store, StoreFailed, stores
from backup.take import PATIENCE, Taken, prepared
from warehouse import clock
from warehouse.console import progress, tell
from warehouse.errors import StepFailed, UsageError

_OBJECT_BYTES = 100 << 30
"""Files up to so much together are one object; a larger file is one of its own."""
_CHUNK = 1 << 20


def take_archive(patience: float = PATIENCE) -> Taken:
    """Write an archive as one object (or a few), read it back, lock it, and only then its manifest. Hold `one_at_a_time`, not the lease.

    An object is locked when it was proved, not before: a run that is killed leaves nothing that must be paid for for years.

    Args:
        patience: seconds to wait for the writer to end.

    Raises:
        UsageError: backups are not configured, or the policy keeps no archive. LeaseHeld: somebody wrote all the time.
        StepFailed: the store has it not whole; there is no such archive then.
    """
    policy, (store,), keys = prepared("archive")
    began = time.monotonic()
    with archive_files.written(patience) as files:
        backup, packs = manifest.new_id(files.taken_at), list[Pack]()
        listed: list[File] = []
        plain = sum(source.bytes for source in files.sources)
        with progress(f"store {store.name}: uploading", plain, of_bytes=True) as advance:
            for number, batch in enumerate(pack.batches(files.sources, _OBJECT_BYTES, _OBJECT_BYTES)):
                index = pack.sealed(store.unlocked(), manifest.pack_key("archive", backup, number), batch, keys, advance)
                packs.append(index.pack)
                listed += index.files
    made = Manifest(
        id=backup, what="archive", taken_at=files.taken_at, files=tuple(sorted(listed, key=lambda one: one.path)), packs=tuple(packs), tables=files.tables,
        versions=manifest.versions("duckdb", "sqlmesh", "pyarrow"), recipients=policy.recipients, personal=files.personal,
    )  # fmt: skip
    held = store.held("archive/packs/")
    with progress(f"store {store.name}: reading back", sum(one.bytes for one in packs), of_bytes=True) as advance:
        for one in packs:
            pack.verify(one, held[one.key], store, advance)
    return _finish(made, store, held, policy, plain, time.monotonic() - began)


def take_deep_archive() -> Taken:
    """Copy the newest archive that is whole into the deep archive, sealed as it is; needs no key and no warehouse.

    Raises:
        UsageError: backups are not configured, or there is no archive that is not there already.
        StepFailed: the archive is not whole, or the store has not taken it whole; there is no such copy then.
    """
    policy, (target,), _ = prepared("deep_archive")
    source = next(iter(stores("archive").values()))
    began, one = time.monotonic(), _newest(source)
    if one.id in manifest.listed(target, "deep_archive"):
        raise UsageError(f"the newest archive, {one.id}, is in the deep archive already.", mend="`warehouse backup run archive` takes a new one")
    there, taken = source.held("archive/packs/"), len([key for key in target.held("deep_archive/packs/") if one.id in key])
    renamed: dict[str, Pack] = {}
    with progress(f"store {target.name}: copying", sum(each.bytes for each in one.packs), of_bytes=True) as advance:
        for number, each in enumerate(one.packs):
            tell(f"store {source.name}: reading {each.key} back into {target.name}")
            if each.key not in there:
                raise StoreFailed(f"store {source.name}: the object {each.key} is missing.", mend="`warehouse backup run archive`", store=source.name)
            key = manifest.pack_key("deep_archive", one.id, taken + number)  # a copy that was killed may have left others
            reader = source.reader(there[each.key])
            with target.unlocked().upload(key, each.bytes) as upload:
                while chunk := reader.read(_CHUNK):
                    upload.write(chunk)
                    advance(len(chunk))
                reader.check(pack.written(each))
            renamed[each.key] = each.model_copy(update={"key": key})
    files = tuple(file.model_copy(update={"pack": renamed[file.pack].key}) for file in one.files)
    made = one.model_copy(update={"what": "deep_archive", "packs": tuple(renamed.values()), "files": files})
    return _finish(made, target, target.held("deep_archive/packs/"), policy, 0, time.monotonic() - began)


def _newest(store: Store) -> Manifest:
    listed = manifest.listed(store, "archive")
    for held in reversed(listed.values()):
        with suppress(Damaged):
            return manifest.read(store, held)
    raise UsageError(f"store {store.name} holds no archive to copy.", mend="`warehouse backup run archive` takes one")


def _finish(made: Manifest, store: Store, held: dict[str, Held], policy: Policy, plain: int, seconds: float) -> Taken:
    """Lock what was proved, write the manifest, and delete what it makes superfluous and is not locked any longer."""
    what, lock = made.what, store.declared.lock
    until = clock.now() + timedelta(days=lock.days) if lock else None
    for one in made.packs:
        if one.key not in held or held[one.key].bytes != one.bytes:
            raise StoreFailed(f"store {store.name}: {one.key} is not there as it was written.", mend="run again", store=store.name)
        if until:
            store.lock_until(held[one.key], until)
    store.at_once().put(manifest.key_of(what, made.id), manifest.encode(made), until)
    deleted = retention.delete_superfluous(store, what, policy.data[what])
    sealed = sum(one.bytes for one in made.packs)
    return Taken(made, plain or sealed, sealed, 0.0, [store.name], deleted={store.name: deleted})


@dataclass(frozen=True)
class Copy:
    """One archive in one store: its manifest, and the objects that it names."""

    kind: Kind
    store: Store
    backup: Manifest
    objects: tuple[Held, ...]

    @property
    def is_cold(self) -> bool:
        """Whether it must be thawed before it is read."""
        return any(prices.needs_thaw(held.storage_class) for held in self.objects)


def copies_of(backup: str, only: StoreName | None = None) -> tuple[list[Copy], list[str]]:
    """The copies of an archive: those first that are read at once.

    Args:
        only: look in this store alone.

    Returns:
        the copies, and what was in the way of others.

    Raises:
        UsageError: backups are not configured, or no store holds such an archive. StoreFailed, Damaged: none could be asked.
    """
    found: list[Copy] = []
    notes: list[str] = []
    failure: StepFailed | None = None
    for kind in (kind for kind in ARCHIVES if kind in configured(only).data):
        for store in stores(kind, only).values():
            try:
                listed = manifest.listed(store, kind)
                if backup in listed:
                    found.append(_copy(kind, store, manifest.read(store, listed[backup])))
            except (StoreFailed, Damaged) as error:
                failure = error
                notes.append(error.what)
    if failure and not found:
        raise failure
    if not found:
        raise UsageError(f"no store holds the archive {backup}.", mend="`warehouse backup list` shows them")
    return sorted(found, key=lambda one: one.is_cold), notes


def _copy(kind: Kind, store: Store, one: Manifest) -> Copy:
    held = store.held(f"{kind}/packs/")
    for each in one.packs:
        if each.key not in held or held[each.key].bytes != each.bytes:
            raise StoreFailed(f"store {store.name}: the object {each.key} is missing.", mend="the other copy has it, if there is one", store=store.name)
    return Copy(kind, store, one, tuple(held[each.key] for each in one.packs))


def lock_problems(store: Store, backups: Sequence[Manifest], packs: dict[str, Held]) -> list[tuple[str, str]]:
    """What of some archives is not locked as the policy says: the backup and what was found.

    Raises:
        StoreFailed: the store cannot be asked.
    """
    lock, found = store.declared.lock, []
    if lock is None:
        return []
    for backup in backups:
        for one in backup.packs:
            if one.key in packs:
                head = store.head(packs[one.key])
                until, due = head.locked_until, head.written + timedelta(days=lock.days - 1)  # locked a little later than written, never a day earlier
                if head.lock_mode != "COMPLIANCE" or until is None or until < due:
                    found.append((backup.id, f"store {store.name}: {one.key} is locked {_said(head.lock_mode, until)}; the policy says until {due:%Y-%m-%d}"))
    return found


def _said(mode: str | None, until: datetime | None) -> str:
    return f"until {until:%Y-%m-%d} ({mode})" if until else "not at all"
