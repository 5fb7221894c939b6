"""Hold the models to the house rules and their SQL to its layout: `python -m transform.lint [--write]`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from transform.code_alone import open_code_alone
from warehouse.console import complain
from warehouse.errors import WarehouseError
from warehouse.settings import ROOT

if TYPE_CHECKING:
    from sqlmesh import Context


def main(arguments: Sequence[str] | None = None) -> int:
    """Say on standard error what is wrong; needs neither a warehouse nor a secret.

    Returns:
        0 when nothing is wrong, 1 when something is, 2 or 3 when the models cannot be read.
    """
    parser = argparse.ArgumentParser(prog="python -m transform.lint", description="Hold models to the house rules (linter/) and SQL to its layout.")
    parser.add_argument("--write", action="store_true", help="put the SQL of models and audits into its layout first")
    options = parser.parse_args(arguments)
    try:
        with open_code_alone() as context:
            if options.write:
                context.format(append_newline=True)
            problems = [*_violations(context), *_unformatted(context)]
    except WarehouseError as error:
        complain(str(error))
        return error.exit_code
    for problem in problems:
        complain(problem)
    return 1 if problems else 0


def _violations(context: "Context") -> list[str]:
    violations = context.lint_models(raise_on_error=False)
    return sorted({f"{_short(violation.model._path)}: {violation.violation_msg} ({violation.rule.name})" for violation in violations})


def _unformatted(context: "Context") -> list[str]:
    files = {target._path for target in (*context.models.values(), *context._audits.values()) if target._path and target._path.suffix == ".sql"}
    wrong = [file for file in sorted(files) if not context.format(check=True, paths=(file,), append_newline=True)]
    return [f"{_short(file)}: not in SQLMesh's layout: run `make format`" for file in wrong]


def _short(path: Path | None) -> str:
    return str(path.relative_to(ROOT)) if path and path.is_relative_to(ROOT) else str(path)


if __name__ == "__main__":
    sys.exit(main())
