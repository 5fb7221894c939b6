"""What `warehouse backup plan` shows, and what the verbs of the archives do."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from cli import tables
from warehouse.console import say
from warehouse.errors import FindingsFound

if TYPE_CHECKING:
    from backup.archive import Copy
    from backup.plan import Kept
    from backup.policy import Kind, StoreName, Thaw
    from backup.take import Taken


def show_plan(*, as_json: bool) -> None:
    """What follows from the policy."""
    from backup.duration import described
    from backup.engines import as_row
    from backup.plan import broken_rule, is_due, is_of_use, kept, next_superfluous
    from backup.policy import configured

    policy, rows, content, broken = configured(), list[tuple[Any, ...]](), list[dict[str, Any]](), list[str]()
    every: dict[Kind, list[Kept]] = {what: found for what in policy.data if is_of_use(what, found := kept(what))}
    for what, found in every.items():
        data, due, rule, going = policy.data[what], is_due(what, found, every), broken_rule(what, found, every), next_superfluous(what, found)
        broken += [f"{what}: {rule}"] if rule else []
        for one in found:
            kept_as = policy.placed(what, cast("StoreName", one.store)).storage_class
            content.append({**vars(one), "storage_class": kept_as, "due": due and one is found[0], "superfluous": going[one.store], "rule": rule})
            rows.append((
                what, one.store, kept_as, f"{described(data.every)}, for {described(data.keep)}", _when(one.newest), "due" if due else "not due",
                len(one.backups), round(one.bytes / 1e6, 1), _when(one.locked_until), _when(one.expiring[1]) if one.expiring else "", one.hidden,
                round(one.usd_a_month, 4), one.failed or "",
            ))  # fmt: skip
    if as_json:
        engine = [as_row(policy.engine)] if policy.engine else []
        say(json.dumps([*content, *engine], default=str, indent=2))
    else:
        columns = ("data", "store", "class", "every", "newest (UTC)", "is", "kept", "MB", "locked until", "oldest goes", "hidden", "USD a month", "error")
        tables.show("backups", columns, rows)
        _show_beside(policy, [one for found in every.values() for one in found])
    if broken:
        mend = "`warehouse backup run` brings every store what it lacks; docs/runbooks/backups.md"
        raise FindingsFound(f"three copies, two media, one off site: {'; '.join(broken)}.", mend=mend)


def _show_beside(policy: Any, every: "list[Kept]") -> None:
    """What it costs by storage class; what the engine keeps itself; and what is not locked though it should be."""
    from backup import prices
    from backup.engines import as_row
    from backup.policy import ARCHIVES

    by_class: dict[str, int] = {}
    for one in every:
        for name, size in one.by_class:
            by_class[name] = by_class.get(name, 0) + size
    rows = [(name, round(size / 1e6, 1), prices.of(name).gb_month, prices.of(name).minimum_days) for name, size in sorted(by_class.items())]
    tables.show("by storage class", ("class", "MB", "list price, USD a GB and month", "charged for at least, days"), rows)
    total, early = sum(one.usd_a_month for one in every), sum(one.early_usd for one in every)
    said = f"in all {total:.4f} USD a month for storage; by the policy, else list prices as of {prices.prices().as_of}; requests and reading are not in it"
    say(f"{said}; deleting all of it today would be charged {early:.4f} USD more" if early else said)
    for kind in (kind for kind in ARCHIVES if kind in policy.data):
        for name in policy.data[kind].stores:
            if policy.placed(kind, name).lock is None:
                say(f"{kind} is not locked in store {name}: whoever has its key can delete it (the service has no Object Lock, by the policy)")
    if policy.engine:
        row = as_row(policy.engine)
        tables.show("kept by the engine itself; nothing here takes it or proves it", tuple(row), [tuple(str(value) for value in row.values())])


def tell_of(taken: "Taken") -> None:
    """What somebody should know who has just written an archive."""
    from backup.policy import configured

    one = taken.backup
    lock = configured().placed(one.what, cast("StoreName", taken.stores[0])).lock
    how = {"sealed": "is sealed under each person's key", "dropped": "is not in it"}[one.personal or "dropped"]
    until = f"locked for {lock.days} days: nobody can delete it" if lock else "not locked: the store has no Object Lock, by the policy"
    say(f"what is personal {how}; {until}")


def bring_archive(backup: str, into: Path | None, store: str | None, tier: str | None, days: int | None, *, wait: bool, dry_run: bool) -> None:
    """Restore an archive, or say what that costs."""
    from backup.archive import copies_of
    from backup.restore_archive import restore_archive, thaw_of
    from cli.run import recorded_beside

    copies, notes = copies_of(backup, cast("StoreName | None", store))
    ways = [thaw_of(copy, tier, days) for copy in copies]
    if dry_run or into is None:
        _show_cost(copies, ways)
        return
    with recorded_beside("restore archive") as run, run.step("restore", "archive") as step:
        into = into.absolute()
        done = restore_archive(copies, into, ways, wait=wait)
        step.rows_out = sum(table.rows for table in done.backup.tables.values())
        step.detail = {"backup": backup, "stores": done.stores, "bytes": done.backup.bytes, "tables": done.tables, "notes": [*notes, *done.notes]}
        columns = ("archive", "shows (UTC)", "store", "files", "bytes", "tables equal", "personal", "seconds")
        row = (backup, _when(done.backup.taken_at), ", ".join(done.stores), len(done.backup.files), done.backup.bytes, done.tables, done.backup.personal or "")
        tables.show("restored", columns, [(*row, round(done.seconds, 2))])
        if notes or done.notes:
            tables.show("to know", ("note",), [(note,) for note in (*notes, *done.notes)])
        say(f"restored into {done.into}: README.md there says what is in it")


def _show_cost(copies: "list[Copy]", ways: "list[Thaw]") -> None:
    from backup.prices import prices
    from backup.thaw import cost

    rows = []
    for copy, way in zip(copies, ways, strict=True):
        one = cost(copy.store, copy.objects, way)
        usd = ", ".join(f"{what} {value:.4f}" for what, value in one.usd.items() if value)
        rows.append((
            copy.kind, copy.store.name, one.storage_class, one.objects, round(one.bytes / 1e6, 1), one.tier, one.hours or "at once",
            round(sum(one.usd.values()), 4), usd, _when(one.paid_until), round(one.early_usd, 4), _when(one.locked_until),
        ))  # fmt: skip
    columns = ("data", "store", "class", "objects", "MB", "tier", "hours", "USD to read it", "of which", "paid until", "USD if deleted now", "locked until")
    tables.show("what it would cost; nothing was asked for", columns, rows)
    say(f"list prices as of {prices().as_of} (backup/prices.yaml); the first that is whole is taken")


def _when(instant: Any) -> str:
    return f"{instant:%Y-%m-%d %H:%M:%S}" if instant else ""
