"""Restoring production to any second: a base backup, and the log after it, in a folder that a fresh server starts from."""

import os
import shutil
import subprocess
import tarfile
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from backup import pack
from backup.encryption import Damaged, WrongKey, identities
from backup.log_kept import SEGMENT_BYTES, gaps, index_of, is_partial, segments
from backup.manifest import File, Manifest, Pack
from backup.postgres import program
from backup.postgres_log import BASE
from backup.restore import Choice, Restored, fresh, full_disk_named, unpack_all
from backup.store import Held, Store, StoreFailed
from warehouse.console import progress, tell
from warehouse.errors import StepFailed
from warehouse.files import flush_folder

if TYPE_CHECKING:
    from pyrage import x25519

_PARTIAL = ".partial"


def restore_log(choice: Choice, backup: str, into: Path, to: datetime | None, received: Path | None = None) -> Restored:
    """Prepare a server's data folder that recovers, when it is started, to a second, or to the last commit there is.

    `into/data` is a base backup, each file of it verified; `into/wal` the log after it, without a gap. The server is not
    started: whoever starts it decides who may connect (`pg_hba.conf`) before.

    Args:
        to: the instant to recover to; to the end of the log unless given.
        received: the receiver's own folder, if it is left: it may hold commits that no store had yet.

    Raises:
        UsageError: the private key is not set, the folder is in use, or pg_verifybackup is missing. StepFailed: the log has a gap,
            or a file of the base is not what it was. WrongKey, Damaged, StoreFailed: see `restore_warehouse`.
    """
    began = time.monotonic()
    keys, one, tool = identities(), choice.read(backup), program("pg_verifybackup")
    segment_bytes = int(one.versions.get("segment_bytes", SEGMENT_BYTES))
    since = one.versions["wal_from"]
    # The base twice, packed and unpacked; and the log.
    partial = fresh(into, one, 2 * one.bytes + len(_held(choice, one)[1]) * segment_bytes)
    restored = Restored(one, into)
    try:
        if received is not None:  # a receiver may be at work: what it moves to the stores from now on is here, what it moved before is there
            with full_disk_named(partial):
                _copy_received(received, partial / "received")
        held, names = _held(choice, one)
        unpack_all(choice, one, partial, keys, restored)
        data = partial / "data"
        with progress("unpacking"), full_disk_named(partial), tarfile.open(partial / BASE) as tar:
            tar.extractall(data, filter="tar")
        (partial / BASE).unlink()
        data.chmod(0o700)
        ran = subprocess.run([tool, "--no-parse-wal", "--quiet", str(data)], capture_output=True, check=False)
        if ran.returncode != 0:
            raise Damaged("a file of the base backup is not what it was.", mend="restore an earlier one: `--to`")
        with full_disk_named(partial):
            half = _bring_log(held, names, partial / "wal", keys, restored)
            if received is not None:
                half = _take_over(partial / "received", partial / "wal", half)
        _require_no_gap(since, [path.name for path in (partial / "wal").iterdir()], half, segment_bytes)
        _configure(data, into / "wal", to)
        os.sync()
        os.rename(partial, into)
        flush_folder(into.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    restored.notes = [*dict.fromkeys([*choice.notes, *restored.notes])]
    restored.seconds = time.monotonic() - began
    return restored


def _held(choice: Choice, one: Manifest) -> tuple[list[tuple[Store, dict[str, Held]]], list[str]]:
    """What each store holds of the log, and the segments from the base on."""
    held = [(place.store, segments(place.store, one.versions["system"])) for place in choice.places]
    return held, sorted({name for _, found in held for name in found if name.endswith(".history") or name[8:] >= one.versions["wal_from"][8:]})


def _copy_received(received: Path, into: Path) -> None:
    into.mkdir(mode=0o700)
    for path in sorted(received.iterdir(), reverse=True):  # the newest first: where a segment is completed meanwhile, the rest of it is in the next
        if path.is_file() and len(path.name.removesuffix(_PARTIAL)) == len("000000010000000000000001"):
            with suppress(FileNotFoundError):
                shutil.copyfile(path, into / path.name)


def _bring_log(
    held: Sequence[tuple[Store, dict[str, Held]]], names: Sequence[str], into: Path, keys: "Sequence[x25519.Identity]", restored: Restored
) -> set[str]:
    """Every segment of these names, each from the first store that has it whole; returns those that were still being written."""
    into.mkdir(mode=0o700)
    half = set()
    with progress("log", len(names)) as advance:
        for name in names:
            tell(f"log: {name}")
            # A whole segment before one that was still being written, wherever it lies.
            candidates = sorted(((store, found[name]) for store, found in held if name in found), key=lambda one: is_partial(one[1]))
            if is_partial(_segment(candidates, name, into, keys, restored)):
                half.add(name)
            advance(1)
    return half


def _segment(candidates: Sequence[tuple[Store, Held]], name: str, into: Path, keys: "Sequence[x25519.Identity]", restored: Restored) -> Held:
    failure: StepFailed | None = None
    for store, held in candidates:
        try:
            index, file = index_of(store, held)
            _require_name(index.pack, file, held, name)
            pack.unpack(index.pack, held, store, [file], into, keys, lambda count: None)
        except WrongKey:
            raise
        except (Damaged, StoreFailed) as error:
            failure = error
            restored.notes.append(error.what)
        else:
            restored.stores = sorted({*restored.stores, store.name})
            return held
    raise failure or StoreFailed(f"no store holds the segment {name} of the log.")


def _require_name(packed: Pack, file: File, held: Held, name: str) -> None:
    if file.path != name or packed.key != held.key:
        raise Damaged(f"{held.key} says it is {file.path}.", mend="it was not written by this project")


def _take_over(received: Path, into: Path, half: set[str]) -> set[str]:
    """What the receiver had written and no store: its last segment ends where the last acknowledged commit does.

    Args:
        half: the segments that were brought while they were being written.

    Returns:
        those that still are so.
    """
    half = set(half)
    for path in sorted(received.iterdir()):
        name = path.name.removesuffix(_PARTIAL)
        if path.suffix != _PARTIAL:
            os.replace(path, into / name)
            half.discard(name)
        elif not (into / name).exists() or (name in half and _written(path) > _written(into / name)):
            # A receiver that began a segment anew, after its disk was lost, may have less of it than a store.
            os.replace(path, into / name)
            half.add(name)
    shutil.rmtree(received)
    return half


def _written(segment: Path) -> int:
    """How many bytes of a segment are written: what follows is zero."""
    return len(segment.read_bytes().rstrip(b"\0"))


def _require_no_gap(since: str, names: Iterable[str], half: set[str], segment_bytes: int) -> None:
    """Segments must follow each other, whatever their timelines, and only the last may be one that was still being written.

    Raises:
        StepFailed: one is missing; named is the first.
    """
    there = {name for name in names if not name.endswith(".history")}
    if missing := gaps(since, there - half, half, segment_bytes):
        mend = "nothing after it can be recovered: restore to before it (`--to` and an earlier base), or find it: the receiver's folder, the server's pg_wal"
        raise StepFailed(f"the log has a gap: the segment …{missing[0]} is missing.", mend=mend)


def _configure(data: Path, wal: Path, to: datetime | None) -> None:
    """What the server does when it starts: read the log from the folder, stop where it is told, and go on from there alone."""
    quoted = str(wal).replace("'", "''")
    lines = [f'restore_command = \'cp "{quoted}/%f" "%p"\'', "recovery_target_action = 'promote'", "archive_mode = off", "synchronous_standby_names = ''"]
    lines += [f"recovery_target_time = '{to.isoformat()}'"] if to is not None else []
    with (data / "postgresql.auto.conf").open("a") as file:
        file.write("".join(f"{line}\n" for line in lines))
    (data / "recovery.signal").touch()
    for name in ("standby.signal", "postmaster.pid"):
        (data / name).unlink(missing_ok=True)
