"""A real S3 server for tests, and a policy whose stores A and B are buckets of it."""

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyrage

WEED = Path(sys.executable).with_name("weed")
KEYS = {"a": ("keyofstorea", "secretofstorea0123456789"), "b": ("keyofstoreb", "secretofstoreb0123456789")}


@dataclass
class S3Server:
    """A running SeaweedFS."""

    url: str
    folder: Path
    command: list[str]
    process: "subprocess.Popen[bytes] | None" = None

    def start(self) -> None:
        """Start it where it is not running, and wait until it takes objects."""
        if self.process is None:
            with (self.folder / "log").open("ab") as log:
                self.process = subprocess.Popen(self.command, stdout=log, stderr=log, start_new_session=True)
            _wait(self, self.process)

    def kill(self) -> None:
        """SIGKILL: what it acknowledged must be there when it starts again."""
        if self.process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None

    def client(self, store: str = "a") -> Any:
        """What somebody with the full key of a store has."""
        return client(self.url, *KEYS[store])


def client(url: str, key: str, secret: str) -> Any:
    import boto3
    from botocore.config import Config

    config = Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 3})
    return boto3.client("s3", endpoint_url=url, region_name="eu-central-1", aws_access_key_id=key, aws_secret_access_key=secret, config=config)


@contextmanager
def s3_server(folder: Path) -> Iterator[S3Server]:
    """Start a server in a folder, and end it."""
    folder.mkdir(parents=True)
    config = folder / "s3.json"
    actions = ["Admin", "Read", "Write", "List", "Tagging"]
    identities = [{"name": name, "credentials": [{"accessKey": key, "secretKey": secret}], "actions": actions} for name, (key, secret) in KEYS.items()]
    config.write_text(json.dumps({"identities": identities}))
    ports = _free_ports(8)
    names = [f"{part}.port{kind}" for part in ("master", "volume", "filer", "s3") for kind in ("", ".grpc")]
    flags = [f"-{name}={port}" for name, port in zip(names, ports, strict=True)]
    command = [
        WEED, "-logtostderr", "server", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer", "-s3", "-s3.autoCreateBucket=false",
        "-s3.port.lance=0", "-s3.port.iceberg=0", f"-s3.config={config}", "-master.volumeSizeLimitMB=64", "-volume.max=0", "-master.telemetry=false", *flags,
    ]  # fmt: skip
    server = S3Server(f"http://127.0.0.1:{ports[6]}", folder, [str(word) for word in command])
    try:
        server.start()
        yield server
    finally:
        server.kill()


def _wait(server: S3Server, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 90
    bucket = f"ready-{secrets.token_hex(4)}"
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(Exception):
            made = server.client()
            made.create_bucket(Bucket=bucket)
            made.put_object(Bucket=bucket, Key="ready", Body=b"ready")
            return
        time.sleep(0.2)
    raise RuntimeError((server.folder / "log").read_text()[-2000:])


def _free_ports(count: int) -> list[int]:
    with _closing([socket.socket() for _ in range(count)]) as opened:
        for one in opened:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in opened]


@contextmanager
def _closing(sockets: list[socket.socket]) -> Iterator[list[socket.socket]]:
    try:
        yield sockets
    finally:
        for one in sockets:
            one.close()


class Backups:
    """Stores A and B (a prefix of buckets that all tests share), a pair of keys, and a policy; `settings` are for the environment."""

    def __init__(self, folder: Path, a: S3Server, b: S3Server, lock_days: int | None = 1, **data: str) -> None:
        self.identity = pyrage.x25519.Identity.generate()
        self.servers = {"a": a, "b": b}
        self.prefix = f"test-{secrets.token_hex(4)}"
        self.buckets = {"a": "region-a", "b": "region-b"}
        self.third = ""
        self.file = folder / "policy.yaml"
        self.settings = {
            "BACKUP__POLICY": str(self.file),
            "BACKUP__IDENTITIES": str(self.identity),
            **{f"BACKUP__{name.upper()}__ACCESS_KEY_ID": key for name, (key, _) in KEYS.items()},
            **{f"BACKUP__{name.upper()}__SECRET_ACCESS_KEY": secret for name, (_, secret) in KEYS.items()},
        }
        self.write(lock_days, **data)

    def write(self, lock_days: int | None = 1, endpoints: dict[str, str] | None = None, recipients: list[str] | None = None, **data: str) -> None:
        """Write the policy."""
        lock = f"lock: {{mode: COMPLIANCE, days: {lock_days}}}" if lock_days else "lock: null"
        lines = [
            "home: {medium: disk, site: here}",
            f"recipients: [{', '.join(recipients or [str(self.identity.to_public())])}]",
            "stores:",
            *(
                f"  {name}: {{bucket: {self.buckets[name]}, region: eu-central-1, endpoint: '{(endpoints or {}).get(name, server.url)}', "
                f"prefix: {self.prefix}, medium: object storage, site: region {name}, usd_per_gb_month: 0.02, {lock}}}"
                for name, server in self.servers.items()
            ),
            *([f"  c: {self.third}"] if self.third else []),
            "data:",
            *(f"  {kind}: {given}" for kind, given in (data or {"warehouse": "{every: 1d, keep: 30d, stores: [a, b]}"}).items()),
        ]
        self.file.write_text("\n".join(lines) + "\n")

    def keys(self, store: str, part: str = "") -> list[str]:
        """The names of the objects in a store that anybody sees."""
        listed = self.servers[store].client(store).list_objects_v2(Bucket=self.buckets[store], Prefix=f"{self.prefix}/")
        return [one["Key"] for one in listed.get("Contents", []) if part in one["Key"]]

    def full(self, key: str) -> str:
        """A key as it stands in the bucket."""
        return f"{self.prefix}/{key}"

    def flip(self, store: str, key: str, at: int | None = None) -> None:
        """Put a key's bytes there anew with one bit turned, as a disk that lies would give them."""
        made, bucket = self.servers[store].client(store), self.buckets[store]
        versions = made.list_object_versions(Bucket=bucket, Prefix=key)["Versions"]
        versions = [version for version in versions if version["Key"] == key]
        content = bytearray(made.get_object(Bucket=bucket, Key=key, VersionId=versions[-1]["VersionId"])["Body"].read())
        content[len(content) // 2 if at is None else at] ^= 1
        for version in versions:
            made.delete_object(Bucket=bucket, Key=key, VersionId=version["VersionId"])
        made.put_object(Bucket=bucket, Key=key, Body=bytes(content))
