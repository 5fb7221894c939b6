"""What is measured, for whoever watches from outside: the limits of every room together, and what is told after each run."""

from datetime import timedelta
from typing import TYPE_CHECKING

from warehouse import clock, telemetry
from warehouse.console import complain, logger
from warehouse.errors import UsageError
from warehouse.settings import settings

if TYPE_CHECKING:
    from monitoring.measures import Limits, Measure


def limits() -> "Limits":
    """How old sources, backups and drills may be; backups only where they are configured.

    Raises:
        DeclarationError: a declaration is wrong.
    """
    from backup.policy import is_configured, policy
    from backup.watch import LATE
    from monitoring.measures import Limits
    from pipelines.source import common, sources

    wanted = {source: common(source).freshness for source in sources() if settings().is_configured(source) or _was_loaded(source)}
    data = policy().data if is_configured() else {}
    drilled: dict[str, timedelta] = {kind: one.drill_every for kind, one in data.items() if kind != "postgres_base"}  # no command drills that one
    return Limits(wanted, {kind: LATE * one.every for kind, one in data.items()}, drilled)


def measured() -> "list[Measure]":
    """All that is measured now."""
    from monitoring.measures import measures

    return measures(limits(), clock.now())


def tell() -> None:
    """Write the file for node_exporter and send metrics to a collector, where these are set up.

    Never raises: the run's own result must stay what the operator sees.
    """
    file = settings().metrics_file
    if file is None and not telemetry.is_on("metrics"):
        return
    try:
        from monitoring.metrics import write

        values = measured()
        if file is not None:
            write(file, values)
        telemetry.send(values)
    except (OSError, UsageError) as problem:
        complain(f"metrics were not written: {problem}")
    except Exception:  # whatever watches the run must not fail it
        logger.exception("metrics")


def _was_loaded(source: str) -> bool:
    from warehouse import ledger

    return ledger.last_success("load", source) is not None
