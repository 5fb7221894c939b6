"""Faults of every kind, by chance and repeatable: no backup that was acknowledged is lost, and none that is corrupt is called good.

The short form of `make trials-backup`: every fault at the home's backups and three at production's log, once each.
"""

import pytest
from faults.home import HOME_FAULTS
from faults.production_faults import PRODUCTION_FAULTS
from faults.trials import at_most, kinds, run

SEED = 1
HERE = [*HOME_FAULTS, "bit turned: log", "database server killed", "receiver's disk lost"]


def test_no_fault_loses_a_backup_or_makes_a_corrupt_one_pass(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("trials")
    done = list(run(folder, SEED, list(enumerate(HERE))))
    assert [(one.number, one.kind, one.error) for one in done if one.outcome == "failed"] == []
    assert len(done) == len(HERE) == 30


def test_the_kinds_take_turns_by_seed_and_the_bound_is_that_of_their_number() -> None:
    everything = {*HOME_FAULTS, *PRODUCTION_FAULTS}
    assert set(kinds(1, len(everything))) == everything
    assert kinds(1, 500) == kinds(1, 500)[:500] != kinds(2, 500)
    assert at_most(0, 1000) == pytest.approx(3 / 1000, rel=0.01)
    assert at_most(1, 1000) == pytest.approx(0.00473, rel=0.01)
