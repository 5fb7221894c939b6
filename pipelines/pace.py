"""How fast rows are taken from a source, so that its server is not hurt, and how long that will still take."""

import time
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


class Pace:
    """At most so many rows a second, averaged since the first, over all tables and threads of a load."""

    def __init__(self, rows_per_second: int) -> None:
        self._rows_per_second = rows_per_second
        self._lock = Lock()
        self._free_at = 0.0

    def take(self, rows: int) -> None:
        """Wait until so many rows more may have been read."""
        with self._lock:
            self._free_at = max(self._free_at, time.monotonic()) + rows / self._rows_per_second
            free_at = self._free_at
        time.sleep(max(0.0, free_at - time.monotonic()))

    def bind(self, connection: "DuckDBPyConnection") -> None:
        """Offer SQL the function `paced(any number) -> true`, which waits; outside of a transaction.

        A condition in the query, and not a slower reader behind it: so nothing else about the query differs, and each value
        takes the same way as without a bound. DuckDB calls it once for each 2,048 rows, and reads on when it returns.
        """
        import pyarrow as pa
        from duckdb.func import ARROW

        def paced(rows: Any) -> Any:  # DuckDB evaluates what is annotated, where pyarrow has no name
            self.take(len(rows))
            return pa.repeat(pa.scalar(True), len(rows))

        connection.create_function("paced", paced, ["UBIGINT"], "BOOLEAN", type=ARROW, side_effects=True)


@dataclass
class Estimate:
    """How long a reading along the source's own time will still take, judged by how far it has come.

    Attributes:
        begun: when it began, in seconds of the clock that `left` is told.
        start: the time in the source at which it began.
        goal: the time in the source at which it will end.
    """

    begun: float
    start: float
    goal: float

    def left(self, position: float, now: float) -> float | None:
        """Seconds still to go at a time in the source; None as long as nothing can be said."""
        done, whole = position - self.start, self.goal - self.start
        if done <= 0 or whole <= 0 or now <= self.begun:
            return None
        return max(0.0, (now - self.begun) * (whole - done) / done)

    def said(self, position: float, now: float) -> str:
        """The same in words."""
        left = self.left(position, now)
        if left is None:
            return "time left not known yet"
        return "about a minute left" if left < 90 else f"about {left / 60:.0f} minutes left" if left < 5400 else f"about {left / 3600:.1f} hours left"
