"""A stand-in of Zendesk Support: one account in memory behind HTTP, with what its documentation promises and what makes it hard to export.

Cursor exports (tickets, users) go by an opaque cursor whose address is given also at the end of the stream; exports by time
(organizations, ticket events, ticket metric events) repeat what happened in the second they begin with and never end a page
within a second. Neither shows the last minute. A change of the system moves `generated_timestamp` alone. Deleted tickets
stay in the export as a status. Tokens expire, exports are limited to ten requests a minute, and faults happen when told to.
"""

import base64
import copy
import itertools
import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from threading import RLock
from typing import Any

from demo.stand_ins import served
from demo.stand_ins.served import Fault, Request, StandIn
from demo.stand_ins.zendesk_shapes import (
    DEFAULTS,
    LISTS,
    PERMANENTLY_DELETED,
    SCRUBBED,
    SYSTEM_FIELDS,
    UNPAGED,
    Object,
    children_of,
    metric_set,
    seconds,
    stamp,
)
from warehouse import clock

MINUTE = 60
_BY_CURSOR = {"tickets": "generated_timestamp", "users": "updated_at"}
_BY_TIME = {"organizations": "updated_at", "ticket_events": "timestamp", "ticket_metric_events": "time"}


@dataclass(frozen=True)
class Asked:
    """A request as it arrived, and when by the account's clock."""

    path: str
    query: dict[str, str]
    authorization: str
    body: Object = field(default_factory=dict)
    at: datetime | None = None


class Refused(served.Refused):
    """An answer that is an error, as Zendesk words it."""

    def __init__(self, status: int, error: str, description: str, retry_after: int | None = None) -> None:
        super().__init__(status, description, {"error": error, "description": description}, None if retry_after is None else str(retry_after))


@dataclass
class ZendeskStandIn(StandIn[Asked]):
    """One account. Change it by `create_ticket`, `update_ticket`, `add` and so on; read it over HTTP at `url`; use it as a context manager.

    Attributes:
        now: the account's clock, in UTC.
        before: called with each request before it is answered, for what happens while somebody reads.
        page_size: the most objects in a page of an export.
        exports_a_minute: more requests to exports than this within a minute are answered by 429; None for no limit.
        token_lifetime: seconds after which an OAuth token is refused.
        empty_pages: so many pages of the next exports are empty although more is to come.
        is_stuck: cursors no longer move, although more is to come.
        absent: paths below /api/v2/ that the account's plan does not have.
        role: the role of the user behind the credentials.
        port: where to listen; 0 for any free one.
    """

    now: Callable[[], datetime] = clock.now
    client_id: str = "warehouse"
    client_secret: str = "secret-of-the-stand-in"  # noqa: S105 - opens nothing but this stand-in
    email: str = "admin@example.com"
    api_token: str = "token-of-the-stand-in"  # noqa: S105 - opens nothing but this stand-in
    before: Callable[[Asked], None] | None = None
    page_size: int = 1000
    exports_a_minute: int | None = 10
    token_lifetime: int = 7200
    empty_pages: int = 0
    is_stuck: bool = False
    absent: set[str] = field(default_factory=set)
    role: str = "admin"
    port: int = 0
    asked: list[Asked] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)

    def __post_init__(self) -> None:
        names = ("tickets", "users", "organizations", "ticket_events", "ticket_metric_events", "holidays", *LISTS.values())
        self._objects: dict[str, dict[int, Object]] = {name: {} for name in names}
        self._numbers = itertools.count(1)
        self._schedules: dict[int, int] = {}
        self._tokens: dict[str, datetime] = {}
        self._exports: list[datetime] = []
        self._generation = 0
        self._frozen: datetime | None = None
        self._lock = RLock()
        for position, (title, kind) in enumerate(SYSTEM_FIELDS.items()):
            self.add("ticket_fields", title=title.capitalize(), type=kind, removable=False, position=position)

    # What happens in the account.

    @contextmanager
    def at(self, when: datetime) -> Iterator[None]:
        """What happens inside happens then."""
        before, self._frozen = self._frozen, when
        try:
            yield
        finally:
            self._frozen = before

    def add(self, kind: str, **fields: Any) -> Object:
        """Add an object of a kind (`users`, `organizations`, `groups`, `ticket_fields`, …); returns a copy."""
        with self._lock:
            thing = {"id": next(self._numbers), **copy.deepcopy(DEFAULTS[kind]), "created_at": self._stamp(), "updated_at": self._stamp(), **fields}
            self._objects[kind][thing["id"]] = thing
            return copy.deepcopy(thing)

    def change(self, kind: str, number: int, **fields: Any) -> Object:
        """Change an object that is no ticket; returns a copy."""
        with self._lock:
            thing = self._objects[kind][number]
            thing |= {"updated_at": self._stamp(), **fields}
            return copy.deepcopy(thing)

    def remove(self, kind: str, number: int) -> None:
        """Take an object out of its list."""
        with self._lock:
            del self._objects[kind][number]

    def delete_user(self, number: int, *, permanently: bool = False) -> None:
        """Delete a user; permanently takes name, email and phone as well."""
        self.change("users", number, active=False, **(PERMANENTLY_DELETED if permanently else {}))

    def create_ticket(self, *, comment: str | None = None, by: int | None = None, **fields: Any) -> Object:
        """Open a ticket; its description is its first comment. Returns a copy."""
        with self._lock:
            number = next(self._numbers)
            ticket = {"id": number, **copy.deepcopy(DEFAULTS["tickets"]), "via": {"channel": "email", "source": {"from": {}, "to": {}, "rel": None}},
                      "created_at": self._stamp(), "updated_at": self._stamp(), "generated_timestamp": self._seconds(), **fields}  # fmt: skip
            self._objects["tickets"][number] = ticket
            self._announce({}, ticket, comment or ticket["description"], by or ticket["requester_id"], True)
            self._measure(number, "reply_time", "activate")
            return copy.deepcopy(ticket)

    def update_ticket(self, number: int, *, comment: str | None = None, by: int | None = None, is_public: bool = True, **fields: Any) -> Object:
        """Change a ticket or answer it, which leaves an event; returns a copy."""
        with self._lock:
            ticket = self._objects["tickets"][number]
            before = copy.deepcopy(ticket)
            ticket |= {**fields, "updated_at": self._stamp(), "generated_timestamp": self._seconds()}
            self._announce(before, ticket, comment, by or ticket["assignee_id"], is_public)
            if before["status"] != ticket["status"] and ticket["status"] == "solved":
                self._measure(number, "reply_time", "fulfill")
            return copy.deepcopy(ticket)

    def system_update(self, number: int, **fields: Any) -> None:
        """Change a ticket as the system does: no event, `updated_at` stays, `generated_timestamp` moves."""
        with self._lock:
            self._objects["tickets"][number] |= {**fields, "generated_timestamp": self._seconds()}

    def delete_ticket(self, number: int) -> None:
        """Delete a ticket: its status says so in the export."""
        self.update_ticket(number, status="deleted")

    def scrub_ticket(self, number: int) -> None:
        """What happens to a deleted ticket after 30 days, or at once when it is deleted permanently."""
        self.system_update(number, **copy.deepcopy(SCRUBBED))

    def set_field(self, number: int, field_id: int, value: Any) -> Object:
        """Set a custom field of a ticket; returns a copy of it."""
        with self._lock:
            kept = [one for one in self._objects["tickets"][number]["custom_fields"] if one["id"] != field_id]
            return self.update_ticket(number, custom_fields=[*kept, {"id": field_id, "value": value}])

    def assign_schedule(self, number: int, schedule: int) -> None:
        """Give a ticket a schedule, as triggers do; the ticket itself does not say which it has."""
        with self._lock:
            before, self._schedules[number] = self._schedules.get(number), schedule
            child = {"id": next(self._numbers), "via": "Rule", "via_reference_id": None, "event_type": "ScheduleAssignment", "previous_schedule_id": before,
                     "new_schedule_id": schedule}  # fmt: skip
            self._note(number, None, [child])

    def apply_sla(self, number: int, minutes: int, *, business_hours: bool, metric: str = "reply_time") -> None:
        """Apply a target to a metric of a ticket, as policies do."""
        policy = {"id": 1, "title": "Promise", "description": None}
        self._measure(number, metric, "apply_sla", sla={"target": minutes, "business_hours": business_hours, "policy": policy})

    def forget_cursors(self) -> None:
        """From now on the cursors given so far are refused."""
        self._generation += 1

    def expire_tokens(self) -> None:
        """From now on the tokens given so far are refused."""
        self._tokens.clear()

    def objects(self, kind: str) -> list[Object]:
        """Every object of a kind."""
        with self._lock:
            return copy.deepcopy(list(self._objects[kind].values()))

    def requests_of(self, path: str) -> int:
        """How often a path below /api/v2/ was asked for."""
        return sum(asked.path == f"/api/v2/{path.removesuffix('.json')}" for asked in self.asked)

    # The server.

    def arrived(self, request: Request) -> Asked:
        """A request at the account's time; `.json` at its end changes nothing."""
        return Asked(request.path.removesuffix(".json"), request.query, request.headers.get("Authorization", ""), request.body, self.now())

    def error(self, fault: Fault) -> Object:
        """An error of Zendesk's own."""
        return {"error": "InternalError", "description": fault.message}

    def answer(self, asked: Asked) -> Object:
        """The answer to a request.

        Raises:
            Refused: the answer is an error.
        """
        with self._lock:
            if asked.path == "/oauth/tokens":
                return self._token(asked.body)
            self._admit(asked.authorization)
            path = asked.path.removeprefix("/api/v2/").removesuffix(".json")
            if path in self.absent:
                raise Refused(404, "InvalidEndpoint", "Not found")
            if path == "users/me":
                return {"user": {"id": 1, "role": self.role}}
            if path.startswith("incremental/"):
                self._limit()
                return self._export(path.removeprefix("incremental/"), asked.query)
            if path in LISTS:
                return self._list(LISTS[path], list(self._objects[LISTS[path]].values()), asked.query, is_paged=path not in UNPAGED)
            if path.startswith("business_hours/schedules/") and path.endswith("/holidays"):
                schedule = int(path.split("/")[2])
                held = [one for one in self._objects["holidays"].values() if one.get("schedule_id") == schedule]
                return {"holidays": [{name: value for name, value in one.items() if name != "schedule_id"} for one in held]}
            raise Refused(404, "InvalidEndpoint", "Not found")

    def _token(self, wanted: Object) -> Object:
        if (wanted.get("grant_type"), wanted.get("client_id"), wanted.get("client_secret")) != ("client_credentials", self.client_id, self.client_secret):
            raise Refused(401, "invalid_client", "Client authentication failed due to unknown client.")
        token = f"token-{next(self._numbers)}"
        self._tokens[token] = self.now() + timedelta(seconds=self.token_lifetime)
        return {"access_token": token, "token_type": "bearer", "scope": wanted.get("scope", "read"), "expires_in": self.token_lifetime}

    def _admit(self, authorization: str) -> None:
        basic = base64.b64encode(f"{self.email}/token:{self.api_token}".encode()).decode()
        expires = self._tokens.get(authorization.removeprefix("Bearer "))
        if authorization != f"Basic {basic}" and (expires is None or self.now() >= expires):
            raise Refused(401, "invalid_token", "The access token provided is expired, revoked, malformed or invalid for other reasons.")

    def _limit(self) -> None:
        if self.exports_a_minute is None:
            return
        now = self.now()
        self._exports = [at for at in self._exports if now - at < timedelta(seconds=MINUTE)]
        if len(self._exports) >= self.exports_a_minute:
            wait = math.ceil((self._exports[0] + timedelta(seconds=MINUTE) - now).total_seconds())
            raise Refused(429, "APIRateLimitExceeded", "Number of allowed incremental ticket export API requests per minute exceeded", wait)
        self._exports.append(now)

    def _list(self, name: str, things: list[Object], query: dict[str, str], *, is_paged: bool) -> Object:
        if "start_time" in query:
            things = [one for one in things if seconds(one["updated_at"]) >= int(query["start_time"])]
        if not is_paged:
            return {name: copy.deepcopy(things), "count": len(things), "next_page": None, "previous_page": None}
        size, after = min(int(query.get("page[size]", "100")), 100), int(query.get("page[after]") or 0)
        page = things[after : after + size]
        return {name: copy.deepcopy(page), "meta": {"has_more": after + size < len(things), "after_cursor": str(after + size), "before_cursor": str(after)}}

    def _export(self, path: str, query: dict[str, str]) -> Object:
        name, _, way = path.partition("/")
        size = min(int(query.get("per_page", self.page_size)), self.page_size)
        if name in _BY_CURSOR and way == "cursor":
            return self._by_cursor(name, query, size)
        if name in _BY_TIME and not way:
            return self._by_time(name, query, size)
        raise Refused(404, "InvalidEndpoint", "Not found")

    def _by_cursor(self, name: str, query: dict[str, str], size: int) -> Object:
        begin = self._read_cursor(query["cursor"]) if "cursor" in query else (int(query["start_time"]), -1)
        shown = sorted((self._time(name, one), one["id"]) for one in self._objects[name].values() if self._is_shown(name, one))
        after = [place for place in shown if place > begin]
        page, is_empty = after[:size], self.empty_pages > 0 and bool(after)
        if is_empty or self.is_stuck:
            self.empty_pages -= is_empty
            page = []
        cursor = query.get("cursor", "") if self.is_stuck else self._write_cursor(page[-1] if page else begin, is_new=is_empty)
        things = [copy.deepcopy(self._objects[name][number]) for _, number in page]
        return {
            name: things, **self._sideloads(things, query.get("include", "").split(",")),
            "after_url": f"{self.url}/api/v2/incremental/{name}/cursor.json?cursor={cursor}",
            "after_cursor": cursor or None, "before_url": None, "before_cursor": None, "end_of_stream": len(page) == len(after) and not self.is_stuck,
        }  # fmt: skip

    def _by_time(self, name: str, query: dict[str, str], size: int) -> Object:
        start = int(query["start_time"])
        if start > self._seconds(self.now()) - MINUTE:
            raise Refused(400, "StartTimeTooRecent", "Too recent start_time. Use a start_time older than 1 minutes")
        shown = [one for one in self._objects[name].values() if self._is_shown(name, one) and self._time(name, one) >= start]
        shown.sort(key=lambda one: (self._time(name, one), one["id"]))
        page = shown[:size]
        page += [one for one in shown[size:] if self._time(name, one) == self._time(name, page[-1])]
        if self.is_stuck:
            page = []
        things = copy.deepcopy(page)
        if name == "ticket_events" and "comment_events" not in query.get("include", "").split(","):
            for event in things:
                event["child_events"] = [_without_comment(child) for child in event["child_events"]]
        end = self._time(name, page[-1]) if page else None
        return {name: things, "count": len(page), "end_time": end, "next_page": f"{self.url}/api/v2/incremental/{name}.json?start_time={end or start}",
                "end_of_stream": len(page) == len(shown) and not self.is_stuck}  # fmt: skip

    def _sideloads(self, tickets: list[Object], wanted: list[str]) -> Object:
        found: Object = {}
        if "metric_sets" in wanted:
            found["metric_sets"] = [metric_set(one, len(self._replies(one["id"]))) for one in tickets if one["status"] != "deleted"]
        for name, keys in (("users", ("requester_id", "submitter_id", "assignee_id")), ("groups", ("group_id",))):
            if name in wanted:
                numbers = {one[key] for one in tickets for key in keys} & self._objects[name].keys()
                found[name] = [copy.deepcopy(self._objects[name][number]) for number in sorted(numbers)]
        return found

    def _replies(self, ticket: int) -> list[Object]:
        events = [one for one in self._objects["ticket_events"].values() if one["ticket_id"] == ticket]
        return [child for event in events[1:] for child in event["child_events"] if child["event_type"] == "Comment"]

    def _announce(self, before: Object, after: Object, comment: str | None, by: int | None, is_public: bool) -> None:
        number = next(self._numbers)
        children = children_of(before, after, self._numbers)
        if comment is not None:
            children.append(
                {"id": next(self._numbers), "via": after["via"], "via_reference_id": None, "type": "Comment", "author_id": by, "body": comment,
                 "html_body": f"<div>{comment}</div>", "plain_body": comment, "public": is_public, "attachments": [], "audit_id": number,
                 "created_at": self._stamp(), "event_type": "Comment"}
            )  # fmt: skip
        self._note(after["id"], by, children, number)

    def _note(self, ticket: int, by: int | None, children: list[Object], number: int | None = None) -> None:
        number = number or next(self._numbers)
        self._objects["ticket_events"][number] = {
            "id": number, "ticket_id": ticket, "timestamp": self._seconds(), "created_at": self._stamp(), "updater_id": by, "via": "Web service",
            "system": {"client": "stand-in", "ip_address": "203.0.113.7"}, "metadata": {}, "event_type": "Audit", "child_events": children,
        }  # fmt: skip

    def _measure(self, ticket: int, metric: str, kind: str, **more: Any) -> None:
        number = next(self._numbers)
        self._objects["ticket_metric_events"][number] = {
            "id": number, "ticket_id": ticket, "metric": metric, "instance_id": 1, "type": kind, "time": self._stamp(), **more,
        }  # fmt: skip

    def _is_shown(self, name: str, thing: Object) -> bool:
        return self._time(name, thing) <= self._seconds(self.now()) - MINUTE

    def _time(self, name: str, thing: Object) -> int:
        value = thing[{**_BY_CURSOR, **_BY_TIME}[name]]
        return value if isinstance(value, int) else seconds(value)

    def _write_cursor(self, place: tuple[int, int], *, is_new: bool) -> str:
        mark = next(self._numbers) if is_new else 0
        return base64.urlsafe_b64encode(json.dumps([*place, self._generation, mark]).encode()).decode().rstrip("=")

    def _read_cursor(self, cursor: str) -> tuple[int, int]:
        try:
            at, number, generation, _ = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        except ValueError:
            raise Refused(400, "InvalidPaginationParameter", "cursor is invalid") from None
        if generation != self._generation:
            raise Refused(400, "InvalidPaginationParameter", "cursor is invalid")
        return at, number

    def _stamp(self) -> str:
        return stamp(self._frozen or self.now())

    def _seconds(self, at: datetime | None = None) -> int:
        return int((at or self._frozen or self.now()).astimezone(UTC).timestamp())


def _without_comment(child: Object) -> Object:
    if child["event_type"] != "Comment":
        return child
    return {
        "id": child["id"],
        "via": child["via"],
        "via_reference_id": None,
        "comment_present": True,
        "comment_public": child["public"],
        "event_type": "Comment",
    }
