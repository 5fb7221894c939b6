"""What the stand-in of Google Analytics knows: its dimensions, its metrics with their types, and how hits add up to them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal

TYPES = {"TYPE_INTEGER": 1, "TYPE_FLOAT": 2, "TYPE_SECONDS": 4, "TYPE_STANDARD": 8, "TYPE_CURRENCY": 9}
NOT_SET = "(not set)"
KEY_EVENTS = {"purchase", "sign_up"}
_ENGAGED_SECONDS = 10


@dataclass(frozen=True)
class Item:
    """One line of what an ecommerce event is about."""

    about: Mapping[str, str]
    quantity: int = 1
    revenue: Decimal = Decimal()


@dataclass(frozen=True)
class Hit:
    """One event of one visit, with whatever dimensions are known of it, by their API names."""

    day: date
    user: str
    session: str
    event: str
    about: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0
    value: Decimal = Decimal()
    items: tuple[Item, ...] = ()
    numbers: Mapping[str, float] = field(default_factory=dict)
    """Custom metrics, by their API names."""

    def dimension(self, name: str, item: Item | None) -> str:
        """The value of a dimension."""
        own = {"date": f"{self.day:%Y%m%d}", "eventName": self.event, "isKeyEvent": str(self.event in KEY_EVENTS).lower()}
        return own.get(name) or (item.about if item and name in ITEM_DIMENSIONS else self.about).get(name, NOT_SET)


Part = tuple[Hit, Item | None]
"""A hit, or one item of it where a report is of items."""

DIMENSIONS = {
    "date": ("Date", "Time"), "firstSessionDate": ("First session date", "User Lifetime"), "newVsReturning": ("New / returning", "User"),
    "sessionSource": ("Session source", "Traffic source"), "sessionMedium": ("Session medium", "Traffic source"),
    "sessionCampaignName": ("Session campaign", "Traffic source"),
    "sessionDefaultChannelGroup": ("Session default channel group", "Traffic source"),
    "landingPage": ("Landing page", "Page / Screen"), "landingPagePlusQueryString": ("Landing page + query string", "Page / Screen"),
    "hostName": ("Hostname", "Page / Screen"), "pagePath": ("Page path", "Page / Screen"), "pageTitle": ("Page title", "Page / Screen"),
    "pagePathPlusQueryString": ("Page path + query string", "Page / Screen"), "pageReferrer": ("Page referrer", "Page / Screen"),
    "transactionId": ("Transaction ID", "Ecommerce"),
    "eventName": ("Event name", "Event"), "isKeyEvent": ("Is key event", "Event"), "deviceCategory": ("Device category", "Platform / Device"),
    "operatingSystem": ("Operating system", "Platform / Device"), "browser": ("Browser", "Platform / Device"), "country": ("Country", "Geography"),
    "countryId": ("Country ID", "Geography"), "region": ("Region", "Geography"), "city": ("City", "Geography"),
    "itemId": ("Item ID", "Ecommerce"), "itemName": ("Item name", "Ecommerce"), "itemCategory": ("Item category", "Ecommerce"),
}  # fmt: skip
ITEM_DIMENSIONS = {"itemId", "itemName", "itemCategory"}
DEPRECATED = {"conversions": "keyEvents"}


def engaged_sessions(hits: Sequence[Hit]) -> set[tuple[str, str]]:
    """The sessions that lasted ten seconds, saw two pages, or had a key event."""
    sessions: dict[tuple[str, str], list[Hit]] = {}
    for hit in hits:
        sessions.setdefault((hit.user, hit.session), []).append(hit)
    return {
        session
        for session, all_of_it in sessions.items()
        if sum(hit.seconds for hit in all_of_it) >= _ENGAGED_SECONDS
        or sum(hit.event == "page_view" for hit in all_of_it) > 1
        or any(hit.event in KEY_EVENTS for hit in all_of_it)
    }


def _sessions(parts: Sequence[Part]) -> set[tuple[str, str]]:
    return {(hit.user, hit.session) for hit, _ in parts}


def _users(parts: Sequence[Part]) -> int:
    return len({hit.user for hit, _ in parts})


def _of(parts: Sequence[Part], event: str) -> list[Part]:
    return [part for part in parts if part[0].event == event]


def _bought(parts: Sequence[Part], event: str) -> int:
    return sum(item.quantity for _, item in _of(parts, event) if item)


Engaged = set[tuple[str, str]]
METRICS: dict[str, tuple[str, str, Callable[[Sequence[Part], Engaged], float | Decimal]]] = {
    "sessions": ("TYPE_INTEGER", "Sessions", lambda parts, engaged: len(_sessions(parts))),
    "engagedSessions": ("TYPE_INTEGER", "Engaged sessions", lambda parts, engaged: len(_sessions(parts) & engaged)),
    "engagementRate": ("TYPE_FLOAT", "Engagement rate", lambda parts, engaged: len(_sessions(parts) & engaged) / (len(_sessions(parts)) or 1)),
    "totalUsers": ("TYPE_INTEGER", "Total users", lambda parts, engaged: _users(parts)),
    "activeUsers": ("TYPE_INTEGER", "Active users", lambda parts, engaged: _users(parts)),
    "newUsers": ("TYPE_INTEGER", "New users", lambda parts, engaged: _users(_of(parts, "first_visit"))),
    "eventCount": ("TYPE_INTEGER", "Event count", lambda parts, engaged: len(parts)),
    "eventValue": ("TYPE_FLOAT", "Event value", lambda parts, engaged: float(sum((hit.value for hit, _ in parts), Decimal()))),
    "screenPageViews": ("TYPE_INTEGER", "Views", lambda parts, engaged: len(_of(parts, "page_view"))),
    "keyEvents": ("TYPE_FLOAT", "Key events", lambda parts, engaged: sum(hit.event in KEY_EVENTS for hit, _ in parts)),
    "userEngagementDuration": ("TYPE_SECONDS", "User engagement", lambda parts, engaged: sum(hit.seconds for hit, _ in parts)),
    "transactions": ("TYPE_INTEGER", "Transactions", lambda parts, engaged: len(_of(parts, "purchase"))),
    "purchaseRevenue": ("TYPE_CURRENCY", "Purchase revenue", lambda parts, engaged: sum((hit.value for hit, _ in _of(parts, "purchase")), Decimal())),
    "itemsViewed": ("TYPE_INTEGER", "Items viewed", lambda parts, engaged: _bought(parts, "view_item")),
    "itemsAddedToCart": ("TYPE_INTEGER", "Items added to cart", lambda parts, engaged: _bought(parts, "add_to_cart")),
    "itemsPurchased": ("TYPE_INTEGER", "Items purchased", lambda parts, engaged: _bought(parts, "purchase")),
    "itemRevenue": ("TYPE_CURRENCY", "Item revenue", lambda parts, engaged: sum((item.revenue for _, item in _of(parts, "purchase") if item), Decimal())),
}
ITEM_METRICS = {"itemsViewed", "itemsAddedToCart", "itemsPurchased", "itemRevenue"}
