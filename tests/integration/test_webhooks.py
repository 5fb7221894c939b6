"""Receiving webhooks: only what Stripe signed is spooled, and nothing is acknowledged that is not."""

import http.client
import json
import os
import re
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import requests
from conftest import WAREHOUSE, call
from integration.receivers import Receiver, spooled

from demo.stand_ins.stripe_webhooks import Endpoint, body_of, signature
from serving import webhooks
from warehouse import spool
from warehouse.errors import StepFailed, WarehouseError
from warehouse.settings import ROOT

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
OLD, NEW = "whsec_of_last_year", "whsec_of_this_year"
EVENT: dict[str, Any] = {
    "id": "evt_1", "object": "event", "created": int(NOW.timestamp()), "type": "customer.created", "livemode": True, "api_version": "2025-06-30.basil",
    "data": {"object": {"id": "cus_1", "object": "customer", "name": "Jo Doe", "email": "jo@example.com"}},
}  # fmt: skip


@pytest.fixture
def receiver(home: Path, setting: Callable[[str, str | None], None]) -> Iterator[Receiver]:
    setting("WAREHOUSE_NOW", NOW.isoformat())
    with Receiver("", [OLD, NEW]) as running:
        yield running


# What is accepted.


@pytest.mark.parametrize("secrets", [[OLD], [NEW], [OLD, NEW], ["whsec_unknown", NEW]], ids=lambda given: "+".join(given))
def test_each_of_the_secrets_is_valid_while_they_are_rotated(receiver: Receiver, secrets: list[str]) -> None:
    body = body_of(EVENT)
    assert receiver.post(body, signature(body, secrets, NOW)) == 200
    assert spooled() == [body]


@pytest.mark.parametrize("seconds", [-300, -299, 0, 299, 300])
def test_five_minutes_of_age_or_of_a_fast_clock_are_tolerated(receiver: Receiver, seconds: int) -> None:
    body = body_of(EVENT)
    assert receiver.post(body, signature(body, [NEW], NOW + timedelta(seconds=seconds))) == 200
    assert spooled() == [body]


def _forgeries() -> dict[str, tuple[bytes, str | None]]:
    body = body_of(EVENT)
    right = signature(body, [NEW], NOW)
    stamp, _, signed = right.partition(",")
    return {
        "no_signature": (body, None),
        "no_signature: empty": (body, ""),
        "no_signature: endless": (body, right + ",v1=" + "0" * 5000),
        "wrong_signature: tampered": (body.replace(b"Jo Doe", b"Jo Roe"), right),
        "wrong_signature: tampered by a blank": (body + b" ", right),
        "wrong_signature: secret": (body, signature(body, ["whsec_of_another"], NOW)),
        "wrong_signature: v0 only": (body, signature(body, [NEW], NOW, scheme="v0")),
        "wrong_signature: no time": (body, signed),
        "wrong_signature: another time": (body, f"t={int(NOW.timestamp()) + 1},{signed}"),
        "wrong_signature: a second time": (body, f"t=1,{stamp},{signed}"),
        "wrong_signature: no number": (body, f"t=now,{signed}"),
        "wrong_signature: nonsense": (body, "signed"),
        "wrong_signature: no ASCII": (body, f"{stamp},v1=\xe4"),
        "wrong_signature: no text": (b"\xff\xfe", right),
        "too_old": (body, signature(body, [NEW], NOW - timedelta(seconds=301))),
        "from_the_future": (body, signature(body, [NEW], NOW + timedelta(seconds=301))),
        "not_an_event: no JSON": (b"hello", signature(b"hello", [NEW], NOW)),
        "not_an_event: a list": (b"[]", signature(b"[]", [NEW], NOW)),
        "not_an_event: thin": (thin := b'{"object": "v2.core.event", "id": "evt_1"}', signature(thin, [NEW], NOW)),
    }


@pytest.mark.parametrize("case", _forgeries())
def test_what_is_not_signed_now_by_a_secret_is_refused_and_nothing_of_it_is_spooled(receiver: Receiver, case: str) -> None:
    body, header = _forgeries()[case]
    assert receiver.post(body, header) == 400
    assert spooled() == []
    assert list(spool.segments("stripe")) == []
    assert receiver.counts()[f'warehouse_webhooks_refused_total{{reason="{case.partition(":")[0]}"}}'] == 1


def test_a_body_that_is_too_large_is_refused_whether_it_says_so_or_not(receiver: Receiver) -> None:
    assert receiver.post(bytes(webhooks.MOST_BYTES + 1), "t=1,v1=0") == 413
    connection = http.client.HTTPConnection(receiver.base.removeprefix("http://"), timeout=10)
    connection.request("POST", webhooks.PATH, iter([bytes(600_000)] * 2), {"Stripe-Signature": "t=1,v1=0"}, encode_chunked=True)
    assert connection.getresponse().status == 413
    connection.close()
    body = body_of(EVENT | {"padding": "x" * (webhooks.MOST_BYTES - 2000)})
    assert receiver.post(body, signature(body, [NEW], NOW)) == 200
    assert spooled() == [body]


def test_a_body_that_does_not_arrive_is_given_up(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks, "_PATIENCE", 0.2)
    address = receiver.base.removeprefix("http://").split(":")
    with socket.create_connection((address[0], int(address[1])), timeout=5) as slow:
        slow.sendall(b"POST /stripe HTTP/1.1\r\nHost: here\r\nContent-Length: 100\r\n\r\n{")
        assert slow.recv(1000).startswith(b"HTTP/1.1 408")
    assert spooled() == []


def test_other_paths_and_methods_are_not_served(receiver: Receiver) -> None:
    assert requests.get(receiver.url, timeout=5).status_code == 405
    assert requests.post(f"{receiver.base}/", timeout=5).status_code == 404


def test_health_and_metrics_say_how_it_is(receiver: Receiver, setting: Callable[[str, str | None], None]) -> None:
    assert requests.get(f"{receiver.base}/healthz", timeout=5).json() == {"status": "ok"}
    assert receiver.counts()["warehouse_webhooks_undrained_oldest_seconds"] == 0
    body = body_of(EVENT)
    receiver.post(body, signature(body, [NEW], NOW))
    receiver.post(body, None)
    setting("WAREHOUSE_NOW", (NOW + timedelta(seconds=90)).isoformat())
    counts = receiver.counts()
    assert counts["warehouse_webhooks_accepted_total"] == 1
    assert counts["warehouse_webhooks_failed_total"] == 0
    assert counts["warehouse_webhooks_undrained_oldest_seconds"] == 90
    assert counts["warehouse_webhooks_spooled_bytes_total"] == counts["warehouse_webhooks_undrained_bytes"] > len(body)
    assert counts["warehouse_webhooks_flush_seconds_count"] == counts['warehouse_webhooks_flush_seconds_bucket{le="+Inf"}'] == 1
    assert counts["warehouse_webhooks_damaged_segments"] == 0


def test_a_spool_that_fails_is_503_and_unhealthy_and_well_again_by_itself(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(spool, "_flush", full)
        assert not receiver.send(EVENT)
        answer = requests.get(f"{receiver.base}/healthz", timeout=5)
        assert answer.status_code == 503
        assert "No space left" in answer.json()["why"]
    assert spooled() == []
    assert receiver.counts()["warehouse_webhooks_failed_total"] == 1
    assert receiver.send(EVENT)
    assert spooled() == [body_of(EVENT)]
    assert requests.get(f"{receiver.base}/healthz", timeout=5).status_code == 200


@pytest.fixture
def small_disk(home: Path) -> Iterator[Path]:
    """The spool on a file system of its own, of 200 kB."""
    folder = home / "spool"
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size=200k,uid={os.getuid()},mode=0755", "tmpfs", str(folder)]
    try:
        privileged = next((sudo for sudo in ([], ["sudo", "-n"]) if subprocess.run([*sudo, *mount], capture_output=True, check=False).returncode == 0), None)
    except OSError:
        privileged = None
    if privileged is None:
        pytest.skip("needs the right to mount a tmpfs")
    yield folder
    subprocess.run([*privileged, "umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_is_503_and_nothing_is_half_written(small_disk: Path, receiver: Receiver) -> None:
    (balloon := small_disk / "balloon").write_bytes(bytes(50_000))
    events = [EVENT | {"id": f"evt_{number}", "padding": "x" * 20_000} for number in range(20)]
    answers = [receiver.send(event) for event in events]
    assert 3 < sum(answers) < 12
    assert not answers[-1]
    accepted = [event["id"] for event, is_taken in zip(events, answers, strict=True) if is_taken]
    assert sorted(json.loads(body)["id"] for body in spooled()) == sorted(accepted)
    assert not any(spool.read(segment).damaged or spool.read(segment).is_torn for segment in spool.segments("stripe"))
    _fill(small_disk / "rest")
    assert not receiver.send(EVENT)
    assert requests.get(f"{receiver.base}/healthz", timeout=5).status_code == 503
    assert receiver.counts()["warehouse_webhooks_failed_total"] == 21 - len(accepted)
    balloon.unlink()
    assert receiver.send(EVENT)
    assert requests.get(f"{receiver.base}/healthz", timeout=5).status_code == 200
    assert sorted(json.loads(body)["id"] for body in spooled()) == sorted([*accepted, EVENT["id"]])


def _fill(file: Path) -> None:
    with file.open("wb", buffering=0) as balloon:
        for size in (4096, 1):
            try:
                while True:
                    balloon.write(bytes(size))
            except OSError:
                pass


# The process.


def test_it_listens_logs_without_bodies_and_ends_gracefully(setting: Callable[[str, str | None], None], home: Path, tmp_path: Path) -> None:
    setting("SOURCES__STRIPE__WEBHOOK_SECRETS", f"{OLD}, {NEW}")
    out = tmp_path / "out"
    with out.open("w") as stdout:
        process = subprocess.Popen([WAREHOUSE, "serve", "webhooks", "--port", "0"], cwd=ROOT, stdout=stdout, stderr=stdout)
        try:
            url = listening(out, process)
            endpoint = Endpoint(url, [NEW], now=lambda: datetime.now(UTC))
            assert endpoint.send(EVENT)
            assert endpoint.post(body_of(EVENT), "t=1,v1=0") == 400
        finally:
            process.terminate()
            assert process.wait(20) == 0
    first, taken, refused, last = out.read_text().splitlines()
    assert "ended" in last
    assert str(home / "spool" / "stripe") in first
    assert {"status": 200, "said": "received", "event": "evt_1", "type": "customer.created"}.items() <= json.loads(taken).items()
    assert {"status": 400, "said": "wrong_signature", "event": None}.items() <= json.loads(refused).items()
    assert "Jo Doe" not in taken + refused
    assert spooled() == [body_of(EVENT)]
    assert all(segment.is_sealed for segment in spool.segments("stripe"))


def listening(out: Path, process: "subprocess.Popen[bytes]") -> str:
    """The address a receiver says it listens on."""
    deadline = datetime.now(UTC) + timedelta(seconds=30)
    while not (found := re.search(r"http://\S+/stripe", out.read_text())):
        assert process.poll() is None, out.read_text()
        assert datetime.now(UTC) < deadline
        threading.Event().wait(0.02)
    return found[0]


def test_without_a_secret_or_a_free_port_it_does_not_begin(setting: Callable[[str, str | None], None], fails: Callable[..., WarehouseError]) -> None:
    ran = call("serve", "webhooks")
    assert ran.code == 2
    assert "SOURCES__STRIPE__WEBHOOK_SECRETS is not set" in ran.err
    setting("SOURCES__STRIPE__WEBHOOK_SECRETS", NEW)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        error = fails(webhooks.serve, "127.0.0.1", taken.getsockname()[1])
    assert isinstance(error, StepFailed)
    assert "--port" in error.mend


LIGHT = """
import asyncio, sys
from cli.serve import serve
from serving import webhooks
async def main():
    app = webhooks.application(["whsec"])
    async with app.router.lifespan_context(app):
        sent = []
        async def receive(): return {"type": "http.request", "body": b"{}"}
        async def send(message): sent.append(message)
        scope = {"type": "http", "method": "POST", "path": "/stripe", "headers": [(b"stripe-signature", b"t=1,v1=0")], "query_string": b"", "root_path": ""}
        await app(scope, receive, send)
        assert sent[0]["status"] == 400, sent
asyncio.run(main())
sys.exit(" ".join({"duckdb", "dlt", "sqlmesh", "pyarrow", "pandas", "warehouse.storage", "warehouse.ledger"} & set(sys.modules)) or 0)
"""


def test_the_receiver_never_opens_the_warehouse_nor_can_it(home: Path) -> None:
    ran = call(script=LIGHT)
    assert (ran.code, ran.err) == (0, "")
    assert not (home / "warehouse.duckdb").exists()
