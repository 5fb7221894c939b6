"""The commands of docs/disaster-recovery.md do what the page says, in its order, on a machine that has nothing but the settings."""

import os
import re
import subprocess
import sys
from pathlib import Path

from integration.backup_home import METRICS, fill
from integration.object_stores import Backups

from backup.take import take_warehouse
from warehouse.settings import ROOT


def test_the_page_s_commands_bring_the_warehouse_back(backups: Backups, home: Path, tmp_path: Path) -> None:
    fill(home)
    take_warehouse(METRICS, 0)
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
