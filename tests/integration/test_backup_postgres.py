"""Production is dumped without touching this disk, restored equal into a new database, and no half dump passes for a whole one."""

import os
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from conftest import Company
from integration.object_stores import Backups

from backup import manifest, postgres
from backup.drill import drill_postgres
from backup.encryption import Damaged
from backup.postgres import connected, fingerprints, take_postgres
from backup.restore import Choice, Restored
from backup.restore_postgres import restore_postgres
from backup.store import stores
from backup.verify import verify
from cli.main import cli
from demo.binaries import programs
from demo.company import OWNER, READER
from privacy import erasures
from privacy.subjects import tag
from warehouse import clock
from warehouse.errors import StepFailed, UsageError, WarehouseError

Fails = Callable[..., WarehouseError]
Setting = Callable[[str, str | None], None]
POLICY = "{every: 1h, keep: 7d, stores: [a, b]}"
AWKWARD = (
    'CREATE SCHEMA "odd schema"',
    'CREATE TABLE "odd schema"."odd ""table" (id bigint PRIMARY KEY, amount numeric, at timestamptz, note text, raw bytea, doc jsonb, many int[], rate float8)',
    """INSERT INTO "odd schema"."odd ""table"
       SELECT i, i / 7.0, 'epoch'::timestamptz + i * interval '1 day 1 us', repeat('ä
''"\', i % 50), decode(md5(i::text), 'hex'),
       jsonb_build_object('i', i), ARRAY[i, NULL], sqrt(i) FROM generate_series(1, 500) i""",
    "CREATE TABLE parted (id int, at date) PARTITION BY RANGE (at)",
    "CREATE TABLE parted_2025 PARTITION OF parted FOR VALUES FROM ('2025-01-01') TO ('2026-01-01')",
    "INSERT INTO parted SELECT i, date '2025-01-01' + i FROM generate_series(1, 100) i",
    "CREATE TABLE empty ()",
)


@pytest.fixture
def production(company: Company, backups: Backups, setting: Setting, monkeypatch: pytest.MonkeyPatch) -> Iterator[Company]:
    """The company with awkward tables, backed up as a role that may read everything; a name for the restored one."""
    monkeypatch.setenv("PATH", f"{programs()}{os.pathsep}{os.environ['PATH']}")
    backups.write(lock_days=None, postgres=POLICY)
    company.execute(*AWKWARD)
    with closing(psycopg2.connect(company.server.url(database=company.database))) as connection, connection, connection.cursor() as cursor:
        cursor.execute(f"GRANT pg_read_all_data TO {READER}")
    setting("BACKUP__POSTGRES_TARGET", company.server.url(database=f"back_{company.database}"))
    yield company
    _as_root(company, f"REVOKE pg_read_all_data FROM {READER}")
    _as_root(company, f'DROP DATABASE IF EXISTS "back_{company.database}" WITH (FORCE)')
    assert not [name for name in _databases(company) if name.startswith(("restoring_", "back_"))]


def _as_root(company: Company, statement: str) -> None:
    with closing(psycopg2.connect(company.server.url())) as connection:
        connection.autocommit = True
        connection.cursor().execute(statement)


def _databases(company: Company) -> list[str]:
    with closing(psycopg2.connect(company.server.url())) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT datname FROM pg_database")
        return [row[0] for row in cursor.fetchall()]


def _restore(company: Company, **given: Any) -> Restored:
    choice = Choice("postgres")
    return restore_postgres(choice, choice.at(clock.now()), company.server.url(database=f"back_{company.database}"), **given)


def test_a_dump_comes_back_equal_with_owners_into_a_new_database_only(production: Company, backups: Backups, home: Path, fails: Fails) -> None:
    taken = take_postgres()
    assert taken.stores == ["a", "b"]
    assert not taken.failed
    assert taken.backup.tables['odd schema.odd "table'].rows == 500
    assert {"public.parted_2025", "public.empty"} < set(taken.backup.tables)
    assert "public.parted" not in taken.backup.tables, "its rows are counted once"
    assert verify("postgres", everything=True).problems == []
    production.execute("DELETE FROM parted")
    done = _restore(production)
    back = production.server.url(database=f"back_{production.database}")
    with connected(back) as connection:
        assert fingerprints(connection) == taken.backup.tables
        with connection.cursor() as cursor:
            cursor.execute("SELECT DISTINCT tableowner FROM pg_tables WHERE tablename = 'empty'")
            assert cursor.fetchall() == [(OWNER,)]
    assert done.tables == len(taken.backup.tables)
    assert "roles have no passwords" in done.notes[-1]
    assert isinstance(fails(_restore, production), UsageError), "there is such a database now"
    assert list((home / "backup").rglob("*")) == []


def test_nothing_plain_reaches_the_disk_or_a_store_and_no_password_an_argument(
    production: Company, backups: Backups, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    popen, commands = postgres.subprocess.Popen, []

    def watching(command: list[str], **given: object) -> object:
        commands.append(command)
        return popen(command, **given)

    monkeypatch.setattr(postgres.subprocess, "Popen", watching)
    take_postgres()
    password = production.server.password(READER)
    assert len(commands) == 2
    assert not [word for command in commands for word in command if password in word]
    (email,) = production.rows("SELECT email FROM shop.users WHERE email IS NOT NULL LIMIT 1")[0]
    files = [path for path in home.rglob("*") if path.is_file()]
    client = backups.servers["a"].client()
    held = [client.get_object(Bucket=backups.buckets["a"], Key=key)["Body"].read() for key in backups.keys("a")]
    for content in (*(path.read_bytes() for path in files), *held):
        assert email.encode() not in content


def test_the_dump_and_its_fingerprints_show_one_snapshot(production: Company, monkeypatch: pytest.MonkeyPatch) -> None:
    new_id = postgres.manifest.new_id

    def trading(at: datetime) -> str:
        """Between the snapshot and the start of pg_dump."""
        production.execute("DELETE FROM parted WHERE id % 2 = 0", "CREATE TABLE IF NOT EXISTS later (id int)")
        return new_id(at)

    monkeypatch.setattr(postgres.manifest, "new_id", trading)
    assert take_postgres().backup.tables["public.parted_2025"].rows == 100
    assert _restore(production).tables


def test_a_dump_that_fails_or_is_cut_off_is_none(production: Company, fails: Fails, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _as_root(production, f"REVOKE pg_read_all_data FROM {READER}")
    error = fails(take_postgres)
    assert "permission denied" in error.what
    assert "pg_read_all_data" in error.mend
    _as_root(production, f"GRANT pg_read_all_data TO {READER}")
    half = tmp_path / "pg_dump"
    half.write_text(f'#!/bin/sh\n{programs() / "pg_dump"} "$@" | head -c 3000\nexit 1\n')
    half.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert isinstance(fails(take_postgres), StepFailed)
    assert not manifest.listed(stores()["a"], "postgres")
    assert stores()["a"].held("postgres/packs/") == {}
    monkeypatch.setenv("PATH", "")
    assert "pg_dump is not in PATH" in fails(take_postgres).what


def test_what_is_damaged_or_not_equal_gets_no_name(production: Company, backups: Backups, fails: Fails, monkeypatch: pytest.MonkeyPatch) -> None:
    backup = take_postgres().backup
    name = f"back_{production.database}"
    table = backup.tables["shop.users"]
    forged = backup.model_copy(update={"tables": {**backup.tables, "shop.users": table.model_copy(update={"fingerprint": "1"})}})
    with monkeypatch.context() as patched:
        patched.setattr(Choice, "read", lambda self, id_: forged)
        assert "shop.users" in fails(_restore, production).what
        patched.setattr(Choice, "read", lambda self, id_: backup.model_copy(update={"erasures": "7:"}))
        assert "the ledger of erasures is missing" in fails(_restore, production).what
        assert name not in _databases(production)
    (dump,) = backups.keys("a", ".dump.zst.age")[:1]
    backups.flip("a", dump)
    erasures.finish(erasures.begin([tag("postgres", "7")], []))
    done = _restore(production)
    assert done.stores == ["a", "b"]
    assert "erased again: 1 rows of shop.users" in done.notes
    with closing(psycopg2.connect(production.server.url(database=name))) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FILTER (WHERE id = 7), count(*) > 1 FROM shop.users WHERE coalesce(email, 'erased_') LIKE 'erased%' OR id <> 7")
        assert cursor.fetchone() == (1, True), "the row stays, its personal columns do not"
        cursor.execute("SELECT count(*) FROM shop.users u WHERE id = 7 AND (phone NOT LIKE 'erased%' OR ssn NOT LIKE 'erased%')")
        assert cursor.fetchone() == (0,)
    _as_root(production, f'DROP DATABASE "{name}"')
    backups.flip("b", dump)
    assert isinstance(fails(_restore, production), Damaged)
    assert name not in _databases(production)


def test_a_drill_of_production_leaves_no_database_and_the_command_line_does_it_all(
    production: Company, backups: Backups, setting: Setting, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(*arguments: str) -> str:
        cli.main(list(arguments), standalone_mode=False)
        return capsys.readouterr().out

    before = set(_databases(production))
    assert "postgres" in said("backup", "run", "--due")
    assert "not due" in said("backup", "run", "postgres", "--due")
    assert [(one.failed, one.tables > 3) for one in drill_postgres(seed=1)] == [(None, True)]
    assert "equal" in said("drill")
    assert set(_databases(production)) == before
    assert "restored as the database" in said("restore", "postgres")
    setting("BACKUP__POSTGRES_TARGET", None)
    with pytest.raises(UsageError, match="BACKUP__POSTGRES_TARGET is not set"):
        said("restore", "postgres")
