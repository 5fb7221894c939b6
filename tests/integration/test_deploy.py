"""The label `deploy`: production is built from what was asked for, exactly that is merged, and whoever may not is told why."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from integration.github import SHA, GitHub, pull_request

from cli import deploy as ours
from cli import pull_request as comments
from warehouse.errors import FindingsFound, StepFailed, UsageError


@pytest.fixture
def done() -> list[str]:
    """What was done, in order."""
    return []


@pytest.fixture
def github(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, done: list[str]) -> Iterator[GitHub]:
    """GitHub, where ada set the label; the review and the build are other tests' matter, here they only say that they ran."""
    monkeypatch.setattr(comments, "FIRST_WAIT", 0.01)
    monkeypatch.setattr(ours, "PAUSE", 0.01)
    monkeypatch.setattr(ours, "_checked_out", lambda: SHA)
    monkeypatch.setattr(ours, "review", lambda *_, **__: done.append("review"))
    monkeypatch.setattr(ours, "run_sources", lambda command, is_wanted: done.append(f"{command}, loading {is_wanted('postgres')}"))
    with pull_request(tmp_path, monkeypatch, label="deploy") as server:
        yield server


def test_production_is_built_and_then_the_commit_that_was_built_is_merged(github: GitHub, done: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    ours.deploy(megabytes=100)
    assert done == ["review", "deploy pr_12, loading False"]
    assert github.pull["merged"]
    assert capsys.readouterr().out == f"#12 is deployed and merged: {SHA}\n"


def _set(**values: object) -> Callable[[GitHub], None]:
    return lambda github: github.pull.update(values)


def _may(right: str) -> Callable[[GitHub], None]:
    return lambda github: setattr(github, "permission", right)


def _behind(github: GitHub) -> None:
    github.behind_by = 2


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (_set(state="closed"), "it is closed"),
        (_set(draft=True), "it is a draft"),
        (_set(head={"sha": SHA, "repo": {"full_name": "stranger/warehouse"}}), "it comes from a fork"),
        (_set(head={"sha": SHA, "repo": None}), "it comes from a fork"),
        (_set(base={"ref": "release"}), "it goes to release"),
        (_set(mergeable=False, mergeable_state="dirty"), "it cannot be merged"),
        (_set(mergeable=None), "it cannot be merged"),
        (_set(mergeable_state="blocked"), "a rule of the branch is not met"),
        (_behind, "it lacks 2 commits of main"),
        (_may("triage"), "who set the label may not deploy: triage"),
        (_may("read"), "who set the label may not deploy: read"),
        (_set(head={"sha": "6e" * 20, "repo": {"full_name": "startup/warehouse"}}), f"commit {SHA} is checked out, and #12 is at {'6e' * 20}"),
    ],
)
def test_what_may_not_be_deployed_is_told_before_anything_is_done(github: GitHub, done: list[str], change: Callable[[GitHub], None], why: str) -> None:
    change(github)
    with pytest.raises(UsageError) as refused:
        ours.deploy(megabytes=100)
    assert why in refused.value.what
    assert done == []
    assert not github.pull["merged"]


def test_a_branch_is_asked_for_until_github_knows_whether_it_can_be_merged(github: GitHub, monkeypatch: pytest.MonkeyPatch) -> None:
    github.pull["mergeable"] = None
    looks: list[float] = []

    def wait(seconds: float) -> None:
        looks.append(seconds)
        github.pull["mergeable"] = len(looks) >= 2 or None

    monkeypatch.setattr(ours.time, "sleep", wait)
    ours.deploy(megabytes=100)
    assert github.pull["merged"]
    assert len(looks) == 2


def test_another_label_asks_for_nothing(github: GitHub, done: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "other").mkdir()
    for label in ("bug", ""):
        with pull_request(tmp_path / "other", monkeypatch, label=label), pytest.raises(UsageError, match="nobody asked for it"):
            ours.deploy(megabytes=100)
    assert done == []


@pytest.mark.parametrize("failing", ["review", "run_sources"])
def test_what_the_review_or_the_checks_find_is_not_merged(github: GitHub, monkeypatch: pytest.MonkeyPatch, failing: str) -> None:
    def found(*_: Any, **__: Any) -> None:
        raise FindingsFound("3 findings", mend="mend them")

    monkeypatch.setattr(ours, failing, found)
    with pytest.raises(FindingsFound):
        ours.deploy(megabytes=100)
    assert not github.pull["merged"]
    assert not any(asked.startswith("PUT") for asked in github.asked)


def test_a_push_while_production_is_built_is_not_merged_and_the_way_back_is_told(github: GitHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ours, "run_sources", lambda *_, **__: github.pull["head"].update(sha="6e" * 20))
    with pytest.raises(StepFailed, match="HTTP 409") as failed:
        ours.deploy(megabytes=100)
    assert "production holds the change" in failed.value.mend
    assert not github.pull["merged"]


@pytest.mark.parametrize("did_it_all_the_same", [False, True])
def test_a_merge_that_github_fails_at_is_asked_for_again_and_done_once(github: GitHub, did_it_all_the_same: bool) -> None:
    github.failures = [("PUT", 502, did_it_all_the_same)]
    ours.deploy(megabytes=100)
    assert github.pull["merged"]
