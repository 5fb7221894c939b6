"""A company at Stripe that lives by a seed: what happened to it, as plain Python values, and the raw tables that a load would leave.

Nothing here knows the models: figures are added up from what happened, in minor units, by the rules of docs/metrics/revenue.md.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

from duckdb import DuckDBPyConnection

Figures = dict[tuple[date, str], Counter[str]]
DIGITS = {"jpy": 0, "kwd": 3, "usd": 2, "eur": 2}
BALANCE_OF = {"jpy": "usd", "kwd": "usd", "usd": "usd", "eur": "eur"}
"""In which currency the account is paid: it has two balances."""
FEE_OF_DISPUTE = 1500
MONEY = ("amount", "amount_captured", "fee", "net")
OUR_OWN = {"given_back", "settled", "withdrawn", "reinstated", "fee_taken", "fee_reversed"}
"""What the world notes down of its objects and Stripe does not have."""
EARNED = ("charges", "charge_failures", "refunds", "disputes", "adjustments", "fees")
OTHERS = [
    ("charge_failure", "charge_failures", -1), ("fee", "fees", -1), ("tax", "fees", -1), ("network_cost", "fees", -1), ("other_adjustment", "adjustments", 1),
    ("transfer", "transfers", -1), ("topup", "top_ups", 1), ("risk_reserved_funds", "reserves", -1), ("advance", "financing", 1),
    ("issuing_transaction", "issuing", -1), ("climate_order_purchase", "other", -1), (None, "other", 1),
]  # fmt: skip
"""Movements without an object of their own: reporting category, the column in which they count, sign."""


def money(minor: int, currency: str) -> Decimal:
    """An amount in the currency's main unit."""
    return Decimal(minor).scaleb(-DIGITS[currency.lower()])


@dataclass
class World:
    """What happened so far. `live` lets time pass; `load` writes what is new or changed into the raw tables."""

    seed: int
    now: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    objects: dict[str, dict[str, dict[str, Any]]] = field(default_factory=lambda: defaultdict(dict))
    column_of: dict[str, str] = field(default_factory=dict)
    hidden: set[str] = field(default_factory=set)
    _changed: set[tuple[str, str]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)

    def live(self, days: int, sales_a_day: int) -> None:
        """Let so many days pass, with sales, and whatever befalls earlier sales."""
        for _ in range(days):
            midnight = self.now
            for _ in range(sales_a_day):
                self._at(midnight)
                self._sell()
            happenings = (self._refund, self._refund, self._fail_refund, self._dispute, self._decide, self._reinstate, self._pay_out, self._return_payout)
            for happens in (*happenings, self._other):
                self._at(midnight)
                if self.chance.random() < 0.7:
                    happens()
            self.now = midnight + timedelta(days=1)

    def _at(self, midnight: datetime) -> None:
        """Some moment of the day, often at its very edges."""
        edge = self.chance.choice((timedelta(0), timedelta(days=1, microseconds=-1)))
        self.now = midnight + (edge if self.chance.random() < 0.2 else timedelta(seconds=self.chance.randrange(86_400)))

    def _put(self, table: str, key: str, **values: Any) -> dict[str, Any]:
        row = self.objects[table].setdefault(key, {"id": key, "created_at": self.now, "livemode": True})
        row |= values
        self._changed.add((table, key))
        return row

    def _new(self, table: str, **values: Any) -> dict[str, Any]:
        return self._put(table, f"{table}_{len(self.objects[table])}", **values)

    def _move(self, column: str, category: str | None, currency: str, amount: int, fee: int = 0, **values: Any) -> str:
        moved = self._new("balance_transactions", currency=currency, amount=amount, fee=fee, net=amount - fee, reporting_category=category, **values)
        self.column_of[moved["id"]] = column
        return str(moved["id"])

    def _some(self, table: str, **wanted: Any) -> dict[str, Any] | None:
        found = [row for row in self.objects[table].values() if all(row.get(name) == value for name, value in wanted.items())]
        return self.chance.choice(found) if found else None

    def _sell(self) -> None:
        currency, amount = self.chance.choice(tuple(DIGITS)), self.chance.randrange(100, 90_000)
        fate = self.chance.choices(("taken", "part", "held", "failed", "pending", "test", "unknown"), (70, 6, 5, 6, 4, 5, 4))[0]
        taken = {"taken": amount, "test": amount, "unknown": amount, "part": amount // 2}.get(fate, 0)
        status = fate if fate in ("failed", "pending") else "succeeded"
        sold = self._new("charges", currency=currency, amount=amount, amount_captured=taken, status=status, customer_id=f"cus_{self.chance.randrange(9)}",
                         livemode=fate != "test", balance_transaction_id=None, given_back=0, settled=0)  # fmt: skip
        if taken:
            paid_in = BALANCE_OF[currency]
            sold["settled"] = taken if paid_in == currency else max(1, taken // 7)
            sold["balance_transaction_id"] = self._move("charges", "charge", paid_in, sold["settled"], sold["settled"] // 34 + 30,
                                                        source_id=sold["id"], livemode=fate != "test")  # fmt: skip
        if fate == "unknown":
            self.hidden.add(sold["id"])
        if fate == "held" and self.chance.random() < 0.5:  # an authorisation that was released: no money moved
            self._new("refunds", charge_id=sold["id"], currency=currency, amount=amount, status="succeeded", balance_transaction_id=None)

    def _taken(self) -> dict[str, Any] | None:
        found = [row for key, row in self.objects["charges"].items() if row["settled"] and row["livemode"] and key not in self.hidden]
        return self.chance.choice(found) if found else None

    def _refund(self) -> None:
        sold = self._taken()
        if sold is None or sold["given_back"] >= sold["amount_captured"]:
            return
        left = sold["amount_captured"] - sold["given_back"]
        amount = left if self.chance.random() < 0.4 else self.chance.randint(1, left)
        settled = amount if BALANCE_OF[sold["currency"]] == sold["currency"] else max(1, amount // 7)
        refund = self._new("refunds", charge_id=sold["id"], currency=sold["currency"], amount=amount, settled=settled,
                           status=self.chance.choice(("succeeded", "succeeded", "pending")))  # fmt: skip
        named = self.chance.random() < 0.9  # older movements do not name their source
        moved = self._move("refunds", "refund", BALANCE_OF[sold["currency"]], -settled, source_id=refund["id"] if named else None)
        self._put("refunds", refund["id"], balance_transaction_id=moved)
        sold["given_back"] += amount

    def _fail_refund(self) -> None:
        refund = self._some("refunds", status="pending")
        if refund is not None:
            self._move("refunds", "refund_failure", BALANCE_OF[refund["currency"]], refund["settled"], source_id=refund["id"])
            self._put("refunds", refund["id"], status="failed")
            self.objects["charges"][refund["charge_id"]]["given_back"] -= refund["amount"]

    def _dispute(self) -> None:
        sold = self._taken()
        if sold is None:
            return
        is_inquiry = self.chance.random() < 0.2
        dispute = self._new("disputes", charge_id=sold["id"], currency=sold["currency"], amount=sold["amount_captured"], settled=sold["settled"], withdrawn=0,
                            status="warning_needs_response" if is_inquiry else "needs_response", reinstated=0, fee_taken=0, fee_reversed=0)  # fmt: skip
        if not is_inquiry:
            self._move("disputes", "dispute", BALANCE_OF[sold["currency"]], -sold["settled"], FEE_OF_DISPUTE, source_id=dispute["id"])
            dispute |= {"withdrawn": sold["settled"], "fee_taken": FEE_OF_DISPUTE}

    def _decide(self) -> None:
        dispute = self._some("disputes", status="needs_response")
        if dispute is None:
            return
        self._put("disputes", dispute["id"], status="won" if self.chance.random() < 0.6 else "lost")

    def _reinstate(self) -> None:
        """The money of a dispute that was won comes back, later, and nothing changes on the dispute itself."""
        dispute = self._some("disputes", status="won", reinstated=0)
        if dispute is not None and self.chance.random() < 0.2:
            back = FEE_OF_DISPUTE if self.chance.random() < 0.7 else 0
            self._move("disputes", "dispute_reversal", BALANCE_OF[dispute["currency"]], dispute["settled"], -back, source_id=dispute["id"])
            dispute |= {"reinstated": dispute["settled"], "fee_reversed": back}

    def _pay_out(self) -> None:
        currency, amount = self.chance.choice(("usd", "eur")), self.chance.randrange(1, 200_000)
        payout = self._new("payouts", currency=currency, amount=amount, status="paid")
        moved = self._move("payouts", "payout", currency, -amount, self.chance.choice((0, 0, 50)), source_id=payout["id"])
        self._put("payouts", payout["id"], balance_transaction_id=moved)

    def _return_payout(self) -> None:
        payout = self._some("payouts", status="paid")
        if payout is not None and self.chance.random() < 0.3:
            self._move("payouts_returned", "payout_reversal", payout["currency"], payout["amount"], source_id=payout["id"])
            self._put("payouts", payout["id"], status=self.chance.choice(("failed", "canceled")))

    def _other(self) -> None:
        category, column, sign = self.chance.choice(OTHERS)
        self._move(column, category, self.chance.choice(("usd", "eur")), sign * self.chance.randrange(1, 5_000))

    def load(self, connection: DuckDBPyConnection) -> None:
        """Write what changed since the last load, as a load of this moment leaves it; what is hidden stays out."""
        kept: dict[tuple[str, tuple[str, ...]], list[list[Any]]] = defaultdict(list)
        stamps = {"is_deleted": False, "_settled_at": self.now, "_loaded_at": self.now}
        for table, key in sorted(self._changed):
            row = self.objects[table][key]
            amounts = {f"{name}_decimal": money(row[name], row["currency"]) for name in MONEY if name in row}
            if key not in self.hidden:
                loaded = {name: value for name, value in (row | amounts | stamps).items() if name not in OUR_OWN}
                kept[table, tuple(loaded)].append(list(loaded.values()))
        for (table, columns), rows in kept.items():
            connection.executemany(f"DELETE FROM raw_stripe.{table} WHERE id = ?", [row[:1] for row in rows])
            connection.executemany(f"INSERT INTO raw_stripe.{table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})", rows)
        self._changed.clear()

    def _live_rows(self, table: str) -> Iterator[dict[str, Any]]:
        return (row for row in self.objects[table].values() if row["livemode"])

    def days(self) -> Figures:
        """Payments, refunds, disputes, fees and net by day and currency, in minor units."""
        found: Figures = defaultdict(Counter)
        for row in self._live_rows("charges"):
            if row["status"] == "succeeded" and row["id"] not in self.hidden and row["amount_captured"]:
                found[row["created_at"].date(), row["currency"]]["payments"] += row["amount_captured"]
        for row in self.objects["refunds"].values():
            if row["balance_transaction_id"] and row["status"] != "failed":
                found[row["created_at"].date(), row["currency"]]["refunds"] += row["amount"]
        for row in self._live_rows("balance_transactions"):
            column, here = self.column_of[row["id"]], (row["created_at"].date(), row["currency"])
            found[here]["fees"] += row["fee"] - (row["amount"] if column == "fees" else 0)
            found[here]["net"] += (row["amount"] if column in EARNED else 0) - row["fee"]
            if column == "disputes":
                dispute = self.objects["disputes"][row["source_id"]]
                found[here[0], dispute["currency"]]["disputes"] += dispute["amount"] if row["amount"] < 0 else -dispute["amount"]
        return {here: figures for here, figures in found.items() if any(figures.values())}

    def balances(self) -> Figures:
        """Each category, fees, the change and the number of movements by UTC day and currency of the balance."""
        found: Figures = defaultdict(Counter)
        for row in self._live_rows("balance_transactions"):
            figures, column = found[row["created_at"].date(), row["currency"]], self.column_of[row["id"]]
            figures[column] += row["amount"]
            figures["fees"] -= row["fee"]
            figures["balance_change"] += row["net"]
            figures["movements"] += 1
            figures["other_movements"] += column == "other"
            figures["movements_without_object"] += row.get("source_id") in self.hidden
        return found
