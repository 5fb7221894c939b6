"""The records of privacy in the stores: the ledger of erasures, the audit trail, the consents. Beside the backups, never in them.

Each copy is a pack, sealed as backups are, and a head: how many lines each record has, and the seal of the last. Heads are
written once, locked as the policy says, and readable without a key: whoever cuts a record on this machine, or puts an older one
in its place, disagrees with them. A restore asks them how far the ledger went.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path

from backup import manifest, pack, snapshot
from backup.encryption import Damaged, identities, recipients
from backup.manifest import Head
from backup.pack import Source
from backup.policy import configured
from backup.restore import Choice
from backup.store import Forbidden, Held, Store, StoreFailed, stores
from privacy import records
from warehouse import clock
from warehouse.errors import StepFailed, UsageError, WarehouseError
from warehouse.files import flush_folder, sha256

FOLDER = "records/"
_KEPT = 20
"""Copies that are kept: each holds all that the one before held, and locked ones stay anyway."""


def keep() -> list[str]:
    """Copy the records as they are now into every store, unless its newest copy is the same. Hold the lease.

    Returns:
        what went wrong, a line a store.

    Raises:
        UsageError: backups are not configured. StepFailed: a record was tampered with; no store has the copy.
    """
    heads = records.heads()
    if not heads:
        return []
    failed = []
    with _copied() as sources:
        for store in stores().values():
            try:
                _keep_in(store, heads, sources)
            except WarehouseError as error:
                failed.append(error.what)
    return failed


def _keep_in(store: Store, heads: dict[str, str], sources: list[Source]) -> None:
    held = store.held(FOLDER)
    known = _ids(held)
    if known and (newest := _read(store, held, known[-1])).heads == heads:
        lock = store.declared.lock
        for key in (f"{FOLDER}{known[-1]}.head", newest.index.pack.key, manifest.index_key(newest.index.pack.key)):
            if lock and key in held:
                store.lock_until(held[key], clock.now() + timedelta(days=lock.days))
        return
    one = manifest.new_id(clock.now())
    index = pack.write(store, f"{FOLDER}{one}.tar.zst.age", sources, recipients(configured().recipients), lambda count: None)
    store.put(f"{FOLDER}{one}.head", manifest.encode(Head(id=one, at=clock.now(), heads=heads, index=index)))
    superfluous = set(known[: 1 - _KEPT])
    for key, object_ in held.items():
        if not key.endswith(".head") and key.removeprefix(FOLDER).partition(".")[0] in superfluous:
            with suppress(Forbidden):  # its lock lasts
                store.delete(object_)


@contextmanager
def _copied() -> Iterator[list[Source]]:
    """The records' files, aside: what is appended meanwhile does not change them."""
    folder = snapshot.folder() / f"records-{os.getpid()}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, mode=0o700)
    try:
        found = []
        for path in records.files():
            shutil.copy2(path, folder / path.name)
            now = (folder / path.name).stat()
            found.append(Source(path.name, folder / path.name, now.st_size, sha256(folder / path.name), 0o600, now.st_mtime_ns))
        yield found
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _ids(held: dict[str, Held]) -> list[str]:
    """The copies among the objects of a store, oldest first."""
    return sorted(key.removeprefix(FOLDER).removesuffix(".head") for key in held if key.endswith(".head"))


def _read(store: Store, held: dict[str, Held], one: str) -> Head:
    key = f"{FOLDER}{one}.head"
    return manifest.decode(store.read(held[key]), Head, f"store {store.name}: {key}")


def newest_heads(only: list[Store] | None = None) -> list[tuple[Store, Head]]:
    """The newest head of each store that answers and has one; a store that is away is passed over unless all are.

    Raises:
        StoreFailed: none answers. Damaged: a head is not what was written.
    """
    found, failure, asked = [], None, only if only is not None else list(stores().values())
    for store in asked:
        try:
            held = store.held(FOLDER)
            known = _ids(held)
            found += [(store, _read(store, held, known[-1]))] if known else []
        except StoreFailed as error:
            failure = error
            asked = [one for one in asked if one is not store]
    if failure is not None and not asked:
        raise failure
    return found


def problems() -> list[str]:
    """What is wrong with the records by what the stores know of them, in words."""
    return [problem for store, head in newest_heads() for problem in records.against(head.heads, f"store {store.name}, {head.at:%Y-%m-%d %H:%M:%S} UTC")]


def marks(choice: Choice, backup: str) -> list[str]:
    """How far the ledger of erasures went, by all that the stores know: the backup itself, the newest one, and the newest heads."""
    known = [choice.read(backup).erasures]
    for newer in reversed(choice.ids()):
        with suppress(Damaged, StoreFailed):  # noted by the choice: a damaged one must not keep those from coming back that are whole
            known.append(choice.read(newer).erasures)
            break
    known += [head.heads.get(records.ERASURES) for _, head in newest_heads([place.store for place in choice.places])]
    return sorted({mark for mark in known if mark})


def restore_records(into: Path) -> tuple[Head, list[Path]] | None:
    """Bring the newest copy of the records back, into the folder that settings name for them unless another is given.

    Returns:
        its head, and the files; None where no store holds a copy.

    Raises:
        UsageError: the private key is not set, or there are records already.
    """
    found = newest_heads()
    if not found:
        return None
    store, head = max(found, key=lambda one: (sum(records.lines_of(mark) for mark in one[1].heads.values()), one[1].at))
    there = [path for file in head.index.files if (path := records.place_of(file.path, into)).exists()]
    if there:
        raise UsageError(f"there are records already: {there[0]}; none is written over.", mend="move them away first, if the copy is the right one")
    keys = identities()
    partial = into.with_name(f".{into.name}.part")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True, mode=0o700)
    try:
        pack.unpack(head.index.pack, store.held(head.index.pack.key)[head.index.pack.key], store, head.index.files, partial, keys, lambda count: None)
        into.mkdir(parents=True, exist_ok=True, mode=0o700)
        brought = []
        for file in head.index.files:
            target = records.place_of(file.path, into)
            target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            os.replace(partial / file.path, target)
            brought.append(target)
        flush_folder(into)
        return head, brought
    except KeyError:
        raise StepFailed(f"store {store.name} has the head of the copy, and not the copy.", mend="restore from the other store") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
