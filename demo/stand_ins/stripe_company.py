"""What some of the company's customers did in Stripe: they bought what they bought in the shop, and some joined its club.

Everything follows from the purchases and profiles of demo/customers.py, so each start makes the same objects with the same
ids. Only two things happen when it starts, so that there are events to read: a product changes and a customer leaves.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta
from typing import Any

from demo.customers import Profile, Purchase, first_order_dates, profile, purchases
from demo.stand_ins.stripe import StripeStandIn
from demo.stand_ins.stripe_shapes import Object

EVERY = 500
"""One customer in so many pays through Stripe: the first purchase, every other customer the second too."""
MEMBERS, TEST, LEAVER = 8, 1, -1
YEN, FILS = 125, 3
"""An invented rate: so many yen for a dollar, so many Kuwaiti fils for ten cents."""
ABROAD = {20: "jpy", 40: "kwd"}
"""Which of these customers pay in another currency; the account is paid in dollars."""


def environment(stand_in: StripeStandIn) -> dict[str, str]:
    """The settings by which the warehouse reads it."""
    return {"SOURCES__STRIPE__BASE_URL": stand_in.url, "SOURCES__STRIPE__STRIPE_SECRET_KEY": stand_in.secret_key}


def populate(stand_in: StripeStandIn) -> None:
    """Fill an empty account: about 50 customers and 90 charges, with what belongs to them."""
    account = _Account(stand_in)
    people = [person for index, person in enumerate(_people()) if index % EVERY == 0]
    customers = [account.customer(person, ABROAD.get(number, "usd")) for number, person in enumerate(people)]
    left = {person.user_id: 1 + number % 2 for number, person in enumerate(people)}
    known = {person.user_id: customer for person, customer in zip(people, customers, strict=True)}
    for purchase in purchases():
        if left.get(purchase.user_id, 0) > 0 and purchase.revenue > 0:
            left[purchase.user_id] -= 1
            account.sale(known[purchase.user_id], purchase)
    for number, (person, customer) in enumerate(zip(people[:MEMBERS], customers, strict=False)):
        account.membership(customer, person, number)
    account.what_came_back()
    account.payouts()
    account.test_mode(people[TEST])
    stand_in.update(account.club, announce="updated", description="New records every month")
    stand_in.delete(customers[LEAVER]["id"])


def _people() -> Iterator[Profile]:
    return (profile(user_id, first) for user_id, first in first_order_dates().items())


@dataclass
class _Account:
    stripe: StripeStandIn
    charges: list[Object] = field(default_factory=list)

    def __post_init__(self) -> None:
        opened = datetime(1997, 1, 1, tzinfo=UTC)
        records = self._make("products", opened, name="Records", type="good")["id"]
        self.club = str(self._make("products", opened, name="Club")["id"])
        self._make("prices", opened, product=records, unit_amount=1299, unit_amount_decimal="1299")
        monthly = {"type": "recurring", "recurring": {"interval": "month", "interval_count": 1, "usage_type": "licensed"}}
        self._monthly = self._make("prices", opened, product=self.club, unit_amount=999, unit_amount_decimal="999", **monthly)["id"]
        self._make("prices", opened, product=self.club, currency="jpy", unit_amount=1250, unit_amount_decimal="1250", **monthly)
        welcome = self._make("coupons", opened, name="Welcome", percent_off=10)["id"]
        self._make("coupons", opened, name="Sorry", percent_off=None, amount_off=500, currency="usd", valid=False, times_redeemed=3)
        self._make("promotion_codes", opened, code="WELCOME", coupon=welcome)

    def _make(self, kind: str, at: datetime, **fields: Any) -> Object:
        """Something of long ago, of which no event is left."""
        return self.stripe.create(kind, announce=None, created=int(at.timestamp()), **fields)

    def customer(self, person: Profile, currency: str) -> Object:
        local = person.email.partition("@")[0].partition("+")[0].rstrip("0123456789")
        known = {"user_id": str(person.user_id)} if person.user_id // EVERY % 2 else {}  # the shop began late to write its own key down
        name = local.replace(".", " ").title()
        return self._make("customers", person.created_at, email=person.email, phone=person.phone, name=name, currency=currency, metadata=known)

    def sale(self, customer: Object, purchase: Purchase) -> None:
        """A purchase in the shop, paid by card; one in forty was refused at first."""
        at = datetime.combine(purchase.ordered_on, time(12), UTC)
        cents = int(purchase.revenue * 100)
        amount = {"usd": cents, "jpy": cents * YEN // 100, "kwd": cents * FILS}[customer["currency"]]
        number = len(self.charges)
        if number % 40 == 10:
            self._charge(customer, at - timedelta(minutes=2), amount, cents, is_refused=True)
        charge = self._charge(customer, at, amount, cents, description=f"{purchase.quantity} records")
        if number % 15 == 0:
            self._make("checkout/sessions", at, customer=customer["id"], customer_email=customer["email"], status="complete", payment_status="paid",
                       payment_intent=charge["payment_intent"], currency=charge["currency"], amount_subtotal=amount, amount_total=amount)  # fmt: skip

    def _charge(self, customer: Object, at: datetime, amount: int, cents: int, *, is_refused: bool = False, description: str | None = None) -> Object:
        """A charge with its payment intent and, when it succeeded, its effect on the balance in US cents."""
        money = {"customer": customer["id"], "amount": amount, "currency": customer["currency"], "description": description}
        person = {"email": customer["email"], "name": customer["name"], "phone": None, "address": None}
        intent = self._make("payment_intents", at, **money, status="requires_payment_method" if is_refused else "succeeded", amount_received=amount)
        charge = self._make("charges", at, **money, payment_intent=intent["id"], billing_details=person)
        if is_refused:
            refusal: Object = {"status": "failed", "paid": False, "captured": False, "amount_captured": 0, "failure_code": "card_declined"}
            self.stripe.update(charge["id"], announce=None, **refusal)
            intent_now: Object = {"amount_received": 0}
        else:
            charge = self.stripe.update(charge["id"], announce=None, amount_captured=amount, balance_transaction=self._movement(charge, cents, at))
            self.charges.append(charge)
            intent_now = {}
        self.stripe.update(intent["id"], announce=None, latest_charge=charge["id"], **intent_now)
        return charge

    def _movement(self, source: Object, cents: int, at: datetime, *, fee: int = 0, type: str = "", category: str = "") -> str:
        kind = str(source["object"])
        fee = (cents * 29 + 500) // 1000 + 30 if kind == "charge" else fee
        rate = {"jpy": 1 / YEN, "kwd": 10 / FILS}.get(source["currency"])
        arrives = int((at + timedelta(days=2)).timestamp())
        moved = self._make("balance_transactions", at, amount=cents, fee=fee, net=cents - fee, source=source["id"], type=type or kind,
                           reporting_category=category or kind, exchange_rate=round(rate, 6) if rate else None, available_on=arrives)  # fmt: skip
        return str(moved["id"])

    def membership(self, customer: Object, person: Profile, number: int) -> None:
        """A subscription of the club with two monthly invoices; the last member's was canceled, the first one's first invoice is long."""
        begin = datetime.combine(first_order_dates()[person.user_id], time(9), UTC)
        month = [begin + timedelta(days=30 * count) for count in range(3)]
        is_over = number == MEMBERS - 1
        first, second, third = (int(at.timestamp()) for at in month)
        item = {"price": {"id": self._monthly, "object": "price"}, "created": first, "current_period_start": second, "current_period_end": third}
        ended = {"status": "canceled", "canceled_at": third, "ended_at": third} if is_over else {}
        subscription = self._make("subscriptions", begin, customer=customer["id"], currency="usd", start_date=first, items=[item], **ended)
        for count, at in enumerate(month[:2]):
            lines = 12 if (number, count) == (0, 0) else 1
            latest = self._invoice(customer, subscription["id"], at, lines, is_paid=(number, count) != (3, 1), number=f"CLUB-{number:02d}{count:02d}")
        self.stripe.update(subscription["id"], announce=None, latest_invoice=latest)

    def _invoice(self, customer: Object, subscription: str, at: datetime, lines: int, *, is_paid: bool, number: str) -> str:
        begin, end, total = int(at.timestamp()), int((at + timedelta(days=30)).timestamp()), 999 * lines
        line = {"amount": 999, "description": "Club", "period": {"start": begin, "end": end}, "pricing": {"price_details": {"price": self._monthly}},
                "parent": {"type": "subscription_item_details", "subscription_item_details": {"subscription": subscription}}}  # fmt: skip
        whose = {"customer": customer["id"], "customer_email": customer["email"], "customer_name": customer["name"], "number": number}
        about = {"billing_reason": "subscription_cycle", "period_start": begin, "period_end": end,
                 "parent": {"type": "subscription_details", "subscription_details": {"subscription": subscription}}}  # fmt: skip
        money = {"currency": "usd", "subtotal": total, "total": total, "amount_due": total}
        paid = {"status": "paid", "amount_paid": total} if is_paid else {"status": "open", "amount_remaining": total}
        moments = {"finalized_at": begin, "paid_at": begin if is_paid else None, "voided_at": None}
        invoice = self._make("invoices", at, **whose, **about, **money, **paid, status_transitions=moments, lines=[line] * lines)
        if is_paid:
            self._charge({**customer, "currency": "usd"}, at, total, total, description="Club")
        return str(invoice["id"])

    def what_came_back(self) -> None:
        """Refunds of every tenth charge, half of it or all; a charge disputed twice; a credit note; something still to be billed."""
        for count, charge in enumerate(self.charges[::10]):
            share = 1 + count % 2
            amount, at = charge["amount"] // share, datetime.fromtimestamp(charge["created"], UTC) + timedelta(days=5)
            of_charge = {"charge": charge["id"], "payment_intent": charge["payment_intent"], "currency": charge["currency"]}
            refund = self._make("refunds", at, amount=amount, reason="requested_by_customer", **of_charge)
            self.stripe.update(refund["id"], announce=None, balance_transaction=self._movement(refund, -(self._cents(charge) // share), at))
            self.stripe.update(charge["id"], announce=None, amount_refunded=amount, refunded=share == 1)
        charge = self.charges[7]
        of_charge = {"charge": charge["id"], "payment_intent": charge["payment_intent"], "currency": charge["currency"]}
        for days, (reason, status) in zip((40, 70), (("fraudulent", "won"), ("product_not_received", "lost")), strict=True):
            at, cents = datetime.fromtimestamp(charge["created"], UTC) + timedelta(days=days), self._cents(charge)
            dispute = self._make("disputes", at, amount=charge["amount"], reason=reason, status=status, **of_charge)
            self._movement(dispute, -cents, at, fee=1500, type="adjustment", category="dispute")
            if status == "won":
                self._movement(dispute, cents, at + timedelta(days=20), fee=-1500, type="adjustment", category="dispute_reversal")
        self.stripe.update(charge["id"], announce=None, disputed=True)
        invoice = self.stripe.objects("invoices")[0]
        at = datetime.fromtimestamp(invoice["created"], UTC) + timedelta(days=3)
        self._make(
            "credit_notes",
            at,
            customer=invoice["customer"],
            invoice=invoice["id"],
            amount=999,
            subtotal=999,
            total=999,
            number="CLUB-CN-1",
            reason="order_change",
        )
        self._make("invoiceitems", at, customer=invoice["customer"], amount=250, description="Postage")

    def _cents(self, charge: Object) -> int:
        moved: Sequence[Object] = self.stripe.objects("balance_transactions")
        return int(next(one["amount"] for one in moved if one["id"] == charge["balance_transaction"]))

    def payouts(self) -> None:
        """What the first months brought, paid out; the third time the bank refused it at first."""
        for month, status in ((2, "paid"), (3, "paid"), (4, "failed"), (5, "paid")):
            at = datetime(1997, month, 5, tzinfo=UTC)
            payout = self._make("payouts", at, amount=50_000, currency="usd", status=status, arrival_date=int((at + timedelta(days=2)).timestamp()))
            self.stripe.update(payout["id"], announce=None, balance_transaction=self._movement(payout, -50_000, at))
            if status == "failed":
                self._movement(payout, 50_000, at + timedelta(days=3), type="payout_failure", category="payout_reversal")

    def test_mode(self, person: Profile) -> None:
        """What somebody tried out: it must never be taken for revenue."""
        customer = self._make("customers", person.created_at, livemode=False, email="trial@example.com", name="Trial")
        self._make("charges", person.created_at, livemode=False, customer=customer["id"], amount=99_999_900, amount_captured=99_999_900)
