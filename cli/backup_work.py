"""What the verbs of `warehouse backup` do, and how they show it."""

import json
import secrets
import shutil
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from cli import archive_work, tables
from cli.run import recorded_beside
from warehouse import clock
from warehouse.console import complain, say
from warehouse.errors import FindingsFound, StepFailed, WarehouseError
from warehouse.settings import settings

if TYPE_CHECKING:
    from backup.policy import Kind, StoreName
    from backup.snapshot import Metric
    from monitoring.findings import Finding


def metrics() -> "list[Metric]":
    """The headline metrics, as questions whose answers a restored warehouse must give as well."""
    from transform.headline import headline_metrics

    found = []
    for metric in headline_metrics():
        by = f"{metric.by}, " if metric.by else ""
        group = f" GROUP BY {metric.by} ORDER BY {metric.by}" if metric.by else ""
        found.append((metric.name, metric.mart, f"SELECT {by}{metric.value} FROM {metric.mart}{group}"))
    return found


def take(what: str | None, *, due: bool, wait: float, whole: bool) -> None:
    """Take a backup of each kind of data that is wanted and, if asked so, due; one that fails does not hold up the other."""
    failed: list[WarehouseError] = []
    for kind in _kinds(what):
        try:
            _take(kind, due=due, wait=wait, whole=whole)
        except WarehouseError as error:
            failed.append(error)
    for one in failed[:-1]:
        complain(f"error: {one}")
    if failed:
        raise failed[-1]


def _kinds(what: str | None) -> "list[Kind]":
    from backup.plan import is_of_use, kept
    from backup.policy import configured

    return [cast("Kind", what)] if what else [kind for kind in configured().data if kind != "vault" or is_of_use(kind, kept(kind))]


def _take(what: "Kind", *, due: bool, wait: float, whole: bool) -> None:
    from backup.archive import take_archive, take_deep_archive
    from backup.export import take_export
    from backup.plan import is_due, kept
    from backup.policy import configured
    from backup.postgres import take_postgres
    from backup.postgres_log import take_base
    from backup.take import take_warehouse
    from backup.vault import exists, take_vault

    with recorded_beside(f"backup run {what}") as run, run.step("backup", what) as step:
        if what == "vault" and not exists():
            step.status, step.detail["why"] = "skipped", "there is no vault"
            say("no vault: nothing is sealed yet")
            return
        if due and not is_due(what, kept(what), {kind: kept(kind) for kind in configured().data} if what == "vault" else None):
            step.status, step.detail["why"] = "skipped", "not due"
            say(f"not due: there is a backup of {what} that is young enough")
            return
        if what == "postgres":
            taken = take_postgres()
        elif what == "postgres_base":
            taken = take_base()
        elif what == "export":
            taken = take_export(wait)
        elif what == "vault":
            taken = take_vault()
        elif what == "archive":
            taken = take_archive(wait)
        elif what == "deep_archive":
            taken = take_deep_archive()
        else:
            taken = take_warehouse(metrics(), wait, whole=whole)
        step.rows_in = sum(table.rows for table in taken.backup.tables.values())
        step.detail = {
            "backup": taken.backup.id, "stores": taken.stores, "bytes": taken.backup.bytes, "new_bytes": taken.new_bytes,
            "sealed_bytes": taken.sealed_bytes, "frozen_seconds": round(taken.frozen_seconds, 3), "deleted": taken.deleted,
        }  # fmt: skip
        row = (
            what, taken.backup.id, ", ".join(taken.stores), len(taken.backup.files), taken.backup.bytes, taken.new_bytes, taken.sealed_bytes,
            round(taken.frozen_seconds, 2), sum(len(ids) for ids in taken.deleted.values()),
        )  # fmt: skip
        tables.show("backed up", ("data", "backup", "stores", "files", "bytes", "new bytes", "sealed to", "seconds nobody wrote", "deleted"), [row])
        if taken.backup.personal:
            archive_work.tell_of(taken)
        taken.failed += copy_records()
        if taken.failed:
            raise StepFailed(f"backup {taken.backup.id} is good. But {'; '.join(taken.failed)}", mend="run again: the next backup brings it there")


def show_list(*, as_json: bool) -> None:
    """Which backups there are."""
    from backup import manifest
    from backup.policy import configured
    from backup.store import stores

    places, rows = stores(), list[tuple[Any, ...]]()
    for what, data in configured().data.items():
        listed = {name: manifest.listed(places[name], what) for name in data.stores}
        for backup in sorted({backup for found in listed.values() for backup in found}):
            holding = [name for name in data.stores if backup in listed[name]]
            one = manifest.read(places[holding[0]], listed[holding[0]][backup])
            sealed, rows_in = sum(pack.bytes for pack in one.packs), sum(table.rows for table in one.tables.values())
            rows.append((what, backup, _when(one.taken_at), ", ".join(holding), len(one.files), one.bytes, sealed, len(one.tables), rows_in))
    columns = ("data", "backup", "taken (UTC)", "stores", "files", "bytes", "sealed", "tables", "rows")
    if as_json:
        for row in rows:
            say(json.dumps(dict(zip(columns, row, strict=True))))
    else:
        tables.show("backups", columns, rows)


def check(what: str | None, *, everything: bool, only: Sequence[str]) -> None:
    """Read backups back whole."""
    from backup.policy import ARCHIVES
    from backup.verify import verify

    wrong = 0
    for kind in _kinds(what):
        with recorded_beside(f"backup verify {kind}") as run, run.step("verify", kind) as step:
            found = verify(kind, everything=everything and (what is not None or kind not in ARCHIVES), only=only)
            step.detail = {"backups": found.backups, "objects": found.objects, "bytes": found.bytes, "problems": [one.said for one in found.problems][:50]}
            step.status = "findings" if found.problems else "succeeded"
        wrong += len(found.problems)
        columns = ("data", "backups", "objects", "bytes", "frozen, not read", "wrong")
        tables.show("read back", columns, [(kind, found.backups, found.objects, found.bytes, found.frozen, len(found.problems))])
        if found.problems:
            tables.show("wrong", ("data", "store", "backup", "what"), [(kind, one.store, one.backup, one.said) for one in found.problems])
    if wrong:
        raise FindingsFound(f"{wrong} things are wrong with the backups.", mend="docs/runbooks/backups.md says what to do about each")


def bring_back(what: str | None) -> None:
    """Take away what was put over objects."""
    from backup.verify import uncover

    for kind in _kinds(what):
        with recorded_beside(f"backup uncover {kind}") as run, run.step("uncover", kind) as step:
            done = uncover(kind)
            step.rows_out = len(done)
        tables.show(f"{kind}: brought back" if done else f"{kind}: nothing was hidden", ("store", "object"), done)


def set_up() -> None:
    """Make the buckets ready."""
    from backup.store import stores

    done = [(name, store.declared.bucket, line) for name, store in stores().items() for line in store.set_up()]
    tables.show("set up", ("store", "bucket", "what"), done)


def bring_back_files(what: "Kind", as_of: datetime | None, into: Path, store: str | None) -> None:
    """Restore the warehouse, or an export."""
    from backup.export import restore_export
    from backup.restore import Choice, restore_warehouse
    from backup.vault import FILE, restore_vault

    with recorded_beside(f"restore {what}") as run, run.step("restore", what) as step:
        choice = Choice(what, cast("StoreName | None", store))
        backup, into = choice.at(as_of or clock.now()), into.absolute()
        if what == "vault":
            done = restore_vault(choice, backup, into)
        else:
            done = restore_export(choice, backup, into) if what == "export" else restore_warehouse(choice, backup, into, metrics())
        step.rows_out = sum(table.rows for table in done.backup.tables.values())
        step.detail = {"backup": backup, "stores": done.stores, "bytes": done.backup.bytes, "tables": done.tables, "metrics": done.metrics, "notes": done.notes}
        columns = ("backup", "shows (UTC)", "stores", "files", "bytes", "tables equal", "metrics equal", "seconds")
        row = (backup, _when(done.backup.taken_at), ", ".join(done.stores), len(done.backup.files), done.backup.bytes, done.tables, done.metrics)
        tables.show("restored", columns, [(*row, round(done.seconds, 2))])
        if done.notes:
            tables.show("to know", ("note",), [(note,) for note in done.notes])
        if what == "vault":
            say(f"restored into {done.into}: set PRIVACY__VAULT to {done.into / FILE}, or put it there")
        if what == "warehouse":
            say(f"restored into {done.into}: look at it, then set WAREHOUSE_HOME to it; `warehouse publish` makes the read copy")


def bring_production(as_of: datetime | None, store: str | None) -> None:
    """Restore production."""
    from backup.restore import Choice
    from backup.restore_postgres import given_target, restore_postgres

    with recorded_beside("restore postgres") as run, run.step("restore", "postgres") as step:
        text = given_target()
        choice = Choice("postgres", cast("StoreName | None", store))
        backup = choice.at(as_of or clock.now())
        done = restore_postgres(choice, backup, text)
        step.rows_out = sum(table.rows for table in done.backup.tables.values())
        step.detail = {"backup": backup, "stores": done.stores, "bytes": done.backup.bytes, "tables": done.tables, "notes": done.notes}
        row = (backup, _when(done.backup.taken_at), ", ".join(done.stores), done.backup.bytes, done.tables, step.rows_out, round(done.seconds, 2))
        tables.show("restored", ("backup", "shows (UTC)", "stores", "bytes", "tables equal", "rows", "seconds"), [row])
        tables.show("to know", ("note",), [(note,) for note in done.notes])
        say(f"restored as the database {done.into} of the target's server")


def bring_server(to: datetime | None, into: Path, store: str | None, received: Path | None) -> None:
    """Prepare a server to any second."""
    from backup.log_kept import KIND
    from backup.restore import Choice
    from backup.restore_log import restore_log

    with recorded_beside("restore postgres") as run, run.step("restore", KIND) as step:
        choice = Choice(KIND, cast("StoreName | None", store))
        backup, into = choice.at(to or clock.now()), into.absolute()
        done = restore_log(choice, backup, into, to, received)
        step.detail = {"backup": backup, "to": str(to), "stores": done.stores, "bytes": done.backup.bytes, "notes": done.notes}
        row = (backup, _when(done.backup.taken_at), _when(to) or "the end of the log", ", ".join(done.stores), done.backup.bytes, round(done.seconds, 2))
        tables.show("prepared", ("base", "of (UTC)", "recovers to (UTC)", "stores", "bytes", "seconds"), [row])
        if done.notes:
            tables.show("to know", ("note",), [(note,) for note in done.notes])
        say(f"decide in {into / 'data' / 'pg_hba.conf'} who may connect, then, as PostgreSQL's own user: pg_ctl -D {into / 'data'} start")


def prove(what: str | None, seed: int | None, store: str | None) -> None:
    """Drill."""
    from backup.drill import drill_archive, drill_export, drill_log, drill_postgres, drill_vault, drill_warehouse
    from backup.thaw import ComeBack

    seed = seed if seed is not None else secrets.randbelow(10**9)
    only, done = cast("StoreName | None", store), []
    with recorded_beside("drill") as run:
        for kind in _kinds(what):
            if kind == "warehouse":
                done += drill_warehouse(metrics(), seed, only)
            elif kind == "export":
                done += drill_export(seed, only)
            elif kind == "vault":
                done += drill_vault(seed, only)
            elif kind in ("archive", "deep_archive"):
                try:
                    done += drill_archive(kind, seed, only)
                except ComeBack as waiting:
                    say(f"{waiting.what} Then `warehouse drill {kind}` goes on with it.")
            elif kind == "postgres_base":
                if what or shutil.which("postgres"):
                    done += drill_log(seed, only)
                else:
                    say("postgres_base: not drilled here: `postgres` is not in PATH, and a drill starts a server of its own")
            elif what or settings().backup.postgres_target:
                done += drill_postgres(seed, only)
        for one in done:
            with suppress(StepFailed), run.step("drill", one.what) as step:
                step.detail = {**one.model_dump(mode="json"), "seed": seed}
                if one.failed:
                    raise StepFailed(one.failed)
        rows = [
            (one.what, one.backup, "failed" if one.failed else "equal", ", ".join(one.stores), one.tables, one.metrics, one.bytes, round(one.seconds, 2),
             round(one.recovery_point_seconds), one.failed or "")
            for one in done
        ]  # fmt: skip
        columns = ("data", "backup", "result", "stores", "tables", "metrics", "bytes", "seconds to restore", "seconds lost", "why")
        tables.show(f"drilled (--seed {seed})", columns, rows)
        if wrong := [one for one in done if one.failed]:
            what = f"{len(wrong)} of {len(done)} backups could not be restored."
            raise StepFailed(what, mend="docs/runbooks/backups.md, now: a backup that is not restored is none")


def watched() -> "list[Finding]":
    """What is wrong with the backups, as findings; nothing where none are configured."""
    from backup.policy import is_configured
    from backup.watch import watch
    from monitoring.findings import Finding

    if not is_configured():
        return []
    return [Finding(one.check, f"backup.{one.what}", None, "error", one.observed, one.expected, one.since, "") for one in watch()]


def _when(instant: Any) -> str:
    return f"{instant:%Y-%m-%d %H:%M:%S}" if instant else ""


def copy_records(*, required: bool = False) -> list[str]:
    """Copy the records of privacy into the stores; returns what went wrong, nothing where no backups are configured unless they are required."""
    from backup.policy import is_configured
    from backup.records import keep

    if not required and not is_configured():
        return []
    try:
        return keep()
    except WarehouseError as error:
        return [error.what]


def anchored_problems() -> list[str]:
    """What is wrong with the records of privacy by what the stores know of them."""
    from backup.policy import is_configured
    from backup.records import problems

    return problems() if is_configured() else []


def bring_records(into: Path | None) -> None:
    """Bring the records of privacy back."""
    from backup.records import restore_records

    with recorded_beside("restore records") as run, run.step("restore", "records") as step:
        found = restore_records(into.absolute() if into else settings().erasures)
        step.rows_out = len(found[1]) if found else 0
    if found is None:
        say("no store holds a copy of the records: nobody was erased, or they are kept elsewhere")
        return
    head = found[0]
    tables.show("restored", ("record", "as of (UTC)", "head"), [(name, _when(head.at), mark) for name, mark in head.heads.items()])


def erase_in_production(store: str | None) -> None:
    """Erase again in a restored production database."""
    from backup.erase_again import erase_again
    from backup.policy import configured
    from backup.records import marks
    from backup.restore import Choice
    from backup.restore_postgres import given_target

    with recorded_beside("restore erasures") as run, run.step("restore", "erasures"):
        known = set()
        for kind in configured().data:
            choice = Choice(kind, cast("StoreName | None", store))
            known |= set(marks(choice, choice.ids()[-1])) if choice.ids() else set()
        notes = erase_again(given_target(), sorted(known))
        tables.show("erased again", ("what",), [(note,) for note in notes or ["nobody who was erased is there"]])
