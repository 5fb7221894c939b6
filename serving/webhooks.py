"""The receiver of webhooks: checks the signature, spools the body, then answers 200. It never opens the warehouse.

A body that is not signed by one of the secrets, or not within five minutes of now, is refused and nothing of it is kept; one
that cannot be made durable is answered 503, so that the sender tries again. `warehouse load` reads the spool.
"""

import asyncio
import json
import os
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from warehouse import clock, spool
from warehouse.console import say
from warehouse.errors import StepFailed, WarehouseError
from warehouse.settings import settings

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from uvicorn import Server

PATH = "/stripe"
SOURCE = "stripe"
MOST_BYTES = 1 << 20
TOLERANCE = timedelta(seconds=300)
_LONGEST_HEADER = 4096
_PATIENCE = 10.0
"""Seconds for a body to arrive, and for the disk or the bucket to take it."""
_MOST_AT_ONCE = 256
"""So many bodies of the largest size fit into the memory that deploy/systemd allows."""
_STDOUT = 1
_Family = tuple[str, str, str, list[tuple[str, float]]]
_STATUS = {"too_large": 413, "too_slow": 408}


class Refused(Exception):
    """A request that is not a genuine event; the reason is a word for people and for counting."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    @property
    def status(self) -> int:
        """The HTTP status of the answer."""
        return _STATUS.get(self.reason, 400)


@dataclass
class _Counts:
    accepted: int = 0
    failed: int = 0
    refused: Counter[str] = field(default_factory=Counter)


def verified(body: bytes, header: str | None, secrets: Sequence[str]) -> dict[str, Any]:
    """The event of a body that one of the secrets signed, not longer ago (nor later) than the tolerance.

    Raises:
        Refused: no_signature, wrong_signature, too_old, from_the_future or not_an_event.
    """
    if not header or len(header) > _LONGEST_HEADER:
        raise Refused("no_signature")
    if not any(_signed(body, header, secret) for secret in secrets):
        raise Refused("wrong_signature")
    stamped = next(part.split("=")[1] for part in header.split(",") if part.startswith("t="))
    age = clock.now() - datetime.fromtimestamp(int(stamped), UTC)
    if age > TOLERANCE:
        raise Refused("too_old")
    if age < -TOLERANCE:
        raise Refused("from_the_future")
    try:
        event = json.loads(body)
    except ValueError:
        raise Refused("not_an_event") from None
    if not isinstance(event, dict) or event.get("object") != "event" or not isinstance(event.get("id"), str) or not _has_object(event):
        raise Refused("not_an_event")
    return event


def _has_object(event: dict[str, Any]) -> bool:
    data = event.get("data")
    return isinstance(data, dict) and isinstance(data.get("object"), dict)


def _signed(body: bytes, header: str, secret: str) -> bool:
    import stripe

    try:
        # Without a tolerance: the library knows only another clock, and would let the future pass.
        return bool(stripe.WebhookSignature.verify_header(body, header, secret, tolerance=None))
    except (stripe.SignatureVerificationError, ValueError, TypeError):  # also bytes that are no text, in either
        return False


def application(secrets: Sequence[str]) -> "Starlette":
    """The receiver as an ASGI application: POST /stripe, GET /healthz, GET /metrics.

    Args:
        secrets: the signing secrets of the endpoints, each of them valid.
    """
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse, PlainTextResponse
    from starlette.routing import Route

    counts = _Counts()
    writers: list[spool.Writer] = []

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        writers.append(spool.Writer(SOURCE))
        try:
            yield
        finally:
            await asyncio.to_thread(writers[0].close)

    async def receive(request: "Request") -> "Response":
        began = time.perf_counter()
        body, event, why = b"", {}, ""
        try:
            body = await _body(request)
            event = verified(body, request.headers.get("stripe-signature"), secrets)
            async with asyncio.timeout(_PATIENCE):
                await asyncio.wrap_future(writers[0].append(body, clock.now()))
            counts.accepted += 1
            status, said = 200, "received"
        except Refused as refused:
            counts.refused[refused.reason] += 1
            status, said = refused.status, refused.reason
        except (spool.SpoolFailed, TimeoutError) as error:
            counts.failed += 1
            status, said = 503, "not_spooled"
            why = error.what if isinstance(error, spool.SpoolFailed) else f"not kept within {_PATIENCE:.0f} s"
        _log(status, said, len(body), time.perf_counter() - began, event, why)
        return JSONResponse({"said": said}, status, {"Connection": "close"} if status in _STATUS.values() else None)

    async def healthz(_: "Request") -> "Response":
        try:
            await asyncio.to_thread(writers[0].check)
        except spool.SpoolFailed as error:
            return JSONResponse({"status": "failing", "why": error.what}, 503)
        return JSONResponse({"status": "ok"})

    async def metrics(_: "Request") -> "Response":
        text = await asyncio.to_thread(_metrics, counts, writers[0].tally)
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4")

    routes = [Route(PATH, receive, methods=["POST"]), Route("/healthz", healthz), Route("/metrics", metrics)]
    return Starlette(routes=routes, lifespan=lifespan)


async def _body(request: "Request") -> bytes:
    from starlette.requests import ClientDisconnect

    if int(request.headers.get("content-length", "0")) > MOST_BYTES:  # the server has refused what is not a number
        raise Refused("too_large")
    body = bytearray()
    try:
        async with asyncio.timeout(_PATIENCE):
            async for part in request.stream():
                body += part
                if len(body) > MOST_BYTES:
                    raise Refused("too_large")
    except TimeoutError:
        raise Refused("too_slow") from None
    except ClientDisconnect:
        raise Refused("cut_off") from None
    return bytes(body)


def _log(status: int, said: str, size: int, seconds: float, event: dict[str, Any], why: str) -> None:
    """One line a request: never the body, and of the event only its name and kind."""
    line = {"at": clock.now().isoformat(timespec="milliseconds"), "path": PATH, "status": status, "said": said, "bytes": size}
    line |= {"ms": round(seconds * 1000, 2), "event": event.get("id"), "type": event.get("type")} | ({"why": why} if why else {})
    with suppress(OSError):  # whoever reads the log may have gone, or its disk may be full; events are taken all the same
        os.write(_STDOUT, json.dumps(line).encode() + b"\n")


def _metrics(counts: _Counts, tally: spool.Tally) -> str:
    """The counts as Prometheus reads them."""
    try:
        waiting = list(spool.segments(SOURCE))
    except WarehouseError:
        undrained: list[_Family] = []  # /healthz says why; what was counted is told all the same
    else:
        oldest = (clock.now() - min(one.began_at for one in waiting)).total_seconds() if waiting else 0.0
        undrained = [
            ("webhooks_undrained_bytes", "gauge", "Bytes in the spool that no load has removed yet.", [("", sum(one.bytes for one in waiting))]),
            ("webhooks_undrained_oldest_seconds", "gauge", "Age of the oldest event that no load has removed yet.", [("", round(max(oldest, 0.0), 3))]),
        ]
    flushes: list[tuple[str, float]] = []
    so_far = 0
    for bound, number in zip([*spool.FLUSH_BOUNDS, "+Inf"], tally.flushes, strict=True):
        so_far += number
        flushes.append((f'_bucket{{le="{bound}"}}', so_far))
    flushes += [("_sum", round(tally.flush_seconds, 6)), ("_count", so_far)]
    families: list[_Family] = [
        ("webhooks_accepted_total", "counter", "Events that were spooled and answered 200.", [("", counts.accepted)]),
        ("webhooks_refused_total", "counter", "Requests that were not genuine events.",
         [(f'{{reason="{reason}"}}', number) for reason, number in sorted(counts.refused.items())]),
        ("webhooks_failed_total", "counter", "Genuine events that could not be spooled and were answered 503.", [("", counts.failed)]),
        ("webhooks_spooled_bytes_total", "counter", "Bytes written to the spool.", [("", tally.bytes)]),
        ("webhooks_flush_seconds", "histogram", "Time to write and flush what came together.", flushes),
        *undrained,
        ("webhooks_damaged_segments", "gauge", "Segments with damaged lines, put aside for a person.", [("", spool.put_aside_files(SOURCE))]),
    ]  # fmt: skip
    lines = []
    for name, kind, meaning, values in families:
        lines += [f"# HELP warehouse_{name} {meaning}", f"# TYPE warehouse_{name} {kind}"]
        lines += [f"warehouse_{name}{suffix} {value}" for suffix, value in values]
    return "\n".join(lines) + "\n"


def server(secrets: Sequence[str]) -> "Server":
    """The receiver, ready to run on sockets.

    Args:
        secrets: as of `application`.
    """
    import uvicorn

    config = uvicorn.Config(
        application(secrets), loop="asyncio", http="httptools", ws="none", lifespan="on", log_config=None, access_log=False, server_header=False,
        proxy_headers=False, limit_concurrency=_MOST_AT_ONCE, timeout_keep_alive=75, timeout_graceful_shutdown=int(_PATIENCE),
    )  # fmt: skip
    return uvicorn.Server(config)


def _try_spool() -> None:
    writer = spool.Writer(SOURCE)
    try:
        writer.check()
    finally:
        writer.close()


def serve(host: str, port: int) -> None:
    """Receive until SIGTERM or SIGINT, then answer what has arrived, and end.

    Args:
        host: the address to listen on.
        port: its port; 0 takes a free one.

    Raises:
        UsageError: no secret is set. StepFailed: the port is taken, or nothing can be kept.
    """
    receiver = server(settings().stripe_webhook_secrets())
    _try_spool()  # says what is wrong with the folder or the bucket before anything is promised
    try:
        listening = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=2048)
    except OSError as error:
        raise StepFailed(f"cannot listen on {host}, port {port}: {error.strerror}.", mend="choose another --host or --port") from None
    signal.signal(signal.SIGTERM, lambda *_: None)  # uvicorn raises the signal again when all is answered: an end, not a death
    shown = f"[{host}]" if ":" in host else host
    say(f"receiving webhooks on http://{shown}:{listening.getsockname()[1]}{PATH}; spool: {spool.place(SOURCE)}")
    sys.stdout.flush()
    receiver.run(sockets=[listening])
    say("ended; nothing that was acknowledged is lost")
