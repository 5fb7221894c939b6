"""The spool in a bucket of a real S3 server: kept before it is acknowledged, removed when it is loaded, errors that name the setting."""

import json
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import requests
from conftest import WAREHOUSE, call
from integration.receivers import Receiver, spooled
from integration.test_stripe import World, ask, world  # noqa: F401 - the fixture of an account and its warehouse
from integration.test_webhooks import listening
from integration.test_webhooks_loaded import told
from object_store import KEY, SECRET, ObjectStore, object_store

from cli import doctor, follow
from demo.stand_ins.stripe_webhooks import Endpoint
from serving import webhooks
from warehouse import object_store as access
from warehouse import spool, spool_bucket
from warehouse.errors import StepFailed, UsageError, WarehouseError, scrub
from warehouse.settings import ROOT

SIGNING = "whsec_of_this_year"
PREFIX = "SOURCES__STRIPE__SPOOL"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    with object_store(tmp_path_factory.mktemp("store")) as running:
        yield running


@pytest.fixture
def bucket(store: ObjectStore, setting: Callable[[str, str | None], None]) -> str:
    """The name of an empty bucket, of which a part is the spool."""
    name = store.new_bucket()
    for key, value in store.settings(PREFIX, f"s3://{name}/some/where").items():
        setting(key, value)
    setting("SOURCES__STRIPE__WEBHOOK_SECRETS", SIGNING)
    return name


def keys(store: ObjectStore, bucket: str) -> list[str]:
    return [one["Key"] for one in store.client.list_objects_v2(Bucket=bucket).get("Contents", [])]


def test_what_is_acknowledged_is_in_the_bucket_and_is_loaded_and_then_removed(
    bucket: str, store: ObjectStore, world: World, setting: Callable[[str, str | None], None], home: Path  # noqa: F811 - the fixture
) -> None:  # fmt: skip
    world.load()
    world.later(hours=1)
    customer = world.account.create("customers", email="jo@example.com", name="Jo Doe")["id"]
    setting(f"{PREFIX}__URL", None)
    world.account.create("products")
    with Receiver("", [SIGNING]) as before_there_was_a_bucket:
        before_there_was_a_bucket.send(world.account.events()[-1])
    setting(f"{PREFIX}__URL", f"s3://{bucket}/some/where")
    with Receiver("", [SIGNING]) as receiver:
        for _ in range(3):
            assert receiver.send(world.account.events()[0])
        assert requests.get(f"{receiver.base}/healthz", timeout=30).status_code == 200
        assert receiver.counts()["warehouse_webhooks_undrained_bytes"] > 3 * len(json.dumps(world.account.events()[0]))
    assert all(key.startswith("some/where/stripe/") for key in keys(store, bucket))
    assert len(spooled()) == 4
    torn = spool.encode(spool.Record(world.now, b"{}")).replace(b"{}", b"[]")
    store.client.put_object(Bucket=bucket, Key="some/where/stripe/20260301T130000000000-0.spool", Body=torn)
    world.account.forget_events()
    (trigger,) = follow._buckets()
    assert (trigger.wanted(), trigger.every) == (["stripe"], 5.0)
    assert "bytes wait" in doctor._webhooks()
    world.load()
    assert ask(f"SELECT count(*) FROM raw_stripe.customers WHERE id = '{customer}'") == [(1,)]
    assert ask("SELECT count(*), count(DISTINCT id) FROM raw_stripe.events") == [(2, 2)]
    assert told() == {"drained": 2, "again": 2, "healed": 0, "torn": 0, "damaged": 1}
    assert [file.read_bytes() for file in (home / "spool" / "stripe" / "quarantine").iterdir()] == [torn]
    assert keys(store, bucket) == ["some/where/stripe/probe"]
    trigger.next_look = 0
    assert trigger.wanted() is None


def test_whoever_comes_while_an_object_is_made_shares_the_next_one_within_its_size(bucket: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on, made = threading.Semaphore(0), spool_bucket.SpoolBucket.make

    def waits(self: spool_bucket.SpoolBucket, name: str, content: bytes) -> None:
        assert go_on.acquire(timeout=60)
        made(self, name, content)

    monkeypatch.setattr(spool_bucket.SpoolBucket, "make", waits)
    monkeypatch.setattr(spool, "_FULL_BYTES", 5_000)
    writer = spool.Writer("stripe")
    first = writer.append(b"first", datetime.now(UTC))
    while writer._waiting:
        time.sleep(0.001)
    others: list[Future[None]] = [writer.append(b"x" * number, datetime.now(UTC)) for number in range(100)]
    assert not first.done()
    assert list(spool.segments("stripe")) == []
    for _ in range(20):
        go_on.release()
    for one in (first, *others):
        one.result(60)
    writer.close()
    sizes = [segment.bytes for segment in spool.segments("stripe")]
    assert 3 <= len(sizes) <= 6
    assert max(sizes) <= 5_000
    assert [len(body) for body in spooled()] == [5, *range(100)]
    assert not (home / "spool").exists()


def test_an_object_is_made_once_and_a_second_try_whose_answer_was_lost_is_no_failure(bucket: str, fails: Callable[..., WarehouseError]) -> None:
    place = spool_bucket.bucket_of("stripe")
    assert place is not None
    place.make("one.spool", b"content")
    place.make("one.spool", b"content")
    assert "PreconditionFailed" in fails(place.make, "one.spool", b"another").what
    assert place.read("one.spool") == b"content"
    place.remove("one.spool")
    place.remove("one.spool")
    with pytest.raises(FileNotFoundError):
        place.read("one.spool")


def test_a_store_that_does_not_say_that_it_verified_the_checksum_is_not_believed(
    bucket: str, monkeypatch: pytest.MonkeyPatch, fails: Callable[..., WarehouseError]
) -> None:
    place = spool_bucket.bucket_of("stripe")
    assert place is not None
    put = place._client.put_object
    monkeypatch.setattr(place._client, "put_object", lambda **given: put(**{name: value for name, value in given.items() if name != "ChecksumSHA256"}))
    assert "did not confirm the SHA-256" in fails(place.make, "one.spool", b"content").what


def test_what_cannot_be_kept_is_503_and_the_log_the_health_and_the_doctor_name_the_setting(
    bucket: str, store: ObjectStore, world: World, fails: Callable[..., WarehouseError], capfd: pytest.CaptureFixture[str]  # noqa: F811 - the fixture
) -> None:  # fmt: skip
    world.account.create("customers", name="Jo Doe", email="jo@example.com")
    event = world.account.events()[-1]
    with Receiver("", [SIGNING]) as receiver:
        assert receiver.send(event)
        for key in keys(store, bucket):
            store.client.delete_object(Bucket=bucket, Key=key)
        store.client.delete_bucket(Bucket=bucket)
        assert not receiver.send(event)
        health = requests.get(f"{receiver.base}/healthz", timeout=30)
        assert (health.status_code, f"{PREFIX}__URL: there is no bucket {bucket}" in health.json()["why"]) == (503, True)
        counts = receiver.counts()
        assert counts["warehouse_webhooks_failed_total"] == 1
        assert "warehouse_webhooks_undrained_bytes" not in counts
        lines = [json.loads(line) for line in capfd.readouterr().out.splitlines() if line.startswith("{")]
        refused = next(line for line in lines if line["status"] == 503)
        assert f"{PREFIX}__URL: there is no bucket" in refused["why"]
        assert not any(secret in str(lines) for secret in ("Jo Doe", "jo@example.com", KEY, SECRET))
        for look in (doctor._webhooks, world.load):
            error = fails(look)
            assert isinstance(error, UsageError)
            assert f"{PREFIX}__URL" in error.what
        (trigger,) = follow._buckets()
        assert trigger.wanted() is None
        assert f"{PREFIX}__URL" in capfd.readouterr().err
        assert trigger.next_look > time.monotonic()
        store.client.create_bucket(Bucket=bucket)
        assert receiver.send(event)
        assert requests.get(f"{receiver.base}/healthz", timeout=30).status_code == 200
    assert len(spooled()) == 1


def test_a_wrong_key_or_half_of_one_or_no_store_at_all_is_said_before_anything_is_promised(
    bucket: str, setting: Callable[[str, str | None], None], fails: Callable[..., WarehouseError], monkeypatch: pytest.MonkeyPatch
) -> None:
    setting(f"{PREFIX}__SECRET_ACCESS_KEY", "another secret")
    ran = call("serve", "webhooks", "--port", "0")
    assert (ran.code, ran.out) == (3, "")
    assert f"the key of {PREFIX}__ACCESS_KEY_ID is refused (SignatureDoesNotMatch)" in ran.err
    assert f"correct {PREFIX}__ACCESS_KEY_ID and {PREFIX}__SECRET_ACCESS_KEY" in ran.err
    assert not any(secret in ran.err for secret in (KEY, "another secret"))
    assert scrub(f"{KEY} another secret") == "*** ***"
    setting(f"{PREFIX}__SECRET_ACCESS_KEY", None)
    assert f"{PREFIX}__SECRET_ACCESS_KEY is not set" in fails(webhooks.serve, "127.0.0.1", 0).what
    setting(f"{PREFIX}__SECRET_ACCESS_KEY", SECRET)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(access, "_ANSWER_SECONDS", 0.2)
        setting(f"{PREFIX}__ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        error = fails(webhooks.serve, "127.0.0.1", 0)
        assert isinstance(error, StepFailed)
        assert f"the bucket of {PREFIX}__URL does not answer (ReadTimeoutError)" in error.what
        assert f"{PREFIX}__ENDPOINT_URL" in error.mend
    setting(f"{PREFIX}__URL", "https://bucket.example.com")
    assert f"{PREFIX}__URL" in fails(webhooks.serve, "127.0.0.1", 0).what


LOAD_KILLED = """
import os, signal, sys
from warehouse import spool
turns, remove = iter(range(100)), spool.remove
def dies(segment):
    if next(turns) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    remove(segment)
spool.remove = dies
sys.argv = ["warehouse", "load", "stripe"]
from cli.main import main
main()
"""


def test_what_a_killed_receiver_acknowledged_is_in_the_warehouse_once_also_when_the_load_is_killed(
    bucket: str, store: ObjectStore, world: World, setting: Callable[[str, str | None], None], tmp_path: Path  # noqa: F811 - the fixture
) -> None:  # fmt: skip
    world.at(datetime.now(UTC))
    customers = [world.account.create("customers")["id"] for _ in range(5)]
    world.load()
    events = []
    for number in range(400):
        world.account.update(customers[number % 5], metadata={"turn": str(number)})
        events.append(world.account.events()[-1])
    world.account.forget_events()  # polling cannot help
    setting("WAREHOUSE_NOW", None)
    acknowledged: list[str] = []

    def deliver(mine: list[dict[str, Any]]) -> None:
        endpoint = Endpoint(url, [SIGNING], now=lambda: datetime.now(UTC), timeout=30)
        acknowledged.extend(event["id"] for event in mine if endpoint.send(event))

    with (out := tmp_path / "receiver").open("w") as log:
        process = subprocess.Popen([WAREHOUSE, "serve", "webhooks", "--port", "0"], cwd=ROOT, stdout=log, stderr=log)
        url = listening(out, process)
        senders = [threading.Thread(target=deliver, args=(events[number::4],)) for number in range(4)]
        for sender in senders:
            sender.start()
        while len(acknowledged) < 100 and any(sender.is_alive() for sender in senders):
            time.sleep(0.002)
        process.kill()
        process.wait()
        for sender in senders:
            sender.join()
    assert 100 <= len(acknowledged) < 400, "killed while it was busy"
    killed = call(script=LOAD_KILLED)
    assert killed.code == -signal.SIGKILL, killed.err
    assert len(spooled()) > 0
    world.load()
    held = [key for (key,) in ask("SELECT id FROM raw_stripe.events")]
    assert set(acknowledged) - set(held) == set()
    assert len(held) == len(set(held))
    assert spooled() == []
