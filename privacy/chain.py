"""A record that only grows: lines of JSON, each sealed with a keyed hash over itself and the line before, and an anchor of the head.

An edited line breaks its own seal, a line taken out of the middle the seal of the next, and a cut tail disagrees with the
anchor, a small file that can be kept elsewhere (`PRIVACY__ANCHORS`). Without the key of the pseudonyms no seal can be made anew.
"""

import hashlib
import hmac
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from warehouse.errors import StepFailed
from warehouse.files import flush_folder, write_atomically
from warehouse.settings import settings

_FIRST = "0" * 64


class Chain:
    """One record of its kind. Appending needs the lease.

    Args:
        path: the lines.
        anchor: where the number of lines and the seal of the last one are noted.
        key: what it is sealed with; the key of the pseudonyms that is in force unless given.
    """

    def __init__(self, path: Path, anchor: Path, key: bytes | None = None) -> None:
        self.path, self.anchor, self._key = path, anchor, key

    def append(self, content: dict[str, Any]) -> int:
        """Add a line; see `extend`. Returns its number."""
        return self.extend([content])

    def extend(self, contents: Sequence[dict[str, Any]]) -> int:
        """Add lines, durable when this returns; what a kill left unfinished is taken away before, and an import that was killed is repeated.

        Returns:
            the number of the last line.

        Raises:
            StepFailed: what stands there was tampered with.
        """
        lines = list(self.lines())
        before = self._repaired(len(lines))
        number, seal = len(lines), lines[-1]["seal"] if lines else _FIRST
        if not contents:
            return number
        written = []
        for content in contents:
            number += 1
            sealed = {"number": number, **content}
            seal = self._seal(seal, sealed)
            written.append(json.dumps({**sealed, "seal": seal}).encode() + b"\n")
        is_new = not before.exists()
        before.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(before, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "ab") as file:
            file.write(b"".join(written))
            file.flush()
            os.fsync(file.fileno())
        if is_new:
            flush_folder(before.parent)
        self._note(number, seal)
        return number

    def lines(self) -> Iterator[dict[str, Any]]:
        """Every line, the oldest first; each is checked.

        Raises:
            StepFailed: a line was edited, one is missing in the middle, or the tail was cut off.
        """
        found = self.problems()
        if found:
            raise StepFailed(
                f"{self.path.name}: {found[0]}; what was erased cannot be told for certain.",
                mend="put the file back from where it is copied to; docs/runbooks/erasure.md says what to do when there is no copy",
            )
        yield from (line for line in self._read() if line is not None)

    def problems(self) -> list[str]:
        """What is wrong with the record, in words; nothing where it is whole."""
        lines = self._read()
        if found := self._broken(lines):
            return found
        noted = self._noted()
        if noted is None:
            return ["its anchor is missing"] if len(lines) > 1 else []
        count, head = noted
        if count > len(lines):
            return [f"its tail was cut off: {count} lines were anchored, {len(lines)} are there"]
        if count and lines[count - 1] is not None and (lines[count - 1] or {}).get("seal") != head:
            return ["its head is not the one that was anchored, or the anchor was edited"]
        return []

    def _broken(self, lines: list[dict[str, Any] | None]) -> list[str]:
        seal, found = _FIRST, []
        for index, line in enumerate(lines, start=1):
            if line is None:
                found.append(f"line {index} is not readable")
                break
            content = {key: value for key, value in line.items() if key != "seal"}
            if line.get("number") != index:
                found.append(f"line {index} has the number {line.get('number')}: lines are missing or out of order")
                break
            if not hmac.compare_digest(str(line.get("seal")), self._seal(seal, content)):
                found.append(f"line {index} was edited, or the line before it" + ("" if index > 1 else ", or it is sealed with another key"))
                break
            seal = str(line["seal"])
        return found

    def seal_anew(self, keys: Sequence[bytes], convert: Callable[[dict[str, Any], int], dict[str, Any]], last: dict[str, Any]) -> bool:
        """Seal all lines with the newest of some keys, whichever of them they are sealed with; killed at any moment, it is repeated.

        Args:
            keys: the oldest first.
            convert: what becomes of a line's content, and the number of keys that were in force when it was sealed.
            last: a line that is added, with the seal that the head had, under `head`, and those of all lines, under `was`.

        Returns:
            whether anything was done.

        Raises:
            StepFailed: what stands there was tampered with.
        """
        if not self.path.exists():
            return False
        for count in range(len(keys), 0, -1):
            held = Chain(self.path, self.anchor, keys[count - 1])
            if count == len(keys) and (not held.problems() or held._finish_sealing(keys)):
                return False
            if held.problems():
                continue
            before, seal, made = held._read(), _FIRST, []
            contents = [convert({key: value for key, value in line.items() if key != "seal"}, count) for line in before if line is not None]
            contents.append({"number": len(contents) + 1, **last, "head": held.head()[1], "was": held.seals()})
            after = Chain(self.path, self.anchor, keys[-1])
            for content in contents:
                seal = after._seal(seal, content)
                made.append(json.dumps({**content, "seal": seal}) + "\n")
            write_atomically(self.path, "".join(made), mode=0o600)
            after._note(len(made), seal)
            return True
        raise StepFailed(f"{self.path.name}: {self.problems()[0]}.", mend="docs/runbooks/erasure.md says what to do")

    def _finish_sealing(self, keys: Sequence[bytes]) -> bool:
        """Note the head of a record that a kill left sealed anew with the anchor of before."""
        lines = self._read()
        if not lines or self._broken(lines) or lines[-1] is None:
            return False
        for key in keys[:-1]:
            if Chain(self.path, self.anchor, key)._noted() == (len(lines) - 1, lines[-1].get("head")):
                self._note(len(lines), str(lines[-1]["seal"]))
                return True
        return False

    def head(self) -> tuple[int, str]:
        """The number of lines and the seal of the last one: to be kept somewhere else, and compared."""
        lines = list(self.lines())
        return len(lines), str(lines[-1]["seal"]) if lines else _FIRST

    def seals(self) -> list[str]:
        """The seal of each line, unchecked: to be compared with what was noted elsewhere."""
        return [str((line or {}).get("seal")) for line in self._read()]

    def had(self, number: int, seal: str) -> bool:
        """Whether a line has that seal, or had it before the record was sealed anew; unchecked as `seals`."""
        lines = self._read()
        known = [self.seals(), *((line or {}).get("was", []) for line in lines)]
        return any(len(seals) >= number and seals[number - 1] == seal for seals in known)

    def _read(self) -> list[dict[str, Any] | None]:
        if not self.path.exists():
            return []
        *whole, _torn = self.path.read_bytes().split(b"\n")  # what follows the last end of a line was never acknowledged
        return [_parsed(line) for line in whole]

    def _repaired(self, lines: int) -> Path:
        if self.path.exists():
            size = sum(len(line) + 1 for line in self.path.read_bytes().split(b"\n")[:lines])
            if size != self.path.stat().st_size:
                os.truncate(self.path, size)
        return self.path

    def _note(self, number: int, seal: str) -> None:
        noted = {"lines": number, "seal": seal}
        write_atomically(self.anchor, json.dumps({**noted, "proof": self._seal("anchor", noted)}) + "\n", mode=0o600)

    def _seal(self, before: str, content: dict[str, Any]) -> str:
        text = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hmac.new(self._key or settings().hmac_key(), f"seal\n{before}\n{text}".encode(), hashlib.sha256).hexdigest()

    def _noted(self) -> tuple[int, str] | None:
        try:
            noted = json.loads(self.anchor.read_text())
        except FileNotFoundError:
            return None
        except ValueError:
            return 0, "the anchor is not readable"
        proof = noted.pop("proof", "")
        return (int(noted["lines"]), noted["seal"]) if proof == self._seal("anchor", noted) else (1, "the anchor was edited")


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
