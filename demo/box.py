"""Opening and closing the company of a home: its server, its rows, and the file that tells the warehouse how to reach it."""

import secrets
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from demo.server import Server
from demo.stand_ins.company import StandIns
from warehouse.errors import StepFailed, UsageError
from warehouse.files import write_atomically
from warehouse.settings import reload
from warehouse.source_settings import demo_env_file

KEY_NAME = "PRIVACY__HMAC_KEY"
_OWN_WAREHOUSE = ("warehouse.duckdb", "landing")


def server_of(home: Path, *, fsync: bool = True) -> Server:
    """The server of the company in a home, running or not."""
    return Server(demo_env_file(home).parent.resolve() / "postgres", fsync)


def stand_ins_of(home: Path) -> StandIns:
    """The APIs that the company of a home uses, running or not."""
    return StandIns(demo_env_file(home).parent.resolve() / "stand_ins")


def start(home: Path, *, fsync: bool = True, stand_ins: bool = True, progress: Callable[[str], object] = lambda step: None) -> Server:
    """Open the company: start its server and the APIs it uses, fill them, and write how the warehouse reaches them.

    Does only what is still to be done; `progress` is told each longer step before it begins. `fsync=False` is for tests,
    and so is `stand_ins=False`, which leaves the APIs out.

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
    with ThreadPoolExecutor(1) as beside:
        apis = beside.submit(stand_ins_of(home).ensure_running) if stand_ins else None
        if not server.is_running():
            progress("starting PostgreSQL")
            server.ensure_running()
        with server.lock():
            if not _is_open(home, server):
                progress("filling the company with 69,659 purchases")
                admit(server)
                fill(server.url(OWNER, DATABASE))
            if apis is not None:
                apis.result()
            _write_env(home, server.url(READER, DATABASE), stand_ins_of(home).environment() if apis is not None else {})
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
    stopped = [stand_ins_of(home).stop(), server_of(home).stop()]
    return any(stopped)


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


def _write_env(home: Path, credentials: str, of_apis: Mapping[str, str]) -> None:
    """The key is made once: another one would turn every pseudonym in the warehouse into a stranger's."""
    file = demo_env_file(home)
    before = dict(line.split("=", 1) for line in file.read_text().splitlines()) if file.exists() else {}
    fixed = {"SOURCES__POSTGRES__CREDENTIALS": credentials, KEY_NAME: before.get(KEY_NAME) or secrets.token_hex(32), f"{KEY_NAME}_ID": "demo"}
    after = fixed | (dict(of_apis) or {name: value for name, value in before.items() if name not in fixed})
    content = "".join(f"{name}={value}\n" for name, value in after.items())
    if not file.exists() or file.read_text() != content:
        write_atomically(file, content, mode=0o600)
        reload()
