"""`warehouse deploy`: what the label `deploy` on a pull request asks for. Production takes the change over, then it is merged."""

import subprocess
import time
from dataclasses import dataclass
from typing import Any

from cli import pull_request
from cli.review import review
from cli.run import run_sources
from warehouse.console import say
from warehouse.errors import StepFailed, UsageError
from warehouse.settings import ROOT

LABEL = "deploy"
MAY = ("admin", "write")
"""Who may ask for it, by the right that GitHub says they have; whoever sorts issues may set a label, too."""
LOOKS, PAUSE = 10, 3.0
"""How often, and after how many seconds, GitHub is asked whether the branch can be merged: it finds that out in its own time."""


_AGAIN = f"take the label {LABEL} off and set it again"


@dataclass(frozen=True)
class Change:
    """A pull request that may be deployed, and the commit that was asked for."""

    number: int
    sha: str


def deploy(*, megabytes: int) -> None:
    """Review the checkout once more, build production from it, check, publish, and merge exactly this commit.

    Raises:
        UsageError: this pull request, who set its label, or this checkout may not be deployed.
        FindingsFound: the review or the checks found something; nothing is merged.
        StepFailed: a step failed, or GitHub did not merge.
    """
    where = pull_request.target()
    change = _may_be_deployed(where)
    held = _checked_out()
    if held != change.sha:
        raise UsageError(f"commit {held or 'unknown'} is checked out, and #{change.number} is at {change.sha}.", mend=_AGAIN)
    review(None, megabytes=megabytes, as_json=False, comment=True)
    run_sources(f"deploy pr_{change.number}", is_wanted=lambda _: False)  # nothing is loaded: the change is all that is new
    _merge(where, change)
    say(f"#{change.number} is deployed and merged: {change.sha}")


def _may_be_deployed(where: pull_request.Target) -> Change:
    happened = pull_request.event()
    if happened.get("action") != "labeled" or happened.get("label", {}).get("name") != LABEL:
        raise UsageError("nobody asked for it.", mend=f"set the label {LABEL} on the pull request")
    who = str(happened.get("sender", {}).get("login", ""))
    right = _asked(where, "GET", f"collaborators/{who}/permission").get("permission")
    if right not in MAY:
        raise UsageError(f"who set the label may not deploy: {right}; allowed: {', '.join(MAY)}", mend="ask somebody who may merge")
    for turn in range(LOOKS):
        asked = _asked(where, "GET", f"pulls/{where.number}")
        if asked["mergeable"] is not None or asked["state"] != "open":
            break
        if turn < LOOKS - 1:
            time.sleep(PAUSE)
    head, base = asked["head"], asked["base"]
    behind = _asked(where, "GET", f"compare/{base['ref']}...{head['sha']}")["behind_by"] if (head["repo"] or {}).get("full_name") == where.repository else 0
    default = happened.get("repository", {}).get("default_branch", "main")
    wrong = [
        (asked["state"] != "open", f"it is {asked['state']}", "open it again"),
        (bool(asked.get("draft")), "it is a draft", "mark it as ready"),
        ((head["repo"] or {}).get("full_name") != where.repository, "it comes from a fork", "push the branch to this repository: secrets do not go to forks"),
        (base["ref"] != default, f"it goes to {base['ref']}", f"only what goes to {default} is production"),
        (asked["mergeable"] is not True, "it cannot be merged", "resolve its conflicts"),
        (asked.get("mergeable_state") == "blocked", "a rule of the branch is not met", "get the approvals and checks that it asks for"),
        (behind > 0, f"it lacks {behind} commits of {base['ref']}", "update the branch: production would lose what they changed"),
    ]
    for is_so, what, mend in wrong:
        if is_so:
            raise UsageError(f"#{where.number} cannot be deployed: {what}.", mend=mend)
    return Change(where.number, str(head["sha"]))


def _merge(where: pull_request.Target, change: Change) -> None:
    """Merge this commit and no later one."""
    try:
        _asked(where, "PUT", f"pulls/{change.number}/merge", json={"sha": change.sha, "merge_method": "squash"})
    except StepFailed as error:
        if _asked(where, "GET", f"pulls/{change.number}").get("merged"):
            return  # the first try had done it, and its answer was lost
        mend = "production holds the change: merge it by hand, or leave it and the next scheduled run builds the main branch again"
        raise StepFailed(error.what, mend=mend) from None


def _asked(where: pull_request.Target, method: str, path: str, **named: Any) -> Any:
    from requests.exceptions import RequestException

    said = ""
    for turn in range(pull_request.TRIES):
        wait: float | None = None
        try:
            return pull_request.ask(where, method, path, **named)
        except pull_request.TryAgain as failure:
            said, wait = str(failure), failure.wait
        except RequestException as error:
            said = type(error).__name__
        if turn < pull_request.TRIES - 1:
            time.sleep(min(wait if wait is not None else pull_request.FIRST_WAIT * 2**turn, pull_request.LONGEST_WAIT))
    raise StepFailed(f"GitHub did not answer {method} {path}: {said}", mend=_AGAIN)


def _checked_out() -> str:
    asked = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    return asked.stdout.strip()
