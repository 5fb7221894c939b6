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

from backup.policy import StoreDeclaration, StoreName
from warehouse import clock
from warehouse.errors import StepFailed, UsageError, scrub
from warehouse.object_store import connect
from warehouse.settings import StoreCredentials, settings

if TYPE_CHECKING:
    from types_boto3_s3.client import S3Client

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
        at = {"Bucket": self.bucket, "Key": self.full_key(held.key), **version_of(held)}
        with self.errors(held.key):
            now = self.client.get_object_retention(**at)["Retention"].get("RetainUntilDate")
            if now is None or now < until:
                self.client.put_object_retention(**at, Retention={"Mode": self.declared.lock.mode, "RetainUntilDate": until})

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
                found[name] = Held(name, None if version == "null" else version, true["Size"], true["LastModified"], above, hides)
        return found

    def read(self, held: Held) -> bytes:
        """A small object, whole."""
        reader = self.reader(held)
        return b"".join(iter(lambda: reader.read(1 << 20), b""))

    def reader(self, held: Held) -> "Reader":
        """Read an object as it streams; a connection that breaks is taken up where it broke."""
        from backup.transfer import Reader

        return Reader(self, held)

    # -- setting up ---------------------------------------------------------------------------------------------------

    def set_up(self) -> list[str]:
        """Make the bucket where it is missing, and give it versions, the lock and the rules; what is so already stays.

        Returns:
            what was done, a line each.

        Raises:
            StoreFailed: the key may not, or the bucket was made without Object Lock on a service that cannot add it.
        """
        done = []
        with self.errors(self.bucket):
            existing = {bucket["Name"] for bucket in self.client.list_buckets()["Buckets"]}
            if self.bucket not in existing:
                place: Any = {} if self.declared.endpoint or self.declared.region == "us-east-1" else {"LocationConstraint": self.declared.region}
                more: Any = {"CreateBucketConfiguration": place} if place else {}
                self.client.create_bucket(Bucket=self.bucket, ObjectLockEnabledForBucket=self.declared.lock is not None, **more)
                done.append("bucket made")
            if self.client.get_bucket_versioning(Bucket=self.bucket).get("Status") != "Enabled":
                self.client.put_bucket_versioning(Bucket=self.bucket, VersioningConfiguration={"Status": "Enabled"})
                done.append("versioning switched on")
            if self.declared.lock and not self._has_lock():
                self.client.put_object_lock_configuration(Bucket=self.bucket, ObjectLockConfiguration={"ObjectLockEnabled": "Enabled"})
                done.append("Object Lock switched on")
            self.client.put_bucket_lifecycle_configuration(Bucket=self.bucket, LifecycleConfiguration={"Rules": [self.lifecycle_rule()]})
            done.append("rule: uploads that were never finished go after 7 days")
        return done

    def lifecycle_rule(self) -> Any:
        """The only rule: what is kept is deleted by us, when a newer backup was verified, and never by a clock."""
        return {
            "ID": "unfinished uploads",
            "Status": "Enabled",
            "Filter": {"Prefix": f"{self.declared.prefix}/"},
            "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 7},
        }

    def _has_lock(self) -> bool:
        from botocore.exceptions import ClientError

        try:
            return "ObjectLockConfiguration" in self.client.get_object_lock_configuration(Bucket=self.bucket)
        except ClientError as error:
            if error.response["Error"]["Code"] == "ObjectLockConfigurationNotFoundError":
                return False
            raise

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
        elif status == 403:
            kind, said = Forbidden, f"{where} forbids it for {key}: {code}."
            mend = "locked objects stay until their time; else see the rights in docs/how-to/back-up.md"
        return kind(said, mend=mend, store=self.name)


def stores(only: StoreName | None = None) -> dict[StoreName, Store]:
    """The stores of the policy; or one of them, where nothing is known of the others.

    Raises:
        UsageError: backups are not configured.
    """
    from backup.policy import configured

    access = settings().backup
    return {name: Store(name, declared, getattr(access, name)) for name, declared in configured(only).stores.items() if only in (None, name)}


def version_of(held: Held) -> dict[str, Any]:
    """How an object's first version is named in a request."""
    return {"VersionId": held.version} if held.version else {}
