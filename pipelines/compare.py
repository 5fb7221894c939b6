"""Compare: whether the raw tables equal their source, by rows and content hashes, table by table and key range by key range.

What may rightly differ is told apart and never counted as a difference (docs/runbooks/which-number-is-right.md): rows that
changed since the last load, and rows deleted since that the next comparison of keys will mark.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from pipelines.source import sources
from warehouse.errors import UsageError
from warehouse.ledger import Run

MOST_NAMED = 10
"""How many differing keys of a table are named."""

MOST_RANGES = 256


@dataclass(frozen=True)
class Difference:
    """One key that differs.

    Attributes:
        key: as it stands in the warehouse: of a personal key its pseudonym.
        what: missing in the warehouse, only there, there more often than in the source, or differing.
        columns: those whose values differ; the values are never told.
    """

    key: str
    what: str
    columns: list[str] = field(default_factory=list)


@dataclass
class TableComparison:
    """What comparing one table showed.

    Attributes:
        table: the raw table, without its schema.
        rows_source, rows_warehouse: all rows; in the warehouse without those marked as deleted.
        ranges: the key ranges (or parts by the key's hash) compared one by one.
        ranges_differing: those that hold a difference.
        not_yet_loaded: rows of the source changed since the last load and not held in this form; left out on both sides.
        not_yet_deleted: rows gone from the source, whose deletion the next comparison of keys is to find; no difference.
        missing, extra, doubled, changed: keys (without a key: rows) that are only in the source, only in the warehouse, there
            more often than in the source, or the same with other values.
        shape: what differs in the tables themselves: never loaded, columns that the warehouse lacks.
        left_out: columns that only the warehouse has, which are not compared.
        differences: the first differing keys, some of each kind.
        notes: what to know when judging this table.
    """

    source: str
    table: str
    rows_source: int = 0
    rows_warehouse: int = 0
    ranges: int = 1
    ranges_differing: int = 0
    not_yet_loaded: int = 0
    not_yet_deleted: int = 0
    missing: int = 0
    extra: int = 0
    doubled: int = 0
    changed: int = 0
    shape: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def is_equal(self) -> bool:
        """Whether the warehouse holds what it is to hold."""
        return not self.shape and not self.ranges_differing

    @property
    def summary(self) -> str:
        """What differs, in a line without values; "equal" when nothing does."""
        counts = [("missing", self.missing), ("only in the warehouse", self.extra), ("doubled", self.doubled), ("changed", self.changed)]
        said = [*self.shape, *(f"{number:,} {what}" for what, number in counts if number)]
        return "; ".join(said) if said else "equal"

    def as_json(self) -> dict[str, Any]:
        """The comparison as JSON values."""
        return {**asdict(self), "is_equal": self.is_equal, "seconds": round(self.seconds, 3)}


def compare(source: str, tables: Sequence[str], run: Run) -> list[TableComparison]:
    """Compare the raw tables of a source with the source as it is now. Hold the lease.

    Args:
        tables: raw tables, or tables as they are declared; none: all.
        run: where each table is recorded as a step `compare`: rows of the source in, rows of the warehouse out.

    Returns:
        one comparison a table, equal or not.

    Raises:
        UsageError: no such source or table, or a source that cannot be compared. StepFailed: the source cannot be read.
    """
    if source not in sources():
        raise UsageError(f"there is no source {source!r}; sources: {', '.join(sources())}", mend="see the README's `add a source`")
    if source not in able():
        raise UsageError(f"{source} cannot be compared with its source.", mend=f"sources that can: {', '.join(able())}")
    return _comparer(source)(tables, run)


def able() -> list[str]:
    """The sources that can be compared: those that can be read whole again."""
    return [name for name in sources() if find_spec(f"pipelines.{name}_compare")]


def _comparer(source: str) -> Callable[[Sequence[str], Run], list[TableComparison]]:
    return getattr(import_module(f"pipelines.{source}_compare"), f"compare_{source}")  # type: ignore[no-any-return]  # by the source's name
