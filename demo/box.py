"""Opening and closing the company of a home: its server, its rows, and the file that tells the warehouse how to reach it."""

import secrets
import shutil
from collections.abc import Callable
from pathlib import Path

from demo.server import Server
from warehouse.errors import StepFailed, UsageError
from warehouse.files import write_atomically
from warehouse.settings import demo_env_file, reload

KEY_NAME = "PRIVACY__HMAC_KEY"
_OWN_WAREHOUSE = ("warehouse.duckdb", "landing")


def server_of(home: Path, *, fsync: bool = True) -> Server:
    """The server of the company in a home, running or not."""
    return Server(demo_env_file(home).parent.resolve() / "postgres", fsync)


def start(home: Path, *, fsync: bool = True, progress: Callable[[str], object] = lambda step: None) -> Server:
    """Open the company: start its server, fill it, and write its connection string and key for the warehouse.

    Does only what is still to be done; `progress` is told each longer step before it begins. `fsync=False` is for tests.

    Raises:
        UsageError: something this needs is not installed, or cannot work in this place.
        StepFailed: the server did not start or refused.
    """
    from demo.company import DATABASE, OWNER, READER, admit, fill

    if not demo_env_file(home).exists() and any((home / name).exists() for name in _OWN_WAREHOUSE):
        raise UsageError(
            f"WAREHOUSE_HOME ({home}) already holds a warehouse that the demo company did not fill; it is not touched.",
            mend="give the demo a folder of its own: WAREHOUSE_HOME=./demo-data make demo",
        )
    server = server_of(home, fsync=fsync)
    if not server.is_running():
        progress("starting PostgreSQL")
        server.ensure_running()
    with server.lock():
        if not _is_open(home, server):
            progress("filling the company with 69,659 purchases")
            admit(server)
            fill(server.url(OWNER, DATABASE))
        _write_env(home, server.url(READER, DATABASE))
    return server


def owner_url(home: Path) -> str:
    """The connection string of the company's own user, who may change everything in it.

    Raises:
        StepFailed: the company was never started.
    """
    from demo.company import DATABASE, OWNER

    return server_of(home).url(OWNER, DATABASE)


def stop(home: Path) -> bool:
    """Close the company; what it holds stays. True if it was open."""
    return server_of(home).stop()


def reset(home: Path) -> bool:
    """Close the company and delete it with its key and all that the warehouse loaded from it. True if there was one.

    The whole home goes: it can hold nothing else, since `start` refuses a home with a warehouse of one's own and loading
    refuses another database in the demo's home. Pseudonyms made with the old key would match nobody.
    """
    stop(home)
    if not demo_env_file(home).parent.exists():
        return False
    for entry in home.iterdir():
        if entry != demo_env_file(home).parent:
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
    # The folder with the connection string goes last: as long as it is there, a repetition finishes a killed reset.
    shutil.rmtree(demo_env_file(home).parent)
    reload()
    return True


def _is_open(home: Path, server: Server) -> bool:
    from demo.company import DATABASE, READER, is_filled

    if not demo_env_file(home).exists():
        return False
    try:
        return is_filled(server.url(READER, DATABASE))
    except StepFailed:  # somebody removed the cluster but not the file: make it anew
        return False


def _write_env(home: Path, credentials: str) -> None:
    """The key is made once: another one would turn every pseudonym in the warehouse into a stranger's."""
    file = demo_env_file(home)
    before = file.read_text() if file.exists() else ""
    key = next((line.partition("=")[2] for line in before.splitlines() if line.startswith(f"{KEY_NAME}=")), secrets.token_hex(32))
    after = f"SOURCES__POSTGRES__CREDENTIALS={credentials}\n{KEY_NAME}={key}\nPRIVACY__HMAC_KEY_ID=demo\n"
    if after != before:
        write_atomically(file, after, mode=0o600)
        reload()
