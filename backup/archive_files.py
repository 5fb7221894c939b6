"""The files of an archive: every table as Parquet, SQLMesh's state, what the landing zone holds, and a page that explains them.

Whoever opens it in seven years has neither this project nor its people: `README.md` and `schema.json` say what everything is.
"""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from backup import manifest, snapshot
from backup.export import copy_out, described_file, path_of, readable, relations
from backup.manifest import Table
from backup.pack import Source
from backup.personal import personal
from privacy.rows import is_of_persons
from warehouse import clock, storage
from warehouse.console import progress, tell
from warehouse.files import sha256
from warehouse.settings import settings
from warehouse.sql import quoted

if TYPE_CHECKING:
    import pyarrow as pa
    from duckdb import DuckDBPyConnection

README, SCHEMA = "README.md", "schema.json"
STATE, INVENTORY = "sqlmesh_state", ("landing", "packages")
_ROWS = 100_000
_BATCH = 5_000

Seal = Callable[["pa.Table", str, str], "pa.Table"]
"""Seals what is personal of rows of a raw table (source, name): the same rows, a sealed column is `<name>_sealed`."""

_PAGE = """\
# An archive of the warehouse, as of {at} UTC
Every file is Apache Parquet (zstd) and opens with any tool that reads it: DuckDB, Spark, pandas, Arrow.

- `raw_<source>/`: what was loaded from each source; `marts/`: what was built of it and published; `ops/`: what ran.
- `{state}/`: SQLMesh's state: which version of which model was built over which time.
- `landing/packages.parquet`: every package that the landing zone held then, with rows and SHA-256; the packages are not here.
- `{schema}`: of each file the columns, their types in DuckDB, and what became of those that are personal.

{personal}

Times are UTC; amounts of money are DECIMAL beside their currency. `_loaded_at` is when a row was loaded. Made by {versions}.
"""
_SAID = {
    "dropped": "Columns that are personal (pseudonyms and keys of persons among them) are **not in it**: `dropped` in `{schema}` names them.",
    "sealed": "Columns that are personal are sealed value by value (AES-256-GCM) under a key of each person: `<name>_sealed`. With the vault's\n"
    "keys they are opened by the vault of the project that made this; of a person who was erased the key was destroyed, and nothing\n"
    "opens them. Columns that are nobody's in particular, and yet personal, are not in it: `dropped` in `{schema}` names them.",
}


@dataclass
class Written:
    """An archive's files, while they are there: as of when, of which tables, and how personal columns are in it."""

    taken_at: datetime
    sources: list[Source] = field(default_factory=list)
    tables: dict[str, Table] = field(default_factory=dict)
    personal: Literal["sealed", "dropped"] = "dropped"


@contextmanager
def written(patience: float) -> Iterator[Written]:
    """Write the files aside, from the warehouse and its state at one instant; they are gone when this is left.

    What is personal is sealed where there is a vault (PRIVACY__VAULT_KEY); without one it is left out.

    Args:
        patience: seconds to wait for the writer to end.

    Raises:
        LeaseHeld: somebody wrote all the time. UsageError: the vault's key is not the vault's.
        StepFailed: something cannot be read, or the disk is full.
    """
    folder = snapshot.folder() / "staging"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, mode=0o700)
    try:
        made, schema = Written(clock.now()), {}
        state = settings().state_file
        with readable(folder, patience, [state]) as connection:
            sealing = _sealing(connection)
            made.personal = "sealed" if sealing else "dropped"
            named = relations(connection)
            with progress("writing tables", len(named)) as advance:
                for relation in named:
                    tell(f"writing {'.'.join(relation)}")
                    schema[".".join(relation)] = _table(connection, folder, relation, sealing)
                    _add(made, folder, relation)
                    advance(1)
        if (folder / state.name).exists():
            schema |= _state(made, folder, folder / state.name)
        _inventory(made, folder)
        schema[".".join(INVENTORY)] = {"columns": None, "what": "packages of the landing zone"}
        _page(made, folder, schema)
        yield made
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _sealing(connection: "DuckDBPyConnection") -> Seal | None:
    from privacy.vault import Sealer

    key = settings().privacy.vault_key
    return Sealer(connection).seal if key and key.get_secret_value() else None


def _add(made: Written, folder: Path, relation: tuple[str, str]) -> None:
    table, source = described_file(folder, path_of(*relation))
    made.tables[".".join(relation)] = table
    made.sources.append(source)


def _table(connection: "DuckDBPyConnection", folder: Path, relation: tuple[str, str], seal: Seal | None) -> dict[str, Any]:
    """Write one table without what is personal, or with it sealed; returns what `schema.json` says of it."""
    schema, table = relation
    name = f"{quoted(schema)}.{quoted(table)}"
    columns = {row[0]: row[1] for row in connection.execute(f"DESCRIBE SELECT * FROM {name}").fetchall()}
    dropped, file = personal(schema, table, columns), folder / path_of(schema, table)
    sealed: set[str] = set()
    if seal and schema.startswith("raw_") and is_of_persons(schema.removeprefix("raw_"), table):
        sealed = _write_sealed(connection, columns, file, relation, seal, dropped)
        dropped -= sealed
    else:
        kept = [column for column in columns if column not in dropped]
        chosen = ", ".join(quoted(column) for column in kept) or "count(*) AS rows"
        copy_out(connection, f"SELECT {chosen} FROM {name}", file, ".".join(relation))
    return {"columns": columns, "sealed": sorted(sealed), "dropped": sorted(dropped)}


def _write_sealed(
    connection: "DuckDBPyConnection", columns: Mapping[str, str], file: Path, relation: tuple[str, str], seal: Seal, personal: set[str]
) -> set[str]:
    """Write a raw table with what is personal sealed, in bounded memory; returns the columns that are. What is left in clear of them is not written."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from privacy.vault import SUFFIX

    schema, table = relation
    file.parent.mkdir(exist_ok=True, parents=True)
    chosen = ", ".join(_sealable(name, kind) if name in personal else quoted(name) for name, kind in columns.items())
    reader = connection.cursor().execute(f"SELECT {chosen} FROM {quoted(schema)}.{quoted(table)}").to_arrow_reader(_ROWS)
    empty = pa.Table.from_batches([], reader.schema)
    done: set[str] = set()
    writer: pq.ParquetWriter | None = None
    try:
        for rows in chain([empty], (pa.Table.from_batches([batch]) for batch in reader)):
            closed = seal(rows, schema.removeprefix("raw_"), table)
            done |= {column for column in columns if f"{column}{SUFFIX}" in closed.column_names}
            closed = closed.drop_columns([column for column in closed.column_names if column in personal])
            writer = writer or pq.ParquetWriter(file, closed.schema, compression="zstd", version="2.6")
            writer.write_table(closed.cast(writer.schema))
    finally:
        if writer is not None:
            writer.close()
    return done


def _sealable(name: str, kind: str) -> str:
    """SQL for a column in a type that can be sealed: what is nested as JSON, what is rare as text."""
    if kind.endswith("]") or kind.startswith(("STRUCT", "MAP", "UNION")):
        return f"to_json({quoted(name)})::VARCHAR AS {quoted(name)}"
    return f"{quoted(name)}::VARCHAR AS {quoted(name)}" if kind.startswith(("ENUM", "INTERVAL", "BIT", "UUID", "JSON")) else quoted(name)


def _state(made: Written, folder: Path, database: Path) -> dict[str, Any]:
    """SQLMesh's state, table by table: queries and times, nobody's data."""
    import duckdb

    found = {}
    with closing(duckdb.connect(str(database), read_only=True, config=storage.duckdb_config())) as connection:
        storage.in_utc(connection)
        query = "SELECT schema_name, table_name FROM duckdb_tables() WHERE database_name = current_database() AND NOT internal ORDER BY ALL"
        for schema, table in connection.execute(query).fetchall():
            name, rows = f"{schema}.{table}", f"SELECT * FROM {quoted(schema)}.{quoted(table)}"
            copy_out(connection, rows, folder / path_of(STATE, name), f"{STATE}.{name}")
            _add(made, folder, (STATE, name))
            found[f"{STATE}.{name}"] = {"columns": {row[0]: row[1] for row in connection.execute(f"DESCRIBE {rows}").fetchall()}}
    database.unlink()
    return found


def _inventory(made: Written, folder: Path) -> None:
    """What the landing zone holds, package by package, as its own manifests say; they are read in batches."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = pa.schema([
        ("source", pa.string()), ("table", pa.string()), ("load_id", pa.string()), ("file", pa.string()), ("rows", pa.int64()), ("bytes", pa.int64()),
        ("sha256", pa.string()), ("written_at", pa.string()), ("is_loaded", pa.bool_()),
    ])  # fmt: skip
    landing, file = settings().landing, folder / path_of(*INVENTORY)
    file.parent.mkdir(parents=True, exist_ok=True)
    with pq.ParquetWriter(file, columns, compression="zstd") as writer, progress("listing the landing zone") as advance:
        rows: list[dict[str, Any]] = []
        for path in sorted(landing.glob("[!.]*/*/*/manifest.json")):
            rows.append(_package(path))
            if len(rows) == _BATCH:
                writer.write_table(pa.Table.from_pylist(rows, columns))
                advance(len(rows))
                rows = []
        writer.write_table(pa.Table.from_pylist(rows, columns))
    _add(made, folder, INVENTORY)


def _package(path: Path) -> dict[str, Any]:
    said = json.loads(path.read_text())
    kept = path.parent / said["file"]
    told = {key: said.get(key) for key in ("source", "table", "load_id", "rows", "sha256", "written_at")}
    size = kept.stat().st_size if kept.exists() else None
    return {**told, "file": kept.relative_to(settings().landing).as_posix(), "bytes": size, "is_loaded": (path.parent / "LOADED").exists()}


def _page(made: Written, folder: Path, schema: dict[str, Any]) -> None:
    versions = manifest.versions("duckdb", "sqlmesh", "pyarrow")
    said = ", ".join(f"{name} {version}" for name, version in versions.items())
    text = _PAGE.format(at=f"{made.taken_at:%Y-%m-%d %H:%M:%S}", state=STATE, schema=SCHEMA, versions=said, personal=_SAID[made.personal].format(schema=SCHEMA))
    tables = {name: {**said, "rows": made.tables[name].rows, "file": path_of(*name.split(".", 1))} for name, said in schema.items()}
    content = json.dumps({"as_of": made.taken_at.isoformat(), "personal": made.personal, "versions": versions, "tables": tables}, indent=1)
    for name, written in ((README, text), (SCHEMA, content + "\n")):
        file = folder / name
        file.write_text(written, encoding="utf-8")
        now = file.stat()
        made.sources.append(Source(name, file, now.st_size, sha256(file), 0o644, now.st_mtime_ns))
