"""Objects that must be thawed before they are read: what the store says of them, asking for them, what it costs, and waiting."""

import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Literal

from backup import prices, snapshot
from backup.store import Held, Store, version_of
from warehouse import clock
from warehouse.console import progress, tell
from warehouse.errors import WarehouseError
from warehouse.files import write_atomically

if TYPE_CHECKING:
    from backup.policy import Thaw

State = Literal["at once", "frozen", "thawing", "open"]
PAUSE = 60.0
"""Seconds between two looks at a thaw that takes hours."""
_RESTORE = re.compile(r'ongoing-request="(true|false)"(?:,\s*expiry-date="([^"]*)")?')


class ComeBack(WarehouseError):
    """Nothing is wrong: what was asked for is not ready yet. `ready_at` is when it should be."""

    exit_code = 4

    def __init__(self, what: str, *, mend: str, ready_at: datetime) -> None:
        super().__init__(what, mend=mend)
        self.ready_at = ready_at


@dataclass(frozen=True)
class Head:
    """What a store tells of an object: its class, since when, until when it is locked and how, and how its thaw stands."""

    storage_class: str
    written: datetime
    locked_until: datetime | None = None
    lock_mode: str | None = None
    thaw: str | None = None

    @classmethod
    def of(cls, answer: Any) -> "Head":
        """Read it off the answer to HEAD."""
        return cls(
            answer.get("StorageClass") or "STANDARD", answer["LastModified"], answer.get("ObjectLockRetainUntilDate"), answer.get("ObjectLockMode"),
            answer.get("Restore"),
        )  # fmt: skip

    @property
    def open_until(self) -> datetime | None:
        """Until when a thawed copy lies open."""
        found = _RESTORE.search(self.thaw or "")
        return parsedate_to_datetime(found.group(2)).astimezone(UTC) if found and found.group(2) else None

    @property
    def state(self) -> State:
        """Whether it can be read; a copy that lay open until now, and no longer, is frozen again."""
        if not prices.needs_thaw(self.storage_class):
            return "at once"
        found = _RESTORE.search(self.thaw or "")
        if found is None:
            return "frozen"
        if found.group(1) == "true":
            return "thawing"
        return "open" if self.open_until is None or self.open_until > clock.now() else "frozen"


def ask(store: Store, held: Held, given: "Thaw") -> bool:
    """Ask for an object; whether this was the first to ask. Asking for what thaws already, or is open, changes nothing.

    Raises:
        StoreFailed: the key may not (s3:RestoreObject), the tier has no capacity, or the store cannot be reached.
    """
    from botocore.exceptions import ClientError

    if store.head(held).state != "frozen":
        return False
    with store.errors(held.key):
        try:
            store.client.restore_object(
                Bucket=store.bucket, Key=store.full_key(held.key), **version_of(held),
                RestoreRequest={"Days": given.days, "GlacierJobParameters": {"Tier": given.tier}},
            )  # fmt: skip
        except ClientError as error:
            if error.response["Error"]["Code"] == "RestoreAlreadyInProgress":  # asked for by somebody else, just now
                return False
            raise
    return True


def states(store: Store, objects: Sequence[Held]) -> set[State]:
    """How the thaws of some objects stand."""
    return {store.head(held).state for held in objects}


def hours(storage_class: str, tier: str) -> float:
    """How long a thaw takes at the most."""
    return next((one.hours for name, one in prices.of(storage_class).thaw.items() if name == tier), 0.0)


def require(store: Store, objects: Sequence[Held], name: str, given: "Thaw", again: str, *, wait: bool) -> None:
    """Have objects thawed: ask for those that are frozen, then wait until all can be read, or say when to come back.

    Repeated at any moment it goes on where it was; what has frozen again meanwhile is asked for again.

    Args:
        name: of the archive; when it was asked for is noted under it in the home, to tell when it should be ready.
        again: the command with which to come back.
        wait: stay until it is done.

    Raises:
        ComeBack: not thawed yet, and not to be waited for. StoreFailed: see `ask`.
    """
    needing = [held for held in objects if prices.needs_thaw(held.storage_class)]
    if not needing:
        return
    ready_at = _ask_all(store, needing, name, given)
    if states(store, needing) <= {"open"}:
        return
    if not wait:
        raise ComeBack(
            f"{name} thaws in store {store.name} ({given.tier}): it should be ready by {ready_at:%Y-%m-%d %H:%M} UTC.",
            mend=f"come back then with: {again}",
            ready_at=ready_at,
        )
    with progress(f"store {store.name}: {name} thaws, until about {ready_at:%Y-%m-%d %H:%M} UTC"):
        while (found := states(store, needing)) != {"open"}:
            if "frozen" in found:
                ready_at = _ask_all(store, needing, name, given)
            tell(f"store {store.name}: {name} thaws, until about {ready_at:%Y-%m-%d %H:%M} UTC; looked at {clock.now():%H:%M:%S}")
            time.sleep(PAUSE)


def _ask_all(store: Store, objects: Sequence[Held], name: str, given: "Thaw") -> datetime:
    """Ask for what is frozen; returns when all should be ready."""
    note = snapshot.folder() / "thaws" / f"{store.name}-{name}.json"
    takes = timedelta(hours=max(hours(held.storage_class, given.tier) for held in objects))
    asked = [ask(store, held, given) for held in objects]
    if not any(asked):
        try:
            return max(datetime.fromisoformat(json.loads(note.read_text())["ready_at"]), clock.now())
        except (OSError, ValueError, KeyError):  # asked for on another machine, nobody here knows when
            return clock.now() + takes
    ready_at = clock.now() + takes
    write_atomically(note, json.dumps({"asked_at": clock.now().isoformat(), "ready_at": ready_at.isoformat(), "tier": given.tier}) + "\n")
    return ready_at


@dataclass(frozen=True)
class Cost:
    """What reading an archive costs, told before it is asked for.

    Attributes:
        usd: by what it is charged for. hours: until it can be read.
        early_usd: what deleting it today is charged for, because its class has a minimum that ends at `paid_until`.
        locked_until: until when nobody can delete it at all.
    """

    storage_class: str
    objects: int
    bytes: int
    tier: str
    hours: float
    usd: dict[str, float]
    early_usd: float
    paid_until: datetime | None
    locked_until: datetime | None


def cost(store: Store, objects: Sequence[Held], given: "Thaw") -> Cost:
    """What thawing and reading some objects costs, by the price list, and what deleting them now would.

    Raises:
        StoreFailed: the store cannot be reached.
    """
    heads = [store.head(held) for held in objects]
    kept_as, size = heads[0].storage_class, sum(held.bytes for held in objects)
    is_cold = prices.needs_thaw(kept_as)
    has_to_be_asked = any(head.state == "frozen" for head in heads)
    usd = prices.thaw(kept_as, given.tier if has_to_be_asked else "", size, len(objects), given.days)
    paid_until = max(head.written for head in heads) + timedelta(days=prices.of(kept_as).minimum_days)
    left = max(0, (paid_until - clock.now()).days)
    locked = [head.locked_until for head in heads if head.locked_until]
    tier = given.tier if is_cold else ""
    return Cost(
        kept_as, len(objects), size, tier, hours(kept_as, given.tier) if has_to_be_asked else 0.0, usd,
        prices.early(kept_as, size, len(objects), left), paid_until if left else None, max(locked) if locked else None,
    )  # fmt: skip
