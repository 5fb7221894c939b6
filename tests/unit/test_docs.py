"""What the README and docs/ say is so: commands, options, settings, targets, rooms, links; and every help answers at once."""

import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
import pytest
from pydantic import BaseModel, SecretStr, TypeAdapter

from cli.main import cli
from warehouse.settings import ROOT, Settings

README = (ROOT / "README.md").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()
DOCS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
TARGETS = set(re.findall(r"^([a-z][a-z-]*):", MAKEFILE, re.MULTILINE))
VERBS = sorted(cli.commands)
WAREHOUSE = Path(sys.executable).with_name("warehouse")
SETTING = re.compile(r"\b(?:WAREHOUSE|MOTHERDUCK|SOURCES_|PRIVACY_|BACKUP_|ALERTS_)_[A-Z0-9_]*[A-Z0-9]\b")
REPOSITORY_VARIABLES = {"WAREHOUSE_ENABLED", "WAREHOUSE_BACKUPS"}

each_document = pytest.mark.parametrize("file", DOCS, ids=lambda file: str(file.relative_to(ROOT)))
each_verb = pytest.mark.parametrize("verb", VERBS)


def _kept_files() -> list[str]:
    """Every file that git keeps or would keep, relative to the root; also where the checkout belongs to another user."""
    listed = subprocess.run(
        ["git", "-c", f"safe.directory={ROOT}", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return sorted(name for name in set(listed.stdout.split("\0")) if name and (ROOT / name).is_file())


def _code(text: str) -> Iterator[str]:
    """Each line of code in a Markdown text: code spans, the lines of fenced blocks, and indented lines."""
    fenced = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)
    for block in fenced.findall(text):
        yield from (line.strip() for line in block.splitlines()[1:-1])
    rest = fenced.sub("", text)
    for line in rest.splitlines():
        if line.startswith("    "):
            yield line.split("  #")[0].strip()
    yield from (span.replace("\n", " ") for span in re.findall(r"`([^`]+)`", rest))


def _words(file: Path, command: str) -> Iterator[list[str]]:
    """The words after `command` in each line of code that runs it."""
    for line in _code(file.read_text()):
        words = shlex.split(line, comments=True) if line.startswith((command, f".venv/bin/{command}")) else []
        if words and Path(words[0]).name == command:
            yield words[1:]


def _command(words: list[str]) -> tuple[click.Command, list[str]]:
    """The command that words name, below a group it may be, and the words after it."""
    command, rest = cli.commands[words[0]], words[1:]
    while isinstance(command, click.Group) and rest and rest[0] in command.commands:
        command, rest = command.commands[rest[0]], rest[1:]
    return command, rest


def _all_commands(command: click.Command) -> Iterator[click.Command]:
    yield command
    for inner in command.commands.values() if isinstance(command, click.Group) else ():
        yield from _all_commands(inner)


def _settings(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Name in the environment, type and default of each setting, nested ones too."""
    for key, field in model.model_fields.items():
        name = str(field.validation_alias or f"{prefix}{key}".upper())
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _settings(field.annotation, f"{name}__")
        else:
            yield name, field.annotation, field.get_default(call_default_factory=True)


def _example() -> dict[str, str]:
    lines = [line for line in (ROOT / ".env.example").read_text().splitlines() if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Z][A-Z0-9_]*=[^\s#]*", line) for line in lines), lines
    pairs = [(name, value) for name, _, value in (line.partition("=") for line in lines)]
    assert len(dict(pairs)) == len(pairs), "a setting stands twice in .env.example"
    return dict(pairs)


def test_the_readme_stays_short() -> None:
    assert len(README.splitlines()) < 120


@each_verb
def test_the_readme_names_each_verb(verb: str) -> None:
    assert re.search(rf"^\| `warehouse {verb}[ `]", README, re.MULTILINE), "no row in the table of commands"


def test_the_readme_names_each_room_and_only_rooms_that_exist() -> None:
    rooms = {name.split("/")[0] for name in _kept_files() if "/" in name and not name.startswith(".")}
    table = README.split("## Where things live")[1].split("##")[0]
    named = {room for row in table.splitlines() if row.startswith("| `") for room in re.findall(r"`(\w+)/`", row.split("|")[1])}
    assert named == rooms


@each_document
def test_each_target_named_exists(file: Path) -> None:
    for words in _words(file, "make"):
        for word in words:
            assert "=" in word or word in TARGETS, f"`make {word}`"


def test_each_target_is_described_and_declared() -> None:
    described = set(re.findall(r"^([a-z][a-z-]*):.*##", MAKEFILE, re.MULTILINE))
    phony = re.search(r"^\.PHONY: (.*)", MAKEFILE, re.MULTILINE)
    assert phony
    assert described == TARGETS == set(phony[1].split())


def test_each_module_that_is_run_exists() -> None:
    for text in (MAKEFILE, *(file.read_text() for file in DOCS)):
        for module in re.findall(r"python3?\)? -m ([\w.]+)", text):
            path = ROOT.joinpath(*module.split("."))
            own = path.with_suffix(".py").exists() or (path / "__main__.py").exists()
            top = module.split(".")[0]
            assert own or (not (ROOT / top).exists() and find_spec(top)), f"python -m {module}"


@each_document
def test_each_warehouse_command_and_option_exists(file: Path) -> None:
    for words in _words(file, "warehouse"):
        if not words:
            continue  # `warehouse` alone, the command as such
        assert words[0] in VERBS, f"`warehouse {words[0]}`"
        command, rest = _command(words)
        options = {option for parameter in command.params for option in parameter.opts} | {"--help", "-h"}
        arguments = [parameter for parameter in command.params if isinstance(parameter, click.Argument)]
        assert {word.split("=")[0] for word in rest if word.startswith("-")} <= options, f"`warehouse {' '.join(words)}`"
        if not any(word.startswith("-") for word in rest):
            assert len(rest) in (0, len(arguments)), f"`warehouse {' '.join(words)}`"


@each_document
def test_an_option_beside_a_verb_belongs_to_it(file: Path) -> None:
    """As in a table's row: `warehouse run`, then what its `--due` does."""
    for line in file.read_text().splitlines():
        verbs = re.findall(r"`(?:\.venv/bin/)?warehouse ([a-z-]+)", line)
        options = {option for verb in verbs for command in _all_commands(cli.commands[verb]) for parameter in command.params for option in parameter.opts}
        for option in re.findall(r"`(--[a-z-]+)", line):
            assert not verbs or option in options, line


@pytest.mark.parametrize("command", ["warehouse", "make"])
def test_what_messages_and_comments_tell_one_to_type_exists(command: str) -> None:
    known = set(VERBS) if command == "warehouse" else TARGETS
    for name in _kept_files():
        if name.endswith((".py", ".sql", ".yaml", ".yml", ".example")) and not name.startswith("tests/"):
            for typed in re.findall(rf"`(?:\.venv/bin/)?{command} ([a-z][\w-]*)", (ROOT / name).read_text()):
                assert typed in known, f"{name}: `{command} {typed}`"


@each_document
def test_each_sqlmesh_command_exists(file: Path) -> None:
    words = [words for words in _words(file, "sqlmesh") if words]
    if not words:
        return
    package = find_spec("sqlmesh")  # read, not imported: that takes seconds
    assert package
    assert package.origin
    source = (Path(package.origin).parent / "cli" / "main.py").read_text()
    commands = set(re.findall(r'^@cli\.command\("(\w+)"', source, re.MULTILINE))
    assert len(commands) > 20
    assert {first for first, *_ in words} <= commands


def test_every_setting_is_in_the_example_with_its_default() -> None:
    settings = {name: (kind, default) for name, kind, default in _settings(Settings)}
    example = _example()
    assert set(example) == set(settings)
    for name, (kind, default) in settings.items():
        if example[name]:
            assert TypeAdapter(kind).validate_python(example[name]) == default, name
        else:
            assert default is None, f"{name} has the default {default!r}"
        assert SecretStr not in getattr(kind, "__args__", (kind,)) or not example[name], f"{name} is a secret"


@each_document
def test_each_setting_named_is_one(file: Path) -> None:
    assert set(SETTING.findall(file.read_text())) <= {name for name, _, _ in _settings(Settings)} | REPOSITORY_VARIABLES


@each_document
def test_each_relative_link_leads_somewhere(file: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", file.read_text()):
        path, _, anchor = target.partition("#")
        if "://" in path or path.startswith("mailto:"):
            continue
        assert not path.startswith("/"), target
        found = (file.parent / path).resolve() if path else file
        assert found.exists(), target
        assert found.is_relative_to(ROOT), target
        if anchor:
            headings = {re.sub(r"[^\w -]", "", title.lower()).strip().replace(" ", "-") for title in re.findall(r"^#+ (.*)", found.read_text(), re.MULTILINE)}
            assert anchor in headings, target


@each_document
def test_each_python_and_markdown_file_named_exists(file: Path) -> None:
    rooms = {path.name for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith(".")}
    for named in re.findall(r"(?<![\w/.<-])(\w+/[\w/.-]+\.(?:py|md))\b", file.read_text()):
        assert named.split("/")[0] not in rooms or (ROOT / named).exists() or (file.parent / named).exists(), named


@each_document
def test_no_document_names_a_path_of_one_machine(file: Path) -> None:
    """Nor a registry: tests/unit/test_architecture.py looks for that in every file."""
    assert not re.search(r"(?<![\w.])/(?:work|root|farm|home|Users|tmp)\b", file.read_text())


def test_each_decision_says_what_and_why_and_is_numbered() -> None:
    files = sorted((ROOT / "docs" / "adr").glob("*.md"))
    for number, file in enumerate(files, start=1):
        text = file.read_text()
        assert re.fullmatch(rf"{number:04d}-[a-z0-9-]+\.md", file.name)
        assert text.startswith(f"# {number}. ")
        for part in ("**Decision.**", "**Why.**"):
            assert text.count(f"\n{part} ") == 1, f"{file.name} {part}"


def _help(arguments: list[str]) -> tuple[float, subprocess.CompletedProcess[str]]:
    # A help that read the settings would fail on this one, and a traceback would be the answer to the first question asked.
    began = time.monotonic()
    answer = subprocess.run([WAREHOUSE, *arguments], env={**os.environ, "WAREHOUSE_STORAGE": "no such storage"}, capture_output=True, text=True, timeout=30)
    return time.monotonic() - began, answer


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["--version"], *([verb, "--help"] for verb in VERBS), ["serve", "webhooks", "--help"]], ids=" ".join)
def test_help_answers_within_a_second(arguments: list[str]) -> None:
    seconds, answer = _help(arguments)
    if seconds >= 1:  # once more: other work on this machine may have held it up
        seconds, answer = _help(arguments)
    assert answer.returncode == 0
    assert answer.stderr == ""
    assert "Traceback" not in answer.stdout
    assert seconds < 1


def test_help_lists_every_verb_and_explains_each_option() -> None:
    _, answer = _help(["--help"])
    assert re.findall(r"^  ([a-z]+) +\S", answer.stdout.split("Commands:")[1], re.MULTILINE) == list(cli.commands)
    for command in (inner for verb in cli.commands.values() for inner in _all_commands(verb)):
        assert command.help
        assert command.short_help
        assert all(parameter.help for parameter in command.params if isinstance(parameter, click.Option))
