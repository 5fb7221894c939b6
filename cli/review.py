"""`warehouse review`: what a change of the project would do to production, told before it is merged."""

import json
import os
import re
import subprocess
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from cli.run import recorded
from warehouse import clock, ledger, storage
from warehouse.console import progress, say
from warehouse.errors import DeclarationError, FindingsFound, UsageError
from warehouse.settings import ROOT

if TYPE_CHECKING:
    from transform.effect import Difference, MetricChange
    from transform.review import Environment

_RUNS_LOOKED_AT = 200


@dataclass
class Review:
    """All that a review tells.

    Attributes:
        seconds_before: model to what its last build in production took; models that no run in the ledger built are missing.
    """

    environment: "Environment"
    differences: "list[Difference]" = field(default_factory=list)
    metrics: "list[MetricChange]" = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    seconds_before: dict[str, float] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The review as JSON values."""
        environment = asdict(self.environment)
        return {
            "environment": self.environment.name,
            "is_built": self.environment.is_built,
            "model_tests": self.environment.tests,
            "problems": environment["problems"],
            "warnings": self.warnings,
            "models": [{**model, "seconds_before": self.seconds_before.get(model["name"])} for model in environment["models"]],
            "marts": [asdict(one) for one in self.differences],
            "metrics": [asdict(one) for one in self.metrics],
        }


def review(name: str | None, *, megabytes: int, as_json: bool, comment: bool) -> None:
    """Build the change in its environment, tell what it does, and post that where asked.

    Raises:
        FindingsFound: a build, an audit, a model test, a contract or a headline metric would fail.
        UsageError: no environment can be named, or there is no production to compare with.
        StepFailed: GitHub did not take the comment.
    """
    from cli import pull_request
    from cli.review_text import markdown

    target = pull_request.target() if comment else None
    environment = _environment_name(name)
    with recorded(f"review {environment}") as run, run.step("review", environment) as step, progress("building the change"):
        told = _look(environment, megabytes)
        problems = told.environment.problems
        step.detail = {"models": [model.name for model in told.environment.models], "problems": [f"{one.kind}: {one.what}"[:200] for one in problems][:50]}
        step.status = "findings" if problems else "succeeded"
    text = markdown(told)
    say(json.dumps(told.as_json(), default=str) if as_json else text.rstrip())
    if target is not None:
        pull_request.post(target, text)
    if problems:
        raise FindingsFound(f"{len(problems)} problems: {', '.join(sorted({one.kind for one in problems}))}.", mend="the report names each; mend the change")


def _look(name: str, megabytes: int) -> Review:
    from monitoring.environments import check_environment
    from privacy.policy import policy
    from transform.dashboards import dashboards, reached
    from transform.effect import differences, headline
    from transform.headline import headline_metrics
    from transform.review import Problem, build_environment

    metrics, seen = headline_metrics(), dashboards()
    environment = build_environment(name, megabytes=megabytes)
    told = Review(environment, seconds_before=_seconds_before())
    if not environment.is_built:
        return told
    personal = {column for columns in policy().columns.values() for column, rule in columns.items() if rule.action != "keep"}
    wanted = [model.name for model in environment.models if model.category != "removed"]
    with storage.open_warehouse() as connection:
        told.differences = differences(connection, environment, personal)
        for difference in told.differences:
            difference.dashboards, broken = reached(difference, seen)
            environment.problems += [Problem("dashboard", what) for what in broken]
        told.metrics = headline(connection, environment, metrics)
        try:
            found = check_environment(connection, name, wanted, views=environment.views, now=clock.now())
        except DeclarationError as error:
            environment.problems.append(Problem("contract", error.what))
            return told
    for finding in found:
        place = f"{finding.table}.{finding.column}" if finding.column else finding.table
        line = f"{place}: {finding.check}: {finding.observed}; expected: {finding.expected}"
        if finding.severity == "error":
            environment.problems.append(Problem("contract", line))
        else:
            told.warnings.append(line)
    return told


def _seconds_before() -> dict[str, float]:
    """What each model's last build in production took, by the ledger."""
    found: dict[str, float] = {}
    for run in ledger.recent_runs(_RUNS_LOOKED_AT):
        for step in run["steps"]:
            if step["step"] == "transform" and step["detail"]:
                for model, seconds in json.loads(step["detail"]).get("models", {}).items():
                    found.setdefault(model, seconds)
    return found


def _environment_name(given: str | None) -> str:
    """The name given, or the pull request's, or the branch's, as a name of schemas."""
    from cli import pull_request

    number = pull_request.number()
    name = given or (f"pr_{number}" if number else _branch())
    safe = re.sub(r"[^a-z0-9_]+", "_", name.lower()).strip("_")[:40]
    if not safe or safe == "prod":
        raise UsageError(f"{name!r} cannot name an environment.", mend="give one: `warehouse review --environment pr_12`")
    return safe


def _branch() -> str:
    branch = os.environ.get("GITHUB_HEAD_REF") or ""
    if not branch:
        try:
            asked = subprocess.run(["git", "branch", "--show-current"], cwd=ROOT, capture_output=True, text=True, check=False)
            branch = asked.stdout.strip()
        except OSError:
            branch = ""  # no git on this machine
    if not branch:
        raise UsageError("no branch is checked out that could name the environment.", mend="give one: `warehouse review --environment pr_12`")
    return f"branch_{branch}"
