"""Alerts reach the right channel once, by the real clients against local servers: through retries, outages and kills."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from conftest import call
from integration.alert_servers import CHANNEL, ROUTING_KEY, TOKEN, Failure, Mailbox, Services, channels

from cli.alert import after_run, alert, route
from cli.check import check_freshness
from monitoring import book, rules
from monitoring.book import record
from monitoring.findings import Finding
from monitoring.outbox import dispatch
from monitoring.rules import read_rules, routed
from warehouse import clock, ledger
from warehouse.errors import FindingsFound, LeaseHeld, StepFailed, UsageError
from warehouse.settings import ROOT

Setting = Callable[[str, str | None], None]
NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
FAILED = Finding("run failed", "raw_postgres", None, "error", "`warehouse run` failed: the server does not answer", "every step ends well", NOW, "SELECT 1")
STALE = Finding("freshness", "raw_stripe.charges", None, "error", "loaded 8 h ago", "loaded within 6 h", NOW, "SELECT 2")
NULLS = Finding("missing", "staging.stg_postgres__users", "country", "error", "6 of 100 rows", "no null", NOW, "SELECT user_id", 0.06)
OTHER = Finding("not_negative", "marts.daily_revenue", "revenue", "error", "1 of 10 rows", "not negative", NOW, "SELECT date")

DIES = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from cli.alert import route
from monitoring import outbox
send = outbox.send
def dies(alert):
    if sys.argv[2] == "after it is sent":
        send(alert)
    os.kill(os.getpid(), signal.SIGKILL)
outbox.send = dies
route()
"""


@pytest.fixture
def servers(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Services, Mailbox]]:
    setting("WAREHOUSE_NOW", NOW.isoformat())
    monkeypatch.setattr("monitoring.outbox._FIRST_WAIT", 0.01)
    with channels(setting) as both:
        yield both


@pytest.fixture
def later(setting: Setting) -> Callable[..., None]:
    """Move the one clock."""
    return lambda **by: setting("WAREHOUSE_NOW", (clock.now() + timedelta(**by)).isoformat())


@pytest.fixture
def declare_rules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    def declare(text: str) -> None:
        (tmp_path / "rules.yaml").write_text(text)
        monkeypatch.setattr(rules, "RULES_FILE", tmp_path / "rules.yaml")

    return declare


def _now_wrong(*findings: Finding) -> list[Any]:
    record(routed(findings), origin="check", now=clock.now())
    return [(one.channel, one.action, one.status) for one in route()]


def _statuses() -> list[tuple[str, str, str]]:
    with book.opened() as kept:
        return [tuple(row) for row in kept.execute("SELECT channel, action, status FROM alerts ORDER BY created_at, rowid")]


def test_each_of_the_three_rules_reaches_its_channel_and_only_once(servers: tuple[Services, Mailbox], later: Callable[..., None]) -> None:
    services, mailbox = servers
    assert sorted(_now_wrong(FAILED, STALE, NULLS)) == [("email", "open", "sent"), ("page", "open", "sent"), ("slack", "open", "sent")]
    later(hours=1)
    assert _now_wrong(FAILED, STALE, NULLS) == []
    (event,), (mail,), (message,) = services.events, mailbox.mails, services.posted
    assert event["event_action"] == "trigger"
    assert event["payload"]["severity"] == "critical"
    assert event["payload"]["custom_details"]["runbook"] == "docs/runbooks/failed-run.md"
    assert "marts.daily_revenue" in event["payload"]["custom_details"]["affected marts"]
    assert mail["To"] == "team@startup.test, boss@startup.test"
    text = str(mail.get_payload(decode=True), "utf-8")
    for said in ("loaded 8 h ago", "Since: 2026-03-01 12:00 UTC", "marts.payment_facts", "SELECT 2", "docs/runbooks/stale-data.md", "Owner: data"):
        assert said in text
    shown = json.dumps(message["blocks"])
    for said in ("country: missing: 6 of 100 rows", "2026-03-01 12:00 UTC", "marts.customer_360", "SELECT user_id", "docs/runbooks/null-rate.md"):
        assert said in shown


def test_an_incident_that_changes_is_updated_in_place_and_recovery_is_told(servers: tuple[Services, Mailbox], later: Callable[..., None]) -> None:
    services, mailbox = servers
    _now_wrong(FAILED, STALE, NULLS)
    below = replace(NULLS, table="marts.customer_360")
    assert _now_wrong(FAILED, STALE, NULLS, below) == [("slack", "update", "sent")]
    assert "and 1 more" in services.posted[0]["text"]
    assert "marts.customer_360.country: missing" in json.dumps(services.posted[0]["blocks"])
    later(hours=2)
    assert sorted(_now_wrong()) == [("email", "resolve", "sent"), ("page", "resolve", "sent"), ("slack", "resolve", "sent")]
    assert list(services.pages.values()) == ["resolve"]
    assert (len(services.posted), len(services.messages)) == (1, 2)
    assert "Resolved" in services.posted[0]["text"]
    assert services.messages[1]["thread_ts"] == services.posted[0]["ts"]
    opened, resolved = mailbox.mails
    assert resolved["Subject"] == f"Resolved: {opened['Subject']}"
    assert resolved["In-Reply-To"] == opened["Message-ID"]
    later(hours=1)
    assert _now_wrong(NULLS) == [("slack", "open", "sent")]
    assert len(services.posted) == 2


@pytest.mark.parametrize(("finding", "path"), [(FAILED, "enqueue"), (NULLS, "chat.postMessage")])
def test_a_channel_that_asks_for_patience_is_asked_again(servers: tuple[Services, Mailbox], finding: Finding, path: str) -> None:
    services, mailbox = servers
    services.failures = [Failure(path, 429, {"Retry-After": "0.01"}), Failure(path, 500, does_it=True)]
    assert [status for _, _, status in _now_wrong(finding)] == ["sent"]
    assert len(services.pages) + len(services.posted) == 1
    assert mailbox.mails == []


@pytest.mark.parametrize("patience", [0.0, 5.0])
def test_the_next_channel_takes_over_and_nobody_is_told_twice(
    servers: tuple[Services, Mailbox], later: Callable[..., None], patience: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("monitoring.outbox.PATIENCE", patience)
    services, _ = servers
    services.out = {"enqueue"}
    services.failures = [Failure("enqueue", 429, {"Retry-After": "3600"})] if patience else []
    assert _now_wrong(FAILED) == [("page", "open", "taken over"), ("slack", "open", "sent")]
    services.out = set()
    later(hours=3)
    assert _now_wrong(FAILED) == []
    assert (services.pages, len(services.posted)) == ({}, 1)
    _now_wrong()
    assert "Resolved" in services.posted[0]["text"]


def test_when_all_channels_are_out_the_first_that_comes_back_tells(servers: tuple[Services, Mailbox], later: Callable[..., None]) -> None:
    services, mailbox = servers
    services.out, mailbox.answer = {"enqueue", "api"}, "451 try again later"
    assert _now_wrong(FAILED)[-1] == ("email", "open", "queued")
    mailbox.answer = "554 no"
    later(hours=2)
    assert {status for _, _, status in _now_wrong(FAILED)} <= {"queued", "taken over"}
    services.out = {"enqueue"}
    later(hours=2)
    _now_wrong(FAILED)
    assert (services.pages, len(services.posted), mailbox.mails) == ({}, 1, [])
    services.out, mailbox.answer = set(), "250 kept"
    later(hours=2)
    assert _now_wrong(FAILED) == []
    assert not [one for one in _statuses() if one[2] in ("queued", "sending")]


def test_a_channel_that_refuses_hands_over_and_its_secret_is_not_told(servers: tuple[Services, Mailbox], setting: Setting) -> None:
    services, _ = servers
    setting("ALERTS__SLACK_TOKEN", "xoxb-of-somebody-else")
    assert _now_wrong(NULLS) == [("slack", "open", "taken over"), ("page", "open", "sent")]
    with book.opened() as kept:
        assert "xoxb" not in str([tuple(row) for row in kept.execute("SELECT * FROM alerts")])
    assert list(services.pages.values()) == ["trigger"]


def test_a_channel_that_is_not_configured_is_passed_over_and_told_when_it_is(home: Path, setting: Setting, later: Callable[..., None]) -> None:
    setting("WAREHOUSE_NOW", NOW.isoformat())
    assert _now_wrong(FAILED) == []
    with channels(setting) as (services, _):
        later(hours=1)
        assert _now_wrong(FAILED) == [("page", "open", "sent")]
        assert len(services.pages) == 1


@pytest.mark.parametrize("moment", ["before it is sent", "after it is sent"])
@pytest.mark.parametrize("finding", [FAILED, STALE, NULLS], ids=lambda finding: finding.check)
def test_a_kill_around_sending_loses_nothing_and_doubles_nothing(servers: tuple[Services, Mailbox], finding: Finding, moment: str) -> None:
    services, mailbox = servers
    record(routed([finding]), origin="check", now=clock.now())
    killed = subprocess.run([sys.executable, "-c", DIES, str(ROOT), moment], check=False, timeout=120)
    assert killed.returncode == -9
    assert [status for _, _, status in _statuses()] == ["sending"]
    assert [status for _, _, status in _now_wrong(finding)] == ["sent"]
    assert [len(told) for told in (services.pages, mailbox.different, services.posted)] == [finding is FAILED, finding is STALE, finding is NULLS]
    assert [status for _, _, status in _now_wrong()] == ["sent"]


def test_quiet_hours_wait_and_escalation_does_not_when_nobody_acknowledges(
    servers: tuple[Services, Mailbox], later: Callable[..., None], declare_rules: Callable[[str], None]
) -> None:
    declare_rules(
        "rules: [{name: all, to: slack, quiet: noon, escalate: {after_minutes: 90, to: page}, runbook: docs/runbooks/shape.md}]\n"
        "takes_over: [slack, page, email]\nquiet_hours: {noon: {from: '12:00', until: '13:00', time_zone: UTC}}\n"
    )
    assert _now_wrong(OTHER) == []
    later(minutes=30)
    assert _now_wrong(OTHER, replace(OTHER, check="missing", column="date")) == []
    later(minutes=31)
    assert _now_wrong(OTHER) == [("slack", "open", "sent")]
    later(minutes=30)
    with book.opened() as kept:
        (incident,) = [row[0] for row in kept.execute("SELECT incident_id FROM incidents WHERE resolved_at IS NULL")]
    alert(dry_run=False, acknowledge=incident)
    assert _now_wrong(OTHER) == []
    with book.opened() as kept:
        kept.execute("UPDATE incidents SET acknowledged_at = NULL")
    assert _now_wrong(OTHER) == [("page", "escalate", "sent")]
    assert _now_wrong(OTHER) == []
    assert sorted(_now_wrong()) == [("page", "resolve", "sent"), ("slack", "resolve", "sent")]
    with pytest.raises(UsageError, match="no open incident"):
        alert(dry_run=False, acknowledge=incident)


def test_what_passes_before_it_could_be_told_wakes_nobody(servers: tuple[Services, Mailbox], later: Callable[..., None]) -> None:
    services, mailbox = servers
    services.out, mailbox.answer = {"enqueue", "api"}, "451 later"
    _now_wrong(FAILED)
    services.out = set()
    later(hours=2)
    _now_wrong()
    assert "trigger" not in services.pages.values()
    assert not [one for one in _statuses() if one[2] in ("queued", "sending")]


def test_a_dry_run_says_what_would_go_where_and_does_nothing(servers: tuple[Services, Mailbox], capsys: pytest.CaptureFixture[str]) -> None:
    services, mailbox = servers
    record(routed([FAILED, STALE, NULLS]), origin="check", now=NOW)
    alert(dry_run=True, acknowledge=None)
    said = capsys.readouterr().out
    for line in ("page\tpage\t1\tRun failed: raw_postgres", "email\temail\t1\tStale data: raw_stripe.charges", "slack\tslack\t1\tNull rate: "):
        assert line in said
    assert (services.asked, mailbox.mails, _statuses()) == ([], [], [])
    alert(dry_run=False, acknowledge=None)
    assert "Run failed: raw_postgres\tsent" in capsys.readouterr().out
    services.out = {"api"}
    mailbox.answer = "451 later"
    services.failures = [Failure("enqueue", 429, {"Retry-After": "7200"})]
    record(routed([FAILED, STALE, NULLS, replace(FAILED, table="marts")]), origin="check", now=NOW)
    with pytest.raises(StepFailed, match="1 alerts were not taken"):
        alert(dry_run=False, acknowledge=None)


def test_alerts_hold_neither_secrets_nor_personal_data(servers: tuple[Services, Mailbox], setting: Setting) -> None:
    services, mailbox = servers
    setting("SOURCES__POSTGRES__CREDENTIALS", "postgresql://reader:hunter22@db.startup.test/shop")
    leaking = "jo@example.com cannot reach postgresql://reader:hunter22@db.startup.test/shop, ssn 078-05-1120"
    _now_wrong(*(replace(one, observed=leaking, query=f"SELECT '{leaking}'") for one in (FAILED, STALE, NULLS)))
    told = json.dumps(services.events) + json.dumps(services.messages) + str([mail.as_string() for mail in mailbox.mails])
    assert "cannot reach" in told
    for secret in ("hunter22", "jo@example.com", "078-05-1120", "db.startup.test", TOKEN):
        assert secret not in told
    assert ROUTING_KEY not in json.dumps([event["payload"] for event in services.events])
    assert CHANNEL not in told


def _run(error: Exception | None, refused: tuple[str, str] | None = None, **steps: str | tuple[str, str]) -> None:
    """A run whose steps end as given (with what they say), and what `warehouse run` does when it ends."""
    with ledger.run("run") as run:
        for name, ends in steps.items():
            status, said = ends if isinstance(ends, tuple) else (ends, "it broke" if ends == "failed" else None)
            with run.step("load", name) if name == "postgres" else run.step(name) as step:
                step.status, step.error = status, said
    after_run(run, error, [refused] if refused else [])


def test_a_run_that_fails_pages_until_it_goes_well_and_the_heartbeat_says_so(servers: tuple[Services, Mailbox], later: Callable[..., None]) -> None:
    services, mailbox = servers
    _run(None, postgres="succeeded", transform="succeeded")
    assert (services.pings, services.pages) == (1, {})
    for _ in range(3):
        later(hours=1)
        _run(StepFailed("it broke"), postgres="failed")
    stale = [replace(STALE, table=f"raw_postgres.{table}") for table in ("users", "orders")]
    assert _now_wrong(*stale) == []  # they follow from the run that failed
    assert list(services.pages.values()) == ["trigger"]
    assert services.events[0]["payload"]["summary"] == "Run failed: raw_postgres"
    record([], origin="check", now=clock.now())
    _run(FindingsFound("2 findings"), postgres="succeeded", check="findings")  # what it found is told by itself
    assert (list(services.pages.values()), services.pings, len(services.events), mailbox.mails) == (["resolve"], 2, 2, [])


def test_the_command_itself_pages_when_it_fails_and_keeps_its_secret(servers: tuple[Services, Mailbox], setting: Setting) -> None:
    services, _ = servers
    setting("SOURCES__POSTGRES__CREDENTIALS", "postgresql://reader:hunter22@127.0.0.1:1/shop")
    ran = call("run")
    assert ran.code == 3
    assert [event["payload"]["summary"] for event in services.events] == ["Run failed: raw_postgres"]
    assert (services.pings, "hunter22" in json.dumps(services.events)) == (0, False)
    (event,) = services.events
    assert "`warehouse run` failed" in event["payload"]["custom_details"]["what"][0]
    shown = call("alert", "--dry-run")
    assert (shown.code, "Run failed: raw_postgres" in shown.out) == (0, True)
    assert call("alert", "--acknowledge", "nothing").code == 2


def test_what_is_no_failure_pages_nobody(servers: tuple[Services, Mailbox]) -> None:
    services, _ = servers
    _run(LeaseHeld("another process is writing"))
    with ledger.run("run") as run:
        pass
    after_run(run, KeyboardInterrupt(), [])  # type: ignore[arg-type]  # as Ctrl+C ends a run
    assert (services.events, services.pings) == ([], 0)
    _run(UsageError("PRIVACY__HMAC_KEY is not set"))
    assert [event["payload"]["summary"] for event in services.events] == ["Run failed: warehouse"]
    _run(None)
    assert list(services.pages.values()) == ["resolve"]


def test_what_a_load_refuses_to_believe_is_told_until_the_next_load_believes_it(servers: tuple[Services, Mailbox]) -> None:
    services, _ = servers
    _run(FindingsFound("x"), ("raw_postgres.orders", "90 % of the rows vanished\n mend"), postgres="succeeded")
    assert "90 % of the rows vanished" in json.dumps(services.posted[0]["blocks"])
    _run(StepFailed("x"), postgres="failed")
    assert "Resolved" not in services.posted[0]["text"]
    _run(None, postgres="succeeded")
    assert "Resolved" in services.posted[0]["text"]


def test_an_audit_that_stopped_a_build_is_told_until_a_build_passes(servers: tuple[Services, Mailbox]) -> None:
    services, _ = servers
    why = "marts.order_facts: audit amount_is_valid found 1 rows\nstaging.stg_x__y: audit not_null found 2 rows"
    _run(FindingsFound(why), transform=("findings", why))
    assert len(services.posted) == 2
    assert "the audit found 1 rows" in json.dumps(services.posted[0]["blocks"])
    _run(StepFailed("x"), postgres="failed")  # no build, so nothing is known
    assert not any("Resolved" in message["text"] for message in services.posted)
    _run(None, transform="succeeded")
    assert all("Resolved" in message["text"] for message in services.posted)


def test_broken_rules_do_not_keep_a_failure_from_being_told(
    servers: tuple[Services, Mailbox], declare_rules: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    services, _ = servers
    declare_rules("rules: [{name: all, to: pager}]\n")
    _run(UsageError("rules.yaml is wrong"), check="failed")
    assert list(services.pages.values()) == ["trigger"]
    assert "rules.0.to" in capsys.readouterr().err


def test_freshness_alone_needs_no_warehouse_and_tells_who_is_to_be_told(servers: tuple[Services, Mailbox], later: Callable[..., None]) -> None:
    _, mailbox = servers
    with ledger.run("load postgres") as run, run.step("load", "postgres"):
        pass
    later(hours=6)
    check_freshness(as_json=True, junit=None, alert=True)
    later(seconds=1)
    for _ in range(2):
        with pytest.raises(FindingsFound, match="2 findings"):
            check_freshness(as_json=True, junit=None, alert=True)
    assert [mail["Subject"] for mail in mailbox.mails] == ["Stale data: raw_postgres.orders (and 1 more)"]


def test_two_processes_send_one_after_the_other(servers: tuple[Services, Mailbox]) -> None:
    services, _ = servers
    record(routed([NULLS, FAILED, OTHER]), origin="check", now=clock.now())
    program = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from cli.alert import route; route()"
    processes = [subprocess.Popen([sys.executable, "-c", program]) for _ in range(3)]
    assert [process.wait(timeout=120) for process in processes] == [0, 0, 0]
    assert (len(services.events), len(services.posted)) == (1, 2)
    assert dispatch(read_rules()) == []
