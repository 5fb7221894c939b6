"""Restoring an archive: asked for, thawed, downloaded so that a cut costs nothing twice, and compared before the folder appears."""

import hashlib
import os
import shlex
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from backup import pack, prices, thaw
from backup.archive import Copy
from backup.encryption import Damaged, WrongKey, identities
from backup.export import require_equal
from backup.manifest import Manifest, Pack
from backup.policy import Thaw, policy
from backup.restore import Restored, fresh
from backup.store import Frozen, Held, Store, Stored, StoreFailed
from warehouse.console import progress, tell
from warehouse.errors import StepFailed, UsageError
from warehouse.files import flush_folder

if TYPE_CHECKING:
    from typing import BinaryIO

    from pyrage import x25519

_CHUNK = 1 << 20


def restore_archive(copies: Sequence[Copy], into: Path, ways: Sequence[Thaw] = (), *, wait: bool = False) -> Restored:
    """Bring an archive's files into a folder that does not exist yet, from the first copy that is whole; compared, or not at all.

    Killed or cut at any moment and called again, it goes on: a thaw is asked for once, what was downloaded is not downloaded again.

    Args:
        copies: see `archive.copies_of`.
        ways: how each is thawed; as the policy says unless given.
        wait: stay until it has thawed.

    Raises:
        UsageError: the private key is not set, or the folder is in use. WrongKey: it is another key; found before anything is paid for.
        ComeBack: it thaws, and is not to be waited for. Damaged, StoreFailed: no copy is whole. StepFailed: a table is not equal.
    """
    began, keys = time.monotonic(), identities()
    _require_key(copies[0].backup, keys)
    restored, failure = Restored(copies[0].backup, into), None
    for copy, way in zip(copies, ways or [thaw_of(copy) for copy in copies], strict=True):
        try:
            _restore(copy, into, way, keys, restored, wait=wait)
        except (Damaged, StoreFailed) as error:
            failure = error
            restored.notes.append(error.what)
        else:
            restored.backup, restored.stores, restored.seconds = copy.backup, [copy.store.name], time.monotonic() - began
            return restored
    raise failure or StoreFailed(f"no store holds the archive {copies[0].backup.id}.")


def thaw_of(copy: Copy, tier: str | None = None, days: int | None = None) -> Thaw:
    """How a copy is thawed: as the policy says, unless something else is given.

    Raises:
        UsageError: its storage class has no such tier.
    """
    said = policy().data[copy.kind].thaw
    chosen = Thaw.model_validate({"tier": tier or said.tier, "days": days or said.days})
    for kept_as in {held.storage_class for held in copy.objects}:
        known = prices.of(kept_as).thaw
        if known and chosen.tier not in known:
            raise UsageError(f"--tier {chosen.tier}: {kept_as} has {' and '.join(known)}.", mend="name one of them")
    return chosen


def _require_key(one: Manifest, keys: "list[x25519.Identity]") -> None:
    """
    Raises:
        WrongKey: none of the keys is of a recipient that the manifest names.
    """
    if one.recipients and not {str(key.to_public()) for key in keys} & set(one.recipients):
        mend = f"fetch the key of one of its recipients: {', '.join(one.recipients)}"
        raise WrongKey(f"none of the private keys in BACKUP__IDENTITIES opens the archive {one.id}; nothing was asked for.", mend=mend)


def _restore(copy: Copy, into: Path, given: Thaw, keys: "list[x25519.Identity]", restored: Restored, *, wait: bool) -> None:
    one = copy.backup
    partial, downloaded = fresh(into, one), into.with_name(f".{into.name}.download")
    try:
        again = shlex.join(["warehouse", "restore", "archive", one.id, "--into", str(into), "--store", copy.store.name])
        thaw.require(copy.store, copy.objects, one.id, given, again, wait=wait)
        _require_room(into, one, downloaded)
        files = [_download(copy.store, each, held, downloaded) for each, held in zip(one.packs, copy.objects, strict=True)]
        with progress("opening", one.bytes, of_bytes=True) as advance:
            for file, each in zip(files, one.packs, strict=True):
                wanted = [inside for inside in one.files if inside.pack == each.key]
                with file.open("rb") as sealed:
                    pack.unpack_from(_Local(sealed, file), str(file), each, wanted, partial, keys, advance)
        with progress("comparing"):
            require_equal(one, partial)
        restored.tables = len(one.tables)
        os.sync()
        os.rename(partial, into)
        flush_folder(into.parent)
        shutil.rmtree(downloaded, ignore_errors=True)
    except Frozen as error:
        raise StoreFailed(f"{error.what} It froze again while it was read.", mend=f"run again: {again}; it is asked for anew", store=copy.store.name) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _require_room(into: Path, one: Manifest, downloaded: Path) -> None:
    there = sum(file.stat().st_size for file in downloaded.glob("*")) if downloaded.exists() else 0
    needed = int(one.bytes * 1.05) + sum(each.bytes for each in one.packs) - there
    free = shutil.disk_usage(into.parent).free
    if free < needed:
        raise StepFailed(f"{into.parent} has {free // 10**6} MB free, the archive needs {needed // 10**6} MB.", mend="restore to a larger disk")


def _download(store: Store, one: Pack, held: Held, folder: Path) -> Path:
    """An object as a file, whole and verified; one that was begun before goes on where it was.

    Raises:
        Damaged: it is not what was written. StoreFailed: see there; the file stays, for the next time.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    file = folder / one.sha256
    was_begun = file.exists() and file.stat().st_size > 0
    try:
        _fetch(store, one, held, file)
    except Damaged:
        file.unlink(missing_ok=True)  # it would be found so again
        if not was_begun:
            raise
        _fetch(store, one, held, file)  # what lay here from before may be what was damaged
    return file


def _fetch(store: Store, one: Pack, held: Held, file: Path) -> None:
    reader = store.reader(held)
    with file.open("ab+") as out, progress(f"store {store.name}: downloading", one.bytes, of_bytes=True) as advance:
        out.seek(0)
        while chunk := out.read(_CHUNK):
            reader.passed(chunk)
            advance(len(chunk))
        if reader.bytes:
            tell(f"store {store.name}: downloading goes on at {reader.bytes:,} of {one.bytes:,} bytes")
        while chunk := reader.read(_CHUNK):
            out.write(chunk)
            advance(len(chunk))
        reader.check(pack.written(one))
        out.flush()
        os.fsync(out.fileno())


class _Local:
    """A downloaded object, read once more while it is opened."""

    def __init__(self, file: "BinaryIO", path: Path) -> None:
        self._file, self._path, self._digest, self._bytes = file, path, hashlib.sha256(), 0

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size if size > 0 else _CHUNK)
        self._digest.update(data)
        self._bytes += len(data)
        return data

    def check(self, expected: Stored) -> None:
        """Compare; see `Checked`."""
        while self.read(_CHUNK):
            pass
        if (self._bytes, self._digest.hexdigest()) != (expected.bytes, expected.sha256):
            raise Damaged(f"{self._path} is not what was downloaded.", mend="look at this machine's disk; take the file away, and run again")
