"""Publish the marts as a read copy that any DuckDB client opens while the next run writes.

`published/warehouse.duckdb` is a small file of views over the Parquet files of `published/current`, a link that is
flipped in one step. A connection that stays open (Metabase's pool) sees the new data with its next query, which it would
not when the file itself were swapped under it; the small file is swapped only when columns or their meaning change
(docs/adr/0004-published-copy.md).
"""

import hashlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from warehouse import clock, storage
from warehouse.errors import StepFailed, mend_of, scrub
from warehouse.files import flush_file, flush_folder
from warehouse.settings import settings
from warehouse.sql import literal, parquet

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

SCHEMA = "marts"
READ_COPY = "warehouse.duckdb"
"""Not named like the schema: DuckDB would call `marts.order_facts` ambiguous."""
_KEPT_VERSIONS = 3


@dataclass(frozen=True)
class Published:
    """What readers see now."""

    read_copy: Path | None
    tables: dict[str, int]
    rewritten: list[str]


@dataclass(frozen=True)
class _Column:
    name: str
    type: str
    comment: str | None


def publish() -> Published:
    """Write each mart that changed, then show all of them at once. Hold the lease.

    Returns:
        the tables with their rows, and which of them were written anew (the others keep their file).

    Raises:
        StepFailed: there is no mart yet, or the disk is full; readers keep what they had.
    """
    if settings().storage == "motherduck":
        return Published(None, {}, [])  # readers query MotherDuck itself
    import duckdb

    with storage.open_warehouse() as connection:
        tables = _marts(connection)
        if not tables:
            raise StepFailed("there are no marts to publish.", mend="`warehouse transform` builds them")
        try:
            return _publish(connection, tables)
        except (duckdb.Error, OSError) as error:
            said = scrub(str(error)).splitlines()[0]
            raise StepFailed(f"publishing failed: {said}", mend=mend_of(said, "run again; readers keep what they had")) from None


def _publish(connection: "DuckDBPyConnection", tables: dict[str, list[_Column]]) -> Published:
    root = settings().published
    root.mkdir(parents=True, exist_ok=True)
    current = root / "current"
    version = root / f"v{clock.now():%Y%m%dT%H%M%S}_{os.urandom(3).hex()}"
    rows, rewritten, contents = {}, [], {}
    for table, columns in tables.items():
        rows[table], contents[table] = _content(connection, table, columns)
    held = _held(current)
    if {table: f"{table}.{content}.parquet" for table, content in contents.items()} != held:
        version.mkdir()
        for table, content in contents.items():
            name = f"{table}.{content}.parquet"
            if held.get(table) == name:
                os.link(current / name, version / name)
            else:
                _write(connection, table, tables[table], version / name)
                rewritten.append(table)
            os.symlink(name, version / f"{table}.parquet")
        flush_folder(version)
        _flip(current, version)
    _write_read_copy(root, tables)
    _forget_old(root, current)
    return Published(root / READ_COPY, rows, rewritten)


def _marts(connection: "DuckDBPyConnection") -> dict[str, list[_Column]]:
    query = (
        "SELECT table_name, column_name, data_type, comment FROM duckdb_columns() "
        "WHERE database_name = current_database() AND schema_name = ? ORDER BY table_name, column_index"
    )
    tables: dict[str, list[_Column]] = {}
    for table, name, kind, comment in connection.execute(query, [SCHEMA]).fetchall():
        tables.setdefault(table, []).append(_Column(name, kind, comment))
    return tables


def _content(connection: "DuckDBPyConnection", table: str, columns: list[_Column]) -> tuple[int, str]:
    """The rows of a mart and a fingerprint of its content and columns, whatever the order of its rows."""
    names = ", ".join(f'"{column.name}"' for column in columns)
    row = connection.execute(f'SELECT count(*), bit_xor(hash({names})), sum(hash({names}) % 1000000007) FROM {SCHEMA}."{table}"').fetchone()
    kinds = [(column.name, column.type) for column in columns]
    return int(row[0]) if row else 0, hashlib.sha256(repr((row, kinds)).encode()).hexdigest()[:16]


def _write(connection: "DuckDBPyConnection", table: str, columns: list[_Column], file: Path) -> None:
    names = ", ".join(f'"{column.name}"' for column in columns)
    connection.execute(f'COPY (SELECT {names} FROM {SCHEMA}."{table}") TO {parquet(file)}')
    flush_file(file)


def _held(current: Path) -> dict[str, str]:
    if not current.exists():
        return {}
    return {link.stem: os.readlink(link) for link in current.iterdir() if link.is_symlink()}


def _flip(current: Path, version: Path) -> None:
    beside = current.with_name(".current")
    beside.unlink(missing_ok=True)
    os.symlink(version.name, beside)
    os.replace(beside, current)
    flush_folder(current.parent)


def _write_read_copy(root: Path, tables: dict[str, list[_Column]]) -> None:
    """Swap the file of views when tables, columns or comments differ from what it was made for."""
    import duckdb

    statements = [f"CREATE SCHEMA {SCHEMA}"]
    for table, columns in tables.items():
        names = ", ".join(f'"{column.name}"' for column in columns)
        statements.append(f'CREATE VIEW {SCHEMA}."{table}" AS SELECT {names} FROM read_parquet({literal(root / "current" / f"{table}.parquet")})')
        statements += [f'COMMENT ON COLUMN {SCHEMA}."{table}"."{column.name}" IS {literal(column.comment)}' for column in columns if column.comment]
    signature = hashlib.sha256("\n".join(statements).encode()).hexdigest()
    signature_file = root / ".read_copy.sha256"
    read_copy = root / READ_COPY
    if read_copy.exists() and signature_file.exists() and signature_file.read_text() == signature:
        return
    beside = root / f".{READ_COPY}.part"
    beside.unlink(missing_ok=True)
    with duckdb.connect(str(beside)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.execute("CHECKPOINT")
    flush_file(beside)
    os.replace(beside, read_copy)
    signature_file.write_text(signature)
    flush_folder(root)


def _forget_old(root: Path, current: Path) -> None:
    """Remove versions that no reader can still be opening: all but the newest few and the one shown."""
    shown = os.readlink(current)
    versions = sorted((path for path in root.glob("v*") if path.is_dir()), key=lambda path: path.stat().st_mtime)
    for path in versions[:-_KEPT_VERSIONS]:
        if path.name != shown:
            shutil.rmtree(path)
