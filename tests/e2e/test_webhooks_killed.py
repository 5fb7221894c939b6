"""Kill the receiver under load and the load that drains: every acknowledged event is in the warehouse afterwards, none twice."""

import asyncio
import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

import pytest
from bench_webhooks import send
from conftest import WAREHOUSE, ask, call

from demo.stand_ins.stripe import StripeStandIn
from demo.stand_ins.stripe_webhooks import Endpoint, body_of
from warehouse import spool
from warehouse.settings import ROOT

SECRET = "whsec_of_the_tests"  # signs nothing but what these tests send
TRIALS = int(os.environ.get("WAREHOUSE_TRIALS", "0")) // 10 or 3
SENDERS = 4

# The turn-th call of a function kills the process that drains, before it does its work.
KILLED = """
import os, signal, sys
from pipelines import load
from warehouse import spool
owner, name = {"load": (load, "_finish"), "remove": (spool, "remove")}[os.environ["DIES_IN"]]
work, turn = getattr(owner, name), iter(range(1000))
def dies(*given):
    if next(turn) == int(os.environ["DIES"]):
        os.kill(os.getpid(), signal.SIGKILL)
    return work(*given)
setattr(owner, name, dies)
sys.argv = ["warehouse", "load", "stripe"]
from cli.main import main
main()
"""


class Receiving:
    """A receiver that is killed and started again on the same port."""

    def __init__(self, log: IO[str]) -> None:
        self._log, self._port = log, "0"
        self.start()
        said = ""
        while "/stripe" not in said:
            time.sleep(0.02)
            said = Path(log.name).read_text()
        self._port = said.split("/stripe")[0].rpartition(":")[2]
        self.url = f"http://127.0.0.1:{self._port}/stripe"

    def start(self) -> None:
        self.process = subprocess.Popen([WAREHOUSE, "serve", "webhooks", "--port", self._port], cwd=ROOT, stdout=self._log, stderr=self._log)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def account(setting: Callable[[str, str | None], None]) -> Iterator[StripeStandIn]:
    with StripeStandIn(now=lambda: datetime.now(UTC)) as stripe:
        setting("SOURCES__STRIPE__STRIPE_SECRET_KEY", stripe.secret_key)
        setting("SOURCES__STRIPE__BASE_URL", stripe.url)
        setting("SOURCES__STRIPE__WEBHOOK_SECRETS", SECRET)
        for _ in range(5):
            stripe.create("customers")
        yield stripe


@pytest.mark.parametrize("seed", range(TRIALS))
def test_every_acknowledged_event_is_in_the_warehouse_and_none_twice(account: StripeStandIn, home: Path, tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    customers = [customer["id"] for customer in account.objects("customers")]
    assert call("load", "stripe").code == 0
    acknowledged: list[str] = []
    sent, over = 0, threading.Event()

    def trade(number: int) -> None:
        nonlocal sent
        mine = random.Random(seed * 100 + number)
        endpoint = Endpoint(receiver.url, [SECRET], now=lambda: datetime.now(UTC), timeout=5)
        while not over.is_set():
            with lock:
                account.update(mine.choice(customers), metadata={"turn": str(sent)})
                event = account.events()[-1]
                account.forget_events()  # polling cannot help: what is found later came through the spool
                sent += 1
            if endpoint.send(event):
                acknowledged.append(event["id"])
                if mine.random() < 0.1:
                    endpoint.send(event)  # Stripe may deliver twice
            else:
                time.sleep(0.05)

    lock = threading.Lock()
    with (tmp_path / "receiver.log").open("w") as log:
        receiver = Receiving(log)
        senders = [threading.Thread(target=trade, args=(number,)) for number in range(SENDERS)]
        for sender in senders:
            sender.start()
        for _ in range(2):
            time.sleep(chance.uniform(0.3, 1.2))
            receiver.kill()
            receiver.start()
        killed = call(script=KILLED, DIES_IN=chance.choice(["load", "remove"]), DIES=str(chance.randrange(2)))
        assert killed.code == -signal.SIGKILL, killed.err
        over.set()
        for sender in senders:
            sender.join()
        receiver.kill()
    assert len(acknowledged) > 100
    ran = call("load", "stripe")
    assert ran.code == 0, ran.err
    events = [key for (key,) in ask("SELECT id FROM raw_stripe.events")]
    assert set(acknowledged) - set(events) == set()
    assert len(events) == len(set(events))
    assert list(spool.segments("stripe")) == []
    newest = {customer["id"]: customer["metadata"]["turn"] for customer in account.objects("customers") if customer["metadata"]}
    assert dict(ask("SELECT id, _object::JSON->'metadata'->>'turn' FROM raw_stripe.customers WHERE _object::JSON->'metadata'->>'turn' IS NOT NULL")) == newest


@pytest.mark.parametrize(("dies_in", "turn"), [("load", 0), ("load", 1), ("remove", 0), ("remove", 1)])
def test_a_load_that_is_killed_while_it_drains_is_repeated_from_what_is_there(account: StripeStandIn, home: Path, dies_in: str, turn: int) -> None:
    assert call("load", "stripe").code == 0
    customers = [customer["id"] for customer in account.objects("customers")]
    account.forget_events()
    writer = spool.Writer("stripe")
    for number, customer in enumerate(customers):
        account.update(customer, metadata={"turn": str(number)})
        writer.append(body_of(account.events()[-1]), datetime.now(UTC)).result(5)
        if number == 2:  # a second file
            writer.close()
            writer = spool.Writer("stripe")
    writer.close()
    account.forget_events()
    killed = call(script=KILLED, DIES_IN=dies_in, DIES=str(turn))
    assert killed.code == -signal.SIGKILL, killed.err
    assert list(spool.segments("stripe")) != []
    assert call("load", "stripe").code == 0
    assert ask("SELECT count(*), count(DISTINCT id) FROM raw_stripe.events") == [(10, 10)]
    assert ask("SELECT count(*) FROM raw_stripe.customers WHERE _object::JSON->'metadata'->>'turn' IS NOT NULL") == [(5,)]
    assert list(spool.segments("stripe")) == []


def test_it_takes_what_an_import_of_stripe_sends_at_once(account: StripeStandIn, home: Path, tmp_path: Path) -> None:
    """The short form of `make bench-webhooks`, with bars that a busy machine meets, too."""
    with (tmp_path / "receiver.log").open("w") as log:
        receiver = Receiving(log)
        most = asyncio.run(send(receiver.url, 3, connections=32, a_second=None, secret=SECRET))
        steady = asyncio.run(send(receiver.url, 2, connections=8, a_second=50, secret=SECRET))
        receiver.process.terminate()
        assert receiver.process.wait(20) == 0
    assert set(most.statuses) == set(steady.statuses) == {200}
    assert most.statuses[200] >= 3 * 100
    assert steady.quantile(0.5) <= 250
    assert sum(len(spool.read(segment).records) for segment in spool.segments("stripe")) == most.statuses[200] + steady.statuses[200]
