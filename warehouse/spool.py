"""A durable spool: what arrives is flushed to disk before it is acknowledged, and removed when it is in the warehouse.

`WAREHOUSE_HOME/spool/<source>/` holds segments, files of one record a line, readable by their owner only. Each is locked by
the process that writes it; one that nobody locks is complete, whether its writer closed it or was killed, so no reader takes
a file away from its writer, and each writer has files of its own (docs/adr/0012-webhook-spool.md).
"""

import fcntl
import json
import os
import threading
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from warehouse import clock
from warehouse.errors import StepFailed
from warehouse.files import flush_folder, write_atomically
from warehouse.settings import settings

_SUFFIX = ".spool"
_STARTED = "%Y%m%dT%H%M%S%f"
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
class Record:
    """One body as it arrived."""

    received_at: datetime
    body: bytes


@dataclass(frozen=True)
class Segment:
    """One file of the spool: where it is, how large, when its first record was received, and whether it is complete."""

    path: Path
    bytes: int
    began_at: datetime
    is_sealed: bool


@dataclass
class Content:
    """What stands in a segment.

    Attributes:
        records: in the order in which they were acknowledged.
        is_torn: whether the last line was cut off; its record was never acknowledged.
        damaged: the other lines that are not what was written.
    """

    records: list[Record] = field(default_factory=list)
    is_torn: bool = False
    damaged: list[bytes] = field(default_factory=list)


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


def is_used(source: str) -> bool:
    """Whether something was ever received for a source, or waited for, on this machine."""
    return folder(source).exists()


def segments(source: str) -> Iterator[Segment]:
    """The segments of a source, oldest first, also those that are still written to.

    Raises:
        SpoolFailed: they may not be read.
    """
    where = folder(source)
    try:
        names = sorted(name for name in os.listdir(where) if name.endswith(_SUFFIX) and not name.startswith("."))
    except FileNotFoundError:
        return
    except PermissionError:
        raise _not_ours(where) from None
    for path in (where / name for name in names):
        try:
            began_at = datetime.strptime(path.name.partition("-")[0], _STARTED).replace(tzinfo=UTC)
            with path.open("rb") as file:
                is_sealed = _lock(file.fileno(), fcntl.LOCK_SH)
                segment = Segment(path, os.fstat(file.fileno()).st_size, began_at, is_sealed)
        except FileNotFoundError:
            continue  # a load removed it meanwhile
        except PermissionError:
            raise _not_ours(path) from None
        yield segment


def _not_ours(path: Path) -> SpoolFailed:
    return SpoolFailed(f"{path} may not be read.", mend="run the receiver and what loads under one user: the spool holds personal data")


def has_sealed(source: str) -> bool:
    """Whether a load would find something to remove."""
    return any(segment.is_sealed for segment in segments(source))


def read(segment: Segment) -> Content:
    """The records of a segment; of one that is still written to, those that are whole by now."""
    lines = segment.path.read_bytes().split(b"\n")
    content = Content(is_torn=bool(lines.pop()) and segment.is_sealed)
    for line in lines:
        record = _decode(line)
        if record is None:
            content.damaged.append(line)
        else:
            content.records.append(record)
    return content


def put_aside(source: str, segment: Segment, lines: list[bytes]) -> Path:
    """Keep damaged lines for a person to look at; a repetition changes nothing. Returns the file."""
    target = _quarantine(source) / segment.path.name
    write_atomically(target, b"".join(line + b"\n" for line in lines), mode=0o600)
    return target


def remove(segment: Segment) -> None:
    """Remove a sealed segment whose records are in the warehouse."""
    if segment.is_sealed:
        segment.path.unlink(missing_ok=True)


def put_aside_files(source: str) -> int:
    """How many segments had lines that were put aside and that nobody has removed yet."""
    return sum(1 for _ in _quarantine(source).glob(f"*{_SUFFIX}"))


def _quarantine(source: str) -> Path:
    return folder(source) / "quarantine"


class Writer:
    """Appends records for one source, from any thread. One thread writes; all that came while it flushed share the next flush.

    Args:
        source: for whom.

    Raises:
        SpoolFailed: the folder cannot be made.
    """

    def __init__(self, source: str) -> None:
        self.tally = Tally()
        self._folder = folder(source)
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            flush_folder(self._folder.parent)
            self._remove_unfinished()
        except OSError as error:
            raise SpoolFailed(f"the spool {self._folder} cannot be made: {error.strerror}.", mend="WAREHOUSE_HOME must be writable by this user") from None
        self._open: _OpenSegment | None = None
        self._waiting: list[tuple[bytes, datetime, Future[None]]] = []
        self._changed = threading.Condition()
        self._is_closing = False
        self._thread = threading.Thread(target=self._work, name=f"spool {source}", daemon=True)
        self._thread.start()

    def append(self, body: bytes, received_at: datetime) -> "Future[None]":
        """Add a record; it is durable when the future has a result, and not kept when that raises SpoolFailed."""
        line, durable = _encode(Record(received_at, body)), Future[None]()
        with self._changed:
            if self._is_closing:
                raise SpoolFailed("the spool is closing.", mend="send it again")
            self._waiting.append((line, received_at, durable))
            self._changed.notify()
        return durable

    def check(self) -> None:
        """Write, flush and remove a small file beside the segments.

        Raises:
            SpoolFailed: a record could not be kept now.
        """
        probe = self._folder / f".probe.{os.getpid()}"
        try:
            with probe.open("wb") as file:
                file.write(bytes(4096))
                file.flush()
                _flush(file.fileno())
        except OSError as error:
            raise SpoolFailed(f"the spool cannot be written: {error.strerror}.", mend="free some space; nothing that was acknowledged is lost") from None
        finally:
            probe.unlink(missing_ok=True)
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
                batch, self._waiting = self._waiting, []
                is_last = self._is_closing
            wanted = [one for one in batch if one[2].set_running_or_notify_cancel()]
            if wanted:
                self._commit(wanted)
            if self._open and (is_last or self._open.size >= _FULL_BYTES or self._open.seconds_left() <= 0):
                self._seal()
            if is_last:
                return

    def _commit(self, batch: "list[tuple[bytes, datetime, Future[None]]]") -> None:
        lines = b"".join(line for line, _, _ in batch)
        error: Exception | None = None
        try:
            if self._open is None:
                self._open = _OpenSegment(self._folder, batch[0][1])
            began = time.monotonic()
            self._open.write(lines)
            self.tally.flushed(time.monotonic() - began)
            self.tally.records += len(batch)
            self.tally.bytes += len(lines)
        except OSError as failed:
            error = SpoolFailed(f"the spool cannot be written: {failed.strerror}.", mend="free some space; nothing that was acknowledged is lost")
        except Exception as failed:  # whoever waits must hear of it, and this thread must live on
            error = SpoolFailed(f"the spool cannot be written: {type(failed).__name__}.", mend="start the receiver again")
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

    def _remove_unfinished(self) -> None:
        """Remove files that were made and never got a record, since their process was killed in that instant."""
        for path in self._folder.glob(f".*{_SUFFIX}"):
            if clock.now().timestamp() - path.stat().st_mtime > _UNFINISHED_SECONDS:
                path.unlink(missing_ok=True)


class _OpenSegment:
    """A file that is written to: it appears under its name when it is locked, so that nobody takes it for a complete one."""

    def __init__(self, where: Path, began_at: datetime) -> None:
        self.size = 0
        self._until = time.monotonic() + _SEAL_AFTER
        self._path = where / f"{began_at.astimezone(UTC):{_STARTED}}-{os.urandom(4).hex()}{_SUFFIX}"
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


def _encode(record: Record) -> bytes:
    content = json.dumps({"received_at": record.received_at.isoformat(), "body": record.body.decode("utf-8", "surrogateescape")}).encode()
    return b"%08x %s\n" % (zlib.crc32(content), content)


def _decode(line: bytes) -> Record | None:
    checksum, _, content = line.partition(b" ")
    try:
        if int(checksum, 16) != zlib.crc32(content):
            return None
        fields = json.loads(content)
        return Record(datetime.fromisoformat(fields["received_at"]), fields["body"].encode("utf-8", "surrogateescape"))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
