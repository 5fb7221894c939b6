"""The contracts of a review: what `soda/` promises of the models, held against an environment beside production."""

import re
import tempfile
from collections.abc import Collection
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from monitoring.contract_files import FOLDER, read_contracts
from monitoring.contracts import check_contracts
from monitoring.findings import Finding

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


def check_environment(
    connection: "DuckDBPyConnection", environment: str, tables: Collection[str], *, views: Collection[str], now: datetime, folder: Path | None = None
) -> list[Finding]:
    """Check contracts as they would be checked if the environment were production.

    Args:
        environment: its views stand in schemas named like production's with `__<environment>` at the end.
        tables: the models to look at (schema.table, as production calls them); one without a contract is a finding.
        views: every model that has a view in the environment; what a contract's SQL says of one is asked of that view.
        now: aware, by the one clock.
        folder: where the contracts stand, soda/ when None.

    Returns:
        what would be wrong, under the names that production has.

    Raises:
        DeclarationError: a contract file is wrong; nothing was checked.
    """
    folder = folder or FOLDER
    contracts = read_contracts(folder)
    suffix = f"__{environment}"
    named = re.compile("|".join(rf"\b{re.escape(schema)}([./]){re.escape(table)}\b" for schema, table in (view.split(".") for view in sorted(views))) or "(?!)")

    def moved(text: str) -> str:
        return named.sub(lambda found: re.sub(r"[./]", lambda mark: suffix + mark.group(), found.group(), count=1), text)

    with tempfile.TemporaryDirectory(prefix="warehouse-contracts-") as place:
        for table in sorted(contracts.keys() & set(tables)):
            schema, name = table.split(".")
            file = Path(place, schema + suffix, f"{name}.yml")
            file.parent.mkdir(exist_ok=True)
            file.write_text(moved((folder / schema / f"{name}.yml").read_text()))
        looked_at = {moved(table): table for table in contracts.keys() & set(tables)}
        found = check_contracts(connection, now=now, loaded_at={}, folder=Path(place), only=looked_at) if looked_at else []
    findings = [replace(finding, table=looked_at[finding.table]) for finding in found]
    without = sorted(set(tables) - contracts.keys())
    expected = "a contract soda/{}.yml"
    return findings + [Finding("contract", one, None, "warning", "it has no contract", expected.format(one.replace(".", "/")), now, "") for one in without]
