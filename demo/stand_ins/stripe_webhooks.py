"""How Stripe delivers events to a webhook endpoint: signed, one POST each, tried again until the answer is 2xx."""

import hashlib
import hmac
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from http.client import HTTPConnection, HTTPException
from typing import Any
from urllib.parse import urlsplit

from warehouse import clock

_HEADER = "Stripe-Signature"


def signature(body: bytes, secrets: Sequence[str], at: datetime, scheme: str = "v1") -> str:
    """The header of a body as each secret signs it; while an endpoint's secret is rotated Stripe signs with both."""
    stamp = str(int(at.timestamp()))
    signed = [hmac.new(secret.encode(), stamp.encode() + b"." + body, hashlib.sha256).hexdigest() for secret in secrets]
    return ",".join([f"t={stamp}", *(f"{scheme}={one}" for one in signed)])


def body_of(event: dict[str, Any]) -> bytes:
    """An event as it is sent: JSON over many lines."""
    return json.dumps(event | {"pending_webhooks": 1}, indent=2, ensure_ascii=False).encode()


@dataclass
class Endpoint:
    """Where an account's events are sent to.

    Attributes:
        url: the receiver's.
        secrets: with which deliveries are signed.
        now: the account's clock.
        timeout: seconds to wait for an answer.
    """

    url: str
    secrets: Sequence[str]
    now: Callable[[], datetime] = clock.now
    timeout: float = 20.0

    def post(self, body: bytes, header: str | None) -> int:
        """Send a body with a signature as given; the status of the answer, 0 when there was none."""
        address = urlsplit(self.url)
        connection = HTTPConnection(address.hostname or "", address.port, timeout=self.timeout)
        headers = {"Content-Type": "application/json; charset=utf-8"} | ({_HEADER: header} if header is not None else {})
        try:
            connection.request("POST", address.path, body, headers)
            answer = connection.getresponse()
            answer.read()
            return answer.status
        except (OSError, HTTPException):
            return 0
        finally:
            connection.close()

    def send(self, event: dict[str, Any]) -> bool:
        """Deliver one event once; whether it was acknowledged."""
        body = body_of(event)
        return 200 <= self.post(body, signature(body, self.secrets, self.now())) < 300

    def deliver(self, events: Sequence[dict[str, Any]], tries: int = 3, wait: float = 0.05) -> list[str]:
        """Deliver events, each again after a growing wait until it is acknowledged; returns the ids that were.

        Args:
            tries: how often at the most; Stripe goes on for three days.
            wait: seconds before the second try.
        """
        left = list(events)
        acknowledged = []
        for turn in range(tries):
            if turn:
                time.sleep(wait * 2 ** (turn - 1))
            again = []
            for event in left:
                if self.send(event):
                    acknowledged.append(event["id"])
                else:
                    again.append(event)
            left = again
            if not left:
                break
        return acknowledged
