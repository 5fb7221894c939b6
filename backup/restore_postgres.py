"""Restoring production: into a database that does not exist yet, under another name until it was found equal."""

import os
import re
import secrets
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backup import snapshot
from backup.encryption import identities
from backup.erase_again import erase_again
from backup.manifest import Manifest
from backup.postgres import DUMP, GLOBALS, connected, environment, fingerprints, program, target
from backup.restore import Choice, Restored, require_room, required, unpack_all
from warehouse.connection_string import parameters
from warehouse.console import progress
from warehouse.errors import StepFailed, UsageError, scrub
from warehouse.settings import settings
from warehouse.sql import quoted

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

_MAINTENANCE = "postgres"
_LOADING = " -c synchronous_commit=off -c maintenance_work_mem=256MB"
"""Nothing is lost by it: a database that was not loaded whole does not get its name, and what follows is flushed before it does."""


def given_target() -> str:
    """The connection string of the database that a restore makes.

    Raises:
        UsageError: it is not set, or names no database.
    """
    given = settings().backup.postgres_target
    text = given.get_secret_value() if given else ""
    if not text or not parameters(text).get("dbname"):
        raise UsageError(
            "BACKUP__POSTGRES_TARGET is not set: no server to restore to.",
            mend="start a fresh server, and set it to a connection string of a superuser with the name that the database is to have",
        )
    return text


def restore_postgres(choice: Choice, backup: str, text: str) -> Restored:
    """Restore a dump into a new database; it gets its name when it was found equal and without whoever was erased, and before that nobody can connect by it.

    Args:
        text: the connection string of the database to make, of a user who may make databases and roles.

    Raises:
        UsageError: the private key is not set, the database exists, or pg_restore is missing. WrongKey: it is another key.
        Damaged, StoreFailed: no store has something whole. StepFailed: what was restored is not equal, the server refuses, or the
            ledger of erasures is missing or older than what is known of it.
    """
    began = time.monotonic()
    keys, one, name = identities(), choice.read(backup), parameters(text)["dbname"]
    tool = program("pg_restore")
    marks = required(choice, backup)
    restored = Restored(one, Path(name))
    working = f"restoring_{secrets.token_hex(4)}"
    with connected(_database(text, _MAINTENANCE)) as server, _folder() as folder:
        server.autocommit = True
        if _asked(server, "SELECT 1 FROM pg_database WHERE datname = %s", name):
            what = f"there is a database {name} on that server: a backup is only restored into a fresh place."
            raise UsageError(what, mend="name another, or a fresh server")
        require_room(folder, one.bytes)
        unpack_all(choice, one, folder, keys, restored)
        restored.notes += _make_roles(server, (folder / GLOBALS).read_text(encoding="utf-8"))
        _run(server, f"CREATE DATABASE {quoted(working)} TEMPLATE template0 ENCODING 'UTF8'")
        try:
            _load(tool, folder / DUMP, _database(text, working))
            _compare(one, _database(text, working), restored)
            restored.notes += erase_again(_database(text, working), marks)
            _run(server, "CHECKPOINT")
            _run(server, f"ALTER DATABASE {quoted(working)} RENAME TO {quoted(name)}")
        except BaseException:
            _run(server, f"DROP DATABASE IF EXISTS {quoted(working)} WITH (FORCE)")
            raise
    restored.notes = [*dict.fromkeys([*choice.notes, *restored.notes])]
    restored.seconds = time.monotonic() - began
    return restored


def drop(text: str) -> None:
    """Drop a database that a drill made."""
    with connected(_database(text, _MAINTENANCE)) as server:
        server.autocommit = True
        _run(server, f"DROP DATABASE IF EXISTS {quoted(parameters(text)['dbname'])} WITH (FORCE)")


def renamed(text: str, suffix: str) -> str:
    """The same server, and a database of a longer name."""
    return _database(text, parameters(text)["dbname"] + suffix)


def _database(text: str, name: str) -> str:
    return target({**parameters(text), "dbname": name})


@contextmanager
def _folder() -> Iterator[Path]:
    """A folder only we can read, for the dump on its way: the server that is restored to needs the room anyway."""
    folder = snapshot.folder() / "restore"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, mode=0o700)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _make_roles(server: "Connection", script: str) -> list[str]:
    """Make the roles that own and use what is restored; those that exist stay. Returns what the server refused."""
    import psycopg2

    refused = []
    for statement in re.findall(r"^((?:CREATE|ALTER) ROLE .*|GRANT .*);$", script, re.MULTILINE):
        try:
            with server.cursor() as cursor:
                cursor.execute(statement)
        except psycopg2.errors.DuplicateObject:
            continue
        except psycopg2.Error as error:
            refused.append(f"not done: {' '.join(statement.split()[:3])}: {scrub(str(error)).splitlines()[0]}")
    return [*refused, "roles have no passwords: set them, or the applications cannot connect"]


def _load(tool: str, dump: Path, text: str) -> None:
    arguments = target({key: value for key, value in parameters(text).items() if "password" not in key})
    jobs = max(2, min(8, os.cpu_count() or 2))
    command = [tool, f"--jobs={jobs}", "--exit-on-error", "--no-password", f"--dbname={arguments}", str(dump)]
    given = environment(text)
    given["PGOPTIONS"] += _LOADING
    with progress("pg_restore"):
        ran = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, env=given, check=False)
    if ran.returncode != 0:
        said = [line for line in scrub(ran.stderr.decode(errors="replace")).splitlines() if "error" in line] or ["it failed without a word"]
        raise StepFailed(f"pg_restore: {said[0]}", mend="the target's user must be a superuser, its server of the same version or newer")


def _compare(one: Manifest, text: str, restored: Restored) -> None:
    with connected(text) as connection, progress("comparing"):
        tables = fingerprints(connection)
    wrong = sorted(name for name in {*tables, *one.tables} if tables.get(name) != one.tables.get(name))
    if wrong:
        raise StepFailed(f"what was restored is not what was backed up: {', '.join(wrong[:10])}.", mend="restore another backup: `--as-of`")
    restored.tables = len(tables)


def _asked(server: "Connection", query: str, *values: Any) -> Any:
    with server.cursor() as cursor:
        cursor.execute(query, values)
        return cursor.fetchone()


def _run(server: "Connection", statement: str) -> None:
    import psycopg2

    try:
        with server.cursor() as cursor:
            cursor.execute(statement)
    except psycopg2.Error as error:
        raise StepFailed(f"the server refused: {scrub(str(error)).splitlines()[0]}", mend="its user must be allowed to make databases") from None
