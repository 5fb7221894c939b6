"""Buckets of S3 and of stores that speak like it: a client that waits for nothing long, and errors that name the setting at fault."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from warehouse.errors import StepFailed, UsageError, WarehouseError

if TYPE_CHECKING:
    from boto3.session import Session
    from types_boto3_s3 import S3Client

_CONNECT_SECONDS = 2
_ANSWER_SECONDS = 4
_TRIES = 2
_WRONG_KEY = {"InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "InvalidClientTokenId"}
_WRONG_REGION = {"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"}


class BucketSettings(BaseModel):
    """A bucket or a part of one, where it is, and as whom to use it.

    Attributes:
        url: s3://bucket or s3://bucket/prefix.
        endpoint_url: where the store answers; None for AWS.
        access_key_id: None for what the machine itself is allowed (its role, or the usual files and variables of AWS).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    url: str | None = Field(default=None, pattern=r"^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[\w.=-]+)*/?$")
    endpoint_url: str | None = Field(default=None, pattern=r"^https?://[^@\s]+$")
    region: str | None = None
    access_key_id: SecretStr | None = None
    secret_access_key: SecretStr | None = None

    @property
    def bucket(self) -> str:
        """The name of the bucket."""
        return (self.url or "").removeprefix("s3://").partition("/")[0]

    @property
    def prefix(self) -> str:
        """What each key begins with: empty, or with a slash at its end."""
        within = (self.url or "").removeprefix("s3://").partition("/")[2].strip("/")
        return f"{within}/" if within else ""

    def secrets(self) -> list[str]:
        """What must not be shown."""
        return [one.get_secret_value() for one in (self.access_key_id, self.secret_access_key) if one and one.get_secret_value()]


@lru_cache(maxsize=8)
def client(given: BucketSettings) -> "S3Client":
    """A client for these settings, to be shared by threads. No call takes longer than about 13 s, in two tries."""
    waits = {"connect_seconds": _CONNECT_SECONDS, "answer_seconds": _ANSWER_SECONDS}
    return connect(given.endpoint_url, given.region, given.access_key_id, given.secret_access_key, **waits, tries=_TRIES)


@lru_cache(maxsize=16)
def connect(
    endpoint_url: str | None, region: str | None, key: SecretStr | None, secret: SecretStr | None, *, connect_seconds: float, answer_seconds: float, tries: int
) -> "S3Client":  # fmt: skip
    """A client with bounded waits, for whoever needs others than `client` has; the same for the same arguments, since making one takes a while.

    Args:
        connect_seconds: for the store to take the connection.
        answer_seconds: for it to go on answering.
        tries: how often a call is tried in all, after growing waits.
    """
    from botocore.config import Config

    config = Config(
        connect_timeout=connect_seconds, read_timeout=answer_seconds, retries={"mode": "standard", "total_max_attempts": tries},
        signature_version="s3v4", s3={"addressing_style": "path" if endpoint_url else "auto"},
    )  # fmt: skip
    with _MAKING:  # a session makes one client at a time
        return _session().client(
            "s3", endpoint_url=endpoint_url, region_name=region, config=config,
            aws_access_key_id=key.get_secret_value() if key else None, aws_secret_access_key=secret.get_secret_value() if secret else None,
        )  # fmt: skip


_MAKING = threading.Lock()


@lru_cache(maxsize=1)
def _session() -> "Session":
    """One for the process: each new one reads the descriptions of all services again, which takes longer than most calls."""
    import boto3

    return boto3.session.Session()


@contextmanager
def named_errors(given: BucketSettings, setting: str) -> Iterator[None]:
    """Turn what a client raises into our errors, which say which setting is at fault and repeat nothing of the request.

    Args:
        setting: what the names of these settings begin with, for example SOURCES__STRIPE__SPOOL.

    Raises:
        UsageError: the bucket, the key or the region is wrong. StepFailed: the store does not answer, or refuses for another reason.
    """
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError

    try:
        yield
    except ClientError as error:
        raise _refused(error.response.get("Error", {}).get("Code", ""), given, setting) from None
    except (NoCredentialsError, PartialCredentialsError):
        raise UsageError(f"{setting}__ACCESS_KEY_ID and {setting}__SECRET_ACCESS_KEY are not both set.", mend="set both, or give the machine a role") from None
    except BotoCoreError as error:
        raise StepFailed(
            f"the bucket of {setting}__URL does not answer ({type(error).__name__}).", mend=f"is the store up, and is {setting}__ENDPOINT_URL its address?"
        ) from None


def _refused(code: str, given: BucketSettings, setting: str) -> WarehouseError:
    if code == "NoSuchBucket":
        return UsageError(f"{setting}__URL: there is no bucket {given.bucket}.", mend=f"make it, or correct {setting}__URL or {setting}__ENDPOINT_URL")
    if code in _WRONG_KEY:
        return UsageError(
            f"the key of {setting}__ACCESS_KEY_ID is refused ({code}).", mend=f"correct {setting}__ACCESS_KEY_ID and {setting}__SECRET_ACCESS_KEY"
        )
    if code in ("AccessDenied", "403"):
        return UsageError(
            f"the key of {setting}__ACCESS_KEY_ID may not do this in {setting}__URL.", mend="let it list, read, write and delete objects below that prefix"
        )
    if code in _WRONG_REGION:
        return UsageError(f"the bucket of {setting}__URL is in another region ({code}).", mend=f"set {setting}__REGION to the bucket's region")
    return StepFailed(f"the bucket of {setting}__URL answers {code or 'an error'}.", mend="run again later; nothing that was acknowledged is lost")
