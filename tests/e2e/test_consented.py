"""Consent, as an operator records it: the next run has who agreed in the mart that is for it, and the one after a withdrawal has not."""

import os
import shutil
from pathlib import Path

from e2e.homes import Home, company_of

from demo.server import Server


def test_who_takes_it_back_is_out_of_the_published_mart_after_the_next_run(company_server: Server, built_empty: Path, tmp_path: Path) -> None:
    with company_of(company_server, f"consented_{os.getpid()}", users=300) as company:
        home = Home(shutil.copytree(built_empty, tmp_path / "warehouse"), company)

        def done(*arguments: str) -> str:
            ran = home.warehouse(*arguments)
            assert ran.code == 0, ran.err
            return ran.out

        def audience() -> list[str]:
            done("run")
            return done("query", "SELECT user_id FROM marts.marketing_audience ORDER BY ALL").splitlines()[1:]

        def said(what: str, *subjects: str) -> None:
            for subject in subjects:
                done("privacy", "consent", what, "--subject", subject, "--purpose", "marketing", "--source", "a form")

        said("record", "user:1", "user:2")
        assert audience() == ["1", "2"]
        said("withdraw", "user:2")
        assert audience() == ["1"]
