"""Each finding has a route, the three rules of the purpose are the defaults, and a wrong rule is refused with its name."""

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cli.doctor import _alerts
from monitoring.findings import Finding
from monitoring.rules import QuietHours, read_rules, routed
from warehouse.errors import DeclarationError, UsageError, scrub
from warehouse.settings import ROOT, settings

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
FOUND = Finding("missing", "marts.user_dim", "country", "error", "6 of 100 rows", "no null", NOW, "", 0.06)
RUNBOOKS = sorted((ROOT / "docs" / "runbooks").glob("*.md"))
LAST = "rules: [{name: x, checks: [a], to: slack, runbook: docs/runbooks/shape.md}, {name: all, to: nowhere, runbook: docs/runbooks/shape.md}]\n"
GOOD = LAST + "takes_over: [slack]\n"


@pytest.mark.parametrize(
    ("finding", "route", "rule"),
    [
        (replace(FOUND, check="run failed", table="raw_postgres", share=None), "page", "run failed"),
        (replace(FOUND, check="freshness", share=None), "email", "stale data"),
        (FOUND, "slack", "null rate"),
        (replace(FOUND, share=0.05), "slack", "broken promise"),
        (replace(FOUND, check="evaluation"), "slack", "not evaluated"),
        (replace(FOUND, check="drill_failed"), "page", "backups"),
        (replace(FOUND, check="schema change", severity="warning"), "slack", "shape"),
        (replace(FOUND, check="what nobody knows yet", share=None), "slack", "broken promise"),
    ],
)
def test_the_default_rules_route_each_kind(finding: Finding, route: str, rule: str) -> None:
    assert [one.route for one in routed([finding])] == [route]
    assert read_rules().rule(finding).name == rule
    assert read_rules().owner(finding.table) == "data"


def test_each_alert_has_its_page_and_each_page_of_an_alert_its_rule() -> None:
    told = {(name, f"docs/runbooks/{file.name}") for file in RUNBOOKS for name in re.findall(r"^Alert: `([a-z ]+)`", file.read_text(), re.MULTILINE)}
    assert told == {(rule.name, rule.runbook) for rule in read_rules().rules}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (GOOD.replace("to: nowhere", "to: pager"), "rules.1.to"),
        (GOOD.replace("checks: [a]", "check: a"), "key rules.0.check is not known"),
        (GOOD.replace("checks: [a], ", ""), "rules after it are never asked"),
        (GOOD.replace("name: all, ", "name: all, severity: error, "), "the last rule must fit all"),
        (GOOD.replace("name: all", "name: x"), "two rules have one name"),
        (GOOD.replace("shape.md}, ", "nothing.md}, "), "there is no such page"),
        (GOOD.replace("to: slack", "to: slack, quiet: night"), "allowed:"),
        (GOOD.replace("checks: [a]", "above: 5"), "rules.0.above"),
        (GOOD.replace("to: slack", "to: page, quiet: n") + "quiet_hours: {n: {from: '22:00', until: '07:00', time_zone: UTC}}\n", "never waits"),
        (GOOD + "quiet_hours: {n: {from: '22:00', until: '24:00', time_zone: UTC}}\n", "quiet_hours.n.until"),
        (GOOD + "quiet_hours: {n: {from: '22:00', until: '07:00', time_zone: Europe/Atlantis}}\n", "IANA"),
    ],
)
def test_a_wrong_rule_is_refused(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text(GOOD)
    read_rules(file)
    (wrong := tmp_path / "wrong.yaml").write_text(text)
    with pytest.raises(DeclarationError, match=re.escape(says)):
        read_rules(wrong)


@pytest.mark.parametrize(
    ("hours", "now", "end"),
    [
        (("22:00", "07:00", "UTC"), "2026-03-01T21:59:59+00:00", None),
        (("22:00", "07:00", "UTC"), "2026-03-01T22:00:00+00:00", "2026-03-02T07:00:00+00:00"),
        (("22:00", "07:00", "UTC"), "2026-03-02T06:59:59+00:00", "2026-03-02T07:00:00+00:00"),
        (("22:00", "07:00", "UTC"), "2026-03-02T07:00:00+00:00", None),
        (("12:00", "13:30", "Europe/Berlin"), "2026-07-01T11:29:00+00:00", "2026-07-01T11:30:00+00:00"),
        (("22:00", "07:00", "Europe/Berlin"), "2026-03-28T22:30:00+00:00", "2026-03-29T05:00:00+00:00"),  # the clocks go forward
    ],
)
def test_quiet_hours_are_by_the_clocks_of_their_zone(hours: tuple[str, str, str], now: str, end: str | None) -> None:
    quiet = QuietHours(begin=hours[0], until=hours[1], time_zone=hours[2])
    assert quiet.end(datetime.fromisoformat(now)) == (datetime.fromisoformat(end) if end else None)


def test_the_doctor_says_which_channel_is_not_configured_and_shows_no_secret(setting: Callable[[str, str | None], None]) -> None:
    assert "page is not configured (ALERTS__PAGERDUTY_ROUTING_KEY not set)" in _alerts()
    setting("ALERTS__PAGERDUTY_ROUTING_KEY", "R0UT1NGKEY")
    setting("ALERTS__SMTP_URL", "smtps://us%65r:hunter22@mail.example.org")
    said = _alerts()
    assert "page is configured" in said
    assert "email is not configured (ALERTS__EMAIL_FROM, ALERTS__EMAIL_TO not set)" in said
    assert scrub("R0UT1NGKEY hunter22 smtps://us%65r:hunter22@mail.example.org") == "*** *** ***"
    assert "hunter22" not in repr(settings())


@pytest.mark.parametrize(("name", "value"), [("ALERTS__SMTP_URL", "mail.example.org:hunter22"), ("ALERTS__EMAIL_TO", "nobody")])
def test_a_wrong_setting_of_a_channel_is_refused_unseen(setting: Callable[[str, str | None], None], name: str, value: str) -> None:
    setting(name, value)
    with pytest.raises(UsageError, match=name) as refused:
        settings()
    assert value not in str(refused.value)
