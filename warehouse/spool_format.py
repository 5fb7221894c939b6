"""What a segment of the spool is called and holds: a record a line, each with a checksum."""

import json
import os
import zlib
from dataclasses import dataclass, field
from datetime import UTC, datetime

SUFFIX = ".spool"
_STARTED = "%Y%m%dT%H%M%S%f"


@dataclass(frozen=True)
class Record:
    """One body as it arrived."""

    received_at: datetime
    body: bytes


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


def name_of(at: datetime) -> str:
    """A name for a segment that nobody else gives; they sort by time."""
    return f"{at.astimezone(UTC):{_STARTED}}-{os.urandom(8).hex()}{SUFFIX}"


def began_at(name: str) -> datetime:
    """When the first record of a segment was received, by its name."""
    return datetime.strptime(name.partition("-")[0], _STARTED).replace(tzinfo=UTC)


def encode(record: Record) -> bytes:
    """A record as a line, with a checksum before it."""
    content = json.dumps({"received_at": record.received_at.isoformat(), "body": record.body.decode("utf-8", "surrogateescape")}).encode()
    return b"%08x %s\n" % (zlib.crc32(content), content)


def content_of(segment: bytes, *, is_sealed: bool) -> Content:
    """What stands in a segment; of one that is still written to, the whole lines."""
    lines = segment.split(b"\n")
    content = Content(is_torn=bool(lines.pop()) and is_sealed)
    for line in lines:
        record = _decode(line)
        if record is None:
            content.damaged.append(line)
        else:
            content.records.append(record)
    return content


def _decode(line: bytes) -> Record | None:
    checksum, _, content = line.partition(b" ")
    try:
        if int(checksum, 16) != zlib.crc32(content):
            return None
        fields = json.loads(content)
        return Record(datetime.fromisoformat(fields["received_at"]), fields["body"].encode("utf-8", "surrogateescape"))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
