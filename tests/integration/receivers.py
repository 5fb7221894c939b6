"""A receiver of webhooks for tests, and what it left in the spool."""

import socket
import threading

import requests

from demo.stand_ins.stripe_webhooks import Endpoint
from serving import webhooks
from warehouse import spool


class Receiver(Endpoint):
    """The receiver on a port of its own, in a thread of this process, so that it shares the test's clock."""

    def __enter__(self) -> "Receiver":
        listening = socket.create_server(("127.0.0.1", 0))
        self.base = f"http://127.0.0.1:{listening.getsockname()[1]}"
        self.url = self.base + webhooks.PATH
        self._server = webhooks.server(list(self.secrets))
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [listening]})
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join()

    def counts(self) -> dict[str, float]:
        """What /metrics says."""
        lines = requests.get(f"{self.base}/metrics", timeout=5).text.splitlines()
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if not line.startswith("#"))}


def spooled() -> list[bytes]:
    return [record.body for segment in spool.segments("stripe") for record in spool.read(segment).records]
