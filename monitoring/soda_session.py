"""Soda, run inside this process on an open connection: no telemetry, no output, nothing taken for passed in silence."""

import logging
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

from monitoring.contract_model import Check, Contract
from warehouse.errors import scrub
from warehouse.storage import CATALOG

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

Identity = tuple[str | None, str, str | None]


@dataclass(frozen=True)
class Outcome:
    """One check's outcome: Soda's word for it, the judged value (rows or percent), and the rows behind it."""

    word: str
    value: float | None
    rows: int | None


@dataclass(frozen=True)
class Verified:
    """One contract's outcomes by check, and what Soda only logged."""

    outcomes: dict[Identity, Outcome]
    errors: list[str]


def verify(connection: "DuckDBPyConnection", runnable: Mapping[str, tuple[Contract, list[Check]]], today: date) -> dict[str, Verified]:
    """Run the given checks of each contract in one session; one aggregate query per table, and one per SQL query check.

    Returns:
        one entry per given table, also when Soda broke down over it.
    """
    os.environ["SODA_CORE_TELEMETRY_ENABLED"] = "false"  # Soda reads it when it is imported
    from soda_core.contracts.contract_verification import ContractVerificationSession
    from soda_duckdb.common.data_sources.duckdb_data_source import DuckDBDataSourceImpl

    sources = [_source(contract, checks) for contract, checks in runnable.values()]
    if not sources:
        return {}
    try:
        with _listening() as logs, _without_places():
            session = ContractVerificationSession.execute(
                contract_yaml_sources=sources,
                data_source_impls=[DuckDBDataSourceImpl.from_existing_cursor(connection, name=CATALOG)],
                variables={"today": today.isoformat()},
                logs=logs,
            )
    except Exception as error:  # whatever breaks Soda must become a finding of every table, not end the run
        return {table: Verified({}, [_said(error)]) for table in runnable}
    results = session.contract_verification_results
    if len(results) != len(sources):
        return {table: Verified({}, [f"{len(results)} results for {len(sources)} contracts"]) for table in runnable}
    return {table: _verified(result) for table, result in zip(runnable, results, strict=True)}


def _verified(result: Any) -> Verified:
    outcomes = {}
    for one in result.check_results:
        diagnostics = one.diagnostic_metric_values or {}
        identity = (one.check.column_name, one.check.type, one.check.qualifier)
        outcomes[identity] = Outcome(one.outcome.name, one.threshold_value, diagnostics.get("check_rows_tested"))
    errors = [_said(message) for message in result.get_errors()]
    return Verified(outcomes, [*errors, *([_said(result.error)] if result.error else [])])


def _source(contract: Contract, checks: list[Check]) -> Any:
    """The contract with the given checks alone, as Soda has it when it has read a file: there is none to read again."""
    from soda_core.common.yaml import ContractYamlSource, FileType, YamlObject

    class Given(ContractYamlSource, file_type=FileType.CONTRACT):  # type: ignore[misc, call-arg]  # the library has no types
        def parse(self) -> YamlObject:
            return YamlObject(self, document)

    def written(column: str | None) -> list[dict[str, Any]]:
        return [{check.kind: check.body.model_dump(exclude_none=True)} for check in checks if check.column == column]

    document: dict[str, Any] = {"dataset": contract.dataset}
    if contract.variables is not None:
        document["variables"] = {"today": None}
    document["columns"] = [{"name": column.name, "checks": written(column.name)} for column in contract.columns if written(column.name)]
    if written(None):
        document["checks"] = written(None)
    return Given(yaml_str="")


@contextmanager
def _without_places() -> Iterator[None]:
    """Soda notes where in a file each value stands, and writes each check out as YAML for its cloud: half of its time, and here is neither."""
    from soda_core.common import yaml
    from soda_core.common.logs import Location
    from soda_core.contracts.impl.contract_verification_impl import CheckImpl

    really = yaml.get_location, CheckImpl._build_definition
    yaml.get_location = lambda value, path: Location(file_path=None, line=0, column=0)
    CheckImpl._build_definition = lambda check: ""
    try:
        yield
    finally:
        yaml.get_location, CheckImpl._build_definition = really


@contextmanager
def _listening() -> Iterator[Any]:
    """Soda tells errors only by logging: hear them also when logging is off, and let no other handler print them."""
    from soda_core.common.logs import Logs, preserve_active_logs

    logger, root = logging.getLogger("soda"), logging.getLogger()
    before = (logger.level, logger.disabled, logger.propagate, root.manager.disable)
    handlers = list(root.handlers)
    logger.setLevel(logging.WARNING)
    logger.disabled, logger.propagate, root.manager.disable = False, True, logging.NOTSET
    for handler in handlers:
        handler.addFilter(_not_soda)
    try:
        with preserve_active_logs():
            yield Logs()
    finally:
        for handler in handlers:
            handler.removeFilter(_not_soda)
        for handler in [handler for handler in root.handlers if handler not in handlers]:
            root.removeHandler(handler)
        logger.setLevel(before[0])
        logger.disabled, logger.propagate, root.manager.disable = before[1:]


def _not_soda(record: logging.LogRecord) -> bool:
    return record.name != "soda"


def _said(error: object) -> str:
    """The part of an error that names its cause. Values that a database quotes are taken out with the quotes."""
    text = " ".join(str(error).split())
    return scrub(re.sub(r"'[^']*'", "'…'", text))[:300]
