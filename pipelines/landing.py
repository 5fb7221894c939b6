"""The landing zone: every loaded package as immutable Parquet, `landing/<source>/<table>/<load_id>/`, kept for ever.

A package is written before it is loaded and marked after it is loaded, so that the landing zone alone can make the raw
tables anew. A package without its mark was never loaded; the next load settles it.
"""

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from warehouse import clock
from warehouse.errors import StepFailed
from warehouse.files import flush_file, flush_folder, sha256, write_atomically
from warehouse.settings import settings

MANIFEST = "manifest.json"
LOADED = "LOADED"
_NOTES = ".unsettled"
"""A note for each package that has no mark yet, so that they are found without reading all that is kept."""


@dataclass(frozen=True)
class Package:
    """One package of one table: `file` holds `rows` rows, as merged by `primary_key`, the row with the highest `newest_by` winning.

    `schema` is name -> Arrow type.
    """

    source: str
    table: str
    load_id: str
    folder: Path
    file: Path
    rows: int
    sha256: str
    primary_key: list[str]
    schema: dict[str, str]
    newest_by: str | None = None

    @property
    def is_loaded(self) -> bool:
        """Whether its load was seen to end well."""
        return (self.folder / LOADED).exists()


def keep(source: str, table: str, load_id: str, file: Path, primary_key: list[str], newest_by: str | None = None) -> Package:
    """Put a Parquet file into the landing zone with its manifest; a repetition of the same package changes nothing.

    The folder appears whole, by one rename, or not at all.
    """
    import pyarrow.parquet as pq

    folder = settings().landing / source / quote(table, safe="") / load_id
    if (folder / MANIFEST).exists():
        return read(folder)
    incoming = settings().landing / ".incoming" / quote(f"{source}.{table}.{load_id}", safe="")
    shutil.rmtree(incoming, ignore_errors=True)
    incoming.mkdir(parents=True)
    kept = incoming / f"{quote(table, safe='')}.parquet"
    try:
        os.link(file, kept)
    except OSError:  # another file system
        shutil.copyfile(file, kept)
    kept.chmod(0o444)
    flush_file(kept)
    metadata = pq.read_metadata(kept)
    schema = metadata.schema.to_arrow_schema()
    manifest = {
        "source": source, "table": table, "load_id": load_id, "file": kept.name, "rows": metadata.num_rows, "sha256": sha256(kept),
        "primary_key": primary_key, "newest_by": newest_by, "schema": [{"name": field.name, "type": str(field.type)} for field in schema],
        "written_at": clock.now().isoformat(),
    }  # fmt: skip
    write_atomically(incoming / MANIFEST, json.dumps(manifest, indent=2) + "\n", mode=0o444)
    folder.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(_note(source, table, load_id), str(folder.relative_to(settings().landing)))  # a restored home is elsewhere
    os.replace(incoming, folder)
    flush_folder(folder.parent)
    return read(folder)


def mark_loaded(package: Package) -> None:
    """Note that the package is in the warehouse."""
    if not package.is_loaded:
        write_atomically(package.folder / LOADED, clock.now().isoformat() + "\n", mode=0o444)
    _note(package.source, package.table, package.load_id).unlink(missing_ok=True)


def set_aside(package: Package) -> None:
    """Move a package that was never loaded and never will be out of the way; the source is read again instead."""
    aside = settings().landing / ".set_aside" / package.source / quote(package.table, safe="") / package.load_id
    aside.parent.mkdir(parents=True, exist_ok=True)
    os.replace(package.folder, aside)
    _note(package.source, package.table, package.load_id).unlink(missing_ok=True)


def unsettled(source: str) -> list[Package]:
    """The packages of a source without their mark, oldest first: a few, however many are kept."""
    notes = settings().landing / _NOTES
    folders = [settings().landing / note.read_text() for note in notes.iterdir() if not note.name.startswith(".")] if notes.exists() else []
    found = [read(folder) for folder in folders if (folder / MANIFEST).exists()]
    return sorted((package for package in found if package.source == source), key=lambda package: float(package.load_id))


def _note(source: str, table: str, load_id: str) -> Path:
    return settings().landing / _NOTES / quote(f"{source}.{table}.{load_id}", safe="")


def packages(source: str, table: str | None = None) -> Iterator[Package]:
    """The packages of a source (or of one of its tables), oldest load first."""
    root = settings().landing / source
    tables = [quote(table, safe="")] if table else sorted(path.name for path in root.iterdir() if path.is_dir()) if root.exists() else []
    for name in tables:
        folders = [path for path in (root / name).iterdir() if (path / MANIFEST).exists()] if (root / name).exists() else []
        for folder in sorted(folders, key=lambda path: float(path.name)):
            yield read(folder)


def read(folder: Path) -> Package:
    """A package's manifest.

    Raises:
        StepFailed: the manifest is damaged.
    """
    try:
        content: dict[str, Any] = json.loads((folder / MANIFEST).read_text())
        return Package(
            content["source"], content["table"], content["load_id"], folder, folder / content["file"], content["rows"],
            content["sha256"], content["primary_key"], {column["name"]: column["type"] for column in content["schema"]},
            content.get("newest_by"),
        )  # fmt: skip
    except (OSError, ValueError, KeyError) as error:
        raise StepFailed(f"the manifest of {folder} cannot be read: {error}", mend="restore the landing zone from a backup") from None


def verify(package: Package) -> None:
    """Compare the file with its manifest.

    Raises:
        StepFailed: it is missing or not the bytes that were written.
    """
    if not package.file.exists() or sha256(package.file) != package.sha256:
        raise StepFailed(
            f"landing zone: {package.file} is missing or damaged; its SHA-256 is not that of its manifest.",
            mend="restore the landing zone from a backup; nothing was rebuilt from the damaged file",
        )
