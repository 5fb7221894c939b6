"""The lease: one writer at a time, released by the kernel or the database server when its holder dies.

Embedded storage takes a lock on a file of `WAREHOUSE_HOME`. Shared storage (MotherDuck) has writers on several
machines, so the lock is an advisory lock in the PostgreSQL that holds SQLMesh's state.
"""

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import IO

from warehouse.clock import now
from warehouse.errors import LeaseHeld, StepFailed, UsageError
from warehouse.settings import settings

ADVISORY_LOCK = 0x57_41_52_45_48_4F_55_53
"""One number for every machine: "WAREHOUS" in ASCII."""

REFUSED = "is writing this warehouse"
"""What a run that was turned away says in the ledger."""

_ASKED, _INSTANT = 3, 0.01
_held_here = False


@contextmanager
def lease(purpose: str) -> Iterator[None]:
    """Be the warehouse's only writer while inside; nested use in one process is the same lease.

    Raises:
        LeaseHeld: another process holds it; the message says which and since when.
    """
    global _held_here
    if _held_here:
        yield
        return
    take = _file_lock if settings().storage == "duckdb" else _database_lock
    with take(purpose):
        _held_here = True
        try:
            yield
        finally:
            _held_here = False


def is_free() -> bool:
    """Whether nobody on this machine writes now. The answer may be old by the time it is read."""
    path = _path()
    if not path.exists():
        return True
    with path.open("r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def held_since() -> datetime | None:
    """Since when somebody on this machine has been writing, by the one clock; None when nobody is."""
    if is_free():
        return None
    try:
        return datetime.fromisoformat(json.loads(_path().read_text())["since"])
    except (OSError, ValueError, KeyError):
        return now()  # it is just being taken


def _taken(file: IO[str]) -> bool:
    """Take the lock; asked again for an instant, because `is_free` takes it for as long as it looks."""
    for _ in range(_ASKED):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_INSTANT)
        else:
            return True
    return False


def _path() -> Path:
    return settings().home / "lease.lock"


@contextmanager
def _file_lock(purpose: str) -> Iterator[None]:
    path = _path()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        if not _taken(file):
            file.seek(0)
            raise LeaseHeld(
                f"another process {REFUSED}{_holder(file.read())}.",
                mend="wait for it to end (`warehouse status` shows it) and run again; a killed process frees the lease by itself",
            )
        file.seek(0)
        file.truncate()
        file.write(json.dumps({"pid": os.getpid(), "purpose": purpose, "since": now().isoformat(timespec="seconds")}))
        file.flush()
        yield


@contextmanager
def _database_lock(purpose: str) -> Iterator[None]:
    import psycopg2

    given = settings().state_credentials
    if given is None:
        raise UsageError(
            "WAREHOUSE_STATE_CREDENTIALS is not set: shared storage keeps its lease and SQLMesh's state in PostgreSQL.",
            mend="set it to the connection string of a small PostgreSQL of your own",
        )
    try:
        connection = psycopg2.connect(given.get_secret_value(), application_name=f"warehouse {purpose}", connect_timeout=10)
    except psycopg2.OperationalError as error:
        raise StepFailed(f"the state database cannot be reached: {error}", mend="check WAREHOUSE_STATE_CREDENTIALS") from None
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_try_advisory_lock(%s)", (ADVISORY_LOCK,))
            row = cursor.fetchone()
            if row is None or not row[0]:
                raise LeaseHeld(
                    f"another machine {REFUSED}.",
                    mend="wait for it to end and run again; its connection to the state database ends with it",
                )
        yield
    finally:
        connection.close()


def _holder(text: str) -> str:
    try:
        holder = json.loads(text)
        return f": process {holder['pid']}, `warehouse {holder['purpose']}`, since {holder['since']}"
    except (ValueError, KeyError):
        return ""
