"""A stand-in for S3 where objects must be thawed (moto), and for bucket rules that it keeps without following them.

It proves what is asked of such a store, in which order, and what is done with its answers. It does not prove bytes (it takes wrong
checksums and any key), locks (it lets them be shortened), times (a thaw ends when the test says), prices, or that a rule is followed.
"""

import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from integration.object_stores import _free_ports, client

KEY = ("keyofstorec", "secretofstorec0123456789")
_REGION = "us-east-1"


@dataclass
class Glacier:
    """The running server."""

    url: str

    def client(self) -> Any:
        """A client that may do everything."""
        return client(self.url, *KEY)

    def thaws_after(self, looks: int) -> None:
        """From now on a thaw begins, and then ends, when the object was looked at so often; at once with 0."""
        how: dict[str, Any] = {"progression": "manual", "times": looks} if looks else {"progression": "immediate"}
        content = json.dumps({"model_name": "s3::keyrestore", "transition": how}).encode()
        urllib.request.urlopen(urllib.request.Request(f"{self.url}/moto-api/state-manager/set-transition", content, {"Content-Type": "application/json"}))

    def store(self, bucket: str, prefix: str) -> str:
        """How the policy declares a bucket of it."""
        return f"{{bucket: {bucket}, region: {_REGION}, endpoint: '{self.url}', prefix: {prefix}, medium: object storage, site: another provider, lock: null}}"


@contextmanager
def glacier_server() -> Iterator[Glacier]:
    """Start it, and end it."""
    (port,) = _free_ports(1)
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        server, deadline = Glacier(f"http://127.0.0.1:{port}"), time.monotonic() + 90
        while True:
            with suppress(Exception):
                server.client().list_buckets()
                break
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield server
    finally:
        process.kill()
        process.wait()
