"""Verifying what the stores hold: every object read back whole, and what somebody has put over them found."""

from collections.abc import Sequence
from dataclasses import dataclass

from backup import manifest, pack
from backup.archive import lock_problems
from backup.encryption import Damaged
from backup.log_kept import KIND, SEGMENT_BYTES, gaps, is_partial, segments
from backup.manifest import Drill, Manifest, Pack, Received
from backup.policy import ARCHIVES, Kind
from backup.prices import needs_thaw
from backup.store import Held, Store, StoreFailed, stores
from warehouse.console import progress, tell


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a store: with which backup (the newest of those that share it), and what."""

    store: str
    backup: str
    said: str


@dataclass
class Verified:
    """What was read back, and what is wrong. `frozen` objects were looked at, not read: they must be thawed before."""

    backups: int
    objects: int
    bytes: int
    problems: list[Problem]
    frozen: int = 0


def verify(what: Kind, *, everything: bool, only: Sequence[str] = ()) -> Verified:
    """Read backups back whole from each store, and compare every byte with what was written. Needs no private key.

    Args:
        everything: all backups; else the newest of each store.
        only: the names of the stores; all that the policy keeps it in unless given.

    Raises:
        UsageError: backups are not configured.
    """
    found = Verified(0, 0, 0, [])
    for name, store in stores(what).items():
        if not only or name in only:
            try:
                _verify_store(store, what, everything, found)
            except StoreFailed as error:
                found.problems.append(Problem(name, "", error.what))
    return found


def _verify_store(store: Store, what: Kind, everything: bool, found: Verified) -> None:
    held, packs = manifest.listed(store, what), store.held(f"{what}/packs/")
    if covered := hidden(held, packs):
        found.problems.append(Problem(store.name, "", f"{len(covered)} objects are hidden or covered by what others wrote"))
    if not held:
        found.problems.append(Problem(store.name, "", "holds no backup"))
    backups: list[Manifest] = []
    for backup in reversed(held):
        try:
            backups.append(manifest.read(store, held[backup]))
            found.objects += 1
            found.bytes += held[backup].bytes
        except (StoreFailed, Damaged) as error:
            found.problems.append(Problem(store.name, backup, error.what))
        if backups and not everything:
            break
    found.backups += len(backups)
    newest = {one.key: (one, backup.id) for backup in reversed(backups) for one in backup.packs}
    if what in ARCHIVES:
        found.problems += [Problem(store.name, backup, said) for backup, said in lock_problems(store, backups, packs)]
    _small(store, f"{what}/drills/", Drill, found)
    if what == KIND:
        _small(store, f"{what}/received/", Received, found)
        newest |= _log(store, packs, found)
        _require_no_gap(store, held, found)
    with progress(f"store {store.name}: reading back", sum(one.bytes for one, _ in newest.values()), of_bytes=True) as advance:
        for key, (one, backup) in newest.items():
            tell(f"store {store.name}: reading {key} back")
            try:
                if key not in packs:
                    raise StoreFailed(f"store {store.name}: the object {key} is missing.")
                if not _can_be_read(store, packs[key]):
                    found.frozen += 1
                    _require_size(store, one, packs[key])
                    continue
                pack.verify(one, packs[key], store, advance)
                if (index := manifest.index_key(key)) in packs:
                    manifest.read_index(store, packs[index])
                    found.objects += 1
            except (StoreFailed, Damaged) as error:
                found.problems.append(Problem(store.name, backup, error.what))
            found.objects += 1
            found.bytes += one.bytes


def _can_be_read(store: Store, held: Held) -> bool:
    return not needs_thaw(held.storage_class) or store.head(held).state == "open"


def _require_size(store: Store, one: Pack, held: Held) -> None:
    """What cannot be read now is looked at: it was written part by part with its SHA-256, and is read by the drill."""
    if held.bytes != one.bytes:
        raise Damaged(f"store {store.name}: {one.key} has {held.bytes:,} bytes, {one.bytes:,} were written.", store=store.name)


def _small(store: Store, folder: str, model: "type[Drill | Received]", found: Verified) -> None:
    """What is said of backups beside them: what drills found, how far the log is received."""
    for key, one in store.held(folder).items():
        found.objects += 1
        found.bytes += one.bytes
        try:
            manifest.decode(store.read(one), model, f"store {store.name}: {key}")
        except (StoreFailed, Damaged) as error:
            found.problems.append(Problem(store.name, "", error.what))


def _log(store: Store, packs: dict[str, Held], found: Verified) -> dict[str, tuple[Pack, str]]:
    """The segments of the log by their indexes, and their objects beside the packs."""
    held = store.held(f"{KIND}/wal/")
    if covered := hidden(held):
        found.problems.append(Problem(store.name, "log", f"{len(covered)} objects of the log are hidden or covered by what others wrote"))
    packs |= held
    log = {}
    for key, one in held.items():
        if key.endswith(".index"):
            try:
                log[key.removesuffix(".index")] = (manifest.read_index(store, one).pack, "log")
            except (StoreFailed, Damaged) as error:
                found.problems.append(Problem(store.name, "log", error.what))
    return log


def _require_no_gap(store: Store, held: dict[str, Held], found: Verified) -> None:
    """From the oldest base that a store holds of each server the log must be there without a gap."""
    oldest: dict[str, Manifest] = {}
    for one in reversed(held.values()):
        try:
            base = manifest.read(store, one)
        except (StoreFailed, Damaged):
            continue  # told already
        oldest[base.versions["system"]] = base
    for system, base in oldest.items():
        log = segments(store, system)
        names = {name: is_partial(one) for name, one in log.items() if not name.endswith(".history") and name[8:] >= base.versions["wal_from"][8:]}
        whole, half = [name for name, partial in names.items() if not partial], [name for name, partial in names.items() if partial]
        if missing := gaps(base.versions["wal_from"], whole, half, int(base.versions.get("segment_bytes", SEGMENT_BYTES))):
            said = f"the log has a gap: {len(missing)} segments are missing, the first is …{missing[0]}: nothing after it can be recovered from here"
            found.problems.append(Problem(store.name, "log", said))


def hidden(*listings: dict[str, Held]) -> list[Held]:
    """The objects over which somebody put a delete marker or other bytes; we never do."""
    return [held for listing in listings for held in listing.values() if held.above]


def uncover(what: Kind) -> list[tuple[str, str]]:
    """Take away whatever was put over the objects of both stores; returns the store and the name of each.

    Raises:
        StoreFailed: a store cannot be reached, or something over an object is locked: readers pass it over all the same.
    """
    done: list[tuple[str, str]] = []
    for store in stores(what).values():
        for held in hidden(store.held(f"{what}/")):
            store.uncover(held)
            done.append((store.name, held.key))
    return done
