"""The tickets of the demo company: about one purchase in two hundred made its customer write."""

from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from hashlib import sha256

from demo.customers import Purchase, first_order_dates, profile, purchases, weighted
from demo.stand_ins.zendesk import ZendeskStandIn

ONE_IN = 230
SUBJECTS = {"Where is my order?": 40, "I was charged twice": 20, "The disc is scratched": 25, "How do I send it back?": 15}
REASONS = {"Where is my order?": "delivery", "I was charged twice": "billing", "The disc is scratched": "damaged", "How do I send it back?": "return"}
SCORES = {"offered": 50, "good": 40, "bad": 10}
BEGIN = datetime(1997, 1, 1, 8, tzinfo=UTC)


def environment(stand_in: ZendeskStandIn) -> dict[str, str]:
    """The settings by which the warehouse reads it."""
    credentials = {"CLIENT_ID": stand_in.client_id, "CLIENT_SECRET": stand_in.client_secret}
    return {f"SOURCES__ZENDESK__{name}": value for name, value in {"BASE_URL": stand_in.url, **credentials}.items()}


def populate(stand_in: ZendeskStandIn) -> None:
    """Fill an account with what the demo company's customers asked and were answered; the same on every machine."""
    stand_in.exports_a_minute = None  # a demo that is run twice in a minute shall not wait
    with stand_in.at(BEGIN):
        groups = [stand_in.add("groups", name=name)["id"] for name in ("Support", "Billing")]
        brand = stand_in.add("brands", name="The Record Shop", subdomain="records", default=True)["id"]
        agents = [stand_in.add("users", name=f"Agent {n}", email=f"agent{n}@example.com", role="agent", default_group_id=groups[n % 2])["id"] for n in range(4)]
        order = stand_in.add("ticket_fields", title="Order number", type="integer")["id"]
        reason = stand_in.add(
            "ticket_fields", title="Reason", type="tagger", custom_field_options=[{"name": name, "value": value} for name, value in REASONS.items()]
        )["id"]
        refund = stand_in.add("ticket_fields", title="Refund", type="decimal")["id"]
        form = stand_in.add("ticket_forms", name="Default", default=True, ticket_field_ids=[order, reason, refund])["id"]
        metrics = [{"priority": "normal", "metric": "first_reply_time", "target": 480, "business_hours": True}]
        stand_in.add("sla_policies", title="Answer within a day", policy_metrics=metrics)
        schedule = stand_in.add("schedules", name="Office hours", time_zone="Eastern Time (US & Canada)")["id"]
        stand_in.add("holidays", schedule_id=schedule, name="Christmas", start_date="1997-12-25", end_date="1997-12-26")
    requesters: dict[int, int] = {}
    for purchase in purchases():
        draws = _draws(purchase)
        if draws[0] % ONE_IN:
            continue
        subject = weighted(SUBJECTS, draws[1])
        opened_at = datetime.combine(purchase.ordered_on, time(9), UTC) + timedelta(hours=draws[2] % 240)
        if purchase.user_id not in requesters:
            requesters[purchase.user_id] = _requester(stand_in, purchase)
        group = groups[subject == "I was charged twice"]
        agent = agents[draws[3] % len(agents)]
        person = profile(purchase.user_id, first_order_dates()[purchase.user_id])
        fields = [{"id": order, "value": purchase.order_id}, {"id": reason, "value": REASONS[subject]}]
        with stand_in.at(opened_at):
            ticket = stand_in.create_ticket(
                subject=subject, description=f"{subject} Order {purchase.order_id}. Write to {person.email} or call {person.phone}.", status="new",
                priority="normal", requester_id=requesters[purchase.user_id], submitter_id=requesters[purchase.user_id], group_id=group, brand_id=brand,
                ticket_form_id=form, custom_fields=fields, tags=[REASONS[subject]],
            )["id"]  # fmt: skip
        with stand_in.at(opened_at + timedelta(hours=1 + draws[4] % 30)):
            stand_in.update_ticket(ticket, status="pending", assignee_id=agent, comment="We are looking into it.", by=agent)
        if draws[5] % 10 == 0:
            continue
        solved_at = opened_at + timedelta(hours=32 + draws[5] % 100)
        with stand_in.at(solved_at):
            if REASONS[subject] in ("billing", "damaged"):
                stand_in.set_field(ticket, refund, str(Decimal(purchase.revenue)))
            stand_in.update_ticket(ticket, status="solved", comment="This is settled now.", by=agent)
        score = weighted(SCORES, draws[6])
        if score != "offered":
            with stand_in.at(solved_at + timedelta(hours=5)):
                comment = "Thank you!" if score == "good" else f"Still waiting, call {person.phone}"
                rating = stand_in.add("satisfaction_ratings", ticket_id=ticket, requester_id=requesters[purchase.user_id], assignee_id=agent, group_id=group,
                                      score=score, comment=comment)["id"]  # fmt: skip
                stand_in.system_update(ticket, satisfaction_rating={"id": rating, "score": score, "comment": comment})
        if draws[7] % 40 == 0:
            with stand_in.at(solved_at + timedelta(days=3)):
                stand_in.delete_ticket(ticket)


def _requester(stand_in: ZendeskStandIn, purchase: Purchase) -> int:
    person = profile(purchase.user_id, first_order_dates()[purchase.user_id])
    name = " ".join(part.capitalize() for part in person.email.split("@")[0].rstrip("0123456789").split("."))
    with stand_in.at(person.created_at):
        organization = None
        if person.segment != "consumer":
            organization = int(stand_in.add("organizations", name=f"Company {purchase.user_id}", notes=f"Contact: {person.email}")["id"])
        user = stand_in.add("users", name=name, email=person.email, phone=person.phone, external_id=str(purchase.user_id), organization_id=organization)
    return int(user["id"])


def _draws(purchase: Purchase) -> list[int]:
    digest = sha256(f"ticket:{purchase.order_id}".encode()).digest()
    return [int.from_bytes(digest[start : start + 4], "big") for start in range(0, 32, 4)]
