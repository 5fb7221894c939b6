"""The vault: personal data kept readable, each row sealed under the keys of the persons it is about.

A row's key is made of the keys of all its persons, as `subjects` in the policy names them: destroying any of them makes the row
unreadable in every copy, as an erasure takes the row of any of them. A sealed value is a head (which keys, which type), a nonce, and
AES-256-GCM over the value; it is bound to its source, table and column.
"""

import hashlib
import hmac
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from privacy import audit, erasures, vault_keys
from privacy.policy import SubjectRule, policy
from privacy.pseudonyms import held_names
from privacy.rows import base_of
from privacy.subjects import EMAIL, expression
from privacy.vault_keys import destroy as destroy
from privacy.vault_types import kind_of, packed, type_of, unpacked
from warehouse.errors import StepFailed, UsageError
from warehouse.sql import quoted

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

SUFFIX = "_sealed"
_VERSION = 1
_KIND, _NONCE = 3, 12
_NOBODY = -1
_MOST_NAMED = 1_000
"""Subjects that one line of the audit trail names; of more it says how many."""


@dataclass(frozen=True)
class Layout:
    """What of a raw table is sealed, and by which columns its rows are somebody's.

    Attributes:
        persons: column of the policy (`column.path.in.it`) and kind of person, for the row.
        mentions, lists: column -> kind of the person, or persons, that this one cell names beside.
        sealed: the columns that are sealed.
        carries: kind and column of the key on which other tables' rows hang.
    """

    persons: tuple[tuple[str, str], ...] = ()
    mentions: Mapping[str, str] = field(default_factory=dict)
    lists: Mapping[str, str] = field(default_factory=dict)
    sealed: tuple[str, ...] = ()
    carries: tuple[str, str] | None = None


def layout(source: str, table: str, schema: pa.Schema) -> Layout:
    """What of a raw table is sealed: all that is personal by the policy, every key of a person, and whatever an erasure would take.

    Of a table whose rows go whole with the person, every text is sealed; numbers and times that are no keys stay. A table of nobody's
    rows stays as it is.
    """
    base = base_of(source, table, policy().subjects)
    if base is None:
        return Layout()
    rule, present = policy().subjects[base], set(schema.names)
    persons = {**({rule.key: rule.person} if rule.person else {}), **({rule.email: EMAIL} if rule.person and rule.email else {}), **rule.of, **rule.within}
    persons = {column: kind for column, kind in persons.items() if column.partition(".")[0] in present}
    mentions = {column: kind for column, kind in rule.mentions.items() if column in present}
    lists = {column: kind for column, kind in rule.lists.items() if column in present}
    is_carrier = rule.key in present and any(base in other.within.values() for other in policy().subjects.values())
    sealed = tuple(one.name for one in schema if _is_sealed(rule, base, one, {*persons, *mentions, *lists}))
    return Layout(tuple(persons.items()), mentions, lists, sealed, (base, rule.key) if is_carrier else None)


def _is_sealed(rule: SubjectRule, base: str, column: pa.Field, keys: set[str]) -> bool:
    name, plain = column.name, column.name.partition("_was_")[0]
    if name.endswith(SUFFIX):
        return False  # it was when it was loaded
    if {name, plain} & _personal(base) or plain in rule.forget or name in rule.trees or name == (rule.same_as or "").partition(".")[0]:
        return True
    if name in keys:
        return name not in rule.within
    if name.startswith("_") and name != "_object":
        return False
    if rule.erase == "remove":
        return name != rule.key and bool(pa.types.is_string(column.type) or pa.types.is_large_string(column.type))
    return rule.keep is not None and name not in rule.keep


def _personal(base: str) -> set[str]:
    rules = policy().columns.get(base, {})
    return {name for column, rule in rules.items() if rule.personal_class != "none" for name in held_names(column, rule)}


class Sealer:
    """Seals rows of raw tables, and opens them again.

    Args:
        connection: any connection to DuckDB, outside of a transaction; rows pass through it.

    Attributes:
        destroyed: how many values the last `unseal` could not read because their key was destroyed.
    """

    def __init__(self, connection: "DuckDBPyConnection") -> None:
        self._connection = connection
        self.destroyed = 0

    def seal(self, table: pa.Table, source: str, name: str) -> pa.Table:
        """Seal all that is personal of rows of `raw_<source>.<name>`.

        Returns:
            the same rows in the same order; each sealed column is `<name>_sealed`, binary, in its place. A row that is nobody's has null there.

        Raises:
            UsageError: the master key is not set or not the vault's, or a column to be sealed has a type that is not text, number,
                time, boolean or bytes.
        """
        plan = layout(source, name, table.schema)
        if not plan.sealed:
            return table
        for column in plan.sealed:
            kind_of(table.schema.field(column).type, f"{source}.{name}.{column}")
        people = _People(self._connection, table, plan)
        rows = people.ciphers([people.of(column) for column, _ in plan.persons])
        columns: dict[str, pa.ChunkedArray | pa.Array] = {}
        for column in table.column_names:
            if column not in plan.sealed:
                columns[column] = table.column(column)
                continue
            beside = people.beside(column)
            ciphers = people.ciphers([*(people.of(one) for one, _ in plan.persons), *beside]) if beside else rows
            columns[f"{column}{SUFFIX}"] = pa.array(_sealed(table.column(column), ciphers, bound_to(source, name, column)), pa.binary())
        return pa.table(columns)

    def unseal(self, table: pa.Table, source: str, name: str, *, purpose: str) -> pa.Table:
        """Open what `seal` closed; for a reader that the policy names alone, noted in the audit trail. Hold the lease.

        Args:
            purpose: why it is read, for the trail.

        Returns:
            the same rows; what was `<name>_sealed` is `<name>` with its value, null where the key was destroyed.

        Raises:
            UsageError: who asks is not among the `vault.readers` of the policy, or the master key is missing. StepFailed: a value was
                altered or belongs elsewhere, or this is not the vault it was sealed with.
        """
        may_read()
        vault_keys.destroy(erasures.tags())  # a copy of the vault that was put back may hold keys of persons who were erased since
        closed = [one.name for one in table.schema if one.name.endswith(SUFFIX) and pa.types.is_binary(one.type)]
        values = {column: table.column(column).to_pylist() for column in closed}
        heads = {_head_of(value) for column in closed for value in values[column] if value is not None}
        keys = vault_keys.keys_by_number({number for head in heads for number in _numbers(head)})
        names = sorted(vault_keys.tags_of(keys))
        named = names if len(names) <= _MOST_NAMED else []
        audit.note("unseal", named, table=f"{source}.{name}", purpose=purpose, keys=len(keys), rows=table.num_rows)
        ciphers = {head: _cipher([keys.get(number) for number in _numbers(head)]) for head in heads}
        self.destroyed = 0
        columns: dict[str, pa.ChunkedArray | pa.Array] = {}
        for column in table.column_names:
            if column not in values:
                columns[column] = table.column(column)
                continue
            plain = column.removesuffix(SUFFIX)
            opened, kind = _opened(values[column], ciphers, bound_to(source, name, plain))
            self.destroyed += sum(one is None for one in opened) - values[column].count(None)
            columns[plain] = unpacked(opened, kind)
        return pa.table(columns)


def sealed_values(bound: Sequence[str], subjects: Sequence[Sequence[str | None]], values: Sequence[str | None]) -> list[bytes | None]:
    """Seal texts while they are loaded, each bound to its column and under the keys of its row's persons (`kind:value`); null without one.

    The same text of the same row gives the same bytes, or every load would find every row changed: the nonce is a keyed hash of the text.
    """
    people = [tuple(dict.fromkeys(one for one in given if one is not None)) for given in subjects]
    found = vault_keys.keys_for({one for given, value in zip(people, values, strict=True) if value is not None for one in given})
    kind = kind_of(pa.string(), "")
    ready: dict[tuple[str, ...], tuple[bytes, bytes, Any]] = {}
    made: list[bytes | None] = []
    for column, given, value in zip(bound, people, values, strict=True):
        if value is None or not given:
            made.append(None)
            continue
        if given not in ready:
            keys = sorted(found[one] for one in given)
            key = _row_key(key for _, key in keys)
            ready[given] = _head([number for number, _ in keys]) + kind, key, _aes(key)
        head, key, cipher = ready[given]
        plain, beside = value.encode(), head + column.encode()
        nonce = hmac.digest(key, b"nonce 1:" + beside + plain, "sha256")[:_NONCE]
        made.append(head + nonce + cipher.encrypt(nonce, plain, beside))
    return made


def may_read() -> None:
    """Refuse who is not named as a reader of the vault.

    Raises:
        UsageError: the policy does not name the one who asks.
    """
    if audit.who() not in policy().vault.readers:
        raise UsageError(
            f"{audit.who()} may not read the vault.", mend="privacy/policy.yaml names who may, under `vault: {readers: […]}`, as the audit trail calls them"
        )


def bound_to(source: str, table: str, column: str) -> bytes:
    """What a sealed value is bound to; the versions of a table's rows are bound as the table is."""
    return f"{base_of(source, table, policy().subjects) or f'{source}.{table}'}.{column}".encode()


class _People:
    """Of a batch of rows: the keys of the persons that each is about."""

    def __init__(self, connection: "DuckDBPyConnection", table: pa.Table, plan: Layout) -> None:
        self._rows = table.num_rows
        self._plan = plan
        wanted = {**dict(plan.persons), **plan.mentions, **({plan.carries[1]: plan.carries[0]} if plan.carries else {})}
        told = [*((column, kind, expression(column)) for column, kind in wanted.items()), *((c, k, _members(c)) for c, k in plan.lists.items())]
        if plan.carries and plan.carries[1] in dict(plan.persons):
            raise UsageError(f"privacy/policy.yaml: {plan.carries[0]} has persons, and rows of other tables hang on it.", mend="link those by `of`")
        self._values = _values(connection, table, [sql for _, _, sql in told])
        self._kinds = {column: kind for column, kind, _ in told}
        different = {f"{kind}:{value}" for (_, kind, _), values in zip(told, self._values, strict=True) for value in _different(values)}
        self._found = vault_keys.keys_for(different)
        self._keys = dict(self._found.values())
        self._numbers = {column: self._numbered(column, values) for (column, _, _), values in zip(told, self._values, strict=True)}
        if plan.carries:
            own = self.of(plan.carries[1]).tolist()
            vault_keys.hang((a, b) for column, _ in plan.persons for a, b in zip(own, self.of(column).tolist(), strict=True) if _NOBODY not in (a, b))

    def of(self, column: str) -> "np.ndarray[Any, Any]":
        """The number of the key that each row has by a column; -1 without one."""
        return self._numbers[column][0]

    def beside(self, column: str) -> list["np.ndarray[Any, Any]"]:
        """The same, of persons that this one cell names beside those of the row."""
        return self._numbers[column] if column in self._plan.mentions or column in self._plan.lists else []

    def ciphers(self, numbers: Sequence["np.ndarray[Any, Any]"]) -> "_Ciphers":
        """What seals the cells of each row, under all of the keys given for it."""
        if not numbers:
            return _Ciphers([None], np.zeros(self._rows, np.int64))
        matrix = np.sort(np.stack(numbers, axis=1), axis=1)
        order = np.lexsort(matrix.T)
        ordered = matrix[order]
        begins = np.concatenate(([True], np.any(ordered[1:] != ordered[:-1], axis=1)))[: self._rows]
        which = np.empty(self._rows, np.int64)
        which[order] = np.cumsum(begins) - 1
        different = ordered[begins]
        return _Ciphers([self._cipher(tuple(dict.fromkeys(row))) for row in different.tolist()], which)

    def _cipher(self, numbers: tuple[int, ...]) -> tuple[bytes, Any] | None:
        known = [number for number in numbers if number != _NOBODY]
        return (_head(known), _cipher([self._keys[number] for number in known])) if known else None

    def _numbered(self, column: str, values: pa.ChunkedArray) -> list["np.ndarray[Any, Any]"]:
        kind = self._kinds[column]
        number = {value: self._found[f"{kind}:{value}"][0] for value in _different(values)}
        if pa.types.is_list(values.type):
            lists = values.to_pylist()
            width = max((len(one) for one in lists if one), default=0)
            return [np.array([number.get(one[at], _NOBODY) if one and at < len(one) else _NOBODY for one in lists], np.int64) for at in range(width)]
        coded = values.combine_chunks().dictionary_encode()
        held = np.array([*(number[value] for value in coded.dictionary.to_pylist()), _NOBODY], np.int64)
        return [held[coded.indices.fill_null(len(held) - 1).to_numpy(zero_copy_only=False)]]


@dataclass(frozen=True)
class _Ciphers:
    """Head and cipher of each different set of keys (None: nobody's), and which of them each row has."""

    different: list[tuple[bytes, Any] | None]
    which: "np.ndarray[Any, Any]"


def _values(connection: "DuckDBPyConnection", table: pa.Table, expressions: Sequence[str]) -> list[pa.ChunkedArray]:
    """What SQL gives for each row, in the order of the rows."""
    numbered = table.append_column("_row", pa.array(np.arange(table.num_rows)))
    connection.register("_sealing", numbered)
    try:
        chosen = ", ".join(f"{sql} AS v{number}" for number, sql in enumerate(expressions))
        found = connection.execute(f"SELECT {chosen} FROM _sealing AS r ORDER BY r._row").to_arrow_table()
    finally:
        connection.unregister("_sealing")
    return [found.column(number) for number in range(len(expressions))]


def _members(column: str) -> str:
    return f"list_transform(from_json(r.{quoted(column)}, '[\"JSON\"]'), lambda x: x::VARCHAR)"


def _different(values: pa.ChunkedArray) -> list[str]:
    flat = pc.list_flatten(values) if pa.types.is_list(values.type) else values
    different: list[str] = pc.drop_null(pc.unique(flat)).to_pylist()
    return different


def _cipher(keys: Iterable[bytes | None]) -> Any:
    """AES-256-GCM under a key made of several; None where one of them was destroyed."""
    parts = list(keys)
    whole = [part for part in parts if part is not None]
    return _aes(_row_key(whole)) if len(whole) == len(parts) else None


def _row_key(keys: Iterable[bytes]) -> bytes:
    """The key of a row of several persons, by the order of the numbers of their keys."""
    return hashlib.sha256(b"row 1:" + b"".join(keys)).digest()


def _aes(key: bytes) -> Any:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM(key)


def _head(numbers: Sequence[int]) -> bytes:
    return bytes((_VERSION,)) + len(numbers).to_bytes(2, "big") + b"".join(number.to_bytes(8, "big") for number in numbers)


def _head_of(value: bytes) -> bytes:
    end = 3 + 8 * int.from_bytes(value[1:3], "big")
    if value[:1] != bytes((_VERSION,)) or len(value) < end + _KIND + _NONCE:
        raise StepFailed("a sealed value is none, or was made by a newer version of this project.", mend="read it from an unaltered copy")
    return value[:end]


def numbers_of(value: bytes) -> list[int]:
    """The numbers of the keys that a sealed value needs."""
    return _numbers(_head_of(value))


def _numbers(head: bytes) -> list[int]:
    return [int.from_bytes(head[at : at + 8], "big") for at in range(3, len(head), 8)]


def _sealed(column: pa.ChunkedArray, ciphers: _Ciphers, bound: bytes) -> list[bytes | None]:
    kind, values = packed(column)
    random = os.urandom(_NONCE * len(values))
    ready = [None if one is None else (one[0] + kind, one[1].encrypt, one[0] + kind + bound) for one in ciphers.different]
    made: list[bytes | None] = []
    for value, which, at in zip(values, ciphers.which.tolist(), range(0, len(random), _NONCE), strict=True):
        one = ready[which]
        if value is None or one is None:
            made.append(None)
        else:
            nonce = random[at : at + _NONCE]
            made.append(one[0] + nonce + one[1](nonce, value, one[2]))
    return made


def _opened(values: Sequence[bytes | None], ciphers: Mapping[bytes, Any], bound: bytes) -> tuple[list[bytes | None], pa.DataType]:
    from cryptography.exceptions import InvalidTag

    opened: list[bytes | None] = []
    kinds: set[bytes] = set()
    for value in values:
        if value is None:
            opened.append(None)
            continue
        end = 3 + 8 * int.from_bytes(value[1:3], "big") + _KIND
        cipher, kind, nonce = ciphers[value[: end - _KIND]], value[end - _KIND : end], value[end : end + _NONCE]
        kinds.add(kind)
        try:
            opened.append(None if cipher is None else cipher.decrypt(nonce, value[end + _NONCE :], value[:end] + bound))
        except InvalidTag:
            raise StepFailed(f"a sealed value of {bound.decode()} was altered, or belongs to another column.", mend="read it from an unaltered copy") from None
    if len(kinds) > 1:
        raise StepFailed(f"{bound.decode()} holds values of several types.", mend="open its files one by one")
    return opened, type_of(kinds.pop()) if kinds else pa.string()
