"""The export: every table and mart as Parquet, readable without this project and without DuckDB; and the way of MotherDuck's out."""

import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from backup import manifest, snapshot
from backup.manifest import Manifest, Table
from backup.pack import Source
from backup.restore import Choice, Restored, unpacked
from backup.take import PATIENCE, Known, Taken, prepared, spread, upload
from privacy import erasures
from privacy.replay import replay_export
from warehouse import clock, storage
from warehouse.console import progress, tell
from warehouse.errors import StepFailed
from warehouse.files import sha256
from warehouse.settings import settings
from warehouse.sql import literal, parquet, quoted

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_RELATIONS = """
    SELECT table_schema, table_name FROM information_schema.tables WHERE table_catalog = current_database()
        AND (table_schema IN ('marts', 'ops') OR table_schema LIKE 'raw\\_%' ESCAPE '\\') ORDER BY ALL
"""
"""What is loaded, what is published, and what ran. Staging views say nothing more, and SQLMesh's own tables are behind the marts."""
_MEMORY = "256MB"
"""For DuckDB while it writes files: the whole backup stays below 512 MB, whatever the size of a table."""


def take_export(patience: float = PATIENCE) -> Taken:
    """Write every table as Parquet and keep the files in the stores of the policy. Hold `one_at_a_time`, not the lease.

    Args:
        patience: seconds to wait for the writer to end.

    Raises:
        UsageError: backups are not configured. LeaseHeld: somebody wrote all the time. StepFailed: no store has it.
    """
    policy, chosen, keys = prepared("export")
    known = Known.of(chosen[0], "export")
    folder = snapshot.folder() / "staging"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, mode=0o700)
    try:
        began, taken_at = time.monotonic(), clock.now()
        with readable(folder, patience) as connection:
            tables, sources = _write_all(connection, folder)
        versions = manifest.versions("duckdb")
        written = {"tables": tables, "versions": versions, "recipients": policy.recipients, "erasures": erasures.mark()}
        backup, indexes = upload("export", chosen[0], known, taken_at, sources, keys, **written)
        return spread(backup, indexes, chosen, policy, time.monotonic() - began if settings().storage == "motherduck" else 0.0)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def readable(folder: Path, patience: float, also: Sequence[Path] = ()) -> "Iterator[DuckDBPyConnection]":
    """The warehouse at one instant: a copy of the file, or MotherDuck while nobody else writes.

    Args:
        folder: where the copy is made, and removed at the end.
        also: other DuckDB files that are copied there at the same instant, as far as they exist; they stay.
    """
    import duckdb

    if settings().storage == "motherduck":
        with snapshot.waiting(patience), storage.open_warehouse() as connection:
            yield connection
        return
    copy = folder / settings().warehouse_file.name
    if not settings().warehouse_file.exists():
        raise StepFailed(f"there is no warehouse yet at {settings().warehouse_file}.", mend="`warehouse run` makes it")
    files = [settings().warehouse_file, *(file for file in also if file.exists())]
    storage.require_free_space(2 * sum(file.stat().st_size for file in files) // 1_000_000 + 50)
    with snapshot.waiting(patience):
        for file in files:
            snapshot.checkpoint(file)
            shutil.copyfile(file, folder / file.name)
    with closing(duckdb.connect(str(copy), read_only=True, config={**storage.duckdb_config(), "memory_limit": _MEMORY})) as connection:
        storage.in_utc(connection)
        yield connection
    copy.unlink()


def relations(connection: "DuckDBPyConnection") -> list[tuple[str, str]]:
    """The tables and marts that an export holds: schema and name."""
    return [(schema, table) for schema, table in connection.execute(_RELATIONS).fetchall()]


def path_of(schema: str, table: str) -> str:
    """Where a table stands in an export."""
    return f"{quote(schema, safe='')}/{quote(table, safe='')}.parquet"


def described_file(folder: Path, path: str) -> tuple[Table, Source]:
    """A Parquet file of an export as a manifest and a pack name it."""
    file = folder / path
    content, now = sha256(file), file.stat()
    with closing(storage.scratch()) as connection:
        row = connection.execute(f"SELECT count(*) FROM read_parquet({literal(file)})").fetchone()
    return Table(rows=int(row[0]) if row else 0, fingerprint=content[:32]), Source(path, file, now.st_size, content, 0o644, now.st_mtime_ns)


def _write_all(connection: "DuckDBPyConnection", folder: Path) -> tuple[dict[str, Table], list[Source]]:
    tables, sources = {}, []
    for schema, table in relations(connection):
        tell(f"exporting {schema}.{table}")
        path = path_of(schema, table)
        copy_out(connection, f"SELECT * FROM {quoted(schema)}.{quoted(table)}", folder / path, f"{schema}.{table}")
        tables[f"{schema}.{table}"], source = described_file(folder, path)
        sources.append(source)
    return tables, sources


def copy_out(connection: "DuckDBPyConnection", query: str, file: Path, name: str) -> None:
    """Write what a query answers as Parquet.

    Raises:
        StepFailed: it cannot be read or written; `name` says what.
    """
    import duckdb

    file.parent.mkdir(exist_ok=True, parents=True)
    try:
        connection.execute(f"COPY ({query}) TO {parquet(file)}")
    except duckdb.Error as error:
        raise StepFailed(f"{name} cannot be exported: {str(error).splitlines()[0]}", mend="`warehouse transform` builds the marts anew") from None


def restore_export(choice: Choice, backup: str, into: Path) -> Restored:
    """Write the Parquet files of an export into a folder that does not exist yet, each verified, each with its rows.

    Raises:
        As `restore_warehouse`.
    """
    with unpacked(choice, backup, into) as (restored, partial, marks):
        require_equal(restored.backup, partial)
        restored.tables = len(restored.backup.tables)
        with progress("erasing again"):
            restored.notes += replay_export(partial, marks).notes()
    return restored


def require_equal(one: Manifest, folder: Path) -> None:
    """Compare the Parquet files of an export with its manifest: the rows that are read from each, and its fingerprint.

    Raises:
        StepFailed: a table is not what was exported.
    """
    for table, expected in one.tables.items():
        found, _ = described_file(folder, path_of(*table.split(".", 1)))
        if found != expected:
            raise StepFailed(f"{table} has not the rows that were exported.", mend="restore another: `warehouse backup list`")
