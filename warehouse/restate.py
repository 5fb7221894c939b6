"""Models that have to be built anew from their input: noted before rows are taken out of what was built of them, gone when a build has done it.

A build looks at what changed; of a model that is built piece by piece it would not bring back a row that was taken out.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from warehouse.settings import ROOT

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


def note(connection: "DuckDBPyConnection", models: Iterable[str]) -> None:
    """Add models, as `schema.name`; the next build builds them anew, whatever happens before it."""
    _create(connection)
    for model in models:
        connection.execute("INSERT INTO ops.to_restate SELECT ? WHERE NOT EXISTS (FROM ops.to_restate WHERE model = ?)", [model, model])


def waiting(connection: "DuckDBPyConnection") -> list[str]:
    """The models that wait; those that were taken out of the code since are left out."""
    _create(connection)
    return [model for (model,) in connection.execute("SELECT model FROM ops.to_restate ORDER BY model").fetchall() if is_written(model)]


def done(connection: "DuckDBPyConnection") -> None:
    """After a build that succeeded: none waits any longer."""
    _create(connection)
    connection.execute("DELETE FROM ops.to_restate")


def is_written(model: str) -> bool:
    """Whether a model is in the code; one whose table is still there may have been taken out since."""
    name = model.partition(".")[2]
    return any(path.suffix in (".sql", ".py") for path in (ROOT / "models").rglob(f"{name}.*"))


def _create(connection: "DuckDBPyConnection") -> None:
    connection.execute("CREATE SCHEMA IF NOT EXISTS ops")
    connection.execute("CREATE TABLE IF NOT EXISTS ops.to_restate (model VARCHAR)")
