"""A snapshot of the home: all that cannot be made again, as it was at one instant at which nobody wrote.

What a home holds is kept unless it is named here as something that is made anew, so that a new kind of file is not forgotten.
"""

import hashlib
import json
import os
import shutil
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backup.manifest import File, Table
from backup.pack import Source
from warehouse import clock, storage
from warehouse.errors import LeaseHeld, StepFailed, UsageError, mend_of
from warehouse.files import sha256
from warehouse.lease import lease
from warehouse.settings import settings
from warehouse.sql import quoted

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

LOCAL = "backup"
"""The room's own folder in the home."""

METRICS = f"{LOCAL}/metrics.json"
"""What the metrics were when the snapshot was taken; sealed with it, because they are the company's figures."""

_MADE_ANEW = {
    "published": "`warehouse publish` makes it", "logs": "of this machine", "tmp": "spill files", "work": "a load's own files",
    "duckdb_extensions": "from wheels", "sqlmesh": "a cache", "demo": "another server's data", LOCAL: "this room's own", "lease.lock": "of this machine",
    "vault": "keys that must not outlive an erasure: privacy.vault_keys.copy_to", "ledger.ballast": "empty", "landing/.incoming": "half-written packages",
    "erasures": "kept apart (backup.records): a restore replays it",
}  # fmt: skip
LANDING = "landing/"
"""Its packages are never changed: what a store holds of them already is not read again."""
_SQLITE = {"ledger.sqlite"}
_TRANSIENT = ("-wal", "-shm", ".part", ".duckdb.wal")

Metric = tuple[str, str, str]
"""A name, the mart it reads (schema.table), and a query in SQL."""


@dataclass(frozen=True)
class Frozen:
    """A snapshot: when it was taken, its files, and for how many seconds nobody could write. `damaged` says what was so before it was kept."""

    taken_at: datetime
    sources: list[Source]
    tables: dict[str, Table]
    seconds: float
    damaged: tuple[str, ...] = ()


def folder() -> Path:
    """The room's own folder: its lock and its staging area."""
    return settings().home / LOCAL


@contextmanager
def frozen(known: Mapping[str, File], metrics: Sequence[Metric], patience: float) -> Iterator[Frozen]:
    """Copy aside what changes and link what does not, while nobody writes; all of it is gone when this is left.

    Args:
        known: by path, the files of the landing zone that a store holds already: neither linked nor read.
        metrics: asked of the copy, and kept in it.
        patience: seconds to wait for the writer to end.

    Raises:
        UsageError: there is nothing to keep on this machine. LeaseHeld: somebody wrote all the time. StepFailed: see there.
    """
    home = settings().home
    if settings().storage != "duckdb":
        raise UsageError("the warehouse is not a file on this machine, but MotherDuck's.", mend="its own snapshots keep it; name them in backup/policy.yaml")
    if not settings().warehouse_file.exists():
        raise StepFailed(f"there is no warehouse yet at {settings().warehouse_file}.", mend="`warehouse run` makes it")
    staging = folder() / "staging"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True, mode=0o700)
    try:
        changing = sum(path.stat().st_size for path in home.glob("*.duckdb"))
        storage.require_free_space(changing // 1_000_000 + 50)
        with waiting(patience):
            began = time.monotonic()
            taken_at = clock.now()
            paths = _copy(home, staging, known)
            seconds = time.monotonic() - began
        tables, values = measure(staging / settings().warehouse_file.name, metrics)
        (staging / LOCAL).mkdir()
        asked = {name: {"sql": sql, "values": values[name]} for name, _, sql in metrics if name in values}
        (staging / METRICS).write_text(json.dumps(asked, indent=1) + "\n")
        sources = [*(_source(staging, path, known) for path in paths), _source(staging, METRICS, {})]
    except OSError as error:
        shutil.rmtree(staging, ignore_errors=True)
        said = f"the home cannot be copied aside: {error.strerror}: {error.filename or staging}"
        raise StepFailed(said, mend=mend_of(str(error), "run again; `warehouse doctor` says more")) from None
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    try:
        yield Frozen(taken_at, sources, tables, seconds, _damaged(sources, known))
    finally:
        shutil.rmtree(staging, ignore_errors=True)


@contextmanager
def waiting(patience: float, purpose: str = "backup") -> Iterator[None]:
    """Hold the lease; wait for who holds it.

    Raises:
        LeaseHeld: it was held all the time.
    """
    deadline = time.monotonic() + patience
    while True:
        held = lease(purpose)
        try:
            held.__enter__()
            break
        except LeaseHeld:
            if time.monotonic() > deadline:
                raise
            time.sleep(min(1.0, patience / 10 + 0.01))
    try:
        yield
    finally:
        held.__exit__(None, None, None)


def _copy(home: Path, staging: Path, known: Mapping[str, File]) -> list[str]:
    """Bring aside every file that is kept; returns their paths below the home."""
    for database in home.glob("*.duckdb"):
        checkpoint(database)
    paths = []
    for path in _kept(home):
        relative = path.relative_to(home).as_posix()
        with suppress(FileNotFoundError):  # the receiver of webhooks goes on, and names its files anew
            if not _is_known(path, known.get(relative)):
                _bring(path, staging / relative, relative)
            paths.append(relative)
    return paths


def _bring(path: Path, target: Path, relative: str) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if relative in _SQLITE:
        with closing(sqlite3.connect(path)) as ledger, closing(sqlite3.connect(target)) as copy:
            ledger.backup(copy)
    elif relative.startswith(LANDING) and not path.name.startswith("."):
        _link(path, target)
    else:
        shutil.copy2(path, target)


def _kept(home: Path) -> Iterator[Path]:
    apart = {settings().erasures.resolve(), settings().anchors.resolve()}
    for where, folders, files in os.walk(home):
        here = Path(where).relative_to(home)
        folders[:] = sorted(name for name in folders if (here / name).as_posix() not in _MADE_ANEW and (Path(where) / name).resolve() not in apart)
        for name in sorted(files):
            path = Path(where) / name
            if (here / name).as_posix() not in _MADE_ANEW and not name.endswith(_TRANSIENT) and path.is_file() and not path.is_symlink():
                yield path


def _link(path: Path, target: Path) -> None:
    try:
        os.link(path, target)
    except FileNotFoundError:
        raise
    except OSError:  # a file system without hard links
        shutil.copy2(path, target)


def checkpoint(database: Path) -> None:
    """Put all that was written into the file itself.

    Raises:
        StepFailed: somebody has it open, it is damaged, or it is not whole without its log.
    """
    import duckdb

    try:
        with closing(duckdb.connect(str(database), config=storage.duckdb_config())) as connection:
            connection.execute("FORCE CHECKPOINT")
    except duckdb.Error as error:
        raise StepFailed(f"{database.name} cannot be opened: {str(error).splitlines()[0]}", mend="`warehouse doctor` says more") from None
    if database.with_name(f"{database.name}.wal").exists():
        raise StepFailed(f"{database.name} still has a log beside it.", mend="end whatever has it open, and run again")


def _is_known(path: Path, file: File | None) -> bool:
    now = path.stat()
    return file is not None and (file.bytes, file.modified_ns) == (now.st_size, now.st_mtime_ns)


def _damaged(sources: Sequence[Source], known: Mapping[str, File]) -> tuple[str, ...]:
    """The new packages of the landing zone whose file is not what its manifest says: a backup would keep the damage for good, unseen."""
    by_path, found = {source.path: source for source in sources}, []
    for path, source in by_path.items():
        if not path.startswith(LANDING) or path in known or not path.endswith("/manifest.json"):
            continue
        try:
            said = json.loads(source.file.read_bytes())
            file = by_path.get(f"{path.rpartition('/')[0]}/{said['file']}")
            is_whole = file is not None and file.sha256 == said["sha256"]
        except (ValueError, KeyError, TypeError, OSError):
            is_whole = False
        if not is_whole:
            found.append(f"{path.rpartition('/')[0]} is damaged on this machine, and so in the backup: it is not what its manifest says")
    return tuple(found)


def _source(staging: Path, path: str, known: Mapping[str, File]) -> Source:
    file = staging / path
    if not file.exists():  # known: it was not brought aside
        held = known[path]
        return Source(path, settings().home / path, held.bytes, held.sha256, held.mode, held.modified_ns)
    now = file.stat()
    return Source(path, file, now.st_size, sha256(file), now.st_mode & 0o777, now.st_mtime_ns)


def measure(database: Path, metrics: Sequence[Metric]) -> tuple[dict[str, Table], dict[str, Any]]:
    """The tables of a DuckDB file with their rows and fingerprints, and what the metrics say of it.

    A metric whose mart is not there is left out.

    Raises:
        StepFailed: the file cannot be read.
    """
    import duckdb

    config = {**storage.duckdb_config(), "memory_limit": "160MB"}
    try:
        with closing(duckdb.connect(str(database), read_only=True, config=config)) as connection:
            storage.in_utc(connection)
            tables = {f"{schema}.{table}": _table(connection, schema, table) for schema, table in _tables(connection)}
            readable = {row[0] for row in connection.execute("SELECT table_schema || '.' || table_name FROM information_schema.tables").fetchall()}
            values = {name: [[str(value) for value in row] for row in connection.execute(sql).fetchall()] for name, mart, sql in metrics if mart in readable}
    except duckdb.Error as error:
        raise StepFailed(f"{database.name} cannot be read: {str(error).splitlines()[0]}", mend="`warehouse doctor` says more") from None
    return tables, values


def _tables(connection: "DuckDBPyConnection") -> list[tuple[str, str]]:
    query = "SELECT schema_name, table_name FROM duckdb_tables() WHERE database_name = current_database() AND NOT internal ORDER BY ALL"
    return [(schema, table) for schema, table in connection.execute(query).fetchall()]


def _table(connection: "DuckDBPyConnection", schema: str, table: str) -> Table:
    where = "database_name = current_database() AND schema_name = ? AND table_name = ?"
    query = f"SELECT column_name, data_type FROM duckdb_columns() WHERE {where} ORDER BY column_index"
    columns = connection.execute(query, [schema, table]).fetchall()
    names = ", ".join(quoted(name) for name, _ in columns)
    row = connection.execute(f"SELECT count(*), bit_xor(hash({names})), sum(hash({names}) % 1000000007) FROM {quoted(schema)}.{quoted(table)}").fetchone()
    return Table(rows=int(row[0]) if row else 0, fingerprint=hashlib.sha256(repr((row, columns)).encode()).hexdigest()[:32])
