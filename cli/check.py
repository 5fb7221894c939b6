"""What `warehouse check` shows, and its form that looks at nothing but the age of the loads."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from cli import tables
from cli.alert import route
from pipelines.source import common, sources
from warehouse import clock, ledger, storage
from warehouse.console import say
from warehouse.errors import FindingsFound
from warehouse.settings import settings

if TYPE_CHECKING:
    from datetime import datetime

    from monitoring.findings import Finding


def check_freshness(*, as_json: bool, junit: Path | None, alert: bool) -> None:
    """Check how long ago each source was loaded. Neither the lease nor a source is needed.

    Raises:
        FindingsFound: something is stale.
    """
    from monitoring.book import record
    from monitoring.contract_files import read_contracts
    from monitoring.freshness import check_freshness as judge
    from monitoring.rules import routed

    loaded = _last_loads()
    left_out = [source for source in sources() if source not in loaded and not settings().is_configured(source)]
    tables_of = {table: table.split(".")[0].removeprefix("raw_") for table in read_contracts() if table.startswith("raw_")}
    judged = {table: source for table, source in tables_of.items() if source in sources() and source not in left_out}
    now = clock.now()
    found = judge(
        judged,
        now=now,
        loaded_at={table: loaded[source] for table, source in judged.items() if source in loaded},
        freshness={table: common(source).freshness for table, source in judged.items()},
    )
    findings = record(routed(found), origin="check", now=now, looked_at=lambda check, table: check == "freshness")
    show(findings, left_out, as_json=as_json, junit=junit, alert=alert)


def _last_loads() -> "dict[str, datetime]":
    """Source to when it was last loaded well: by this machine's ledger and, on shared storage, by that of the machine that loads."""
    known = {source: ledger.last_success("load", source) for source in sources()}
    loaded = {source: at for source, at in known.items() if at is not None}
    if settings().storage == "motherduck":
        with storage.open_warehouse(read_only=True) as connection:
            query = "SELECT count(*) FROM duckdb_tables() WHERE database_name = current_database() AND schema_name = 'ops' AND table_name = 'run_steps'"
            if connection.execute(query).fetchone() == (1,):
                query = "SELECT item, max(ended_at) FROM ops.run_steps WHERE step = 'load' AND status IN ('succeeded', 'findings') GROUP BY item"
                for source, at in connection.execute(query).fetchall():
                    loaded[source] = max(at, loaded.get(source, at))
    return loaded


def show(findings: "list[Finding]", left_out: list[str], *, as_json: bool, junit: Path | None, alert: bool) -> None:
    """Show what was found, and write and tell it where that is asked for.

    Raises:
        FindingsFound: something is wrong.
    """
    if junit is not None:
        from monitoring.contract_files import read_contracts
        from monitoring.junit import write

        write(junit, read_contracts(), findings, left_out)
    if as_json:
        for finding in findings:
            say(json.dumps(finding.as_json()))
    else:
        tables.findings(findings, left_out)
    if alert:
        route()
    wrong = [finding for finding in findings if finding.severity == "error"]
    if wrong:
        raise FindingsFound(f"{len(wrong)} findings.", mend="each names its query; mend the data at its source or the rule in soda/")
