"""Rows of erased persons, found in a relation by the tags of their keys, and what becomes of them: removed, or kept without the person.

The same is done to raw tables, to the files of the landing zone and to what a load brings, so that all stay equal.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from privacy.policy import SubjectRule, policy
from privacy.pseudonyms import held_names
from privacy.subjects import EMAIL, distinct, expression, parameters, surrogate, tagged
from warehouse.sql import literal, quoted

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

CLEAN_TREE = "erased_tree"
_DELETED_AT = "_deleted_at"
_KEPT_ALWAYS = "_"
"""Columns that begin so are the warehouse's own; `_object`, the tree of a source's object, is declared."""
_NUMBERS = {"TINYINT": 7, "SMALLINT": 15, "INTEGER": 31, "BIGINT": 60, "HUGEINT": 60}
"""Integer types with the bits that a surrogate may have."""


def base_of(source: str, table: str, declared: Mapping[str, Any]) -> str | None:
    """The declared table that a raw table is: itself, or that whose versions it keeps or of which it was set aside at a change of key."""
    names = (table, table.removesuffix("__changes"), table.rpartition("_until_")[0])
    return next((f"{source}.{name}" for name in names if name and f"{source}.{name}" in declared), None)


def rule_of(source: str, table: str) -> SubjectRule | None:
    """The rule by which a raw table's rows are somebody's."""
    base = base_of(source, table, policy().subjects)
    return policy().subjects[base] if base else None


def is_of_persons(source: str, table: str) -> bool:
    """Whether rows of a raw table are somebody's."""
    return rule_of(source, table) is not None


def turn_of(source: str, table: str) -> int:
    """When a raw table is erased: persons first, then what is theirs, then what hangs on that."""
    rule = rule_of(source, table)
    return 3 if rule is None else 0 if rule.person else 2 if rule.within else 1


def columns_of(connection: "DuckDBPyConnection", schema: str, table: str) -> dict[str, str]:
    """The columns of a table, name -> type; none when there is no such table."""
    own = "(database_name, schema_name, table_name) = (current_database(), ?, ?)"
    query = f"SELECT column_name, data_type FROM duckdb_columns() WHERE {own} ORDER BY column_index"
    return dict(connection.execute(query, [schema, table]).fetchall())


@dataclass
class Found:
    """What of a relation is erased.

    Attributes:
        joins: SQL after `FROM relation AS r`, by which each row meets the keys of erased persons.
        is_theirs: SQL that says whether a row is one of an erased person.
        is_touched: the same, and rows of others in which one is mentioned.
        columns: column -> SQL of its value afterwards.
        removes: whether rows that are theirs are removed.
        words: key -> surrogate, for trees.
        learned: tags that were not known, with the time of the erasure they belong to: a person met by an email, a row on which
            others hang. They are in `_erased` by now.
    """

    joins: str = ""
    is_theirs: str = "false"
    is_touched: str = "false"
    columns: dict[str, str] = field(default_factory=dict)
    removes: bool = False
    words: dict[str, str] = field(default_factory=dict)
    learned: list[tuple[str, str]] = field(default_factory=list)

    @property
    def is_nothing(self) -> bool:
        """Whether no row is concerned."""
        return self.is_touched == "false"


Finder = Callable[["DuckDBPyConnection", str, Mapping[str, str], str, str], Found]


def find(connection: "DuckDBPyConnection", relation: str, columns: Mapping[str, str], source: str, table: str) -> Found:
    """What of a raw relation is erased, by its rule and by the tags in `_erased`.

    Args:
        relation: SQL, a table or `read_parquet(…)`.
        columns: its columns with their types.
    """
    rule = rule_of(source, table)
    if rule is None:
        return Found()
    present = {column.lower(): column for column in columns}
    theirs = {**rule.of, **rule.within, **({rule.email: EMAIL} if rule.person and rule.email else {})}
    hits: dict[str, tuple[str, str]] = {}
    conditions: list[str] = []
    learned: list[tuple[str, str]] = []
    for column, kind in theirs.items():
        if column.partition(".")[0].lower() in present and (hit := _hit(connection, relation, column, kind, len(hits))):
            hits[column] = (hit, kind)
            # Who comes again after the erasure, with the same email, is a customer anew.
            before = f" AND coalesce(r.created_at <= {hit}.erased_at, true)" if kind == EMAIL and "created_at" in present else ""
            conditions.append(f"({hit}.value IS NOT NULL{before})")
    if rule.person and rule.key.lower() in present:
        learned += _learn(connection, relation, rule.key, rule.person, hits, conditions)
        if hit := _hit(connection, relation, rule.key, rule.person, len(hits)):
            hits[rule.key] = (hit, rule.person)
            conditions.append(f"{hit}.value IS NOT NULL")
    own = f"{source}.{table}"
    if any(own in other.within.values() for other in policy().subjects.values()):
        learned += _learn(connection, relation, rule.key, own, hits, conditions)
    mentioned: list[str] = []
    for column, kind in rule.mentions.items():
        if column.lower() in present and (hit := _hit(connection, relation, column, kind, len(hits))):
            hits[column] = (hit, kind)
            mentioned.append(f"{hit}.value IS NOT NULL")
    listed = {column: values for column, kind in rule.lists.items() if column.lower() in present and (values := _listed(connection, relation, column, kind))}
    mentioned += [f"len({_within(column, values)}) > 0" for column, values in listed.items()]
    if not conditions and not mentioned:
        return Found()
    found = Found(
        joins=_joins(hits),
        is_theirs=" OR ".join(conditions) or "false",
        is_touched=" OR ".join([*conditions, *mentioned]),
        removes=rule.erase == "remove",
        words=_words(connection, hits),
        learned=learned,
    )
    at = f"coalesce({', '.join(f'{hit}.erased_at' for hit, _ in hits.values())})"
    for column, kind in columns.items():
        after = _after(rule, source, table, column, kind, found.is_theirs, hits)
        if column in listed:
            after = f"CASE WHEN len({_within(column, listed[column])}) > 0 THEN to_json({_without(column, listed[column])})::VARCHAR ELSE {after} END"
        if column == _DELETED_AT and rule.person:
            after = f"CASE WHEN {found.is_theirs} THEN coalesce(r.{quoted(column)}, {at}) ELSE r.{quoted(column)} END"
        found.columns[column] = after
    return found


def _joins(hits: Mapping[str, tuple[str, str]]) -> str:
    return " ".join(f"LEFT JOIN {hit} ON {hit}.value = {expression(column)}" for column, (hit, _) in hits.items())


def _learn(
    connection: "DuckDBPyConnection", relation: str, key: str, kind: str, hits: Mapping[str, tuple[str, str]], conditions: list[str]
) -> list[tuple[str, str]]:
    """The tags of the keys of rows that are theirs, as far as they are not known yet; they are known from now on."""
    if not conditions:
        return []
    at = f"coalesce({', '.join(f'{hit}.erased_at' for hit, _ in hits.values())})"
    keys = f"SELECT {expression(key)} AS value, min({at}) AS erased_at FROM {relation} AS r {_joins(hits)} WHERE {' OR '.join(conditions)} GROUP BY 1"
    tags = f"SELECT {tagged(kind, 'value')} AS tag, erased_at FROM ({keys}) WHERE value IS NOT NULL"
    connection.execute(f"CREATE OR REPLACE TEMP TABLE _learned AS SELECT tag, erased_at FROM ({tags}) ANTI JOIN _erased USING (tag)", parameters())
    connection.execute("INSERT INTO _erased SELECT tag, erased_at FROM _learned")
    return [(tag, at.isoformat()) for tag, at in connection.execute("SELECT tag, erased_at FROM _learned").fetchall()]


def _after(rule: SubjectRule, source: str, table: str, column: str, kind: str, is_theirs: str, hits: Mapping[str, tuple[str, str]]) -> str:
    held = f"r.{quoted(column)}"
    if column in hits and hits[column][1] != EMAIL and "." not in hits[column][1]:
        hit = hits[column][0]
        return f"CASE WHEN {hit}.value IS NOT NULL THEN {_surrogate_as(kind, hit)} ELSE {held} END"
    if column in rule.trees:
        return f"CASE WHEN {is_theirs} THEN {CLEAN_TREE}({held}) ELSE {held} END"
    return f"CASE WHEN {is_theirs} THEN NULL ELSE {held} END" if _goes(rule, source, table, column) else held


def _goes(rule: SubjectRule, source: str, table: str, column: str) -> bool:
    """Whether a column of a blanked row becomes null."""
    links = {*rule.of, *rule.within, *rule.mentions, *([rule.key] if rule.person else [])}
    personal = _personal(source, table)
    plain = column.partition("_was_")[0]
    if column in personal or plain in personal or plain in rule.forget or column == rule.email or rule.of.get(column) == EMAIL:
        return True
    if rule.keep is None:
        return False
    return column not in rule.keep and column not in links and (not column.startswith(_KEPT_ALWAYS) or column == "_object")


def _personal(source: str, table: str) -> set[str]:
    base = table.removesuffix("__changes").rpartition("_until_")[0] or table.removesuffix("__changes")
    return {name for column, rule in policy().rules(source, base).items() if rule.action != "keep" for name in held_names(column, rule)}


def _surrogate_as(kind: str, hit: str) -> str:
    bits = _NUMBERS.get(kind)
    if bits is None:
        return f"{hit}.word" if kind == "VARCHAR" else f"md5({hit}.word)::UUID" if kind == "UUID" else f"NULL::{kind}"
    return f"(-(abs({hit}.number) % {2**bits - 1}) - 1)::{kind}"


def _hit(connection: "DuckDBPyConnection", relation: str, column: str, kind: str, number: int) -> str | None:
    """Make a table of the values of a column that are keys of erased persons, with their surrogates; None when there is none."""
    hits = connection.execute(
        f"SELECT value, erased_at FROM ({distinct(column, relation)}) JOIN _erased ON tag = {tagged(kind, 'value')}",
        parameters(),
    ).fetchall()
    return _table(connection, f"_hit_{number}", kind, hits) if hits else None


def _table(connection: "DuckDBPyConnection", name: str, kind: str, hits: list[tuple[Any, ...]]) -> str:
    import pyarrow as pa

    values = [str(value) for value, _ in hits]
    kinds = [value.partition(":")[0] if kind == "any" else kind for value in values]
    keys = [value.partition(":")[2] if kind == "any" else value for value in values]
    given = pa.table({
        "value": values, "at_text": [at for _, at in hits], "word": [surrogate(one, key, "word") for one, key in zip(kinds, keys, strict=True)],
        "number": [surrogate(one, key, "number") for one, key in zip(kinds, keys, strict=True)],
    })  # fmt: skip
    connection.register("_given", given)
    connection.execute(f"CREATE OR REPLACE TEMP TABLE {name} AS SELECT value, at_text::TIMESTAMPTZ AS erased_at, word, number::BIGINT AS number FROM _given")
    connection.unregister("_given")
    return name


def _listed(connection: "DuckDBPyConnection", relation: str, column: str, kind: str) -> list[str]:
    """The members of a column of JSON arrays that are keys of erased persons."""
    every = f"SELECT DISTINCT unnest(from_json(r.{quoted(column)}, '[\"JSON\"]'))::VARCHAR AS value FROM {relation} AS r"
    return [row[0] for row in connection.execute(f"SELECT value FROM ({every}) JOIN _erased ON tag = {tagged(kind, 'value')}", parameters()).fetchall()]


def _within(column: str, values: list[str]) -> str:
    listed = ", ".join(literal(value) for value in values)
    return f"list_filter(from_json(r.{quoted(column)}, '[\"JSON\"]'), lambda x: x::VARCHAR IN ({listed}))"


def _without(column: str, values: list[str]) -> str:
    listed = ", ".join(literal(value) for value in values)
    return f"list_filter(from_json(r.{quoted(column)}, '[\"JSON\"]'), lambda x: x::VARCHAR NOT IN ({listed}))"


def _words(connection: "DuckDBPyConnection", hits: Mapping[str, tuple[str, str]]) -> dict[str, str]:
    """Key -> surrogate of every key that was found, for trees."""
    found: dict[str, str] = {}
    for hit, kind in hits.values():
        if kind != EMAIL and "." not in kind:
            found |= dict(connection.execute(f"SELECT value, word FROM {hit}").fetchall())
    return found


@contextmanager
def clean_trees(connection: "DuckDBPyConnection", found: Found) -> Iterator[None]:
    """Offer the function by which trees are cleaned, while what was found is applied; begin it outside of a transaction."""
    if not any(CLEAN_TREE in after for after in found.columns.values()):
        yield
        return
    forgotten = set(policy().forget_in_trees)

    def clean(text: str) -> str:
        try:
            return json.dumps(_cleaned(json.loads(text), forgotten, found.words), separators=(",", ":"))
        except ValueError:
            return "{}"

    connection.create_function(CLEAN_TREE, clean, ["VARCHAR"], "VARCHAR")
    try:
        yield
    finally:
        connection.remove_function(CLEAN_TREE)


def _cleaned(tree: Any, forgotten: set[str], words: Mapping[str, str]) -> Any:
    if isinstance(tree, dict):
        return {key: None if key in forgotten else _cleaned(value, forgotten, words) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_cleaned(one, forgotten, words) for one in tree]
    return words.get(tree, tree) if isinstance(tree, str) else tree
