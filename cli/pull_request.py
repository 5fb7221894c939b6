"""The pull request a review speaks of: its number, and the one comment of ours on it, through GitHub's API."""

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from warehouse.console import complain
from warehouse.errors import StepFailed, UsageError, scrub

MARKER = "<!-- warehouse review -->"
"""Begins our comment, unseen, so that the next review finds it."""
LONGEST = 65_536
"""Characters that GitHub takes in a comment."""
TIMEOUT, TRIES, FIRST_WAIT, LONGEST_WAIT, PAGES = 20, 4, 1.0, 60.0, 100
_CUT = "\n\n*The report is longer than GitHub takes; the rest is in the job's log.*\n"


@dataclass(frozen=True)
class Target:
    """Where to comment. From a fork nobody may: the token that GitHub gives its runs can only read."""

    api: str
    repository: str
    number: int
    token: SecretStr
    is_fork: bool


def number() -> int | None:
    """The pull request's number where GitHub runs us for one."""
    found = event().get("pull_request", {}).get("number")
    return int(found) if found else None


def target() -> Target:
    """Where to comment, as GitHub's own variables say.

    Raises:
        UsageError: a variable is missing, or the event is not of a pull request.
    """
    repository, token = os.environ.get("GITHUB_REPOSITORY", ""), os.environ.get("GITHUB_TOKEN", "")
    missing = [name for name, value in (("GITHUB_REPOSITORY", repository), ("GITHUB_TOKEN", token)) if not value]
    if missing:
        raise UsageError(
            f"{' and '.join(missing)} not set, and GitHub cannot be asked without.", mend="leave --comment out, or run it as .github/workflows/plan.yml does"
        )
    found = number()
    if found is None:
        raise UsageError("GITHUB_EVENT_PATH names no event of a pull request.", mend="leave --comment out, or run it on pull_request")
    head = (event()["pull_request"].get("head") or {}).get("repo") or {}
    api = os.environ.get("GITHUB_API_URL") or "https://api.github.com"
    return Target(api.rstrip("/"), repository, found, SecretStr(token), head.get("full_name", repository) != repository)


def post(where: Target, text: str) -> None:
    """Write the comment, or write it anew where it stands. Tried again when GitHub fails at it.

    Raises:
        StepFailed: GitHub refused, or did not answer.
    """
    if where.is_fork:
        complain("not commented: a run for a fork may only read; the report is in this job's log")
        return
    from requests.exceptions import RequestException

    body, said = _fitting(text), ""
    for turn in range(TRIES):
        try:
            # Looked for again each time: what failed may have been written all the same.
            held = _find(where)
            path = f"issues/comments/{held}" if held else f"issues/{where.number}/comments"
            ask(where, "PATCH" if held else "POST", path, json={"body": body})
        except TryAgain as failure:
            said, wait = str(failure), failure.wait
        except RequestException as error:
            said, wait = type(error).__name__, None
        else:
            return
        if turn < TRIES - 1:
            time.sleep(min(wait if wait is not None else FIRST_WAIT * 2**turn, LONGEST_WAIT))
    raise StepFailed(f"GitHub did not take the comment: {said}", mend="run the job again; the report is in its log")


class Refused(StepFailed):
    """GitHub said no; asking again would not help."""


class TryAgain(Exception):
    """GitHub failed; `wait` is the seconds it asks for, if it says so."""

    def __init__(self, what: str, wait: float | None) -> None:
        super().__init__(what)
        self.wait = wait


def _find(where: Target) -> int | None:
    """The id of our comment. The oldest one, where two runs at once wrote two."""
    for page in range(1, PAGES + 1):
        comments = ask(where, "GET", f"issues/{where.number}/comments", params={"per_page": 100, "page": page})
        for comment in comments:
            if str(comment.get("body") or "").startswith(MARKER):
                return int(comment["id"])
        if len(comments) < 100:
            break
    return None


def ask(where: Target, method: str, path: str, **named: Any) -> Any:
    """One request to the repository's API, and its answer's JSON.

    Raises:
        Refused: GitHub will not have it.
        TryAgain: GitHub failed at it, or is being asked too much.
    """
    import requests

    headers = {
        "Authorization": f"Bearer {where.token.get_secret_value()}",
        "Accept": "application/vnd.github+json",
        "X-GitHub-Api-Version": "2022-11-28",
    }
    answer = requests.request(method, f"{where.api}/repos/{where.repository}/{path}", headers=headers, timeout=TIMEOUT, **named)
    retry_after = answer.headers.get("Retry-After", "")
    wait = float(retry_after) if retry_after.isdigit() else None
    if answer.status_code >= 500 or answer.status_code == 429 or (answer.status_code == 403 and wait is not None):
        raise TryAgain(f"HTTP {answer.status_code}", wait)
    if answer.status_code >= 400:
        said = scrub(_message(answer).replace(where.token.get_secret_value(), "***"))[:200]
        mend = "give the job `permissions: pull-requests: write`" if answer.status_code in (401, 403, 404) else "the report is in the job's log"
        raise Refused(f"GitHub refused {_what(method, path)}: HTTP {answer.status_code} {said}", mend=mend)
    return answer.json()


def _what(method: str, path: str) -> str:
    return "the comment" if "comments" in path else f"{method} {path}"


def _message(answer: Any) -> str:
    try:
        return str(answer.json().get("message", ""))
    except (ValueError, AttributeError):
        return ""


def _fitting(text: str) -> str:
    body = f"{MARKER}\n{text}"
    if len(body) <= LONGEST:
        return body
    return body[: LONGEST - len(_CUT)].rsplit("\n", 1)[0] + _CUT


def event() -> dict[str, Any]:
    """What happened on GitHub that we run for; empty outside its runners."""
    place = os.environ.get("GITHUB_EVENT_PATH")
    if not place:
        return {}
    try:
        event = json.loads(Path(place).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise UsageError("GITHUB_EVENT_PATH names a file that cannot be read as JSON.", mend="unset it outside GitHub's runners") from None
    return event if isinstance(event, dict) else {}
