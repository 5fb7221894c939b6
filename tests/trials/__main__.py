"""How many faults monitoring finds, and how often it cries wolf: `python -m tests.trials [--short] [--tuning] [--write] [--jobs N]`.

The limits of monitoring/usual.py were chosen on the seeds of `--tuning`; what is reported is measured on others, once.
"""

import argparse
import os
import re
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
os.environ.setdefault("WAREHOUSE_HOME", tempfile.mkdtemp(prefix="trials-"))

from trials import days
from trials.catalogue import CATALOGUE, DAYS, ROWS
from trials.companies import GENERATORS, SERIES
from trials.counted import Counted, rate, table
from warehouse.console import complain, say
from warehouse.settings import ROOT

REPORT = ROOT / "docs" / "monitoring-figures.md"
TUNING, REPORTED = 0, 6000
"""The first seed of each set."""
SIZES = (100, 600, 5000)
BY_SODA = 15
"""Of so many trials one is judged by Soda as well."""
SEVERITIES = ("mild", "middle", "grave")
BEGAN = time.monotonic()


def _said(what: str) -> None:
    complain(f"{time.monotonic() - BEGAN:6.0f} s  {what}")


def carried(until: float, seed: int) -> list[tuple[str, int, int, bool, bool, int, bool | None]]:
    """One seed of the catalogue, in an order of its own: fault, severity, incidents, right cause, right route, checks skipped, whether Soda says the same.

    Args:
        until: when to stop, by the clock that starts with the machine.
    """
    import numpy as np

    from trials import shop
    from trials.carried import Trial, comparable, is_right, is_routed

    trials = {}
    for is_of_days, bases in ((False, (40,)), (True, (300,))):
        shop.BASES = bases
        trials[is_of_days] = Trial(seed)
    found, every = [], [(fault, severity) for fault in CATALOGUE for severity in range(3)]
    for number, which in enumerate(np.random.default_rng(seed).permutation(len(every))):
        if time.monotonic() > until:
            break
        fault, severity = every[which]
        trial = trials[fault.is_of_days]
        seen, same = trial.run(fault, severity), None
        if number % BY_SODA == 0 and not fault.is_of_days:
            by_soda = trial.run(fault, severity, by_soda=True)
            same = {comparable(one) for one in by_soda.found} == {comparable(one) for one in seen.found}
        found.append((fault.name, severity, len(seen.groups), is_right(fault, seen), is_routed(fault, seen), seen.skipped, same))
    return found


def clean(base: float, given: tuple[str, int]) -> tuple[str, int, int]:
    """One clean year."""
    generator, seed = given
    return generator, *days.clean_years(generator, seed, base)


def by_days(base: float, false_alarms: float, wanted: tuple[days.Fault, ...], given: tuple[str, int]) -> list[tuple[str, str, int, days.Found]]:
    """One company of a size, and what is done to it."""
    generator, seed = given
    return list(days.faults([seed], base, false_alarms, [generator], wanted))


def _each(jobs: ProcessPoolExecutor, work: Callable[..., Any], given: Iterable[Any], what: str) -> list[Any]:
    made, given = [], list(given)
    for number, one in enumerate(jobs.map(work, given), 1):
        made.append(one)
        if number % 2 == 0 or number == len(given):
            _said(f"{what}: {number} of {len(given)} (the last: {given[number - 1]})")
    return made


def catalogue(jobs: ProcessPoolExecutor, seeds: range, until: float) -> str:
    """The catalogue, carried from raw to marts."""
    cells: dict[tuple[str, int], list[Counted]] = defaultdict(lambda: [Counted(), Counted(), Counted()])
    skipped = trials = 0
    same, incidents = Counted(), list[int]()
    for name, severity, told, is_right, is_routed, not_run, as_soda in chain.from_iterable(
        _each(jobs, partial(carried, until), seeds, "the catalogue, seed by seed")
    ):
        trials, skipped = trials + 1, skipped + not_run
        found, cause, route = cells[name, severity]
        found.add(told > 0)
        if told:
            incidents.append(told)
            cause.add(is_right)
            route.add(is_routed)
        if as_soda is not None:
            same.add(as_soda)

    def totals(faults: Iterable[Any], number: int) -> Counted:
        total = Counted()
        for fault in faults:
            for severity in range(3):
                total.add(cells[fault.name, severity][number].found, cells[fault.name, severity][number].of)
        return total

    rules = [fault for fault in CATALOGUE if not fault.is_of_days]
    rows = [
        [fault.name, fault.where, *(f"{cells[fault.name, one][0].found}/{cells[fault.name, one][0].of}" for one in range(3)),
         _sum(cells[fault.name, one][1] for one in range(3)), _sum(cells[fault.name, one][2] for one in range(3))]
        for fault in CATALOGUE
    ]  # fmt: skip
    summary = [
        ["faults of rows, shapes and silence", totals(rules, 0), totals(rules, 1), totals(rules, 2)],
        ["of these with one row, or the least, wrong", _total(cells[fault.name, 0][0] for fault in rules), _total(cells[fault.name, 0][1] for fault in rules),
         _total(cells[fault.name, 0][2] for fault in rules)],
        ["faults of days, 300 orders a day", totals(DAYS, 0), totals(DAYS, 1), totals(DAYS, 2)],
    ]  # fmt: skip
    return "\n".join((
        f"## The catalogue\n\n{len(CATALOGUE)} faults x 3 severities, seeds {seeds[0]} to {seeds[-1]}, {trials} trials; {len(ROWS)} are faults of single rows. "
        f"Checks silently skipped in all of them: {skipped}. Soda itself, asked in every {BY_SODA}th trial, found the same as the queries that stand for it in "
        f"{same.found} of {same.of}. A fault that was found is {sum(incidents) / len(incidents):.2f} incidents, {max(incidents)} at the most.\n",
        table("| faults | found | right cause first | right route |", summary),
        table("| fault | where | mild | middle | grave | right cause first | right route |", rows),
    ))  # fmt: skip


def _sum(cells: Iterable[Counted]) -> str:
    total = _total(cells)
    return f"{total.found}/{total.of}"


def _total(cells: Iterable[Counted]) -> Counted:
    total = Counted()
    for one in cells:
        total.add(one.found, one.of)
    return total


def by_size(jobs: ProcessPoolExecutor, first: int, seeds: int) -> str:
    """Clean years, and rows lost or amounts too small, by size, beside the baselines."""
    alarms, halves = [], []
    for base in SIZES:
        fewer = max(seeds // (1 if base < 5000 else 4), 1)
        given = [(generator, first + seed) for seed in range(fewer) for generator in GENERATORS]
        seen = _each(jobs, partial(clean, base), given, f"clean years, {base} a day")
        for generator in GENERATORS:
            mine = [one for one in seen if one[0] == generator]
            alarms.append([base, generator, rate(sum(one[1] for one in mine), len(mine) * SERIES), rate(sum(one[2] for one in mine), len(mine) * 4)])
            _said(str(alarms[-1]))
        cells = _tried(jobs, base, first, fewer, sum(one[1] for one in seen) / len(seen) / days.YEAR, days.FAULTS[:2])
        for (name, severity, generator), one in cells.items():
            if one.best:
                best, of_table = (f"{100 * sum(each) / len(each):.1f} %" for each in (one.best, one.best_of_table))
                halves.append([name, ("-30 %", "-50 %")[severity], base, generator, one.at_once, one.in_time, best, of_table, one.z_score])
                _said(" | ".join(str(cell) for cell in halves[-1]))
    few = max(seeds // 4, 1)
    head = (
        "| fault | by | orders a day | generator | ours, first day | ours, within three days | best possible, 2 false alarms a year | best "
        "possible, as many as ours in all metrics | 14-day z-score, within three days |"
    )
    return "\n".join((
        f"## Volume and revenue, by size\n\n{seeds} seeds of each generator ({few} at 5,000 a day), up to {days.TRIED} days of each.\n",
        table(head, sorted(halves, key=lambda row: (row[0], row[1], row[2]))),
        f"## Clean years\n\nUnexplained alarms per metric and year; {seeds} years of each generator ({few} at 5,000 a day).\n",
        table("| orders a day | generator | ours | 14-day z-score |", alarms),
    ))  # fmt: skip


def all_faults(jobs: ProcessPoolExecutor, first: int, seeds: int) -> str:
    """Every fault of days at 600 orders a day."""
    cells, rows = _tried(jobs, 600, first, seeds, 0.0, days.FAULTS), []
    for name, _ in days.FAULTS:
        for severity in range(3):
            both = [cells[name, severity, generator] for generator in GENERATORS]
            rows.append([name, SEVERITIES[severity], *(_total(getattr(one, which) for one in both) for which in ("at_once", "in_time", "z_score"))])
    head = "| fault | severity | ours, first day | ours, within three days | 14-day z-score, within three days |"
    return f"## All faults of days at 600 orders a day\n\n{seeds} seeds of each generator.\n\n" + table(head, rows)


def _tried(
    jobs: ProcessPoolExecutor, base: float, first: int, seeds: int, false_alarms: float, wanted: tuple[days.Fault, ...]
) -> dict[tuple[str, int, str], days.Found]:
    given = [(generator, first + 500 + seed) for seed in range(seeds) for generator in GENERATORS]
    cells: dict[tuple[str, int, str], days.Found] = {}
    tried = _each(jobs, partial(by_days, base, false_alarms, wanted), given, f"faults of days, {base} a day")
    for generator, name, severity, found in chain.from_iterable(tried):
        known = cells.setdefault((name, severity, generator), days.Found(Counted(), Counted(), Counted(), [], []))
        for total, one in zip((known.at_once, known.in_time, known.z_score), (found.at_once, found.in_time, found.z_score), strict=True):
            total.add(one.found, one.of)
        known.best.extend(found.best)
        known.best_of_table.extend(found.best_of_table)
    return cells


def mutated() -> str:
    """Every check of every contract taken away once."""
    from trials.mutations import dead_weight

    alone, dead = dead_weight()
    per_table: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for check, faults in alone.items():
        per_table[check[0].split(".")[0]][0] += 1
        per_table[check[0].split(".")[0]][1] += faults > 0
    _said(f"mutations: {len(alone)} checks")
    told = ", ".join(f"{one[0]}.{one[1] or '(table)'}.{one[2]}" for one in dead) or "none"
    return "\n".join((
        f"## Each check taken away once\n\n{len(alone)} checks of {len({check[0] for check in alone})} contracts. Dead weight (every fault is seen without "
        f"it): {told}.\n",
        table("| schema | checks | without which a fault goes unseen |", [[schema, *counts] for schema, counts in sorted(per_table.items())]),
    ))  # fmt: skip


def scan() -> tuple[float, float]:
    """Seconds, by the clock and of the processors, to judge the days of 20 tables of a million rows each, in this process."""
    from monitoring.anomalies import check_anomalies
    from monitoring.expectations import Expectations
    from trials.companies import WATCHED, company

    one = company("season", REPORTED, 100, 600)
    ((held,),) = one.connection.execute("SELECT count(*) FROM marts.orders").fetchall()
    tables = [f"marts.t{number}" for number in range(20)]
    for name in tables:
        one.connection.execute(f"CREATE TABLE {name} AS SELECT orders.* FROM marts.orders AS orders, range({1_000_000 // held + 1}) LIMIT 1_000_000")
    from datetime import UTC, datetime, timedelta
    from datetime import time as of_day

    began, used = time.monotonic(), time.process_time()
    now = datetime.combine(one.last + timedelta(days=1), of_day(7), UTC)
    check_anomalies(one.connection, Expectations(anomalies=dict.fromkeys(tables, WATCHED)), now)
    return time.monotonic() - began, time.process_time() - used


PARTS = ("catalogue", "sizes", "days", "mutations", "speed")
TITLES = (
    "The catalogue",
    "Volume and revenue, by size",
    "All faults of days at 600 orders a day",
    "Clean years",
    "Each check taken away once",
    "Both ways",
    "Speed",
)
"""The sections of the report, in their order."""


def keep(text: str) -> None:
    """Put the sections measured now in the place of the kept ones of their titles."""
    head, *kept = re.split(r"^## ", REPORT.read_text(), flags=re.MULTILINE)
    _, *new = re.split(r"^## ", text, flags=re.MULTILINE)
    sections = {one.split("\n")[0]: one.strip() for one in (*kept, *new)}
    REPORT.write_text(head + "\n\n".join(f"## {sections[title]}" for title in TITLES if title in sections) + "\n")


def main() -> None:
    """Run the trials."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--short", action="store_true", help="a look: few seeds, some minutes")
    parser.add_argument("--tuning", action="store_true", help="on the seeds on which the limits are chosen, not on those that are reported")
    parser.add_argument("--write", action="store_true", help="keep what is measured in docs/monitoring-figures.md")
    parser.add_argument("--only", choices=(*PARTS, "both-ways"), action="append", help="these parts alone")
    parser.add_argument("--both-ways", action="store_true", help="also run some faults through a home that the real build makes, and compare")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--seeds", type=int, default=20, help="seeds of each fault and generator, and clean years of each generator")
    parser.add_argument("--first", type=int, help="the first seed, where it is not that of the set: once what a set showed was mended, it proves nothing more")
    parser.add_argument("--minutes", type=float, default=600, help="stop carrying the catalogue after so long; what was tried by then is reported")
    given = parser.parse_args()
    until = BEGAN + given.minutes * 60
    first, seeds = TUNING if given.tuning else REPORTED, min(given.seeds, 4) if given.short else given.seeds
    first = first if given.first is None else given.first
    _said(f"seeds from {first}, {seeds} of them, {given.jobs} processes")
    from trials.home import models

    models()  # rendered once, for all processes
    for part in given.only or [*PARTS, *(["both-ways"] if given.both_ways else [])]:
        with ProcessPoolExecutor(given.jobs) as jobs:
            text = _measured(part, jobs, first, seeds, until)
        say(text)
        if given.write:
            keep(text)


def _measured(part: str, jobs: ProcessPoolExecutor, first: int, seeds: int, until: float) -> str:
    if part == "catalogue":
        return catalogue(jobs, range(first, first + seeds), until)
    if part == "sizes":
        return by_size(jobs, first, seeds)
    if part == "days":
        return all_faults(jobs, first, seeds)
    if part == "mutations":
        return mutated()
    if part == "both-ways":
        from trials.both_ways import both_ways

        return both_ways(first, _said)
    seconds, used = scan()
    return (
        f"## Speed\n\nThe days of 20 tables of a million rows each, five metrics in two segments, in-process: {seconds:.1f} s, of the processors {used:.1f} s."
    )


if __name__ == "__main__":
    main()
