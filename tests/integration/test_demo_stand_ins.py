"""The APIs that the demo company uses: one process beside its server, filled the same way each time, and never mixed with real accounts."""

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cli.demo_company import start_if_needed
from demo import box
from demo.customers import first_order_dates, profile
from demo.stand_ins.company import StandIns
from demo.stand_ins.stripe import StripeStandIn
from demo.stand_ins.stripe_company import populate
from demo.stand_ins.stripe_shapes import KINDS
from warehouse import settings


@pytest.fixture
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home without a company, cleared afterwards; the settings point at it."""
    for name in [name for name in os.environ if name.startswith(("WAREHOUSE_", "SOURCES__", "PRIVACY__"))]:
        monkeypatch.delenv(name)
    place = tmp_path / "home"
    monkeypatch.setenv("WAREHOUSE_HOME", str(place))
    settings.reload()
    yield place
    box.reset(place)


def demo(home: Path, *arguments: str) -> int:
    environment = {**os.environ, "PYTHONPATH": str(settings.ROOT), "WAREHOUSE_HOME": str(home)}
    return subprocess.run([sys.executable, "-m", "demo", *arguments], env=environment, capture_output=True, timeout=60).returncode


def asked(home: Path, path: str) -> Any:
    """What the company's Stripe answers."""
    given = box.stand_ins_of(home).environment()
    request = urllib.request.Request(
        given["SOURCES__STRIPE__BASE_URL"] + path, headers={"Authorization": f"Bearer {given['SOURCES__STRIPE__STRIPE_SECRET_KEY']}"}
    )
    with urllib.request.urlopen(request, timeout=5) as answer:
        return json.load(answer)


def process_of(home: Path) -> int:
    return int((box.stand_ins_of(home).folder / "process").read_text())


def test_stand_ins_outlive_their_shell_and_a_kill_and_keep_their_port(fresh: Path) -> None:
    assert demo(fresh, "start") == 0
    apis, env = box.stand_ins_of(fresh), settings.demo_env_file(fresh).read_text()
    url = apis.environment()["SOURCES__STRIPE__BASE_URL"]
    assert f"SOURCES__STRIPE__BASE_URL={url}\n" in env
    before = asked(fresh, "/v1/charges?limit=100")
    assert len(before["data"]) > 50
    os.kill(process_of(fresh), signal.SIGKILL)
    assert demo(fresh, "status") == 1
    settings.reload()
    start_if_needed()
    assert demo(fresh, "status") == 0
    assert settings.demo_env_file(fresh).read_text() == env
    assert asked(fresh, "/v1/charges?limit=100") == before
    process = process_of(fresh)
    box.start(fresh, fsync=False)
    assert process_of(fresh) == process
    assert box.stop(fresh)
    assert not apis.is_running()
    with pytest.raises(urllib.error.URLError):
        asked(fresh, "/v1/charges")
    assert not box.stop(fresh)


def test_a_process_id_that_became_a_stranger_s_is_left_alone_and_a_taken_port_is_exchanged(tmp_path: Path) -> None:
    apis = StandIns(tmp_path / "stand_ins")
    assert apis.ensure_running()
    port = int(apis.environment()["SOURCES__STRIPE__BASE_URL"].rpartition(":")[2])
    assert apis.stop()
    (apis.folder / "process").write_text(str(os.getpid()))
    assert not apis.is_running()
    assert not apis.stop()
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", port))
        other.listen()
        assert apis.ensure_running()
    assert not apis.environment()["SOURCES__STRIPE__BASE_URL"].endswith(f":{port}")
    assert apis.stop()


def test_what_the_customers_did_in_stripe_is_the_same_each_time_and_theirs() -> None:
    accounts = [StripeStandIn(), StripeStandIn()]
    for account in accounts:
        populate(account)
    things = [{kind: account.objects(kind) for kind in KINDS} for account in accounts]
    assert things[0] == things[1]
    assert [kind for kind, found in things[0].items() if not found] == []
    emails = {profile(user_id, first).email for user_id, first in first_order_dates().items()}
    customers = [customer for customer in things[0]["customers"] if customer["livemode"]]
    assert len(customers) > 40
    assert {customer["email"] for customer in customers} <= emails
    charges = things[0]["charges"]
    assert {charge["currency"] for charge in charges} == {"usd", "jpy", "kwd"}
    assert {charge["status"] for charge in charges} == {"succeeded", "failed"}
    assert {0 < charge["amount_refunded"] < charge["amount"] for charge in charges if charge["amount_refunded"]} == {True, False}
    assert sum(not charge["livemode"] for charge in charges) == 1
    assert [event["type"] for event in accounts[0].events()] == ["product.updated", "customer.deleted"]
