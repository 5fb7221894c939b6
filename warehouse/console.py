"""What a person sees: results on standard output, progress and messages on standard error, quiet when not a terminal."""

import json
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from logging.handlers import RotatingFileHandler
from typing import TYPE_CHECKING, Any

from warehouse import clock
from warehouse.errors import scrub
from warehouse.settings import settings

if TYPE_CHECKING:
    from rich.console import Console

logger = logging.getLogger("warehouse")

Advance = Callable[[int], None]
"""Called with the number of rows done since the last call."""

_descriptions: list[Callable[[str], None]] = []
"""How the bars that are shown now are given another text, the innermost last."""


def say(text: str = "") -> None:
    """Write one line to standard output."""
    sys.stdout.write(text + "\n")


def complain(text: str) -> None:
    """Write one line to standard error, scrubbed."""
    sys.stderr.write(scrub(text) + "\n")


def screen() -> "Console":
    """Rich's console on standard error."""
    from rich.console import Console

    return Console(stderr=True)


@contextmanager
def progress(what: str, total: int | None = None, *, of_bytes: bool = False) -> Iterator[Advance]:
    """Show a bar (or a spinner, when the total is unknown) while inside; nothing when not on a terminal.

    Args:
        of_bytes: bytes are counted instead of rows: shown with their rate and the time that remains.

    Yields:
        a function to call with the number of rows (or bytes) done since the last call.
    """
    if not sys.stderr.isatty():
        yield lambda rows: None
        return
    from rich import progress as rich

    counts = [rich.DownloadColumn(), rich.TransferSpeedColumn(), rich.TimeRemainingColumn()] if of_bytes else [rich.MofNCompleteColumn()]
    columns = [rich.SpinnerColumn(), rich.TextColumn("{task.description}"), rich.BarColumn(), *counts, rich.TimeElapsedColumn()]
    with rich.Progress(*columns, console=screen(), transient=True) as bar:
        task = bar.add_task(what, total=total)
        _descriptions.append(lambda text: bar.update(task, description=text))
        try:
            yield lambda rows: bar.advance(task, rows)
        finally:
            _descriptions.pop()


def tell(what: str) -> None:
    """Say beside the bar or spinner what is being done now; nothing when none is shown."""
    if _descriptions:
        _descriptions[-1](what)


def log_to_file() -> None:
    """Send structured logs, one JSON object a line, scrubbed, to `WAREHOUSE_HOME/logs`; libraries only when they warn."""
    folder = settings().home / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    handler = RotatingFileHandler(folder / "warehouse.jsonl", maxBytes=10_000_000, backupCount=10, delay=True)
    handler.setFormatter(_JsonLines())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    logger.setLevel(logging.INFO)
    logging.captureWarnings(True)


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {"at": clock.now().isoformat(), "level": record.levelname, "logger": record.name}
        line["message"] = scrub(record.getMessage())
        line.update(getattr(record, "fields", {}))
        if record.exc_info and record.exc_info[0] is not None:
            line["exception"] = scrub(f"{record.exc_info[0].__name__}: {record.exc_info[1]}")
        return json.dumps(line, default=str)
