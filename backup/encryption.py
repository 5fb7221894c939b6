"""Sealing: bytes are compressed (zstd) and encrypted (age) as they stream; memory is bounded whatever their size.

Public keys seal, private keys open: a machine that writes backups cannot read them. What is sealed is opened by `age -d` and
`zstd -d` as well, without this project. Keys are rotated by changing the recipients: what was sealed before stays with the
old keys, which are kept as long as their backups are.
"""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, cast

from warehouse.errors import StepFailed, UsageError
from warehouse.settings import settings

if TYPE_CHECKING:
    from pyrage import x25519

_KEY = "AGE-SECRET-KEY-"


class Reads(Protocol):
    """What can be read from."""

    def read(self, size: int = -1, /) -> bytes:
        """At most `size` bytes; none at the end."""
        ...


class Writes(Protocol):
    """What can be written to."""

    def write(self, data: bytes, /) -> Any:
        """Take all of the bytes."""
        ...


class Damaged(StepFailed):
    """What was read is not what was written; `store` is the name of where it was read, if it was one."""

    def __init__(self, what: str, *, mend: str = "", store: str = "") -> None:
        super().__init__(what, mend=mend)
        self.store = store


class WrongKey(StepFailed):
    """None of the private keys given is one of those it was sealed for."""


def recipients(given: Sequence[str]) -> "list[x25519.Recipient]":
    """The public keys to seal for.

    Raises:
        UsageError: one is no public key of age; public keys are no secret, so it is shown.
    """
    import pyrage

    found = []
    for text in given:
        try:
            found.append(pyrage.x25519.Recipient.from_str(text))
        except pyrage.RecipientError:
            raise UsageError(f"the recipient {text!r} is not a public key of age: a letter is wrong.", mend="copy it again: `age-keygen -y key.txt`") from None
    if not found:
        raise UsageError("no recipient is given: nobody could read the backup.", mend="`age-keygen -o key.txt` makes a pair; docs/how-to/back-up.md")
    return found


def identities() -> "list[x25519.Identity]":
    """The private keys to open with, from `BACKUP__IDENTITIES`.

    Raises:
        UsageError: they are not set, or are no private keys of age; nothing of them is shown.
    """
    import pyrage

    given = settings().backup.identities
    text = given.get_secret_value().strip() if given else ""
    mend = "fetch the private key from escrow and set BACKUP__IDENTITIES to it, or to the path of its file"
    if not text:
        raise UsageError("BACKUP__IDENTITIES is not set: backups can be written without the private key, not read.", mend=mend)
    if not text.startswith(_KEY):
        try:
            text = Path(text).expanduser().read_text(encoding="utf-8")
        except (OSError, ValueError):
            raise UsageError("BACKUP__IDENTITIES is neither a private key of age nor a file that can be read.", mend=mend) from None
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    try:
        found = [pyrage.x25519.Identity.from_str(line) for line in lines]
    except pyrage.IdentityError:
        raise UsageError("BACKUP__IDENTITIES holds something that is not a private key of age.", mend=mend) from None
    if not found:
        raise UsageError("BACKUP__IDENTITIES names a file without a private key.", mend=mend)
    return found


class _Large:
    """Reads a mebibyte at a time for a library that asks for a few kilobytes: each of its questions would be one of the network's library."""

    def __init__(self, source: Reads) -> None:
        self._source, self._rest = source, memoryview(b"")

    def read(self, size: int = -1) -> bytes:
        if not self._rest:
            self._rest = memoryview(self._source.read(1 << 20))
        size = len(self._rest) if size < 0 else size
        taken, self._rest = self._rest[:size], self._rest[size:]
        return bytes(taken)


class _Keeps:
    """Passes bytes on, and keeps the error that the library would turn into a text."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self.error: BaseException | None = None

    def read(self, size: int = -1) -> bytes:
        return bytes(self._call(size))

    def write(self, data: bytes) -> int:
        self._call(data)
        return len(data)

    def flush(self) -> None: ...

    def _call(self, argument: Any) -> Any:
        try:
            return self._function(argument)
        except BaseException as error:
            self.error = error
            raise


def seal(source: Reads, target: Writes, keys: "Sequence[x25519.Recipient]") -> None:
    """Compress and encrypt all of `source` into `target`. What either of them raises is raised."""
    import pyrage
    import zstandard

    compressor = zstandard.ZstdCompressor(level=3, threads=settings().threads, write_checksum=True)
    kept_in, kept_out = _Keeps(source.read), _Keeps(target.write)
    try:
        pyrage.encrypt_io(compressor.stream_reader(cast(Any, kept_in), read_size=1 << 20, closefd=False), kept_out, keys)
    except Exception:  # the library's own is only a text of the one that is raised instead
        if error := kept_in.error or kept_out.error:
            raise error from None
        raise


@contextmanager
def opened(source: Reads, keys: "Sequence[x25519.Identity]") -> "Iterator[BinaryIO]":
    """Decrypt and decompress `source` while inside; leaving reads it to its end, so that nothing damaged passes unseen.

    Raises:
        Damaged: a byte is not what was sealed, or the end is missing. WrongKey: see there. What `source` raises.
    """
    import zstandard

    read_end, write_end = os.pipe()
    failed: list[BaseException] = []
    thread = threading.Thread(target=_decrypt, args=(source, write_end, keys, failed), name="decrypt", daemon=True)
    thread.start()
    with os.fdopen(read_end, "rb") as pipe:
        plain = zstandard.ZstdDecompressor().stream_reader(pipe, read_size=1 << 18, closefd=False)
        try:
            yield plain
            while plain.read(1 << 20):
                pass
        except BaseException as error:  # what the other thread met is the cause, where it met something
            with suppress(OSError):
                pipe.close()
            thread.join()
            cause = failed[0] if failed and not isinstance(failed[0], BrokenPipeError) else None
            if cause is None and isinstance(error, zstandard.ZstdError):
                cause = Damaged("the backup is damaged: it cannot be decompressed.", mend="restore from the other store")
            if cause is None:
                raise
            raise cause from None
    thread.join()
    if failed:
        raise failed[0]


def _decrypt(source: Reads, write_end: int, keys: "Sequence[x25519.Identity]", failed: list[BaseException]) -> None:
    import pyrage

    kept_in = _Keeps(_Large(source).read)
    with suppress(BrokenPipeError), os.fdopen(write_end, "wb", buffering=1 << 18) as pipe:
        kept_out = _Keeps(pipe.write)
        try:
            pyrage.decrypt_io(kept_in, kept_out, keys)
        except BaseException as error:  # raised by the thread that reads
            failed.append(kept_in.error or kept_out.error or _named(error))


def _named(error: BaseException) -> BaseException:
    if "No matching keys" in str(error):
        mend = "fetch the key that was a recipient when the backup was written: its date is in the escrow's list"
        return WrongKey("none of the private keys in BACKUP__IDENTITIES opens this backup.", mend=mend)
    return Damaged("the backup is damaged: it cannot be decrypted.", mend="restore from the other store: `--store b`")
