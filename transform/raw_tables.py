"""The raw tables that models read (`external_models/<source>.yaml`), made empty where their source was never loaded.

So every model builds on every warehouse, and a source that is configured later finds its models waiting.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, ConfigDict, Field, RootModel

from warehouse import declared
from warehouse.errors import DeclarationError, StepFailed
from warehouse.settings import ROOT
from warehouse.storage import NEVER_LOADED

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

FOLDER = ROOT / "external_models"
_Type = Annotated[str, Field(pattern=r"^[A-Za-z]\w*( [A-Za-z]+)*(\(\d+(, ?\d+)?\))?$")]


class ExternalModel(BaseModel):
    """One raw table, as SQLMesh reads it too: its name, and what models may read of it."""

    model_config = ConfigDict(extra="forbid")
    name: Annotated[str, Field(pattern=r"^raw_\w+\.\w+$")]
    description: str
    columns: Annotated[dict[str, _Type], Field(min_length=1)]


class _File(RootModel[list[ExternalModel]]):
    """One source's tables."""


def external_models(folder: Path = FOLDER) -> dict[str, ExternalModel]:
    """Every declared raw table, by name.

    Raises:
        DeclarationError: a file is wrong, or declares a table of another source than its name says.
    """
    found: dict[str, ExternalModel] = {}
    for path in sorted(folder.glob("*.yaml")):
        for model in declared.read(path, _File).root:
            if not model.name.startswith(f"raw_{path.stem}."):
                what = f"external_models/{path.name}: declares {model.name}; allowed: tables of raw_{path.stem}"
                raise DeclarationError(what, mend="move it to the file of its source")
            found[model.name] = model
    return found


@dataclass(frozen=True)
class RawTables:
    """What the warehouse has of the declared raw tables.

    Attributes:
        never_loaded: the sources of which no table was ever loaded.
        lacking: declared columns that a loaded table does not have, as raw_source.table.column.
    """

    never_loaded: set[str]
    lacking: list[str]


def complete(connection: "DuckDBPyConnection") -> RawTables:
    """Create each declared raw table that was never loaded, empty and marked so that a load replaces it; repeating it changes nothing."""
    held = _held(connection)
    loaded, lacking = set(), []
    for name, model in external_models().items():
        columns, comment = held.get(name, ({}, None))
        if columns and comment != NEVER_LOADED:
            loaded.add(_source_of(name))
            lacking += [f"{name}.{column}" for column in model.columns if column.lower() not in columns]
        elif columns != _declared(connection, model):
            definition = ", ".join(f'"{column}" {kind}' for column, kind in model.columns.items())
            connection.execute(f"CREATE SCHEMA IF NOT EXISTS {name.split('.')[0]}")
            connection.begin()
            connection.execute(f"CREATE OR REPLACE TABLE {name} ({definition})")
            connection.execute(f"COMMENT ON TABLE {name} IS '{NEVER_LOADED}'")
            connection.commit()
    return RawTables({_source_of(name) for name in external_models()} - loaded, lacking)


def lacking_error(error: StepFailed, lacking: list[str]) -> StepFailed:
    """A failed build, explained by the declared columns that raw tables lack."""
    source = _source_of(lacking[0])
    return StepFailed(
        f"{error.what}; external_models/ declares columns that were never loaded: {', '.join(lacking)}.",
        mend=f"`warehouse load {source}` adds what the source has; what it does not have, take out of external_models/{source}.yaml and its models",
    )


def _source_of(name: str) -> str:
    return name.split(".")[0].removeprefix("raw_")


def _held(connection: "DuckDBPyConnection") -> dict[str, tuple[dict[str, str], str | None]]:
    """The raw tables, name -> columns (lower case) and comment."""
    query = (
        "SELECT schema_name || '.' || table_name, comment FROM duckdb_tables() WHERE database_name = current_database() AND starts_with(schema_name, 'raw_')"
    )
    held: dict[str, tuple[dict[str, str], str | None]] = {name: ({}, comment) for name, comment in connection.execute(query).fetchall()}
    query = (
        "SELECT schema_name || '.' || table_name, lower(column_name), data_type FROM duckdb_columns() "
        "WHERE database_name = current_database() AND starts_with(schema_name, 'raw_')"
    )
    for name, column, kind in connection.execute(query).fetchall():
        held.get(name, ({}, None))[0][column] = kind
    return held


def _declared(connection: "DuckDBPyConnection", model: ExternalModel) -> dict[str, str]:
    """The declared columns with their types as DuckDB spells them."""
    spelled = connection.execute("SELECT " + ", ".join(f"typeof(NULL::{kind})" for kind in model.columns.values())).fetchone() or ()
    return dict(zip((column.lower() for column in model.columns), spelled, strict=True))
