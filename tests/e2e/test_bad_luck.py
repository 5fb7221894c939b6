"""What goes wrong is said with its mend, recorded and without effect on readers; the next good run ends as if it had not happened."""

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import psycopg2
import pytest
from conftest import KEY, Ran, call
from e2e.homes import Forks, Home, Point, company_of, copy_checkout
from e2e.truth import differences, fingerprint, production

from demo.acts import act
from demo.server import Server

pytestmark = pytest.mark.xdist_group("bad luck")  # they share one home

CLOSED_PORT = "postgresql://warehouse_reader:{password}@127.0.0.1:9/shop"
WRONG_PASSWORD = "anything-but-the-pass-word"


@dataclass
class Lucky:
    """A home whose last run was good. Each test lets it suffer, then asks it to be well again."""

    home: Home
    forks: Forks
    secrets: list[str]
    seed: int = 0

    def fails(self, run: Callable[[], Ran], code: int, *said: str, recorded: str | None = "failed") -> Ran:
        """Let the company trade, run, and see the failure said, recorded and hidden from readers."""
        self.seed += 1
        act(self.home.company.owner_url, place=2, edit=7, edit_users=3, seed=self.seed)
        shown, runs = fingerprint(self.home.folder), self.runs()
        ran = run()
        assert ran.code == code, (ran.out[-300:], ran.err)
        for words in said:
            assert words in ran.err
        assert "\n  mend: " in ran.err
        assert fingerprint(self.home.folder) == shown
        (last,) = self.runs()
        if recorded is None:
            assert last == runs[0]
        else:
            assert last["run_id"] != runs[0]["run_id"]
            assert last["status"] == recorded
            assert last["error"].splitlines()[0] in ran.err
        self.tells_nothing(ran)
        return ran

    def runs(self, limit: int = 1) -> list[dict[str, Any]]:
        """The last runs as `warehouse status` tells them, newest first."""
        return self.home.runs(limit, self.forks)

    def tells_nothing(self, ran: Ran) -> None:
        """No secret and no personal data in what was said, logged or recorded."""
        texts = {"out": ran.out.encode(), "err": ran.err.encode()}
        texts |= {str(file): file.read_bytes() for pattern in ("logs/*", "ledger.sqlite*") for file in self.home.folder.glob(pattern)}
        assert len(texts) >= 4
        wrong = {name: len([secret for secret in self.secrets if secret.encode() in text]) for name, text in texts.items()}
        assert not any(wrong.values()), wrong  # the number of them, never they themselves

    def is_well_again(self) -> None:
        """A good run ends as if nothing had happened."""
        ran = self.forks.warehouse(self.home, "run")
        assert ran.code == 0, ran.err
        assert differences(self.home.folder, production(self.home.company)) == []


@contextmanager
def _lucky(server: Server, forks: Forks, built_empty: Path, name: str, folder: Path) -> Iterator[Lucky]:
    with company_of(server, f"{name}_{os.getpid()}", users=4_000) as company:
        people = company.rows("SELECT email, phone, ssn FROM shop.users ORDER BY id LIMIT 500")
        secrets = [KEY, server.password("warehouse_reader"), server.password("company"), WRONG_PASSWORD, "@example"]
        home = Home(shutil.copytree(built_empty, folder / "warehouse"), company)
        lucky = Lucky(home, forks, secrets + [value for person in people for value in person])
        ran = forks.warehouse(home, "run")
        assert ran.code == 0, ran.err
        yield lucky


@pytest.fixture(scope="module")
def lucky(company_server: Server, forks: Forks, built_empty: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lucky]:
    """One home for the tests of this module."""
    with _lucky(company_server, forks, built_empty, "luck", tmp_path_factory.mktemp("luck")) as home:
        yield home


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout whose declared files may be spoilt."""
    return copy_checkout(tmp_path_factory.mktemp("spoilt") / "checkout")


@pytest.mark.parametrize(
    ("settings", "code", "said", "recorded"),
    [
        ({"SOURCES__POSTGRES__CREDENTIALS": CLOSED_PORT.format(password=WRONG_PASSWORD)}, 3, ("SOURCES__POSTGRES__CREDENTIALS does not answer",), "failed"),
        ({"SOURCES__POSTGRES__CREDENTIALS": WRONG_PASSWORD}, 2, ("SOURCES__POSTGRES__CREDENTIALS is not a connection string",), "failed"),
        ({"SOURCES__POSTGRES__CREDENTIALS": ""}, 2, ("SOURCES__POSTGRES__CREDENTIALS is not set",), "failed"),
        ({"PRIVACY__HMAC_KEY": ""}, 2, ("PRIVACY__HMAC_KEY is not set", "openssl rand -hex 32"), "failed"),
        ({"PRIVACY__HMAC_KEY": WRONG_PASSWORD}, 2, ("PRIVACY__HMAC_KEY", "at least 32 are needed"), None),
        ({"WAREHOUSE_STORAGE": "floppy"}, 2, ("WAREHOUSE_STORAGE", "'floppy'", "'duckdb' or 'motherduck'", ".env.example"), None),
    ],
    ids=["server down", "no connection string", "no credentials", "no key", "short key", "unknown storage"],
)
def test_a_wrong_setting_is_named_with_its_mend(lucky: Lucky, settings: dict[str, str], code: int, said: tuple[str, ...], recorded: str | None) -> None:
    """Where the settings themselves cannot be read nobody knows where the ledger is."""
    lucky.fails(lambda: lucky.forks.warehouse(lucky.home, "run", **settings), code, *said, recorded=recorded)


def test_a_wrong_password_is_named_and_kept_secret(lucky: Lucky) -> None:
    url = lucky.home.company.reader_url.replace(lucky.home.company.server.password("warehouse_reader"), WRONG_PASSWORD)
    lucky.fails(
        lambda: lucky.home.warehouse("run", SOURCES__POSTGRES__CREDENTIALS=url), 3, "refused the user or password of SOURCES__POSTGRES__CREDENTIALS", ".env"
    )
    lucky.is_well_again()


@pytest.mark.parametrize(
    ("spoil", "heal", "said"),
    [
        (
            "ALTER TABLE shop.orders RENAME TO bills",
            "ALTER TABLE shop.bills RENAME TO orders",
            ("shop.orders is now shop.bills; it is still loaded into raw_postgres.orders", "declare shop.bills with `name: orders`"),
        ),
        (
            "ALTER TABLE shop.orders RENAME updated_at TO changed_at",
            "ALTER TABLE shop.orders RENAME changed_at TO updated_at",
            ("shop.orders has no column updated_at any more", "column renamed (updated_at -> changed_at)", "SELECT * FROM ops.schema_changes"),
        ),
        (
            "REVOKE SELECT ON shop.orders FROM warehouse_reader",
            "GRANT SELECT ON shop.orders TO warehouse_reader",
            ("shop.orders may no longer be read by the user of SOURCES__POSTGRES__CREDENTIALS", "GRANT SELECT ON shop.orders"),
        ),
    ],
    ids=["table", "column", "grant"],
)
def test_what_production_took_away_is_a_finding_and_the_rest_is_loaded(lucky: Lucky, spoil: str, heal: str, said: tuple[str, ...]) -> None:
    act(lucky.home.company.owner_url, edit_users=3, seed=77)
    lucky.home.company.execute(spoil)
    ran = lucky.forks.warehouse(lucky.home, "load", "postgres")
    lucky.home.company.execute(heal)
    assert ran.code == 1, ran.err
    for words in said:
        assert words in ran.err
    lucky.tells_nothing(ran)
    (last,) = lucky.runs()
    with duckdb.connect(str(lucky.home.folder / "warehouse.duckdb")) as connection:
        loaded = connection.execute("SELECT count(*) FROM raw_postgres.users WHERE _loaded_at >= ?::TIMESTAMPTZ", [last["started_at"]]).fetchone()
    assert loaded == (3,)
    lucky.forks.warehouse(lucky.home, "load", "postgres")  # what was healed is a change, too, and told once
    with duckdb.connect(str(lucky.home.folder / "warehouse.duckdb")) as connection:
        connection.execute("ALTER TABLE raw_postgres.orders DROP COLUMN IF EXISTS changed_at")
    lucky.is_well_again()


@pytest.mark.parametrize(
    ("file", "spoil", "said"),
    [
        ("pipelines/postgres.yaml", ("lag: 10m", "lag: [10m"), ("pipelines/postgres.yaml line ", "not valid YAML")),
        ("pipelines/postgres.yaml", ("primary_key", "primary_keys"), ("key tables.shop.users.primary_keys is not known", "exclude, name, primary_key")),
        ("pipelines/postgres.yaml", ("lag: 10m", "lag: 10 minutes"), ("pipelines/postgres.yaml: key lag", "found '10 minutes'", "for example 10m or 6h")),
        ("pipelines/postgres.yaml", ("schedule: hourly", "schedule: often"), ("key schedule", "'hourly', 'daily' or 'weekly'", "found 'often'")),
        ("privacy/policy.yaml", ("\ncolumns:", "\ncolumns: {"), ("privacy/policy.yaml line ", "not valid YAML")),
        ("privacy/policy.yaml", ("action: redact", "actoin: redact"), ("postgres.users.ssn.actoin is not known", "allowed beside it: action, ")),
        ("privacy/policy.yaml", ("action: redact", "action: encipher"), ("key columns.postgres.users.ssn.action", "'redact'", "found 'encipher'")),
        ("privacy/policy.yaml", ("    ssn:", "    sssn:"), ("postgres.users.s",)),
    ],
)  # fmt: skip
def test_a_spoilt_declaration_is_named_with_its_key(lucky: Lucky, checkout: Path, file: str, spoil: tuple[str, str], said: tuple[str, ...]) -> None:
    home = Home(lucky.home.folder, lucky.home.company, checkout)
    right = (checkout / file).read_text()
    assert spoil[0] in right
    (checkout / file).write_text(right.replace(spoil[0], spoil[1], 1))
    try:
        ran = lucky.fails(lambda: home.measured("run")[0], 2, file, *said)
    finally:
        (checkout / file).write_text(right)
    assert ran.out == ""


def test_a_contract_that_cannot_be_read_stops_before_readers_see_anything(lucky: Lucky, checkout: Path) -> None:
    home = Home(lucky.home.folder, lucky.home.company, checkout)
    contract = checkout / "soda" / "marts" / "order_facts.yml"
    right = contract.read_bytes()
    contract.write_bytes(b"dataset: \xff\xfe")
    try:
        lucky.fails(lambda: home.measured("run")[0], 2, "soda/marts/order_facts.yml: cannot be read: not UTF-8")
    finally:
        contract.write_bytes(right)
    lucky.is_well_again()


def test_a_second_run_is_told_who_runs(lucky: Lucky) -> None:
    running = call("run", wait=False, **lucky.home.settings)
    try:
        _until(lambda: f'"pid": {running.pid}' in (lucky.home.folder / "lease.lock").read_text())
        second = lucky.home.warehouse("run")
    finally:
        _, error = running.communicate(timeout=120)
    assert running.returncode == 0, error
    assert second.code == 3
    assert f"another process is writing this warehouse: process {running.pid}, `warehouse run`, since 2" in second.err
    assert "mend: wait for it to end" in second.err
    refused, first = lucky.runs(2)
    assert (refused["status"], first["status"]) == ("failed", "succeeded")
    assert str(running.pid) in refused["error"]
    lucky.tells_nothing(second)
    lucky.is_well_again()


def test_a_server_that_hangs_up_while_it_is_read_costs_one_run(lucky: Lucky) -> None:
    company = lucky.home.company
    company.execute(
        "ALTER TABLE shop.orders RENAME TO orders_table",
        "CREATE VIEW shop.orders AS SELECT id, user_id, ordered_at, quantity, revenue, currency, status, updated_at "
        "FROM (SELECT *, pg_sleep(0.001) FROM shop.orders_table OFFSET 0) AS slowly",
    )
    hung_up = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'warehouse' AND state = 'active' AND query LIKE '%shop\".\"orders%'"
    )

    def hang_up() -> Ran:
        running = call("run", wait=False, **lucky.home.settings)
        with closing(psycopg2.connect(company.server.url())) as connection, connection.cursor() as cursor:
            connection.autocommit = True

            def done() -> bool:
                cursor.execute(hung_up)
                return cursor.fetchone() is not None

            try:
                _until(done)
            finally:
                out, err = running.communicate(timeout=120)
        return Ran(running.returncode, out, err)

    # No trade meanwhile: it writes to the table, which is a view now.
    shown = fingerprint(lucky.home.folder)
    ran = hang_up()
    company.execute("DROP VIEW shop.orders", "ALTER TABLE shop.orders_table RENAME TO orders")
    assert ran.code == 3, ran.err
    assert "postgres: reading shop.orders: the server hung up" in ran.err
    assert "mend: " in ran.err
    assert fingerprint(lucky.home.folder) == shown
    assert lucky.runs()[0]["status"] == "failed"
    lucky.tells_nothing(ran)
    lucky.is_well_again()


def test_a_negative_order_is_kept_from_readers_until_production_corrects_it(lucky: Lucky) -> None:
    company = lucky.home.company

    def spoilt() -> Ran:
        company.execute("UPDATE shop.orders SET revenue = -5, updated_at = now() WHERE id = 4711")
        return lucky.forks.warehouse(lucky.home, "run")

    lucky.fails(spoilt, 1, "marts.order_facts: audit amount_is_valid found 1 rows", "correct them at their source", recorded="findings")
    told = lucky.home.warehouse("alert", "--dry-run").out
    assert "raw_postgres.orders.revenue: not_negative" in told  # not only that an audit failed: of which rows, furthest up
    assert "marts.order_facts: audit amount_is_valid" in told
    company.execute("UPDATE shop.orders SET revenue = 5, updated_at = now() WHERE id = 4711")
    lucky.is_well_again()


FULL_AT: list[Point] = [
    ("pipelines.postgres_stream:Stream.write", "before", 2),
    ("pipelines.landing:keep", "before", 1),
    ("dlt.pipeline.pipeline:Pipeline.load", "before", 1),
    ("transform.build:_run", "before", 1),
    ("serving.publish:_write", "before", 1),
]


@pytest.fixture(scope="module")
def on_a_small_disk(company_server: Server, forks: Forks, built_empty: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lucky]:
    """A home on a file system of its own, of 400 MB."""
    folder = tmp_path_factory.mktemp("disk")
    mount = ["mount", "-t", "tmpfs", "-o", f"size=400m,uid={os.getuid()}", "tmpfs", str(folder)]
    privileged = next((sudo for sudo in ([], ["sudo", "-n"]) if _succeeds([*sudo, *mount])), None)
    if privileged is None:
        pytest.skip("needs the right to mount a tmpfs")
    try:
        with _lucky(company_server, forks, built_empty, "disk", folder) as home:
            yield home
    finally:
        subprocess.run([*privileged, "umount", "--lazy", str(folder)], check=True)


@pytest.mark.parametrize("point", FULL_AT, ids=lambda point: f"{point[1]} {point[0].partition(':')[2]} {point[2]}")
def test_a_disk_that_fills_up_costs_one_run(on_a_small_disk: Lucky, point: Point) -> None:
    home = on_a_small_disk.home
    ran = on_a_small_disk.fails(lambda: _and_then_free(home, on_a_small_disk.forks.warehouse(home, "run", fills=point)), 3)
    assert "No space left on device" in ran.err or "disk is full" in ran.err or "ull" in ran.err, ran.err
    assert "free some space" in ran.err, ran.err
    on_a_small_disk.is_well_again()


def test_a_nearly_full_disk_is_said_before_anything_is_done(on_a_small_disk: Lucky) -> None:
    home = on_a_small_disk.home
    free = shutil.disk_usage(home.folder).free

    def nearly_full() -> Ran:
        (home.folder / "balloon").write_bytes(bytes(free - 100_000_000))
        return _and_then_free(home, on_a_small_disk.forks.warehouse(home, "run"))

    ran = on_a_small_disk.fails(nearly_full, 3, "is nearly full", "at least 200 MB are needed", str(home.folder), "free some space or move WAREHOUSE_HOME")
    assert ran.out == ""
    on_a_small_disk.is_well_again()


def _and_then_free(home: Home, ran: Ran) -> Ran:
    (home.folder / "balloon").unlink()
    return ran


def _succeeds(command: list[str]) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def _until(condition: Callable[[], Any], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)
