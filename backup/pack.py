"""Packs: several files as one sealed object, a tar inside; streamed both ways, never whole in memory or on disk."""

import hashlib
import os
import shutil
import tarfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from backup.encryption import Damaged, Reads, opened, seal
from backup.manifest import File, Index, Pack, encode, index_key
from backup.store import Held, Store, Stored
from warehouse.errors import StepFailed

if TYPE_CHECKING:
    from pyrage import x25519

_CHUNK = 1 << 20
_ALONE_BYTES = 64 << 20
"""A file of this size has a pack of its own: it can be taken over unchanged by the next backup."""
_PACK_BYTES = 1 << 30
_BLOCK = 512


class Checked(Reads, Protocol):
    """What can be read from, and then compared with what was written."""

    def check(self, expected: Stored) -> None:
        """Compare; reads on to the end first. Raises Damaged."""
        ...


@dataclass(frozen=True)
class Source:
    """A file that is to be kept as `path`; `file` is where its bytes are now, and they do not change."""

    path: str
    file: Path
    bytes: int
    sha256: str
    mode: int
    modified_ns: int


def batches(sources: Iterable[Source], alone: int = _ALONE_BYTES, most: int = _PACK_BYTES) -> Iterator[list[Source]]:
    """Divide files into packs: large ones alone, small ones together up to a gibibyte.

    Args:
        alone: bytes from which on a file has a pack of its own. most: bytes that a pack of several has at the most.
    """
    together: list[Source] = []
    size = 0
    for source in sources:
        if source.bytes >= alone:
            yield [source]
            continue
        if together and size + source.bytes > most:
            yield together
            together, size = [], 0
        together.append(source)
        size += source.bytes
    if together:
        yield together


def write(store: Store, key: str, sources: Sequence[Source], keys: "Sequence[x25519.Recipient]", advance: Callable[[int], None]) -> Index:
    """Seal files into a store as one object, then its index; see `sealed`."""
    return _indexed(store, sealed(store, key, sources, keys, advance))


def sealed(store: Store, key: str, sources: Sequence[Source], keys: "Sequence[x25519.Recipient]", advance: Callable[[int], None]) -> Index:
    """Seal files into a store as one object, and nothing else.

    Args:
        advance: called with the bytes of files done since the last call.

    Raises:
        StoreFailed: the store refuses or cannot be reached. StepFailed: a file changed meanwhile.
    """
    plain = sum(source.bytes for source in sources)
    with store.upload(key, plain) as upload:
        seal(_Stream(_tar(sources, advance)), upload, keys)
    pack = Pack(key=key, bytes=upload.stored.bytes, sha256=upload.stored.sha256, plain_bytes=plain)
    files = tuple(
        File(path=one.path, bytes=one.bytes, sha256=one.sha256, mode=one.mode, modified_ns=one.modified_ns, pack=key, member=one.path) for one in sources
    )
    return Index(pack=pack, files=files)


def write_stream(store: Store, key: str, path: str, source: Reads, keys: "Sequence[x25519.Recipient]", estimate: int, advance: Callable[[int], None]) -> Index:
    """Seal what is read from `source`, whose size nobody knows before, as one object that is the file `path`; then its index.

    Args:
        estimate: about how many bytes there will be.

    Raises:
        StoreFailed: the store refuses or cannot be reached. What `source` raises, also at its end: nothing is kept then.
    """
    counted = _Counted(source, advance)
    with store.upload(key, estimate) as upload:
        seal(counted, upload, keys)
    pack = Pack(key=key, bytes=upload.stored.bytes, sha256=upload.stored.sha256, plain_bytes=counted.bytes)
    now = time.time_ns()
    file = File(path=path, bytes=counted.bytes, sha256=counted.digest.hexdigest(), mode=0o600, modified_ns=now, pack=key, member="")
    return _indexed(store, Index(pack=pack, files=(file,)))


def _indexed(store: Store, index: Index) -> Index:
    store.put(index_key(index.pack.key), encode(index))
    return index


def copy(pack: Pack, held: Held, source: Store, target: Store, advance: Callable[[int], None]) -> None:
    """Copy a pack from one store to another by reading it back: what arrives is what was written, or nothing arrives.

    Raises:
        Damaged: the source's object is not what was written. StoreFailed: see there; `store` says whose failure it is.
    """
    reader = source.reader(held)
    with target.upload(pack.key, pack.bytes) as upload:
        while chunk := reader.read(_CHUNK):
            upload.write(chunk)
            advance(len(chunk))
        reader.check(written(pack))


def verify(pack: Pack, held: Held, store: Store, advance: Callable[[int], None]) -> None:
    """Read a pack back whole. Raises as `copy`."""
    reader = store.reader(held)
    while chunk := reader.read(_CHUNK):
        advance(len(chunk))
    reader.check(written(pack))


def written(pack: Pack) -> Stored:
    """A pack's object as it was written."""
    return Stored(pack.key, pack.bytes, pack.sha256)


def unpack(pack: Pack, held: Held, store: Store, wanted: Sequence[File], into: Path, keys: "Sequence[x25519.Identity]", advance: Callable[[int], None]) -> None:
    """Write the wanted files of a pack below a folder, each verified; those written before are replaced.

    Raises:
        Damaged: something is not what was written. WrongKey, StoreFailed: see there.
    """
    unpack_from(store.reader(held), f"store {store.name}", pack, wanted, into, keys, advance)


def unpack_from(
    reader: Checked, where: str, pack: Pack, wanted: Sequence[File], into: Path, keys: "Sequence[x25519.Identity]", advance: Callable[[int], None]
) -> None:
    """The same from whatever holds the pack's bytes; `where` says what that is."""
    if [file.member for file in wanted] == [""]:
        with opened(reader, keys) as plain:
            _write(plain, wanted[0], into, advance)
        reader.check(written(pack))
        return
    by_member: dict[str, list[File]] = {}
    for file in wanted:
        by_member.setdefault(file.member, []).append(file)
    try:
        with opened(reader, keys) as plain, tarfile.open(fileobj=plain, mode="r|") as tar:
            for member in tar:
                for index, file in enumerate(alike := by_member.pop(member.name, [])):
                    if index == 0:
                        _extract(tar, member, file, into, advance)
                    else:
                        _repeat(alike[0], file, into)
    except tarfile.TarError:
        raise _damaged(where, pack) from None
    reader.check(written(pack))
    if by_member:
        raise _damaged(where, pack)


def _damaged(where: str, pack: Pack) -> Damaged:
    return Damaged(f"{where}: {pack.key} is not what was written.", mend="restore from the other store: `--store b`")


def _extract(tar: tarfile.TarFile, member: tarfile.TarInfo, file: File, into: Path, advance: Callable[[int], None]) -> None:
    content = tar.extractfile(member)
    if content is not None:
        _write(content, file, into, advance)


def _write(content: Reads, file: File, into: Path, advance: Callable[[int], None]) -> None:
    target, digest = _new(into, file.path), hashlib.sha256()
    with target.open("wb") as out:
        while chunk := content.read(_CHUNK):
            digest.update(chunk)
            out.write(chunk)
            advance(len(chunk))
    if digest.hexdigest() != file.sha256:
        raise Damaged(f"{file.path} is not what was written.", mend="restore from the other store: `--store b`")
    _finish(target, file)


def _repeat(first: File, file: File, into: Path) -> None:
    target = _new(into, file.path)
    shutil.copyfile(place(into, first.path), target)
    _finish(target, file)


def _new(into: Path, path: str) -> Path:
    target = place(into, path)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    return target


def _finish(target: Path, file: File) -> None:
    target.chmod(file.mode)
    os.utime(target, ns=(file.modified_ns, file.modified_ns))


def place(into: Path, path: str) -> Path:
    """Where a file of a backup goes.

    Raises:
        Damaged: the path leads out of the folder.
    """
    target = into / path
    if Path(path).is_absolute() or ".." in Path(path).parts:
        raise Damaged(f"the manifest names {path!r}, which is no path of a backup.", mend="it was not written by this project")
    return target


def copies(files: Iterable[File]) -> Mapping[str, list[File]]:
    """Files by the pack that holds them."""
    found: dict[str, list[File]] = {}
    for file in files:
        found.setdefault(file.pack, []).append(file)
    return found


def _tar(sources: Sequence[Source], advance: Callable[[int], None]) -> Iterator[bytes]:
    for source in sources:
        info = tarfile.TarInfo(source.path)
        info.size, info.mode, info.mtime = source.bytes, source.mode, source.modified_ns // 10**9
        yield info.tobuf(tarfile.PAX_FORMAT)
        digest = hashlib.sha256()
        with source.file.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
                yield chunk
                advance(len(chunk))
        if digest.hexdigest() != source.sha256:
            raise StepFailed(f"{source.path} changed while it was read.", mend="run again; if it stays, look at this machine's disk and memory")
        yield bytes(-source.bytes % _BLOCK)
    yield bytes(2 * _BLOCK)


class _Counted:
    """Passes on what is read, with its size and SHA-256."""

    def __init__(self, source: Reads, advance: Callable[[int], None]) -> None:
        self._source, self._advance = source, advance
        self.digest, self.bytes = hashlib.sha256(), 0

    def read(self, size: int = -1) -> bytes:
        data = self._source.read(size)
        self.digest.update(data)
        self.bytes += len(data)
        self._advance(len(data))
        return data


class _Stream:
    """What yields bytes, as something to read from."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks, self._rest = chunks, memoryview(b"")

    def read(self, size: int = -1) -> bytes:
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return b""
            self._rest = memoryview(chunk)
        size = len(self._rest) if size < 0 else size
        taken, self._rest = self._rest[:size], self._rest[size:]
        return bytes(taken)
