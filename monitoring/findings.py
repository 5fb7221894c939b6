"""A finding: one thing wrong with one table, with the query that shows it."""

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Literal

SAMPLE_ROWS = 20
"""How many failing rows a finding's query shows."""


@dataclass(frozen=True)
class Finding:
    """What a check saw. `observed` holds counts and instants, `query` selects keys: neither ever holds personal data.

    `check`, `table` (schema.table) and `column` together name the rule; `since` is when it began to be broken, as far
    as the check itself can tell.
    """

    check: str
    table: str
    column: str | None
    severity: Literal["error", "warning"]
    observed: str
    expected: str
    since: datetime
    query: str

    def as_json(self) -> dict[str, str | None]:
        """The finding as JSON values; `since` is ISO 8601 in UTC."""
        return {**asdict(self), "since": self.since.isoformat()}
