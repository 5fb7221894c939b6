"""Raw tables beside their source: what differs is shown, and told as findings."""

import json
from collections.abc import Collection, Sequence
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING

from cli import tables
from cli.alert import after_comparison
from cli.demo_company import start_if_needed
from cli.run import recorded
from warehouse import clock
from warehouse.console import say
from warehouse.errors import FindingsFound
from warehouse.settings import settings

if TYPE_CHECKING:
    from monitoring.findings import Finding
    from pipelines.compare import TableComparison

DIFFERS = "source differs"


def compare_sources(source: str | None, names: Sequence[str], *, as_json: bool) -> None:
    """Compare a source's raw tables, or those of every configured source that can be compared, with the source."""
    from monitoring.book import record
    from monitoring.rules import routed
    from pipelines.compare import able, compare

    command = f"compare {source}" if source else "compare"
    with recorded(command, after=after_comparison) as run:
        start_if_needed()
        compared = []
        for one in [source] if source else [name for name in able() if settings().is_configured(name)]:
            of_source = compare(one, names, run)
            looked_at = partial(_is_among, {f"raw_{one}.{each.table}" for each in of_source})
            record(routed(_findings_of(of_source, clock.now())), origin="compare", now=clock.now(), looked_at=looked_at)
            compared += of_source
        if as_json:
            for each in compared:
                say(json.dumps(each.as_json()))
        else:
            tables.compared(compared)
        wrong = [each for each in compared if not each.is_equal]
        if wrong:
            what = f"{len(wrong)} of {len(compared)} tables differ from {source or 'their source'}: " + ", ".join(each.table for each in wrong)
            raise FindingsFound(what, mend="docs/runbooks/which-number-is-right.md says what each difference means and what to do")


def _is_among(tables: Collection[str], _check: str, table: str) -> bool:
    return table in tables


def _findings_of(compared: "Sequence[TableComparison]", now: datetime) -> "list[Finding]":
    """One finding a table that differs; its query names the first keys, their columns and the command that tells them all."""
    return [_finding(one, now) for one in compared if not one.is_equal]


def _finding(one: "TableComparison", now: datetime) -> "Finding":
    from monitoring.findings import Finding

    keys = [f"-- {each.key}: {each.what}" + (f" ({', '.join(each.columns)})" if each.columns else "") for each in one.differences]
    query = "\n".join((f"-- warehouse compare {one.source} {one.table}", *keys, f"SELECT * FROM raw_{one.source}.{one.table}"))
    wrong = one.missing + one.extra + one.doubled + one.changed
    share = min(1.0, wrong / max(one.rows_source, 1)) if wrong else None
    expected = f"the {one.rows_source:,} rows of {one.source}"
    return Finding(DIFFERS, f"raw_{one.source}.{one.table}", None, "error", one.summary, expected, now, query, share)
