"""dlt's DuckDB destination with a merge of our own: one transaction from the landed file straight into the table.

dlt's own merge copies every row into a staging dataset first and compares with window functions what cannot have
duplicates: the file comes from one snapshot of a table with a primary key. What dlt carries is a line of JSON that names
the package in the landing zone, so that nothing is copied or rewritten on the way (docs/adr/0007-merge-in-one-transaction.md).
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlt.common.destination.client import HasFollowupJobs, LoadJob, RunnableLoadJob
from dlt.common.storages.load_package import ParsedLoadJobFileName
from dlt.destinations import duckdb
from dlt.destinations.impl.duckdb.duck import DuckDbClient

from pipelines import landing, raw

if TYPE_CHECKING:
    from dlt.common.destination.client import PreparedTableSchema


_CAPABILITIES: dict[str, Any] = {}
"""By naming convention."""


class merging_duckdb(duckdb):  # type: ignore[misc]  # dlt ships no types
    """The destination: `dlt.destinations.duckdb` that merges landed files."""

    @property
    def client_class(self) -> type["_MergingClient"]:
        """dlt: the class that creates load jobs."""
        return _MergingClient

    def capabilities(self, config: Any = None, naming: Any = None) -> Any:
        """dlt: what DuckDB can, which is always the same; it is asked twenty times a load, and would read every setting each time."""
        named = naming.name() if naming else ""
        if named not in _CAPABILITIES:
            _CAPABILITIES[named] = super().capabilities(config, naming)
        return _CAPABILITIES[named].copy()


class _MergingClient(DuckDbClient):  # type: ignore[misc]  # dlt ships no types
    def create_load_job(self, table: "PreparedTableSchema", file_path: str, load_id: str, restore: bool = False) -> LoadJob:
        parsed = ParsedLoadJobFileName.parse(file_path)
        if parsed.file_format == "jsonl" and not parsed.table_name.startswith("_dlt"):
            return _MergeLandedFile(file_path)
        return super().create_load_job(table, file_path, load_id, restore)


class _MergeLandedFile(RunnableLoadJob, HasFollowupJobs):  # type: ignore[misc]  # dlt ships no types
    """Merge the package that the file names."""

    _job_client: Any

    def run(self) -> None:
        package = landing.read(Path(json.loads(Path(self._file_path).read_text())["landed"]))
        with self._job_client.sql_client.native_connection.cursor() as connection:
            raw.merge(connection, package.source, package.table, package.primary_key, package.file, package.newest_by)
