"""Production is not hurt: a replica is preferred and read in one snapshot, rate and connections are bounded, nothing leaks."""

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from conftest import Company, ask, call, load_postgres
from integration.servers import Certificates, catch_up, rows, standby_of, tls_in_front_of
from integration.test_types import EXACT, TYPES

from demo.company import READER
from demo.server import Server
from pipelines.postgres import check_connection
from pipelines.postgres_stream import Stream
from warehouse import clock, ledger
from warehouse.errors import StepFailed, UsageError, WarehouseError, scrub

Setting = Callable[[str, str | None], None]
Declare = Callable[[str], None]
Fails = Callable[..., WarehouseError]
CREDENTIALS = "SOURCES__POSTGRES__CREDENTIALS"


def kept() -> dict[str, Any]:
    """What the ledger keeps of each table of the last load."""
    steps = [step for step in ledger.recent_runs(1)[0]["steps"] if step["step"] == "load"]
    tables: dict[str, Any] = json.loads(steps[0]["detail"])["tables"]
    return tables


def make_a_big_table(company: Company) -> None:
    """One that the scanner reads in several ranges of pages, when it may."""
    table = "SELECT i AS id, 'early' AS v, repeat('x', 80) AS filling FROM generate_series(1, 200000) i"
    company.execute(f"CREATE TABLE shop.big AS {table}", "ALTER TABLE shop.big ADD PRIMARY KEY (id)")
    rows(company.owner_url, "VACUUM ANALYZE shop.big")


@pytest.fixture(scope="module")
def standby(company_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with standby_of(company_server, tmp_path_factory.mktemp("replica") / "standby") as server:
        yield server


@pytest.fixture
def replica(company: Company, standby: Server, setting: Setting) -> Iterator[Company]:
    """The company of this test as its standby shows it; the warehouse is pointed there."""
    catch_up(standby, company.server)
    setting(CREDENTIALS, standby.url(READER, company.database))
    yield Company(standby, company.database)
    rows(standby.url(), "SELECT pg_wal_replay_resume()")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@contextmanager
def paused(standby: Server, primary: Server) -> Iterator[None]:
    """A standby that falls behind while inside."""
    catch_up(standby, primary)
    rows(standby.url(), "SELECT pg_wal_replay_pause()")
    while rows(standby.url(), "SELECT pg_get_wal_replay_pause_state()") != [("paused",)]:
        time.sleep(0.01)
    yield
    rows(standby.url(), "SELECT pg_wal_replay_resume()")
    catch_up(standby, primary)


def test_of_several_hosts_a_replica_is_preferred_and_the_primary_taken_when_there_is_none(company: Company, standby: Server, setting: Setting) -> None:
    catch_up(standby, company.server)
    start, _, end = company.reader_url.rpartition(f":{company.server.port}")
    setting(CREDENTIALS, f"{start}:{company.server.port},127.0.0.1:{standby.port}{end}")
    load_postgres()
    assert {table["server"] for table in kept().values()} == {"standby"}
    assert "a replica" in check_connection()
    setting(CREDENTIALS, f"{start}:{company.server.port},127.0.0.1:{standby.port}{end}?target_session_attrs=primary")
    load_postgres()
    assert {table["server"] for table in kept().values()} == {"primary"}
    setting(CREDENTIALS, f"{start}:1,127.0.0.1:{company.server.port}{end}")
    load_postgres()
    assert {table["server"] for table in kept().values()} == {"primary"}


def test_a_replica_is_read_in_one_snapshot(company: Company, replica: Company, declare: Declare, monkeypatch: pytest.MonkeyPatch) -> None:
    """DuckDB's scanner would read ranges of pages by several connections, of which each sees another state of a standby."""
    make_a_big_table(company)
    catch_up(replica.server, company.server)
    declare("tables:\n  shop.big:\n")
    write = Stream._copy

    def change_then_write(self: Stream, *others: Any) -> int:
        company.execute("UPDATE shop.big SET v = 'late' WHERE id > 100000")
        catch_up(replica.server, company.server)
        return write(self, *others)

    monkeypatch.setattr(Stream, "_copy", change_then_write)
    assert load_postgres()["big"].rows_read == 200_000
    assert ask("SELECT DISTINCT v FROM raw_postgres.big") == [("early",)]


def test_what_a_replica_replays_late_is_not_missed(company: Company, replica: Company, declare: Declare) -> None:
    declare("lag: 1s\ntables:\n  shop.orders:\n")
    # The highest cursor lies in the future: only `_settled_at` says where to go on.
    company.execute("UPDATE shop.orders SET updated_at = now() + interval '1 year' WHERE id = 1")
    catch_up(replica.server, company.server)
    replayed = rows(replica.server.url(), "SELECT pg_last_xact_replay_timestamp()")[0][0]
    with paused(replica.server, company.server):
        company.execute("UPDATE shop.orders SET status = 'replayed late', updated_at = now() WHERE id = 2")
        time.sleep(2)
        load_postgres()
        assert ask("SELECT count(*) FROM raw_postgres.orders WHERE status = 'replayed late'") == [(0,)]
        loaded, settled = ask("SELECT max(_loaded_at), max(_settled_at) FROM raw_postgres.orders")[0]
        assert settled <= loaded - timedelta(seconds=1)
        assert replayed <= loaded <= replayed + timedelta(seconds=1)
    again = load_postgres()["orders"]
    assert (again.window, again.rows_written) == ("changed rows", 1)
    assert ask("SELECT id FROM raw_postgres.orders WHERE status = 'replayed late'") == [(2,)]
    assert ask("SELECT count(DISTINCT _loaded_at) FROM raw_postgres.orders") == [(2,)]


def test_a_replica_behind_the_warehouse_deletes_nothing_and_takes_nothing_back(
    company: Company, replica: Company, setting: Setting, declare: Declare, fails: Fails
) -> None:
    declare("deletes: hourly\ntables:\n  shop.orders:\n")
    with paused(replica.server, company.server):
        setting(CREDENTIALS, company.reader_url)
        company.execute("INSERT INTO shop.orders SELECT 900001, id, now(), 1, 1, 'USD', 'new', now() - interval '1 hour' FROM shop.users LIMIT 1")
        load_postgres()
        setting(CREDENTIALS, replica.reader_url)
        setting("WAREHOUSE_NOW", (clock.now() + timedelta(hours=2)).isoformat())
        load_postgres()
        assert ask("SELECT status, _deleted_at FROM raw_postgres.orders WHERE id = 900001") == [("new", None)]
        ask("ALTER TABLE raw_postgres.orders DROP COLUMN currency")
        error = fails(load_postgres)
        assert "the replica is behind" in error.what
    company.execute("DELETE FROM shop.orders WHERE id = 900001")
    catch_up(replica.server, company.server)
    assert load_postgres()["orders"].rows_deleted == 1


def test_a_query_that_a_replica_ends_is_explained(company: Company, replica: Company, declare: Declare, fails: Fails, monkeypatch: pytest.MonkeyPatch) -> None:
    declare("tables:\n  shop.orders:\n")
    rows(replica.server.url(), "ALTER SYSTEM SET max_standby_streaming_delay = 0")
    rows(replica.server.url(), "SELECT pg_reload_conf()")
    look = Stream._look_at_a_sample
    ended, deadline = "SELECT sum(confl_snapshot) FROM pg_stat_database_conflicts", time.monotonic() + 30
    before = rows(replica.server.url(), ended)

    def look_while_rows_vanish(self: Stream, window: str) -> None:
        company.execute("DELETE FROM shop.orders WHERE id < 5000")
        while rows(replica.server.url(), ended) == before and time.monotonic() < deadline:
            rows(company.owner_url, "VACUUM shop.orders")  # again: PostgreSQL's own housekeeping may have held the rows a moment longer
            catch_up(replica.server, company.server)
        look(self, window)

    monkeypatch.setattr(Stream, "_look_at_a_sample", look_while_rows_vanish)
    try:
        error = fails(load_postgres)
    finally:
        rows(replica.server.url(), "ALTER SYSTEM RESET max_standby_streaming_delay")
        rows(replica.server.url(), "SELECT pg_reload_conf()")
    assert isinstance(error, StepFailed)
    assert "hot_standby_feedback" in error.mend


@pytest.mark.parametrize("most", [1, 2])
def test_no_more_connections_are_open_than_declared(company: Company, declare: Declare, setting: Setting, most: int) -> None:
    company.execute(
        "CREATE TABLE shop.big AS SELECT i AS id, repeat('x', 80) AS filling FROM generate_series(1, 200000) i", "ALTER TABLE shop.big ADD PRIMARY KEY (id)"
    )
    rows(company.owner_url, "VACUUM ANALYZE shop.big")
    declare(f"max_connections: {most}\ntables:\n  shop.big:\n")
    setting("WAREHOUSE_THREADS", "4")
    seen, over = [], threading.Event()

    def watch() -> None:
        while not over.is_set():
            query = f"SELECT count(*) FROM pg_stat_activity WHERE application_name = 'warehouse' AND datname = '{company.database}'"
            seen.append(rows(company.server.url(), query)[0][0])

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        load_postgres()
    finally:
        over.set()
        watching.join()
    assert max(seen) == most


def test_rows_come_no_faster_than_declared_and_just_the_same(company: Company, declare: Declare) -> None:
    columns = ", ".join(f"v{number} {kind}" for number, (kind, *_) in enumerate(EXACT))
    company.execute(
        *TYPES,
        f"CREATE TABLE shop.every (id bigint PRIMARY KEY, {columns})",
        f"INSERT INTO shop.every VALUES (1, {', '.join(value for _, value, *_ in EXACT)})",
        "INSERT INTO shop.every (id) VALUES (2)",
        "CREATE TABLE shop.many (id uuid PRIMARY KEY, amount numeric(12,2), at timestamptz, day date, what text)",
        "INSERT INTO shop.many SELECT md5(i::text)::uuid, i / 7.0, nullif(now(), now()), 'infinity', NULL FROM generate_series(1, 20000) i",
    )
    found: list[Any] = []
    seconds: list[float] = []
    for bound in ("max_rows_per_second: 10000\n", ""):
        declare(f"{bound}tables:\n  shop.every:\n  shop.many:\n")
        load_postgres()
        seconds.append(kept()["many"]["seconds"])
        tables = [ask(f"DESCRIBE raw_postgres.{table}") for table in ("every", "many")]
        values = [ask(f"SELECT COLUMNS(* EXCLUDE (_loaded_at, _settled_at))::VARCHAR FROM raw_postgres.{table} ORDER BY id") for table in ("every", "many")]
        found.append((tables, values))
        ask("DROP TABLE raw_postgres.every")
        ask("DROP TABLE raw_postgres.many")
    assert found[0] == found[1]
    assert len(found[0][1][1]) == 20_000
    assert seconds[0] > 2.9  # the 20,000 rows, and 10,000 of them before, as a sample
    assert seconds[0] > seconds[1] + 1


def test_a_statement_that_takes_too_long_is_ended(company: Company, declare: Declare, fails: Fails) -> None:
    company.execute("CREATE VIEW shop.slow AS SELECT 1 AS id, pg_sleep(30)::text AS v", f"GRANT SELECT ON shop.slow TO {READER}")
    declare("statement_timeout: 1s\ntables:\n  shop.slow:\n")
    began = time.monotonic()
    error = fails(load_postgres)
    assert time.monotonic() - began < 10
    assert "statement_timeout" in error.mend


def test_what_was_asked_is_in_the_ledger(company: Company, fails: Fails) -> None:
    load_postgres()
    first = kept()["users"]
    assert (first["server"], first["window"], first["asked"]) == ("primary", "whole table", ["SELECT 9 columns FROM shop.users"])
    assert first["rows_in"] == 23_570
    assert first["seconds"] > 0
    assert first["bytes"] > 100_000
    load_postgres()
    changed, keys = kept()["orders"]["asked"]
    assert changed.startswith('SELECT 8 columns FROM shop.orders WHERE "updated_at" >')
    assert keys == "SELECT id FROM shop.orders"
    company.execute("UPDATE shop.orders SET revenue = 'NaN' WHERE id = 4711", "UPDATE shop.orders SET updated_at = now() WHERE id = 4711")
    fails(load_postgres)
    assert kept()["orders"]["asked"]


@pytest.mark.parametrize("hours", [5, -5], ids=["our clock is ahead", "our clock is behind"])
def test_clocks_that_differ_lose_nothing(company: Company, declare: Declare, monkeypatch: pytest.MonkeyPatch, hours: int) -> None:
    declare("tables:\n  shop.orders:\n")
    monkeypatch.setattr(clock, "now", lambda: datetime.now(UTC) + timedelta(hours=hours))
    load_postgres()
    assert ask("SELECT max(_loaded_at) FROM raw_postgres.orders")[0][0] <= min(clock.now(), datetime.now(UTC))
    for turn in ("a", "b", "c"):
        company.execute(f"UPDATE shop.orders SET status = '{turn}', updated_at = now() WHERE id = 7")
        load_postgres()
        assert ask("SELECT status FROM raw_postgres.orders WHERE id = 7") == [(turn,)]
    monkeypatch.setattr(clock, "now", lambda: datetime.now(UTC) - timedelta(hours=hours))  # somebody sets the clock right, and too far
    company.execute("UPDATE shop.orders SET status = 'd', updated_at = now() WHERE id = 8")
    before = ask("SELECT max(_loaded_at) FROM raw_postgres.orders")
    load_postgres()
    assert ask("SELECT status FROM raw_postgres.orders WHERE id = 8") == [("d",)]
    assert ask("SELECT max(_loaded_at) FROM raw_postgres.orders") > before


def test_a_cursor_in_the_future_hides_no_change(company: Company, declare: Declare) -> None:
    kinds = ("timestamptz", "timestamp", "date")
    for kind in kinds:
        company.execute(
            f"CREATE TABLE shop.by_{kind} (id integer PRIMARY KEY, v text, updated_at {kind})",
            f"INSERT INTO shop.by_{kind} VALUES (1, 'a', now() + interval '1 year'), (2, 'a', now()), (3, 'a', now() - interval '30 days')",
        )
    declare('tables:\n  "shop.by_*":\n')
    load_postgres()
    for turn in ("b", "c"):
        company.execute(*(f"UPDATE shop.by_{kind} SET v = '{turn}', updated_at = now() WHERE id = 2" for kind in kinds))
        loaded = load_postgres()
        for kind in kinds:
            assert ask(f"SELECT id, v FROM raw_postgres.by_{kind} ORDER BY id") == [(1, "a"), (2, turn), (3, "a")], kind
            assert loaded[f"by_{kind}"].window == "changed rows"
            assert loaded[f"by_{kind}"].rows_read == 2, kind  # what is older than a day is not read again


def test_a_date_as_cursor_goes_back_by_whole_days(company: Company, declare: Declare) -> None:
    """Stamped before midnight and committed after it, when another row of the new day was loaded already."""
    company.execute(
        "CREATE TABLE shop.notes (id integer PRIMARY KEY, v text, updated_at date)",
        "INSERT INTO shop.notes VALUES (1, 'a', current_date), (2, 'a', current_date - 30)",
    )
    declare("tables:\n  shop.notes:\n")
    load_postgres()
    company.execute("UPDATE shop.notes SET v = 'late', updated_at = current_date - 1 WHERE id = 2")
    load_postgres()
    assert ask("SELECT v FROM raw_postgres.notes WHERE id = 2") == [("late",)]


@pytest.fixture
def odd_password(company: Company) -> Iterator[str]:
    """The connection string of a user whose password has to be encoded, with two servers before it that cannot be reached."""
    password = "s3cr3t@wo/rd%+x"
    rows(company.server.url(), f"CREATE ROLE odd_reader LOGIN PASSWORD '{password}' IN ROLE {READER}")
    yield f"postgresql://odd_reader:{quote(password, safe='')}@db.internal.example:5432,127.0.0.2:1,127.0.0.1:{company.server.port}/{company.database}"
    rows(company.server.url(), "DROP ROLE odd_reader")


def test_password_and_host_are_in_no_file_and_no_message(odd_password: str, setting: Setting, home: Path, fails: Fails) -> None:
    wrong = odd_password.replace("s3cr3t", "wr0ng")
    unreachable = odd_password.rpartition(",")[0] + "/shop?connect_timeout=2"
    setting(CREDENTIALS, odd_password)
    ran = [call("load", "postgres")]
    assert ran[0].code == 0, ran[0].err
    shown = []
    for url in (unreachable, f"{odd_password}?sslmode=require", f"{odd_password}?nonsense=1", odd_password.replace(":1,", ":one,"), wrong):
        setting(CREDENTIALS, url)
        shown.append(str(fails(load_postgres)))
        assert "mend" in shown[-1]
    ran += [call("load", "postgres"), call("doctor"), call("status", "--json")]
    assert ran[1].code == 3
    assert ask("SELECT count(*) FROM raw_postgres.users") == [(23_570,)]
    needles = [word for secret in ("s3cr3t@wo/rd%+x", "wr0ng@wo/rd%+x") for word in (secret, quote(secret, safe=""))] + ["db.internal", "127.0.0.2"]
    shown += [text for one in ran for text in (one.out, one.err)]
    assert not [needle for needle in needles for text in shown if needle in text]
    files = [file for file in home.rglob("*") if file.is_file() and "duckdb_extensions" not in file.parts]
    assert len(files) > 10
    for file in files:
        content = file.read_bytes()
        assert not [needle for needle in needles if needle.encode() in content], file


def test_a_token_may_stand_in_the_environment(company: Company, setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    token = company.server.password(READER)
    setting(CREDENTIALS, company.reader_url.replace(f":{token}", ""))
    monkeypatch.setenv("PGPASSWORD", token)
    assert "2 declared tables readable" in check_connection()
    assert os.environ["PGPASSWORD"] == token
    assert token not in scrub(f"it is {token}")


def test_tls_settings_reach_the_client(company: Company, certificates: Certificates, setting: Setting, fails: Fails) -> None:
    def use(options: str, host: str = "localhost") -> None:
        start = company.reader_url.replace(f"@127.0.0.1:{company.server.port}", f"@{host}:{port}")
        setting(CREDENTIALS, f"{start}?{options}")

    root, missing = certificates.authority, certificates.folder / "missing"
    with tls_in_front_of(company.server, certificates) as port:
        use(f"sslmode=verify-full&sslrootcert={root}")
        assert "2 declared tables readable" in check_connection()
        load_postgres()
        for options, host, says in (
            (f"sslmode=verify-full&sslrootcert={root}", "127.0.0.1", "does not match"),
            (f"sslmode=verify-full&sslrootcert={certificates.stranger}", "localhost", "verify failed"),
            (f"sslmode=verify-full&sslrootcert={missing}", "localhost", "cannot be read"),
            (f"sslmode=require&sslrootcert={root}&channel_binding=require", "localhost", "channel_binding"),
            (f"sslmode=require&sslrootcert={root}&sslcert={certificates.client}&sslkey={missing}", "localhost", "certificate or key"),
            ("sslmode=odd", "localhost", "sslmode"),
        ):
            use(options, host)
            error = fails(check_connection)
            assert says in error.what, options
            assert error.mend
            assert "does not answer" not in error.what
    with tls_in_front_of(company.server, certificates, asks_clients=True) as port:
        use(f"sslmode=verify-full&sslrootcert={root}&sslcert={certificates.client}&sslkey={certificates.key(certificates.client)}")
        assert "2 declared tables readable" in check_connection()
        use(f"sslmode=verify-full&sslrootcert={root}")
        assert "client certificate" in fails(check_connection).what
    use(f"sslmode=verify-full&sslrootcert={root}&sslkey={missing}&sslpassword=geheim")
    error = fails(check_connection)
    assert isinstance(error, UsageError)
    assert "geheim" not in str(error)
    setting(CREDENTIALS, f"{company.reader_url}?sslmode=require")
    assert "ssl = on" in fails(check_connection).mend
    setting(CREDENTIALS, company.reader_url + "_not")
    assert "does not exist" in fails(check_connection).what
