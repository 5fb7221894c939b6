"""Restoring: always into a fresh place, from whichever store has each object whole, and compared before anyone may open it."""

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from backup import manifest, pack, snapshot
from backup.encryption import Damaged, WrongKey, identities
from backup.manifest import File, Manifest, Pack
from backup.policy import Kind, StoreName, configured
from backup.snapshot import Metric
from backup.store import Held, Store, StoreFailed, stores
from privacy.erasures import require
from privacy.replay import replay_home
from warehouse.console import progress, tell
from warehouse.errors import StepFailed, UsageError
from warehouse.files import flush_folder
from warehouse.settings import settings

if TYPE_CHECKING:
    from pyrage import x25519


@dataclass
class Restored:
    """What was restored, from which stores, and what was found equal. `notes` say what was not as it should be and did no harm."""

    backup: Manifest
    into: Path
    stores: list[str] = field(default_factory=list)
    tables: int = 0
    metrics: int = 0
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)


class _Place:
    """A store with what it holds of one kind of data."""

    def __init__(self, store: Store, what: Kind) -> None:
        self.store, self.backups, self.packs = store, manifest.listed(store, what), store.held(f"{what}/packs/")


class Choice:
    """The backups of one kind of data in all the stores that answer.

    Raises:
        StoreFailed: none of them answers. UsageError: backups are not configured.
    """

    def __init__(self, what: Kind, only: StoreName | None = None) -> None:
        self.notes: list[str] = []
        self.places: list[_Place] = []
        declared, failure, made = configured(only).data[what].stores, None, stores(only=only)
        for name in declared:
            if only in (None, name):
                try:
                    self.places.append(_Place(made[name], what))
                except StoreFailed as error:
                    failure = error
                    self.notes.append(error.what)
        if failure is not None and not self.places:
            raise failure

    def ids(self) -> list[str]:
        """The backups that some store holds, oldest first."""
        return sorted({backup for place in self.places for backup in place.backups})

    def at(self, as_of: datetime) -> str:
        """The newest backup that shows an instant not after the one given.

        Raises:
            UsageError: there is none.
        """
        found = [backup for backup in self.ids() if manifest.time_of(backup) <= as_of]
        if not found:
            oldest = self.ids()
            since = f"the oldest shows {manifest.time_of(oldest[0]):%Y-%m-%d %H:%M:%S}" if oldest else "there is none at all"
            raise UsageError(f"there is no backup of {as_of:%Y-%m-%d %H:%M:%S} UTC or before: {since}.", mend="`warehouse backup list` shows them")
        return found[-1]

    def read(self, backup: str) -> Manifest:
        """A backup's manifest, from the first store that has it whole.

        Raises:
            Damaged, StoreFailed: no store has.
        """
        failure: StepFailed | None = None
        for place in self.places:
            if backup in place.backups:
                try:
                    return manifest.read(place.store, place.backups[backup])
                except (Damaged, StoreFailed) as error:
                    failure = error
                    self.notes.append(error.what)
        raise failure or StoreFailed(f"no store holds the backup {backup}.", mend="`warehouse backup list` shows them")


def restore_warehouse(choice: Choice, backup: str, into: Path, metrics: Sequence[Metric]) -> Restored:
    """Restore a home into a folder that does not exist yet; it appears whole, compared, and without whoever was erased, or not at all.

    Args:
        metrics: asked again, where the backup has the answer to the very same question.

    Raises:
        UsageError: the private key is not set, or the folder is in use. WrongKey: it is another key.
        Damaged, StoreFailed: no store has something whole; what is in the folder's place is nothing.
        StepFailed: what was restored is not equal, or the ledger of erasures is missing or older than what is known of it.
    """
    with unpacked(choice, backup, into) as (restored, partial, marks):
        _compare(restored.backup, partial, metrics, restored)
        with progress("erasing again"):
            restored.notes += replay_home(partial, marks).notes()
    return restored


@contextmanager
def unpacked(choice: Choice, backup: str, into: Path) -> "Iterator[tuple[Restored, Path, list[str]]]":
    """The files of a backup, beside the folder they go to; that appears when the block ends well, and nothing of them is left when it does not.

    Yields:
        what is restored; where its files are; how far the ledger of erasures has to go (see `required`).

    Raises:
        As `restore_warehouse`.
    """
    began = time.monotonic()
    keys, one = identities(), choice.read(backup)
    marks = required(choice, backup)
    partial = fresh(into, one)
    restored = Restored(one, into)
    try:
        unpack_all(choice, one, partial, keys, restored)
        yield restored, partial, marks
        os.sync()
        os.rename(partial, into)
        flush_folder(into.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    restored.notes = [*dict.fromkeys([*choice.notes, *restored.notes])]
    restored.seconds = time.monotonic() - began


def required(choice: Choice, backup: str) -> list[str]:
    """How far the ledger of erasures has to go for this restore, by all that the stores know; refused here where it does not.

    Raises:
        StepFailed: it is missing or older, or was tampered with.
    """
    from backup.records import marks

    found = marks(choice, backup)
    require(found)
    return found


def fresh(into: Path, one: Manifest, needed: int = 0) -> Path:
    """Where to restore to before the folder appears.

    Args:
        needed: the bytes that it takes, where that is not the size of the backup's files.

    Raises:
        UsageError: the folder is not fresh. StepFailed: the disk has no room.
    """
    if into.exists() and (not into.is_dir() or any(into.iterdir())):
        what = "is the home in use" if into.resolve() == settings().home else "is not empty"
        raise UsageError(f"{into} {what}: a backup is only restored into a fresh place.", mend="name a new folder, look at it, then set WAREHOUSE_HOME to it")
    into.parent.mkdir(parents=True, exist_ok=True)
    require_room(into.parent, needed or one.bytes)
    partial = into.with_name(f".{into.name}.part")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    return partial


def require_room(folder: Path, needed: int) -> None:
    """Refuse to begin what a full disk would stop half-way.

    Raises:
        StepFailed: the disk of the folder has no room for so many bytes.
    """
    free = shutil.disk_usage(folder).free
    if free < needed * 1.05 + (1 << 20):
        raise StepFailed(f"{folder} has {free / 1e6:.0f} MB free, the backup needs {needed * 1.05 / 1e6:.0f} MB.", mend="restore to a larger disk")


@contextmanager
def full_disk_named(folder: Path) -> Iterator[None]:
    """Say what the disk said, as an error of ours."""
    try:
        yield
    except OSError as error:
        raise StepFailed(f"{folder.parent} cannot be written to: {error.strerror}.", mend="restore to a larger disk; nothing half-done is left") from None


def unpack_all(choice: Choice, one: Manifest, partial: Path, keys: "Sequence[x25519.Identity]", restored: Restored) -> None:
    """Write all files of a backup below a folder, each pack from the first store that has it whole.

    Raises:
        WrongKey: none of the keys opens it. Damaged, StoreFailed: no store has something whole.
    """
    by_pack = {packed.key: packed for packed in one.packs}
    with full_disk_named(partial), progress("restoring", one.bytes, of_bytes=True) as advance:
        for key, files in pack.copies(one.files).items():
            if key not in by_pack:
                raise Damaged(f"the manifest of {one.id} does not say what {key} is.", mend="restore another backup: `--as-of`")
            _unpack(choice, by_pack[key], files, partial, keys, advance, restored)


def _unpack(
    choice: Choice, packed: Pack, files: Sequence[File], partial: Path, keys: "Sequence[x25519.Identity]", advance: Callable[[int], None], restored: Restored
) -> None:
    """From the first store that has it whole."""
    failure: StepFailed | None = None
    for place in choice.places:
        name = place.store.name
        tell(f"store {name}: {files[0].path}" + (f" and {len(files) - 1} more" if len(files) > 1 else ""))
        try:
            pack.unpack(packed, _held(place, packed), place.store, files, partial, keys, advance)
        except WrongKey:
            raise
        except (Damaged, StoreFailed) as error:
            failure = error
            restored.notes.append(error.what)
        else:
            restored.stores = sorted({*restored.stores, name})
            return
    raise failure or StoreFailed(f"no store holds {packed.key}.")


def _held(place: _Place, packed: Pack) -> Held:
    if packed.key not in place.packs:
        raise StoreFailed(f"store {place.store.name}: the object {packed.key} is missing.", mend="restore from the other store", store=place.store.name)
    return place.packs[packed.key]


def _compare(one: Manifest, partial: Path, metrics: Sequence[Metric], restored: Restored) -> None:
    """Compare tables by rows and fingerprints, and the metrics.

    Raises:
        StepFailed: something is different.
    """
    asked = json.loads((partial / snapshot.METRICS).read_text())
    same = [metric for metric in metrics if asked.get(metric[0], {}).get("sql") == metric[2]]
    with progress("comparing"):
        tables, values = snapshot.measure(partial / settings().warehouse_file.name, same)
    here, there = version("duckdb"), one.versions["duckdb"]
    exact = here == there
    if not exact:
        restored.notes.append(f"tables are compared by rows only: the backup was taken by DuckDB {there}, and {here} may hash otherwise")
    wrong = sorted(set(tables) ^ set(one.tables))
    wrong += [name for name in set(tables) & set(one.tables) if tables[name].rows != one.tables[name].rows or (exact and tables[name] != one.tables[name])]
    wrong += [f"metric {name}" for name, _, _ in same if values.get(name) != asked[name]["values"]]
    if wrong:
        raise StepFailed(f"what was restored is not what was backed up: {', '.join(sorted(wrong)[:10])}.", mend="restore another backup: `--as-of`")
    restored.tables, restored.metrics = len(tables), len(same)
    left = [name for name in asked if name not in {metric[0] for metric in same}]
    if left:
        restored.notes.append(f"asked otherwise now, so not compared: {', '.join(left)}")
