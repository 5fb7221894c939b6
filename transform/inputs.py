"""What a build is made of: the models' code, the day, and the content of each raw table and of each table built before.

After a build that succeeded they are noted in `ops.built_from`; the next build leaves alone what none of them can change.
Every row counts, by its hash, so a row that somebody corrected by hand, or a fact that vanished, is seen as well as what was
loaded. The day is an input because audits and reports may ask for it: everything is built and audited once a day at least.
"""

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from transform.raw_tables import external_models
from warehouse import clock
from warehouse.settings import settings
from warehouse.sql import quoted

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_CODE = ("config.yaml", "models", "macros", "audits", "external_models", "privacy/policy.yaml")
"""What a plan reads; the policy says which purposes a model may ask consent for."""
_ENGINES = ("sqlmesh", "sqlglot", "duckdb")
_RAW, _BUILT = "raw_", "sqlmesh__"
"""What the schemas of the tables begin with: those of the loads, and those in which SQLMesh keeps what it built."""


_UNKNOWN = ""


@dataclass(frozen=True)
class Changed:
    """What differs from the last build.

    Attributes:
        code: whether the project's files do, so that a plan is needed.
        tables: those whose content differs; None where everything has to be built: another day, or no build that succeeded.
    """

    code: bool
    tables: set[str] | None

    def __bool__(self) -> bool:
        return self.code or self.tables is None or bool(self.tables)


EVERYTHING = Changed(code=True, tables=None)


@dataclass(frozen=True)
class Inputs:
    """The state of everything that a build depends on.

    Attributes:
        code: hash of the models' files and of the engines' versions.
        day: the UTC day.
        tables: schema.table, raw or built -> its columns, row count and content hash, as one text.
    """

    code: str
    day: str
    tables: dict[str, str]

    @classmethod
    def now(cls, connection: "DuckDBPyConnection", project: Path) -> "Inputs":
        """What the project's folder and the warehouse hold now. Reads every row once, some ten million a second."""
        return cls(_code(project), clock.now().date().isoformat(), _raw(connection) | _content(connection, _BUILT))

    def forget(self, connection: "DuckDBPyConnection", changed: "Changed") -> None:
        """Before a build: what it is about to change is not known again until it succeeds.

        A killed build may have built from content that is taken back before the next one; remembered, that would pass for unchanged.
        """
        _create(connection)
        if changed.code or changed.tables is None:
            connection.execute("DELETE FROM ops.built_from")
        else:
            for table in changed.tables:
                connection.execute("DELETE FROM ops.built_from WHERE input = ?", [table])
                connection.execute("INSERT INTO ops.built_from VALUES (?, ?)", [table, _UNKNOWN])

    def remember(self, connection: "DuckDBPyConnection") -> None:
        """After a build that succeeded: what it was made of, and what it made."""
        raw = {table: state for table, state in self.tables.items() if table.startswith(_RAW)}
        rows = [["code", self.code], ["day", self.day], *([table, state] for table, state in (raw | _content(connection, _BUILT)).items())]
        _create(connection)
        connection.begin()
        connection.execute("DELETE FROM ops.built_from")
        connection.executemany("INSERT INTO ops.built_from VALUES (?, ?)", rows)
        connection.commit()

    def changed(self, connection: "DuckDBPyConnection") -> "Changed":
        """What differs from what the last build was made of, and left."""
        _create(connection)
        built_from = dict(connection.execute("SELECT input, state FROM ops.built_from").fetchall())
        code, day = built_from.pop("code", None), built_from.pop("day", None)
        if code is None:
            return EVERYTHING
        if day != self.day:
            return Changed(code != self.code, None)
        tables = {table for table in self.tables.keys() | built_from.keys() if self.tables.get(table) != built_from.get(table)}
        # What a review built is none of production's tables until a plan takes it over.
        return Changed(code != self.code, {table for table in tables if table in built_from or table.startswith(_RAW)})


def _create(connection: "DuckDBPyConnection") -> None:
    connection.execute("CREATE SCHEMA IF NOT EXISTS ops")
    connection.execute("CREATE TABLE IF NOT EXISTS ops.built_from (input VARCHAR, state VARCHAR)")


def _raw(connection: "DuckDBPyConnection") -> dict[str, str]:
    """The state of the raw tables that models read; what the loads keep beside them changes with every load."""
    read = external_models()
    return {table: state for table, state in _content(connection, _RAW).items() if table in read}


def _content(connection: "DuckDBPyConnection", prefix: str) -> dict[str, str]:
    """The state of every table in schemas of that prefix."""
    columns: dict[str, list[str]] = {}
    query = (
        "SELECT schema_name || '.' || table_name, column_name || ' ' || data_type FROM duckdb_columns() JOIN duckdb_tables() "
        "USING (database_name, schema_name, table_name) WHERE database_name = current_database() AND starts_with(schema_name, ?) ORDER BY 1, column_index"
    )
    for table, column in connection.execute(query, [prefix]).fetchall():
        columns.setdefault(table, []).append(column)
    states = {}
    for table, defined in columns.items():
        name = ".".join(quoted(part) for part in table.split(".", 1))
        content = connection.execute(f"SELECT count(*) || ':' || coalesce(bit_xor(hash(t)), 0) || ':' || coalesce(sum(hash(t)), 0) FROM {name} AS t").fetchone()
        states[table] = f"{content[0] if content else ''} {hashlib.sha256(repr(defined).encode()).hexdigest()[:16]}"
    return states


def _code(project: Path) -> str:
    digest = hashlib.sha256(repr([settings().storage, *((engine, _version(engine)) for engine in _ENGINES)]).encode())
    for name in _CODE:
        path = project / name
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file() and file.suffix != ".pyc":
                digest.update(repr((str(file.relative_to(project)), _hash_of(file, file.stat().st_mtime_ns, file.stat().st_size))).encode())
    return digest.hexdigest()


@cache
def _version(engine: str) -> str:
    return version(engine)


@cache
def _hash_of(file: Path, _modified: int, _size: int) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
