"""Imports run down: cli, rooms, warehouse. Starting is light, logs are not prints, clocks know their zone, and lints say why."""

import ast
import re
import subprocess
import sys
import tokenize
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from warehouse.settings import ROOT

TOP, GROUND = "cli", "warehouse"
BESIDE = {"demo", "tests"}
SEAMS = {("pipelines", "privacy"), ("backup", "privacy")}
"""Loading applies privacy's policy, restoring replays its erasures; everything else that rooms share is `warehouse`."""
HEAVY = {"duckdb", "dlt", "sqlmesh", "soda_core", "pyarrow", "pandas", "psycopg2", "rich"}
MAXIMUM_LINES = 400


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


FILES = _kept_files()
TREES = {name: ast.parse((ROOT / name).read_text(), name) for name in FILES if name.endswith(".py")}
CODE = {name: tree for name, tree in TREES.items() if not name.startswith("tests/")}
OWN = {name.split("/")[0] for name in TREES if "/" in name} - {"models"}
ROOMS = OWN - {TOP, GROUND} - BESIDE


def _imported(tree: ast.AST, name: str) -> Iterator[tuple[int, str]]:
    """Line and full module name of each import anywhere in a file, also those by `importlib`."""
    package = name.split("/")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, one.name) for one in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.lineno, module) for module in _from(node, package))
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")) and node.args:
            text = node.args[0].values[0] if isinstance(node.args[0], ast.JoinedStr) else node.args[0]
            yield node.lineno, text.value if isinstance(text, ast.Constant) and isinstance(text.value, str) else "a module known only at run time"


def _from(node: ast.ImportFrom, package: list[str]) -> list[str]:
    """`from a import b` may name the module `a.b` or a thing in `a`: both, where the first exists."""
    parent = ".".join([*package[: len(package) - node.level + 1], *([node.module] if node.module else [])]) if node.level else node.module or ""
    return [parent, *(f"{parent}.{one.name}" for one in node.names if _file_of(f"{parent}.{one.name}"))]


def _file_of(module: str) -> str | None:
    path = module.replace(".", "/")
    return next((name for name in (f"{path}.py", f"{path}/__init__.py") if name in TREES), None)


def _at_start(node: ast.AST) -> Iterator[ast.stmt]:
    """The statements that run when a module is imported: no function bodies, nothing under `if TYPE_CHECKING`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and ast.unparse(child.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            continue
        if isinstance(child, ast.stmt):
            yield child
        yield from _at_start(child)


def _imported_at_start(name: str) -> list[str]:
    return [module for statement in _at_start(TREES[name]) if isinstance(statement, ast.Import | ast.ImportFrom) for _, module in _imported_by(statement, name)]


def _imported_by(statement: ast.stmt, name: str) -> list[tuple[int, str]]:
    return list(_imported(ast.Module([statement], []), name))


def _started_by_the_command_line() -> dict[str, str]:
    """Each own file that any verb imports before it does its work, and which file asks for it."""
    found = {"cli/main.py": "the command"}
    waiting = [(module, "cli/main.py") for _, module in _imported(TREES["cli/main.py"], "cli/main.py")]
    while waiting:
        module, asker = waiting.pop()
        for part in (module, module.rpartition(".")[0]):  # importing a.b runs a/__init__.py too
            file = _file_of(part) if part else None
            if file and file not in found:
                found[file] = asker
                waiting += [(further, file) for further in _imported_at_start(file)]
    return found


def _allowed(room: str) -> set[str]:
    """The top-level packages of this project that a package may import."""
    if room == "tests":
        return OWN
    if room == TOP:
        return ROOMS | {TOP, GROUND}
    if room == GROUND:
        return {GROUND}
    return {room, GROUND} | {target for origin, target in SEAMS if origin == room}


@pytest.mark.parametrize("room", sorted(OWN))
def test_imports_run_down(room: str) -> None:
    wrong = [
        f"{name}:{line} imports {module}"
        for name, tree in TREES.items()
        if name.split("/")[0] == room
        for line, module in _imported(tree, name)
        if module.split(".")[0] in OWN - _allowed(room) or (room != "tests" and " " in module)
    ]
    assert not wrong, "\n".join(wrong)


def test_python_lives_in_rooms_only() -> None:
    assert not [name for name in TREES if "/" not in name]
    assert not [name for name in TREES if name.split("/")[0] in ("soda", "audits", "docs", "deploy")]


def test_python_under_models_is_models_that_sql_cannot_say() -> None:
    """SQLMesh imports each of them; what they compute stands in macros/, where it is typed and tested."""
    for name in (name for name in TREES if name.startswith("models/")):
        assert re.fullmatch(r"models/marts/\w+/\w+\.py", name)
        function = next(node for node in TREES[name].body if isinstance(node, ast.FunctionDef))
        assert [ast.unparse(one).partition("(")[0] for one in function.decorator_list] == ["model"], name
        assert {module.split(".")[0] for _, module in _imported(TREES[name], name)} <= {"macros", "sqlglot", "sqlmesh", "typing"}, name


def test_the_command_line_starts_without_heavy_packages() -> None:
    wrong = [
        f"{file} (asked for by {asker}) imports {module} at module level"
        for file, asker in _started_by_the_command_line().items()
        if not file.startswith("privacy/")  # its rules are written in terms of Arrow; only loading imports them
        for module in _imported_at_start(file)
        if module.split(".")[0] in HEAVY
    ]
    assert not wrong, "\n".join(wrong)


def test_what_the_command_line_starts_with_brings_no_heavy_package_along() -> None:
    modules = [
        name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for name in _started_by_the_command_line()
        if name.startswith(("cli/", "warehouse/"))
    ]
    assert len(modules) > 8
    program = f"import sys, {', '.join(modules)}; sys.exit(' '.join(sorted({HEAVY!r} & set(sys.modules))) or 0)"
    ran = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr


def _calls() -> Iterator[tuple[str, str, ast.Call]]:
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                yield f"{name}:{node.lineno}", ast.unparse(node.func), node


def test_nothing_prints() -> None:
    assert not [where for where, called, _ in _calls() if called in ("print", "pprint", "pprint.pprint")]


def test_every_time_knows_its_zone() -> None:
    naive = re.compile(r"(?:^|\.)datetime\.(?:utcnow|utcfromtimestamp|today)$|(?:^|\.)date\.(?:today|fromtimestamp)$")
    zoned = {"now": 1, "fromtimestamp": 2}  # how many arguments a call with a zone has
    for where, called, call in _calls():
        owner, _, method = called.rpartition(".")
        assert not naive.search(called), f"{where} {called}()"
        if owner.split(".")[-1] == "datetime" and method in zoned:
            zone = [keyword.value for keyword in call.keywords if keyword.arg == "tz"] or call.args[zoned[method] - 1 :]
            assert zone, f"{where} {called}() without a zone"
            assert ast.unparse(zone[0]) != "None", f"{where} {called}(None)"


@pytest.mark.parametrize("room", sorted(OWN))
def test_files_stay_short(room: str) -> None:
    long = {name: lines for name in TREES if name.startswith(f"{room}/") and (lines := len((ROOT / name).read_text().splitlines())) > MAXIMUM_LINES}
    assert not long


def _comments(name: str) -> Iterator[tuple[int, str]]:
    with (ROOT / name).open("rb") as file:
        yield from ((token.start[0], token.string) for token in tokenize.tokenize(file.readline) if token.type == tokenize.COMMENT)


def test_each_silenced_lint_names_its_rule_and_its_reason() -> None:
    silenced = re.compile(r"#\s*(?:ruff:\s*)?noqa|#\s*type:\s*ignore|#\s*mypy:|#\s*nosec|#\s*pragma:")
    said = re.compile(r"# (?:noqa: [A-Z]+\d+(?:, ?[A-Z]+\d+)*|type: ignore\[[a-z, -]+\])\s+(?:#|-)\s*\w.{9,}")
    wrong = [f"{name}:{line} {comment}" for name in TREES for line, comment in _comments(name) if silenced.search(comment) and not said.match(comment)]
    assert not wrong, "\n".join(wrong)


def test_each_blanket_except_says_why() -> None:
    """pyproject.toml turns ruff's rule off on this promise. One that ends in `raise` hides nothing and need not."""
    wrong = []
    for name, tree in CODE.items():
        commented = {line for line, _ in _comments(name)}
        for node in ast.walk(tree):
            if isinstance(node, ast.ExceptHandler) and (node.type is None or ast.unparse(node.type) in ("Exception", "BaseException")):
                raises = any(isinstance(inner, ast.Raise) and inner.exc is None for inner in node.body)
                if not raises and node.lineno not in commented:
                    wrong.append(f"{name}:{node.lineno}")
    assert not wrong, "\n".join(wrong)


def _texts() -> Iterator[tuple[str, str]]:
    for name in FILES:
        content = (ROOT / name).read_bytes()
        if b"\0" not in content:
            yield name, content.decode(errors="replace")


# Each pattern is written so that it does not find itself.
@pytest.mark.parametrize(
    ("what", "pattern"),
    [
        ("a package registry", r"py[p]i\.org|pythonhoste[d]|inde[x]-url|INDE[X]_URL|npmj[s]\.|proxy\.golan[g]|https?://\S+/simpl[e]\b"),
        ("a path of one machine", r"(?<![\w.])/(?:work|root|farm)(?![\w.-])"),
        ("a key or token", r"AKIA[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{36}|sk_live_[A-Za-z0-9]{20}|-----BEGIN [A-Z ]*PRIVATE KEY|eyJ[\w-]{20,}\.eyJ[\w-]{20,}"),
    ],
)
def test_no_file_holds(what: str, pattern: str) -> None:
    found = [f"{name}: {match[0]}" for name, text in _texts() for match in re.finditer(pattern, text)]
    assert not found, f"{what}: {found}"


def test_nothing_that_a_run_leaves_is_kept() -> None:
    assert not [name for name in FILES if re.search(r"\.(?:duckdb|sqlite|parquet|wal|log|pyc|env)$|(?:^|/)(?:data|\.cache|__pycache__)/", name)]


def test_mypy_and_the_wheel_cover_every_room() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    assert set(project["mypy"]["packages"]) == OWN - {"tests"}
    assert set(project["hatch"]["build"]["targets"]["wheel"]["packages"]) == OWN - {"tests", "macros", "linter"}  # SQLMesh reads these two itself
    assert not [room for room in OWN - {"tests"} if not Path(ROOT, room, "__init__.py").exists()]
