"""The demo company's traffic of ten days: the visits in which its customers bought, and those of others who only looked."""

from collections.abc import Iterator
from datetime import UTC, date, timedelta
from hashlib import sha256

from demo.customers import Purchase, first_order_dates, profile, purchases, weighted
from demo.stand_ins.google_analytics import GoogleAnalyticsStandIn
from demo.stand_ins.google_analytics_schema import Hit, Item

PROPERTY = "1001"
FIRST, LAST = date(1998, 6, 21), date(1998, 6, 30)
_ONLOOKERS = 30
"""Visits a day in which nothing was bought."""
_CHANNELS = {"google organic": 40, "(direct) (none)": 25, "google cpc": 15, "newsletter email": 12, "example.com referral": 8}
_GROUPS = {"organic": "Organic Search", "(none)": "Direct", "cpc": "Paid Search", "email": "Email", "referral": "Referral"}
_DEVICES = {"desktop Windows Chrome": 45, "mobile iOS Safari": 25, "mobile Android Chrome": 22, "desktop Macintosh Safari": 8}
_COUNTRIES = {"US": "United States", "CA": "Canada", "GB": "United Kingdom", "DE": "Germany", "AU": "Australia", "FR": "France", "NL": "Netherlands",
              "BR": "Brazil", "JP": "Japan"}  # fmt: skip
_SHELVES = {"Rock": 40, "Pop": 25, "Jazz": 15, "Classical": 12, "Folk": 8}
_TITLES = 300


def environment(stand_in: GoogleAnalyticsStandIn) -> dict[str, str]:
    """The settings by which the warehouse reads it."""
    given = {"BASE_URL": stand_in.url, "PROPERTY_IDS": PROPERTY, "START_DATE": FIRST.isoformat(), "END_DATE": LAST.isoformat()}
    return {f"SOURCES__GOOGLE_ANALYTICS__{name}": value for name, value in given.items()}


def populate(stand_in: GoogleAnalyticsStandIn) -> None:
    """Fill the property of the demo company."""
    property_ = stand_in.open(PROPERTY, time_zone="America/New_York", currency="USD")
    for purchase in purchases():
        if FIRST <= purchase.ordered_on <= LAST:
            property_.add(*_bought(purchase))
    for number in range((LAST - FIRST).days + 1):
        for place in range(_ONLOOKERS):
            property_.add(*_looked(FIRST + timedelta(days=number), place))


def _bought(purchase: Purchase) -> Iterator[Hit]:
    first_order = first_order_dates()[purchase.user_id]
    who = profile(purchase.user_id, first_order)
    about = _about(f"order:{purchase.order_id}", who.country, who.created_at.astimezone(UTC).date())
    line = _item(f"order:{purchase.order_id}")
    item = Item(line, purchase.quantity, purchase.revenue)
    visit = (purchase.ordered_on, str(purchase.user_id), f"order-{purchase.order_id}")
    page = f"/cds/{line['itemId']}"
    yield Hit(*visit, "session_start", {**about, "pagePath": "/"})
    yield Hit(*visit, "page_view", {**about, "pagePath": "/"}, seconds=4)
    yield Hit(*visit, "page_view", {**about, "pagePath": page}, seconds=20 + purchase.order_id % 60)
    yield Hit(*visit, "view_item", {**about, "pagePath": page}, items=(Item(line),))
    yield Hit(*visit, "add_to_cart", {**about, "pagePath": page}, items=(Item(line, purchase.quantity),))
    # Shops put such things into their addresses; the warehouse must not keep them.
    yield Hit(*visit, "page_view", {**about, "pagePath": f"/checkout/{who.email}"}, seconds=15)
    yield Hit(*visit, "purchase", {**about, "pagePath": "/thanks", "transactionId": str(purchase.order_id)}, seconds=3, value=purchase.revenue, items=(item,))


def _looked(day: date, place: int) -> Iterator[Hit]:
    key = f"look:{day}:{place}"
    draw = _draw(key, 3)
    is_new = draw % 10 < 7
    about = _about(key, weighted({"US": 6, "GB": 2, "DE": 1, "JP": 1}, draw), day if is_new else day - timedelta(days=1 + draw % 20))
    visit = (day, f"onlooker-{day}-{place}" if is_new else f"onlooker-{draw % 50}", f"look-{place}")
    if is_new:
        yield Hit(*visit, "first_visit", {**about, "pagePath": "/"})
    yield Hit(*visit, "session_start", {**about, "pagePath": "/"})
    yield Hit(*visit, "page_view", {**about, "pagePath": "/"}, seconds=draw % 9)
    if draw % 3 == 0:
        line = _item(key)
        yield Hit(*visit, "page_view", {**about, "pagePath": f"/cds/{line['itemId']}"}, seconds=draw % 45)
        yield Hit(*visit, "view_item", {**about, "pagePath": f"/cds/{line['itemId']}"}, items=(Item(line),))


def _about(key: str, country: str, first_session: date) -> dict[str, str]:
    source, medium = weighted(_CHANNELS, _draw(key, 0)).split()
    device, system, browser = weighted(_DEVICES, _draw(key, 1)).split()
    return {
        "sessionSource": source, "sessionMedium": medium, "sessionDefaultChannelGroup": _GROUPS[medium],
        "sessionCampaignName": "summer_sale" if medium in ("cpc", "email") else f"({source.strip('()')})", "landingPage": "/", "hostName": "shop.example.com",
        "deviceCategory": device, "operatingSystem": system, "browser": browser, "countryId": country, "country": _COUNTRIES[country],
        "firstSessionDate": f"{first_session:%Y%m%d}", "newVsReturning": "new" if key.startswith("look") and _draw(key, 3) % 10 < 7 else "returning",
    }  # fmt: skip


def _item(key: str) -> dict[str, str]:
    number = _draw(key, 2) % _TITLES
    shelf = weighted(_SHELVES, number * 7_919)
    return {"itemId": f"cd-{number:03d}", "itemName": f"{shelf} record {number}", "itemCategory": shelf}


def _draw(key: str, place: int) -> int:
    return int.from_bytes(sha256(f"traffic:{key}".encode()).digest()[4 * place : 4 * place + 4], "big")
