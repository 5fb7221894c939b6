"""What deploy/ holds runs commands that exist, without rights it does not need."""

import configparser
import json
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import click
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from cli.main import cli
from warehouse.settings import ROOT

DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text()
LOCK = (ROOT / "requirements.lock").read_text()
UNITS = sorted((ROOT / "deploy" / "systemd").glob("*.service"))
HOW_TO = (ROOT / "docs" / "how-to" / "receive-webhooks.md").read_text()
RESTRICTED = {
    "ProtectSystem": "strict", "ProtectHome": "true", "PrivateTmp": "true", "PrivateDevices": "true", "NoNewPrivileges": "true",
    "CapabilityBoundingSet": "", "UMask": "0077", "RestrictSUIDSGID": "true", "SystemCallArchitectures": "native",
}  # fmt: skip

each_unit = pytest.mark.parametrize("file", UNITS, ids=lambda file: file.name)


def _exists(words: list[str]) -> None:
    """Whether the command line takes these words."""
    assert Path(words[0]).name == "warehouse"
    command: click.Command = cli
    rest = words[1:]
    while isinstance(command, click.Group):
        command, rest = command.commands[rest[0]], rest[1:]
    command.make_context("", rest)  # refuses an unknown option or a wrong value


def _unit(file: Path) -> configparser.SectionProxy:
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[method-assign,assignment] # systemd's keys have capitals
    parser.read_string(file.read_text())
    return parser["Service"]


def test_both_services_have_a_unit_and_the_how_to_installs_them() -> None:
    assert [file.stem for file in UNITS] == ["warehouse-follow", "warehouse-webhooks"]
    for file in UNITS:
        assert file.stem in HOW_TO


@each_unit
def test_a_unit_runs_a_command_that_exists(file: Path) -> None:
    _exists(shlex.split(_unit(file)["ExecStart"]))


@each_unit
def test_a_unit_runs_as_a_user_of_its_own_and_may_write_only_its_folder(file: Path) -> None:
    unit = _unit(file)
    assert unit["User"] == unit["Group"] == "warehouse"
    assert {key: unit.get(key) for key in RESTRICTED} == RESTRICTED
    home = unit["Environment"].removeprefix("WAREHOUSE_HOME=")
    assert unit["ReadWritePaths"] == (f"{home}/spool" if file.stem == "warehouse-webhooks" else home)
    assert unit["Restart"] == "always"
    assert "Secret" not in file.read_text()
    assert "whsec" not in file.read_text()


def test_the_receiver_is_given_secrets_of_its_own() -> None:
    files = {_unit(file)["EnvironmentFile"] for file in UNITS}
    assert len(files) == 2
    assert all(Path(file).name in HOW_TO for file in files)


def test_the_image_is_pinned_checked_locked_and_not_root() -> None:
    (base,) = re.findall(r"^FROM (.+)$", DOCKERFILE, re.MULTILINE)
    assert re.fullmatch(r"python:3\.(?:11|12|13)\.\d+-slim-\w+(?:@sha256:[0-9a-f]{64})?", base)
    user = re.findall(r"^USER (.+)$", DOCKERFILE, re.MULTILINE)
    assert user == re.findall(r"useradd .*--uid (\d+)", DOCKERFILE), "by number, so that a cluster can tell it is not root"
    assert int(user[0]) > 0
    assert DOCKERFILE.index("\nUSER ") < DOCKERFILE.index("\nCMD ")
    installs = re.findall(r"(?:pip install|pip sync|uv pip install) [^\n]*", DOCKERFILE)
    assert all("--require-hashes" in install or "--no-deps" in install for install in installs)
    assert len(installs) == 3
    assert "/healthz" in re.findall(r"^HEALTHCHECK .+$", DOCKERFILE, re.MULTILINE)[0]


def test_the_image_starts_a_command_that_exists_where_its_health_is_asked() -> None:
    (command,) = re.findall(r"^CMD (\[.+\])$", DOCKERFILE, re.MULTILINE)
    words = re.findall(r'"([^"]*)"', command)
    _exists(words)
    port = words[words.index("--port") + 1]
    assert f":{port}/healthz" in DOCKERFILE
    assert f"EXPOSE {port}" in DOCKERFILE
    assert re.search(r"warehouse run --follow", HOW_TO)


def test_what_the_image_copies_exists_and_what_its_commands_name_was_copied_before() -> None:
    copied: set[str] = set()
    for instruction, rest in _instructions():
        if instruction == "COPY":
            *sources, target = rest.split()
            assert target in (".", "./")
            assert all((ROOT / source).exists() for source in sources)
            copied |= set(sources)
        elif instruction == "RUN" and "requirements.lock" in rest:
            assert "requirements.lock" in copied
        elif instruction == "RUN" and "--editable ." in rest:
            assert "." in copied
            assert re.search(r"^hatchling==", LOCK, re.MULTILINE), "it is built without the network"


def test_the_command_that_takes_uv_out_of_the_lock_takes_it_with_all_its_hashes() -> None:
    (run,) = (rest for instruction, rest in _instructions() if instruction == "RUN" and "uv.txt" in rest)
    (command,) = (part for part in run.split("&&") if "> uv.txt" in part)
    taken = subprocess.run(["sh", "-euc", command.replace("> uv.txt", "")], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    assert re.fullmatch(r"uv==[\d.]+ \\", taken[0])
    whole = LOCK[LOCK.index("\nuv==") + 1 :].split("\n    # via")[0]
    assert taken == whole.splitlines()
    assert len(taken) > 2


def _instructions() -> list[tuple[str, str]]:
    """Each instruction of the Dockerfile and what follows it, on one line."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE, flags=re.MULTILINE).replace("\\\n", " ")
    found = [line.partition(" ") for line in text.splitlines() if line.strip()]
    assert {name for name, _, _ in found} <= {"FROM", "ENV", "RUN", "WORKDIR", "COPY", "USER", "VOLUME", "EXPOSE", "STOPSIGNAL", "HEALTHCHECK", "CMD"}
    return [(name, rest) for name, _, rest in found]


def _needed_by_the_house() -> set[str]:
    """Names of the distributions that the project's own dependencies bring, without any extra of the project."""
    waiting = [Requirement(text) for text in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]]
    found: dict[str, set[str]] = {}
    while waiting:
        wanted = waiting.pop()
        name, extras = canonicalize_name(wanted.name), {"", *wanted.extras}
        if extras <= found.get(name, set()):
            continue
        found[name] = found.get(name, set()) | extras
        for text in metadata.requires(name) or []:
            further = Requirement(text)
            if further.marker is None or any(further.marker.evaluate({"extra": extra}) for extra in found[name]):
                waiting.append(further)
    return set(found)


RECEIVES = """
import importlib.abc, json, sys
refused = set(json.loads(sys.argv[1]))
class Refuses(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in refused:
            raise ModuleNotFoundError(f"{name} is not among the runtime's dependencies", name=name)
sys.meta_path.insert(0, Refuses())
from cli.main import cli
from cli.follow import follow_changes
from serving import webhooks
from warehouse import spool
import pipelines.load, pipelines.stripe, transform.build, monitoring.check, serving.publish
webhooks.server(["whsec"]).config.load()
try:
    webhooks.verified(b"{}", "t=1,v1=0", ["whsec"])
except webhooks.Refused:
    pass
try:
    spool.Writer("stripe").check()
except spool.SpoolFailed as error:
    sys.exit(0 if "does not answer" in error.what else str(error))
sys.exit("the spool answered")
"""


def test_what_the_image_runs_needs_no_tool_of_the_developers(setting: Callable[[str, str | None], None]) -> None:
    needed = _needed_by_the_house()
    owners = metadata.packages_distributions()
    refused = sorted(module for module, of in owners.items() if not needed & {canonicalize_name(name) for name in of})
    assert {"pytest", "hypothesis", "lifetimes"} <= set(refused)
    for name, value in {"URL": "s3://bucket", "ENDPOINT_URL": "http://127.0.0.1:1", "ACCESS_KEY_ID": "key", "SECRET_ACCESS_KEY": "secret"}.items():
        setting(f"SOURCES__STRIPE__SPOOL__{name}", value)
    own = {path.name for path in ROOT.iterdir() if path.is_dir()}
    ran = subprocess.run([sys.executable, "-c", RECEIVES, json.dumps(sorted(set(refused) - own))], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr


def test_the_image_keeps_out_what_is_secret_or_local() -> None:
    ignored = (ROOT / "deploy" / "Dockerfile.dockerignore").read_text().splitlines()
    assert {".git", ".env", ".venv", "data"} <= set(ignored)
