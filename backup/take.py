"""Taking a backup: what is new goes to store A, is read back from there into B, and only then the manifest appears."""

import fcntl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from backup import manifest, pack, retention, snapshot
from backup.encryption import Damaged, recipients
from backup.manifest import File, Index, Manifest, Pack
from backup.pack import Source
from backup.policy import Kind, Policy, configured
from backup.snapshot import LANDING, Metric
from backup.store import Held, Store, StoreFailed, stores
from privacy import erasures
from warehouse import clock
from warehouse.console import logger, progress, tell
from warehouse.errors import LeaseHeld, StepFailed, UsageError, WarehouseError

if TYPE_CHECKING:
    from pyrage import x25519

PATIENCE = 1800.0
"""Seconds that a backup waits for the writer to end."""


@dataclass
class Taken:
    """A backup that was taken.

    Attributes:
        new_bytes: bytes of files that no store held yet. sealed_bytes: what they became.
        frozen_seconds: how long nobody could write.
        failed: what went wrong beside it, a line each: the backup is good, and is not everywhere.
        deleted: the backups that it made superfluous, by store.
    """

    backup: Manifest
    new_bytes: int
    sealed_bytes: int
    frozen_seconds: float
    stores: list[str]
    failed: list[str] = field(default_factory=list)
    deleted: dict[str, list[str]] = field(default_factory=dict)


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Be the only backup, restore or drill of this home while inside.

    Raises:
        LeaseHeld: another is running.
    """
    path = snapshot.folder() / "lock"
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LeaseHeld("another backup of this home is running.", mend="wait for it to end; a killed process frees it by itself") from None
        yield


def take_warehouse(metrics: Sequence[Metric], patience: float = PATIENCE, *, whole: bool = False) -> Taken:
    """Back up the home of the warehouse to the stores of the policy. Hold `one_at_a_time`, not the lease.

    Args:
        metrics: what a restored warehouse must answer as this one does.
        patience: seconds to wait for the writer to end.
        whole: upload all of it, whatever the stores hold already; for when that is damaged.

    Raises:
        UsageError: backups are not configured. LeaseHeld: somebody wrote, or backed up, all the time.
        StepFailed: no store has the backup; what was uploaded is used by the next run.
    """
    policy, chosen, keys = prepared("warehouse")
    first = chosen[0]
    known = Known() if whole else Known.of(first, "warehouse")
    landing = {path: file for path, file in known.by_path.items() if path.startswith(LANDING)}
    with snapshot.frozen(landing, metrics, patience) as frozen:
        versions = manifest.versions("duckdb", "sqlmesh", "dlt")
        backup, indexes = upload(
            "warehouse", first, known, frozen.taken_at, frozen.sources, keys, tables=frozen.tables, versions=versions, recipients=policy.recipients,
            erasures=erasures.mark(),
        )  # fmt: skip
        taken = spread(backup, indexes, chosen, policy, frozen.seconds)
        taken.failed += frozen.damaged
        return taken


def prepared(what: Kind) -> "tuple[Policy, list[Store], list[x25519.Recipient]]":
    """The policy, the stores for one kind of data, and the keys to seal for.

    Raises:
        UsageError: backups are not configured, or the policy does not name this data.
    """
    policy = configured()
    if what not in policy.data:
        raise UsageError(f"the policy keeps no {what}.", mend=f"add data.{what} to backup/policy.yaml")
    return policy, list(stores(what).values()), recipients(policy.recipients)


class Known:
    """What a store holds whole already: by path, and by content."""

    def __init__(self) -> None:
        self.by_path: dict[str, File] = {}
        self.by_content: dict[tuple[str, int], File] = {}
        self.packs: dict[str, Pack] = {}
        self.unproved: set[str] = set()

    @classmethod
    def of(cls, store: Store, what: Kind) -> "Known":
        """Read it off the newest manifest that is whole, and off packs that a backup which was cut off left behind."""
        known, held = cls(), store.held(f"{what}/packs/")
        backups = manifest.listed(store, what)
        for backup in reversed(backups):
            with _passing_over_damage():
                newest = manifest.read(store, backups[backup])
                known._add(newest.packs, newest.files, held)
                break
        since = manifest.time_of(next(reversed(backups))) if backups else None
        for key, one in held.items():
            own = key.removesuffix(".index")
            if own != key and own not in known.packs and (since is None or one.modified >= since):
                with _passing_over_damage():
                    index = manifest.read_index(store, one)
                    known._add([index.pack], index.files, held)
                    known.unproved.add(own)
        return known

    def _add(self, packs: Sequence[Pack], files: Sequence[File], held: dict[str, Held]) -> None:
        there = {one.key: one for one in packs if one.key in held and held[one.key].bytes == one.bytes}
        self.packs |= there
        for file in files:
            if file.pack in there:
                self.by_path.setdefault(file.path, file)
                self.by_content.setdefault((file.sha256, file.bytes), file)


@contextmanager
def _passing_over_damage() -> Iterator[None]:
    """What cannot be read is not relied on; `backup verify` tells of it."""
    try:
        yield
    except StepFailed as error:
        logger.warning("passed over", extra={"fields": {"why": error.what}})


def upload(
    what: Kind, store: Store, known: Known, taken_at: datetime, sources: Sequence[Source], keys: "Sequence[x25519.Recipient]", **written: Any
) -> tuple[Manifest, list[Index]]:
    """Bring what the store lacks of some files into it.

    Args:
        written: the other fields of the manifest.

    Returns:
        the manifest, which is not written yet, and what was uploaded, or what no backup names yet.
    """
    backup, new, files = manifest.new_id(taken_at), [], []
    for source in sources:
        held = known.by_content.get((source.sha256, source.bytes))
        if held is None:
            new.append(source)
        else:
            files.append(held.model_copy(update={"path": source.path, "mode": source.mode, "modified_ns": source.modified_ns}))
    indexes = []
    with progress(f"store {store.name}: uploading", sum(source.bytes for source in new), of_bytes=True) as advance:
        for number, batch in enumerate(pack.batches(new)):
            tell(f"store {store.name}: {batch[0].path}" + (f" and {len(batch) - 1} more" if len(batch) > 1 else ""))
            index = pack.write(store, manifest.pack_key(what, backup, number), batch, keys, advance)
            indexes.append(index)
            files += index.files
    packs = {index.pack.key: index.pack for index in indexes} | known.packs
    used = sorted({file.pack for file in files})
    files.sort(key=lambda file: file.path)
    made = Manifest(id=backup, what=what, taken_at=taken_at, files=tuple(files), packs=tuple(packs[key] for key in used), **written)
    return made, [*indexes, *(Index(pack=known.packs[key], files=()) for key in used if key in known.unproved)]


def spread(backup: Manifest, indexes: Sequence[Index], chosen: Sequence[Store], policy: Policy, seconds: float) -> Taken:
    """Read all that is new back from the first store, into the others; then write the manifest, and delete what it makes superfluous.

    Args:
        indexes: of the packs that are new, or that no backup names yet.
        seconds: how long nobody could write.

    Raises:
        StepFailed: the first store has not got it whole: there is no such backup.
    """
    what, (first, *others) = backup.what, chosen
    new = [index.pack for index in indexes]
    taken = Taken(backup, sum(one.plain_bytes for one in new), sum(one.bytes for one in new), seconds, [])
    failed: dict[str, WarehouseError] = {}
    held = first.held(f"{what}/packs/")
    for store in others:
        with _noting(failed, store, also=first.name):
            _copy(new, first, held, store)
    if len(failed) == len(others):
        for one in new:
            pack.verify(one, held[one.key], first, lambda count: None)
    content = manifest.encode(backup)
    for store in chosen:
        with _noting(failed, store):
            if store is not first and store.name not in failed:
                _catch_up(first, store, backup, {one.key for one in new})
            if store.name not in failed:
                _lock(backup, store, what, policy)
                store.put(manifest.key_of(what, backup.id), content)
                taken.stores.append(store.name)
                taken.deleted[store.name] = retention.delete_superfluous(store, what, policy.data[what], backup.id)
        if store is first and store.name in failed:
            raise failed[store.name]
    taken.failed = [f"store {name} lacks the backup: {error.what}" for name, error in failed.items()]
    return taken


@contextmanager
def _noting(failed: dict[str, WarehouseError], store: Store, also: str = "") -> Iterator[None]:
    """Note the failure of one store and go on; that of the store which is copied from, or what is damaged in it, ends everything."""
    try:
        yield
    except (StoreFailed, Damaged) as error:
        if error.store == also:
            raise
        failed[store.name] = error


def copied(packs: Sequence[Pack], first: Store, held: dict[str, Held], others: Sequence[Store]) -> None:
    """Copy packs that are new into the other stores by reading them back; where there is no other, read them back all the same.

    Raises:
        Damaged, StoreFailed: a store has not got them whole.
    """
    for store in others:
        _copy(packs, first, held, store)
    if not others:
        for one in packs:
            pack.verify(one, held[one.key], first, lambda count: None)


def _copy(packs: Sequence[Pack], first: Store, held: dict[str, Held], store: Store) -> None:
    """Copy packs with their indexes by reading them back, and read the copies back in turn."""
    folders = {one.key.rpartition("/")[0] + "/" for one in packs}
    there = {key: one for folder in folders for key, one in store.held(folder).items()}
    missing = [one for one in packs if one.key not in there]
    if not packs:
        return
    with progress(f"store {store.name}: copying", 2 * sum(one.bytes for one in packs), of_bytes=True) as advance:
        for one in missing:
            tell(f"store {first.name}: reading {one.key} back into {store.name}")
            pack.copy(one, held[one.key], first, store, advance)
        there |= {key: one for folder in folders if missing for key, one in store.held(folder).items()}
        for one in packs:
            tell(f"store {store.name}: reading {one.key} back")
            pack.verify(one, there[one.key], store, advance)
            index = manifest.index_key(one.key)
            if index not in there and index in held:
                store.put(index, first.read(held[index]))


def _catch_up(first: Store, store: Store, newest: Manifest, proved: set[str]) -> None:
    """Bring backups and packs that a store missed into it: it was away, or lost them. A manifest follows only what was read back there.

    Args:
        proved: packs that were read back there already.
    """
    what = newest.what
    there, source = manifest.listed(store, what), first.held(f"{what}/packs/")
    missed = {backup: held for backup, held in manifest.listed(first, what).items() if backup not in there and backup != newest.id}
    packs = store.held(f"{what}/packs/")
    for held in list(reversed(there.values())) if missed else list(reversed(there.values()))[:1]:
        with _passing_over_damage():
            proved |= {one.key for one in manifest.read(store, held).packs if one.key in packs}
    for held in missed.values():
        with _passing_over_damage():
            one = manifest.read(first, held)
            _copy([pack for pack in one.packs if pack.key not in proved], first, source, store)
            proved |= {pack.key for pack in one.packs}
            store.put(manifest.key_of(what, one.id), manifest.encode(one))
    _copy([pack for pack in newest.packs if pack.key not in proved], first, source, store)


def _lock(backup: Manifest, store: Store, what: Kind, policy: Policy) -> None:
    """Lock the packs that an older backup brought for as long as this one's own."""
    lock = policy.placed(what, store.name).lock
    if lock is None:
        return
    until, held = clock.now() + timedelta(days=lock.days), store.held(f"{what}/packs/")
    own = manifest.pack_key(what, backup.id, 0).rpartition("-")[0]
    for one in backup.packs:
        for key in (one.key, manifest.index_key(one.key)):
            if not key.startswith(own) and key in held:
                store.lock_until(held[key], until)
