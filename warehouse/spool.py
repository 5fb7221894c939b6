"""A durable spool: what arrives is kept for good before it is acknowledged, and removed when it is in the warehouse.

`WAREHOUSE_HOME/spool/<source>/` holds segments, files of one record a line, readable by their owner only. Each is locked by
the process that writes it; one that nobody locks is complete, whether its writer closed it or was killed, so no reader takes
a file away from its writer, and each writer has files of its own. Where a bucket is set, segments are objects of it instead;
files that were left from before are read all the same (docs/adr/0012-webhook-spool.md).
"""

import fcntl
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Protocol

from warehouse import clock
from warehouse.errors import StepFailed, WarehouseError
from warehouse.files import flush_folder, write_atomically
from warehouse.settings import settings
from warehouse.spool_bucket import SpoolBucket, bucket_of
from warehouse.spool_format import SUFFIX, Content, Record, began_at, content_of, encode, name_of

_FULL_BYTES = 4 << 20
_SEAL_AFTER = 1.0
"""Seconds until a segment is complete, and so the longest that a record waits before a load removes it."""
_UNFINISHED_SECONDS = 60
_flush = getattr(os, "fdatasync", os.fsync)  # macOS has the latter only

FLUSH_BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
"""Upper bounds, in seconds, of the classes in which flushes are counted."""


class SpoolFailed(StepFailed):
    """A record was not kept, and nothing of it can be read."""


@dataclass(frozen=True)
class Segment:
    """One file of the spool, or one object of its bucket.

    Attributes:
        bytes: its size.
        began_at: when its first record was received.
        is_sealed: whether it is complete; an object always is.
        bucket: where it is, if it is an object.
    """

    source: str
    name: str
    bytes: int
    began_at: datetime
    is_sealed: bool
    bucket: SpoolBucket | None = None

    @property
    def path(self) -> Path:
        """Where the file is, if it is one."""
        return folder(self.source) / self.name


@dataclass
class Tally:
    """What a writer did since it began; flushes by the classes of `FLUSH_BOUNDS`, and one for all that were longer."""

    records: int = 0
    bytes: int = 0
    failures: int = 0
    flushes: list[int] = field(default_factory=lambda: [0] * (len(FLUSH_BOUNDS) + 1))
    flush_seconds: float = 0.0

    def flushed(self, seconds: float) -> None:
        """Count one flush."""
        self.flush_seconds += seconds
        self.flushes[next((index for index, bound in enumerate(FLUSH_BOUNDS) if seconds <= bound), len(FLUSH_BOUNDS))] += 1


def folder(source: str) -> Path:
    """Where what arrives for a source is kept until it is loaded."""
    return settings().spool / source


def place(source: str) -> str:
    """Where what arrives now is kept, for people."""
    return str(bucket_of(source) or folder(source))


def is_used(source: str) -> bool:
    """Whether something was ever received for a source, or waited for, on this machine or in a bucket."""
    return folder(source).exists() or settings().spool_bucket(source) is not None


def segments(source: str) -> Iterator[Segment]:
    """The segments of a source, also those that are still written to: the files, then the objects, each oldest first.

    Raises:
        SpoolFailed: the files may not be read. UsageError, StepFailed: the bucket cannot be listed.
    """
    yield from _files(source)
    yield from list(_objects(source))  # what arrives while they are read is the next load's


def _files(source: str) -> Iterator[Segment]:
    where = folder(source)
    try:
        names = sorted(name for name in os.listdir(where) if name.endswith(SUFFIX) and not name.startswith("."))
    except FileNotFoundError:
        return
    except PermissionError:
        raise _not_ours(where) from None
    for path in (where / name for name in names):
        try:
            with path.open("rb") as file:
                is_sealed = _lock(file.fileno(), fcntl.LOCK_SH)
                segment = Segment(source, path.name, os.fstat(file.fileno()).st_size, began_at(path.name), is_sealed)
        except FileNotFoundError:
            continue  # a load removed it meanwhile
        except PermissionError:
            raise _not_ours(path) from None
        yield segment


def _objects(source: str) -> Iterator[Segment]:
    if bucket := bucket_of(source):
        for one in (one for one in bucket.objects() if one.name.endswith(SUFFIX)):
            yield Segment(source, one.name, one.bytes, began_at(one.name), is_sealed=True, bucket=bucket)


def _not_ours(path: Path) -> SpoolFailed:
    return SpoolFailed(f"{path} may not be read.", mend="run the receiver and what loads under one user: the spool holds personal data")


def has_sealed(source: str) -> bool:
    """Whether a load would find a file to remove."""
    return any(segment.is_sealed for segment in _files(source))


def has_stored(source: str) -> bool:
    """Whether a load would find an object to remove; each call lists the bucket.

    Raises:
        UsageError, StepFailed: the bucket cannot be listed.
    """
    return next(_objects(source), None) is not None


def read(segment: Segment) -> Content:
    """The records of a segment; of one that is still written to, those that are whole by now.

    Raises:
        FileNotFoundError: it was removed meanwhile. UsageError, StepFailed: the bucket does not give it.
    """
    return content_of(segment.bucket.read(segment.name) if segment.bucket else segment.path.read_bytes(), is_sealed=segment.is_sealed)


def put_aside(source: str, segment: Segment, lines: list[bytes]) -> Path:
    """Keep damaged lines for a person to look at; a repetition changes nothing. Returns the file."""
    target = _quarantine(source) / segment.name
    target.parent.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_atomically(target, b"".join(line + b"\n" for line in lines), mode=0o600)
    return target


def remove(segment: Segment) -> None:
    """Remove a sealed segment whose records are in the warehouse."""
    if segment.bucket:
        segment.bucket.remove(segment.name)
    elif segment.is_sealed:
        segment.path.unlink(missing_ok=True)


def put_aside_files(source: str) -> int:
    """How many segments had lines that were put aside and that nobody has removed yet."""
    return sum(1 for _ in _quarantine(source).glob(f"*{SUFFIX}"))


def _quarantine(source: str) -> Path:
    return folder(source) / "quarantine"


class _Open(Protocol):
    """What records are being added to."""

    size: int

    def seconds_left(self) -> float:
        """Until it must be complete."""

    def write(self, lines: bytes) -> None:
        """Add lines for good, or raise and leave nothing of them."""

    def close(self) -> None:
        """Complete it."""


class _Place(Protocol):
    """Where segments are made."""

    def begin(self, name: str) -> _Open:
        """A new segment."""

    def probe(self) -> None:
        """Raise when a record could not be kept now."""


class Writer:
    """Appends records for one source, from any thread. One thread writes; all that came while it wrote share the next write.

    Args:
        source: for whom.

    Raises:
        SpoolFailed: the folder cannot be made. UsageError: the settings of the bucket are not whole.
    """

    def __init__(self, source: str) -> None:
        self.tally = Tally()
        self._place: _Place = bucket_of(source) or _Folder(folder(source))
        self._open: _Open | None = None
        self._waiting: list[tuple[bytes, datetime, Future[None]]] = []
        self._changed = threading.Condition()
        self._is_closing = False
        self._thread = threading.Thread(target=self._work, name=f"spool {source}", daemon=True)
        self._thread.start()

    def append(self, body: bytes, received_at: datetime) -> "Future[None]":
        """Add a record; it is durable when the future has a result, and not kept when that raises SpoolFailed."""
        line, durable = encode(Record(received_at, body)), Future[None]()
        with self._changed:
            if self._is_closing:
                raise SpoolFailed("the spool is closing.", mend="send it again")
            self._waiting.append((line, received_at, durable))
            self._changed.notify()
        return durable

    def check(self) -> None:
        """Keep a small file, or object, beside the segments.

        Raises:
            SpoolFailed: a record could not be kept now.
        """
        try:
            self._place.probe()
        except (OSError, WarehouseError) as error:
            raise _failed(error) from None
        if not self._thread.is_alive():
            raise SpoolFailed("the spool's writer has ended.", mend="start the receiver again")

    def close(self) -> None:
        """Write what is waiting, seal, and end."""
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._is_closing and not (self._open and self._open.seconds_left() <= 0):
                    self._changed.wait(self._open.seconds_left() if self._open else None)
                batch = self._take()
                is_last = self._is_closing and not self._waiting
            wanted = [one for one in batch if one[2].set_running_or_notify_cancel()]
            if wanted:
                self._commit(wanted)
            if self._open and (is_last or self._open.size >= _FULL_BYTES or self._open.seconds_left() <= 0):
                self._seal()
            if is_last:
                return

    def _take(self) -> "list[tuple[bytes, datetime, Future[None]]]":
        """As many of those waiting as a segment is meant to hold, and at least one."""
        number = size = 0
        for line, _, _ in self._waiting:
            if number and size + len(line) > _FULL_BYTES:
                break
            number, size = number + 1, size + len(line)
        taken, self._waiting = self._waiting[:number], self._waiting[number:]
        return taken

    def _commit(self, batch: "list[tuple[bytes, datetime, Future[None]]]") -> None:
        lines = b"".join(line for line, _, _ in batch)
        error: Exception | None = None
        try:
            if self._open is None:
                self._open = self._place.begin(name_of(batch[0][1]))
            began = time.monotonic()
            self._open.write(lines)
            self.tally.flushed(time.monotonic() - began)
            self.tally.records += len(batch)
            self.tally.bytes += len(lines)
        except Exception as failed:  # whoever waits must hear of it, and this thread must live on
            error = _failed(failed)
        if error is not None:
            self.tally.failures += len(batch)
            self._seal()  # after a flush that failed nobody knows what of this file is on disk
        for _, _, durable in batch:
            if error is None:
                durable.set_result(None)
            else:
                durable.set_exception(error)

    def _seal(self) -> None:
        if self._open is not None:
            with suppress(OSError):  # what was acknowledged has been flushed before
                self._open.close()
            self._open = None


def _failed(error: Exception) -> SpoolFailed:
    if isinstance(error, WarehouseError):
        return SpoolFailed(f"the spool cannot be written: {error.what}", mend=error.mend)
    if isinstance(error, OSError):
        return SpoolFailed(f"the spool cannot be written: {error.strerror}.", mend="free some space; nothing that was acknowledged is lost")
    return SpoolFailed(f"the spool cannot be written: {type(error).__name__}.", mend="start the receiver again")


class _Folder:
    """Files of this machine."""

    def __init__(self, where: Path) -> None:
        self._where = where
        try:
            where.mkdir(parents=True, exist_ok=True, mode=0o700)
            flush_folder(where.parent)
            for path in where.glob(f".*{SUFFIX}"):  # made, and never given a record, since the process was killed in that instant
                if clock.now().timestamp() - path.stat().st_mtime > _UNFINISHED_SECONDS:
                    path.unlink(missing_ok=True)
        except OSError as error:
            raise SpoolFailed(f"the spool {where} cannot be made: {error.strerror}.", mend="WAREHOUSE_HOME must be writable by this user") from None

    def begin(self, name: str) -> "_OpenSegment":
        return _OpenSegment(self._where, name)

    def probe(self) -> None:
        probe = self._where / f".probe.{os.getpid()}"
        try:
            with probe.open("wb") as file:
                file.write(bytes(4096))
                file.flush()
                _flush(file.fileno())
        finally:
            probe.unlink(missing_ok=True)


class _OpenSegment:
    """A file that is written to: it appears under its name when it is locked, so that nobody takes it for a complete one."""

    def __init__(self, where: Path, name: str) -> None:
        self.size = 0
        self._until = time.monotonic() + _SEAL_AFTER
        self._path = where / name
        hidden = where / f".{self._path.name}"
        self._handle = os.open(hidden, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        try:
            _lock(self._handle, fcntl.LOCK_EX)
            hidden.rename(self._path)
            flush_folder(where)
        except OSError:
            os.close(self._handle)
            hidden.unlink(missing_ok=True)
            self._path.unlink(missing_ok=True)
            raise

    def seconds_left(self) -> float:
        return self._until - time.monotonic()

    def write(self, lines: bytes) -> None:
        """Add lines durably; when that fails, the file is what it was."""
        try:
            rest = memoryview(lines)
            while rest:
                rest = rest[os.write(self._handle, rest) :]
            _flush(self._handle)
        except BaseException:
            os.ftruncate(self._handle, self.size)
            raise
        self.size += len(lines)

    def close(self) -> None:
        if self.size == 0:
            self._path.unlink(missing_ok=True)
        os.close(self._handle)


def _lock(handle: int, how: int) -> bool:
    try:
        fcntl.flock(handle, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
