"""The HTTP side of Zendesk's stand-in: requests as they arrive, faults instead of answers, errors as Zendesk words them."""

import json
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol
from urllib.parse import parse_qsl, urlsplit

Object = dict[str, Any]


@dataclass
class Fault:
    """What happens to the next requests of a path instead of an answer: a status, a silence of seconds, half an answer, or a reset."""

    path: str
    times: int = 1
    status: int = 0
    retry_after: str | None = None
    hang: float = 0
    is_torn: bool = False
    reset: bool = False


@dataclass(frozen=True)
class Asked:
    """A request as it arrived, and when by the account's clock."""

    path: str
    query: dict[str, str]
    authorization: str
    body: Object = field(default_factory=dict)
    at: datetime | None = None


class Refused(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, error: str, description: str, retry_after: int | None = None) -> None:
        super().__init__(description)
        self.status, self.retry_after = status, retry_after
        self.body = {"error": error, "description": description}


class Account(Protocol):
    """What is served."""

    before: Callable[[Asked], None] | None
    asked: list[Asked]
    faults: list[Fault]

    @property
    def now(self) -> Callable[[], datetime]:
        """The clock."""

    def answer(self, asked: Asked) -> Object:
        """The answer to a request, or `Refused`."""


class Server:
    """Serves one account on a port of this machine; 0 stands for any free one."""

    def __init__(self, served: Account, port: int = 0) -> None:
        class Handler(_Handler):
            account = served

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def start(self) -> None:
        """Listen."""
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def stop(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    account: Account
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._serve({})

    def do_POST(self) -> None:
        try:
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)))
        except ValueError:
            body = {}
        self._serve(body)

    def _serve(self, body: Object) -> None:
        address = urlsplit(self.path)
        path = address.path.removesuffix(".json")
        asked = Asked(path, dict(parse_qsl(address.query)), self.headers.get("Authorization", ""), body, self.account.now())
        self.account.asked.append(asked)
        if self.account.before is not None:
            self.account.before(asked)
        fault = next((fault for fault in self.account.faults if fault.times > 0 and path.startswith(fault.path)), None)
        if fault is not None:
            fault.times -= 1
            self._suffer(fault)
            return
        try:
            self._send(200, self.account.answer(asked))
        except Refused as refused:
            self._send(refused.status, refused.body, None if refused.retry_after is None else str(refused.retry_after))

    def _suffer(self, fault: Fault) -> None:
        if fault.reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            self.connection.close()
            return
        time.sleep(fault.hang)
        if fault.status or fault.is_torn:
            self._send(fault.status or 200, {"error": "InternalError", "description": "told to fail"}, fault.retry_after, is_torn=fault.is_torn)
        else:
            self.close_connection = True

    def _send(self, status: int, body: Object, retry_after: str | None = None, *, is_torn: bool = False) -> None:
        content = json.dumps(body).encode()
        content = content[: len(content) // 2] if is_torn else content
        self.send_response_only(status)
        self.send_header("Date", format_datetime(self.account.now().astimezone(UTC), usegmt=True))
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        if retry_after is not None:
            self.send_header("Retry-After", retry_after)
        self.end_headers()
        try:
            self.wfile.write(content)
        except OSError:
            self.close_connection = True  # the reader has gone

    def log_message(self, format: str, *arguments: Any) -> None:
        """Say nothing."""
