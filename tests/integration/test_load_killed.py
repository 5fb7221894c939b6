"""A load killed at each step that counts, one by one; tests/e2e/test_loader_killed.py kills at random moments."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Company, ask, call, load_postgres

from pipelines import rebuild
from warehouse import ledger

DECLARATION = "deletes: hourly\nlag: 1s\ntables:\n  shop.t:\n"

DIES = """
import os, signal, sys
from pathlib import Path
import pipelines.postgres, pipelines.source
from pipelines import landing, raw
from privacy import policy
folder = Path(os.environ["DECLARED"])
pipelines.source.FOLDER = pipelines.postgres.FOLDER = folder
policy.POLICY_FILE = folder / "policy.yaml"
moment = os.environ["MOMENT"]
keep, merge, mark = landing.keep, raw.merge, landing.mark_loaded


def die(*given):
    os.kill(os.getpid(), signal.SIGKILL)


class DiesAtInsert:
    def __init__(self, connection):
        self._connection = connection

    def __getattr__(self, name):
        return getattr(self._connection, name)

    def execute(self, sql, *given):
        return die() if sql.startswith("INSERT INTO") else self._connection.execute(sql, *given)


def after(step):
    def call(*given):
        step(*given)
        die()
    return call


if moment == "before it is kept":
    landing.keep = die
elif moment == "when it is kept":
    landing.keep = after(keep)
elif moment == "before the merge":
    raw.merge = die
elif moment == "between delete and insert":
    raw.merge = lambda connection, *given: merge(DiesAtInsert(connection), *given)
elif moment == "after the merge":
    raw.merge = after(merge)
elif moment == "after the mark":
    landing.mark_loaded = after(mark)
sys.argv = ["warehouse", "load", "postgres"]
from cli.main import main
main()
"""
MOMENTS = ["before it is kept", "when it is kept", "before the merge", "between delete and insert", "after the merge", "after the mark"]


def content() -> list[tuple[Any, ...]]:
    return ask("SELECT id, v, _deleted_at IS NOT NULL FROM raw_postgres.t ORDER BY id")


@pytest.mark.parametrize("is_machine_lost", [False, True], ids=["same machine", "machine lost"])
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_load_killed_there_is_made_good(
    company: Company,
    declare: Callable[[str], None],
    setting: Callable[[str, str | None], None],
    home: Path,
    tmp_path: Path,
    moment: str,
    is_machine_lost: bool,
) -> None:
    company.execute(
        "CREATE TABLE shop.t (id bigint PRIMARY KEY, v text, updated_at timestamptz NOT NULL DEFAULT clock_timestamp())",
        "INSERT INTO shop.t (id, v) SELECT i, 'first' FROM generate_series(1, 5) i",
    )
    declare(DECLARATION)
    load_postgres()
    company.execute(
        "UPDATE shop.t SET v = 'second', updated_at = clock_timestamp() WHERE id = 1",
        "DELETE FROM shop.t WHERE id = 2",
        "INSERT INTO shop.t (id, v) VALUES (6, 'passing')",
    )
    hour = "2100-01-01T00:00:00Z"
    died = call(script=DIES, MOMENT=moment, DECLARED=str(tmp_path / "declared"), WAREHOUSE_NOW=hour)
    assert died.code == -9, died.err
    was_seen = content()[-1][:2] == (6, "passing")
    if is_machine_lost:
        shutil.rmtree(home / "dlt", ignore_errors=True)
        shutil.rmtree(home / "work", ignore_errors=True)
    company.execute("DELETE FROM shop.t WHERE id = 6")
    setting("WAREHOUSE_NOW", "2100-01-01T02:00:00Z")
    load_postgres()
    found = content()
    assert found[:5] == [(1, "second", False), (2, "first", True), *((number, "first", False) for number in (3, 4, 5))]
    assert found[5:] in ([(6, "passing", True)], [] if not was_seen else None), "what was loaded is a tombstone, what never was is nowhere"
    with ledger.run("rebuild postgres") as run:
        rebuild.rebuild("postgres", run)
    assert content() == found
