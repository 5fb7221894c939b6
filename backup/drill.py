"""Drills: a backup is what was restored. The newest and a random earlier one are, compared, timed, and thrown away again."""

import random
import shutil
import time
from collections.abc import Sequence

from backup import manifest, snapshot
from backup.manifest import Drill
from backup.policy import Kind, StoreName
from backup.restore import Choice, Restored, restore_warehouse
from backup.snapshot import Metric
from backup.store import Store, StoreFailed
from warehouse import clock
from warehouse.errors import StepFailed, UsageError, scrub


def drill_warehouse(metrics: Sequence[Metric], seed: int, only: StoreName | None = None) -> list[Drill]:
    """Restore the newest backup and one that chance chooses among the earlier, and keep the results in the stores.

    Args:
        metrics: see `restore_warehouse`.
        seed: of the choice, to repeat it.
        only: restore from this store alone, as if the other were lost.

    Raises:
        UsageError: backups are not configured, there is none, or the private key is not set. StoreFailed: no store answers.
    """
    choice = Choice("warehouse", only)
    ids = choice.ids()
    if not ids:
        raise UsageError("there is no backup to drill.", mend="`warehouse backup run` takes one")
    chosen = [ids[-1], *random.Random(seed).sample(ids[:-1], min(1, len(ids) - 1))]  # noqa: S311 - a choice that is repeated, no secret
    point = (clock.now() - manifest.time_of(ids[-1])).total_seconds()
    done = [_drill(choice, backup, metrics, point) for backup in chosen]
    for place in choice.places:
        for one in done:
            _keep(place.store, one)
    return done


def _drill(choice: Choice, backup: str, metrics: Sequence[Metric], point: float) -> Drill:
    into, began = snapshot.folder() / "drill" / backup, time.monotonic()
    shutil.rmtree(into.parent, ignore_errors=True)
    restored: Restored | None = None
    failed = None
    try:
        restored = restore_warehouse(choice, backup, into, metrics)
    except StepFailed as error:
        failed = scrub(error.what)
    finally:
        shutil.rmtree(into.parent, ignore_errors=True)
    used = restored.stores if restored else [place.store.name for place in choice.places]
    return Drill(
        what="warehouse", backup=backup, at=clock.now(), stores=tuple(used), recovery_point_seconds=point, seconds=time.monotonic() - began,
        bytes=restored.backup.bytes if restored else 0, tables=restored.tables if restored else 0, metrics=restored.metrics if restored else 0, failed=failed,
    )  # fmt: skip


def _keep(store: Store, drill: Drill) -> None:
    """Best effort: what a drill found is told in any case, and in the ledger."""
    try:
        store.put(f"{_folder(drill.what)}{manifest.new_id(drill.at)}.drill", manifest.encode(drill))
    except StoreFailed:
        return


def last_drills(store: Store, what: Kind) -> list[Drill]:
    """What the last drills found, by the newest of each backup drilled, newest first; at most four are read."""
    held = store.held(_folder(what))
    return [manifest.decode(store.read(held[key]), Drill, f"store {store.name}: {key}") for key in sorted(held, reverse=True)[:4]]


def _folder(what: Kind) -> str:
    return f"{what}/drills/"
