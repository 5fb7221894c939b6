"""Who is told of what: after each run, and by `warehouse alert`."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from cli import tables
from warehouse import clock
from warehouse.console import complain, logger, say
from warehouse.errors import DeclarationError, FindingsFound, StepFailed
from warehouse.settings import settings

if TYPE_CHECKING:
    from monitoring.outbox import Sent
    from monitoring.rules import Rules
    from warehouse.ledger import Run


def after_run(run: "Run", error: BaseException | None, refused: Sequence[tuple[str, str]]) -> None:
    """Route the findings and the failure of a run, and tell the heartbeat of one that succeeded.

    Never raises: the run's own result must stay what the operator sees.
    """
    _tell(lambda rules: _record(run, error, refused, rules))
    if error is None or isinstance(error, FindingsFound):
        _heartbeat()


def after_comparison(run: "Run", error: BaseException | None) -> None:
    """The same after a command that only looks: that it went well says nothing of a run that failed, and is no beat."""
    is_failure = error is not None and not isinstance(error, FindingsFound)
    _tell(lambda rules: _record(run, error, [], rules) if is_failure else None)


def _tell(record: "Callable[[Rules], None]") -> None:
    try:
        rules = _rules()
        record(rules)
        _say(route(rules))
    except Exception as problem:  # what is queued stays queued, and the next run tries again
        logger.exception("alerts")
        complain(f"alerts were not sent: {type(problem).__name__}: {problem}")


def _record(run: "Run", error: BaseException | None, refused: Sequence[tuple[str, str]], rules: "Rules") -> None:
    from monitoring.failures import record_run

    record_run(run, error, refused, rules, clock.now())


def alert(*, dry_run: bool, acknowledge: str | None) -> None:
    """Send what waits, or say what would go where.

    Raises:
        UsageError: no such incident, or the rules are wrong.
        StepFailed: an alert reached nobody.
    """
    from monitoring import alerts

    if acknowledge is not None:
        alerts.acknowledge(acknowledge, clock.now())
        say(f"acknowledged: {acknowledge} is not escalated")
        return
    if dry_run:
        _show_dry_run()
        return
    sent = route()
    tables.show("alerts", ("channel", "what", "incident", "result", "why"), [(one.channel, one.action, one.title, one.status, one.error) for one in sent])
    unsent = [one for one in sent if one.status in ("queued", "refused")]
    if unsent:
        raise StepFailed(f"{len(unsent)} alerts were not taken by their channel.", mend="each line says why; what is queued is tried again by the next run")


def route(rules: "Rules | None" = None) -> "list[Sent]":
    """Bring incidents in line with what is wrong now, and send what is due."""
    from monitoring.alerts import settle
    from monitoring.outbox import dispatch

    rules = rules or _rules()
    settle(rules, settings().alerts, clock.now())
    return dispatch(rules)


def announce_records() -> None:
    """Tell people how far the records of privacy go, once for each state; never raises, as `after_run`."""
    from monitoring.alerts import announce
    from privacy.records import heads

    try:
        now, rules = heads(), _rules()
        if now and announce("Records of privacy", [f"{name}: {head}" for name, head in now.items()], "docs/runbooks/erasure.md", rules, clock.now()):
            from monitoring.outbox import dispatch

            _say(dispatch(rules))
    except Exception as problem:  # what is queued stays queued, and the next run tries again
        logger.exception("alerts")
        complain(f"the heads of the records were not sent: {type(problem).__name__}: {problem}")


def _rules() -> "Rules":
    """The declared rules; when they are broken, what fails is told all the same."""
    from monitoring.rules import Rules, read_rules

    try:
        return read_rules()
    except DeclarationError as error:
        complain(f"error: {error}")
        everything = {"name": "run failed", "to": "page", "runbook": "docs/runbooks/failed-run.md"}
        return Rules.model_validate({"rules": [everything], "takes_over": ["page", "slack", "email"]})


def _say(sent: "list[Sent]") -> None:
    for one in sent:
        logger.info("alert", extra={"fields": {"channel": one.channel, "action": one.action, "status": one.status, "why": one.error}})
        if one.status != "sent":
            complain(f"alert {one.status}: {one.channel}: {one.title}: {one.error}")


def _heartbeat() -> None:
    alerts = settings().alerts
    if alerts.heartbeat_url is None or not alerts.heartbeat_url.get_secret_value():
        return
    from monitoring.channels import Unreachable, heartbeat

    try:
        heartbeat()
    except Unreachable as problem:  # whoever waits for it notices by itself
        complain(f"the heartbeat was not taken: {problem}")


def _show_dry_run() -> None:
    from monitoring import book
    from monitoring.alerts import candidates, open_incidents, to_tell
    from monitoring.outbox import waiting

    rules, alerts = _rules(), settings().alerts
    with book.opened() as kept:
        findings = book.active_findings(kept)
    rows = []
    told = to_tell(findings, rules)
    for one in told:
        for wanted in one.channels:
            able = candidates(wanted, rules, alerts)
            rows.append((wanted, able[0] if able else "no channel is configured", len(one.group.findings), one.message.title))
    tables.show("would be told", ("to", "through", "findings", "incident"), rows)
    for one in told:
        say("\n".join(("", one.message.title, *(f"  {line}" for line in one.message.lines()))))
    opened = [(one["incident_id"], one["title"], one["opened_at"], one["acknowledged_at"]) for one in open_incidents()]
    tables.show("open incidents", ("id", "incident", "opened", "acknowledged"), opened)
    tables.show("waiting", ("channel", "what", "incident", "not before", "why"), [tuple(one.values()) for one in waiting()])
