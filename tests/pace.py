"""How fast this machine is while something is measured: processors are shared, and a bar in seconds holds for one that is not."""

import statistics
import threading
import time
from types import TracebackType

EVERY = 0.4
"""Seconds between two samples."""

STEPS = 250
"""How often one sample does its piece of work."""

NOMINAL = 0.0100
"""CPU seconds that one sample takes on the AMD EPYC on which the bars were set, with nobody else at work."""


class Pace:
    """Samples, while it is open, what a fixed piece of work costs: numbers, strings, dictionaries and sorting, as the product's own Python does.

    A sample costs a fortieth of its pause. What the samples cost is not taken off: it is counted against whoever is measured.
    """

    def __init__(self) -> None:
        self._samples: list[tuple[float, float]] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> "Pace":
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._over.set()
        self._thread.join()

    @property
    def slowness(self) -> float:
        """How often longer the processor took for the same than one of its own would; 1 at least."""
        return max(1.0, statistics.fmean(cpu for cpu, _ in self._samples) / NOMINAL)

    @property
    def waiting(self) -> float:
        """How often longer the clock ran meanwhile, for others had the processor: a bar of seconds by the clock stretches so; 1 at least."""
        return max(self.slowness, statistics.fmean(wall for _, wall in self._samples) / NOMINAL)

    def _sample(self) -> None:
        while True:
            cpu, wall = time.thread_time(), time.perf_counter()
            _work()
            self._samples.append((time.thread_time() - cpu, time.perf_counter() - wall))
            if self._over.wait(EVERY):
                return


def _work() -> int:
    total = 0
    for step in range(STEPS):
        named = {f"column_{number}": (number * step) % 97 for number in range(150)}
        total += sum(len(name) for name, _ in sorted(named.items(), key=lambda pair: (pair[1], pair[0])))
    return total
