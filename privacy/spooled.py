"""Erasure in what was received and is not loaded yet, and in lines of text of the home's own (logs): what mentions a person goes, all else stays."""

import json
import os
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from privacy.policy import policy
from privacy.subjects import EMAIL, hashed, tag
from warehouse import spool, spool_format
from warehouse.files import flush_folder, write_atomically
from warehouse.settings import settings
from warehouse.spool_bucket import bucket_of

PATIENCE = 10.0
"""Seconds to wait for a file that is written to: its writer completes it within one."""
_TOKEN = re.compile(rb"[A-Za-z0-9_]{4,64}")
_ADDRESS = re.compile(r"[\w.!#$%&'*+/=?^`{|}~-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63})+")
_HEX = re.compile(r"[0-9a-f]{64}")


@dataclass
class Spooled:
    """What an erasure did to a spool.

    Attributes:
        changed: file or object -> records removed.
        waiting: records that stand where they could not be taken out.
        past: versions of objects, loaded before, that a bucket keeps and that could not be removed.
    """

    changed: dict[str, int] = field(default_factory=dict)
    waiting: int = 0
    past: int = 0


def mentions(body: bytes, tags: "set[str] | frozenset[str]") -> bool:
    """Whether a text holds a key, an email or a pseudonym of an erased person."""
    text = body.decode("utf-8", "replace")
    with suppress(ValueError):
        text += json.dumps(json.loads(body), ensure_ascii=False)  # an @ may have come as an escape
    kinds = [rule.person for rule in policy().subjects.values() if rule.person]
    words = {match.decode() for match in _TOKEN.findall(text.encode())}
    if any(tag(kind, word) in tags for word in words for kind in kinds if not word.isdigit()):
        return True
    if any(tag(EMAIL, word) in tags for word in words if _HEX.fullmatch(word)):
        return True
    return any(tag(EMAIL, hashed(found.lower())) in tags for found in set(_ADDRESS.findall(text)))


def erase_spool(tags: frozenset[str], *, dry_run: bool = False) -> Spooled:
    """Take what mentions erased persons out of everything that was received and waits, and of what was put aside as damaged.

    Nothing of others is lost at any moment: a file is replaced whole, an object is removed when its other records stand in a new
    one, and what is still written to is waited for. Records that are removed are asked for again by the next load, which takes
    the persons out.
    """
    done = Spooled()
    folders = {path.name for path in settings().spool.iterdir() if path.is_dir()} if settings().spool.exists() else set()
    for source in sorted(folders | {name for name in type(settings().sources).model_fields if settings().spool_bucket(name)}):
        deadline = time.monotonic() + (0 if dry_run else PATIENCE)
        while (left := _erase_segments(source, tags, done, dry_run=dry_run)) and time.monotonic() < deadline:
            time.sleep(0.1)
        done.waiting += left
        _erase_aside(spool.folder(source) / "quarantine", tags, done, dry_run=dry_run)
        bucket = bucket_of(source)
        if bucket and not dry_run:
            done.past += bucket.forget_past()
    return done


def erase_files(folder: Path, tags: frozenset[str]) -> dict[str, int]:
    """The same for the files of a spool that nobody writes to, as a restore brings them: path relative to the folder -> records removed."""
    done = Spooled()
    for path in sorted(folder.glob(f"*/*{spool_format.SUFFIX}")) if folder.exists() else []:
        _erase_file(path, tags, done, relative=folder)
    for aside in sorted(folder.glob("*/quarantine")) if folder.exists() else []:
        _erase_aside(aside, tags, done)
    return done.changed


def _erase_segments(source: str, tags: frozenset[str], done: Spooled, *, dry_run: bool) -> int:
    """Erase in complete segments; returns how many records of persons stand in others."""
    left = 0
    for segment in spool.segments(source):
        with suppress(FileNotFoundError):  # removed meanwhile
            if not segment.is_sealed:
                left += sum(mentions(record.body, tags) for record in spool.read(segment).records)
            elif segment.bucket is None:
                _erase_file(segment.path, tags, done, relative=settings().spool, dry_run=dry_run)
            else:
                kept, gone = _kept(spool.read(segment), tags)
                if gone:
                    done.changed[f"{segment.bucket}{segment.name}"] = gone
                if gone and not dry_run:
                    if kept:  # first, under a name of its own: killed between the two, others' records stand twice, and are known by their ids
                        segment.bucket.make(spool_format.name_of(segment.began_at), b"".join(kept))
                    segment.bucket.remove(segment.name)
    return left


def _erase_file(path: Path, tags: frozenset[str], done: Spooled, *, relative: Path, dry_run: bool = False) -> None:
    kept, gone = _kept(spool_format.content_of(path.read_bytes(), is_sealed=True), tags)
    if gone:
        done.changed[str(path.relative_to(relative))] = gone
        if not dry_run:
            _write_lines(path, kept)


def _kept(content: spool_format.Content, tags: frozenset[str]) -> tuple[list[bytes], int]:
    """The lines that stay, and how many do not."""
    records = [record for record in content.records if not mentions(record.body, tags)]
    damaged = [line for line in content.damaged if not mentions(line, tags)]
    gone = len(content.records) + len(content.damaged) - len(records) - len(damaged)
    return [*(spool_format.encode(record) for record in records), *(line + b"\n" for line in damaged)], gone


def _erase_aside(folder: Path, tags: frozenset[str], done: Spooled, *, dry_run: bool = False) -> None:
    for file in sorted(folder.glob(f"*{spool_format.SUFFIX}")):
        kept, gone = _without(file, tags)
        if gone:
            done.changed[str(file.relative_to(folder.parent.parent))] = gone
            if not dry_run:
                _write_lines(file, kept)


def _without(file: Path, tags: frozenset[str]) -> tuple[list[bytes], int]:
    held = file.read_bytes().splitlines(keepends=True)
    kept = [line for line in held if not mentions(line, tags)]
    return kept, len(held) - len(kept)


def _write_lines(path: Path, lines: list[bytes]) -> None:
    if lines:
        write_atomically(path, b"".join(lines), mode=0o600)
    else:
        path.unlink()
        flush_folder(path.parent)


def erase_lines(home: Path, tags: frozenset[str], *, dry_run: bool = False) -> dict[str, int]:
    """Take the lines that mention erased persons out of logs. Personal data does not belong there; keys of rows may have come with an error.

    The file stays the same, because its writer has it open; a line that is written in that very instant may be lost.

    Returns:
        path relative to the home -> lines removed.
    """
    changed = {}
    for file in sorted(_logs(home)):
        kept, gone = _without(file, tags)
        if gone:
            changed[str(file.relative_to(home))] = gone
            if not dry_run:
                with file.open("r+b") as out:
                    out.write(b"".join(kept))
                    out.truncate()
                    out.flush()
                    os.fsync(out.fileno())
    return changed


def _logs(home: Path) -> Iterator[Path]:
    yield from (path for path in (home / "logs").rglob("*") if path.is_file())


def erase_old_parts(folders: Iterable[Path]) -> list[Path]:
    """Remove parts of files that a kill left beside those which were to be written anew. Returns what was removed."""
    removed = []
    for folder in folders:
        for pattern in (".*.erased", ".*.compact", ".*.compact.wal", ".*.part"):
            for part in folder.rglob(pattern) if folder.exists() else []:
                with suppress(OSError):
                    part.unlink()
                    removed.append(part)
    return removed


def describe(done: Spooled) -> list[dict[str, str]]:
    """What is left of it, for a certificate."""
    remains = []
    if done.waiting:
        why = "their writer did not complete the file they stand in; the next load takes the person out"
        remains.append({"what": f"{done.waiting} webhooks in the spool", "until": "the next load", "why": why})
    if done.past:
        why = "the key of the spool's bucket may not remove them"
        remains.append({"what": f"{done.past} past versions of objects in the spool's bucket", "until": "the bucket's rules remove them", "why": why})
    return remains
