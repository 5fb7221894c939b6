"""Which keys of pseudonyms a warehouse was made with, noted in it, so that another key, or a mixture, is refused before anything is written."""

from typing import TYPE_CHECKING

from privacy import keys
from warehouse.errors import UsageError
from warehouse.sql import literal

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

SCHEMA = "privacy"
_TABLE = f"{SCHEMA}.keys_in_force"
_MEND = "`warehouse privacy rotate-key` changes a key; docs/how-to/rotate-keys.md"


def check(connection: "DuckDBPyConnection") -> None:
    """Refuse keys that are not those of the warehouse; a warehouse without a note of them gets one.

    Raises:
        UsageError: a key has another value than the one used before, or what is held was not yet hashed again with the newest key.
    """
    held = noted(connection)
    if held is None:
        if len(keys.ring()) > 1 and _has_raw(connection):
            raise _unfinished([keys.ring_ids()[0]])
        note(connection)
    elif held != _ring():
        raise different(held)


def is_current(connection: "DuckDBPyConnection") -> bool:
    """Whether everything in the warehouse is made with the keys in force; one that holds no pseudonym yet is."""
    return known(connection) == len(keys.ring())


def noted(connection: "DuckDBPyConnection") -> list[tuple[str, str]] | None:
    """Id and check value of each key that the warehouse was made with, the oldest first; None where nobody noted them."""
    own = "(database_name, schema_name, table_name) = (current_database(), ?, 'keys_in_force')"
    if connection.execute(f"SELECT 1 FROM duckdb_tables() WHERE {own}", [SCHEMA]).fetchone() is None:
        return None
    return connection.execute(f"SELECT key_id, check_value FROM {_TABLE} ORDER BY position").fetchall() or None


def note(connection: "DuckDBPyConnection") -> None:
    """Note that everything in the warehouse is made with the keys in force."""
    rows = ", ".join(f"({position}, {literal(key_id)}, {literal(value)})" for position, (key_id, value) in enumerate(_ring()))
    connection.execute(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}")
    connection.execute(f"CREATE OR REPLACE TABLE {_TABLE} AS SELECT * FROM (VALUES {rows}) AS t (position, key_id, check_value)")


def known(connection: "DuckDBPyConnection") -> int:
    """How many of the keys in force everything in the warehouse was made with for certain; the rest is still to be done, or is being done.

    Raises:
        UsageError: what is held was made with other keys.
    """
    held = noted(connection)
    if held is None:
        return 1 if _has_raw(connection) else len(keys.ring())
    if held != _ring()[: len(held)]:
        raise different(held)
    return len(held)


def different(held: list[tuple[str, str]]) -> UsageError:
    """The error that says how the keys that are set differ from those that are held."""
    given = _ring()
    if held == given[: len(held)]:
        return _unfinished([key_id for key_id, _ in held])
    for (key_id, value), (given_id, given_value) in zip(held, given, strict=False):
        if key_id == given_id and value != given_value:
            return UsageError(f"the key of the pseudonyms with the id {key_id} is not the one that was used before.", mend="set the key that was used before")
    shown = ", ".join(key_id for key_id, _ in held)
    return UsageError(f"the warehouse was made with the keys {shown} of the pseudonyms, and {', '.join(keys.ring_ids())} are set.", mend=_MEND)


def _unfinished(held: list[str]) -> UsageError:
    return UsageError(
        f"the keys of the pseudonyms are {', '.join(keys.ring_ids())}, and what is held was made with {', '.join(held)}, or is a mixture.", mend=_MEND
    )


def _ring() -> list[tuple[str, str]]:
    return [(key_id, keys.check_value(key)) for key_id, key in keys.ring()]


def _has_raw(connection: "DuckDBPyConnection") -> bool:
    own = "database_name = current_database() AND starts_with(schema_name, 'raw_') AND column_name = '_privacy_key_id'"
    return connection.execute(f"SELECT 1 FROM duckdb_columns() WHERE {own} LIMIT 1").fetchone() is not None
