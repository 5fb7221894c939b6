"""One comment a pull request: written once, renewed in place, found among many, and never with the token in it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from integration.github import REPOSITORY, TOKEN, GitHub, pull_request

from cli import pull_request as ours
from cli.review import _environment_name
from warehouse.errors import StepFailed, UsageError


@pytest.fixture
def github(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[GitHub]:
    monkeypatch.setattr(ours, "FIRST_WAIT", 0.01)
    with pull_request(tmp_path, monkeypatch) as server:
        yield server


def test_a_comment_is_written_and_then_renewed_where_it_stands(github: GitHub) -> None:
    github.write("a reader's words")
    github.write(f"> {ours.MARKER} quoted by a reader")
    ours.post(ours.target(), "first")
    github.write("more of a reader's words")
    ours.post(ours.target(), "second")
    assert [one["body"] for one in github.comments] == [
        "a reader's words",
        f"> {ours.MARKER} quoted by a reader",
        f"{ours.MARKER}\nsecond",
        "more of a reader's words",
    ]


@pytest.mark.parametrize("before", [99, 100, 230])
def test_the_comment_is_found_on_a_later_page(github: GitHub, before: int) -> None:
    for number in range(before):
        github.write(f"comment {number}")
    ours.post(ours.target(), "first")
    ours.post(ours.target(), "second")
    assert [one["body"] for one in github.comments[before:]] == [f"{ours.MARKER}\nsecond"]


@pytest.mark.parametrize(("method", "all_the_same"), [("GET", False), ("POST", False), ("POST", True)])
def test_what_github_fails_at_is_tried_again_and_written_once(github: GitHub, method: str, all_the_same: bool) -> None:
    github.failures = [(method, 500, all_the_same), ("GET", 502, False)]
    ours.post(ours.target(), "report")
    assert [one["body"] for one in github.comments] == [f"{ours.MARKER}\nreport"]


def test_when_github_stays_down_the_error_says_so(github: GitHub) -> None:
    github.failures = [("GET", 503, False)] * 20
    with pytest.raises(StepFailed, match="did not take the comment: HTTP 503"):
        ours.post(ours.target(), "report")
    assert len(github.asked) == ours.TRIES


@pytest.mark.parametrize(("method", "status"), [("GET", 403), ("POST", 403), ("POST", 404), ("GET", 401)])
def test_a_refusal_is_not_tried_again_names_the_permission_and_hides_the_token(github: GitHub, method: str, status: int) -> None:
    github.failures = [(method, status, False)]
    with pytest.raises(StepFailed) as raised:
        ours.post(ours.target(), "report")
    assert f"HTTP {status}" in raised.value.what
    assert "pull-requests: write" in raised.value.mend
    assert TOKEN not in f"{raised.value} {raised.value.__dict__}"
    assert TOKEN not in repr(ours.target())
    assert len(github.asked) <= 2


def test_a_long_report_is_cut_at_a_line_with_a_note(github: GitHub) -> None:
    ours.post(ours.target(), "".join(f"line {number}: é\n" for number in range(10_000)))
    body = github.comments[0]["body"]
    assert 65_000 < len(body) <= ours.LONGEST
    *_, last, _, note = body.strip().split("\n")
    assert last.endswith(": é")
    assert "longer than GitHub takes" in note


def test_a_fork_is_not_commented(github: GitHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with pull_request(tmp_path, monkeypatch, head="somebody/warehouse") as server:
        ours.post(ours.target(), "report")
        assert server.asked == github.asked == []
    assert "not commented" in capsys.readouterr().err


@pytest.mark.usefixtures("github")
def test_what_is_missing_is_named_before_anything_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (ours.number(), ours.target().repository) == (12, REPOSITORY)
    monkeypatch.delenv("GITHUB_EVENT_PATH")
    with pytest.raises(UsageError, match="names no event of a pull request"):
        ours.target()
    monkeypatch.delenv("GITHUB_TOKEN")
    with pytest.raises(UsageError, match="GITHUB_TOKEN not set"):
        ours.target()


@pytest.mark.usefixtures("github")
def test_the_environment_is_named_for_the_pull_request_else_for_the_branch(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _environment_name(None) == "pr_12"
    assert _environment_name("Try-1") == "try_1"
    monkeypatch.delenv("GITHUB_EVENT_PATH")
    monkeypatch.setenv("GITHUB_HEAD_REF", "feature/Prices; in JPY")
    assert _environment_name(None) == "branch_feature_prices_in_jpy"
