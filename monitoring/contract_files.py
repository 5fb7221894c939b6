"""Contract files: `soda/<schema>/<table>.yml`; the path is the table's name."""

from functools import lru_cache
from pathlib import Path

from monitoring.contract_model import Contract
from warehouse import declared
from warehouse.errors import DeclarationError
from warehouse.settings import ROOT
from warehouse.storage import CATALOG

FOLDER = ROOT / "soda"


def read_contracts(folder: Path = FOLDER) -> dict[str, Contract]:
    """Every contract, by table (schema.table).

    Raises:
        DeclarationError: one line per problem of any file: file, key, what was found, what is allowed.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    return dict(_read(folder, tuple((path, path.stat().st_mtime_ns, path.stat().st_size) for path in files)))


@lru_cache(maxsize=2)
def _read(folder: Path, files: tuple[tuple[Path, int, int], ...]) -> dict[str, Contract]:
    """The contracts in files as they are: several checks of one run ask, and to read them all takes a second."""
    contracts: dict[str, Contract] = {}
    problems: list[str] = []
    for path, *_ in files:
        schema, *rest = path.relative_to(folder).parts
        if len(rest) != 1 or path.suffix != ".yml":
            problems.append(f"{_short(path)}: is not a contract; allowed: soda/<schema>/<table>.yml and nothing else")
            continue
        try:
            contract = declared.read(path, Contract)
        except DeclarationError as error:
            problems.append(error.what)
            continue
        except (OSError, ValueError, TypeError) as error:  # not UTF-8, not readable, a list as a key
            problems.append(f"{_short(path)}: cannot be read: {type(error).__name__}: {error}")
            continue
        expected = f"{CATALOG}/{schema}/{path.stem}"
        if contract.dataset != expected:
            problems.append(f"{_short(path)}: key dataset: found {contract.dataset!r}; allowed: {expected!r}, as the path says")
        contracts[contract.table] = contract
    if not files:
        problems.append(f"{_short(folder)}: holds no contract, so nothing would be checked")
    if problems:
        raise DeclarationError("\n".join(problems), mend="correct the files named; `warehouse doctor` checks every declared file")
    return contracts


def _short(path: Path) -> str:
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)
