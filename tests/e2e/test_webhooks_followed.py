"""`warehouse run --follow`: a webhook is published within a minute, errors are tried again, and it ends between two steps."""

import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from conftest import WAREHOUSE, Company, ask, call

from demo.stand_ins.stripe import StripeStandIn
from demo.stand_ins.stripe_webhooks import Endpoint
from warehouse import ledger, spool
from warehouse.lease import is_free
from warehouse.settings import ROOT

SECRET = "whsec_of_the_tests"  # signs nothing but what these tests send


def until(found: Callable[[], Any], what: str, seconds: float = 90) -> Any:
    deadline = time.monotonic() + seconds
    while not (it := found()):
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.1)
    return it


@contextmanager
def process(out: Path, *arguments: str) -> Iterator["subprocess.Popen[bytes]"]:
    """Run `warehouse …` beside the test; it must end well when it is told to."""
    with out.open("w") as log:
        running = subprocess.Popen([WAREHOUSE, *arguments], cwd=ROOT, stdout=log, stderr=log)
    try:
        yield running
        running.send_signal(signal.SIGTERM)
        assert running.wait(60) == 0, out.read_text()
    finally:
        running.kill()
        running.wait()


def runs(status: str) -> list[dict[str, Any]]:
    return [run for run in ledger.recent_runs(50) if run["command"] == "run --follow" and run["status"] == status]


def steps(run: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {f"{step['step']} {step['item']}".strip(): step for step in run["steps"]}


def drained(run: dict[str, Any]) -> int:
    counts = json.loads(steps(run).get("load stripe", {}).get("detail") or "{}").get("webhooks") or {}
    return int(counts.get("drained", 0))


@pytest.fixture
def account(setting: Callable[[str, str | None], None], company: Company) -> Iterator[StripeStandIn]:
    with StripeStandIn(now=lambda: datetime.now(UTC)) as stripe:
        setting("SOURCES__STRIPE__STRIPE_SECRET_KEY", stripe.secret_key)
        setting("SOURCES__STRIPE__BASE_URL", stripe.url)
        setting("SOURCES__STRIPE__WEBHOOK_SECRETS", SECRET)
        stripe.create("products")
        yield stripe


@pytest.mark.usefixtures("built")
def test_a_webhook_is_published_within_a_minute_and_an_error_is_tried_again(account: StripeStandIn, home: Path, tmp_path: Path) -> None:
    right_key = account.secret_key
    with process(tmp_path / "receiver", "serve", "webhooks", "--port", "0"), process(tmp_path / "follower", "run", "--follow"):
        said = until(lambda: "/stripe" in (tmp_path / "receiver").read_text() and (tmp_path / "receiver").read_text(), "the receiver")
        endpoint = Endpoint(said.split(";")[0].rpartition(" ")[2], [SECRET], now=lambda: datetime.now(UTC))
        until(lambda: runs("succeeded"), "the first run")
        account.create("customers", name="A")
        sent_at = datetime.now(UTC)
        assert endpoint.send(account.events()[-1])
        (run,) = until(lambda: [run for run in runs("succeeded") if drained(run)], "the run after the webhook")
        seconds = (datetime.fromisoformat(run["ended_at"]) - sent_at).total_seconds()
        assert seconds <= 60
        assert steps(run)["publish"]["status"] == "succeeded"
        assert steps(run)["load postgres"]["status"] == "skipped"

        account.secret_key = "sk_test_another"  # the account refuses ours for a while
        account.create("customers", name="B")
        assert endpoint.send(account.events()[-1])
        (failed, *_) = until(lambda: runs("failed"), "the run that fails")
        assert "the key is refused" in failed["error"]
        assert until(is_free, "the lease")
        account.secret_key = right_key
        until(lambda: len([run for run in runs("succeeded") if drained(run)]) == 2, "the run that goes well again")
    assert ask("SELECT count(*) FROM raw_stripe.customers") == [(2,)]
    assert list(spool.segments("stripe")) == []
    assert "the key is refused" in (tmp_path / "follower").read_text()


@pytest.mark.usefixtures("built")
def test_it_ends_between_two_steps_and_owes_the_rest_to_the_next(account: StripeStandIn, home: Path, tmp_path: Path) -> None:
    with process(tmp_path / "follower", "run", "--follow"):
        until(lambda: runs("running") and "load stripe" in steps(runs("running")[0]), "the load")
    (run,) = runs("interrupted")
    assert "transform" not in steps(run)
    assert {step["status"] for step in run["steps"]} <= {"succeeded", "skipped"}
    assert call("load", "stripe").code == 0
    with process(tmp_path / "again", "run", "--follow"):
        until(lambda: [run for run in runs("succeeded") if "publish" in steps(run)], "what was owed")
    assert (home / "published" / "warehouse.duckdb").exists()
