"""Erasure in everything that is no raw table: landing zone, built tables, published copies, spool, and the bytes that DuckDB leaves behind."""

import fcntl
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from privacy.erasures import write_without
from privacy.policy import policy
from privacy.rows import Finder, find, is_of_persons, turn_of
from privacy.spooled import erase_old_parts
from privacy.subjects import EMAIL, distinct, expression, parameters, tagged
from warehouse import restate, storage
from warehouse.errors import StepFailed
from warehouse.files import flush_file, flush_folder, sha256, write_atomically
from warehouse.settings import settings
from warehouse.sql import literal, parquet, quoted

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_MANIFEST = "manifest.json"
_NEXT = ".manifest.next.json"
_BUILT = re.compile(r"^(?P<schema>[a-z]\w*?)__(?P<name>\w+?)__\d+(__\w+)?$")
"""How SQLMesh calls the tables it keeps: schema, name, fingerprint."""
_ENOUGH_MEGABYTES = 200


def erase_landing(
    connection: "DuckDBPyConnection",
    landing: Path,
    *,
    dry_run: bool = False,
    find: Finder = find,
    is_concerned: Callable[[str, str], bool] = is_of_persons,
) -> dict[str, int]:
    """Write the packages that hold erased persons anew, with their manifests; persons first, as in the raw tables.

    Args:
        find, is_concerned: to take out something else than erased persons: what of a relation, and of which tables.

    Returns:
        the folder of each package that changed, relative to the landing zone -> rows changed or removed.
    """
    changed = {}
    for folder, manifest in _packages(landing, is_concerned):
        file = folder / manifest["file"]
        if dry_run and not file.exists():
            continue
        count = _settled(folder, manifest)
        if count is None:
            count, beside = write_without(connection, manifest["source"], manifest["table"], file, find)
            if beside and dry_run:
                beside.unlink()
            elif beside:
                _replace(folder, manifest, file, beside, count)
        if count:
            changed[str(folder.relative_to(landing))] = count
    return changed


def _packages(landing: Path, is_concerned: Callable[[str, str], bool]) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Every package of a table that is concerned, also what was set aside or never loaded."""
    found = []
    for path in landing.rglob(_MANIFEST) if landing.exists() else []:
        try:
            manifest = json.loads(path.read_text())
            own = (manifest["source"], manifest["table"])
        except (OSError, ValueError, KeyError) as error:
            raise StepFailed(
                f"the manifest of {path.parent} cannot be read: {type(error).__name__}", mend="restore that package from a backup, and erase again"
            ) from None
        if is_concerned(*own):
            found.append((turn_of(*own), path.parent, manifest))
    yield from ((folder, manifest) for _, folder, manifest in sorted(found, key=lambda one: (one[0], str(one[1]))))


def _settled(folder: Path, manifest: dict[str, Any]) -> int | None:
    """Finish what a kill interrupted between a new file and its manifest; the rows it changed, or None when there is nothing to finish."""
    pending = folder / _NEXT
    if not pending.exists():
        return None
    following = json.loads(pending.read_text())
    if sha256(folder / manifest["file"]) != following["sha256"]:
        pending.unlink()
        return None
    os.replace(pending, folder / _MANIFEST)
    flush_folder(folder)
    return int(following["erased_rows"])


def _replace(folder: Path, manifest: dict[str, Any], file: Path, beside: Path, count: int) -> None:
    import pyarrow.parquet as pq

    beside.chmod(0o444)
    flush_file(beside)
    metadata = pq.read_metadata(beside)
    columns = [{"name": field.name, "type": str(field.type)} for field in metadata.schema.to_arrow_schema()]
    following = {**manifest, "rows": metadata.num_rows, "sha256": sha256(beside), "schema": columns, "erased_rows": count}
    write_atomically(folder / _NEXT, json.dumps(following, indent=2) + "\n", mode=0o444)
    os.replace(beside, file)
    os.replace(folder / _NEXT, folder / _MANIFEST)
    flush_folder(folder)


def erase_built(connection: "DuckDBPyConnection", *, dry_run: bool = False) -> dict[str, int]:
    """Take the rows of erased persons out of every table that SQLMesh keeps, those of histories and of reviews among them.

    Returns:
        `<schema>.<table>` -> rows removed. `models_of` names the models that have to be built anew.
    """
    query = (
        "SELECT schema_name, table_name, list(column_name) FROM duckdb_columns() JOIN duckdb_tables() USING (database_name, schema_name, table_name) "
        "WHERE database_name = current_database() AND starts_with(schema_name, 'sqlmesh__') GROUP BY ALL ORDER BY ALL"
    )
    changed = {}
    for schema, table, columns in connection.execute(query).fetchall():
        name = f"{schema}.{quoted(table)}"
        condition = theirs(connection, name, columns)
        row = connection.execute(f"SELECT count(*) FROM {name} AS r WHERE {condition}").fetchone() if condition else None
        if row and row[0]:
            changed[f"{schema}.{table}"] = int(row[0])
            if not dry_run:
                restate.note(connection, _behind([f"{schema}.{table}"]), f"{schema}.{table}")  # also one that a review alone has in its code
                connection.execute(f"DELETE FROM {name} AS r WHERE {condition}")
    return changed


def models_of(tables: Iterable[str]) -> list[str]:
    """The models behind built tables that can be made anew from their input: not the histories."""
    return [name for name in _behind(tables) if restate.is_written(name)]


def _behind(tables: Iterable[str]) -> list[str]:
    found = {f"{match['schema']}.{match['name']}" for match in (_BUILT.match(table.split(".", 1)[1]) for table in tables) if match}
    return sorted(found - set(policy().histories))


def has_built(connection: "DuckDBPyConnection") -> bool:
    """Whether any model was ever built."""
    return connection.execute("SELECT 1 FROM duckdb_tables() WHERE starts_with(schema_name, 'sqlmesh__') LIMIT 1").fetchone() is not None


def erase_published(
    connection: "DuckDBPyConnection", published: Path, *, dry_run: bool = False, is_wanted: Callable[[Path], bool] = lambda path: True
) -> dict[str, int]:
    """Take the rows of erased persons out of every published file, also of versions that readers no longer see.

    Args:
        is_wanted: which Parquet files of the folder are looked at.

    Returns:
        the path of each file that changed, relative to the folder -> rows removed.
    """
    changed = {}
    for file in sorted(path for path in published.rglob("*.parquet") if not path.is_symlink() and is_wanted(path)) if published.exists() else []:
        relation = f"read_parquet({literal(file)})"
        condition = theirs(connection, relation, [row[0] for row in connection.execute(f"DESCRIBE SELECT * FROM {relation}").fetchall()])
        row = connection.execute(f"SELECT count(*) FROM {relation} AS r WHERE {condition}").fetchone() if condition else None
        if not row or not row[0]:
            continue
        changed[str(file.relative_to(published))] = int(row[0])
        if not dry_run:
            beside = file.with_name(f".{file.name}.erased")
            connection.execute(f"COPY (SELECT * FROM {relation} AS r WHERE NOT coalesce({condition}, false)) TO {parquet(beside)}")
            flush_file(beside)
            os.replace(beside, file)
            flush_folder(file.parent)
    return changed


def theirs(connection: "DuckDBPyConnection", relation: str, columns: list[str]) -> str:
    """SQL that says whether a row of what was built is one of an erased person; empty when none is."""
    conditions: list[str] = []
    for column, kind in policy().carried.items():
        if column not in columns:
            continue
        value = expression(column)
        hits = f"SELECT value, erased_at FROM ({distinct(column, relation)}) JOIN _erased ON tag = {tagged(kind, 'value')}"
        connection.execute(f"CREATE OR REPLACE TEMP TABLE _carried_{len(conditions)} AS {hits}", parameters())
        if connection.execute(f"SELECT 1 FROM _carried_{len(conditions)} LIMIT 1").fetchone():
            # Who came again after the erasure, with the same email, is a customer anew: only what is older goes by the email.
            since = next((name for name in ("created_at", "signup_date") if name in columns), None)
            older = f" AND r.{quoted(since)} <= h.erased_at" if kind == EMAIL and since else ""
            conditions.append(f"EXISTS (SELECT 1 FROM _carried_{len(conditions)} AS h WHERE h.value = {value}{older})")
    return " OR ".join(conditions)


def remove_scratch() -> list[str]:
    """Remove what half-done work may have left: spill files, working files, parts of files, copies that a backup made. Hold the lease.

    Returns:
        what was removed. Of a backup, restore or drill that is running, nothing: it removes its copies itself.
    """
    home, removed = settings().home, []
    folders = [home / name for name in ("work", "tmp")]
    with _no_backup_runs(home / "backup" / "lock") as is_free:
        if is_free:
            folders += [path for path in (home / "backup").iterdir() if path.is_dir() and path.name != "wal"] if (home / "backup").exists() else []
        for folder in folders:
            if folder.exists():
                shutil.rmtree(folder)
                removed.append(str(folder.relative_to(home)))
    parts = erase_old_parts([settings().landing, settings().published, settings().spool])
    return [*removed, *(str(part.relative_to(home)) for part in parts)]


@contextmanager
def _no_backup_runs(lock: Path) -> Iterator[bool]:
    """Whether no backup, restore or drill of this home runs; none begins while inside."""
    if not lock.exists():
        yield True
        return
    with lock.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def compact(file: Path) -> int:
    """Write a DuckDB file anew and put it in the place of the old one: a deleted row leaves its bytes in the file, also after a checkpoint.

    Nobody may have the file open. Needs as much free space as the file takes. Killed before the last step, it changes nothing.

    Returns:
        how many bytes the old file had.
    """
    import duckdb

    size = file.stat().st_size
    storage.require_free_space(size // 1_000_000 + _ENOUGH_MEGABYTES)
    beside = file.with_name(f".{file.name}.compact")
    for left in (beside, beside.with_name(f"{beside.name}.wal")):
        left.unlink(missing_ok=True)
    config = storage.duckdb_config()
    with duckdb.connect(":memory:", config=config) as connection:
        storage.load_extension(connection, "icu")
        connection.execute(f"ATTACH {literal(file)} AS {storage.CATALOG}")
        connection.execute(f"CHECKPOINT {storage.CATALOG}")
        connection.execute(f"ATTACH {literal(beside)} AS compacted")
        connection.execute(f"COPY FROM DATABASE {storage.CATALOG} TO compacted")
        connection.execute("CHECKPOINT compacted")
        connection.execute(f"DETACH {storage.CATALOG}")
        connection.execute("DETACH compacted")
    flush_file(beside)
    os.replace(beside, file)
    file.with_name(f"{file.name}.wal").unlink(missing_ok=True)
    flush_folder(file.parent)
    return size
