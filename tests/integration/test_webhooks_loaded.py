"""Loading what webhooks brought: nothing acknowledged is lost or doubled, and what they missed is healed and counted."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from conftest import call
from integration.receivers import Receiver, spooled
from integration.test_stripe import World, ask, world  # noqa: F401 - the fixture of an account and its warehouse

from cli import doctor
from demo.stand_ins.served import Fault
from pipelines import load
from warehouse import ledger, spool
from warehouse.errors import StepFailed, WarehouseError

NEW = "whsec_of_this_year"


def told() -> dict[str, int]:
    """What the ledger keeps of the last load's webhooks."""
    (run,) = ledger.recent_runs(1)
    found: dict[str, int] = json.loads(run["steps"][-1]["detail"])["webhooks"]
    return found


def drained_home() -> None:
    """Nothing is left in the spool."""
    assert list(spool.segments("stripe")) == []


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


def test_a_torn_last_line_costs_nothing_and_a_damaged_one_is_put_aside_and_healed(hearing: tuple[World, Receiver], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "_SEAL_AFTER", 3600.0)
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


def test_the_doctor_says_what_waits_too_long_and_what_was_damaged(world: World, fails: Callable[..., WarehouseError]) -> None:  # noqa: F811 - the fixture
    assert "none" in doctor._webhooks()
    writer = spool.Writer("stripe")
    assert "nothing waits" in doctor._webhooks()
    writer.append(b"{}", world.now).result(5)
    writer.close()
    assert "bytes wait" in doctor._webhooks()
    world.later(hours=7)
    error = fails(doctor._webhooks)
    assert "waits since 2026-03-01 12:00" in error.what
    assert "warehouse load stripe" in error.mend
    world.load()  # it is no event
    assert "damaged" in fails(doctor._webhooks).what
