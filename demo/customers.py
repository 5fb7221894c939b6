"""The company's customers and what they bought. The purchases are real; the profiles are invented.

The purchases are the CDNOW data set: every purchase up to June 1998 of the 23,570 customers who first bought in the
first quarter of 1997. The profiles are drawn from the customer's id alone, so each stand-in of another system (payments, tickets,
traffic) that asks here speaks of the same people. None of them can reach or name anybody: e-mail addresses are of
domains reserved for examples, telephone numbers of an area code that is not assigned, social security numbers of an
area and group that are never issued.
"""

from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from functools import cache
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from warehouse.errors import UsageError

CURRENCY = "USD"
COUNTRIES = {"US": 58, "CA": 11, "GB": 10, "DE": 6, "AU": 5, "FR": 4, "NL": 3, "BR": 2, "JP": 1}
SEGMENTS = {"consumer": 80, "small_business": 15, "enterprise": 5}
MAIL_DOMAINS = {"example.com": 60, "example.org": 25, "example.net": 15}
FIRST_NAMES = (
    *("Ada", "Alan", "Amara", "Anna", "Bruno", "Chen", "Clara", "Diego", "Elena", "Emil", "Fatima", "Grace", "Hana", "Hugo"),
    *("Ines", "Ivan", "Jonas", "Julia", "Kofi", "Lena", "Liam", "Maya", "Nadia", "Noah", "Olga", "Omar", "Priya", "Rosa"),
    *("Samir", "Sofia", "Tomas", "Yuki"),
)
LAST_NAMES = (
    *("Abbott", "Bauer", "Costa", "Dubois", "Eriksen", "Fischer", "Garcia", "Haddad", "Ito", "Jensen", "Kowalski", "Larsen"),
    *("Moreau", "Novak", "Okafor", "Patel", "Quinn", "Rossi", "Silva", "Tanaka", "Ueda", "Vargas", "Weber", "Young"),
)
DAYS_BEFORE_FIRST_ORDER = 30


class Purchase(NamedTuple):
    """One line of the data set: one order. `revenue` is in US dollars."""

    order_id: int
    user_id: int
    ordered_on: date
    quantity: int
    revenue: Decimal


class Profile(NamedTuple):
    """What the company knows of a customer."""

    user_id: int
    email: str
    phone: str
    ssn: str
    age: int
    country: str
    segment: str
    created_at: datetime


@cache
def purchases() -> tuple[Purchase, ...]:
    """Every purchase in the order of the file, numbered from 1: 69,659 of 23,570 customers, read once.

    Lines that repeat another and purchases that cost nothing are in the data set, and are orders like any other.

    Raises:
        UsageError: the package that carries the data set is not installed.
    """
    days: dict[str, date] = {}
    found = []
    with _file().open(encoding="ascii") as file:
        next(file)
        for order_id, line in enumerate(file, start=1):
            user_id, day, quantity, revenue = line.split()
            if day not in days:
                days[day] = date(int(day[:4]), int(day[4:6]), int(day[6:]))
            found.append(Purchase(order_id, int(user_id), days[day], int(quantity), Decimal(revenue)))
    return tuple(found)


@cache
def first_order_dates() -> dict[int, date]:
    """The date of each customer's first purchase, by ascending customer id."""
    first: dict[int, date] = {}
    for purchase in purchases():
        first[purchase.user_id] = min(purchase.ordered_on, first.get(purchase.user_id, purchase.ordered_on))
    return dict(sorted(first.items()))


def profile(user_id: int, first_order_date: date) -> Profile:
    """The invented profile of a customer; the same for the same arguments on every machine and Python.

    `email`: unique also when lower-cased and without its +tag; some have capitals, some a tag.
    `phone`: `+1555` and seven digits, unique; no country's number (area code 555 is not assigned).
    `ssn`: `9aa-gg-ssss` with group 01 to 49, unique; never issued as a social security or taxpayer number.
    `age`: 18 to 90 years. `country`: ISO 3166 alpha-2. `created_at`: up to 30 days before the first order's midnight, UTC.
    """
    digest = sha256(f"profile:{user_id}".encode()).digest()
    draws = [int.from_bytes(digest[start : start + 4], "big") for start in range(0, 32, 4)]
    midnight = datetime.combine(first_order_date, time.min, UTC)
    return Profile(
        user_id=user_id,
        email=_email(user_id, draws[0], draws[1]),
        # Multiples of a number coprime to the range visit each value once: unique, yet no id can be read off.
        phone=f"+1555{user_id * 7_654_321 % 10_000_000:07d}",
        ssn=_ssn(user_id * 15_485_863),
        age=18 + (draws[2] % 37 + draws[3] % 37),
        country=weighted(COUNTRIES, draws[4]),
        segment=weighted(SEGMENTS, draws[5]),
        created_at=midnight - timedelta(seconds=draws[6] % (DAYS_BEFORE_FIRST_ORDER * 86_400) + 1),
    )


def weighted(weights: dict[str, int], draw: int) -> str:
    """The key on which a draw (any non-negative integer) falls, each key as often as its weight says."""
    left = draw % sum(weights.values())
    for key, weight in weights.items():
        if left < weight:
            return key
        left -= weight
    raise AssertionError("a remainder is less than the sum it is a remainder of")


def _email(user_id: int, name: int, form: int) -> str:
    first, last = _pick(FIRST_NAMES, name), _pick(LAST_NAMES, name // len(FIRST_NAMES))
    local = f"{first}.{last}{user_id}"
    local = local if form % 100 < 12 else local.lower()
    tag = "+cds" if form // 100 % 100 < 6 else ""
    return f"{local}{tag}@{weighted(MAIL_DOMAINS, form // 10_000)}"


def _ssn(number: int) -> str:
    number, area = divmod(number, 100)
    number, group = divmod(number, 49)
    return f"{900 + area}-{1 + group:02d}-{1 + number % 9_999:04d}"


def _pick(names: Sequence[str], draw: int) -> str:
    return names[draw % len(names)]


def _file() -> Path:
    """The data set inside the package that carries it, found without running any of the package's code."""
    found = find_spec("lifetimes")
    for place in (found.submodule_search_locations or []) if found else []:
        file = Path(place) / "datasets" / "CDNOW_master.txt"
        if file.exists():
            return file
    raise UsageError(
        "the purchases of the demo company are in the package `lifetimes`, which is not installed.",
        mend="install the project's `demo` extra: pip install -e '.[demo]'",
    )
