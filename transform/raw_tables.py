"""The raw tables that models read (`external_models/<source>.yaml`), made empty where their source was never loaded.

So every model builds on every warehouse, and a source that is configured later finds its models waiting.
"""

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


def complete(connection: "DuckDBPyConnection") -> list[str]:
    """Create each declared raw table that was never loaded, empty and marked so that a load replaces it; returns their names.

    Raises:
        StepFailed: a table that was loaded lacks a declared column, so that no model could read it.
    """
    made, lacking = [], []
    for name, model in external_models().items():
        schema, table = name.split(".")
        held = _columns(connection, schema, table)
        if held and _comment(connection, schema, table) != NEVER_LOADED:
            lacking += [(schema.removeprefix("raw_"), f"{name}.{column}") for column in model.columns if column.lower() not in held]
        elif not held or held != _declared(connection, model):
            columns = ", ".join(f'"{column}" {kind}' for column, kind in model.columns.items())
            connection.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}")
            connection.begin()
            connection.execute(f"CREATE OR REPLACE TABLE {name} ({columns})")
            connection.execute(f"COMMENT ON TABLE {name} IS '{NEVER_LOADED}'")
            connection.commit()
            made.append(name)
    if lacking:
        source = lacking[0][0]
        raise StepFailed(
            f"raw tables lack columns that external_models/ declares: {', '.join(column for _, column in lacking)}.",
            mend=f"`warehouse load {source}` adds what the source has; what it does not have, take out of external_models/{source}.yaml and its models",
        )
    return made


def _columns(connection: "DuckDBPyConnection", schema: str, table: str) -> dict[str, str]:
    query = "SELECT lower(column_name), data_type FROM duckdb_columns() WHERE database_name = current_database() AND schema_name = ? AND table_name = ?"
    return dict(connection.execute(query, [schema, table]).fetchall())


def _declared(connection: "DuckDBPyConnection", model: ExternalModel) -> dict[str, str]:
    """The declared types as DuckDB spells them."""
    spelled = connection.execute("SELECT " + ", ".join(f"typeof(NULL::{kind})" for kind in model.columns.values())).fetchone() or ()
    return dict(zip((column.lower() for column in model.columns), spelled, strict=True))


def _comment(connection: "DuckDBPyConnection", schema: str, table: str) -> str | None:
    query = "SELECT comment FROM duckdb_tables() WHERE database_name = current_database() AND schema_name = ? AND table_name = ?"
    row = connection.execute(query, [schema, table]).fetchone()
    return row[0] if row else None
