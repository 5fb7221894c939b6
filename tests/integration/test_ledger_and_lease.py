"""The ledger records every run, whatever happens to it; the lease lets one writer in at a time."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from conftest import Company

from warehouse import lease, ledger, storage
from warehouse.errors import FindingsFound, LeaseHeld, StepFailed
from warehouse.settings import ROOT

HOLD = """
import sys, time
sys.path.insert(0, {root!r})
from warehouse.lease import lease
with lease('a long run'):
    print('held', flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(home: Path) -> "subprocess.Popen[str]":
    process = subprocess.Popen([sys.executable, "-c", HOLD.format(root=str(ROOT))], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_a_second_writer_is_told_who_the_first_is(holder: "subprocess.Popen[str]") -> None:
    assert not lease.is_free()
    with pytest.raises(LeaseHeld, match=f"process {holder.pid}, `warehouse a long run`"), lease.lease("mine"):
        pass


def test_a_killed_writer_leaves_the_lease_free(holder: "subprocess.Popen[str]") -> None:
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    assert lease.is_free()
    with lease.lease("mine"), lease.lease("nested use is the same lease"):
        assert not lease.is_free()
    assert lease.is_free()


def test_shared_storage_takes_its_lease_in_postgresql(company: Company, setting: Callable[[str, str | None], None]) -> None:
    setting("WAREHOUSE_STORAGE", "motherduck")
    setting("WAREHOUSE_STATE_CREDENTIALS", company.owner_url)
    program = HOLD.format(root=str(ROOT))
    with lease.lease("mine"):
        other = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=30)
        assert "another machine is writing" in other.stderr
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    with pytest.raises(LeaseHeld), lease.lease("mine"):
        pass
    process.kill()
    process.wait()
    for _ in range(100):  # the server notices a dead client within moments
        try:
            with lease.lease("mine"):
                return
        except LeaseHeld:
            continue
    pytest.fail("the lease of a killed writer was not freed")


def test_runs_and_steps_are_recorded_with_their_errors_scrubbed(home: Path) -> None:
    with ledger.run("run") as run, run.step("load", "postgres") as step:
        step.rows_in, step.rows_out = 3, 2
    with pytest.raises(StepFailed), ledger.run("run") as run, run.step("load", "postgres"):
        raise StepFailed("cannot reach postgresql://u:hunter22@h/db for jo@example.com")
    with pytest.raises(FindingsFound), ledger.run("check"):
        raise FindingsFound("2 findings")
    findings, failed, succeeded = ledger.recent_runs(3)
    assert [one["status"] for one in (succeeded, failed, findings)] == ["succeeded", "failed", "findings"]
    assert succeeded["steps"][0] | {"seconds": 0, "started_at": "", "ended_at": "", "run_id": ""} == {
        "run_id": "", "position": 1, "step": "load", "item": "postgres", "started_at": "", "ended_at": "", "seconds": 0,
        "status": "succeeded", "rows_in": 3, "rows_out": 2, "error": None, "detail": None,
    }  # fmt: skip
    assert "hunter22" not in failed["error"]
    assert "jo@example.com" not in failed["steps"][0]["error"]
    assert json.loads(succeeded["versions"])["duckdb"]
    assert ledger.last_success("load", "postgres") is not None
    assert ledger.last_success("load", "stripe") is None


def test_a_killed_run_is_seen_as_interrupted(home: Path) -> None:
    program = f"""
        import os, signal, sys
        sys.path.insert(0, {str(ROOT)!r})
        from warehouse import ledger
        with ledger.run("run") as run, run.step("transform"):
            os.kill(os.getpid(), signal.SIGKILL)
    """
    killed = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert ledger.recent_runs(1)[0]["status"] == "running"
    assert ledger.mark_interrupted() == 1
    run = ledger.recent_runs(1)[0]
    assert (run["status"], run["steps"][0]["status"]) == ("interrupted", "interrupted")
    assert ledger.mark_interrupted() == 0


def test_the_ledger_is_copied_into_ops_once_and_read_back_on_an_empty_machine(home: Path) -> None:
    for number in range(3):
        with ledger.run(f"run {number}") as run, run.step("load", "postgres") as step:
            step.rows_in = number
    with storage.open_warehouse() as connection:
        assert ledger.copy_into(connection) == 3
        assert ledger.copy_into(connection) == 0
        assert connection.execute("SELECT count(*), count(DISTINCT run_id) FROM ops.runs WHERE status = 'succeeded'").fetchone() == (3, 3)
        assert connection.execute("SELECT sum(rows_in), count(*) FROM ops.run_steps").fetchone() == (3, 3)
    before = ledger.recent_runs(10)
    for file in home.glob("ledger.*"):
        file.unlink()
    with ledger.run("run after") as run:
        assert ledger.is_new() or len(ledger.recent_runs(10)) == 1
        with storage.open_warehouse() as connection:
            ledger.fill_from(connection)
    after = ledger.recent_runs(10)
    assert after[0]["command"] == "run after"
    assert [(one["run_id"], one["started_at"], one["status"]) for one in after[1:]] == [(one["run_id"], one["started_at"], one["status"]) for one in before]


def test_following_for_a_year_leaves_what_moved_what_failed_and_what_says_what_is_due(home: Path, setting: Callable[[str, str | None], None]) -> None:
    def follow(at: datetime, rows: int = 0, error: str = "", command: str = ledger.FOLLOWS, **detail: object) -> str:
        setting("WAREHOUSE_NOW", at.isoformat())
        with suppress(StepFailed), ledger.run(command) as run:
            for source in sources:
                with run.step("load", source) as step:
                    step.rows_out, step.detail = rows, detail
            with run.step("check") as step:
                step.rows_out = 3  # warnings that stand for months
            if error:
                raise StepFailed(error)
        return run.run_id

    began = datetime(2026, 1, 1, tzinfo=UTC)
    sources = ["stripe", "zendesk"]
    weekly = follow(began)
    sources = ["stripe"]
    deleted = {"tables": {"orders": {"rows_out": 0, "rows_deleted": 2}}}
    kept = [
        weekly, follow(began, rows=1), follow(began, error="refused"), follow(began, command="run"), follow(began, planned=True),
        follow(began, schema_changes=["a"]), follow(began, **deleted),
    ]  # fmt: skip
    idle = [follow(began + timedelta(hours=hours), planned=False, schema_changes=[], tables={}) for hours in range(1, 5)]
    young = follow(began + timedelta(days=4))
    with storage.open_warehouse() as connection:

        def remain() -> set[str]:
            ledger.copy_into(connection)
            ledger.prune(connection)
            in_ops = {run_id for (run_id,) in connection.execute("SELECT run_id FROM ops.runs").fetchall()}
            assert in_ops == {run_id for (run_id,) in connection.execute("SELECT DISTINCT run_id FROM ops.run_steps").fetchall()}
            assert in_ops == {run["run_id"] for run in ledger.recent_runs(1000)}
            return in_ops

        assert remain() == {*kept, *idle, young}
        setting("WAREHOUSE_NOW", (began + timedelta(days=8)).isoformat())
        assert remain() == {*kept, young}
        setting("WAREHOUSE_NOW", (began + timedelta(days=365)).isoformat())
        assert remain() == {*kept, young}, "the last load of each source says when the next is due"
        newest = follow(began + timedelta(days=365))
        assert remain() == {*kept, newest}
        assert ledger.last_success("load", "zendesk") == began


def test_a_full_disk_still_leaves_room_for_the_record(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sqlite3

    with ledger.run("run"):
        pass
    ballast = home / "ledger.ballast"
    assert ballast.stat().st_size == 1 << 20
    write = ledger._execute

    def full_until_the_ballast_is_gone(statement: str, values: tuple[object, ...]) -> None:
        if ballast.exists():
            raise sqlite3.OperationalError("database or disk is full")
        write(statement, values)

    monkeypatch.setattr(ledger, "_execute", full_until_the_ballast_is_gone)
    monkeypatch.setattr(Path, "write_bytes", lambda self, data: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(StepFailed), ledger.run("run"):
        raise StepFailed("the disk is full")
    assert ledger.recent_runs(1)[0]["status"] == "failed"


def test_status_answers_while_another_process_writes(holder: "subprocess.Popen[str]", home: Path) -> None:
    warehouse = Path(sys.executable).parent / "warehouse"
    with ledger.run("run"):
        pass
    shown = subprocess.run([str(warehouse), "status", "--json"], capture_output=True, text=True, check=True)
    assert json.loads(shown.stdout)["writing_now"] is True
