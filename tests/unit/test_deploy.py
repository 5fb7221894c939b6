"""What deploy/ holds runs commands that exist, without rights it does not need."""

import configparser
import re
import shlex
from pathlib import Path

import click
import pytest

from cli.main import cli
from warehouse.settings import ROOT

DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text()
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
    assert user == ["warehouse"]
    assert DOCKERFILE.index("USER warehouse") < DOCKERFILE.index("\nCMD ")
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


def test_the_image_keeps_out_what_is_secret_or_local() -> None:
    ignored = (ROOT / "deploy" / "Dockerfile.dockerignore").read_text().splitlines()
    assert {".git", ".env", ".venv", "data"} <= set(ignored)
