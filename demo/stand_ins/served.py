"""The HTTP side of the stand-ins: requests as they arrive, faults instead of answers, and JSON as the API that is stood for words it."""

import json
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import Message
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Generic, Self, TypeVar
from urllib.parse import parse_qsl, unquote, urlsplit

Object = dict[str, Any]
Asked = TypeVar("Asked")
"""A request as the API that is stood for sees it."""


@dataclass
class Fault:
    """What happens to the next requests of a path, or below it, instead of an answer: a status, a silence of seconds, half an answer, or a reset."""

    path: str
    times: int = 1
    status: int = 0
    message: str = "told to fail"
    retry_after: str | None = None
    hang: float = 0
    is_torn: bool = False
    reset: bool = False


@dataclass(frozen=True)
class Request:
    """A request as it arrived; `body` is what its JSON holds, if anything."""

    path: str
    query: dict[str, str]
    headers: Message
    body: Object


class Refused(Exception):
    """An answer that is an error; each API has its own wording."""

    def __init__(self, status: int, message: str, body: Object, retry_after: str | None = None) -> None:
        super().__init__(message)
        self.status, self.body, self.retry_after = status, body, retry_after


class StandIn(Generic[Asked]):
    """What is served at `url` of this machine while inside; stand-ins are dataclasses with these attributes as fields.

    Attributes:
        now: the clock, in UTC.
        port: where it listens; 0 for a free one.
        before: called with each request before it is answered, for what happens while somebody reads.
        asked: every request so far.
        faults: what is to happen instead of answers.
    """

    now: Callable[[], datetime]
    port: int
    before: Callable[[Asked], None] | None
    asked: list[Asked]
    faults: list[Fault]
    _server: ThreadingHTTPServer | None = None

    def arrived(self, request: Request) -> Asked:
        """A request as it is remembered in `asked`."""
        raise NotImplementedError

    def answer(self, asked: Asked) -> Object:
        """The answer to a request.

        Raises:
            Refused: the answer is an error.
        """
        raise NotImplementedError

    def error(self, fault: Fault) -> Object:
        """What an answer says that has the status of a fault."""
        raise NotImplementedError

    @property
    def url(self) -> str:
        """Where it listens."""
        if self._server is None:
            raise RuntimeError("not started")
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        """Listen on this machine alone."""
        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), type("Handler", (_Handler,), {"stand_in": self}))
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    stand_in: StandIn[Any]
    protocol_version = "HTTP/1.1"
    # An answer leaves in one piece and at once. In two, its end waits 40 ms until the reader has acknowledged its beginning.
    disable_nagle_algorithm = True
    wbufsize = 1 << 16

    def do_GET(self) -> None:
        self._serve({})

    def do_POST(self) -> None:
        try:
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)))
        except ValueError:
            body = {}
        self._serve(body)

    def _serve(self, body: Object) -> None:
        served, address = self.stand_in, urlsplit(self.path)
        path = unquote(address.path)
        asked = served.arrived(Request(path, dict(parse_qsl(address.query)), self.headers, body))
        served.asked.append(asked)
        if served.before is not None:
            served.before(asked)
        fault = next((fault for fault in served.faults if fault.times > 0 and fault.path in path), None)
        if fault is not None:
            fault.times -= 1
            self._suffer(fault)
            return
        try:
            self._send(200, served.answer(asked))
        except Refused as refused:
            self._send(refused.status, refused.body, refused.retry_after)

    def _suffer(self, fault: Fault) -> None:
        if not fault.reset:
            time.sleep(fault.hang)
            if fault.status or fault.is_torn:
                self._send(fault.status or 200, self.stand_in.error(fault), fault.retry_after, is_torn=fault.is_torn)
                return
        self.close_connection = True
        if fault.reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()

    def _send(self, status: int, body: Object, retry_after: str | None = None, *, is_torn: bool = False) -> None:
        content = json.dumps(body).encode()
        content = content[: len(content) // 2] if is_torn else content
        self.send_response_only(status)
        self.send_header("Date", format_datetime(self.stand_in.now().astimezone(UTC), usegmt=True))
        self.send_header("Content-Type", "application/json; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        if retry_after is not None:
            self.send_header("Retry-After", retry_after)
        self.end_headers()
        try:
            self.wfile.write(content)
            self.wfile.flush()
        except OSError:
            self.close_connection = True  # the reader has gone

    def log_message(self, format: str, *arguments: Any) -> None:
        """Say nothing."""
