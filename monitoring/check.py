"""Check everything there is to check: contracts and freshness of every table, rows lost on the way or deleted, and unusual days."""

from collections.abc import Collection, Mapping
from datetime import timedelta

from monitoring.anomalies import check_anomalies
from monitoring.completeness import check_completeness, check_newest
from monitoring.contract_files import read_contracts
from monitoring.contracts import check_contracts
from monitoring.deletes import check_deletes
from monitoring.expectations import read_expectations
from monitoring.findings import Finding
from monitoring.schema_changes import schema_changes
from warehouse import clock, ledger, storage, telemetry


def check(freshness: Mapping[str, timedelta], left_out: Collection[str] = ()) -> list[Finding]:
    """Check the warehouse against `soda/` and `monitoring/expectations.yaml`. Hold the lease, or know that nobody writes.

    Args:
        freshness: source to its limit, as its declaration in `pipelines/` says.
        left_out: sources that were never loaded and need not be: their raw tables and staging views are not checked.

    Raises:
        DeclarationError: a contract cannot be read; nothing was checked.
        LeaseHeld, StepFailed: the warehouse cannot be opened.
    """
    raw = {table: table.split(".")[0].removeprefix("raw_") for table in read_contracts() if table.startswith("raw_")}
    loaded = {source: ledger.last_success("load", source) for source in set(raw.values())}
    with storage.open_warehouse() as connection:
        now, expectations = clock.now(), read_expectations()
        with telemetry.span("check contracts") as traced:
            found = schema_changes(connection, now) + check_contracts(
                connection,
                now=now,
                loaded_at={table: at for table, source in raw.items() if (at := loaded[source]) is not None},
                freshness={table: freshness[source] for table, source in raw.items() if source in freshness},
                left_out=left_out,
            )
            traced.set(findings=len(found))
        with telemetry.span("check completeness"):
            found += check_completeness(connection, expectations, now, left_out)
        for look in (check_newest, check_deletes, check_anomalies):
            with telemetry.span(look.__name__.replace("_", " ")):
                found += look(connection, expectations, now)
        return found
