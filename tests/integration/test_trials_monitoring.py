"""The short form of `make trials-monitoring`: the faults of one row are found with their cause first, half of the money is missed, ordinary weeks are quiet."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlmesh.utils.metaprogramming import import_python_file
from trials import shop
from trials.carried import Trial, comparable, is_right, is_routed
from trials.catalogue import CATALOGUE, DAYS
from trials.counted import Counted, rate
from trials.days import FAULTS, clean_years, faults
from trials.home import models
from trials.mutations import dead_weight

from warehouse.settings import ROOT

REPORT = ROOT / "docs" / "monitoring-figures.md"
SEED = 7000
MUTATED = {"raw_postgres.orders", "staging.stg_postgres__users", "marts.order_facts"}
RULES = [fault for fault in CATALOGUE if not fault.is_of_days]


@pytest.fixture(scope="module")
def trial() -> Iterator[Trial]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shop, "BASES", (40,))
        yield Trial(SEED)


def test_faults_of_one_row_are_found_with_their_cause_first_and_no_check_is_skipped_in_silence(trial: Trial) -> None:
    wrong = []
    for fault in RULES[:: 1 if len(RULES) < 20 else 2]:
        seen = trial.run(fault, 0)
        if not (is_right(fault, seen) and is_routed(fault, seen) and seen.skipped == 0):
            wrong.append((fault.name, [(group.cause.table, group.cause.check) for group in seen.groups], seen.skipped))
    assert wrong == []


def test_the_queries_that_stand_for_soda_find_what_soda_finds(trial: Trial) -> None:
    for fault in (RULES[0], RULES[16], RULES[20]):
        here, by_soda = trial.run(fault, 1), trial.run(fault, 1, by_soda=True)
        assert {comparable(one) for one in here.found} == {comparable(one) for one in by_soda.found}, fault.name
        assert here.found


def test_models_are_rendered_with_this_checkouts_macros_also_after_another_one_was_read(tmp_path: Path) -> None:
    for name in ("__init__", "report_day", "money"):
        (tmp_path / "macros").mkdir(exist_ok=True)
        (tmp_path / "macros" / f"{name}.py").write_text((ROOT / "macros" / f"{name}.py").read_text())
    here = [*sys.path]
    sys.path[:] = [str(tmp_path), *(one for one in here if one != str(ROOT))]
    try:
        import_python_file(tmp_path / "macros" / "report_day.py", tmp_path)
    finally:
        sys.path[:] = here
    assert Path(sys.modules["macros.report_day"].__file__ or "").is_relative_to(tmp_path)
    assert models.__wrapped__() == models()
    assert Path(sys.modules["macros.report_day"].__file__ or "").is_relative_to(ROOT)


def test_half_of_the_orders_or_of_the_money_is_noticed_on_the_next_morning() -> None:
    halves = [(name, (severities[1],) * 3) for name, severities in FAULTS[:2]]
    for generator, name, _, found in faults([SEED], 300, 0.1, wanted=halves):
        assert found.at_once.found >= found.at_once.of - 1, (generator, name)
        assert found.z_score.found < found.at_once.found


def test_ordinary_weeks_cry_seldom() -> None:
    alarms = [clean_years(generator, SEED, 150, length=100)[0] for generator in ("season", "memory")]
    assert sum(alarms) <= 2 * 2 * 13 * 100 / 365


def test_a_check_that_is_taken_away_is_missed() -> None:
    alone, dead = dead_weight(MUTATED)
    assert len(alone) > 25
    assert dead == []


def test_the_figures_kept_are_whole() -> None:
    text = REPORT.read_text()
    titles = {"The catalogue", "Volume and revenue, by size", "Clean years", "Each check taken away once", "Speed"}
    assert titles <= set(re.findall(r"^## (.+)$", text, re.MULTILINE))
    assert [fault.name for fault in CATALOGUE if f"| {fault.name} | {fault.where} |" not in text] == []
    assert len(CATALOGUE) >= 40
    assert len({fault.name for fault in CATALOGUE}) == len(CATALOGUE)
    assert len(DAYS) >= 15
    assert (str(Counted(20, 20)), str(Counted(0, 20)), rate(0, 10)) == ("100.0 % (83.2 to 100.0)", "0.0 % (0.0 to 16.8)", "0.00 (0.00 to 0.37)")
