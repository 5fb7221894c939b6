"""Random subscriptions lived day by day in the stand-in of Stripe, with a diary in plain Python of what each was worth when."""

import random
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction
from typing import Any

from demo.stand_ins.stripe import StripeStandIn

Object = dict[str, Any]
Item = tuple[int, str, int, int]
"""Minor units of one unit, interval, its count, quantity."""
A_YEAR = {"day": 365, "week": 52, "month": 12, "year": 1}
DECIMALS = {"usd": 2, "eur": 2, "jpy": 0, "kwd": 3}
MILLIONTH = Decimal("0.000001")


def monthly(item: Item, currency: str) -> Decimal:
    """What an item is worth a month."""
    minor, interval, count, quantity = item
    worth = Fraction(minor * quantity * A_YEAR[interval], 12 * count * 10 ** DECIMALS[currency])
    return (Decimal(worth.numerator * 10**9 // worth.denominator) / 10**9).quantize(MILLIONTH, ROUND_HALF_UP)


def next_month(month: date) -> date:
    """The first day of the month after."""
    return date(month.year + month.month // 12, month.month % 12 + 1, 1)


@dataclass
class Life:
    """One subscription: what its customer was told, step by step."""

    key: str
    customer: str
    currency: str
    began: datetime
    items: list[Object]
    status: str
    is_paused: bool = False
    trial_end: datetime | None = None
    next_bill: datetime | None = None
    is_live: bool = True
    steps: list[tuple[datetime, Decimal]] = field(default_factory=list)

    def note(self, at: datetime) -> None:
        """Write down what it is worth from now on."""
        counts = self.status in ("active", "past_due") and not self.is_paused
        self.steps.append((at, sum((monthly(_terms(item), self.currency) for item in self.items), Decimal(0)) if counts else Decimal(0)))

    @property
    def is_over(self) -> bool:
        """Whether nothing can happen to it any more."""
        return self.status == "canceled"


def _terms(item: Object) -> Item:
    price = item["price"]
    return price["unit_amount"], price["recurring"]["interval"], price["recurring"]["interval_count"], item["quantity"]


class World:
    """An account in which something happens every few days.

    Attributes:
        now: the account's clock; it never stands still.
    """

    def __init__(self, seed: int, start: datetime) -> None:
        self.random, self.now = random.Random(seed), start
        self.account = StripeStandIn(now=lambda: self.now)
        self.lives: list[Life] = []
        self._prices = {
            currency: [
                self._price(currency, minor, interval, count)
                for minor, interval, count in ((999, "month", 1), (10_000, "year", 1), (250, "week", 1), (4_000, "month", 3), (7, "day", 1))
            ]
            for currency in DECIMALS
        }
        self._customers = [str(self.account.create("customers")["id"]) for _ in range(12)]

    def _price(self, currency: str, minor: int, interval: str, count: int) -> Object:
        recurring = {"interval": interval, "interval_count": count, "usage_type": "licensed"}
        return self.account.create("prices", currency=currency, unit_amount=minor, unit_amount_decimal=str(minor), type="recurring", recurring=recurring)

    def live_until(self, end: datetime) -> None:
        """Something happens to somebody, again and again; sometimes in the very second in which a month begins."""
        while True:
            later = self.now + timedelta(seconds=self.random.randrange(3_600, 200_000))
            midnight = datetime(later.year, later.month, 1, tzinfo=UTC)
            self.now = midnight if self.now < midnight and self.random.random() < 0.5 else later
            if self.now >= end:
                self.now = end
                return
            going = [life for life in self.lives if not life.is_over]
            if len(going) < 10 or self.random.random() < 0.25:
                self.subscribe()
            else:
                self._happen(self.random.choice(going))

    def subscribe(self, interval: str | None = None) -> Life:
        """Somebody subscribes to one item or two; on trial, at once, or once the bank has agreed."""
        currency = self.random.choice(list(DECIMALS))
        prices = [price for price in self._prices[currency] if interval in (None, price["recurring"]["interval"])]
        items = [self._item(price) for price in self.random.sample(prices, self.random.choice([1, 1, min(2, len(prices))]))]
        kind = self.random.choice(["active", "active", "trialing", "incomplete"]) if interval is None else self.random.choice(["active", "active", "trialing"])
        trial_end = self.now + timedelta(days=14) if kind == "trialing" else None
        trial: Object = {"trial_start": int(self.now.timestamp()), "trial_end": int(trial_end.timestamp())} if trial_end else {}
        is_live = self.random.random() < 0.9
        customer = self.random.choice(self._customers)
        made = self.account.create("subscriptions", customer=customer, currency=currency, status=kind, items=items, livemode=is_live, **trial)
        life = Life(made["id"], customer, currency, self.now, made["items"], kind, trial_end=trial_end, is_live=is_live)
        life.note(self.now)
        self.lives.append(life)
        return life

    def _item(self, price: Object) -> Object:
        return {"price": price, "quantity": self.random.randrange(1, 9)}

    def _happen(self, life: Life) -> None:
        if life.status == "trialing":
            if life.trial_end and self.now >= life.trial_end:
                self.change(life, status=self.random.choice(["active", "active", "canceled"]))
        elif life.status in ("incomplete", "unpaid"):
            self.change(life, status=self.random.choice(["active", "active", "canceled"]))
        elif life.is_paused:
            self.change(life, pause_collection=None)
        else:
            what: list[Callable[[Life], None]] = [
                self.requantify, self.requantify, self._reprice, self._add, self._remove, self._dearer,
                lambda one: self.change(one, status="canceled"), lambda one: self.change(one, cancel_at_period_end=True),
                lambda one: self.change(one, status="past_due"), lambda one: self.change(one, status="active"),
                lambda one: self.change(one, status="unpaid"), lambda one: self.change(one, pause_collection={"behavior": "void", "resumes_at": None}),
            ]  # fmt: skip
            self.random.choice(what)(life)

    def change(self, life: Life, **fields: Any) -> None:
        """Change a subscription, as Stripe tells it, and write down what it is worth from now on."""
        over = fields.get("status") == "canceled"
        ended: Object = {"ended_at": int(self.now.timestamp()), "canceled_at": int(self.now.timestamp())} if over else {}
        made = self.account.update(life.key, announce="deleted" if over else "updated", **fields, **ended)
        life.items, life.status, life.is_paused = made["items"], made["status"], bool(made.get("pause_collection"))
        life.note(self.now)

    def requantify(self, life: Life) -> None:
        """Another quantity of one item."""
        number = self.random.randrange(len(life.items))
        self.change(life, items=[{**item, "quantity": item["quantity"] % 9 + 1} if number == index else item for index, item in enumerate(life.items)])

    def _reprice(self, life: Life) -> None:
        number = self.random.randrange(len(life.items))
        price = self.random.choice(self._prices[life.currency])
        self.change(life, items=[{**item, "price": price} if number == index else item for index, item in enumerate(life.items)])

    def _add(self, life: Life) -> None:
        key = f"si_{life.key[4:]}_{self.random.randrange(10**9)}"
        self.change(life, items=[*life.items, {**self._item(self.random.choice(self._prices[life.currency])), "id": key, "created": int(self.now.timestamp())}])

    def _remove(self, life: Life) -> None:
        if len(life.items) > 1:
            self.change(life, items=life.items[1:])

    def _dearer(self, life: Life) -> None:
        """A price of today: items held have the price of their time."""
        for price in self._prices[life.currency]:
            self.account.update(price["id"], unit_amount=price["unit_amount"] * 3, unit_amount_decimal=str(price["unit_amount"] * 3))

    def bill(self, life: Life, until: datetime) -> None:
        """An invoice of a period, with what is no part of MRR on it: a proration, something sold once."""
        begin, end = int(self.now.timestamp()), int(until.timestamp())
        is_trial = life.status == "trialing"
        lines = []
        for item in life.items:
            of: Object = {"type": "subscription_item_details", "subscription_item_details": {"subscription": life.key, "subscription_item": item["id"]}}
            amount = 0 if is_trial else item["price"]["unit_amount"] * item["quantity"]
            common = {"currency": life.currency, "pricing": {"price_details": {"price": item["price"]["id"]}}, "period": {"start": begin, "end": end}}
            lines.append({**common, "amount": amount, "quantity": item["quantity"], "parent": of})
            corrected = {"type": of["type"], "subscription_item_details": {**of["subscription_item_details"], "proration": True}}
            lines.append({**common, "amount": -333, "quantity": item["quantity"], "parent": corrected})
        lines.append({**common, "amount": 5_000, "quantity": 1, "parent": {"type": "invoice_item_details", "invoice_item_details": {}}})
        self.account.create("invoices", customer=life.customer, currency=life.currency, status="paid", livemode=life.is_live, lines=lines)

    # The diary, read.

    def months(self) -> dict[tuple[str, str, str, date], Decimal]:
        """MRR at the end of each month of each live subscription: key, customer, currency and month."""
        newest, ends = date(self.now.year, self.now.month, 1), {}
        for life in (life for life in self.lives if life.is_live):
            month = date(life.began.year, life.began.month, 1)
            last = date(life.steps[-1][0].year, life.steps[-1][0].month, 1) if life.is_over else newest
            while month <= last:
                end = datetime(next_month(month).year, next_month(month).month, 1, tzinfo=UTC)
                ends[life.key, life.customer, life.currency.upper(), month] = [worth for at, worth in life.steps if at < end][-1]
                month = next_month(month)
        return ends

    def movements(self) -> dict[tuple[str, str, date], tuple[Decimal, ...]]:
        """Start, new, expansion, contraction, churn, reactivation and end by customer, currency and month; without months of nothing."""
        ends: dict[tuple[str, str], dict[date, Decimal]] = defaultdict(lambda: defaultdict(Decimal))
        for (_, customer, currency, month), worth in self.months().items():
            ends[customer, currency][month] += worth
        moved = {}
        for (customer, currency), by_month in ends.items():
            month, start, was_customer = min(by_month), Decimal(0), False
            while month <= date(self.now.year, self.now.month, 1):
                end, zero = by_month.get(month, Decimal(0)), Decimal(0)
                row = [start, zero, zero, zero, zero, zero, end]
                if not start and end:
                    row[5 if was_customer else 1] = end
                elif start and not end:
                    row[4] = start
                elif end > start:
                    row[2] = end - start
                else:
                    row[3] = start - end
                if start or end:
                    moved[customer, currency, month] = tuple(row)
                was_customer, start, month = was_customer or bool(end), end, next_month(month)
        return moved

    def retention(self) -> dict[tuple[date, str], tuple[Any, ...]]:
        """Opening and churned customers, opening, expanded, contracted and churned MRR, by month and currency."""
        totals: dict[tuple[date, str], list[tuple[Decimal, ...]]] = defaultdict(list)
        for (_, currency, month), row in self.movements().items():
            totals[month, currency].append(row)
        return {
            key: (sum(bool(row[0]) for row in rows), sum(bool(row[4]) for row in rows), *(sum((row[at] for row in rows), Decimal(0)) for at in (0, 2, 3, 4)))
            for key, rows in totals.items()
        }
