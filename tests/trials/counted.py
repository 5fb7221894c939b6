"""Rates with their exact 95 % intervals, and tables of them."""

from collections.abc import Sequence
from dataclasses import dataclass

from scipy import stats


@dataclass
class Counted:
    """Found of how many."""

    found: int = 0
    of: int = 0

    def add(self, found: int, of: int = 1) -> None:
        """More trials."""
        self.found, self.of = self.found + int(found), self.of + of

    def __str__(self) -> str:
        if not self.of:
            return "-"
        low = stats.beta.ppf(0.025, self.found, self.of - self.found + 1) if self.found else 0.0
        high = stats.beta.ppf(0.975, self.found + 1, self.of - self.found) if self.found < self.of else 1.0
        return f"{100 * self.found / self.of:.1f} % ({100 * low:.1f} to {100 * high:.1f})"


def rate(events: int, years: float) -> str:
    """Events a year with their exact 95 % interval."""
    low = stats.chi2.ppf(0.025, 2 * events) / 2 / years if events else 0.0
    return f"{events / years:.2f} ({low:.2f} to {stats.chi2.ppf(0.975, 2 * events + 2) / 2 / years:.2f})"


def table(head: str, rows: Sequence[Sequence[object]]) -> str:
    """Markdown."""
    return "\n".join((head, "|---" * head.count("|", 1) + "|", *(f"| {' | '.join(str(cell) for cell in row)} |" for row in rows), ""))
