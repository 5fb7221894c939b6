"""The commands of docs/disaster-recovery.md do what the page says, in its order, on a machine that has nothing but the settings."""

import os
import re
import subprocess
import sys
from pathlib import Path

from integration.backup_home import METRICS, fill
from integration.object_stores import Backups

from backup.archive import take_archive, take_deep_archive
from backup.take import take_warehouse
from warehouse.settings import ROOT


def test_the_page_s_commands_bring_the_warehouse_back(backups: Backups, home: Path, tmp_path: Path) -> None:
    warehouse, archive = "{every: 1d, keep: 30d, stores: [a, b]}", "{every: 7d, keep: 7y, stores: [b]}"
    backups.write(lock_days=None, warehouse=warehouse, archive=archive, deep_archive="{every: 30d, keep: 7y, stores: [a]}")
    fill(home)
    take_warehouse(METRICS, 0)
    take_archive(0)
    take_deep_archive()
    for key in backups.keys("a"):
        backups.servers["a"].client().delete_object(Bucket=backups.buckets["a"], Key=key)
    home.rename(tmp_path / "lost")
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "docs" / "disaster-recovery.md").read_text(), re.DOTALL)
    script = "set -eux\n" + "\n".join(blocks)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    fresh = tmp_path / "fresh"
    ran = subprocess.run(["bash", "-c", script], cwd=ROOT, env={**os.environ, "PATH": path, "FRESH": str(fresh)}, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert (fresh / "published" / "warehouse.duckdb").exists()
    assert "\n2000\n" in ran.stdout
    assert "hidden or covered" in ran.stdout
    assert (tmp_path / "fresh-archive" / "marts" / "order_facts.parquet").exists()
