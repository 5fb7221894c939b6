"""pgoutput, the protocol in which PostgreSQL sends the changes of committed transactions (version 1): its messages, decoded."""

import struct
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

BEGIN, COMMIT, RELATION, INSERT, UPDATE, DELETE, TRUNCATE = b"BCRIUDT"
"""The first byte of each message that matters here."""

POSTGRES_EPOCH: Final = int(datetime(2000, 1, 1, tzinfo=UTC).timestamp()) * 1_000_000
"""Microseconds from 1970 to 2000, from where PostgreSQL counts."""

UNCHANGED: Final = object()
"""In place of a value that was not sent, because it is stored apart (TOAST) and did not change."""

_NEW, _KEY, _NULL, _TEXT, _UNCHANGED = b"NKntu"
_BEGIN = struct.Struct("!xQqI")
_COMMIT = struct.Struct("!xxQQq")
_TWO_NUMBERS = struct.Struct("!Ii")

Row = list[object]
"""The values of a row in the order of the relation's columns: UTF-8 bytes, None for null, or UNCHANGED."""


@dataclass(frozen=True)
class Shape:
    """A relation as it was when the changes that follow were made.

    Attributes:
        columns: name, type (its oid) and modifier of each column.
    """

    oid: int
    schema: str
    name: str
    columns: tuple[tuple[str, int, int], ...]


def begin(data: bytes) -> tuple[int, int, int]:
    """Where the transaction's commit record begins, when it was committed (microseconds since 1970), and its 32-bit id."""
    lsn, committed, xid = _BEGIN.unpack_from(data)
    return lsn, committed + POSTGRES_EPOCH, xid


def commit_end(data: bytes) -> int:
    """Where the commit record ends: once this is confirmed, the transaction is not sent again."""
    return int(_COMMIT.unpack_from(data)[1])


def relation_of(data: bytes) -> int:
    """The oid of the relation that an insert, an update, a delete or the description of a relation is about."""
    return int.from_bytes(data[1:5], "big")


def shape(data: bytes) -> Shape:
    """The description of a relation, sent before its first change and again after each change of it."""
    schema, at = _name(data, 5)
    name, at = _name(data, at)
    count = int.from_bytes(data[at + 1 : at + 3], "big")  # after the replica identity
    at += 3
    columns = []
    for _ in range(count):
        column, at = _name(data, at + 1)  # after the flag of the key
        columns.append((column, *_TWO_NUMBERS.unpack_from(data, at)))
        at += 8
    return Shape(relation_of(data), schema or "pg_catalog", name, tuple(columns))


def inserted(data: bytes) -> Row:
    """The new row."""
    return _row(data, 6)[0]


def updated(data: bytes) -> tuple[Row | None, bool, Row]:
    """The old row where one was sent, whether that is its key alone (the rest null), and the new row."""
    if data[5] == _NEW:
        return None, False, _row(data, 6)[0]
    old, at = _row(data, 6)
    return old, data[5] == _KEY, _row(data, at + 1)[0]


def deleted(data: bytes) -> Row:
    """The old row; only its key, the rest null, unless the replica identity is FULL."""
    return _row(data, 6)[0]


def truncated(data: bytes) -> tuple[int, ...]:
    """The oids of the relations that were emptied."""
    return struct.unpack_from(f"!{int.from_bytes(data[1:5], 'big')}I", data, 6)


def _row(data: bytes, at: int) -> tuple[Row, int]:
    """The row that begins there, and where it ends."""
    count = data[at] << 8 | data[at + 1]
    at += 2
    row: Row = []
    add = row.append
    for _ in range(count):
        kind = data[at]
        if kind == _TEXT:
            start = at + 5
            at = start + int.from_bytes(data[at + 1 : start], "big")
            add(data[start:at])
        else:
            add(None if kind == _NULL else UNCHANGED)
            at += 1
    return row, at


def _name(data: bytes, at: int) -> tuple[str, int]:
    end = data.index(0, at)
    return data[at:end].decode(), end + 1
