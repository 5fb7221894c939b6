"""What `warehouse compare` found, as findings: a raw table that is not what its source is."""

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from monitoring.findings import Finding

if TYPE_CHECKING:
    from pipelines.compare import TableComparison

DIFFERS = "source differs"


def findings_of(compared: "Sequence[TableComparison]", now: datetime) -> list[Finding]:
    """One finding a table that differs; its query names the first keys, their columns and the command that tells them all.

    Args:
        now: aware, by the one clock.
    """
    return [_finding(one, now) for one in compared if not one.is_equal]


def _finding(one: "TableComparison", now: datetime) -> Finding:
    keys = [f"-- {each.key}: {each.what}" + (f" ({', '.join(each.columns)})" if each.columns else "") for each in one.differences]
    query = "\n".join((f"-- warehouse compare {one.source} {one.table}", *keys, f"SELECT * FROM raw_{one.source}.{one.table}"))
    wrong = one.missing + one.extra + one.doubled + one.changed
    share = min(1.0, wrong / max(one.rows_source, 1)) if wrong else None
    expected = f"the {one.rows_source:,} rows of {one.source}"
    return Finding(DIFFERS, f"raw_{one.source}.{one.table}", None, "error", one.summary, expected, now, query, share)
