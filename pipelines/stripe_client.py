"""Stripe over HTTP: the official client at one pinned version, within its limits, patient with what passes by itself."""

import random
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from warehouse import clock
from warehouse.errors import StepFailed, UsageError
from warehouse.settings import settings

Object = dict[str, Any]
Page = tuple[list[Object], datetime]
"""Objects, and an instant before which every change is in them."""
_TRIES = 6
_FIRST_WAIT = 0.5
_LONGEST_WAIT = 120.0
PAGE = 100


class Client:
    """Reads one account.

    Args:
        version: the API version sent with every request.
        a_second: the most requests a second.
        timeout: seconds to wait for an answer.
    """

    def __init__(self, version: str, a_second: float, timeout: float) -> None:
        import stripe

        base = settings().sources.stripe.base_url.rstrip("/")
        self._stripe = stripe.StripeClient(
            settings().stripe_secret_key(), stripe_version=version, base_addresses={"api": base}, max_network_retries=0,
            http_client=stripe.RequestsClient(timeout=timeout),
        )  # fmt: skip
        self._base, self._pause, self._next = base, 1 / a_second, 0.0

    def get(self, path: str, **query: Any) -> tuple[Object, datetime]:
        """One answer, and an instant before which every change is in it, by the earlier of Stripe's clock and ours.

        Raises:
            LookupError: there is no such object. UsageError: the key is refused. StepFailed: Stripe does not answer.
        """
        import stripe

        for turn in range(_TRIES):
            self._wait_for_turn()
            asked_at = clock.now()
            retry_after: str | None = None
            try:
                answer = self._stripe.raw_request("get", f"/v1/{path}", **query)
                date = answer.headers.get("Date")
                return dict(answer.data), min(asked_at, parsedate_to_datetime(date).astimezone(UTC)) if date else asked_at
            except (stripe.AuthenticationError, stripe.PermissionError) as error:
                raise UsageError(
                    f"stripe: the key is refused (HTTP {error.http_status}) for /v1/{path}.",
                    mend="correct SOURCES__STRIPE__STRIPE_SECRET_KEY: a live key that may read everything",
                ) from None
            except stripe.InvalidRequestError as error:
                if error.code == "resource_missing":
                    raise LookupError(error.param or "id") from None
                raise StepFailed(f"stripe: /v1/{path}: {error.user_message}", mend="a parameter in pipelines/stripe.yaml is not known") from None
            except stripe.StripeError as error:
                said, retry_after = f"HTTP {error.http_status}" if error.http_status else "no answer", (error.headers or {}).get("Retry-After")
            wait = min(float(retry_after), _LONGEST_WAIT) if retry_after and retry_after.isdigit() else _FIRST_WAIT * 2**turn * random.uniform(0.5, 1)  # noqa: S311 - jitter is no secret
            if turn < _TRIES - 1:
                time.sleep(wait)
        raise StepFailed(
            f"stripe: {said} from {self._base}/v1/{path}, {_TRIES} times.", mend="run again later; SOURCES__STRIPE__BASE_URL says where Stripe is asked"
        )

    def pages(self, path: str, **query: Any) -> Iterator[Page]:
        """The pages of a list, each with its instant. Goes on by time where the object it stood at was deleted meanwhile."""
        further: Object = {}
        last: int | None = None
        while True:
            try:
                page, at = self.get(path, limit=PAGE, **{**query, **further})
            except LookupError as missing:
                if str(missing.args[0]) != "starting_after" or last is None:
                    raise StepFailed(f"stripe: /v1/{path} vanished while it was read.", mend="run again") from None
                query["created[lte]"], further = last, {}
                continue
            yield page["data"], at
            if not page["has_more"] or not page["data"]:
                return
            last = page["data"][-1].get("created")
            further = {"starting_after": page["data"][-1]["id"]}

    def _wait_for_turn(self) -> None:
        now = time.monotonic()
        if now < self._next:
            time.sleep(self._next - now)
        self._next = max(now, self._next) + self._pause
