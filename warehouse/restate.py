"""Models that have to be built anew from their input: noted before rows are taken out of what was built of them, gone when a build has done it.

A build looks at what changed; of a model that is built piece by piece it would not bring back a row that was taken out. What a
review built is noted with its table: it may become production's.
"""

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from warehouse.settings import ROOT

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_IS_SHOWN = "SELECT 1 FROM duckdb_views() WHERE database_name = current_database() AND schema_name NOT LIKE '%\\_\\_%' ESCAPE '\\' AND contains(sql, ?)"


def note(connection: "DuckDBPyConnection", models: Iterable[str], table: str) -> None:
    """Add models, as `schema.name`; the next build builds them anew, whatever happens before it.

    Args:
        table: what was built of them and lost rows, as `schema.table`; where production does not show it, a build waits until it does.
    """
    _create(connection)
    shown = connection.execute(_IS_SHOWN, [table.partition(".")[2]]).fetchone()
    for model in models:
        row = [model, None if shown else table]
        connection.execute(
            "INSERT INTO ops.to_restate SELECT ?, ? WHERE NOT EXISTS (FROM ops.to_restate WHERE model = $1 AND built IS NOT DISTINCT FROM $2)", row
        )


def waiting(connection: "DuckDBPyConnection") -> list[str]:
    """The models of production that wait; those that were taken out of the code since are left out."""
    _create(connection)
    found = connection.execute("SELECT model FROM ops.to_restate WHERE built IS NULL ORDER BY model").fetchall()
    return [model for (model,) in found if is_written(model)]


def of_reviews(connection: "DuckDBPyConnection") -> dict[str, str]:
    """What lost rows when a review alone showed it: `schema.table` -> its model."""
    _create(connection)
    found = connection.execute("SELECT built, model FROM ops.to_restate WHERE built IS NOT NULL").fetchall()
    return {table: model for table, model in found if is_written(model)}


def done(connection: "DuckDBPyConnection", tables: Collection[str]) -> None:
    """After a build that succeeded: no model of production waits any longer, nor one whose table is gone.

    Args:
        tables: what production is made of now.
    """
    _create(connection)
    there = {f"{schema}.{table}" for schema, table in connection.execute("SELECT schema_name, table_name FROM duckdb_tables()").fetchall()}
    for (table,) in connection.execute("SELECT DISTINCT built FROM ops.to_restate").fetchall():
        if table is None or table in tables or table not in there:
            connection.execute("DELETE FROM ops.to_restate WHERE built IS NOT DISTINCT FROM ?", [table])


def is_written(model: str) -> bool:
    """Whether a model is in the code; one whose table is still there may have been taken out since."""
    name = model.partition(".")[2]
    return any(path.suffix in (".sql", ".py") for path in (ROOT / "models").rglob(f"{name}.*"))


def _create(connection: "DuckDBPyConnection") -> None:
    connection.execute("CREATE SCHEMA IF NOT EXISTS ops")
    connection.execute("CREATE TABLE IF NOT EXISTS ops.to_restate (model VARCHAR)")
    connection.execute("ALTER TABLE ops.to_restate ADD COLUMN IF NOT EXISTS built VARCHAR")
