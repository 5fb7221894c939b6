"""dlt, set up to work inside the home and to speak our errors."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from warehouse.errors import StepFailed, WarehouseError, scrub
from warehouse.settings import settings

if TYPE_CHECKING:
    from dlt import Pipeline
    from duckdb import DuckDBPyConnection


def _pipelines_folder() -> Path:
    return settings().home / "dlt"


def has_pending(source: str) -> bool:
    """Whether dlt's working directory holds an unfinished package; a look at folders, without importing dlt."""
    root = _pipelines_folder() / f"{source}_to_warehouse"
    folders = (root / "normalize" / "extracted", root / "load" / "new", root / "load" / "normalized", root / "load" / "extracted")
    return any(folder.exists() and any(folder.iterdir()) for folder in folders)


def open_pipeline(source: str, connection: "DuckDBPyConnection") -> "Pipeline":
    """The pipeline of a source into `raw_<source>` of an open warehouse. Its name is constant: dlt's state hangs on it."""
    folder = _pipelines_folder()
    os.environ.update(
        DLT_DATA_DIR=str(folder), DLT_PROJECT_DIR=str(folder), RUNTIME__DLTHUB_TELEMETRY="false", RUNTIME__LOG_LEVEL="CRITICAL",
        LOAD__DELETE_COMPLETED_JOBS="true", LOAD__WORKERS="2", SCHEMA__NAMING="direct",
    )  # fmt: skip
    import dlt

    from pipelines.merge_destination import merging_duckdb

    return dlt.pipeline(
        pipeline_name=f"{source}_to_warehouse",
        pipelines_dir=str(folder),
        destination=merging_duckdb(credentials=connection),
        dataset_name=f"raw_{source}",
    )


@contextmanager
def dlt_errors(source: str) -> Iterator[None]:
    """Give back our own errors from inside dlt's, and turn dlt's own into one that says what to do."""
    try:
        yield
    except WarehouseError:
        raise
    except Exception as error:  # dlt wraps what happens inside it in many types; all of them mean that the load failed
        causes = list(_causes(error))
        ours = next((cause for cause in causes if isinstance(cause, WarehouseError)), None)
        if ours is not None:
            raise ours from None
        system = next((cause.strerror for cause in causes if isinstance(cause, OSError) and cause.strerror), None)
        if system is not None:
            mend = "free some space or mend the permissions of WAREHOUSE_HOME; run again"
            raise StepFailed(f"{source}: {system} while loading.", mend=mend) from None
        said = scrub(str(causes[-1])).strip().splitlines() or [type(causes[-1]).__name__]
        raise StepFailed(f"{source}: loading failed: {said[0]}", mend="run again; what was read is kept and will be finished first") from None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error and what caused it, the first cause last."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__ or getattr(cause, "client_exception", None) or cause.__context__
