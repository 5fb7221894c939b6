"""Declared files: YAML, validated on start, with errors that name file, key, value and mend."""

from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from warehouse.errors import DeclarationError
from warehouse.settings import ROOT

Declared = TypeVar("Declared", bound=BaseModel)


_SafeLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml's where PyYAML was built with it: a hundred contracts take a second otherwise."""


class _UniqueKeyLoader(_SafeLoader):  # type: ignore[misc]  # one of two classes, known only here
    """PyYAML keeps the last of two equal keys without a word; a declaration must not lose one."""


def _unique_mapping(loader: Any, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, str | int | float | bool):
            raise yaml.constructor.ConstructorError(None, None, "a key must be a plain word", key_node.start_mark)
        if key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"key {key!r} stands twice", key_node.start_mark)
        seen.add(key)
    found: dict[Any, Any] = loader.construct_mapping(node, deep=deep)
    return found


_UniqueKeyLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _unique_mapping)


def read_yaml(path: Path) -> Any:
    """Parse a YAML file.

    Raises:
        DeclarationError: the file is missing, is not YAML, or has a key twice; the line is named.
    """
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeyLoader)  # noqa: S506 - a SafeLoader
    except FileNotFoundError:
        raise DeclarationError(f"{_short(path)}: the file is missing", mend="restore it from git: `git checkout -- " + _short(path) + "`") from None
    except (UnicodeDecodeError, OSError) as error:
        raise DeclarationError(
            f"{_short(path)}: cannot be read: {getattr(error, 'strerror', None) or 'not UTF-8'}", mend="save it as UTF-8, readable by this user"
        ) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise DeclarationError(
            f"{_short(path)}{line}: not valid YAML: {getattr(error, 'problem', None) or error}",
            mend="mend the line named; YAML needs spaces for indentation and quotes around values with ': '",
        ) from None


def read(path: Path, model: type[Declared]) -> Declared:
    """Read and validate a declared file; read again only when it has changed.

    Raises:
        DeclarationError: with one line per problem: file, key, what was found, what is allowed.
    """
    changed = path.stat().st_mtime_ns if path.exists() else 0
    found: Declared = _read(path, changed, model)
    return found


@lru_cache(maxsize=512)
def _read(path: Path, changed: int, model: type[BaseModel]) -> Any:
    content = read_yaml(path)
    try:
        return model.model_validate(content if content is not None else {})
    except ValidationError as error:
        lines = [f"{_short(path)}: {_problem(problem, model)}" for problem in error.errors()]
        raise DeclarationError("\n".join(lines), mend=f"correct {_short(path)}; `warehouse doctor` checks every declared file") from None


def _problem(problem: Any, model: type[BaseModel]) -> str:
    key = ".".join(str(part) for part in problem["loc"]) or "(top level)"
    found = problem["input"]
    if problem["type"] == "missing":
        return f"key {key} is missing"
    if problem["type"] == "extra_forbidden":
        return f"key {key} is not known (found {found!r}); allowed beside it: {', '.join(_siblings(problem['loc'], model))}"
    shown = f" (found {found!r})" if isinstance(found, str | int | float | bool | None) else ""
    return f"key {key}: {problem['msg']}{shown}"


def _siblings(location: tuple[Any, ...], model: type[BaseModel]) -> list[str]:
    """The keys allowed where an unknown one was found, read off the models along the path."""
    here: Any = model
    for part in location[:-1]:
        here = _inner(here, part)
        if here is None:
            return ["see docs/how-to"]
    return sorted(here.model_fields) if isinstance(here, type) and issubclass(here, BaseModel) else ["see docs/how-to"]


def _inner(model: Any, part: Any) -> Any:
    if isinstance(model, type) and issubclass(model, BaseModel) and part in model.model_fields:
        annotation = model.model_fields[part].annotation
        return next((one for one in (annotation, *_arguments(annotation)) if isinstance(one, type) and issubclass(one, BaseModel)), annotation)
    return model if isinstance(model, type) and issubclass(model, BaseModel) else None


def _arguments(annotation: Any) -> list[Any]:
    found: list[Any] = []
    for argument in getattr(annotation, "__args__", ()):
        found += [argument, *_arguments(argument)]
    return found


def _short(path: Path) -> str:
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)
