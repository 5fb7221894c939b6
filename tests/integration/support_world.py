"""Random tickets lived in the stand-in of Zendesk, with a diary in plain Python of what happened to each, and what the metrics of it are."""

import itertools
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from statistics import median
from typing import Any
from zoneinfo import ZoneInfo

from demo.stand_ins.zendesk import ZendeskStandIn

Interval = tuple[int, int]
NEVER = datetime(9999, 12, 31, tzinfo=UTC)


def weekly(first_weekday: int, last_weekday: int, opens: int, closes: int) -> list[Interval]:
    """The same minutes of some days of the week; 0 is Sunday."""
    return [(day * 1440 + opens, day * 1440 + closes) for day in range(first_weekday, last_weekday + 1)]


@dataclass
class Schedule:
    """Hours by version: from when each was in force, in which time zone; and days on which nobody works."""

    key: int
    versions: list[tuple[datetime, str, list[Interval]]]
    holidays: list[tuple[date, date]] = field(default_factory=list)

    def open_seconds(self, begin: datetime, end: datetime) -> int:
        """How long it was open from begin to end."""
        total = 0
        for number, (since, zone, intervals) in enumerate(self.versions):
            since = datetime.min.replace(tzinfo=UTC) if number == 0 else since
            until = self.versions[number + 1][0] if number + 1 < len(self.versions) else NEVER
            for opens, closes in self._spans(begin, end, zone, intervals):
                total += max(0, int((min(closes, until, end) - max(opens, since, begin)).total_seconds()))
        return total

    def _spans(self, begin: datetime, end: datetime, zone: str, intervals: list[Interval]) -> Iterator[tuple[datetime, datetime]]:
        day = begin.date() - timedelta(days=2)
        while day <= end.date() + timedelta(days=2):
            weekday = day.isoweekday() % 7
            for start, stop in intervals:
                if start // 1440 == weekday and not any(first <= day <= last for first, last in self.holidays):
                    yield instant(day, start % 1440, zone), instant(day, stop - weekday * 1440, zone)
            day += timedelta(days=1)


def instant(day: date, minute: int, zone: str) -> datetime:
    """When a clock on the wall shows this minute of the day, for the second time where it does twice."""
    shown = datetime(day.year, day.month, day.day) + timedelta(minutes=minute)
    return shown.replace(tzinfo=ZoneInfo(zone), fold=1).astimezone(UTC)


@dataclass
class Life:
    """One ticket: what happened, in order."""

    key: int
    requester: int
    opened: datetime
    statuses: list[tuple[datetime, str]]
    comments: list[tuple[datetime, int, bool]]
    schedules: list[tuple[datetime, int]]
    targets: list[tuple[datetime, int, bool]] = field(default_factory=list)
    ratings: list[tuple[datetime, str]] = field(default_factory=list)

    @property
    def is_deleted(self) -> bool:
        return self.statuses[-1][1] == "deleted"

    def states(self) -> list[tuple[datetime, str]]:
        """open, solved and deleted."""
        return [(at, "solved" if status in ("solved", "closed") else "deleted" if status == "deleted" else "open") for at, status in self.statuses]


class World:
    """An account in which something happens every few minutes to hours, over the days on which clocks are changed."""

    def __init__(self, seed: int, account: ZendeskStandIn, now: datetime) -> None:
        self.random, self.account, self.now = random.Random(seed), account, now
        self.lives: list[Life] = []
        with account.at(now - timedelta(days=9)):
            self.agents = [self._user("agent") for _ in range(4)]
            self.customers = [self._user("end-user") for _ in range(6)]
            self.schedules: dict[int, Schedule] = {}
            for zone, iana, intervals, holiday in (
                ("Eastern Time (US & Canada)", "America/New_York", weekly(1, 5, 480, 1020), (date(2026, 3, 16), date(2026, 3, 17))),
                ("Berlin", "Europe/Berlin", [*weekly(0, 6, 0, 600), *weekly(1, 4, 1200, 1440)], (date(2026, 4, 3), date(2026, 4, 3))),
                ("UTC", "UTC", weekly(0, 6, 0, 1440), (date(2026, 1, 1), date(2026, 1, 1))),
            ):
                given = [{"start_time": start, "end_time": stop} for start, stop in intervals]
                with account.at(now - timedelta(days=8 - len(self.schedules))):
                    key = int(account.add("schedules", name=zone, time_zone=zone, intervals=given)["id"])
                account.add("holidays", schedule_id=key, name="Closed", start_date=holiday[0].isoformat(), end_date=holiday[1].isoformat())
                self.schedules[key] = Schedule(key, [(now, iana, intervals)], [holiday])

    def _user(self, role: str) -> int:
        return int(self.account.add("users", name="A Name", email=f"{role}{self.random.random()}@example.com", role=role)["id"])

    def live_until(self, end: datetime) -> None:
        """Something happens to somebody, again and again; now and then in the very second in which a day begins."""
        while True:
            later = self.now + timedelta(seconds=self.random.randrange(60, 14_000))
            midnight = later.replace(hour=0, minute=0, second=0)
            self.now = midnight if self.now < midnight and self.random.random() < 0.3 else later
            if self.now >= end:
                self.now = end
                return
            with self.account.at(self.now):
                going = [life for life in self.lives if not life.is_deleted]
                if len(going) < 5 or self.random.random() < 0.2:
                    self._open()
                else:
                    self._happen(self.random.choice(going[-8:]))

    def change_hours(self, schedule: Schedule, zone: str, iana: str, intervals: list[Interval]) -> None:
        """From now on a schedule has other hours."""
        given = [{"start_time": start, "end_time": stop} for start, stop in intervals]
        with self.account.at(self.now):
            self.account.change("schedules", schedule.key, time_zone=zone, intervals=given)
        schedule.versions.append((self.now, iana, intervals))

    def _open(self) -> None:
        customer, agent = self.random.choice(self.customers), self.random.choice(self.agents)
        by_agent = self.random.random() < 0.2
        status = self.random.choice(["new", "new", "new", "open", "solved"])
        asked = agent if self.random.random() < 0.1 else customer
        made = self.account.create_ticket(
            subject="?", description="?", requester_id=asked, submitter_id=asked, status=status, assignee_id=agent, by=agent if by_agent else asked
        )
        key = int(made["id"])
        default = min(self.schedules)
        self.lives.append(Life(key, asked, self.now, [(self.now, status)], [(self.now, agent if by_agent else asked, True)], [(self.now, default)]))
        if self.random.random() < 0.7:
            self._promise(self.lives[-1])

    def _happen(self, life: Life) -> None:
        chance = self.random.random()
        if chance < 0.35:
            self._comment(life)
        elif chance < 0.7:
            status = self.random.choice(["open", "pending", "hold", "solved", "solved", "closed"])
            self._update(life, status)
        elif chance < 0.78:
            key = self.random.choice(list(self.schedules))
            self.account.assign_schedule(life.key, key)
            life.schedules.append((self.now, key))
        elif chance < 0.86:
            self._promise(life)
        elif chance < 0.95:
            score = self.random.choice(["good", "good", "bad", "offered"])
            self.account.add("satisfaction_ratings", ticket_id=life.key, requester_id=life.requester, score=score)
            if score != "offered":
                life.ratings.append((self.now, score))
        else:
            self._update(life, "deleted")

    def _update(self, life: Life, status: str) -> None:
        if status != life.statuses[-1][1]:
            self.account.update_ticket(life.key, status=status)
            life.statuses.append((self.now, status))

    def _comment(self, life: Life) -> None:
        author = self.random.choice([*self.agents, *self.agents, life.requester, *self.customers[:1]])
        is_public = author not in self.agents or self.random.random() < 0.7
        status = "solved" if author in self.agents and self.random.random() < 0.2 and life.statuses[-1][1] != "solved" else life.statuses[-1][1]
        self.account.update_ticket(life.key, comment="!", by=author, is_public=is_public, status=status)
        life.comments.append((self.now, author, is_public))
        if status != life.statuses[-1][1]:
            life.statuses.append((self.now, status))

    def _promise(self, life: Life) -> None:
        minutes, in_business_hours = self.random.choice([30, 120, 480, 1440]), self.random.random() < 0.6
        self.account.apply_sla(life.key, minutes, business_hours=in_business_hours)
        life.targets.append((self.now, minutes, in_business_hours))

    # What the metrics are, by the rules of docs/metrics/support.md.

    def facts(self, known_until: datetime) -> dict[int, dict[str, Any]]:
        """Every ticket."""
        return {life.key: self._facts(life, known_until) for life in self.lives}

    def _facts(self, life: Life, known_until: datetime) -> dict[str, Any]:
        replies = [(at, who) for at, who, is_public in life.comments[1:] if is_public and who in self.agents and who != life.requester]
        replied = replies[0][0] if replies else None
        states = life.states()
        solutions = [at for (at, state), before in zip(states, [None, *states], strict=False) if state == "solved" and (not before or before[1] == "open")]
        left = [state for _, state in states if state != "deleted"][-1:]
        solved = solutions[-1] if left == ["solved"] else None
        gone = states[-1][0] if life.is_deleted else None
        waited = replied or (solutions[0] if solutions else None) or gone or known_until
        target = next((one for one in reversed(life.targets) if one[0] <= waited), None)
        in_time = None
        if target:
            took = self.business(life, waited) if target[2] else int((waited - life.opened).total_seconds())
            in_time = (took <= target[1] * 60) if replied or took > target[1] * 60 else None
        return {
            "first_reply_at": replied, "first_reply_by": replies[0][1] if replies else None, "agent_replies": len(replies),
            "agents": len({who for _, who in replies}), "first_reply_minutes": _minutes(life.opened, replied),
            "first_reply_business_minutes": self.business(life, replied) // 60 if replied else None,
            "first_solved_at": solutions[0] if solutions else None, "solved_at": solved,
            "first_resolution_minutes": _minutes(life.opened, solutions[0] if solutions else None), "full_resolution_minutes": _minutes(life.opened, solved),
            "full_resolution_business_minutes": self.business(life, solved) // 60 if solved else None,
            "reopens": sum(before == "solved" and state == "open" for (_, before), (_, state) in itertools.pairwise(states)),
            "reply_target_minutes": target[1] if target else None, "is_reply_target_in_business_hours": target[2] if target else None,
            "is_reply_in_time": in_time, "satisfaction": life.ratings[-1][1] if life.ratings else None,
            "rated_at": life.ratings[-1][0] if life.ratings else None, "is_deleted": life.is_deleted,
        }  # fmt: skip

    def business(self, life: Life, end: datetime) -> int:
        """Seconds from the opening of a ticket until then in which its schedule was open."""
        total = 0
        for number, (since, key) in enumerate(life.schedules):
            until = life.schedules[number + 1][0] if number + 1 < len(life.schedules) else NEVER
            total += self.schedules[key].open_seconds(since, min(until, end)) if since < end else 0
        return total

    def backlog(self, zone: str, known_until: datetime) -> list[tuple[Any, ...]]:
        """Each day: start, opened, reopened, solved, deleted, end."""
        days: dict[date, Counter[str]] = {}
        for life in self.lives:
            before = None
            for at, state in life.states():
                moved = days.setdefault(at.astimezone(ZoneInfo(zone)).date(), Counter())
                moved["opened"] += before is None
                moved["reopened"] += (before, state) == ("solved", "open")
                moved["solved"] += state == "solved" and before in (None, "open")
                moved["deleted"] += state == "deleted" and before in (None, "open")
                before = state
        found, day, held = [], min(days), 0
        while day <= known_until.astimezone(ZoneInfo(zone)).date():
            counted = days.get(day, Counter())
            end = held + counted["opened"] + counted["reopened"] - counted["solved"] - counted["deleted"]
            found.append((day, held, *(counted[name] for name in ("opened", "reopened", "solved", "deleted")), end))
            day, held = day + timedelta(days=1), end
        return found

    def daily(self, zone: str, facts: dict[int, dict[str, Any]], ordered: list[datetime]) -> dict[date, tuple[Any, ...]]:
        """Each day: tickets, orders, first replies, their median, in time, late, rated good and bad."""
        days: dict[date, list[Any]] = {}

        def of(at: datetime) -> list[Any]:
            return days.setdefault(at.astimezone(ZoneInfo(zone)).date(), [0, 0, [], 0, 0, 0, 0])

        for at in ordered:
            of(at)[1] += 1
        for life in self.lives:
            fact = facts[life.key]
            if life.is_deleted:
                continue
            of(life.opened)[0] += 1
            if fact["first_reply_at"]:
                of(fact["first_reply_at"])[2].append(fact["first_reply_minutes"])
                of(fact["first_reply_at"])[3] += fact["is_reply_in_time"] is True
                of(fact["first_reply_at"])[4] += fact["is_reply_in_time"] is False
            if fact["rated_at"]:
                of(fact["rated_at"])[5 if fact["satisfaction"] == "good" else 6] += 1
        return {day: (*row[:2], len(row[2]), median(row[2]) if row[2] else None, *row[3:]) for day, row in days.items()}


def _minutes(begin: datetime, end: datetime | None) -> int | None:
    return int((end - begin).total_seconds()) // 60 if end else None
