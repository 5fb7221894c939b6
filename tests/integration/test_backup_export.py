"""The export holds every loaded table and every mart as Parquet, and comes back as files that any tool reads."""

from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from conftest import ask
from integration.backup_home import fill, trade
from integration.object_stores import Backups

from backup.drill import drill_export
from backup.encryption import Damaged
from backup.export import restore_export, take_export
from backup.restore import Choice, Restored
from backup.verify import verify
from cli.main import cli
from warehouse import clock
from warehouse.errors import UsageError, WarehouseError

Fails = Callable[..., WarehouseError]


@pytest.fixture
def filled(backups: Backups, home: Path) -> Path:
    backups.write(lock_days=None, export="{every: 7d, keep: 90d, stores: [a, b]}")
    fill(home)
    return home


def _restored(into: Path) -> Restored:
    choice = Choice("export")
    return restore_export(choice, choice.at(clock.now()), into)


def test_each_table_and_mart_is_a_file_that_any_tool_reads(filled: Path, tmp_path: Path, backups: Backups) -> None:
    taken = take_export(0)
    assert taken.stores == ["a", "b"]
    assert {name: table.rows for name, table in taken.backup.tables.items()} == {"marts.order_facts": 2000, "raw_postgres.orders": 2000}
    into = _restored(tmp_path / "back").into
    assert sorted(path.relative_to(into).as_posix() for path in into.rglob("*.parquet")) == ["marts/order_facts.parquet", "raw_postgres/orders.parquet"]
    found = pq.read_table(into / "raw_postgres" / "orders.parquet").sort_by("id").to_pylist()
    assert [(row["id"], row["amount"]) for row in found] == ask("SELECT id, amount FROM raw_postgres.orders ORDER BY id")
    assert verify("export", everything=True).problems == []
    trade(filled, 1)
    assert take_export(0).backup.tables["raw_postgres.orders"].rows == 4000
    assert not list((filled / "backup").glob("staging/*"))


def test_what_is_damaged_or_in_use_is_not_restored(filled: Path, tmp_path: Path, backups: Backups, fails: Fails) -> None:
    take_export(0)
    assert [(one.failed, one.tables) for one in drill_export(seed=1)] == [(None, 2)]
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "file").touch()
    assert isinstance(fails(_restored, tmp_path / "used"), UsageError)
    for store in ("a", "b"):
        backups.flip(store, backups.keys(store, ".age")[0])
    assert isinstance(fails(_restored, tmp_path / "back"), Damaged)
    assert not (tmp_path / "back").exists()
    assert drill_export(seed=1)[0].failed


def test_the_command_line_exports_and_brings_it_back(filled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["backup", "run", "export"], standalone_mode=False)
    cli.main(["restore", "export", "--into", str(tmp_path / "back")], standalone_mode=False)
    cli.main(["drill"], standalone_mode=False)
    out = capsys.readouterr().out
    assert "# restored" in out
    assert "equal" in out
    assert (tmp_path / "back" / "marts" / "order_facts.parquet").exists()
