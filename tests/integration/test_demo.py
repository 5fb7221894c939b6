"""The demo company: a real server, the real purchases, and what it promises to whoever starts, kills or reads it."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from decimal import Decimal
from hashlib import sha256
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from demo import binaries, box
from demo.acts import act
from demo.customers import first_order_dates, profile, purchases
from demo.server import Server
from warehouse import settings
from warehouse.errors import UsageError

NOW = datetime(2024, 2, 3, 4, 5, 6, tzinfo=UTC)
ORDERS = 69_659
ROWS_OF_ORDERS = "select id, to_jsonb(orders)::text from shop.orders"
ROWS_OF_USERS = "select id, to_jsonb(users)::text from shop.users"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A running company without the APIs it uses; the tests that use it leave it running."""
    place = tmp_path_factory.mktemp("company") / "home"
    box.start(place, fsync=False, stand_ins=False)
    yield place
    box.reset(place)


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Path]:
    """A home without a company, cleared afterwards."""
    place = tmp_path / "home"
    yield place
    box.reset(place)


@pytest.fixture
def fixed_clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("WAREHOUSE_NOW", NOW.isoformat())
    settings.reload()
    yield
    settings.reload()


def query(url: str, statement: str) -> list[tuple[Any, ...]]:
    with closing(psycopg2.connect(url)) as opened, opened.cursor() as cur:
        cur.execute(statement)
        return cur.fetchall()


def rows(url: str, statement: str) -> dict[int, str]:
    return {row[0]: row[1] for row in query(url, statement)}


def changed(before: dict[int, str], after: dict[int, str]) -> set[int]:
    return {key for key in before.keys() & after.keys() if before[key] != after[key]}


def reader_url(home: Path) -> str:
    line = settings.demo_env_file(home).read_text().splitlines()[0]
    name, _, url = line.partition("=")
    assert name == "SOURCES__POSTGRES__CREDENTIALS"
    return url


def demo(home: Path, *arguments: str, **environment: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "demo", *arguments],
        env={**os.environ, "PYTHONPATH": str(settings.ROOT), "WAREHOUSE_HOME": str(home), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=environment.get("PWD"),
    )


def postmaster(home: Path) -> int:
    return int((box.server_of(home).data / "postmaster.pid").read_text().splitlines()[0])


def test_orders_are_the_real_purchases_to_the_cent(home: Path) -> None:
    found = query(
        reader_url(home),
        f"""
        select
            count(*), count(distinct user_id), sum(quantity), sum(revenue), count(*) filter (where revenue = 0), max(id),
            count(*) - count(distinct (user_id, ordered_at, quantity, revenue)), bool_and(updated_at = ordered_at)
        from shop.orders where id <= {ORDERS}
        """,
    )
    assert found == [(ORDERS, 23_570, 167_881, Decimal("2500315.63"), 80, ORDERS, 255, True)]
    assert purchases()[0].order_id == 1
    assert len(purchases()) == ORDERS


def test_users_are_the_customers_with_distinct_profiles(home: Path) -> None:
    found = query(
        reader_url(home),
        r"""
        select
            count(*), count(distinct regexp_replace(lower(email), '\+[^@]*', '')), count(distinct phone), count(distinct ssn),
            count(*) filter (where email ~ '^[A-Za-z]+\.[A-Za-z]+\d+(\+cds)?@example\.(com|org|net)$'),
            count(*) filter (where phone ~ '^\+1555\d{7}$'), count(*) filter (where ssn ~ '^9\d\d-[0-4]\d-\d{4}$'),
            bool_and(updated_at = created_at), bool_and(age between 18 and 90), count(distinct country), count(distinct segment)
        from shop.users
        """,
    )
    assert found == [(*[23_570] * 7, True, True, 9, 3)]
    forms = query(reader_url(home), "select count(*) filter (where email like '%+%'), count(*) filter (where email <> lower(email)) from shop.users")
    assert all(count > 1000 for count in forms[0])
    early = "select min(ordered_at) - created_at as early from shop.users join shop.orders on user_id = users.id group by users.id"
    least, most = query(reader_url(home), f"select min(early) > interval '0', max(early) <= interval '30 days' from ({early}) as each")[0]
    assert least
    assert most


def test_profiles_are_the_same_on_every_machine_and_python() -> None:
    digest = sha256()
    for user_id, first in first_order_dates().items():
        digest.update("|".join(map(str, profile(user_id, first))).encode())
    assert digest.hexdigest() == "c801279582feda5c957e4fe22a0bb4c0ab1a0e525848307c2ac9d57242487de0"


def test_reader_may_only_read_and_passwords_are_needed(home: Path) -> None:
    url = reader_url(home)
    for statement in ("delete from shop.orders", "create table shop.mine (id int)", "create temp table mine (id int)"):
        with pytest.raises(psycopg2.Error, match="read-only transaction"):
            query(url, statement)
        with pytest.raises(psycopg2.Error, match="permission denied"):
            query(url, f"set transaction read write; {statement}")
    with pytest.raises(psycopg2.OperationalError, match="permission denied"):
        query(box.server_of(home).url("warehouse_reader", "postgres"), "select 1")
    password = box.server_of(home).password("warehouse_reader")
    for wrong in ("not-the-password", ""):
        with pytest.raises(psycopg2.OperationalError, match="password"):
            query(url.replace(password, wrong), "select 1")


def test_reader_sees_tables_made_later(home: Path) -> None:
    with closing(psycopg2.connect(box.owner_url(home))) as opened, opened, opened.cursor() as cur:
        cur.execute("create table shop.later as select 1 as id")
    assert query(reader_url(home), "select id from shop.later") == [(1,)]


def test_starting_again_changes_nothing(home: Path) -> None:
    env, process = settings.demo_env_file(home), postmaster(home)
    before = (env.read_text(), env.stat().st_mtime_ns)
    box.start(home, fsync=False, stand_ins=False)
    assert (env.read_text(), env.stat().st_mtime_ns, postmaster(home)) == (*before, process)
    assert env.stat().st_mode & 0o777 == 0o600


def test_company_survives_a_kill_of_its_server_with_its_port_and_key(home: Path) -> None:
    env, url = settings.demo_env_file(home).read_text(), box.owner_url(home)
    placed = act(url, place=3).placed
    os.kill(postmaster(home), signal.SIGKILL)
    box.start(home, fsync=False, stand_ins=False)
    assert settings.demo_env_file(home).read_text() == env
    assert query(url, f"select count(*) from shop.orders where id = any(array[{','.join(map(str, placed))}])") == [(3,)]


def test_lock_file_that_names_a_living_stranger_does_not_keep_the_server_from_starting(home: Path) -> None:
    server = box.server_of(home, fsync=False)
    content = (server.data / "postmaster.pid").read_text().splitlines()
    assert server.stop()
    assert not server.is_running()
    assert not server.stop()
    (server.data / "postmaster.pid").write_text("\n".join([str(os.getpid()), *content[1:]]) + "\n")
    assert not server.is_running()
    assert server.ensure_running()
    assert server.is_running()


@pytest.mark.usefixtures("fixed_clock")
def test_acts_touch_what_they_report_and_nothing_else(home: Path) -> None:
    url = box.owner_url(home)
    orders, users = rows(url, ROWS_OF_ORDERS), rows(url, ROWS_OF_USERS)
    done = act(url, place=40, edit=20, delete=10, edit_users=5, seed=7)
    orders_after, users_after = rows(url, ROWS_OF_ORDERS), rows(url, ROWS_OF_USERS)

    assert [len(ids) for ids in (done.placed, done.edited, done.deleted, done.edited_users)] == [40, 20, 10, 5]
    assert orders_after.keys() - orders.keys() == set(done.placed)
    assert min(done.placed) > max(orders)
    assert orders.keys() - orders_after.keys() == set(done.deleted)
    assert changed(orders, orders_after) == set(done.edited)
    assert users_after.keys() == users.keys()
    assert changed(users, users_after) == set(done.edited_users)

    touched = ",".join(map(str, done.placed + done.edited))
    assert query(url, f"select distinct updated_at from shop.orders where id in ({touched})") == [(NOW,)]
    assert query(url, f"select min(quantity) > 0, min(revenue) > 0 from shop.orders where id >= {min(done.placed)}") == [(True, True)]
    assert query(url, f"select count(*), min(updated_at) from shop.users where updated_at = '{NOW.isoformat()}'") == [(5, NOW)]


def test_ids_of_deleted_orders_are_never_used_again(home: Path) -> None:
    url = box.owner_url(home)
    last = act(url, place=1).placed[0]
    with closing(psycopg2.connect(url)) as opened, opened, opened.cursor() as cur:
        cur.execute("delete from shop.orders where id = %s", (last,))
    assert act(url, place=1).placed == (last + 1,)


def test_impossible_acts_are_refused_whole(home: Path) -> None:
    url = box.owner_url(home)
    before = query(url, "select count(*), max(id) from shop.orders")
    with pytest.raises(UsageError, match="cannot be negative"):
        act(url, edit=-1)
    with pytest.raises(UsageError, match="ask for fewer"):
        act(url, place=1, delete=1, edit_users=50_000)
    assert query(url, "select count(*), max(id) from shop.orders") == before


@pytest.mark.usefixtures("fixed_clock")
def test_two_companies_with_the_same_acts_are_the_same(tmp_path: Path) -> None:
    seen = []
    for name in ("one", "other"):
        try:
            box.start(tmp_path / name, fsync=False, stand_ins=False)
            url = box.owner_url(tmp_path / name)
            done = [act(url, place=9, edit=8, delete=7, edit_users=6, seed=seed) for seed in (1, 2)]
            seen.append((done, rows(url, ROWS_OF_ORDERS), rows(url, ROWS_OF_USERS)))
        finally:
            box.reset(tmp_path / name)
    assert seen[0] == seen[1]
    assert seen[0][0][0] != seen[0][0][1], "another seed does something else"


def test_command_line_tells_what_it_did_and_writes_only_inside_the_home(fresh: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    environment = {"HOME": str(outside), "TMPDIR": str(outside), "PWD": str(outside), "PYTHONDONTWRITEBYTECODE": "1"}

    def run(*arguments: str) -> tuple[int, str, str]:
        process = demo(fresh, *arguments, **environment)
        said, complained = process.communicate(timeout=60)
        return process.returncode, said, complained

    assert run("status")[0] == 1
    assert not fresh.exists()
    code, said, complained = run("start")
    assert (code, complained) == (0, "")
    assert "is running" in said
    assert "make demo-stop" in said
    assert run("status")[0] == 0
    assert run("url")[1].strip() == box.owner_url(fresh)
    assert run("act", "--place", "2", "--delete", "1")[1] == "orders placed: 2, edited: 0, deleted: 1; users edited: 0\n"
    code, said, complained = run("reset")
    assert (code, said) == (2, "")
    assert complained.startswith("error: ")
    assert "--yes" in complained
    assert run("stop")[0] == 0
    assert {path.name for path in tmp_path.iterdir()} == {"home", "outside"}
    assert {path.name for path in fresh.iterdir()} == {"demo"}
    assert not list(outside.iterdir())
    assert not list(Path("/tmp").glob(f".s.PGSQL.{box.server_of(fresh).port}*"))
    secrets = [path for path in (fresh / "demo").rglob("*") if path.name in ("demo.env", "secret", "log", "ready")]
    assert len(secrets) == 5
    assert all(path.stat().st_mode & 0o077 == 0 for path in secrets)
    assert run("reset", "--yes")[0] == 0
    assert not list(fresh.iterdir())


def test_start_killed_at_any_moment_is_made_good_by_the_next(fresh: Path) -> None:
    for moment in (0.3, 0.5, 0.7, 0.9):
        process = demo(fresh, "start")
        time.sleep(moment)
        process.kill()
        process.communicate()
    pair = [demo(fresh, "start") for _ in range(2)]
    assert [(process.communicate(timeout=60)[1], process.returncode) for process in pair] == [("", 0), ("", 0)]
    assert query(reader_url(fresh), "select count(*) from shop.orders") == [(ORDERS,)]
    left = {path.name for path in box.server_of(fresh).folder.iterdir()}
    assert left == {"data", "lock", "log", "port", "secret"}


def test_taken_port_is_exchanged_and_written_down(home: Path) -> None:
    server = box.server_of(home, fsync=False)
    server.stop()
    before = server.port
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", before))
        other.listen()
        box.start(home, fsync=False, stand_ins=False)
    assert server.port != before
    assert query(reader_url(home), "select 1") == [(1,)]


def test_cluster_of_another_version_is_refused_with_the_way_out(tmp_path: Path) -> None:
    server = Server(tmp_path / "postgres")
    server.data.mkdir(parents=True)
    (server.data / "PG_VERSION").write_text("9\n")
    with pytest.raises(UsageError, match="reset --yes"):
        server.ensure_running()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to switch to another user")
def test_folder_that_the_other_user_cannot_enter_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    mode = closed.stat().st_mode
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(UsageError, match="cannot enter"):
        binaries.account(closed / "postgres", closed / "postgres" / "data")
    assert closed.stat().st_mode == mode
