"""Zendesk over HTTP: signed in by OAuth, within its limits of requests a minute, patient with what passes by itself."""

import random
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

from warehouse import clock
from warehouse.errors import StepFailed, UsageError
from warehouse.settings import settings

Object = dict[str, Any]
_TRIES = 6
_FIRST_WAIT = 1.0
_MINUTE = 60.0
_RENEW_BEFORE = 60.0
_LIST_PAGE = 100
_SAID = 200


@dataclass
class Waiting:
    """The seconds by which this module waits; a test puts a clock of its own here."""

    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


WAITING = Waiting()


@dataclass
class Bucket:
    """At most so many requests within any minute.

    What counts is when an answer has come: the server had counted the request by then, so none is ever early there.
    """

    a_minute: int
    waiting: Waiting
    answered: deque[float] = field(default_factory=deque)

    def take(self) -> None:
        """Wait until another request may be sent."""
        while len(self.answered) >= self.a_minute:
            wait = self.answered[0] + _MINUTE - self.waiting.monotonic()
            if wait > 0:
                self.waiting.sleep(wait)
            else:
                self.answered.popleft()

    def spend(self) -> None:
        """A request was answered, or its answer given up."""
        self.answered.append(self.waiting.monotonic())


class Refused(Exception):
    """Zendesk's answer is an error that no repetition mends."""

    def __init__(self, status: int, said: str) -> None:
        super().__init__(f"HTTP {status}: {said}")
        self.status, self.said = status, said


class Client:
    """Reads one account.

    Args:
        exports_a_minute: the most requests to incremental exports, all of them together.
        requests_a_minute: the most requests to everything else.
        timeout: seconds to wait for an answer.
    """

    def __init__(self, exports_a_minute: int, requests_a_minute: int, timeout: float) -> None:
        from dlt.sources.helpers.requests import Session

        self._base = settings().zendesk_base_url()
        self._oauth = settings().zendesk_oauth()
        self._waiting = WAITING
        self._exports, self._others = Bucket(exports_a_minute, WAITING), Bucket(requests_a_minute, WAITING)
        self._session = Session(timeout=timeout, raise_for_status=False)
        self._session.auth = _as_it_is  # otherwise a .netrc would replace the token
        self._token: str | None = None
        self._renew_at: float | None = None

    def get(self, path: str, **query: Any) -> Object:
        """One answer of `/api/v2/<path>`.

        Raises:
            Refused: the request is wrong, or the plan does not have it. UsageError: the credentials are refused.
            StepFailed: Zendesk does not answer.
        """
        bucket = self._exports if path.startswith("incremental/") else self._others
        for is_renewed in (False, True):
            answer = self._ask("GET", f"/api/v2/{path}", bucket, params=query)
            if answer.status_code == 200:
                return dict(answer.json())
            if answer.status_code != 401 or self._oauth is None or is_renewed:
                break
            self._token = None
        if answer.status_code == 401:
            raise self._unwelcome(f"zendesk: the credentials are refused (HTTP 401) for {path}.")
        raise Refused(answer.status_code, _said(answer))

    def pages(self, path: str, name: str, **query: Any) -> Iterator[list[Object]]:
        """The pages of a list, by whichever way of paging the endpoint has."""
        further: Object = {"page[size]": _LIST_PAGE}
        while True:
            answer = self.get(path, **query, **further)
            yield answer.get(name) or []
            after = (answer.get("meta") or {}).get("after_cursor")
            if "meta" in answer:
                if not answer["meta"].get("has_more") or not after:
                    return
                if further.get("page[after]") == after:
                    raise StepFailed(f"zendesk: the cursor of {path} does not move.", mend="run again; tell Zendesk when it stays so")
                further = {"page[size]": _LIST_PAGE, "page[after]": after}
                continue
            page = parse_qs(urlsplit(answer.get("next_page") or "").query).get("page")
            if not page or page[0] == further.get("page"):
                return
            further = {"page": page[0], "per_page": _LIST_PAGE}

    def _ask(self, method: str, path: str, bucket: Bucket, **sent: Any) -> Any:
        """One answer that is neither a limit reached nor a fault that passes."""
        from dlt.sources.helpers.requests import RequestException

        failures = 0
        while True:
            headers = self._authorization() if method == "GET" else {}
            bucket.take()
            wait, is_limit = None, False
            try:
                answer = self._session.request(method, f"{self._base}{path}", headers=headers, allow_redirects=False, **sent)
                said = f"HTTP {answer.status_code}"
                if answer.status_code < 500 and answer.status_code != 429 and (answer.status_code != 200 or _is_json(answer)):
                    return answer
                wait = _retry_after(answer)
                is_limit = answer.status_code == 429 and wait is not None
            except RequestException:
                said = "no answer"
            finally:
                bucket.spend()
            failures += not is_limit  # a server that says how long it wants to be left alone does not fail
            if failures == _TRIES:
                raise StepFailed(
                    f"zendesk: {said} from {path}, {_TRIES} times.",
                    mend="run again later, what was read is kept; SOURCES__ZENDESK__BASE_URL says where Zendesk is asked",
                )
            jitter = random.uniform(0.5, 1)  # noqa: S311 - jitter is no secret
            self._waiting.sleep(_FIRST_WAIT * 2**failures * jitter if wait is None else wait + jitter)

    def _authorization(self) -> dict[str, str]:
        if self._oauth is None:
            from base64 import b64encode

            email, token = settings().zendesk_api_token()
            return {"Authorization": "Basic " + b64encode(f"{email}/token:{token}".encode()).decode()}
        if self._token is None or (self._renew_at is not None and self._waiting.monotonic() >= self._renew_at):
            self._sign_in(*self._oauth)
        return {"Authorization": f"Bearer {self._token}"}

    def _sign_in(self, client_id: str, client_secret: str) -> None:
        wanted = {"grant_type": "client_credentials", "client_id": client_id, "client_secret": client_secret, "scope": "read"}
        asked_at = self._waiting.monotonic()
        answer = self._ask("POST", "/oauth/tokens", self._others, json=wanted)
        if answer.status_code != 200 or not answer.json().get("access_token"):
            raise self._unwelcome(f"zendesk: no token is given for these OAuth credentials (HTTP {answer.status_code}).")
        given = answer.json()
        self._token = str(given["access_token"])
        lifetime = given.get("expires_in")
        self._renew_at = None if lifetime is None else asked_at + max(float(lifetime) - _RENEW_BEFORE, float(lifetime) / 2)

    def _unwelcome(self, what: str) -> UsageError:
        if self._oauth is None:
            return UsageError(
                what,
                mend="Zendesk turns API tokens off in April 2027 and after 30 days without use: make an OAuth client and set "
                "SOURCES__ZENDESK__CLIENT_ID and SOURCES__ZENDESK__CLIENT_SECRET, or correct SOURCES__ZENDESK__EMAIL and SOURCES__ZENDESK__API_TOKEN",
            )
        return UsageError(
            what,
            mend="correct SOURCES__ZENDESK__CLIENT_ID and SOURCES__ZENDESK__CLIENT_SECRET: a confidential OAuth client of an administrator, scope `read`",
        )


def _as_it_is(request: Any) -> Any:
    return request


def _is_json(answer: Any) -> bool:
    try:
        return isinstance(answer.json(), dict)
    except ValueError:
        return False


def _said(answer: Any) -> str:
    """What an error says of itself, without anything of ours."""
    try:
        body = answer.json()
    except ValueError:
        return ""
    return str(body.get("description") or body.get("error") or "")[:_SAID] if isinstance(body, dict) else ""


def _retry_after(answer: Any) -> float | None:
    """Seconds that the server asks to be left alone, however many; None when it does not say."""
    given = str(answer.headers.get("Retry-After") or "").strip()
    if given.replace(".", "", 1).isdigit():
        return float(given)
    try:
        return max(0.0, (parsedate_to_datetime(given).astimezone(UTC) - _now(answer)).total_seconds()) if given else None
    except ValueError:
        return None


def _now(answer: Any) -> datetime:
    date = answer.headers.get("Date")
    return parsedate_to_datetime(date).astimezone(UTC) if date else clock.now()
