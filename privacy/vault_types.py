"""How a value of a column becomes the bytes that are sealed, and a value of the same type again: three bytes name the type."""

from collections.abc import Sequence

import pyarrow as pa

from warehouse.errors import UsageError

_PLAIN: dict[int, pa.DataType] = {
    0: pa.string(), 1: pa.binary(), 2: pa.bool_(), 3: pa.int8(), 4: pa.int16(), 5: pa.int32(), 6: pa.int64(), 7: pa.uint8(), 8: pa.uint16(), 9: pa.uint32(),
    10: pa.uint64(), 11: pa.float32(), 12: pa.float64(), 13: pa.date32(), 14: pa.timestamp("us"), 15: pa.timestamp("us", "UTC"),
}  # fmt: skip
_DECIMAL = 16
_CODES = {kind: code for code, kind in _PLAIN.items()} | {pa.large_string(): 0, pa.large_binary(): 1}


def kind_of(kind: pa.DataType, column: str) -> bytes:
    """The three bytes that name a type.

    Raises:
        UsageError: values of it cannot be sealed.
    """
    if pa.types.is_decimal128(kind):
        return bytes((_DECIMAL, kind.precision, kind.scale))
    if kind not in _CODES:
        raise UsageError(f"{column} is of the type {kind}, which cannot be sealed.", mend="cast it to text where it is read")
    return bytes((_CODES[kind], 0, 0))


def type_of(kind: bytes) -> pa.DataType:
    """The type that three bytes name."""
    return pa.decimal128(kind[1], kind[2]) if kind[0] == _DECIMAL else _PLAIN[kind[0]]


def packed(column: pa.ChunkedArray) -> tuple[bytes, list[bytes | None]]:
    """A column as bytes, and the name of its type; what is no text is written as text."""
    kind = kind_of(column.type, "a column")
    as_text = column if kind[0] in (0, 1) else column.cast(pa.string())
    return kind, as_text.cast(pa.binary()).to_pylist()


def unpacked(values: Sequence[bytes | None], kind: pa.DataType) -> pa.Array:
    """The column that was packed."""
    held = pa.array(values, pa.binary())
    return held if kind == pa.binary() else held.cast(pa.string()).cast(kind)
