"""Faults of every kind at backups, by seed: `python -m tests.trials_backup [--trials 1000] [--seed 1] [--only NUMBER …] [--write]`.

What failed is printed with its number, by which it can be run alone. `--write` keeps the figures in docs/backup-figures.md.
"""

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from faults.trials import Trial, as_line, kinds, report, run

from warehouse.console import say
from warehouse.settings import ROOT

REPORT = ROOT / "docs" / "backup-figures.md"
BEGIN, END = "<!-- trials -->\n", "<!-- /trials -->\n"
TOLD_EVERY = 60.0


def _slice(seed: int, chosen: list[tuple[int, str]], folder: str) -> None:
    """In a process of its own: run some, and print each as a line of JSON; SIGTERM ends its servers, too."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(1))
    for trial in run(Path(folder), seed, chosen):
        sys.stdout.write(as_line(trial) + "\n")
        sys.stdout.flush()


def _all(seed: int, chosen: list[tuple[int, str]], processes: int, keep: Path, minutes: float) -> list[Trial]:
    """In several processes at once, which do not know of each other; those of them that end within so many minutes."""
    done: list[Trial] = []
    running: list[subprocess.Popen[str]] = []
    began = time.monotonic()

    def listen(part: list[tuple[int, str]]) -> None:
        with tempfile.TemporaryDirectory(prefix="trials-", ignore_cleanup_errors=True) as name:
            os.chmod(name, 0o711)
            command = [sys.executable, "-m", "tests.trials_backup", "--slice", json.dumps(part), "--seed", str(seed), "--folder", f"{name}/run"]
            (Path(name) / "run").mkdir(mode=0o711)
            with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
                assert process.stdout
                running.append(process)
                for line in process.stdout:
                    if time.monotonic() - began > 60 * minutes:
                        break  # the end of the time is in it
                    trial = Trial(**json.loads(line))
                    done.append(trial)
                    with keep.open("a") as file:
                        file.write(line)
                    if trial.outcome == "failed":
                        say(f"trial {trial.number}, {trial.kind}, failed: --seed {seed} --only {trial.number}\n{trial.error}")

    threads = [threading.Thread(target=listen, args=(chosen[number::processes],)) for number in range(processes)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        threads[0].join(timeout=TOLD_EVERY)
        if time.monotonic() - began > 60 * minutes:
            for process in running:
                process.terminate()
        failed = sum(one.outcome == "failed" for one in done)
        say(f"{len(done)} of {len(chosen)} after {time.monotonic() - began:.0f} s, {failed} failed")
        for thread in threads[1:]:
            if not threads[0].is_alive():
                thread.join(timeout=TOLD_EVERY)
    return done


def _measured(done: list[Trial]) -> list[str]:
    """What the trials measured beside, at the worst."""
    found: dict[str, list[float]] = {}
    for one in done:
        for name, values in one.notes.items():
            found.setdefault(name, []).extend(values)
    lines = []
    for name, values in found.items():
        lines.append(f"- {name}: {sorted(values)[len(values) // 2]:.2f} s in the middle, {max(values):.2f} s at the worst, of {len(values)}")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, nargs="*", default=[])
    parser.add_argument("--kind", nargs="*", default=[], help="only these kinds of faults")
    parser.add_argument("--processes", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=600.0, help="end after so long, and report what was done")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--keep", type=Path, default=Path(tempfile.gettempdir()) / "trials-backup.jsonl", help="each result, a line of JSON")
    parser.add_argument("--slice", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.slice:
        _slice(given.seed, [(number, kind) for number, kind in json.loads(given.slice)], given.folder)
        return
    chosen = list(enumerate(kinds(given.seed, given.trials)))
    chosen = [one for one in chosen if (not given.only or one[0] in given.only) and (not given.kind or one[1] in given.kind)]
    began = time.monotonic()
    done = _all(given.seed, chosen, min(given.processes, len(chosen)), given.keep, given.minutes)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    lines = report(done, given.seed)
    took = f"{len(done)} trials took {(time.monotonic() - began) / 60:.0f} minutes, {(used.ru_utime + used.ru_stime) / 60:.0f} of them of processors."
    for line in [*lines, "", *_measured(done), "", took]:
        say(line)
    if given.write:
        text = REPORT.read_text()
        before, _, rest = text.partition(BEGIN)
        after = rest.partition(END)[2]
        REPORT.write_text(before + BEGIN + "\n".join([*lines, "", *_measured(done), "", took]) + "\n" + END + after)
    if any(one.outcome == "failed" for one in done) or len(done) < len(chosen):
        sys.exit(1)


if __name__ == "__main__":
    main()
