"""With the receiver beside it, a server that is killed loses no acknowledged commit, and goes back to any instant between."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg2
import pytest
from conftest import call
from integration.object_stores import Backups

from backup.drill import drill_log
from backup.drill_log import Started
from backup.encryption import Damaged
from backup.log_kept import prefix, received_until, segments
from backup.postgres_log import _Archive, receive, system_of, take_base, wal_folder
from backup.restore import Choice, Restored
from backup.restore_log import restore_log
from backup.store import stores
from backup.verify import verify
from backup.watch import Watched, watch
from cli.main import cli
from demo.binaries import account, programs
from demo.server import Server
from warehouse import clock
from warehouse.errors import StepFailed, WarehouseError

Fails = Callable[..., WarehouseError]
Setting = Callable[[str, str | None], None]
PATIENCE = 60


def _execute(server: Server, *statements: str) -> None:
    with closing(psycopg2.connect(server.url())) as connection:
        connection.autocommit = True
        for statement in statements:
            connection.cursor().execute(statement)


def _asked(server: Server, query: str) -> list[tuple[object, ...]]:
    with closing(psycopg2.connect(server.url())) as connection, connection.cursor() as cursor:
        cursor.execute(query)
        return cursor.fetchall()


def _wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.fixture
def production(tmp_path: Path, backups: Backups, setting: Setting, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("PATH", f"{programs()}{os.pathsep}{os.environ['PATH']}")
    backups.write(lock_days=None, postgres_base="{every: 1d, keep: 7d, stores: [a, b]}")
    server = Server(tmp_path / "production", fsync=False)
    server.ensure_running()
    setting("BACKUP__POSTGRES", server.url())
    yield server
    with suppress(StepFailed):
        server.stop()


@pytest.fixture
def receiver(production: Server) -> "Iterator[subprocess.Popen[str]]":
    process = call("backup", "receive", wait=False)
    _wait(lambda: bool(_asked(production, "SELECT 1 FROM pg_stat_replication WHERE application_name = 'warehouse_backup'")))
    _execute(production, "ALTER SYSTEM SET synchronous_standby_names = 'warehouse_backup'", "SELECT pg_reload_conf()", "CREATE TABLE bookings (id int)")
    yield process
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=PATIENCE)


def _book(server: Server, first: int, count: int) -> list[tuple[int, datetime]]:
    """Commit so many rows one by one; returns each with the instant at which its commit was acknowledged."""
    acknowledged = []
    with closing(psycopg2.connect(server.url())) as connection:
        for number in range(first, first + count):
            with connection, connection.cursor() as cursor:
                cursor.execute("INSERT INTO bookings VALUES (%s)", (number,))
            acknowledged.append((number, datetime.now(UTC)))
    return acknowledged


def _late() -> list[Watched]:
    return [one for one in watch() if one.check == "log_age"]


def _kill(server: Server) -> None:
    process = server._process()
    assert process
    os.kill(process, signal.SIGKILL)


def _restored(into: Path, to: datetime | None = None, received: Path | None = None) -> Restored:
    choice = Choice("postgres_base")
    return restore_log(choice, choice.at(to or clock.now()), into, to, received)


def _bookings(into: Path, production: Server) -> set[int]:
    """Start the restored server, and ask it."""
    server = Server(into, fsync=False)
    shutil.copy2(production.folder / "secret", into / "secret")
    account(into, into / "data").owns(into)
    server.ensure_running()
    try:
        _wait(lambda: _asked(server, "SELECT pg_is_in_recovery()") == [(False,)])
        return {row[0] for row in _asked(server, "SELECT id FROM bookings")}
    finally:
        server.stop()


def test_no_acknowledged_commit_is_lost_and_any_instant_comes_back(
    production: Server, receiver: "subprocess.Popen[str]", backups: Backups, tmp_path: Path, fails: Fails
) -> None:
    base = take_base()
    assert base.stores == ["a", "b"]
    first = _book(production, 0, 50)
    _execute(production, "SELECT pg_switch_wal()")
    time.sleep(0.05)
    between = datetime.now(UTC)
    time.sleep(0.05)
    second = _book(production, 50, 50)
    ((last,),) = _asked(production, "SELECT pg_walfile_name(pg_current_wal_lsn())")
    _execute(production, "SELECT pg_switch_wal()")
    system = system_of(production.url())
    _wait(lambda: last in segments(stores()["b"], system))
    third = _book(production, 100, 20)
    _kill(production)
    os.killpg(receiver.pid, signal.SIGKILL)
    everything = {number for number, _ in [*first, *second, *third]}

    lost = _restored(tmp_path / "stores alone")
    assert lost.stores
    assert _bookings(lost.into, production) >= {number for number, _ in [*first, *second]}, "what was received in whole segments"
    received = tmp_path / "home" / "backup" / "wal" / system
    assert received == wal_folder(system)
    assert _bookings(_restored(tmp_path / "all", received=received).into, production) == everything, "nothing that was acknowledged is lost"
    assert _bookings(_restored(tmp_path / "between", to=between).into, production) == {number for number, _ in first}

    names = list(segments(stores()["a"], system))
    for store in stores().values():
        for key, held in store.held(prefix(system)).items():
            if names[1] in key:
                store.delete(held)
    error = fails(_restored, tmp_path / "gap", received=received)
    assert f"the segment …{names[1][8:]} is missing" in error.what
    assert not (tmp_path / "gap").exists()


def test_a_receiver_that_is_ended_has_brought_all_and_the_command_line_prepares_a_server(
    production: Server, receiver: "subprocess.Popen[str]", backups: Backups, tmp_path: Path, capsys: pytest.CaptureFixture[str], fails: Fails
) -> None:
    cli.main(["backup", "run", "postgres_base"], standalone_mode=False)
    booked = _book(production, 0, 10)
    receiver.send_signal(signal.SIGTERM)
    _, said = receiver.communicate(timeout=PATIENCE)
    assert receiver.returncode == 0, said
    _kill(production)
    cli.main(["restore", "postgres", "--into", str(tmp_path / "back")], standalone_mode=False)
    assert "# prepared" in capsys.readouterr().out
    assert _bookings(tmp_path / "back", production) == {number for number, _ in booked}
    assert verify("postgres_base", everything=True).problems == []
    for store in ("a", "b"):
        backups.flip(store, backups.keys(store, ".wal.zst.age")[0])
    assert isinstance(fails(_restored, tmp_path / "damaged"), Damaged)
    assert {one.backup for one in verify("postgres_base", everything=True).problems} == {"log"}


def test_a_receiver_that_was_killed_leaves_nobody_behind_who_holds_the_slot(production: Server, receiver: "subprocess.Popen[str]", backups: Backups) -> None:
    def receiving() -> set[str]:
        told = subprocess.run(["ps", "-A", "-ww", "-o", "pid=", "-o", "args="], capture_output=True, text=True, check=True).stdout
        return {line.split()[0] for line in told.splitlines() if "pg_receivewal" in line and f"--directory={wal_folder(system_of(production.url()))}" in line}

    (left,) = receiving()
    receiver.kill()
    receiver.wait()
    assert receiving() == {left}  # it goes on: whoever commits waits for nobody
    again = call("backup", "receive", wait=False)
    try:
        _wait(lambda: len(receiving()) == 1 and left not in receiving() and bool(_asked(production, "SELECT 1 FROM pg_stat_replication")))
        _book(production, 0, 1)
    finally:
        os.killpg(again.pid, signal.SIGTERM)
        again.communicate(timeout=PATIENCE)
    assert again.returncode == 0
    assert receiving() == set()


@pytest.mark.parametrize("is_before", [True, False])
def test_the_half_of_a_segment_never_comes_to_the_stores_before_the_whole_of_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_before: bool
) -> None:
    """The server completes a segment and begins the next just before, or just after, the receiver looks for the one that is being written."""
    first, second, third = (f"00000001000000000000000{number}" for number in (1, 2, 3))
    for name in (first, f"{second}.partial"):
        (tmp_path / name).touch()
    archive, brought, look = _Archive(tmp_path, "1", [], [], 0.0, ""), list[str](), Path.glob

    def goes_on() -> None:
        (tmp_path / f"{second}.partial").rename(tmp_path / second)
        (tmp_path / f"{third}.partial").touch()

    def looking(folder: Path, pattern: str) -> list[Path]:
        if is_before:
            goes_on()
        found = list(look(folder, pattern))
        if not is_before:
            goes_on()
        return found

    with monkeypatch.context() as patch:
        patch.setattr(Path, "glob", looking)
        patch.setattr(_Archive, "_received", lambda self: None)
        patch.setattr(_Archive, "_keep", lambda self, path, name: brought.append(path.name))
        archive.bring()
    assert brought == [first, second, f"{third}.partial"][: 3 if is_before else 2]


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (
            "10:00:01 [7] FATAL:  recovery ended before configured recovery target was reached\n10:00:01 [1] LOG:  startup process exited with exit code 1\n"
            "10:00:01 [9] FATAL:  the database system is in recovery mode\n10:00:01 [1] LOG:  database system is shut down\n",
            "FATAL:  recovery ended before configured recovery target was reached",
        ),
        ("10:00:01 [9] FATAL:  the database system is starting up\n", "it was ended (exit status 3)"),
    ],
)
def test_a_drill_tells_why_its_server_ended_and_not_what_the_server_told_the_drill(tmp_path: Path, fails: Fails, said: str, told: str) -> None:
    (tmp_path / "log").write_text(said)
    with subprocess.Popen(["sh", "-c", "exit 3"]) as ended:
        ended.wait()
        error = fails(Started(f"host={tmp_path} user=nobody dbname=none", ended, tmp_path / "log").until, "SELECT true")
    assert error.what == f"the restored server ended: {told}"


def test_the_log_is_watched_and_drilled_and_a_gap_in_it_is_found(
    production: Server, receiver: "subprocess.Popen[str]", backups: Backups, setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = system_of(production.url())
    assert "no log was received" in {one.observed.partition(": ")[2] for one in _late()}
    _book(production, 0, 5)
    base = take_base().backup
    assert base.tables["public.bookings"].rows == 5
    written = []
    for first in (5, 10, 15):
        written += [row[0] for row in _asked(production, "SELECT pg_walfile_name(pg_current_wal_lsn())")]
        _book(production, first, 5)
        _execute(production, "SELECT pg_switch_wal()")
    _wait(lambda: written[2] in segments(stores()["b"], system) and received_until(stores()["b"]) is not None)
    assert _late() == [], "an idle server is not late"

    assert [(one.failed, one.tables, one.stores) for one in drill_log(seed=1)] == [(None, 1, ("a",))] * 2
    assert [(one.failed, one.stores) for one in drill_log(seed=2, only="b")] == [(None, ("b",))] * 2
    assert [one.check for one in watch() if one.check.startswith("drill")] == []
    forged = base.model_copy(update={"tables": {"public.bookings": base.tables["public.bookings"].model_copy(update={"fingerprint": "1"})}})
    with monkeypatch.context() as patched:
        patched.setattr(Choice, "read", lambda self, backup: forged)
        assert {one.failed for one in drill_log(seed=3)} == {"what was restored is not what was backed up: public.bookings."}
    assert [one.check for one in watch() if one.check.startswith("drill")] == ["drill_failed"]

    os.killpg(receiver.pid, signal.SIGKILL)
    assert verify("postgres_base", everything=True).problems == []
    for key, held in stores()["b"].held(prefix(system)).items():
        if str(written[1]) in key:
            stores()["b"].delete(held)
    (problem,) = verify("postgres_base", everything=True).problems
    assert (problem.store, problem.backup) == ("b", "log")
    assert f"1 segments are missing, the first is …{str(written[1])[8:]}" in problem.said
    setting("WAREHOUSE_NOW", (datetime.now(UTC) + timedelta(minutes=16)).isoformat())
    assert [one.observed.partition(" up to ")[0] for one in _late()] == ["store a: it is received", "store b: it is received"]
    setting("WAREHOUSE_NOW", (datetime.now(UTC) + timedelta(days=36)).isoformat())
    assert [one.expected for one in watch() if one.check == "drill_overdue"] == ["one every 7d", "one every 35d from store b alone"]


def test_superfluous_bases_go_with_the_log_before_the_oldest_that_is_kept(production: Server, setting: Setting, backups: Backups) -> None:
    backups.write(lock_days=None, postgres_base="{every: 1d, keep: 2d, stores: [a, b]}")
    _execute(production, "CREATE TABLE bookings (id int)")
    system = system_of(production.url())
    now, froms = datetime.now(UTC), []
    for day in range(4):
        setting("WAREHOUSE_NOW", (now + timedelta(days=day)).isoformat())
        froms.append(take_base().backup.versions["wal_from"])
        name = f"{froms[-1]}-0000000{day}.wal.zst.age"
        for store in stores().values():  # as the receiver would have left it
            store.put(f"{prefix(system)}{name}", b"sealed")
            store.put(f"{prefix(system)}{name}.index", b"index")
        _execute(production, "SELECT pg_switch_wal()")
    assert len(Choice("postgres_base").ids()) == 3
    assert list(segments(stores()["a"], system)) == froms[1:]


def test_a_role_that_may_not_replicate_is_told(production: Server, setting: Setting, fails: Fails) -> None:
    _execute(production, "CREATE ROLE reader LOGIN PASSWORD 'a password'")
    setting("BACKUP__POSTGRES", production.url().replace(f"postgres:{production.password('postgres')}", "reader:a%20password"))
    error = fails(take_base)
    assert "REPLICATION" in error.mend
    assert "a password" not in str(error)
    assert "REPLICATION" in fails(receive).mend
