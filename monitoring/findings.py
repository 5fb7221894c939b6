"""A finding: one thing wrong with one table, with the query that shows it."""

import hashlib
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Literal

SAMPLE_ROWS = 20
"""How many failing rows a finding's query shows."""


@dataclass(frozen=True)
class Finding:
    """What a check saw. `observed` holds counts and instants, `query` selects keys: neither ever holds personal data.

    `check`, `table` (schema.table, or the part of the house that failed) and `column` together name the rule; `since` is
    when it began to be broken, as far as is known. `share` is the part of the rows that break it (0 to 1), where the check
    counts rows; `route` is the channel that monitoring/rules.yaml sends it to.
    """

    check: str
    table: str
    column: str | None
    severity: Literal["error", "warning"]
    observed: str
    expected: str
    since: datetime
    query: str
    share: float | None = None
    route: str = ""

    @property
    def fingerprint(self) -> str:
        """What stays the same when the same rule is broken again: 16 hexadecimal digits of check, table and column."""
        return hashlib.sha256("\n".join((self.check, self.table, self.column or "")).encode()).hexdigest()[:16]

    def as_json(self) -> dict[str, str | float | None]:
        """The finding as JSON values; `since` is ISO 8601 in UTC."""
        return {**asdict(self), "since": self.since.isoformat()}
