"""What the stores hold of a server's log: its segments, what is missing between them, and how far it was received."""

import re
from collections.abc import Iterable
from datetime import datetime, timedelta

from backup import manifest
from backup.manifest import File, Index, Received
from backup.policy import Kind
from backup.store import Forbidden, Held, Store, StoreFailed

KIND: Kind = "postgres_base"
SEGMENT_BYTES = 16 << 20
"""Unless the server was made with another `--wal-segsize`: a base's manifest says which."""

_NAMED = re.compile(r"(?P<segment>[0-9A-F]{24}|[0-9A-F]{8}\.history)(?:\.partial-(?P<at>\d{20}))?-[0-9a-f]{8}\.wal\.zst\.age")
_UNIT_BYTES = 1 << 32
"""The last eight digits of a segment's name count to this, the eight before it count these."""


def prefix(system: str) -> str:
    """Where the log of a server is in a store."""
    return f"{KIND}/wal/{system}/"


def segments(store: Store, system: str) -> dict[str, Held]:
    """The log of a server that a store holds whole: by segment, the last thing known of each; raises as `Store.held`."""
    held = store.held(prefix(system))
    found: dict[str, tuple[str, Held]] = {}
    for key, one in held.items():
        match = _NAMED.fullmatch(key.removeprefix(prefix(system)))
        if match and manifest.index_key(key) in held:
            rank = match["at"] or "~"  # a whole segment is above every partial one
            if match["segment"] not in found or rank > found[match["segment"]][0]:
                found[match["segment"]] = (rank, one)
    return {segment: one for segment, (_, one) in sorted(found.items())}


def index_of(store: Store, held: Held) -> tuple[Index, File]:
    """The index of a segment's object, and the file in it."""
    key = manifest.index_key(held.key)
    index = manifest.read_index(store, store.held(key)[key])
    return index, index.files[0]


def gaps(since: str, whole: Iterable[str], partial: Iterable[str], segment_bytes: int) -> list[str]:
    """The segments that are missing between `since` and the newest, whatever their timelines, as the last 16 digits of their names.

    One that was still being written is good at the end only: recovery stops where it stops, whatever follows.
    """
    a_unit = _UNIT_BYTES // segment_bytes

    def number(name: str) -> int:
        return int(name[8:16], 16) * a_unit + int(name[16:24], 16)

    there, begun = {number(name) for name in whole}, {number(name) for name in partial}
    last = max(there | begun, default=number(since))
    missing = [one for one in range(number(since), last + 1) if one not in there and not (one == last and one in begun)]
    return [f"{one // a_unit:08X}{one % a_unit:08X}" for one in missing]


def is_partial(held: Held) -> bool:
    """Whether an object is a segment that was still being written."""
    return ".partial-" in held.key


def _received_folder(system: str) -> str:
    return f"{KIND}/received/{system}/"


def keep_received(store: Store, received: Received) -> None:
    """Say in a store how far the log is in it; what was said of an hour ago and before goes, unless it is locked."""
    folder, old = _received_folder(received.system), received.at - timedelta(hours=1)
    store.put(f"{folder}{manifest.new_id(received.at)}.received", manifest.encode(received))
    for key, held in store.held(folder).items():
        if manifest.time_of(key.removeprefix(folder)) < old:
            try:
                store.delete(held)
            except Forbidden:
                continue


def received_until(store: Store) -> datetime | None:
    """Up to when everything that was committed is in a store, of whichever server said so last; None when nobody did.

    Raises:
        StoreFailed: it cannot be asked. Damaged: what it says is not what was written.
    """
    held = store.held(f"{KIND}/received/")
    if not held:
        return None
    newest = max(held, key=lambda key: (held[key].modified, key))
    one = manifest.decode(store.read(held[newest]), Received, f"store {store.name}: {newest}")
    return min(one.at, held[newest].modified)  # by the clock of the receiver or the store's: one of them may be wrong


def prune(store: Store, system: str) -> None:
    """Delete the log before the oldest base that is kept, and partial segments of which the whole is there."""
    bases = [manifest.read(store, held) for held in manifest.listed(store, KIND).values()]
    oldest = min((base.versions["wal_from"][8:] for base in bases if base.versions["system"] == system), default="")
    held, whole = store.held(prefix(system)), segments(store, system)
    for key, one in held.items():
        match = _NAMED.fullmatch(key.removesuffix(".index").removeprefix(prefix(system)))
        if match is None or match["segment"].endswith(".history"):
            continue
        is_superseded = match["at"] is not None and match["segment"] in whole and ".partial" not in whole[match["segment"]].key
        if match["segment"][8:] < oldest or is_superseded:
            try:
                store.delete(one)
            except Forbidden:
                continue  # locked still
            except StoreFailed:
                return
