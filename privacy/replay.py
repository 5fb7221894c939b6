"""Erase again, in what a restore brought back, everybody who was ever erased: before anyone else can open it."""

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

from privacy import consent, erasures, files, key_state, keys, rows, spooled, vault_keys
from privacy.rekey import rekey
from warehouse import storage
from warehouse.files import flush_file
from warehouse.settings import settings


@dataclass
class Replayed:
    """What a replay did.

    Attributes:
        position: lines of the ledger that it went up to.
        changed: table, package or file -> rows or records changed or removed.
        models: built tables that lost rows, and are built anew by the next build.
    """

    position: int = 0
    changed: dict[str, int] = field(default_factory=dict)
    models: list[str] = field(default_factory=list)

    def notes(self) -> list[str]:
        """What it did, for people; nothing where nothing had to be done."""
        if not self.changed:
            return []
        told = [f"erased again: {sum(self.changed.values())} rows or records in {len(self.changed)} places, by {self.position} lines of the ledger"]
        if self.models:
            told.append(f"`warehouse run` builds {len(self.models)} models anew; until then facts of the persons are missing in them")
        return told


def replay_home(home: Path, marks: Sequence[str]) -> Replayed:
    """Erase again in a restored home that nobody else uses yet; the ledger comes along where it is kept inside of homes.

    Pseudonyms made with a key from before are hashed again first, for it is by them that persons are found.

    Args:
        marks: how far the ledger went when the backup, and whatever else is known, was made; see `erasures.mark`.

    Raises:
        StepFailed: the ledger is missing or older, or was tampered with; nothing was changed.
    """
    erasures.require(marks)
    replayed = Replayed(erasures.position())
    _bring_records(home)
    vault_keys.rename()
    vault_keys.destroy(erasures.tags())
    file = home / settings().warehouse_file.name
    with storage.open_warehouse(file=file) as connection:
        key_state.known(connection)
        if len(keys.ring()) > 1:  # of the landing zone packages from before may have come back
            replayed.changed |= rekey(connection, home / "landing")
        if replayed.position:
            erasures.bind(connection)
            built = files.erase_built(connection)
            replayed.changed |= erasures.erase_raw(connection) | built | files.erase_landing(connection, home / "landing")
            replayed.models = files.models_of(built)
            consent.expose(connection)
    if replayed.position:
        tags = frozenset(tag for tag, _ in erasures.tags())
        replayed.changed |= spooled.erase_files(home / "spool", tags) | spooled.erase_lines(home, tags)
    if replayed.changed:
        files.compact(file)
    return replayed


def replay_export(folder: Path, marks: Sequence[str]) -> Replayed:
    """The same in a folder of `<schema>/<table>.parquet`: rows of persons go from marts, and are kept blank in raw tables where the policy says so.

    Raises:
        StepFailed: as `replay_home`.
    """
    erasures.require(marks)
    replayed = Replayed(erasures.position())
    if not replayed.position:
        return replayed
    with storage.scratch(may_spill=True) as connection:
        erasures.bind(connection)
        for source, table, file in _raw_files(folder):
            count, beside = erasures.write_without(connection, source, table, file)
            if beside:
                replayed.changed[f"raw_{source}.{table}"] = count
                flush_file(beside)
                os.replace(beside, file)
        replayed.changed |= files.erase_published(connection, folder, is_wanted=lambda path: not path.parent.name.startswith("raw_"))
    return replayed


def _raw_files(folder: Path) -> list[tuple[str, str, Path]]:
    found = [(path.parent.name.removeprefix("raw_"), unquote(path.stem), path) for path in folder.glob("raw_*/*.parquet")]
    concerned = [one for one in found if rows.is_of_persons(one[0], one[1])]
    return sorted(concerned, key=lambda one: (rows.turn_of(one[0], one[1]), one[0], one[1]))


def _bring_records(home: Path) -> None:
    """Backups hold no records, and older ones old records: where they are kept inside of homes, the restored one gets those of now."""
    target = home / "erasures"
    if target.absolute() == settings().erasures.absolute():
        return
    shutil.rmtree(target, ignore_errors=True)
    if settings().privacy.erasures is None and settings().erasures.exists():
        shutil.copytree(settings().erasures, target)
