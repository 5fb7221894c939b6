"""What the tests share: a home of their own, and a real PostgreSQL with the demo company in it."""

import gc
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg2
import pytest
from integration.object_stores import Backups, S3Server, s3_server

from demo import box
from demo.company import DATABASE, OWNER, READER
from demo.server import Server
from warehouse import ledger, storage
from warehouse import settings as settings_module
from warehouse.errors import WarehouseError
from warehouse.settings import ROOT

if TYPE_CHECKING:
    from pipelines.load import Loaded

gc.set_threshold(50_000, 20, 50)  # as the command does
KEY = "a key of the tests, longer than thirty-two characters"
WAREHOUSE = Path(sys.executable).parent / "warehouse"


@dataclass
class Company:
    """A database of the demo company that one test may change."""

    server: Server
    database: str

    @property
    def reader_url(self) -> str:
        """What the warehouse is given."""
        return self.server.url(READER, self.database)

    @property
    def owner_url(self) -> str:
        """What the company itself uses."""
        return self.server.url(OWNER, self.database)

    def execute(self, *statements: str) -> None:
        """Run statements as the company, in one transaction."""
        with closing(psycopg2.connect(self.owner_url)) as connection, connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """What the company's own database answers."""
        with closing(psycopg2.connect(self.owner_url)) as connection, connection, connection.cursor() as cursor:
            cursor.execute(query)
            return cursor.fetchall()


def load_postgres() -> "dict[str, Loaded]":
    """Load in this process; returns what was loaded, by table."""
    from pipelines.load import load

    with ledger.run("load postgres") as run:
        return {one.table: one for one in load("postgres", run)}


def ask(query: str) -> list[tuple[Any, ...]]:
    """What the warehouse of this test answers."""
    with storage.open_warehouse() as connection:
        return connection.execute(query).fetchall()


def _without_settings(patch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("WAREHOUSE_", "SOURCES__", "PRIVACY__", "MOTHERDUCK_", "BACKUP__", "ALERTS__", "OTEL_", "TRACEPARENT")):
            patch.delenv(name)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty WAREHOUSE_HOME with a key for pseudonyms, and no source."""
    _without_settings(monkeypatch)
    folder = tmp_path / "home"
    monkeypatch.setenv("WAREHOUSE_HOME", str(folder))
    monkeypatch.setenv("PRIVACY__HMAC_KEY", KEY)
    settings_module.reload()
    yield folder
    settings_module.reload()


@pytest.fixture(scope="session")
def built_empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home in which every model was built once, some years ago, and nothing was ever loaded; to be copied, not changed."""
    from transform.build import build

    folder = tmp_path_factory.mktemp("built_empty") / "home"
    with pytest.MonkeyPatch.context() as patch:
        _without_settings(patch)
        patch.setenv("WAREHOUSE_HOME", str(folder))
        patch.setenv("WAREHOUSE_NOW", "1997-01-01T00:00:00+00:00")
        settings_module.reload()
        build()
    settings_module.reload()
    return folder


@pytest.fixture
def built(built_empty: Path, home: Path) -> Path:
    """The home of this test, with every model built: a first build takes a quarter of a minute."""
    shutil.copytree(built_empty, home)
    settings_module.reload()
    return home


@pytest.fixture
def setting(monkeypatch: pytest.MonkeyPatch, home: Path) -> Callable[[str, str | None], None]:
    """Set or unset one setting for this test."""

    def change(name: str, value: str | None) -> None:
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
        settings_module.reload()

    return change


@pytest.fixture(scope="session")
def company_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One PostgreSQL a test process, with the filled company as a template."""
    folder = tmp_path_factory.mktemp("company")
    server = box.start(folder, fsync=False, stand_ins=False)
    settings_module.reload()
    yield server
    box.stop(folder)


@pytest.fixture
def company(company_server: Server, setting: Callable[[str, str | None], None], request: pytest.FixtureRequest) -> Iterator[Company]:
    """A copy of the company for one test, and the warehouse's settings pointing at it."""
    name = f"shop_{os.getpid()}_{abs(hash(request.node.nodeid)) % 10**8}"
    with closing(psycopg2.connect(company_server.url())) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(f'CREATE DATABASE "{name}" TEMPLATE "{DATABASE}" OWNER "{OWNER}"')
            cursor.execute(f'GRANT CONNECT ON DATABASE "{name}" TO "{READER}"')
        copy = Company(company_server, name)
        setting("SOURCES__POSTGRES__CREDENTIALS", copy.reader_url)
        yield copy
        with connection.cursor() as cursor:
            cursor.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@dataclass
class Ran:
    """What a command did."""

    code: int
    out: str
    err: str


def call(*arguments: str, script: str | None = None, wait: bool = True, stdin: str | None = None, **environment: str) -> Any:
    """Run `warehouse …` (or a Python script that calls it) in a process of its own, as an operator would.

    Returns:
        `Ran`, or with `wait=False` the running process.
    """
    command = [sys.executable, "-c", script, *arguments] if script else [str(WAREHOUSE), *arguments]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, **environment},
        stdin=subprocess.PIPE if stdin is not None else None,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    if not wait:
        return process
    out, err = process.communicate(stdin, timeout=180)
    return Ran(process.returncode, out, err)


@pytest.fixture
def fails() -> Callable[..., WarehouseError]:
    """Call something that must raise one of our errors; returns it."""

    def check(function: Callable[..., Any], *arguments: Any, **named: Any) -> WarehouseError:
        with pytest.raises(WarehouseError) as raised:
            function(*arguments, **named)
        return raised.value

    return check


@pytest.fixture
def declare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], None]:
    """Put another `pipelines/postgres.yaml` in force for this test."""

    def write(text: str) -> None:
        from pipelines import postgres, source

        folder = tmp_path / "declared"
        folder.mkdir(exist_ok=True)
        (folder / "postgres.py").touch()
        (folder / "postgres.yaml").write_text(text)
        monkeypatch.setattr(source, "FOLDER", folder)
        monkeypatch.setattr(postgres, "FOLDER", folder)
        from privacy import policy

        (folder / "policy.yaml").write_text("columns:\n  postgres.users:\n    email: {class: email, action: hmac}\n")
        if "users" not in text and "shop.*" not in text:
            (folder / "policy.yaml").write_text("columns: {}\n")
            monkeypatch.setattr(policy, "POLICY_FILE", folder / "policy.yaml")

    return write


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """One S3 server a test process."""
    with s3_server(tmp_path_factory.mktemp("s3") / "server") as server:
        yield server


@pytest.fixture
def backups(s3: S3Server, home: Path, tmp_path: Path, setting: Callable[[str, str | None], None]) -> Backups:
    """Two empty buckets, set up, as the stores of this test's home. Nothing is locked."""
    from backup.store import stores

    made = Backups(tmp_path, s3, s3)
    for name, value in made.settings.items():
        setting(name, value)
    for store in stores().values():
        store.set_up()
    made.write(lock_days=None)
    return made
