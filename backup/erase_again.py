"""Erase again, in a production database that was restored, everybody who was erased since: before it gets its name."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from backup.postgres import connected
from privacy import erasures
from privacy.policy import policy
from privacy.subjects import PRODUCTION, surrogate, tag
from warehouse.errors import StepFailed, scrub
from warehouse.sql import quoted

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

_TEXTS = ("text", "character varying", "character")
_COLUMNS = """
    SELECT table_schema, column_name, data_type, is_nullable = 'YES' FROM information_schema.columns JOIN information_schema.tables
    USING (table_schema, table_name) WHERE table_type = 'BASE TABLE' AND table_name = %s AND table_schema NOT IN ('pg_catalog', 'information_schema')
"""
_PAGE = 10_000


def erase_again(text: str, marks: Sequence[str]) -> list[str]:
    """Blank the personal columns that the policy declares, in the rows of erased persons. Facts that refer to them stay.

    A column that may be null becomes null; a text that may not, a word that is nobody's.

    Args:
        text: the connection string of the restored database.
        marks: how far the ledger of erasures went, by all that is known.

    Returns:
        notes for people.

    Raises:
        StepFailed: the ledger is missing or older, a column can be neither, or the server refuses; nothing was changed.
    """
    import psycopg2

    erasures.require(marks)
    tags = {one for one, _ in erasures.tags()}
    if not tags:
        return []
    notes = []
    with connected(text) as connection:
        try:
            for name, rule in policy().subjects.items():
                source, _, table = name.partition(".")
                if source == PRODUCTION and rule.person:
                    notes += [f"erased again: {count} rows of {where}" for where, count in _in_tables(connection, table, rule.key, rule.person, tags)]
            connection.commit()
            connection.autocommit = True
            for note in notes:  # an update leaves the row of before in the file
                with connection.cursor() as cursor:
                    cursor.execute(f"VACUUM (FULL) {note.rpartition(' rows of ')[2]}")
        except psycopg2.Error as error:
            connection.rollback()
            said = scrub(str(error)).splitlines()[0]
            raise StepFailed(f"a person could not be erased again: {said}", mend="the target's user must be allowed to change every table") from None
    return notes


def _in_tables(connection: "Connection", table: str, key: str, kind: str, tags: set[str]) -> list[tuple[str, int]]:
    personal = {name for name, rule in policy().rules(PRODUCTION, table).items() if rule.action != "keep"}
    schemas: dict[str, dict[str, tuple[str, bool]]] = {}
    for schema, column, data_type, is_nullable in _asked(connection, _COLUMNS, [table]):
        schemas.setdefault(schema, {})[column] = (data_type, is_nullable)
    done = []
    for schema, columns in schemas.items():
        if key in columns and personal & columns.keys():
            found = _erase(
                connection, f"{quoted(schema)}.{quoted(table)}", key, kind, {name: columns[name] for name in sorted(personal & columns.keys())}, tags
            )
            done += [(f"{schema}.{table}", found)] if found else []
    return done


def _erase(connection: "Connection", name: str, key: str, kind: str, columns: dict[str, tuple[str, bool]], tags: set[str]) -> int:
    for column, (data_type, is_nullable) in columns.items():
        if not is_nullable and data_type not in _TEXTS:
            raise StepFailed(f"{name}.{column} ({data_type}) may not be null, so a person cannot be erased again.", mend="erase by hand, or let it be null")
    with connection.cursor("keys") as cursor:  # on the server, page by page
        cursor.itersize = _PAGE
        cursor.execute(f"SELECT {quoted(key)}::text FROM {name}")
        theirs = [value for (value,) in cursor if value is not None and tag(kind, value) in tags]
    values = ", ".join(f"{quoted(column)} = {'NULL' if is_nullable else '%s'}" for column, (_, is_nullable) in columns.items())
    words = sum(not is_nullable for _, is_nullable in columns.values())
    with connection.cursor() as cursor:
        for value in theirs:
            cursor.execute(f"UPDATE {name} SET {values} WHERE {quoted(key)}::text = %s", [*[surrogate(kind, value, "word")] * words, value])
    return len(theirs)


def _asked(connection: "Connection", query: str, values: list[Any]) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(query, values)
        return cursor.fetchall()
