"""Rebuild: the raw tables from the landing zone alone."""

from itertools import groupby
from typing import TYPE_CHECKING

from pipelines import landing, raw, raw_shape
from pipelines.load import Loaded, mark_known
from privacy import key_state, rekey
from warehouse import storage
from warehouse.console import progress
from warehouse.errors import StepFailed
from warehouse.ledger import Run
from warehouse.settings import settings

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


def rebuild(source: str, run: Run) -> list[Loaded]:
    """Make the raw tables of a source anew from the landing zone alone: the last version of each key, equal to the row.

    Raises:
        StepFailed: a file of the landing zone is missing or damaged; nothing is changed then.
    """
    with run.step("rebuild", source) as step, storage.open_warehouse() as connection, progress(f"rebuilding {source}"):
        key_state.check(connection)
        rekey.rekey_landing(connection, settings().landing)
        mark_known(source, connection)
        kept: dict[str, list[landing.Package]] = {}
        for package in landing.packages(source):
            if package.is_loaded:
                landing.verify(package)
                kept.setdefault(package.table, []).append(package)
        if not kept:
            raise StepFailed(f"the landing zone holds no package of {source}.", mend=f"`warehouse load {source}` reads the source itself")
        rows = _replace(connection, source, kept)
        read = {table: sum(package.rows for package in packages) for table, packages in kept.items()}
        step.rows_in, step.rows_out = sum(read.values()), sum(rows.values())
        return [Loaded(source, table, read[table], rows[table], 0, "landing zone") for table in kept]


def _replace(connection: "DuckDBPyConnection", source: str, kept: dict[str, list[landing.Package]]) -> dict[str, int]:
    """Replace all tables in one transaction with the last version of each key; returns the rows of each.

    What loading did one package after the other is done again for a row of packages of one shape at once: the last version
    of each key among them is merged as a single package would be, so that kept columns and set-aside tables come out the same.
    """
    rows = {}
    connection.execute(f"CREATE SCHEMA IF NOT EXISTS raw_{source}")
    connection.begin()
    try:
        for table, packages in kept.items():
            for old in [table, *raw_shape.set_aside(connection, source, table)]:
                connection.execute(f"DROP TABLE IF EXISTS {raw_shape.name_of(source, old)}")
            for key, alike in groupby(packages, key=lambda package: (package.primary_key, package.schema, package.newest_by)):
                raw.merge_within(connection, source, table, key[0], [package.file for package in alike], key[2])
            row = connection.execute(f"SELECT count(*) FROM {raw_shape.name_of(source, table)}").fetchone()
            rows[table] = int(row[0]) if row else 0
        connection.commit()
    except BaseException:
        connection.rollback()
        raise
    return rows
