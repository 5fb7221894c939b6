"""Bytes on their way to a store and back: uploads in parts whose SHA-256 is sent and checked, readers that go on where they broke."""

import base64
import hashlib
import secrets
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from backup.encryption import Damaged
from backup.store import ATTEMPTS, IN_FLIGHT, Held, Missing, Store, Stored, StoreFailed, Taken, version_of

_PART_BYTES = 8 << 20
_PARTS = 9_000
"""An object has 10,000 parts at the most; an estimate may be wrong by a tenth."""
_TOKEN = "upload"  # noqa: S105 - the name of the metadata that tells whose upload an object is, no secret


def part_bytes(estimate: int) -> int:
    """How large the parts of an upload of about so many bytes are: three of them are in memory."""
    return max(_PART_BYTES, -(-estimate // _PARTS))


class Upload:
    """An object that is being written: one request where one part is enough, otherwise parts, two at a time."""

    def __init__(self, store: Store, key: str, part_bytes: int, protection: dict[str, Any]) -> None:
        self._store, self._key, self._part_bytes, self._protection = store, key, part_bytes, protection
        self._token = secrets.token_hex(16)
        self._buffer, self._digest, self._bytes = bytearray(), hashlib.sha256(), 0
        self._upload_id: str | None = None
        self._parts: list[Future[Any]] = []
        self._pool: ThreadPoolExecutor | None = None
        self._stored: Stored | None = None

    @property
    def stored(self) -> Stored:
        """What was written, once it was."""
        if self._stored is None:
            raise RuntimeError("the upload has not ended")
        return self._stored

    def write(self, data: bytes) -> int:
        """Add bytes; waits while two parts are on their way."""
        self._digest.update(data)
        self._bytes += len(data)
        self._buffer += data
        while len(self._buffer) > self._part_bytes:
            with memoryview(self._buffer) as whole:
                part = bytes(whole[: self._part_bytes])
            self._send(part)
            del self._buffer[: self._part_bytes]
        return len(data)

    @property
    def _at(self) -> Any:
        return {"Bucket": self._store.bucket, "Key": self._store.full_key(self._key)}

    def _send(self, part: bytes) -> None:
        client = self._store.client
        if self._upload_id is None:
            with self._store.errors(self._key):
                begun = client.create_multipart_upload(
                    **self._at, **self._protection, ChecksumAlgorithm="SHA256", ChecksumType="COMPOSITE", Metadata={_TOKEN: self._token}
                )
            self._upload_id = begun["UploadId"]
        if len(self._parts) >= IN_FLIGHT:
            self._wait(self._parts[-IN_FLIGHT])
        pool = self._pool or ThreadPoolExecutor(IN_FLIGHT, thread_name_prefix="upload")
        self._pool = pool
        self._parts.append(pool.submit(self._send_part, len(self._parts) + 1, part))

    def _send_part(self, number: int, part: bytes) -> Any:
        checksum = _base64(part)
        sent = self._store.client.upload_part(**self._at, UploadId=self._upload_id or "", PartNumber=number, Body=part, ChecksumSHA256=checksum)
        return {"PartNumber": number, "ETag": sent["ETag"], "ChecksumSHA256": checksum}

    def _wait(self, part: "Future[Any]") -> Any:
        with self._store.errors(self._key):
            return part.result()

    def finish(self) -> None:
        """Send what is left and let the object appear, with what the store says of its SHA-256 compared."""
        client, last = self._store.client, bytes(self._buffer)
        said: str | None = None
        expected = ""
        try:
            if self._upload_id is None:
                checksum = _base64(last)
                more: Any = {**self._at, **self._protection, "Metadata": {_TOKEN: self._token}}
                with self._store.errors(self._key):
                    client.put_object(**more, Body=last, ChecksumSHA256=checksum, IfNoneMatch="*")
            else:
                self._send(last)
                parts = [self._wait(part) for part in self._parts]
                with self._store.errors(self._key):
                    done = client.complete_multipart_upload(**self._at, UploadId=self._upload_id, MultipartUpload={"Parts": parts}, IfNoneMatch="*")
                said = done.get("ChecksumSHA256")
                whole = b"".join(base64.b64decode(part["ChecksumSHA256"]) for part in parts)
                expected = f"{_base64(whole)}-{len(parts)}"
        except (Taken, Missing):
            if not self._is_ours():  # an answer that was lost is asked for again, and then it is there already
                raise
        if said is not None and said != expected:
            raise Damaged(f"store {self._store.name} put {self._key} together wrongly.", mend="run again", store=self._store.name)
        self._close()
        self._stored = Stored(self._key, self._bytes, self._digest.hexdigest())

    def _is_ours(self) -> bool:
        with self._store.errors(self._key):
            there = self._store.client.head_object(**self._at)
        return there["Metadata"].get(_TOKEN) == self._token and there["ContentLength"] == self._bytes

    def abort(self) -> None:
        """Leave nothing behind; an upload that cannot even be given up is removed by the bucket's rule."""
        self._close()
        if self._upload_id is not None and self._stored is None:
            try:
                self._store.client.abort_multipart_upload(**self._at, UploadId=self._upload_id)
            except Exception:  # what made us give up is the error to tell
                return

    def _close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)


class Reader:
    """An object as it streams. `sha256` and `bytes` are of what was read so far."""

    def __init__(self, store: Store, held: Held) -> None:
        self._store, self._held, self._digest = store, held, hashlib.sha256()
        self._body: Any = None
        self.bytes = 0

    @property
    def sha256(self) -> str:
        """The SHA-256 of what was read, in hex."""
        return self._digest.hexdigest()

    def passed(self, data: bytes) -> None:
        """Take bytes as read that an earlier reader brought: reading goes on behind them."""
        self._digest.update(data)
        self.bytes += len(data)

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes; none at the end.

        Raises:
            Missing, StoreFailed: it is gone, or the connection broke again and again.
        """
        from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError
        from botocore.parsers import ResponseParserError

        for attempt in range(ATTEMPTS):
            if self.bytes >= self._held.bytes:
                return b""
            try:
                if self._body is None:
                    given: Any = {"Range": f"bytes={self.bytes}-"} if self.bytes else {}
                    at: Any = {"Bucket": self._store.bucket, "Key": self._store.full_key(self._held.key), **version_of(self._held)}
                    self._body = self._store.client.get_object(**at, **given)["Body"]
                data: bytes = self._body.read(size if size > 0 else 1 << 20)
            except ClientError:
                with self._store.errors(self._held.key):
                    raise
            except (BotoCoreError, HTTPClientError, ResponseParserError, ValueError, OSError):  # taken up again where it broke
                data = b""
            if data:
                self.passed(data)
                return data
            self._body = None
            if attempt == ATTEMPTS - 1:
                break
        what = f"store {self._store.name}: reading {self._held.key} broke off {ATTEMPTS} times."
        raise StoreFailed(what, mend="run again; is the network up?", store=self._store.name)

    def check(self, expected: Stored) -> None:
        """Compare what was read with what was written; reads on to the end first.

        Raises:
            Damaged: another byte, or fewer, or more.
        """
        while self.read(1 << 20):
            pass
        if (self.bytes, self.sha256) != (expected.bytes, expected.sha256):
            raise Damaged(
                f"store {self._store.name}: {self._held.key} is not what was written.",
                mend="the other store has it whole; `warehouse backup verify` says what else is damaged",
                store=self._store.name,
            )


def _base64(data: bytes) -> str:
    return base64.b64encode(hashlib.sha256(data).digest()).decode()
