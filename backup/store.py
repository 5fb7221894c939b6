"""A store: one bucket of an S3 service, where an object is written once, read back whole, and locked.

Nothing is ever overwritten, so the first version of a key is the true one: whatever lies above it, a
delete marker or other bytes, was put there by somebody else, and is passed over by every reader.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

from backup.policy import Kind, StoreDeclaration, StoreName
from warehouse import clock
from warehouse.errors import StepFailed, UsageError, scrub
from warehouse.object_store import connect
from warehouse.settings import StoreCredentials, settings

if TYPE_CHECKING:
    from types_boto3_s3.client import S3Client

    from backup.thaw import Head
    from backup.transfer import Reader, Upload

ATTEMPTS = 5
CONNECT_SECONDS, ANSWER_SECONDS = 10.0, 60.0
IN_FLIGHT = 2
"""How many parts of one upload are on their way at a time."""


class StoreFailed(StepFailed):
    """The store did not do what it was asked; `store` is its name."""

    def __init__(self, what: str, *, mend: str = "", store: str = "") -> None:
        super().__init__(what, mend=mend)
        self.store = store


class Missing(StoreFailed):
    """There is no such object."""


class Taken(StoreFailed):
    """There is an object of that name already; nothing is overwritten."""


class Forbidden(StoreFailed):
    """The object is locked, or the key may not do this."""


class Frozen(StoreFailed):
    """The object must be thawed before it is read: it was not asked for, or lies open no longer."""


@dataclass(frozen=True)
class Stored:
    """An object as it was written: its bytes and their SHA-256 in hex."""

    key: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Held:
    """An object as the store lists it: its first version. `above` counts what was put over it, `hides` delete markers among them."""

    key: str
    version: str | None
    bytes: int
    modified: datetime
    above: tuple[str, ...] = ()
    hides: bool = False
    storage_class: str = "STANDARD"


class Store:
    """One store. `declared` says where, `access` with which key."""

    def __init__(self, name: StoreName, declared: StoreDeclaration, access: StoreCredentials) -> None:
        self.name, self.declared, self._access = name, declared, access
        self.bucket = declared.bucket or ""

    @cached_property
    def client(self) -> "S3Client":
        """boto3's client; for uploads and readers."""
        key, secret = self._access.access_key_id, self._access.secret_access_key
        if not self.bucket or key is None or secret is None:
            raise UsageError(f"store {self.name} is not configured.", mend="docs/how-to/back-up.md says what it needs")
        waits = {"connect_seconds": CONNECT_SECONDS, "answer_seconds": ANSWER_SECONDS}
        return connect(self.declared.endpoint, self.declared.region, key, secret, **waits, tries=ATTEMPTS)

    def full_key(self, key: str) -> str:
        """A key with the store's prefix."""
        return f"{self.declared.prefix}/{key}"

    # -- writing ------------------------------------------------------------------------------------------------------

    def put(self, key: str, content: bytes, until: datetime | None = None) -> Stored:
        """Write a small object; see `upload`."""
        with self.upload(key, len(content), until) as upload:
            upload.write(content)
        return upload.stored

    @contextmanager
    def upload(self, key: str, estimate: int, until: datetime | None = None) -> "Iterator[Upload]":
        """Write an object as it streams; it is there whole when this is left, or not at all.

        Args:
            key: its name below the store's prefix.
            estimate: about how many bytes there will be; decides the size of the parts, and with it the memory.
            until: locked until then; by default as long as the policy says from now.

        Raises:
            Taken: there is one of that name. StoreFailed: the store refuses or cannot be reached.
        """
        from backup.transfer import Upload, part_bytes

        upload = Upload(self, key, part_bytes(estimate), self._protection(until))
        try:
            yield upload
            upload.finish()
        except BaseException:
            upload.abort()
            raise

    def _protection(self, until: datetime | None) -> dict[str, Any]:
        given: dict[str, Any] = {}
        if self.declared.storage_class != "STANDARD":
            given["StorageClass"] = self.declared.storage_class
        if self.declared.lock:
            until = until or clock.now() + timedelta(days=self.declared.lock.days)
            given |= {"ObjectLockMode": self.declared.lock.mode, "ObjectLockRetainUntilDate": until}
        return given

    def lock_until(self, held: Held, until: datetime) -> None:
        """Lock an object's first version for longer; a lock that lasts longer already stays. Nothing where the policy has no lock.

        Raises:
            StoreFailed: the store refuses or cannot be reached.
        """
        if not self.declared.lock:
            return
        now = self.head(held).locked_until
        if now is None or now < until:
            with self.errors(held.key):
                retention: Any = {"Mode": self.declared.lock.mode, "RetainUntilDate": until}
                self.client.put_object_retention(Bucket=self.bucket, Key=self.full_key(held.key), **version_of(held), Retention=retention)

    def delete(self, held: Held) -> None:
        """Delete the first version of an object and all that lies above it.

        Raises:
            Forbidden: its lock lasts. StoreFailed: the store refuses or cannot be reached.
        """
        for version in (*held.above, held.version):
            given: Any = {"VersionId": version} if version else {}
            with self.errors(held.key):
                self.client.delete_object(Bucket=self.bucket, Key=self.full_key(held.key), **given)

    def uncover(self, held: Held) -> None:
        """Take away what was put over an object: delete markers, and other bytes unless those are locked."""
        for version in held.above:
            with self.errors(held.key):
                self.client.delete_object(Bucket=self.bucket, Key=self.full_key(held.key), VersionId=version)

    def unlocked(self) -> "Store":
        """The same store, for what is locked only when it was proved: a run that is killed leaves nothing that cannot be deleted."""
        return self._with({"lock": None})

    def at_once(self) -> "Store":
        """The same store, for small objects that are read at any time, whatever class the large ones have."""
        return self._with({"storage_class": "STANDARD"})

    def _with(self, change: dict[str, Any]) -> "Store":
        other = Store(self.name, self.declared.model_copy(update=change), self._access)
        other.client = self.client
        return other

    # -- reading ------------------------------------------------------------------------------------------------------

    def held(self, prefix: str) -> dict[str, Held]:
        """The objects whose name begins so: of each its first version, whatever was put over it.

        Raises:
            StoreFailed: the bucket is gone, the key may not list, or the store cannot be reached.
        """
        versions: dict[str, list[tuple[datetime, bool, Any]]] = {}
        with self.errors(prefix):
            for page in self.client.get_paginator("list_object_versions").paginate(Bucket=self.bucket, Prefix=self.full_key(prefix)):
                for one in page.get("Versions", []):
                    versions.setdefault(one["Key"], []).append((one["LastModified"], False, one))
                for marker in page.get("DeleteMarkers", []):
                    versions.setdefault(marker["Key"], []).append((marker["LastModified"], True, marker))
        found = {}
        for key, listed in versions.items():
            listed.reverse()  # listed newest first; two of one second keep their order
            listed.sort(key=lambda one: one[0])
            true = next((one for _, is_marker, one in listed if not is_marker), None)
            if true is not None:  # else a marker over nothing
                name, version = key.removeprefix(f"{self.declared.prefix}/"), true["VersionId"]
                above = tuple(one["VersionId"] for _, _, one in reversed(listed) if one is not true)
                hides = any(is_marker for _, is_marker, _ in listed)
                kept_as = true.get("StorageClass") or "STANDARD"
                found[name] = Held(name, None if version == "null" else version, true["Size"], true["LastModified"], above, hides, kept_as)
        return found

    def read(self, held: Held) -> bytes:
        """A small object, whole."""
        reader = self.reader(held)
        return b"".join(iter(lambda: reader.read(1 << 20), b""))

    def head(self, held: Held) -> "Head":
        """What the store tells of an object without reading it.

        Raises:
            StoreFailed: it is gone, or the store cannot be reached.
        """
        from backup.thaw import Head

        with self.errors(held.key):
            return Head.of(self.client.head_object(Bucket=self.bucket, Key=self.full_key(held.key), **version_of(held)))

    def reader(self, held: Held) -> "Reader":
        """Read an object as it streams; a connection that breaks is taken up where it broke."""
        from backup.transfer import Reader

        return Reader(self, held)

    def set_up(self) -> list[str]:
        """Make the bucket ready; see `backup.setup.set_up`."""
        from backup.setup import set_up

        return set_up(self)

    # -- errors -------------------------------------------------------------------------------------------------------

    @contextmanager
    def errors(self, key: str) -> Iterator[None]:
        """Turn what boto3 raises about a key into errors of ours."""
        from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError
        from botocore.parsers import ResponseParserError

        try:
            yield
        except ClientError as error:
            raise self._named(key, str(error.response["Error"].get("Code", "")), error.response["ResponseMetadata"]["HTTPStatusCode"]) from None
        except (BotoCoreError, HTTPClientError, ResponseParserError, ValueError) as error:  # the last where an answer was cut off inside its headers
            mend = "is its endpoint right and up? Run again: what is done stays done"
            raise StoreFailed(f"store {self.name} cannot be reached: {type(error).__name__}.", mend=mend, store=self.name) from None

    def _named(self, key: str, code: str, status: int) -> StoreFailed:
        where, kind, mend = f"store {self.name}", StoreFailed, "run again: what is done stays done"
        said = f"{where} answered {status} {scrub(code)} for {key}."
        if code == "NoSuchBucket":
            said, mend = f"{where}: the bucket {self.bucket} does not exist.", "was it deleted? The other store has all; `warehouse backup setup` makes it"
        elif code in ("NoSuchKey", "NoSuchVersion") or status == 404:
            kind, said, mend = Missing, f"{where}: the object {key} is missing.", "restore from the other store: `--store b`"
        elif status == 412 or code == "ConditionalRequestConflict":
            kind, said, mend = Taken, f"{where}: there is an object {key} already; nothing was overwritten.", "run again"
        elif code in ("InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "ExpiredToken"):
            said = f"{where} refuses the key: {code}."
            mend = f"correct BACKUP__{self.name.upper()}__ACCESS_KEY_ID and …SECRET_ACCESS_KEY; is this machine's clock right?"
        elif code in ("BadDigest", "InvalidDigest", "XAmzContentChecksumMismatch", "XAmzContentSHA256Mismatch"):
            said, mend = f"{where}: {key} arrived damaged and was refused.", "run again; if it stays, look at this machine's memory and network"
        elif code == "InvalidObjectState":
            kind, said = Frozen, f"{where}: {key} must be thawed before it is read."
            mend = "`warehouse restore archive` asks for it, and says when to come back"
        elif status == 403:
            kind, said = Forbidden, f"{where} forbids it for {key}: {code}."
            mend = "locked objects stay until their time; else see the rights in docs/how-to/back-up.md"
        return kind(said, mend=mend, store=self.name)


def stores(what: Kind | None = None, only: StoreName | None = None) -> dict[StoreName, Store]:
    """The stores of the policy that are used; those of one kind of data, with its storage class and lock, when it is named.

    Args:
        only: one of them alone, where nothing is known of the others.

    Raises:
        UsageError: backups are not configured.
    """
    from backup.policy import configured

    now, access = configured(only), settings().backup
    declared = {name: now.placed(what, name) for name in now.data[what].stores} if what else {name: now.stores[name] for name in now.used}
    return {name: Store(name, one, getattr(access, name)) for name, one in declared.items() if only in (None, name)}


def version_of(held: Held) -> dict[str, Any]:
    """How an object's first version is named in a request."""
    return {"VersionId": held.version} if held.version else {}
