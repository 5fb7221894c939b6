"""Manifests: what a backup holds. Written last, so that a backup without one does not exist.

A manifest and the index of a pack are the SHA-256 of what follows, a line, and JSON compressed by zstd: `tail -c +66 | zstd -d`.
They hold names, sizes, counts and hashes, no row.
"""

import hashlib
import re
import secrets
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from backup.encryption import Damaged
from backup.policy import Kind
from backup.store import Held, Store

_ID = re.compile(r"\d{8}T\d{12}Z-[0-9a-f]{8}")
_TIME = "%Y%m%dT%H%M%S%fZ"
_HEX = 64


class _Written(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class File(_Written):
    """One file: its path below the home, and the member of the pack that holds its bytes; empty where the pack is one file."""

    path: str
    bytes: int
    sha256: str
    mode: int
    modified_ns: int
    pack: str
    member: str


class Pack(_Written):
    """One sealed object; `bytes` and `sha256` are of what the store holds, `plain_bytes` of the files in it."""

    key: str
    bytes: int
    sha256: str
    plain_bytes: int


class Table(_Written):
    """A table's rows and a fingerprint of them, whatever their order."""

    rows: int
    fingerprint: str


class Index(_Written):
    """What lies in one pack: with it a backup that was cut off goes on where it was."""

    pack: Pack
    files: tuple[File, ...]


class Manifest(_Written):
    """One backup.

    Attributes:
        taken_at: the instant it shows.
        versions: of what made the files; DuckDB's fingerprints hold within one version of it.
        personal: of an archive, how it holds what is personal: sealed under each person's key, or not at all (dropped).
        erasures: how far the ledger of erasures went (privacy.erasures.mark); None while nobody was erased.
    """

    id: str
    what: Kind
    taken_at: datetime
    files: tuple[File, ...]
    packs: tuple[Pack, ...]
    tables: dict[str, Table]
    versions: dict[str, str]
    recipients: tuple[str, ...]
    erasures: str | None = None
    personal: Literal["sealed", "dropped"] | None = None

    @property
    def bytes(self) -> int:
        """The bytes of its files."""
        return sum(file.bytes for file in self.files)


class Head(_Written):
    """How far the records of privacy went, and the pack that holds them; see backup.records."""

    id: str
    at: datetime
    heads: dict[str, str]
    index: Index


Model = TypeVar("Model", bound=_Written)


class Drill(_Written):
    """A backup that was restored to see whether it can be; kept in the stores, where everyone who watches finds it.

    Attributes:
        recovery_point_seconds: how old the newest backup was then: what a disaster at that moment would have cost.
        seconds: how long the restore took, with all its comparisons.
        failed: why it failed; None when everything was equal.
    """

    what: Kind
    backup: str
    at: datetime
    stores: tuple[str, ...]
    recovery_point_seconds: float
    seconds: float
    bytes: int
    tables: int
    metrics: int
    failed: str | None = None


class Received(_Written):
    """How far a server's log is in a store: everything that was committed at `at` and before is there.

    Attributes:
        system: the identifier of the server's cluster.
        position: up to where the log was received, as PostgreSQL writes it.
    """

    system: str
    at: datetime
    position: str


def versions(*packages: str) -> dict[str, str]:
    """The installed versions of packages, and of this project."""
    found = {}
    for package in ("startup-warehouse", *packages):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def new_id(at: datetime) -> str:
    """A name for a backup that no other has: its time, and chance."""
    return f"{at:{_TIME}}-{secrets.token_hex(4)}"


def folder(what: Kind) -> str:
    """Where the manifests of one kind of data are."""
    return f"{what}/manifests/"


def key_of(what: Kind, backup: str) -> str:
    """The name of a backup's manifest in a store."""
    return f"{folder(what)}{backup}.manifest"


def pack_key(what: Kind, backup: str, number: int, form: str = "tar") -> str:
    """The name of a backup's pack in a store: a tar of files, or a single stream of another form."""
    return f"{what}/packs/{backup}-{number:04d}.{form}.zst.age"


def index_key(pack: str) -> str:
    """The name of a pack's index."""
    return f"{pack}.index"


def encode(content: _Written) -> bytes:
    """A manifest or an index as it is written."""
    import zstandard

    compressed = zstandard.ZstdCompressor(level=9).compress(content.model_dump_json().encode())
    return hashlib.sha256(compressed).hexdigest().encode() + b"\n" + compressed


def decode(text: bytes, model: type[Model], where: str) -> Model:
    """Read a manifest or an index.

    Raises:
        Damaged: a bit of it is not what was written.
    """
    import zstandard

    said, compressed = text[: _HEX + 1], text[_HEX + 1 :]
    try:
        if said != hashlib.sha256(compressed).hexdigest().encode() + b"\n":
            raise ValueError
        return model.model_validate_json(zstandard.ZstdDecompressor().decompress(compressed))
    except (ValueError, ValidationError, zstandard.ZstdError):
        raise Damaged(f"{where} is damaged: it is not what was written.", mend="the other store has it whole: `--store b`") from None


def read(store: Store, held: Held) -> Manifest:
    """A manifest of a store.

    Raises:
        Damaged, StoreFailed: see `decode` and `Store.read`.
    """
    return decode(store.read(held), Manifest, f"store {store.name}: {held.key}")


def read_index(store: Store, held: Held) -> Index:
    """The index of a pack; raises as `read` does."""
    return decode(store.read(held), Index, f"store {store.name}: {held.key}")


def listed(store: Store, what: Kind) -> dict[str, Held]:
    """The manifests of a store by the backup's id, oldest first by the time in it; other objects there are passed over."""
    found = {}
    for key, held in store.held(folder(what)).items():
        name = key.removeprefix(folder(what)).removesuffix(".manifest")
        if _ID.fullmatch(name):
            found[name] = held
    return dict(sorted(found.items()))


def time_of(backup: str) -> datetime:
    """The instant that a backup shows, by its id."""
    return datetime.strptime(backup.split("-")[0], _TIME).replace(tzinfo=UTC)
