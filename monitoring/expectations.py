"""What is usual, as `monitoring/expectations.yaml` declares it."""

from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Annotated
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field, model_validator

from monitoring.rules import QuietHours
from warehouse import declared
from warehouse.settings import ROOT

EXPECTATIONS_FILE = ROOT / "monitoring" / "expectations.yaml"

Table = Annotated[str, Field(pattern=r"^[a-z_][a-z0-9_]*\.[a-z_][a-z0-9_]*$")]
Name = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Watched(_Strict):
    """One table whose days are compared: how many rows, and what is said of its columns. `by` judges each value of a column by itself."""

    day: Name
    by: Name | None = None
    sums: list[Name] = []
    means: list[Name] = []
    null_rates: list[Name] = []
    distinct_shares: list[Name] = []


class SameRows(_Strict):
    """A table has exactly one row for each row of another one (of those for which `where` holds).

    A key may be several columns; the other table's has the same names unless `of_key` gives them.
    """

    table: Table
    key: Name | Annotated[list[Name], Field(min_length=1)]
    of: Table
    of_key: Name | Annotated[list[Name], Field(min_length=1)] | None = None
    where: str = "true"

    @model_validator(mode="after")
    def _equally_many(self) -> "SameRows":
        if len(self.keys) != len(self.of_keys):
            raise ValueError("key and of_key need equally many columns")
        return self

    @property
    def keys(self) -> list[str]:
        """The columns of the table's own key."""
        return [self.key] if isinstance(self.key, str) else self.key

    @property
    def of_keys(self) -> list[str]:
        """The columns of the other table's key, in the same order."""
        return [self.of_key] if isinstance(self.of_key, str) else self.of_key or self.keys


class Deletes(_Strict):
    """`time` says since when the source no longer has a row; more than the share `above` of all rows within a day is told."""

    time: Name
    above: Annotated[float, Field(gt=0, lt=1)]


class Quiet(QuietHours):
    """Hours in which nothing is expected; `weekends` adds Saturday and Sunday."""

    weekends: bool = False


class Newest(_Strict):
    """The newest row's own time is at most so old; quiet hours do not count. A time in the future is no news."""

    time: Name
    within_hours: Annotated[float, Field(gt=0)]
    quiet: Quiet | None = None

    def age(self, newest: datetime, now: datetime) -> timedelta:
        """How old the newest row is, without the quiet hours since."""
        return (now - newest) - (_quiet_between(self.quiet, newest, now) if self.quiet else timedelta())


class Special(_Strict):
    """A holiday or promotion: the days from one date on, once or in every year."""

    name: str
    day: date | None = None
    every_year: Annotated[str, Field(pattern=r"^(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])$")] | None = None
    days: Annotated[int, Field(ge=1, le=60)] = 1

    @model_validator(mode="after")
    def _once_or_yearly(self) -> "Special":
        if (self.day is None) == (self.every_year is None):
            raise ValueError("either day or every_year is needed, not both")
        if self.every_year is not None:
            date.fromisoformat(f"2000-{self.every_year}")  # a ValueError says which day there is not
        return self

    def between(self, first: date, last: date) -> set[date]:
        """Its days in a stretch of time."""
        begins = [self.day] if self.day else [date(year, *self._month_and_day(year)) for year in range(first.year - 1, last.year + 1)]
        return {begin + timedelta(days=number) for begin in begins if begin for number in range(self.days) if first <= begin + timedelta(days=number) <= last}

    def _month_and_day(self, year: int) -> tuple[int, int]:
        month, day = (int(part) for part in (self.every_year or "01-01").split("-"))
        is_leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
        return (2, 28) if (month, day) == (2, 29) and not is_leap else (month, day)


class Expectations(_Strict):
    """All of `monitoring/expectations.yaml`."""

    anomalies: dict[Table, Watched] = {}
    rows: list[SameRows] = []
    newest: dict[Table, Newest] = {}
    deletes: dict[Table, Deletes] = {}
    calendar: list[Special] = []

    def special_days(self, first: date, last: date) -> list[date]:
        """The days of the calendar in a stretch of time, sorted."""
        return sorted(set[date]().union(*(special.between(first, last) for special in self.calendar)))


def read_expectations(file: Path | None = None) -> Expectations:
    """What is declared.

    Raises:
        DeclarationError: one line per problem: key, what was found, what is allowed.
    """
    return declared.read(file or EXPECTATIONS_FILE, Expectations)


def _quiet_between(quiet: Quiet, begin: datetime, end: datetime) -> timedelta:
    """How much of a stretch of time is quiet, by the clocks of its zone; looked at for at most two months back."""
    zone = ZoneInfo(quiet.time_zone)
    begin = max(begin, end - timedelta(days=62))
    total, day = timedelta(), begin.astimezone(zone).date() - timedelta(days=1)
    opens, closes = time.fromisoformat(quiet.until), time.fromisoformat(quiet.begin)
    while day <= end.astimezone(zone).date():
        midnight, next_midnight = (datetime.combine(one, time(), zone) for one in (day, day + timedelta(days=1)))
        if quiet.weekends and day.weekday() >= 5:
            stretches = [(midnight, next_midnight)]
        elif opens <= closes:  # the quiet hours go over midnight
            stretches = [(midnight, datetime.combine(day, opens, zone)), (datetime.combine(day, closes, zone), next_midnight)]
        else:
            stretches = [(datetime.combine(day, closes, zone), datetime.combine(day, opens, zone))]
        for first, last in stretches:
            total += max(timedelta(), min(last.astimezone(end.tzinfo), end) - max(first.astimezone(end.tzinfo), begin))
        day += timedelta(days=1)
    return total
