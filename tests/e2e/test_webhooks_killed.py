"""Kill the receiver under load and the load that drains: every acknowledged event is in the warehouse afterwards, none twice."""

import asyncio
import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

import pytest
from bench_webhooks import send
from conftest import KEY, WAREHOUSE, ask
from e2e.homes import Forks

from demo.stand_ins.stripe import StripeStandIn
from demo.stand_ins.stripe_webhooks import Endpoint, body_of
from warehouse import spool
from warehouse.settings import ROOT

SECRET = "whsec_of_the_tests"  # signs nothing but what these tests send
TRIALS = int(os.environ.get("WAREHOUSE_TRIALS", "0")) // 10 or 3
SENDERS = 4

LOADS, REMOVES = "pipelines.load:_finish", "warehouse.spool:remove"


@dataclass
class Account:
    """An account of Stripe and a home that loads it."""

    folder: Path
    stripe: StripeStandIn
    settings: dict[str, str]


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
def account(setting: Callable[[str, str | None], None], home: Path) -> Iterator[Account]:
    with StripeStandIn(now=lambda: datetime.now(UTC)) as stripe:
        given = {"STRIPE_SECRET_KEY": stripe.secret_key, "BASE_URL": stripe.url, "WEBHOOK_SECRETS": SECRET}
        settings = {"WAREHOUSE_HOME": str(home), "PRIVACY__HMAC_KEY": KEY, **{f"SOURCES__STRIPE__{name}": value for name, value in given.items()}}
        for name, value in settings.items():
            setting(name, value)
        for _ in range(5):
            stripe.create("customers")
        yield Account(home, stripe, settings)


@pytest.mark.parametrize("seed", range(TRIALS))
def test_every_acknowledged_event_is_in_the_warehouse_and_none_twice(account: Account, forks: Forks, tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    customers = [customer["id"] for customer in account.stripe.objects("customers")]
    assert forks.warehouse(account, "load", "stripe").code == 0
    acknowledged: list[str] = []
    sent, over = 0, threading.Event()

    def trade(number: int) -> None:
        nonlocal sent
        mine = random.Random(seed * 100 + number)
        endpoint = Endpoint(receiver.url, [SECRET], now=lambda: datetime.now(UTC), timeout=5)
        while not over.is_set():
            with lock:
                account.stripe.update(mine.choice(customers), metadata={"turn": str(sent)})
                event = account.stripe.events()[-1]
                account.stripe.forget_events()  # polling cannot help: what is found later came through the spool
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
        killed = forks.warehouse(account, "load", "stripe", dies=(chance.choice([LOADS, REMOVES]), "before", chance.randint(1, 2)))
        assert killed.code == -signal.SIGKILL, killed.err
        over.set()
        for sender in senders:
            sender.join()
        receiver.kill()
    assert len(acknowledged) > 100
    ran = forks.warehouse(account, "load", "stripe")
    assert ran.code == 0, ran.err
    events = [key for (key,) in ask("SELECT id FROM raw_stripe.events")]
    assert set(acknowledged) - set(events) == set()
    assert len(events) == len(set(events))
    assert list(spool.segments("stripe")) == []
    newest = {customer["id"]: customer["metadata"]["turn"] for customer in account.stripe.objects("customers") if customer["metadata"]}
    assert dict(ask("SELECT id, _object::JSON->'metadata'->>'turn' FROM raw_stripe.customers WHERE _object::JSON->'metadata'->>'turn' IS NOT NULL")) == newest


@pytest.mark.parametrize(("dies_in", "turn"), [(LOADS, 1), (LOADS, 2), (REMOVES, 1), (REMOVES, 2)])
def test_a_load_that_is_killed_while_it_drains_is_repeated_from_what_is_there(account: Account, forks: Forks, dies_in: str, turn: int) -> None:
    assert forks.warehouse(account, "load", "stripe").code == 0
    customers = [customer["id"] for customer in account.stripe.objects("customers")]
    account.stripe.forget_events()
    writer = spool.Writer("stripe")
    for number, customer in enumerate(customers):
        account.stripe.update(customer, metadata={"turn": str(number)})
        writer.append(body_of(account.stripe.events()[-1]), datetime.now(UTC)).result(5)
        if number == 2:  # a second file
            writer.close()
            writer = spool.Writer("stripe")
    writer.close()
    account.stripe.forget_events()
    killed = forks.warehouse(account, "load", "stripe", dies=(dies_in, "before", turn))
    assert killed.code == -signal.SIGKILL, killed.err
    assert list(spool.segments("stripe")) != []
    assert forks.warehouse(account, "load", "stripe").code == 0
    assert ask("SELECT count(*), count(DISTINCT id) FROM raw_stripe.events") == [(10, 10)]
    assert ask("SELECT count(*) FROM raw_stripe.customers WHERE _object::JSON->'metadata'->>'turn' IS NOT NULL") == [(5,)]
    assert list(spool.segments("stripe")) == []


def test_it_takes_what_an_import_of_stripe_sends_at_once(account: Account, tmp_path: Path) -> None:
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
