"""Until when a source was read of which nothing is held that could say so: an account in which nothing happened yet."""

from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


def read_until(connection: "DuckDBPyConnection", source: str, table: str) -> datetime | None:
    """The instant before which everything of a table was read; None when nobody noted one."""
    query = "SELECT 1 FROM duckdb_tables() WHERE database_name = current_database() AND schema_name = 'ops' AND table_name = 'read_until'"
    if connection.execute(query).fetchone() is None:
        return None
    row = connection.execute("SELECT read_until FROM ops.read_until WHERE source = ? AND raw_table = ?", [source, table]).fetchone()
    return row[0] if row else None


def note_read_until(connection: "DuckDBPyConnection", source: str, table: str, until: datetime) -> None:
    """Note that instant, when all that was read is held."""
    connection.execute("CREATE SCHEMA IF NOT EXISTS ops")
    connection.begin()
    try:
        connection.execute("CREATE TABLE IF NOT EXISTS ops.read_until (source VARCHAR, raw_table VARCHAR, read_until TIMESTAMPTZ)")
        connection.execute("DELETE FROM ops.read_until WHERE source = ? AND raw_table = ?", [source, table])
        connection.execute("INSERT INTO ops.read_until VALUES (?, ?, ?)", [source, table, until])
        connection.commit()
    except BaseException:
        connection.rollback()
        raise
