"""The spool in a bucket: each group of records becomes one object, whole and unchangeable from the moment it can be seen."""

import base64
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from warehouse.errors import StepFailed
from warehouse.object_store import BucketSettings, client, named_errors
from warehouse.settings import settings

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client


@dataclass(frozen=True)
class Stored:
    """One object: the last part of its key, and its size."""

    name: str
    bytes: int


class SpoolBucket:
    """Where a source's records are kept until they are loaded, below `<prefix>/<source>/`.

    Each method raises UsageError (a setting is wrong) or StepFailed (the store does not do it now).
    """

    def __init__(self, source: str, given: BucketSettings) -> None:
        self._given, self._setting = given, f"SOURCES__{source.upper()}__SPOOL"
        self._folder = f"{given.prefix}{source}/"

    def __str__(self) -> str:
        return f"s3://{self._given.bucket}/{self._folder}"

    @property
    def _client(self) -> "S3Client":
        return client(self._given)

    def objects(self) -> Iterator[Stored]:
        """What is kept, in the order of the names."""
        with named_errors(self._given, self._setting):
            for page in self._client.get_paginator("list_objects_v2").paginate(Bucket=self._given.bucket, Prefix=self._folder):
                yield from (Stored(one["Key"].removeprefix(self._folder), one["Size"]) for one in page.get("Contents", []))

    def begin(self, name: str) -> "_OpenObject":
        """An object to be written at once."""
        return _OpenObject(self, name)

    def make(self, name: str, content: bytes) -> None:
        """Keep an object under a name that nobody has used; when this returns, the store has it as it was sent."""
        from botocore.exceptions import ClientError

        with named_errors(self._given, self._setting):
            try:
                self._put(name, content, IfNoneMatch="*")
            except ClientError as error:
                # The answer to a first try may have been lost: then the object is there, and it is ours.
                if error.response.get("Error", {}).get("Code") != "PreconditionFailed" or not self._holds(name, content):
                    raise

    def _holds(self, name: str, content: bytes) -> bool:
        try:
            return self.read(name) == content
        except FileNotFoundError:
            return False

    def probe(self) -> None:
        """Keep a small object beside the records, to see whether they could be kept now."""
        with named_errors(self._given, self._setting):
            self._put("probe", b"written to see whether events can be kept\n")

    def _put(self, name: str, content: bytes, **conditions: Any) -> None:
        checksum = base64.b64encode(hashlib.sha256(content).digest()).decode()
        answer = self._client.put_object(Bucket=self._given.bucket, Key=self._folder + name, Body=content, ChecksumSHA256=checksum, **conditions)
        if answer.get("ChecksumSHA256") != checksum:
            raise StepFailed(f"the store of {self._setting}__URL did not confirm the SHA-256 of what it got.", mend="use a store that verifies checksums")

    def read(self, name: str) -> bytes:
        """The content of an object.

        Raises:
            FileNotFoundError: it was removed meanwhile.
        """
        with named_errors(self._given, self._setting):
            try:
                return bytes(self._client.get_object(Bucket=self._given.bucket, Key=self._folder + name, ChecksumMode="ENABLED")["Body"].read())
            except self._client.exceptions.NoSuchKey:
                raise FileNotFoundError(name) from None

    def remove(self, name: str) -> None:
        """Remove an object; one that is gone already is none to complain of."""
        with named_errors(self._given, self._setting):
            self._client.delete_object(Bucket=self._given.bucket, Key=self._folder + name)

    def forget_past(self) -> int:
        """Remove what a bucket with versions still keeps of objects that were removed. Returns how many versions it does not let go.

        A bucket without versions has none, and a store that knows no versions answers so.
        """
        from botocore.exceptions import ClientError

        left = 0
        with named_errors(self._given, self._setting):
            try:
                pages = list(self._client.get_paginator("list_object_versions").paginate(Bucket=self._given.bucket, Prefix=self._folder))
            except ClientError as error:
                if error.response.get("Error", {}).get("Code") in ("NotImplemented", "MethodNotAllowed"):
                    return 0
                raise
        versions: list[Any] = [one for page in pages for one in (*page.get("Versions", []), *page.get("DeleteMarkers", []))]
        for one in versions:
            if one.get("VersionId") in (None, "", "null") or (one["IsLatest"] and "ETag" in one):
                continue
            try:
                self._client.delete_object(Bucket=self._given.bucket, Key=one["Key"], VersionId=one["VersionId"])
            except ClientError:  # locked, or not allowed: told, and never a reason to leave the rest
                left += "ETag" in one
        return left


class _OpenObject:
    """An object that one write makes, and that is complete then."""

    def __init__(self, bucket: SpoolBucket, name: str) -> None:
        self.size, self._bucket, self._name = 0, bucket, name

    def seconds_left(self) -> float:
        """None: the next records go into another object."""
        return 0.0

    def write(self, lines: bytes) -> None:
        """Make the object."""
        self._bucket.make(self._name, lines)
        self.size = len(lines)

    def close(self) -> None:
        """Nothing is open."""


def bucket_of(source: str) -> SpoolBucket | None:
    """The bucket that is set for a source; None where its spool is a folder of this machine."""
    given = settings().spool_bucket(source)
    return SpoolBucket(source, given) if given else None
