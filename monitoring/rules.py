"""Which finding goes where, as `monitoring/rules.yaml` declares it."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, time, timedelta
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from monitoring.findings import Finding
from warehouse import declared
from warehouse.alert_settings import Channel
from warehouse.settings import ROOT

RULES_FILE = ROOT / "monitoring" / "rules.yaml"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Escalation(_Strict):
    """Whom to tell as well when nobody has acknowledged or mended it after so long."""

    after_minutes: Annotated[int, Field(ge=1)]
    to: Channel


class Rule(_Strict):
    """What fits a finding when all that is given fits; and where such findings go. `nowhere` only keeps them in ops.findings.

    `checks` and `tables` are patterns such as `marts.*`; `above` is a share of rows.
    """

    name: Annotated[str, Field(pattern=r"^[a-z][a-z ]*$")]
    checks: Annotated[list[str], Field(min_length=1)] | None = None
    tables: Annotated[list[str], Field(min_length=1)] | None = None
    severity: Literal["error", "warning"] | None = None
    above: Annotated[float, Field(ge=0, lt=1)] | None = None
    to: Channel | Literal["nowhere"]
    runbook: Annotated[str, Field(pattern=r"^docs/runbooks/[a-z-]+\.md$")]
    quiet: str | None = None
    escalate: Escalation | None = None

    @field_validator("runbook")
    @classmethod
    def _is_there(cls, value: str) -> str:
        if not (ROOT / value).is_file():
            raise ValueError("there is no such page")
        return value

    @property
    def fits_all(self) -> bool:
        """Whether no finding is left over."""
        return self.checks is None and self.tables is None and self.severity is None and self.above is None

    def fits(self, finding: Finding) -> bool:
        """Whether a finding is one of this rule's."""
        return (
            (self.checks is None or any(fnmatchcase(finding.check, pattern) for pattern in self.checks))
            and (self.tables is None or any(fnmatchcase(finding.table, pattern) for pattern in self.tables))
            and (self.severity is None or finding.severity == self.severity)
            and (self.above is None or (finding.share is not None and finding.share > self.above))
        )


class Owner(_Strict):
    """Who is asked about tables, by patterns such as `marts.*`."""

    tables: Annotated[list[str], Field(min_length=1)]
    owner: str


class QuietHours(_Strict):
    """A part of each day, by the clocks of a time zone; it may go over midnight."""

    begin: Annotated[str, Field(alias="from", pattern=r"^([01]\d|2[0-3]):[0-5]\d$")]
    until: Annotated[str, Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d$")]
    time_zone: str

    @field_validator("time_zone")
    @classmethod
    def _known(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (KeyError, ValueError, OSError):
            raise ValueError("must be an IANA name such as Europe/Berlin") from None
        return value

    def end(self, now: datetime) -> datetime | None:
        """When it is over, if it is quiet now; aware."""
        zone = ZoneInfo(self.time_zone)
        here = now.astimezone(zone)
        begin, until = time.fromisoformat(self.begin), time.fromisoformat(self.until)
        clock = here.time()
        is_quiet = begin <= clock < until if begin <= until else clock >= begin or clock < until
        if not is_quiet:
            return None
        day = here.date() + timedelta(days=1) if begin > until and clock >= begin else here.date()
        return datetime.combine(day, until, zone)


class Rules(_Strict):
    """All of `monitoring/rules.yaml`."""

    rules: Annotated[list[Rule], Field(min_length=1)]
    takes_over: Annotated[list[Channel], Field(min_length=1)]
    owners: list[Owner] = []
    quiet_hours: dict[str, QuietHours] = {}
    runbook_base: Annotated[str, Field(pattern=r"^(https?://\S+/)?$")] = ""

    @model_validator(mode="after")
    def _whole(self) -> "Rules":
        names = [rule.name for rule in self.rules]
        if len(set(names)) != len(names):
            raise ValueError("two rules have one name")
        if not self.rules[-1].fits_all:
            raise ValueError("the last rule must fit all: no checks, tables, severity or above")
        for rule in self.rules[:-1]:
            if rule.fits_all:
                raise ValueError(f"rule {rule.name!r} fits all, so the rules after it are never asked")
        for rule in self.rules:
            if rule.quiet is not None and rule.quiet not in self.quiet_hours:
                raise ValueError(f"rule {rule.name!r}: quiet is {rule.quiet!r}; allowed: {', '.join(self.quiet_hours)}")
            if rule.quiet is not None and rule.to == "page":
                raise ValueError(f"rule {rule.name!r}: a page never waits for the end of quiet hours")
        return self

    def rule(self, finding: Finding) -> Rule:
        """The rule that decides about a finding."""
        return next(rule for rule in self.rules if rule.fits(finding))

    def named(self, name: str) -> Rule:
        """A rule by its name; one that is no longer declared is dealt with as the last one."""
        return next((rule for rule in self.rules if rule.name == name), self.rules[-1])

    def owner(self, table: str) -> str:
        """Who is asked about a table; empty when nobody is declared."""
        return next((one.owner for one in self.owners if any(fnmatchcase(table, pattern) for pattern in one.tables)), "")

    def runbook(self, rule: Rule) -> str:
        """Where the page of a rule is read."""
        return self.runbook_base + rule.runbook

    def quiet_until(self, rule: Rule, now: datetime) -> datetime | None:
        """When a rule's alert may go out, if it has to wait now."""
        return self.quiet_hours[rule.quiet].end(now) if rule.quiet else None


def read_rules(file: Path | None = None) -> Rules:
    """The rules in force.

    Raises:
        DeclarationError: one line per problem: key, what was found, what is allowed.
    """
    return declared.read(file or RULES_FILE, Rules)


def routed(findings: Iterable[Finding], rules: Rules | None = None) -> list[Finding]:
    """The findings, each with its route, by the declared rules unless others are given.

    Raises:
        DeclarationError: the rules cannot be read.
    """
    rules = rules or read_rules()
    return [replace(finding, route=rules.rule(finding).to) for finding in findings]
