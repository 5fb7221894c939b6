"""The objects of the Stripe stand-in: what each kind is called, what it has when nothing is said, how older versions show it."""

import copy
from dataclasses import dataclass
from typing import Any

Object = dict[str, Any]

BASIL = "2025-03-31"
"""From this version on the subscription of an invoice and of its lines stands under `parent`, and periods under items."""


@dataclass(frozen=True)
class Kind:
    """One kind of object: its `object` name, the prefix of its ids, what retrieval says of a deleted one, and its defaults."""

    object: str
    prefix: str
    defaults: Object
    is_stub_when_deleted: bool = False
    has_events: bool = True


_PERSON: Object = {"email": None, "name": None, "phone": None, "address": None}
_TAX: Object = {"total_taxes": [], "total_discount_amounts": [], "discounts": []}

KINDS: dict[str, Kind] = {
    "customers": Kind(
        "customer",
        "cus_",
        {**_PERSON, "balance": 0, "currency": "usd", "delinquent": False, "description": None, "shipping": None, "preferred_locales": []},
        is_stub_when_deleted=True,
    ),
    "products": Kind("product", "prod_", {"active": True, "name": "Plan", "description": None, "default_price": None, "type": "service", "updated": None}),
    "prices": Kind(
        "price",
        "price_",
        {"active": True, "billing_scheme": "per_unit", "currency": "usd", "nickname": None, "product": None, "recurring": None, "type": "one_time",
         "unit_amount": 1000, "unit_amount_decimal": "1000"},
    ),
    "coupons": Kind("coupon", "coupon_", {"amount_off": None, "currency": None, "duration": "once", "name": None, "percent_off": 25.5, "valid": True,
                                          "times_redeemed": 0, "duration_in_months": None, "max_redemptions": None, "redeem_by": None}),
    "promotion_codes": Kind("promotion_code", "promo_", {"active": True, "code": "SPRING", "coupon": None, "customer": None, "times_redeemed": 0}),
    "subscriptions": Kind(
        "subscription",
        "sub_",
        {"status": "active", "customer": None, "currency": "usd", "start_date": None, "canceled_at": None, "cancel_at_period_end": False,
         "collection_method": "charge_automatically", "ended_at": None, "trial_start": None, "trial_end": None, "latest_invoice": None, "items": []},
    ),
    "invoices": Kind(
        "invoice",
        "in_",
        {"status": "draft", "customer": None, "currency": "usd", "amount_due": 0, "amount_paid": 0, "amount_remaining": 0, "subtotal": 0, "total": 0,
         "number": None, "billing_reason": "manual", "collection_method": "charge_automatically", "customer_email": None, "customer_name": None,
         "customer_phone": None, "customer_address": None, "customer_shipping": None, "due_date": None, "period_start": None, "period_end": None,
         "parent": None, "status_transitions": {"finalized_at": None, "paid_at": None, "voided_at": None, "marked_uncollectible_at": None},
         **_TAX, "lines": []},
    ),
    "invoiceitems": Kind("invoiceitem", "ii_", {"amount": 0, "currency": "usd", "customer": None, "description": None, "invoice": None, "quantity": 1,
                                                "proration": False, "parent": None, "date": None}),
    "charges": Kind(
        "charge",
        "ch_",
        {"amount": 1000, "amount_captured": 1000, "amount_refunded": 0, "currency": "usd", "customer": None, "captured": True, "paid": True,
         "refunded": False, "disputed": False, "status": "succeeded", "payment_intent": None, "balance_transaction": None, "description": None,
         "receipt_email": None, "shipping": None, "billing_details": dict(_PERSON), "failure_code": None, "payment_method_details": None},
    ),
    "payment_intents": Kind("payment_intent", "pi_", {"amount": 1000, "amount_received": 1000, "currency": "usd", "customer": None, "status": "succeeded",
                                                      "latest_charge": None, "receipt_email": None, "shipping": None, "description": None}),
    "refunds": Kind("refund", "re_", {"amount": 0, "currency": "usd", "charge": None, "payment_intent": None, "reason": None, "status": "succeeded",
                                      "balance_transaction": None}),
    "disputes": Kind("dispute", "du_", {"amount": 0, "currency": "usd", "charge": None, "payment_intent": None, "reason": "fraudulent",
                                        "status": "needs_response", "evidence": {}}),
    "credit_notes": Kind("credit_note", "cn_", {"amount": 0, "subtotal": 0, "total": 0, "currency": "usd", "customer": None, "invoice": None,
                                                "reason": None, "status": "issued", "type": "post_payment", "number": None}),
    "balance_transactions": Kind("balance_transaction", "txn_", {"amount": 0, "fee": 0, "net": 0, "currency": "usd", "exchange_rate": None, "source": None,
                                                                 "status": "available", "type": "charge", "reporting_category": "charge",
                                                                 "available_on": None, "description": None, "fee_details": []}, has_events=False),
    "payouts": Kind("payout", "po_", {"amount": 0, "currency": "usd", "arrival_date": None, "automatic": True, "method": "standard", "status": "paid",
                                      "type": "bank_account", "balance_transaction": None, "description": None}),
    "checkout/sessions": Kind("checkout.session", "cs_", {"amount_subtotal": 0, "amount_total": 0, "currency": "usd", "customer": None,
                                                          "customer_email": None, "customer_details": None, "mode": "payment", "payment_status": "unpaid",
                                                          "status": "open", "subscription": None, "payment_intent": None, "invoice": None,
                                                          "expires_at": None}, has_events=False),
}  # fmt: skip

EVENT_OF_DISPUTE = "charge.dispute"
_EVENT_STEMS = {"subscription": "customer.subscription", "dispute": EVENT_OF_DISPUTE}


def event_stem(kind: Kind) -> str:
    """What the type of an event about such an object begins with."""
    return _EVENT_STEMS.get(kind.object, kind.object)


def as_of_version(thing: Object, version: str) -> Object:
    """An object as an API version shows it: the present shape, or the one before Basil."""
    shown = copy.deepcopy(thing)
    if version[:10] >= BASIL:
        return shown
    if shown.get("object") == "invoice":
        details = (shown.pop("parent", None) or {}).get("subscription_details") or {}
        shown |= {"subscription": details.get("subscription"), "paid": shown["status"] == "paid", "charge": None, "payment_intent": None}
        shown["total_tax_amounts"] = shown.pop("total_taxes", [])
        shown["lines"] = [as_of_version(line, version) for line in shown["lines"]]
    elif shown.get("object") == "line_item":
        details = (shown.pop("parent", None) or {}).get("subscription_item_details") or {}
        shown |= {"subscription": details.get("subscription"), "type": "subscription" if details else "invoiceitem"}
        price = ((shown.pop("pricing", None) or {}).get("price_details") or {}).get("price")
        shown["price"] = {"id": price, "object": "price"} if price else None
    elif shown.get("object") == "subscription" and shown["items"]:
        shown |= {name: shown["items"][0].get(name) for name in ("current_period_start", "current_period_end")}
    return shown
