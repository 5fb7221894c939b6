"""What webhooks brought of Stripe: read from the spool in bounded parts, each removed when it is in the warehouse; and counted."""

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from pipelines.stripe_rows import Object, instant
from warehouse import spool
from warehouse.console import logger

SOURCE = "stripe"
_MOST_EVENTS = 2_000
_ON_THE_WAY = timedelta(minutes=1)
"""An event younger than this may still be brought by its webhook, and was not missed."""


class Spooled:
    """The spool as one load reads it.

    Args:
        now: when the load began.
        told: where the counts are kept, under `webhooks`, if this machine receives any: events drained, events that came again
            or were known, events that polling found and no webhook had brought, torn last lines, damaged lines put aside.
    """

    def __init__(self, now: datetime, told: Object) -> None:
        self._now = now
        self._counts = {"drained": 0, "again": 0, "healed": 0, "torn": 0, "damaged": 0}
        self._is_used = spool.is_used(SOURCE)
        if self._is_used:
            told["webhooks"] = self._counts

    def parts(self) -> Iterator[dict[str, Object]]:
        """Events by id, the newest first. Asking for the next part removes what the one before was read from: load it first.

        What is still written to is read, too, and not removed: so that polling does not take it for missed. It comes again in
        the next load, which knows it by then.
        """
        if not self._is_used:
            return
        events: list[Object] = []
        done: list[spool.Segment] = []
        for segment in spool.segments(SOURCE):
            events += self._events(segment)
            done.append(segment)
            if len(events) >= _MOST_EVENTS:
                yield from self._part(events, done)
                events, done = [], []
        yield from self._part(events, done)

    def _part(self, events: list[Object], done: list[spool.Segment]) -> Iterator[dict[str, Object]]:
        by_id = {event["id"]: event for event in sorted(events, key=lambda one: int(one["created"]), reverse=True)}
        if by_id:
            self._counts["again"] += len(events)
            yield by_id
        for segment in done:
            spool.remove(segment)

    @property
    def brought(self) -> int:
        """How many events came that the warehouse did not know."""
        return self._counts["drained"]

    def take(self, new: list[Object]) -> None:
        """Count the events of a part that the warehouse did not know."""
        self._counts["drained"] += len(new)
        self._counts["again"] -= len(new)

    def polled(self, new: list[Object]) -> None:
        """Count the events that polling found first."""
        self._counts["healed"] += sum((instant(event["created"]) or self._now) < self._now - _ON_THE_WAY for event in new)

    def _events(self, segment: spool.Segment) -> list[Object]:
        try:
            content = spool.read(segment)
        except FileNotFoundError:
            return []
        found = [_event(record.body) for record in content.records]
        strange = [record.body for record, event in zip(content.records, found, strict=True) if event is None]
        if segment.is_sealed:
            self._counts["torn"] += content.is_torn
            self._counts["damaged"] += len(content.damaged) + len(strange)
            if content.damaged or strange:
                put = spool.put_aside(SOURCE, segment, [*content.damaged, *strange])
                logger.warning("damaged lines in the spool were put aside", extra={"fields": {"file": str(put), "lines": self._counts["damaged"]}})
        return [event for event in found if event is not None]


def _event(body: bytes) -> Object | None:
    """The event in a body, or None when it is none that can be loaded."""
    try:
        event: Any = json.loads(body)
        known = isinstance(event["id"], str) and isinstance(event["created"], int) and isinstance(event["type"], str)
        return event if known and isinstance(event["data"]["object"], dict) else None
    except (ValueError, KeyError, TypeError):
        return None
