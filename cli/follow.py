"""`warehouse run --follow`: a run whenever webhooks have brought something or a source is due, until told to end."""

import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from cli.run import run_sources
from warehouse import spool
from warehouse.console import complain, logger, say
from warehouse.errors import FindingsFound, WarehouseError
from warehouse.lease import is_free
from warehouse.ledger import FOLLOWS
from warehouse.settings import settings

_LOOK_EVERY = 1.0
_ASK_DUE_EVERY = 30.0
_REST = 10.0
"""Seconds between two runs, in which another command can take the lease."""
_FIRST_WAIT = 5.0
_LONGEST_WAIT = 300.0


class _Told(KeyboardInterrupt):
    """Told to end, between two steps: the ledger calls the run interrupted."""


@dataclass
class _Trigger:
    """One reason to run. What a failed run owes is tried again, each time after twice as long."""

    sources: Callable[[], list[str]]
    every: float
    owed: list[str] | None = None
    next_look: float = 0.0
    wait: float = _FIRST_WAIT

    def wanted(self) -> list[str] | None:
        """The sources to load in a run; None when there is no reason for one."""
        if time.monotonic() < self.next_look:
            return None
        self.next_look = time.monotonic() + self.every
        try:
            found = self.sources()
        except WarehouseError as error:  # a bucket that cannot be listed now
            complain(f"error: {error}")
            self._be_patient()
            return None
        return sorted({*(self.owed or ()), *found}) if found or self.owed is not None else None

    def ended(self, wanted: list[str], *, well: bool) -> None:
        self.owed = None if well else wanted
        if well:
            self.next_look, self.wait = time.monotonic() + self.every, _FIRST_WAIT
        else:
            self._be_patient()

    def _be_patient(self) -> None:
        self.next_look = time.monotonic() + self.wait
        self.wait = min(self.wait * 2, _LONGEST_WAIT)


def follow_changes() -> None:
    """Run whenever there is reason to, holding the lease only meanwhile. What webhooks brought waits for no other source.

    A source that is due and fails does not hold up what was spooled: each reason has a run, and a patience, of its own.
    """
    told = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: told.set())

    def between() -> None:
        if told.is_set():
            raise _Told

    # The first run comes without a reason: an earlier process may not have lived to publish what it loaded.
    triggers = [_Trigger(_due, _ASK_DUE_EVERY, owed=[]), _Trigger(_spooled, _LOOK_EVERY), *_buckets()]
    say("following: a run when webhooks bring something or a source is due; SIGTERM or Ctrl+C ends it")
    sys.stdout.flush()
    while not told.is_set():
        for trigger in triggers:
            wanted = trigger.wanted() if is_free() and not told.is_set() else None
            if wanted is not None:
                trigger.ended(wanted, well=_run(wanted, between))
                sys.stdout.flush()
                told.wait(_REST)
        told.wait(_LOOK_EVERY)
    say("ended between two steps; the next run goes on from here")


def _run(wanted: list[str], between: Callable[[], None]) -> bool:
    """One run; whether it need not be tried again before there is new reason to. Findings stay whoever asks again."""
    try:
        run_sources(FOLLOWS, lambda source: source in wanted or spool.has_sealed(source), between)
    except FindingsFound as error:
        complain(f"findings: {error}")
    except _Told:
        pass
    except WarehouseError as error:
        complain(f"error: {error}")
        return False
    except Exception as error:  # whatever a library raises, the next run may go well; the log has the place, scrubbed
        logger.exception("unexpected")
        complain(f"error: {type(error).__name__}: {error}")
        return False
    return True


def _spooled() -> list[str]:
    return _configured(spool.has_sealed)


def _buckets() -> list[_Trigger]:
    """A reason of its own for each source with a bucket: to list it costs, and the store may not answer."""
    from pipelines.source import common

    having = _configured(lambda source: settings().spool_bucket(source) is not None)
    return [_Trigger(partial(_stored, source), common(source).spool_listed_every.total_seconds()) for source in having]


def _stored(source: str) -> list[str]:
    return [source] if spool.has_stored(source) else []


def _due() -> list[str]:
    from pipelines.load import due

    return _configured(due)


def _configured(is_wanted: Callable[[str], bool]) -> list[str]:
    from pipelines.source import sources

    return [source for source in sources() if settings().is_configured(source) and is_wanted(source)]
