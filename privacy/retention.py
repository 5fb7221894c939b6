"""Retention: rows go when they are older than the policy keeps them, by a time of their own; loads do not bring them back."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from privacy import audit, erasures, files
from privacy.policy import policy
from privacy.rows import Found, base_of
from warehouse import clock, restate, storage
from warehouse.ledger import Run
from warehouse.settings import settings
from warehouse.sql import literal, quoted

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_BEGUN, _DONE = "begin retain", "retain"
_MOST_AT_ONCE = 100_000
"""Rows that one transaction deletes."""


@dataclass
class Retained:
    """What retention did, or would do.

    Attributes:
        before: table -> the time before which rows go, UTC.
        raw, landing: table or package -> rows removed.
    """

    before: dict[str, str] = field(default_factory=dict)
    raw: dict[str, int] = field(default_factory=dict)
    landing: dict[str, int] = field(default_factory=dict)


def is_kept_for_a_time(source: str, table: str) -> bool:
    """Whether the policy says how long rows of a raw table are kept."""
    return base_of(source, table, policy().retention) is not None


def find_old(connection: "DuckDBPyConnection", relation: str, columns: Mapping[str, str], source: str, table: str) -> Found:
    """What of a relation is older than it is kept; rows without a time stay."""
    name = base_of(source, table, policy().retention)
    rule = policy().retention[name] if name else None
    if rule is None or rule.by not in columns:
        return Found()
    is_old = f"coalesce(r.{quoted(rule.by)}::TIMESTAMPTZ < TIMESTAMPTZ {literal(_limit(rule.days))}, false)"
    return Found(is_theirs=is_old, is_touched=is_old, columns={column: f"r.{quoted(column)}" for column in columns}, removes=True)


def keep_out(source: str, table: str, file: Path) -> int:
    """Take out of a file that a load is about to keep whom it must not bring back, and what is older than it is kept.

    Returns:
        the number of rows changed or removed.
    """
    count = erasures.suppress(source, table, file)
    if is_kept_for_a_time(source, table):
        with storage.scratch(may_spill=True) as connection:
            old, beside = erasures.write_without(connection, source, table, file, find_old)
        if beside:
            os.replace(beside, file)
        count += old
    return count


def retain(run: Run, build_anew: Callable[[list[str]], None], *, dry_run: bool = False) -> Retained:
    """Remove what is older than it is kept: from raw tables, from the landing zone, from what is built of it, and from free pages. Hold the lease.

    Args:
        build_anew: builds the models named anew, and all that reads them, and publishes.
    """
    done = Retained({table: _limit(rule.days) for table, rule in policy().retention.items()})
    changed = set() if dry_run else _unfinished()
    if not dry_run:
        audit.note(_BEGUN, [], before=done.before)
    with storage.open_warehouse() as connection, run.step("retain", "raw tables") as step:
        for source, table, columns in erasures.raw_tables(connection, is_kept_for_a_time):
            count = _remove(connection, f"raw_{source}.{quoted(table)}", find_old(connection, "", columns, source, table), dry_run=dry_run)
            if count:
                done.raw[f"raw_{source}.{table}"] = count
        step.rows_out = sum(done.raw.values())
    changed |= set(done.raw)
    with storage.open_warehouse() as connection, run.step("retain", "landing zone") as step:
        is_built = files.has_built(connection)
        done.landing = files.erase_landing(connection, settings().landing, dry_run=dry_run, find=find_old, is_concerned=is_kept_for_a_time)
        step.rows_out = sum(done.landing.values())
    if dry_run:
        return done
    models = (f"staging.stg_{table.removeprefix('raw_').replace('.', '__')}" for table in sorted(changed))
    if changed and is_built:
        build_anew([model for model in models if restate.is_written(model)])
    if (changed or done.landing) and settings().storage == "duckdb":
        with run.step("retain", "free pages"):
            files.compact(settings().warehouse_file)
    audit.note(_DONE, [], rows=done.raw)
    return done


def _unfinished() -> set[str]:
    """The raw tables from which a killed retention may have removed rows that are still in what is built of them."""
    acts = [line["what"] for line in audit.trail().lines() if line["what"] in (_BEGUN, _DONE)]
    return {f"raw_{table}" for table in policy().retention} if acts and acts[-1] == _BEGUN else set()


def _remove(connection: "DuckDBPyConnection", name: str, found: Found, *, dry_run: bool) -> int:
    row = connection.execute(f"SELECT count(*) FROM {name} AS r WHERE {found.is_theirs}").fetchone()
    count = int(row[0]) if row else 0
    for _ in range(0, 0 if dry_run else count, _MOST_AT_ONCE):
        connection.execute(f"DELETE FROM {name} WHERE rowid IN (SELECT r.rowid FROM {name} AS r WHERE {found.is_theirs} LIMIT {_MOST_AT_ONCE})")
    return count


def _limit(days: int) -> str:
    return (clock.now() - timedelta(days=days)).isoformat()
