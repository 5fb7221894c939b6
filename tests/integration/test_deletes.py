"""Hard deletes: found by comparing keys, kept with their last values, and not believed when too many vanish at once."""

from collections.abc import Callable
from typing import Any

import pytest
from conftest import Company, ask, load_postgres

from pipelines import landing, rebuild
from warehouse import ledger
from warehouse.errors import StepFailed


@pytest.fixture
def orders(company: Company, declare: Callable[[str], None]) -> Company:
    """The orders alone, keys compared at every load."""
    company.execute("DELETE FROM shop.orders WHERE id > 1000")
    declare("deletes: hourly\ntables:\n  shop.orders:\n")
    load_postgres()
    return company


def test_a_deleted_row_keeps_its_last_values(orders: Company, setting: Callable[[str, str | None], None]) -> None:
    before = ask("SELECT * EXCLUDE (_loaded_at, _settled_at, _deleted_at) FROM raw_postgres.orders WHERE id IN (5, 6) ORDER BY id")
    orders.execute("DELETE FROM shop.orders WHERE id IN (5, 6)")
    assert load_postgres()["orders"].rows_deleted == 2
    after = ask("SELECT * EXCLUDE (_loaded_at, _settled_at, _deleted_at) FROM raw_postgres.orders WHERE _deleted_at IS NOT NULL ORDER BY id")
    assert after == before
    assert ask("SELECT count(*), count(_deleted_at) FROM raw_postgres.orders") == [(1000, 2)]
    assert ask("SELECT DISTINCT _deleted_at = _loaded_at FROM raw_postgres.orders WHERE id = 5") == [(True,)]


def test_a_row_that_comes_back_is_there_again(orders: Company, setting: Callable[[str, str | None], None]) -> None:
    orders.execute("CREATE TABLE shop.aside AS SELECT * FROM shop.orders WHERE id = 5", "DELETE FROM shop.orders WHERE id = 5")
    load_postgres()
    orders.execute("INSERT INTO shop.orders SELECT * FROM shop.aside", "UPDATE shop.orders SET updated_at = now() WHERE id = 5")
    assert load_postgres()["orders"].rows_written == 1
    assert ask("SELECT _deleted_at FROM raw_postgres.orders WHERE id = 5") == [(None,)]


def test_changes_and_deletes_of_one_load_arrive_together_and_a_rebuild_knows_them(orders: Company) -> None:
    orders.execute("DELETE FROM shop.orders WHERE id = 7", "UPDATE shop.orders SET status = 'x', updated_at = now() WHERE id = 8")
    loaded = load_postgres()["orders"]
    assert (loaded.rows_written, loaded.rows_deleted) == (1, 1)
    before = ask("SELECT * FROM raw_postgres.orders ORDER BY id")
    ask("DROP TABLE raw_postgres.orders")
    with ledger.run("rebuild postgres") as run:
        rebuild.rebuild("postgres", run)
    assert ask("SELECT * FROM raw_postgres.orders ORDER BY id") == before
    assert len(list(landing.packages("postgres", "orders"))) == 2


@pytest.mark.parametrize("vanish", ["TRUNCATE shop.orders", "DELETE FROM shop.orders", "DELETE FROM shop.orders WHERE id <= 60"])
def test_too_many_at_once_are_not_believed_but_changes_still_arrive(orders: Company, vanish: str) -> None:
    orders.execute(vanish, "INSERT INTO shop.orders SELECT 2000, id, now(), 1, 1, 'USD', 'completed', now() FROM shop.users LIMIT 1")
    loaded = load_postgres()["orders"]
    assert loaded.rows_written == 1
    assert loaded.rows_deleted == 0
    assert loaded.findings
    assert "vanished from the source at once" in loaded.findings[0]
    assert "max_deleted_share" in loaded.findings[0]
    assert ask("SELECT count(_deleted_at), count(*) FROM raw_postgres.orders") == [(0, 1001)]
    steps = {step["step"]: step["status"] for step in ledger.recent_runs(1)[0]["steps"]}
    assert steps["compare keys"] == "findings"


def test_what_the_operator_allows_is_believed(orders: Company, declare: Callable[[str], None]) -> None:
    orders.execute("DELETE FROM shop.orders WHERE id <= 60")
    declare("deletes: hourly\nmax_deleted_share: 0.1\ntables:\n  shop.orders:\n")
    assert load_postgres()["orders"].rows_deleted == 60


def test_keys_are_compared_on_their_schedule(company: Company, declare: Callable[[str], None], setting: Callable[[str, str | None], None]) -> None:
    setting("WAREHOUSE_NOW", "2030-01-01T10:00:00Z")
    company.execute("DELETE FROM shop.orders WHERE id > 1000")
    declare("deletes: daily\ntables:\n  shop.orders:\n")
    load_postgres()
    load_postgres()
    company.execute("DELETE FROM shop.orders WHERE id = 5")
    setting("WAREHOUSE_NOW", "2030-01-01T20:00:00Z")
    assert load_postgres()["orders"].rows_deleted == 0
    setting("WAREHOUSE_NOW", "2030-01-02T10:00:00Z")
    assert load_postgres()["orders"].rows_deleted == 1
    declare("deletes: never\ntables:\n  shop.orders:\n")
    company.execute("DELETE FROM shop.orders WHERE id = 6")
    setting("WAREHOUSE_NOW", "2030-02-02T10:00:00Z")
    assert load_postgres()["orders"].rows_deleted == 0


def test_an_emptied_table_without_a_key_is_empty_here_too(company: Company, declare: Callable[[str], None]) -> None:
    company.execute("CREATE TABLE shop.notes AS SELECT 'said' AS said FROM generate_series(1, 3)", "GRANT SELECT ON shop.notes TO warehouse_reader")
    declare("tables:\n  shop.notes:\n")
    load_postgres()
    company.execute("DELETE FROM shop.notes")
    assert load_postgres()["notes"].rows_deleted == 3
    assert ask("SELECT count(*) FROM raw_postgres.notes") == [(0,)]
    assert load_postgres()["notes"].rows_deleted == 0
    with ledger.run("rebuild postgres") as run:
        rebuild.rebuild("postgres", run)
    assert ask("SELECT count(*) FROM raw_postgres.notes") == [(0,)]


def test_what_was_compared_by_a_load_that_failed_is_compared_again(orders: Company, monkeypatch: pytest.MonkeyPatch) -> None:
    orders.execute("DELETE FROM shop.orders WHERE id = 5")

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(landing, "keep", full)
        with pytest.raises(StepFailed):
            load_postgres()
    assert load_postgres()["orders"].rows_deleted == 1
