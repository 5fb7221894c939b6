"""The parts of PagerDuty, Slack and a mail server that alerts meet, on local ports; each keeps what it was told and can be told to fail."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from aiosmtpd.controller import Controller

ROUTING_KEY, TOKEN, CHANNEL = "R0UT1NGKEY0F0THE0TESTS0ONLY00000", "xoxb-only-for-the-tests", "C0123456"


@dataclass
class Failure:
    """How the next request to a path fails."""

    path: str
    status: int
    headers: dict[str, str] = field(default_factory=dict)
    does_it: bool = False


class Services(ThreadingHTTPServer):
    """PagerDuty's /v2/enqueue, Slack's methods under /api/, and /ping for a heartbeat."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.events: list[dict[str, Any]] = []
        self.messages: list[dict[str, Any]] = []
        self.pings = 0
        self.asked: list[str] = []
        self.failures: list[Failure] = []
        self.out: set[str] = set()
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def pages(self) -> dict[str, str]:
        """Each page by its key: `trigger`, or `resolve` when it is over. Events with one key are one page, as PagerDuty has it."""
        return {event["dedup_key"]: event["event_action"] for event in self.events}

    @property
    def posted(self) -> list[dict[str, Any]]:
        """The messages of the channel that are in no thread."""
        return [one for one in self.messages if "thread_ts" not in one]


class _Handler(BaseHTTPRequestHandler):
    server: Services

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        parts = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        given = json.loads(body) if body.startswith("{") else dict(parse_qsl(parts.query + "&" + body))
        with self.server.lock:
            self.server.asked.append(parts.path)
            failure = next((one for one in self.server.failures if one.path in parts.path), None)
            if failure:
                self.server.failures.remove(failure)
                if failure.does_it:
                    self._do(parts.path, given)
                self._send(failure.status, {"ok": False, "error": "ratelimited" if failure.status == 429 else "internal_error"}, failure.headers)
            elif any(path in parts.path for path in self.server.out):
                self._send(503, {"ok": False, "error": "service_unavailable"}, {})
            else:
                self._send(*self._do(parts.path, given), {})

    def _do(self, path: str, given: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if path == "/ping":
            self.server.pings += 1
            return 200, {}
        if path == "/v2/enqueue":
            if given["routing_key"] != ROUTING_KEY:
                return 400, {"status": "invalid event", "message": "Event object is invalid", "errors": ["Invalid routing key"]}
            self.server.events.append(given)
            return 202, {"status": "success", "message": "Event processed", "dedup_key": given["dedup_key"]}
        if self.headers["Authorization"] != f"Bearer {TOKEN}":
            return 200, {"ok": False, "error": "invalid_auth"}
        return 200, self._slack(path.removeprefix("/api/"), given)

    def _slack(self, method: str, given: dict[str, Any]) -> dict[str, Any]:
        messages = self.server.messages
        if method == "chat.postMessage":
            assert given["channel"] == CHANNEL
            ts = f"1700000000.{len(messages):06d}"
            messages.append({"ts": ts, **{key: given[key] for key in ("text", "blocks", "metadata", "thread_ts") if key in given}})
            return {"ok": True, "channel": CHANNEL, "ts": ts}
        if method == "chat.update":
            (found,) = [one for one in messages if one["ts"] == given["ts"]]
            found.update(text=given["text"], blocks=given["blocks"])
            return {"ok": True, "channel": CHANNEL, "ts": given["ts"]}
        thread = given.get("ts") if method == "conversations.replies" else None
        shown = [one for one in messages if (one.get("thread_ts") == thread or one["ts"] == thread if thread else "thread_ts" not in one)]
        return {"ok": True, "messages": shown[::-1]}

    def _send(self, status: int, value: dict[str, Any], headers: dict[str, str]) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        for name, text in {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


class Mailbox:
    """What aiosmtpd calls for each mail; `answer` is what it says to it."""

    def __init__(self) -> None:
        self.mails: list[Message] = []
        self.answer = "250 kept"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        """Keep a mail, unless it is to be refused."""
        if self.answer.startswith("250"):
            self.mails.append(message_from_bytes(envelope.content))
        return self.answer

    @property
    def different(self) -> dict[str, Message]:
        """Mails by their Message-ID: those with the same one are shown once."""
        return {str(mail["Message-ID"]): mail for mail in self.mails}


class _MailServer(Controller):
    """On a free port, which the controller otherwise cannot take."""

    def _trigger_server(self) -> None:
        self.port = self.server.sockets[0].getsockname()[1]
        super()._trigger_server()


@contextmanager
def channels(setting: Callable[[str, str | None], None]) -> Iterator[tuple[Services, Mailbox]]:
    """All channels, and the settings that lead to them."""
    mailbox = Mailbox()
    mail_server = _MailServer(mailbox, hostname="127.0.0.1", port=0)
    mail_server.start()
    with Services() as services:
        threading.Thread(target=services.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        for name, value in {
            "PAGERDUTY_ROUTING_KEY": ROUTING_KEY, "PAGERDUTY_URL": services.url, "SLACK_TOKEN": TOKEN, "SLACK_CHANNEL": CHANNEL,
            "SLACK_URL": f"{services.url}/api/", "SMTP_URL": f"smtp://127.0.0.1:{mail_server.port}", "EMAIL_FROM": "warehouse@startup.test",
            "EMAIL_TO": "team@startup.test,boss@startup.test", "HEARTBEAT_URL": f"{services.url}/ping",
        }.items():  # fmt: skip
            setting(f"ALERTS__{name}", value)
        try:
            yield services, mailbox
        finally:
            services.shutdown()
            mail_server.stop()
