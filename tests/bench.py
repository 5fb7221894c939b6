"""Measure what docs/bench.md states: `make bench`. Each figure is the median of several runs in a fresh home."""

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

from warehouse.console import say
from warehouse.settings import ROOT, reload

WAREHOUSE = Path(sys.executable).parent / "warehouse"


def main() -> None:
    """Run every measurement and write one line each: name, median, minimum, maximum, bar."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--runs", type=int, default=5)
    runs = arguments.parse_args().runs
    home = Path(tempfile.mkdtemp(prefix="warehouse_bench_"))
    os.environ["WAREHOUSE_HOME"] = str(home)
    reload()
    from demo import box
    from demo.acts import act

    try:
        box.start(home)
        url = box.owner_url(home)

        def first() -> list[str]:
            _forget(home)
            return ["run"]

        def edited(number: int) -> list[str]:
            act(url, edit=500, seed=number)
            return ["run"]

        _report("first `warehouse run`, 93,229 rows", [_run(first()) for _ in range(runs)], "")
        _report("second run, nothing new", [_run(["run"]) for _ in range(runs)], "<= 15 s wall, <= 10 CPU s, <= 1,000 MB")
        _report("run after 500 of 69,659 orders were edited", [_run(edited(number)) for number in range(runs)], "only 500 rows; <= 1,000 MB")
        _report("`warehouse rebuild postgres`", [_run(["rebuild", "postgres"]) for _ in range(runs)], "")
        _report("`warehouse --help`", [_run(["--help"]) for _ in range(runs)], "<= 1 s")
    finally:
        box.reset(home)
        shutil.rmtree(home, ignore_errors=True)


def _run(arguments: list[str]) -> tuple[float, float, float]:
    """Wall seconds, CPU seconds and peak memory (MB) of one command."""
    began = time.monotonic()
    pid = os.posix_spawn(str(WAREHOUSE), [str(WAREHOUSE), *arguments], dict(os.environ), file_actions=[(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)])
    _, status, used = os.wait4(pid, 0)
    if os.waitstatus_to_exitcode(status) != 0:
        raise SystemExit(f"`warehouse {' '.join(arguments)}` failed; nothing was measured")
    unit = 1e6 if sys.platform == "darwin" else 1e3
    return time.monotonic() - began, used.ru_utime + used.ru_stime, used.ru_maxrss / unit


def _report(name: str, measured: list[tuple[float, float, float]], bar: str) -> None:
    figures = {}
    for index, unit in enumerate(("wall_s", "cpu_s", "peak_mb")):
        values = [one[index] for one in measured]
        figures[unit] = {"median": round(statistics.median(values), 2), "min": round(min(values), 2), "max": round(max(values), 2)}
    say(json.dumps({"what": name, **figures, "bar": bar, "runs": len(measured)}))


def _forget(home: Path) -> None:
    """Empty the home but for the demo company."""
    for entry in home.iterdir():
        if entry.name != "demo":
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


if __name__ == "__main__":
    os.chdir(ROOT)
    main()
