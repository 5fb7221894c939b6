"""Storage: opens the warehouse, on the embedded DuckDB file or on MotherDuck, always in UTC."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from warehouse.errors import LeaseHeld, StepFailed, UsageError
from warehouse.settings import settings

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

CATALOG = "warehouse"
"""The catalog's alias on every storage; model SQL leaves it out."""

NEVER_LOADED = '{"never_loaded": true}'
"""The comment of a raw table that a build made, empty, for the models of a source never loaded; a load replaces it."""


def extension_folder() -> Path:
    """Where DuckDB looks for extensions: inside the home, never in the user's own folder."""
    return settings().home / "duckdb_extensions"


def duckdb_config() -> "dict[str, str | bool | int | float | list[str]]":
    """The options of every DuckDB connection: bounded memory, no downloads, spill files inside the home."""
    now = settings()
    return {
        "memory_limit": now.memory_limit,
        "threads": str(now.threads),
        "temp_directory": str(now.home / "tmp"),
        "extension_directory": str(extension_folder()),
        "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "true",
        # Rows have no order of their own in a table; without keeping one, files are read and written by all threads at once.
        "preserve_insertion_order": "false",
    }


def load_extension(connection: "DuckDBPyConnection", name: str) -> None:
    """Load a DuckDB extension from its installed wheel; nothing is downloaded.

    Raises:
        StepFailed: the wheel is not installed, or is for another DuckDB version.
    """
    import duckdb
    from duckdb_extensions import import_extension

    try:
        connection.execute(f"LOAD {name}")
    except duckdb.Error:
        try:
            import_extension(name, con=connection)
            connection.execute(f"LOAD {name}")
        except (ImportError, duckdb.Error) as error:
            raise StepFailed(
                f"DuckDB's extension {name} cannot be loaded: {str(error).splitlines()[0]}",
                mend="`make setup` installs the extension wheels that match this DuckDB version",
            ) from None


def scratch(*, may_spill: bool = False) -> "DuckDBPyConnection":
    """A DuckDB connection in memory that never spills to disk, since personal data passes through it; unless what passes is pseudonymised."""
    import duckdb

    settings().home.mkdir(parents=True, exist_ok=True)
    connection = duckdb.connect(":memory:", config=duckdb_config() if may_spill else {**duckdb_config(), "temp_directory": ""})
    in_utc(connection)
    return connection


@contextmanager
def open_warehouse(*, read_only: bool = False, file: Path | None = None) -> Iterator["DuckDBPyConnection"]:
    """Open the warehouse as its writer (hold the lease) or, when nobody writes, read-only.

    Args:
        file: another home's DuckDB file, of the same name; this home's, or MotherDuck, unless given.

    Raises:
        LeaseHeld: another process has the file open.
        StepFailed: the file is damaged, the disk is full, or MotherDuck cannot be reached.
        UsageError: a setting of the storage is missing.
    """
    import duckdb

    now = settings()
    try:
        connection = _connect_motherduck() if now.storage == "motherduck" and file is None else _connect_file(file or now.warehouse_file, read_only)
    except duckdb.IOException as error:
        if "lock" in str(error):
            raise LeaseHeld(
                "another process has the warehouse file open.",
                mend="wait for it to end; read from the published copy instead, it is never locked",
            ) from None
        raise StepFailed(f"the warehouse cannot be opened: {error}", mend="`warehouse doctor` says more") from None
    try:
        in_utc(connection)
        yield connection
    finally:
        connection.close()


def exists() -> bool:
    """Whether there is a warehouse to open (MotherDuck always has one)."""
    return settings().storage == "motherduck" or settings().warehouse_file.exists()


def require_free_space(megabytes: int) -> None:
    """Refuse to begin what a full disk would stop half-way.

    Raises:
        StepFailed: less than that is free where the home is.
    """
    home = settings().home
    home.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(home).free // 1_000_000
    if free < megabytes:
        raise StepFailed(
            f"the disk of WAREHOUSE_HOME ({home}) is nearly full: {free} MB free, at least {megabytes} MB are needed.",
            mend="free some space or move WAREHOUSE_HOME; nothing was changed",
        )


def _connect_file(file: Path, read_only: bool) -> "DuckDBPyConnection":
    import duckdb

    if read_only and not file.exists():
        raise StepFailed(f"there is no warehouse yet at {file}.", mend="`warehouse run` makes it")
    file.parent.mkdir(parents=True, exist_ok=True)
    return duckdb.connect(str(file), read_only=read_only, config=duckdb_config())


def _connect_motherduck() -> "DuckDBPyConnection":
    import duckdb

    now = settings()
    token = now.motherduck_token.get_secret_value() if now.motherduck_token else ""
    if token in ("", "None"):  # a missing variable becomes the string 'None' on some ways into the environment
        raise UsageError("MOTHERDUCK_TOKEN is not set, and WAREHOUSE_STORAGE is motherduck.", mend="create a token in MotherDuck and export it")
    os.environ.setdefault("MOTHERDUCK_TOKEN", token)  # DuckDB's client reads it there; never in SQL text
    connection = duckdb.connect(":memory:", config=duckdb_config())
    load_extension(connection, "motherduck")
    connection.execute(f"ATTACH 'md:{now.motherduck_database}' AS {CATALOG}")
    connection.execute(f"USE {CATALOG}")
    return connection


def in_utc(connection: "DuckDBPyConnection") -> None:
    """Let a connection read and write times in UTC."""
    load_extension(connection, "icu")
    connection.execute("SET TimeZone = 'UTC'")
