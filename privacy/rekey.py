"""Pseudonyms hashed once more, with the keys that came after those they were made with: raw tables, landing zone, what is built of them.

Rows of raw tables and of landing files name their key; of each built table it is noted in the warehouse, in the transaction that
changes it. So a kill at any moment leaves what the next run takes up.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from privacy import files, key_state, keys
from privacy.policy import policy
from privacy.pseudonyms import KEY_ID_COLUMN, held_names
from privacy.rows import Found, base_of
from privacy.subjects import EMAIL
from warehouse.errors import StepFailed
from warehouse.sql import literal, quoted

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_DONE = f"{key_state.SCHEMA}.hashed_again"
_ROWS_AT_ONCE = 500_000
_KEYS_OF_ROWS = {"google_analytics": "row_id"}
"""Sources whose rows are told apart by a keyed hash that the policy does not list."""
_HASH = "[0-9a-f]{64}"
_ANY = "any"


def offer_keys(connection: "DuckDBPyConnection") -> None:
    """Give a connection the keys, as variables that no SQL text shows."""
    for level, (_, key) in enumerate(keys.ring()):
        for name, padded in zip(("inner", "outer"), keys.padded(key), strict=True):
            connection.execute(f"SET VARIABLE hmac_{name}_{level} = $1::BLOB", [padded])


def again(text: str, since: int) -> str:
    """SQL for a keyed hash made with the first keys, hashed with the rest: `keys.chained(…, since)`."""
    for level in range(since, len(keys.ring())):
        text = f"sha256(getvariable('hmac_outer_{level}') || unhex(sha256(getvariable('hmac_inner_{level}') || encode({text}))))"
    return text


def rekey(connection: "DuckDBPyConnection", landing: Path | None) -> dict[str, int]:
    """Hash all pseudonyms of a warehouse, and of its landing zone, again, until they are made with the keys in force.

    Afterwards the bytes of the old ones are still in the file's free pages: `privacy.files.compact`.

    Returns:
        place -> rows changed.

    Raises:
        UsageError: what is held was made with other keys. StepFailed: rows name a key that is none of those in force.
    """
    since = key_state.known(connection)
    offer_keys(connection)
    changed = _raw(connection)
    if landing is not None:
        changed |= rekey_landing(connection, landing)
    if since < len(keys.ring()):
        changed |= _built(connection, since)
    connection.begin()
    key_state.note(connection)
    connection.execute(f"DROP TABLE IF EXISTS {_DONE}")
    connection.commit()
    return changed


def rekey_landing(connection: "DuckDBPyConnection", landing: Path) -> dict[str, int]:
    """Hash the pseudonyms of a landing zone again, also of packages that were put back from before a change of key; package -> rows."""
    if len(keys.ring()) == 1:
        return {}
    offer_keys(connection)
    landed = files.erase_landing(connection, landing, find=find_old, is_concerned=has_pseudonyms)
    return {f"landing/{place}": count for place, count in landed.items()}


def has_pseudonyms(source: str, table: str) -> bool:
    """Whether rows of a raw table hold keyed hashes."""
    return bool(_hashed_by_policy(source, table)) or source in _KEYS_OF_ROWS


def find_old(connection: "DuckDBPyConnection", relation: str, columns: Mapping[str, str], source: str, table: str) -> Found:
    """The rows of a raw relation whose pseudonyms were made with an older key, and what they become."""
    named = {column.lower(): column for column in columns}.get(KEY_ID_COLUMN)
    if named is None:
        return Found()
    ids, key = keys.ring_ids(), f"r.{quoted(named)}"
    is_old = f"{key} IS NOT NULL AND {key} <> {literal(ids[-1])}"
    others = f"SELECT DISTINCT {key} FROM {relation} AS r WHERE {key} NOT IN ({', '.join(map(literal, ids))})"
    if unknown := connection.execute(others).fetchone():
        raise StepFailed(
            f"rows of {source}.{table} were made with the key {unknown[0]}, which is none of {', '.join(ids)}.",
            mend="add it to PRIVACY__HMAC_KEYS_BEFORE, in its place",
        )
    hashed = {*_hashed_by_policy(source, table), *([_KEYS_OF_ROWS[source]] if source in _KEYS_OF_ROWS else [])}
    after = {column: f"r.{quoted(column)}" for column in columns}
    for column in (one for one in columns if one.partition("_was_")[0] in hashed):
        held = f"r.{quoted(column)}"
        cases = " ".join(f"WHEN {key} = {literal(key_id)} THEN {again(held, since)}" for since, key_id in enumerate(ids[:-1], start=1))
        after[column] = f"CASE {cases} ELSE {held} END" if cases else held
    after[named] = f"CASE WHEN {key} IS NULL THEN NULL ELSE {literal(ids[-1])} END"
    return Found(is_touched=is_old, is_theirs="false", columns=after)


def _hashed_by_policy(source: str, table: str) -> list[str]:
    base = base_of(source, table, policy().columns)
    rules = policy().columns[base] if base else {}
    return [held_names(column, rule)[0] for column, rule in rules.items() if rule.action == "hmac"]


def _raw(connection: "DuckDBPyConnection") -> dict[str, int]:
    from privacy.erasures import raw_tables

    changed = {}
    for source, table, columns in raw_tables(connection, has_pseudonyms):
        name = f"raw_{source}.{quoted(table)}"
        found = find_old(connection, name, columns, source, table)
        if found.is_nothing:
            continue
        given = ", ".join(f"{quoted(column)} = {after}" for column, after in found.columns.items() if after != f"r.{quoted(column)}")
        row = connection.execute(f"SELECT count(*), coalesce(max(rowid), 0) FROM {name} AS r WHERE {found.is_touched}").fetchone()
        count, last = row or (0, 0)
        for start in range(0, last + 1 if count else 0, _ROWS_AT_ONCE):
            near = f"r.rowid BETWEEN {start} AND {start + _ROWS_AT_ONCE - 1}"
            connection.execute(f"UPDATE {name} AS r SET {given} WHERE {near} AND {found.is_touched}")
        if count:
            changed[f"raw_{source}.{table}"] = int(count)
    return changed


def _built(connection: "DuckDBPyConnection", since: int) -> dict[str, int]:
    """Tables that SQLMesh keeps: histories cannot be made anew from their input, and the others need not be."""
    connection.execute(f"CREATE TABLE IF NOT EXISTS {_DONE} (place VARCHAR PRIMARY KEY)")
    known = _built_columns()
    query = (
        "SELECT schema_name, table_name, list(column_name) FROM duckdb_columns() JOIN duckdb_tables() USING (database_name, schema_name, table_name) "
        "WHERE database_name = current_database() AND starts_with(schema_name, 'sqlmesh__') AND data_type = 'VARCHAR' GROUP BY ALL ORDER BY ALL"
    )
    changed = {}
    for schema, table, columns in connection.execute(query).fetchall():
        place, name = f"{schema}.{table}", f"{schema}.{quoted(table)}"
        given, touched = [], []
        for column in (one for one in columns if one in known):
            held = quoted(column)
            begins = f"{EMAIL}:" if known[column] == _ANY else ""
            is_hash = f"regexp_full_match({held}, '{begins}{_HASH}')"
            hashed = f"{literal(begins)} || {again(f'substr({held}, {len(begins) + 1})', since)}"
            given.append(f"{held} = CASE WHEN {is_hash} THEN {hashed} ELSE {held} END")
            touched.append(is_hash)
        if not given or connection.execute(f"SELECT 1 FROM {_DONE} WHERE place = ?", [place]).fetchone():
            continue
        connection.begin()
        try:
            row = connection.execute(f"UPDATE {name} SET {', '.join(given)} WHERE {' OR '.join(touched)}").fetchone()
            connection.execute(f"INSERT INTO {_DONE} VALUES (?)", [place])
            connection.commit()
        except BaseException:
            connection.rollback()
            raise
        if row and row[0]:
            changed[place] = int(row[0])
    return changed


def _built_columns() -> dict[str, str]:
    """Columns of built tables that hold pseudonyms, by their names: those of raw tables, and those that the policy says are carried."""
    hashed = {name for table in policy().columns for name in _hashed_by_policy(*table.split(".", 1))}
    carried = {column: kind for column, kind in policy().carried.items() if kind in (EMAIL, _ANY)}
    return {**dict.fromkeys([*hashed, *_KEYS_OF_ROWS.values()], EMAIL), **carried}
