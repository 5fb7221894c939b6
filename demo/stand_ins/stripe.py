"""A stand-in of Stripe: objects in memory behind HTTP, with what its documentation promises and what makes it hard to read.

Lists are newest first and page by `starting_after` or `ending_before`; nested lists hold ten; a deleted customer is a
stub, a deleted draft is gone; events are kept 30 days, show objects as they were in the API version of their time, and
may become visible late. Faults and rate limits happen when told to.
"""

import copy
import itertools
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from demo.stand_ins import served
from demo.stand_ins.served import Fault, Request, StandIn
from demo.stand_ins.stripe_shapes import KINDS, Kind, Object, as_of_version, event_stem
from warehouse import clock

HORIZON = timedelta(days=30)
NESTED = 10
_NESTED_LISTS = {"invoice": ("lines", "/v1/invoices/{}/lines"), "subscription": ("items", "/v1/subscription_items?subscription={}")}
_FILTERS = ("customer", "charge", "payment_intent", "invoice", "subscription", "price", "product", "type", "status", "active")


@dataclass(frozen=True)
class Asked:
    """A request as it arrived."""

    path: str
    query: dict[str, str]
    version: str
    authorization: str = field(default="", repr=False)


class Refused(served.Refused):
    """An answer that is an error, as Stripe words it."""

    def __init__(self, status: int, message: str, **more: str) -> None:
        body = {"error": {"type": "invalid_request_error", "message": message, **more}}
        super().__init__(status, message, body, "1" if status == 429 else None)


@dataclass
class _Event:
    payload: Object
    visible_at: datetime


@dataclass
class StripeStandIn(StandIn[Asked]):
    """One account. Change it by `create`, `update`, `delete`; read it over HTTP at `url`; use it as a context manager.

    Attributes:
        now: the account's clock, in UTC.
        event_version: the API version of the account, in which events are written down.
        before: called with each request before it is answered, for what happens while somebody reads.
        most_a_second: more requests than this within a second are answered by 429.
        port: where it listens on this machine; 0 takes a free one.
    """

    now: Callable[[], datetime] = clock.now
    secret_key: str = "sk_test_of_the_stand_in"  # noqa: S105 - opens nothing but this stand-in
    livemode: bool = True
    event_version: str = "2025-06-30.basil"
    before: Callable[[Asked], None] | None = None
    most_a_second: int | None = None
    port: int = 0
    asked: list[Asked] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._objects: dict[str, dict[str, Object]] = {name: {} for name in KINDS}
        self._deleted: dict[str, Object] = {}
        self._events: list[_Event] = []
        self._numbers = itertools.count(1)
        self._lock = threading.RLock()
        self._recent: list[float] = []

    # What happens in the account.

    def create(self, kind: str, *, announce: str | None = "created", late: timedelta = timedelta(0), **fields: Any) -> Object:
        """Add an object of a kind (as its path says: `invoices`, `checkout/sessions`) and its event; returns a copy."""
        with self._lock:
            what = KINDS[kind]
            number = next(self._numbers)
            thing: Object = {
                "id": f"{what.prefix}{number:08d}", "object": what.object, "created": self._seconds(), "livemode": self.livemode, "metadata": {},
                **copy.deepcopy(what.defaults),
            }  # fmt: skip
            thing |= fields
            for nested in ("lines", "items"):
                if isinstance(thing.get(nested), list):
                    thing[nested] = [self._child(what, thing, child, index) for index, child in enumerate(thing[nested])]
            self._objects[kind][thing["id"]] = thing
            if announce:
                self._announce(what, announce, thing, {}, late)
            return copy.deepcopy(thing)

    def update(self, object_id: str, *, announce: str | None = "updated", late: timedelta = timedelta(0), **fields: Any) -> Object:
        """Change an object and write down its event; returns a copy."""
        with self._lock:
            kind, thing = self._find(object_id)
            what = KINDS[kind]
            for nested in ("lines", "items"):
                if isinstance(fields.get(nested), list):
                    fields[nested] = [self._child(what, thing, child, index) for index, child in enumerate(fields[nested])]
            earlier = self._shown(thing, None)
            before = {name: earlier.get(name) for name in fields}
            thing |= fields
            if announce:
                self._announce(what, announce, thing, before, late)
            return copy.deepcopy(thing)

    def delete(self, object_id: str, *, announce: str | None = "deleted", late: timedelta = timedelta(0)) -> None:
        """Delete an object: a stub is left of a customer, nothing of others."""
        with self._lock:
            kind, thing = self._find(object_id)
            del self._objects[kind][object_id]
            if KINDS[kind].is_stub_when_deleted:
                self._deleted[object_id] = {"id": object_id, "object": thing["object"], "deleted": True}
            if announce:
                self._announce(KINDS[kind], announce, thing, {}, late)

    def forget_events(self) -> None:
        """As if all events had expired."""
        with self._lock:
            self._events.clear()

    def events(self) -> list[Object]:
        """Every event that was written down, oldest first."""
        with self._lock:
            return [copy.deepcopy(event.payload) for event in self._events]

    def objects(self, kind: str) -> list[Object]:
        """Every object of a kind that is not deleted."""
        with self._lock:
            return [copy.deepcopy(thing) for thing in self._objects[kind].values()]

    def requests_of(self, path: str) -> int:
        """How often a path was asked for."""
        return sum(asked.path == path for asked in self.asked)

    # The server.

    def arrived(self, request: Request) -> Asked:
        """A request with the API version that it asks for."""
        headers = request.headers
        return Asked(request.path, request.query, headers.get("Stripe-Version") or self.event_version, headers.get("Authorization", ""))

    def error(self, fault: Fault) -> Object:
        """An error of Stripe's own."""
        return {"error": {"type": "api_error", "message": fault.message}}

    def answer(self, asked: Asked) -> Object:
        """The answer to a request.

        Raises:
            Refused: the answer is an error.
        """
        with self._lock:
            if asked.authorization != f"Bearer {self.secret_key}":
                raise Refused(401, "Invalid API Key provided: sk_test_***")
            self._limit()
            parts = asked.path.removeprefix("/v1/").split("/")
            if asked.path == "/v1/events":
                return self._list([self._shown(event.payload, None) for event in self._visible_events()], asked)
            if len(parts) == 3 and parts[0] == "invoices" and parts[2] == "lines":
                return self._list(as_of_version(self._find(parts[1])[1], asked.version)["lines"], asked, is_newest_first=False)
            if asked.path == "/v1/subscription_items":
                items = self._find(asked.query.get("subscription", ""))[1]["items"]
                return self._list(items, Asked(asked.path, {**asked.query, "subscription": ""}, asked.version), is_newest_first=False)
            for name in (asked.path.removeprefix("/v1/"), "/".join(parts[:-1])):
                if name in KINDS and name == asked.path.removeprefix("/v1/"):
                    return self._list_of(name, asked)
                if name in KINDS:
                    return self._retrieve(name, parts[-1], asked.version)
            raise Refused(404, f"Unrecognized request URL (GET: {asked.path}).")

    def _list_of(self, name: str, asked: Asked) -> Object:
        things = list(self._objects[name].values())
        if name == "subscriptions" and asked.query.get("status") != "all":
            things = [thing for thing in things if thing["status"] != "canceled"]
        query = {key: value for key, value in asked.query.items() if (key, value) != ("status", "all")}
        return self._list([self._shown(thing, asked.version) for thing in things], Asked(asked.path, query, asked.version))

    def _retrieve(self, name: str, object_id: str, version: str) -> Object:
        if object_id in self._deleted:
            return self._deleted[object_id]
        if object_id not in self._objects[name]:
            raise Refused(404, f"No such {KINDS[name].object}: '{object_id}'", code="resource_missing", param="id")
        return self._shown(self._objects[name][object_id], version)

    def _list(self, things: list[Object], asked: Asked, *, is_newest_first: bool = True) -> Object:
        query = asked.query
        limit = int(query.get("limit", "10"))
        if not 1 <= limit <= 100:
            raise Refused(400, "Invalid integer: limit must be between 1 and 100", param="limit")
        if is_newest_first:
            things = sorted(things, key=lambda thing: (thing["created"], thing["id"]), reverse=True)
        for bound, holds in (("gte", int.__ge__), ("gt", int.__gt__), ("lte", int.__le__), ("lt", int.__lt__)):
            if f"created[{bound}]" in query:
                things = [thing for thing in things if holds(thing["created"], int(query[f"created[{bound}]"]))]
        for name in _FILTERS:
            if query.get(name):
                things = [thing for thing in things if str(thing.get(name)).lower() == query[name].lower()]
        ids = [thing["id"] for thing in things]
        for cursor in ("starting_after", "ending_before"):
            if cursor in query and query[cursor] not in ids:
                raise Refused(400, f"No such object: '{query[cursor]}'", code="resource_missing", param=cursor)
        if "ending_before" in query:
            things = things[: ids.index(query["ending_before"])]
            return {"object": "list", "url": asked.path, "has_more": len(things) > limit, "data": things[-limit:]}
        if "starting_after" in query:
            things = things[ids.index(query["starting_after"]) + 1 :]
        return {"object": "list", "url": asked.path, "has_more": len(things) > limit, "data": things[:limit]}

    def _shown(self, thing: Object, version: str | None) -> Object:
        """An object as an answer shows it: in a version's shape, with the first ten of what is nested in it."""
        shown = as_of_version(thing, version) if version else copy.deepcopy(thing)
        nested, url = _NESTED_LISTS.get(shown["object"], ("", ""))
        if isinstance(shown.get(nested), list):
            children = shown[nested]
            shown[nested] = {"object": "list", "data": children[:NESTED], "has_more": len(children) > NESTED, "url": url.format(shown["id"])}
        return shown

    def _child(self, what: Kind, parent: Object, child: Object, index: int) -> Object:
        if what.object == "invoice":
            base: Object = {"id": f"il_{parent['id'][3:]}_{index:04d}", "object": "line_item", "invoice": parent["id"], "amount": 0, "quantity": 1,
                            "currency": parent["currency"], "description": None, "discountable": True, "livemode": self.livemode, "parent": None,
                            "pricing": None, "period": {"start": self._seconds(), "end": self._seconds()}, "metadata": {}, "taxes": []}  # fmt: skip
        else:
            base = {"id": f"si_{parent['id'][4:]}_{index:04d}", "object": "subscription_item", "subscription": parent["id"], "quantity": 1, "price": None,
                    "created": self._seconds(), "current_period_start": self._seconds(), "current_period_end": self._seconds(), "metadata": {}}  # fmt: skip
        return base | child

    def _announce(self, what: Kind, happening: str, thing: Object, before: Object, late: timedelta) -> None:
        if not what.has_events and happening in ("created", "updated", "deleted"):
            return
        payload = {
            "id": f"evt_{next(self._numbers):08d}", "object": "event", "api_version": self.event_version, "created": self._seconds(),
            "livemode": self.livemode, "pending_webhooks": 0, "type": happening if "." in happening else f"{event_stem(what)}.{happening}",
            "request": {"id": None, "idempotency_key": None},
            "data": {"object": self._shown(thing, self.event_version), **({"previous_attributes": before} if before else {})},
        }  # fmt: skip
        self._events.append(_Event(payload, self.now() + late))

    def _visible_events(self) -> list[_Event]:
        now = self.now()
        oldest = int((now - HORIZON).timestamp())
        return [event for event in self._events if event.visible_at <= now and event.payload["created"] >= oldest]

    def _find(self, object_id: str) -> tuple[str, Object]:
        for kind, things in self._objects.items():
            if object_id in things:
                return kind, things[object_id]
        raise Refused(404, f"No such object: '{object_id}'", code="resource_missing", param="id")

    def _limit(self) -> None:
        if self.most_a_second is None:
            return
        now = time.monotonic()
        self._recent = [at for at in self._recent if now - at < 1]
        if len(self._recent) >= self.most_a_second:
            raise Refused(429, "Too many requests", code="rate_limit")
        self._recent.append(now)

    def _seconds(self) -> int:
        return int(self.now().timestamp())
