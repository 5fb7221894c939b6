"""The schedules only call what exists, with the least rights, one writer at a time, and no secret in a command's text."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from cli.main import cli
from warehouse.settings import ROOT, Settings

FILES = sorted((ROOT / ".github" / "workflows").glob("*.y*ml"))
WORKFLOWS = {file.stem: yaml.safe_load(file.read_text()) for file in FILES}
WAREHOUSE = ".venv/bin/warehouse"
MAKE = {"make setup", "make lint", "make test", "make demo"}
# What each verb cannot do without on a machine that has nothing: the verbs that open the warehouse, and those that load.
OPENS = {"MOTHERDUCK_TOKEN", "WAREHOUSE_STATE_CREDENTIALS"}
LOADS = OPENS | {"SOURCES__POSTGRES__CREDENTIALS", "SOURCES__STRIPE__STRIPE_SECRET_KEY"}
LOADS |= {f"SOURCES__GOOGLE_ANALYTICS__{name}" for name in ("PROPERTY_IDS", "CREDENTIALS", "START_DATE")}
LOADS |= {"PRIVACY__HMAC_KEY", "PRIVACY__HMAC_KEY_ID", "PRIVACY__HMAC_KEYS_BEFORE"}  # both others unset until the key is changed
LOADS |= {f"SOURCES__ZENDESK__{part}" for part in ("BASE_URL", "CLIENT_ID", "CLIENT_SECRET")}
ALERTS = ("PAGERDUTY_ROUTING_KEY", "SLACK_TOKEN", "SLACK_CHANNEL", "SMTP_URL", "EMAIL_FROM", "EMAIL_TO", "HEARTBEAT_URL")
TELLS = LOADS | {f"ALERTS__{part}" for part in ALERTS}
BACKS_UP = OPENS | {"BACKUP__POSTGRES"} | {f"BACKUP__{store}__{part}" for store in "AB" for part in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY")}
ARCHIVES = OPENS | {f"BACKUP__{store}__{part}" for store in "ABC" for part in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY")}
NEEDS = {
    "backup": BACKS_UP,
    "backup run archive": ARCHIVES,
    "backup run deep_archive": ARCHIVES,
    "drill": ARCHIVES | {"BACKUP__IDENTITIES"},
    "run": TELLS,
    "compare": OPENS | {"SOURCES__POSTGRES__CREDENTIALS", "PRIVACY__HMAC_KEY"} | {f"ALERTS__{part}" for part in ALERTS if part != "HEARTBEAT_URL"},
    "load": LOADS,
    "doctor": LOADS,
    "check": OPENS,
    "transform": OPENS,
    "review": OPENS,
    "deploy": OPENS,
    "publish": OPENS,
    "status": set(),
}
SECRET = re.compile(r"secrets\.(\w+)")
ENABLED, OF_A_FORK = "vars.WAREHOUSE_ENABLED {} 'true'", "github.event.pull_request.head.repo.full_name {} github.repository"
TOKEN = {"GITHUB_TOKEN": "${{ github.token }}"}
BESIDE = {"backup": "backup", "archive": "backup", "drill": "drill"}
"""The workflows that write no warehouse, and whom they wait for: one another, and not for people; a variable of their own switches them on."""
ESCROW = "drill"
"""The workflow that is given a private key: in an environment that people open."""
COMMENTS = "plan"
"""The workflow of every pull request, which may write a comment."""
MERGES = "deploy"
"""The workflow of those that somebody wants deployed, which may comment and merge."""
WRITES = {(COMMENTS, "pull-requests"), (MERGES, "pull-requests"), (MERGES, "contents")}
LABELED = "github.event.label.name == 'deploy'"

each_workflow = pytest.mark.parametrize("name", sorted(WORKFLOWS))


def _jobs(name: str) -> list[dict[str, Any]]:
    return list(WORKFLOWS[name]["jobs"].values())


def _steps(name: str) -> list[dict[str, Any]]:
    return [step for job in _jobs(name) for step in job["steps"]]


def _verbs(name: str) -> list[tuple[list[str], dict[str, Any]]]:
    """The words after `warehouse` of each step that runs it, and the step."""
    return [(shlex.split(step["run"])[1:], step) for step in _steps(name) if step.get("run", "").startswith(WAREHOUSE)]


def _on(name: str) -> dict[str, Any]:
    return dict(WORKFLOWS[name].get("on") or WORKFLOWS[name][True])  # YAML 1.1 reads the key `on` as true


@each_workflow
def test_each_step_is_one_command_that_exists(name: str) -> None:
    for step in _steps(name):
        assert ("run" in step) != ("uses" in step)
        command = step.get("run")
        if command is None or command in MAKE:
            continue
        assert re.fullmatch(rf"{re.escape(WAREHOUSE)} [\w -]+", command), f"not one plain command: {command!r}"
        verb, *arguments = shlex.split(command)[1:]
        assert verb in cli.commands, f"`warehouse {verb}` does not exist"
        cli.commands[verb].make_context(verb, arguments, resilient_parsing=False)  # refuses an unknown option or a wrong value


@each_workflow
def test_warehouse_runs_only_after_checkout_python_and_setup(name: str) -> None:
    for job in _jobs(name):
        begins = [step.get("uses", step.get("run")).split("@")[0] for step in job["steps"]][:3]
        assert begins == ["actions/checkout", "actions/setup-python", "make setup"]


@each_workflow
def test_actions_are_pinned_to_a_commit_and_leave_no_credentials(name: str) -> None:
    text = next(file for file in FILES if file.stem == name).read_text()
    for used in re.findall(r"uses:\s*(.+)", text):
        assert re.fullmatch(r"[\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", used), used
    for step in _steps(name):
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False


@each_workflow
def test_rights_are_read_only_and_time_is_bounded(name: str) -> None:
    for rights in (WORKFLOWS[name]["permissions"], *(job["permissions"] for job in _jobs(name) if "permissions" in job)):
        reads = {right: level for right, level in rights.items() if (name, right) not in WRITES}
        assert set(reads.values()) <= {"read", "none"}, rights
    assert WORKFLOWS[name]["permissions"] == {"contents": "read"}, "what writes is given to one job"
    assert "pull_request_target" not in _on(name)
    assert all(0 < job["timeout-minutes"] <= 360 for job in _jobs(name))


@each_workflow
def test_one_writer_at_a_time_and_none_is_cancelled(name: str) -> None:
    if not _verbs(name):
        assert WORKFLOWS[name]["concurrency"]["group"] != "warehouse"
        return
    group = "plan-${{ github.event.pull_request.number }}" if name == COMMENTS else BESIDE.get(name, "warehouse")
    assert WORKFLOWS[name]["concurrency"] == {"group": group, "cancel-in-progress": False}
    assert all("concurrency" not in job for job in _jobs(name))


@each_workflow
def test_a_schedule_avoids_the_full_hour_and_can_be_started_by_hand(name: str) -> None:
    if not _verbs(name) or name in (COMMENTS, MERGES):
        assert "schedule" not in _on(name)
        return
    assert "workflow_dispatch" in _on(name)
    minutes = [int(when["cron"].split()[0]) for when in _on(name)["schedule"]]
    assert minutes
    assert all(5 <= minute <= 55 and minute % 15 for minute in minutes), minutes
    elsewhere = [int(when["cron"].split()[0]) for other in WORKFLOWS if other != name for when in _on(other).get("schedule", [])]
    assert not set(minutes) & set(elsewhere), "two schedules would queue for the one writer in the same minute"


@each_workflow
def test_secrets_reach_exactly_the_steps_that_need_them_and_never_a_command(name: str) -> None:
    workflow = WORKFLOWS[name]
    assert "env" not in workflow
    assert all("env" not in job for job in _jobs(name))
    for step in _steps(name):
        assert "${{" not in step.get("run", ""), "an expression in a command can print a secret or be injected into"
        assert not SECRET.search(str(step.get("with", "")) + str(step.get("if", "")))
        if not step.get("run", "").startswith(WAREHOUSE):
            assert "env" not in step
    for (verb, *words), step in _verbs(name):
        given = step["env"]
        secrets = {key for key, value in given.items() if SECRET.search(value)}
        assert all(given[key] == f"${{{{ secrets.{key} }}}}" for key in secrets), "a secret is named like its setting"
        rest = {key: value for key, value in given.items() if key not in secrets}
        if verb in ("review", "deploy"):
            assert rest.items() >= TOKEN.items()
            rest.pop("GITHUB_TOKEN")
        if verb == "review" and not rest:
            assert not secrets, "the demo company has none"
            continue
        assert secrets == NEEDS.get(" ".join([verb, *words[:2]]), NEEDS[verb]), f"`warehouse {verb}`"
        assert rest == {"WAREHOUSE_STORAGE": "motherduck"}


@each_workflow
def test_what_a_step_is_given_are_settings(name: str) -> None:
    aliases = {str(field.validation_alias) for field in Settings.model_fields.values()}
    for step in _steps(name):
        for key in step.get("env", {}).keys() - TOKEN.keys():
            section, _, rest = key.lower().partition("__")
            assert key in aliases or (section in Settings.model_fields and rest), f"{key} is not a setting"


@each_workflow
def test_a_fork_without_secrets_runs_nothing_on_schedule_and_is_reviewed_on_the_demo_company(name: str) -> None:
    for job in _jobs(name):
        if any(SECRET.search(str(step.get("env", ""))) for step in job["steps"]):
            own = f" && {OF_A_FORK.format('==')}" if name in (COMMENTS, MERGES) else ""
            own += f" && {LABELED}" if name == MERGES else " && vars.WAREHOUSE_BACKUPS == 'true'" if name in BESIDE else ""
            assert job["if"] == ENABLED.format("==") + own
            assert name in (COMMENTS, MERGES) or "pull_request" not in _on(name)


@each_workflow
def test_a_private_key_is_given_only_where_people_open_it(name: str) -> None:
    for job in _jobs(name):
        has_key = any("BACKUP__IDENTITIES" in step.get("env", {}) for step in job["steps"])
        assert (name == ESCROW) is has_key
        assert job.get("environment") == ("escrow" if has_key else None)


def test_a_pull_request_is_reviewed_once_against_what_its_target_branch_built() -> None:
    assert _on(COMMENTS) == {"pull_request": None}
    demo, shared = (WORKFLOWS[COMMENTS]["jobs"][job] for job in ("demo", "shared"))
    assert demo["if"] == f"{ENABLED.format('!=')} || {OF_A_FORK.format('!=')}"
    assert demo["permissions"] == shared["permissions"] == {"contents": "read", "pull-requests": "write"}
    checkouts = [step["with"] for step in demo["steps"] if step.get("uses", "").startswith("actions/checkout@")]
    assert [with_.get("ref") for with_ in checkouts] == ["${{ github.event.pull_request.base.sha }}", None]
    assert checkouts[1]["clean"] is False, "the warehouse that was built would go"
    review = f"{WAREHOUSE} review --comment"
    assert [step["run"] for step in demo["steps"] if "run" in step] == ["make setup", "make demo", "make setup", "make lint", review]
    assert [step["run"] for step in shared["steps"] if "run" in step] == ["make setup", "make lint", review]


def test_what_is_deployed_is_what_was_looked_at_when_the_label_was_set() -> None:
    assert _on(MERGES) == {"pull_request": {"types": ["labeled"]}}
    (job,) = _jobs(MERGES)
    assert job["permissions"] == {"contents": "write", "pull-requests": "write"}
    assert job["steps"][0]["with"]["ref"] == "${{ github.event.pull_request.head.sha }}"
    assert [step["run"] for step in job["steps"] if "run" in step] == ["make setup", f"{WAREHOUSE} deploy"]


@each_workflow
def test_the_readme_names_what_must_be_set_on_github(name: str) -> None:
    readme = (ROOT / "README.md").read_text()
    text = next(file for file in FILES if file.stem == name).read_text()
    for needed in {*SECRET.findall(text), *re.findall(r"vars\.(\w+)", text)}:
        assert f"`{needed}`" in readme, needed


def test_every_python_that_is_allowed_is_tested() -> None:
    allowed = re.search(r'requires-python = ">=3\.(\d+),<3\.(\d+)"', (ROOT / "pyproject.toml").read_text())
    assert allowed
    assert WORKFLOWS["ci"]["jobs"]["test"]["strategy"]["matrix"]["python"] == [f"3.{minor}" for minor in range(int(allowed[1]), int(allowed[2]))]
    assert [step["run"] for step in _steps("ci") if "run" in step] == ["make setup", "make lint", "make test"]


@each_workflow
def test_zizmor_finds_nothing_and_nothing_is_silenced(name: str) -> None:
    file = next(file for file in FILES if file.stem == name)
    assert "zizmor:" not in file.read_text(), "a suppression"
    zizmor = Path(sys.executable).with_name("zizmor")
    found = subprocess.run([zizmor, "--offline", "--quiet", "--no-config", "--persona", "pedantic", file], capture_output=True, text=True)
    assert found.returncode == 0, found.stdout


def _ci_run(folder: Path, failing: str) -> tuple[int, list[str]]:
    """Run a copy of `.ci/run` whose `make` only writes down its target, and fails at one of them."""
    (folder / ".ci").mkdir()
    (folder / "bin").mkdir()
    script = folder / ".ci" / "run"
    script.write_bytes((ROOT / ".ci" / "run").read_bytes())
    script.chmod(0o755)
    make = folder / "bin" / "make"
    make.write_text(f'#!/bin/sh\necho "make $* in $PWD with $PYTHON"\n[ "$1" != "{failing}" ] || exit 2\n')
    make.chmod(0o755)
    path = f"{folder / 'bin'}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    ran = subprocess.run([script], cwd="/", env={**os.environ, "PATH": path, "PYTHON": sys.executable}, capture_output=True, text=True)
    return ran.returncode, ran.stdout.splitlines()


@pytest.mark.parametrize(("failing", "made", "fails"), [("", 3, False), ("setup", 1, True), ("lint", 3, True), ("test", 3, True)])
def test_the_local_run_does_what_ci_does_and_fails_when_a_part_fails(tmp_path: Path, failing: str, made: int, fails: bool) -> None:
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    code, lines = _ci_run(tmp_path, failing)
    assert (code != 0) is fails
    steps = [step["run"] for step in _steps("ci") if "run" in step]
    assert lines == [f"{step} in {tmp_path} with {sys.executable}" for step in steps[:made]]
