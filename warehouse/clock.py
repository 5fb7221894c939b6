"""The one clock: every room asks here what time it is, so that a test or a replay can set it."""

from datetime import UTC, date, datetime


def now() -> datetime:
    """The current instant in UTC, or `WAREHOUSE_NOW` when it is set."""
    from warehouse.settings import settings

    return settings().now or datetime.now(UTC)


def today() -> date:
    """The current UTC date."""
    return now().date()
