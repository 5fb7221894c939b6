"""What becomes of Zendesk's objects: tombstones, custom fields, histories, lists, nothing personal; and what a crash leaves."""

import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from conftest import KEY, ask, call
from integration.zendesk_world import NOW, TICKETS, World, zendesk_world

from demo.stand_ins.served import Fault
from demo.stand_ins.zendesk import ZendeskStandIn
from demo.stand_ins.zendesk_company import populate
from pipelines import zendesk as module
from warehouse.errors import WarehouseError

TABLES = module.declaration().tables


@pytest.fixture
def world(setting: Callable[[str, str | None], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[World]:
    with zendesk_world(setting, monkeypatch, tmp_path) as made:
        yield made


def columns(table: str) -> list[str]:
    return [row[0] for row in ask(f"SELECT column_name FROM duckdb_columns() WHERE schema_name = 'raw_zendesk' AND table_name = '{table}'")]


# Deleted.


def test_a_deleted_ticket_is_a_tombstone_with_its_last_values_also_when_it_is_scrubbed_and_can_come_back(world: World) -> None:
    field = world.account.add("ticket_fields", title="Reason", type="tagger")["id"]
    (ticket,) = world.tickets(1, status="solved", requester_id=7, custom_fields=[{"id": field, "value": "billing"}])
    world.load()
    values = f"SELECT subject, status, requester_id, field_{field}_reason FROM raw_zendesk.tickets"
    before = ask(values)
    assert before == [("ticket 0", "solved", 7, "billing")]
    deleted_at = world.now
    world.account.delete_ticket(ticket)
    world.later(hours=1)
    world.load()
    marks = "SELECT is_deleted, deleted_at, _deleted_at IS NOT NULL FROM raw_zendesk.tickets"
    assert ask(marks) == [(True, deleted_at, True)]
    assert ask(values) == before
    world.later(days=30)
    world.account.scrub_ticket(ticket)
    world.later(hours=1)
    world.load()
    assert (ask(values), ask(marks)) == (before, [(True, deleted_at, True)])
    world.account.update_ticket(ticket, status="open", subject="again")
    world.later(hours=1)
    world.load()
    assert ask(marks) == [(False, None, False)]
    assert ask("SELECT subject, status FROM raw_zendesk.tickets") == [("again", "open")]


def test_a_ticket_that_is_read_and_then_deleted_within_one_pass_keeps_what_was_read(world: World) -> None:
    world.account.page_size = 2
    first, *_ = world.tickets(5)
    world.on_page(2, lambda: [world.account.delete_ticket(first), world.later(minutes=2)])
    world.load()
    assert ask(f"SELECT subject, status, is_deleted FROM raw_zendesk.tickets WHERE id = {first}") == [("ticket 0", "new", True)]


def test_a_ticket_that_was_deleted_before_it_was_ever_read_is_a_tombstone_too(world: World) -> None:
    (ticket,) = world.tickets(1)
    world.account.delete_ticket(ticket)
    world.account.scrub_ticket(ticket)
    world.later(hours=1)
    world.load()
    assert ask("SELECT is_deleted, subject, requester_id FROM raw_zendesk.tickets") == [(True, "SCRUBBED", -1)]


def test_a_deleted_user_keeps_the_hash_of_its_email(world: World) -> None:
    user = world.account.add("users", name="Jo Doe", email="Jo@Example.com", phone="+1 555 010 4477")["id"]
    company = world.account.add("organizations", name="Acme")["id"]
    (ticket,) = world.tickets(1, requester_id=user)
    world.later(hours=1)
    world.load()
    values = "SELECT email_hash, phone_masked, name_redacted, role FROM raw_zendesk.users"
    before = ask(values)
    assert before[0][0]
    world.account.delete_user(user, permanently=True)
    world.account.system_update(ticket)  # brings the user with it
    world.account.change("organizations", company, deleted_at="2026-03-01T13:00:00Z")
    world.later(hours=1)
    world.load()
    assert ask(values) == before
    assert ask("SELECT is_deleted, deleted_at FROM raw_zendesk.users") == [(True, NOW + timedelta(hours=1))]
    assert ask("SELECT is_deleted, name FROM raw_zendesk.organizations") == [(True, "Acme")]


# Custom fields.


def test_a_renamed_field_keeps_its_column_and_a_new_one_gets_its_own(world: World) -> None:
    first = world.account.add("ticket_fields", title="Größe (cm)", type="integer")["id"]
    one, two = world.tickets(2)
    world.account.set_field(one, first, "180")
    world.later(hours=1)
    world.load()
    column = f"field_{first}_große_cm".replace("ß", "")
    assert column in columns("tickets")
    world.account.change("ticket_fields", first, title="Body height")
    second = world.account.add("ticket_fields", title="VIP", type="checkbox")["id"]
    world.account.set_field(one, first, 181)
    world.account.set_field(two, second, True)
    world.later(hours=1)
    world.load()
    world.later(hours=1)
    world.load()
    assert [name for name in columns("tickets") if name.startswith("field_")] == [column, f"field_{second}_vip"]
    assert ask(f"SELECT {column}, field_{second}_vip FROM raw_zendesk.tickets ORDER BY id") == [(181, None), (None, True)]
    assert ask(f"SELECT title, column_name FROM raw_zendesk.ticket_fields WHERE id = {first}") == [("Body height", column)]


def test_a_field_that_is_no_longer_defined_keeps_its_column_and_its_values(world: World) -> None:
    field = world.account.add("ticket_fields", title="Old", type="integer")["id"]
    one, two = world.tickets(2, custom_fields=[{"id": field, "value": 1}])
    world.load()
    world.account.remove("ticket_fields", field)
    world.account.update_ticket(one, status="open", custom_fields=[])
    world.account.update_ticket(two, status="open", custom_fields=[{"id": 987654, "value": "of nobody"}])
    world.later(hours=1)
    world.load()
    assert ask(f"SELECT field_{field}_old, field_987654 FROM raw_zendesk.tickets ORDER BY id") == [(1, None), (1, "of nobody")]
    assert ask(f"SELECT _deleted_at IS NOT NULL FROM raw_zendesk.ticket_fields WHERE id = {field}") == [(True,)]


def test_fields_that_cannot_be_listed_keep_their_columns_and_types(world: World) -> None:
    field = world.account.add("ticket_fields", title="Age", type="integer")["id"]
    schedule = world.account.add("schedules", name="Office")["id"]
    world.account.add("holidays", schedule_id=schedule, name="Christmas", start_date="2026-12-25", end_date="2026-12-26")
    (ticket,) = world.tickets(1, custom_fields=[{"id": field, "value": 1}])
    world.load()
    world.account.absent = {"ticket_fields", "business_hours/schedules"}
    world.account.set_field(ticket, field, 2)
    world.later(hours=1)
    assert len(world.findings()) == 2
    assert ask(f"SELECT field_{field}_age, typeof(field_{field}_age) FROM raw_zendesk.tickets") == [(2, "BIGINT")]
    assert ask("SELECT count(*) FROM raw_zendesk.schedule_holidays WHERE _deleted_at IS NULL") == [(1,)]


def test_a_value_that_is_not_of_its_fields_type_is_a_finding_and_is_not_lost(world: World) -> None:
    field = world.account.add("ticket_fields", title="Age", type="integer")["id"]
    world.tickets(1, custom_fields=[{"id": field, "value": "unknown"}])
    (finding,) = world.findings()
    assert f"1 values of the ticket field field_{field}_age are not of its type" in finding
    assert ask(f"SELECT field_{field}_age, custom_fields FROM raw_zendesk.tickets") == [(None, f'{{"{field}":"unknown"}}')]


def test_a_new_field_that_looks_personal_is_redacted_with_one_finding_until_the_policy_lists_it(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from privacy import policy

    field = world.account.add("ticket_fields", title="Mobile phone", type="text")["id"]
    (ticket,) = world.tickets(1)
    world.account.set_field(ticket, field, "0170 1234567")
    world.later(hours=1)
    (finding,) = world.findings()
    assert f"field_{field}_mobile_phone: {{class: phone, action: hmac}}" in finding
    name = f"field_{field}_mobile_phone"
    assert ask(f"SELECT {name}_redacted FROM raw_zendesk.tickets") == [("[redacted]",)]
    assert ask(f"SELECT value FROM raw_zendesk.ticket_field_history WHERE field_id = {field}") == [("[redacted]",)]
    subjects, columns, text = policy.POLICY_FILE.read_text().partition("\ncolumns:\n")
    text = text.replace("  zendesk.tickets:\n", f"  zendesk.tickets:\n    {name}: {{class: phone, action: mask}}\n")
    (tmp_path / "policy.yaml").write_text(subjects + columns + text)
    monkeypatch.setattr(policy, "POLICY_FILE", tmp_path / "policy.yaml")
    world.account.set_field(ticket, field, "0170 7654321")
    world.later(hours=1)
    assert world.findings() == []
    assert ask(f"SELECT {name}_masked FROM raw_zendesk.tickets") == [("********21",)]
    assert not any("7654321" in str(ask(f"SELECT * FROM raw_zendesk.{table}")) for table in TABLES)


# Histories and comments.


def test_every_value_of_every_field_is_in_the_history(world: World) -> None:
    field = world.account.add("ticket_fields", title="Reason", type="tagger")["id"]
    (ticket,) = world.tickets(1, status="new", description="it broke", requester_id=5, tags=["a"])
    world.account.update_ticket(ticket, status="open", by=11, tags=["a", "b"], comment="we look", is_public=False)
    world.later(minutes=10)
    world.account.set_field(ticket, field, "billing")
    world.later(minutes=10)
    world.account.set_field(ticket, field, "delivery")
    world.later(hours=1)
    world.load()
    history = "SELECT change, value, previous_value, changed_by FROM raw_zendesk.ticket_field_history WHERE field = '{}' ORDER BY changed_at"
    assert ask(history.format("status")) == [("create", "new", None, 5), ("change", "open", "new", 11)]
    assert ask(history.format("tags"))[1][:3] == ("change", '["a", "b"]', '["a"]')
    assert [row[:3] for row in ask(history.format(f"field_{field}"))] == [("change", "billing", None), ("change", "delivery", "billing")]
    assert ask("SELECT body, is_public, author_id FROM raw_zendesk.ticket_comments ORDER BY commented_at") == [("it broke", True, 5), ("we look", False, 11)]
    assert ask("SELECT replies, ticket_id FROM raw_zendesk.ticket_metrics") == [(1, ticket)]
    assert ask("SELECT metric, type FROM raw_zendesk.ticket_metric_events") == [("reply_time", "activate")]


# Privacy.


def test_nothing_personal_is_kept_anywhere_and_emails_join_the_customers(world: World, home: Path) -> None:
    import hashlib
    import hmac

    secret = ["jo.doe@example.com", "Jo Doe", "7654321", "900-12-3456", "4242 4242"]
    text = "I am jo.doe@example.com, +1 555 765 4321, 900-12-3456, 4242 4242 4242 4242"
    user = world.account.add("users", name="Jo Doe", email=" Jo.Doe@example.com", phone="+15557654321", details=text, notes=text,
                             user_fields={"plan": "gold", "mail": "jo.doe@example.com", "note": text})["id"]  # fmt: skip
    field = world.account.add("ticket_fields", title="Remark", type="textarea")["id"]
    ticket = world.account.create_ticket(subject=text, description=text, requester_id=user, recipient="jo.doe@example.com", tags=["jo.doe@example.com"],
                                         custom_fields=[{"id": field, "value": text}], external_id="jo.doe@example.com")["id"]  # fmt: skip
    world.account.update_ticket(ticket, comment=text, subject=f"{text}!")
    world.account.set_field(ticket, field, f"{text}!")
    world.account.add("satisfaction_ratings", comment=text)
    world.account.add("organizations", name="Acme", notes=text, organization_fields={"contact": text})
    world.later(hours=1)
    world.load()
    for name in TABLES:
        found = str(ask(f"SELECT * FROM raw_zendesk.{name}"))
        assert not [word for word in secret if word in found], name
    cleaned = "I am [email], [phone], [ssn], [card]"
    assert ask(f"SELECT description, field_{field}_remark FROM raw_zendesk.tickets") == [(cleaned, f"{cleaned}!")]
    assert ask("SELECT DISTINCT body FROM raw_zendesk.ticket_comments") == [(cleaned,)]
    expected = hmac.new(KEY.encode(), b"jo.doe@example.com", hashlib.sha256).hexdigest()
    assert ask("SELECT email_hash FROM raw_zendesk.users") == [(expected,)]
    kept = [file for file in home.rglob("*") if file.is_file() and file.suffix in (".parquet", ".jsonl", ".json")]
    assert kept
    assert not [file for file in kept if any(word.encode() in file.read_bytes() for word in secret)]


def test_what_the_policy_redacts_in_tickets_is_redacted_in_their_history(world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from privacy import policy

    text = policy.POLICY_FILE.read_text().replace("subject: {class: free_text, action: scrub}", "subject: {class: free_text, action: redact}")
    (tmp_path / "policy.yaml").write_text(text)
    monkeypatch.setattr(policy, "POLICY_FILE", tmp_path / "policy.yaml")
    world.tickets(1)
    world.load()
    assert ask("SELECT subject_redacted FROM raw_zendesk.tickets") == [("[redacted]",)]
    assert ask("SELECT value FROM raw_zendesk.ticket_field_history WHERE field = 'subject'") == [("[redacted]",)]


# Lists.


def test_lists_are_whole_what_vanished_is_marked_and_holidays_belong_to_their_schedule(world: World) -> None:
    groups = [world.account.add("groups", name=f"group {number}")["id"] for number in range(230)]
    schedule = world.account.add("schedules", name="Office")["id"]
    world.account.add("holidays", schedule_id=schedule, name="Christmas", start_date="2026-12-25", end_date="2026-12-26")
    world.account.add("sla_policies", title="Fast")
    world.load()
    assert ask("SELECT count(*), count(_deleted_at) FROM raw_zendesk.groups") == [(230, 0)]
    assert ask("SELECT h.name, h.start_date, s.name FROM raw_zendesk.schedule_holidays h JOIN raw_zendesk.schedules s ON s.id = h.schedule_id")[0][::2] == (
        "Christmas", "Office",
    )  # fmt: skip
    assert ask("SELECT title FROM raw_zendesk.sla_policies") == [("Fast",)]
    world.account.remove("groups", groups[7])
    world.later(hours=1)
    world.load()
    assert ask("SELECT id, name FROM raw_zendesk.groups WHERE _deleted_at IS NOT NULL") == [(groups[7], "group 7")]


def test_what_the_plan_does_not_have_is_one_finding_and_an_empty_table(world: World) -> None:
    world.account.absent = {"slas/policies", "business_hours/schedules"}
    world.tickets(1)
    findings = world.findings()
    assert len(findings) == 2
    assert all("cannot be listed (HTTP 404)" in finding for finding in findings)
    assert ask("SELECT count(*) FROM raw_zendesk.sla_policies") == [(0,)]
    world.later(hours=1)
    assert world.findings() == []
    world.account.add("groups", name="A")
    world.load()
    world.account.faults = [Fault("/api/v2/groups", status=403)]
    (finding,) = world.findings()
    assert "what was loaded before stays" in finding
    assert ask("SELECT count(*) FROM raw_zendesk.groups WHERE _deleted_at IS NULL") == [(1,)]


def test_a_value_without_a_counterpart_stops_the_load_by_its_key(world: World, fails: Callable[..., WarehouseError]) -> None:
    (ticket,) = world.tickets(1, due_at="whenever Jo likes")
    error = fails(world.load)
    assert f"tickets {ticket}: due_at is no timestamp" in error.what
    assert "Jo" not in str(error)


# Crashes.

KILLED = """
import os, signal, sys
from pipelines import load, zendesk
declared = zendesk.declaration().model_copy(update={"pages_per_pass": 1, "exports_per_minute": 10000})
zendesk.declaration = lambda: declared
turn = iter(range(100))
finish = load._finish
def dies(*given):
    if next(turn) == int(os.environ["DIES"]):
        if os.environ["AFTER"]:
            finish(*given)
        os.kill(os.getpid(), signal.SIGKILL)
    return finish(*given)
load._finish = dies
sys.argv = ["warehouse", "load", "zendesk"]
from cli.main import main
main()
"""


@pytest.mark.parametrize(("turn", "after"), [(4, "yes"), (5, ""), (1, "yes")])
def test_a_crash_after_page_three_repeats_and_never_skips(world: World, home: Path, turn: int, after: str) -> None:
    """Each page is two passes: what came beside the tickets, then the tickets. The working directory is lost, too."""
    world.declare(exports_per_minute=10000)
    world.account.page_size, world.account.exports_a_minute = 2, None
    user = world.account.add("users", name="A", email="a@example.com")["id"]
    made = world.tickets(7, requester_id=user, description="hello")
    world.account.delete_ticket(made[0])
    world.later(hours=1)
    world.load()
    clean = without_cursor()
    shutil.rmtree(home)
    died = call(script=KILLED, DIES=str(turn), AFTER=after)
    assert died.code == -9, died.err
    shutil.rmtree(home / "dlt")
    held = ask("SELECT count(*) FROM raw_zendesk.tickets WHERE _cursor IS NOT NULL")[0][0]
    asked = len(world.account.asked)
    world.load()
    assert without_cursor() == clean
    first = next(one for one in world.account.asked[asked:] if one.path == f"/api/v2/{TICKETS}")
    assert ("cursor" in first.query) == (held > 0), "it began from the start although rows were held, or skipped what was not"
    if turn >= 4:
        assert held >= 4


def without_cursor() -> dict[str, list[tuple[Any, ...]]]:
    found = {}
    for name in TABLES:
        own = ["_loaded_at", "_deleted_at", *(["_cursor"] if "_cursor" in columns(name) else [])]
        found[name] = ask(f"SELECT * EXCLUDE ({', '.join(own)}) FROM raw_zendesk.{name} ORDER BY ALL")
    return found


# The demo company.


def test_the_demo_companys_tickets_are_loaded_at_once_and_join_its_customers(world: World) -> None:
    import time

    world.at(datetime(1998, 8, 1, tzinfo=UTC))
    populate(world.account)
    began = time.monotonic()
    world.load()
    assert time.monotonic() - began < 10
    counts = ask("SELECT count(*), count(*) FILTER (is_deleted), count(requester_id) FROM raw_zendesk.tickets")[0]
    assert counts[0] > 200
    assert 0 < counts[1] < counts[0] / 10
    orphans = "SELECT count(*) FROM raw_zendesk.tickets t ANTI JOIN raw_zendesk.users u ON u.id = t.requester_id"
    assert ask(orphans) == [(0,)]
    assert ask("SELECT count(*) FROM raw_zendesk.tickets WHERE description NOT LIKE '%[email]%[phone]%'") == [(0,)]
    other = ZendeskStandIn(now=world.account.now)
    populate(other)
    assert other.objects("tickets") == world.account.objects("tickets")
