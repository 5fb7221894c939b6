"""A real server of S3's protocol (SeaweedFS) for tests: it verifies keys and checksums, and refuses to overwrite when told so."""

import json
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

HOST, KEY, SECRET = "127.0.0.1", "KEYOFTHETESTS", "secret of the tests"  # opens nothing but this server


class ObjectStore:
    """The server in a folder, with one user who may do everything."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.url = ""

    def start(self) -> None:
        """Start it, and wait until it serves."""
        ports = _free_ports(8)
        self.url = f"http://{HOST}:{ports[6]}"
        identity = {"name": "tests", "credentials": [{"accessKey": KEY, "secretKey": SECRET}], "actions": ["Admin", "Read", "Write", "List", "Tagging"]}
        (self._folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
        (self._folder / "data").mkdir(exist_ok=True)
        options = {f"{part}.port{kind}": ports.pop(0) for part in ("master", "volume", "filer", "s3") for kind in ("", ".grpc")} | {
            "dir": self._folder / "data", "ip": HOST, "ip.bind": HOST, "master.telemetry": "false", "master.volumeSizeLimitMB": 64, "volume.max": 500,
            "s3": "true", "s3.config": self._folder / "s3.json", "s3.port.iceberg": 0, "s3.port.lance": 0, "s3.autoCreateBucket": "false",
        }  # fmt: skip
        command = [str(Path(sys.executable).with_name("weed")), "server", *(f"-{name}={value}" for name, value in options.items())]
        log = self._folder / "log"
        with log.open("wb") as out:
            self._process = subprocess.Popen(command, cwd=self._folder, stdout=out, stderr=out)
        deadline = time.monotonic() + 60
        while not self._serves():
            assert self._process.poll() is None, log.read_text()[-2000:]
            assert time.monotonic() < deadline, log.read_text()[-2000:]
            time.sleep(0.1)

    def _serves(self) -> bool:
        try:
            name = self.new_bucket()
            self.client.put_object(Bucket=name, Key="first", Body=b"a volume is ready")
        except (BotoCoreError, ClientError):
            return False
        return True

    def stop(self) -> None:
        """End it."""
        if self._process:
            self._process.kill()
            self._process.wait()

    @property
    def client(self) -> Any:
        """A client that may do everything."""
        config = Config(connect_timeout=2, read_timeout=30, retries={"total_max_attempts": 1})
        given = {"endpoint_url": self.url, "region_name": "us-east-1", "config": config}
        return boto3.client("s3", **given, aws_access_key_id=KEY, aws_secret_access_key=SECRET)

    def new_bucket(self) -> str:
        """Make an empty bucket; returns its name."""
        name = f"tests-{uuid.uuid4().hex[:12]}"
        self.client.create_bucket(Bucket=name)
        return name

    def settings(self, prefix: str, url: str) -> dict[str, str]:
        """The settings, by their names in the environment, that point at a bucket here."""
        given = {"URL": url, "ENDPOINT_URL": self.url, "ACCESS_KEY_ID": KEY, "SECRET_ACCESS_KEY": SECRET}
        return {f"{prefix}__{name}": value for name, value in given.items()}


@contextmanager
def object_store(folder: Path) -> Iterator[ObjectStore]:
    """The server as long as the block runs."""
    store = ObjectStore(folder)
    try:
        store.start()
        yield store
    finally:
        store.stop()


def _free_ports(number: int) -> list[int]:
    with ExitStack() as held:
        return [held.enter_context(socket.create_server((HOST, 0))).getsockname()[1] for _ in range(number)]
