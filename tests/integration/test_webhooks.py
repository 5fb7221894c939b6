"""Webhooks: only what Stripe signed is spooled, nothing acknowledged is lost or doubled, what was missed is healed and counted."""

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
from integration.test_stripe import NOW, World, ask, world  # noqa: F401 - the fixture of an account and its warehouse

from demo.stand_ins.stripe import Fault
from demo.stand_ins.stripe_webhooks import Endpoint, body_of, signature
from pipelines import load
from serving import webhooks
from warehouse import ledger, spool
from warehouse.errors import StepFailed, WarehouseError
from warehouse.settings import ROOT

OLD, NEW = "whsec_of_last_year", "whsec_of_this_year"
EVENT: dict[str, Any] = {
    "id": "evt_1", "object": "event", "created": int(NOW.timestamp()), "type": "customer.created", "livemode": True, "api_version": "2025-06-30.basil",
    "data": {"object": {"id": "cus_1", "object": "customer", "name": "Jo Doe", "email": "jo@example.com"}},
}  # fmt: skip


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


@pytest.fixture
def receiver(home: Path, setting: Callable[[str, str | None], None]) -> Iterator[Receiver]:
    setting("WAREHOUSE_NOW", NOW.isoformat())
    with Receiver("", [OLD, NEW]) as running:
        yield running


def spooled() -> list[bytes]:
    return [record.body for segment in spool.segments("stripe") for record in spool.read(segment).records]


def told() -> dict[str, int]:
    """What the ledger keeps of the last load's webhooks."""
    (run,) = ledger.recent_runs(1)
    found: dict[str, int] = json.loads(run["steps"][-1]["detail"])["webhooks"]
    return found


def drained_home() -> None:
    """Nothing is left in the spool."""
    assert list(spool.segments("stripe")) == []


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
    events = [EVENT | {"id": f"evt_{number}", "padding": "x" * 20_000} for number in range(20)]
    answers = [receiver.send(event) for event in events]
    assert 3 < sum(answers) < 12
    assert not answers[-1]
    accepted = [event["id"] for event, is_taken in zip(events, answers, strict=True) if is_taken]
    assert [json.loads(body)["id"] for body in spooled()] == accepted
    assert not any(spool.read(segment).damaged or spool.read(segment).is_torn for segment in spool.segments("stripe"))
    assert requests.get(f"{receiver.base}/healthz", timeout=5).status_code == 200 or not receiver.send(events[-1])
    for segment in spool.segments("stripe"):
        spool.remove(segment)
    assert receiver.send(events[-1])


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


# The load.


@pytest.fixture
def hearing(world: World) -> Iterator[tuple[World, Receiver]]:  # noqa: F811 - the imported fixture
    """An account whose events a receiver hears of, and a warehouse that has loaded it once."""
    world.account.create("products")
    world.load()
    world.later(hours=1)
    with Receiver("", [NEW]) as receiver:
        yield world, receiver


def close(receiver: Receiver) -> None:
    """Let the receiver complete its files, as it does after a second by itself."""
    receiver.__exit__()


def test_a_webhook_that_comes_five_times_is_one_row(hearing: tuple[World, Receiver]) -> None:
    world, receiver = hearing  # noqa: F811 - the account, not the fixture
    customer = world.account.create("customers", name="A")["id"]
    for _ in range(5):
        assert receiver.send(world.account.events()[-1])
    close(receiver)
    world.load()
    assert ask("SELECT count(*) FROM raw_stripe.events WHERE type = 'customer.created'") == [(1,)]
    assert ask("SELECT count(*) FROM raw_stripe.customers") == [(1,)]
    assert world.account.requests_of(f"/v1/customers/{customer}") == 1
    assert told() == {"drained": 1, "again": 4, "healed": 0, "torn": 0, "damaged": 0}
    drained_home()


def test_what_comes_again_after_it_was_loaded_is_known(hearing: tuple[World, Receiver]) -> None:
    world, receiver = hearing  # noqa: F811 - the account, not the fixture
    world.account.create("customers")
    event = world.account.events()[-1]
    world.load()
    world.later(minutes=10)
    receiver.send(event)
    close(receiver)
    loaded = world.load()
    assert sum(one.rows_written for one in loaded.values()) == 0
    assert (told()["drained"], told()["again"]) == (0, 1)
    drained_home()


def test_many_webhooks_about_one_object_are_one_request_and_the_newest_state_wins(hearing: tuple[World, Receiver]) -> None:
    world, receiver = hearing  # noqa: F811 - the account, not the fixture
    invoice = world.account.create("invoices", status="draft")["id"]
    for status in ("open", "paid"):
        world.account.update(invoice, status=status)
    for event in reversed(world.account.events()[1:]):
        receiver.send(event)
    close(receiver)
    world.load()
    assert ask("SELECT status FROM raw_stripe.invoices") == [("paid",)]
    assert world.account.requests_of(f"/v1/invoices/{invoice}") == 1
    assert ask("SELECT count(*) FROM raw_stripe.events") == [(4,)]


def test_what_the_feed_does_not_show_is_loaded_from_the_spool_alone(hearing: tuple[World, Receiver]) -> None:
    world, receiver = hearing  # noqa: F811 - the account, not the fixture
    kept, gone = world.account.create("customers", email="jo@example.com")["id"], world.account.create("customers")["id"]
    world.account.delete(gone)
    receiver.deliver(world.account.events()[1:])
    world.account.forget_events()
    close(receiver)
    world.load()
    assert ask("SELECT id, is_deleted FROM raw_stripe.customers ORDER BY id") == [(kept, False), (gone, True)]
    assert ask("SELECT count(*), count(*) FILTER (_object LIKE '%jo@example%') FROM raw_stripe.events") == [(4, 0)]
    drained_home()


def test_a_receiver_that_was_down_for_an_hour_is_healed_and_counted(hearing: tuple[World, Receiver], home: Path) -> None:
    world, receiver = hearing  # noqa: F811 - the account, not the fixture
    world.account.create("customers")
    receiver.send(world.account.events()[-1])
    close(receiver)
    for _ in range(7):
        world.account.create("customers")
    world.later(hours=1)
    with Receiver("", [NEW]) as again:
        world.account.create("customers")
        again.send(world.account.events()[-1])
        world.account.create("customers")  # its webhook is still on the way
    ran = call("load", "stripe")
    assert ran.code == 0, ran.err
    assert (told()["drained"], told()["healed"]) == (2, 7)
    assert "# webhooks\tsource\tdrained\tagain\thealed\ttorn\tdamaged\nstripe\t2\t0\t7\t0\t0\n" in ran.out
    assert ask("SELECT count(*) FROM raw_stripe.customers") == [(10,)]


def test_what_is_being_written_is_loaded_and_left_to_its_writer(hearing: tuple[World, Receiver], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "_SEAL_AFTER", 3600.0)
    world, receiver = hearing  # noqa: F811 - the account, not the fixture
    world.account.create("customers")
    receiver.send(world.account.events()[-1])
    world.account.forget_events()
    world.load()
    assert ask("SELECT count(*) FROM raw_stripe.customers") == [(1,)]
    assert len(spooled()) == 1
    close(receiver)
    world.load()
    assert (told()["drained"], told()["again"]) == (0, 1)
    drained_home()


def test_the_spool_is_kept_until_its_events_are_in_the_warehouse(
    hearing: tuple[World, Receiver], monkeypatch: pytest.MonkeyPatch, fails: Callable[..., WarehouseError]
) -> None:
    world, receiver = hearing  # noqa: F811 - the account, not the fixture
    world.account.create("customers")
    receiver.send(world.account.events()[-1])
    close(receiver)
    finish, calls = load._finish, iter(range(10))

    def second_fails(*given: Any) -> list[str]:
        if next(calls) == 1:  # objects first, then their events
            raise StepFailed("told to fail", mend="")
        return finish(*given)

    with monkeypatch.context() as patch:
        patch.setattr(load, "_finish", second_fails)
        assert fails(world.load).what == "told to fail"
    assert len(spooled()) == 1
    world.load()
    assert ask("SELECT count(*) FROM raw_stripe.customers") == [(1,)]
    assert ask("SELECT count(*), count(DISTINCT id) FROM raw_stripe.events") == [(2, 2)]
    drained_home()


def test_what_webhooks_brought_does_not_hide_what_they_missed(hearing: tuple[World, Receiver], fails: Callable[..., WarehouseError]) -> None:
    world, receiver = hearing  # noqa: F811 - the account, not the fixture
    missed = world.account.create("products", name="Missed")["id"]
    world.later(hours=3)
    world.account.create("customers")
    receiver.send(world.account.events()[-1])
    close(receiver)
    world.account.faults = [Fault("/v1/events", status=404)]
    fails(world.load)  # dies between the spool and the poll
    assert ask("SELECT count(*) FROM raw_stripe.customers") == [(1,)]
    drained_home()
    world.later(minutes=5)
    world.load()
    assert ask(f"SELECT count(*) FROM raw_stripe.products WHERE id = '{missed}'") == [(1,)]
    assert told()["healed"] == 1


def test_where_webhooks_bring_everything_polling_still_moves_on(hearing: tuple[World, Receiver]) -> None:
    world, receiver = hearing  # noqa: F811 - the account, not the fixture
    for _ in range(3):
        world.later(hours=2)
        world.account.create("customers")
        receiver.send(world.account.events()[-1])
        world.account.asked.clear()
        world.load()
    oldest = min(int(asked.query["created[gte]"]) for asked in world.account.asked if asked.path == "/v1/events")
    assert world.now - datetime.fromtimestamp(oldest, UTC) <= timedelta(hours=3)
    assert ask("SELECT count(*) FROM raw_stripe.events") == [(4,)]


def test_events_that_waited_for_the_first_load_are_in_it(world: World) -> None:  # noqa: F811 - the imported fixture
    with Receiver("", [NEW]) as receiver:
        world.account.create("customers")
        receiver.deliver(world.account.events())
    world.account.forget_events()
    world.load()
    assert ask("SELECT count(*) FROM raw_stripe.events") == [(1,)]
    drained_home()
    assert told()["healed"] == 0


def test_a_torn_last_line_costs_nothing_and_a_damaged_one_is_put_aside_and_healed(hearing: tuple[World, Receiver]) -> None:
    world, receiver = hearing  # noqa: F811 - the account, not the fixture
    for _ in range(3):
        world.account.create("customers")
    receiver.deliver(world.account.events()[1:])
    close(receiver)
    (segment,) = spool.segments("stripe")
    lines = segment.path.read_bytes().split(b"\n")
    lines[1] = lines[1][:40] + b"X" + lines[1][41:]
    segment.path.write_bytes(b"\n".join(lines) + lines[0][:50])
    world.later(minutes=5)
    world.load()
    assert told() == {"drained": 2, "again": 0, "healed": 1, "torn": 1, "damaged": 1}
    assert ask("SELECT count(*) FROM raw_stripe.customers") == [(3,)]
    assert [file.read_bytes() for file in (spool.folder("stripe") / "quarantine").iterdir()] == [lines[1] + b"\n"]
    drained_home()


def test_a_source_without_webhooks_tells_nothing_of_them(world: World) -> None:  # noqa: F811 - the imported fixture
    world.account.create("customers")
    world.load()
    (run,) = ledger.recent_runs(1)
    assert "webhooks" not in json.loads(run["steps"][-1]["detail"])
