"""The command `python -m demo`: open, use and close the demo company."""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from warehouse.errors import UsageError, WarehouseError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code: 0 done, 1 `status` of a stopped company, else that of the error."""
    given = _parser().parse_args(arguments)
    try:
        from warehouse.settings import settings

        code: int = given.verb(settings().home, given)
    except WarehouseError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    return code


def say(line: str) -> None:
    """Write a line to standard output."""
    sys.stdout.write(f"{line}\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m demo", description="A small company in a box, to fill the warehouse from.")
    verbs = parser.add_subparsers(required=True, metavar="verb")
    for name, verb, meaning in (
        ("start", _start, "start the company; fill it the first time"),
        ("stop", _stop, "stop it; what it holds stays"),
        ("status", _status, "whether it runs (exit code 0) or not (1)"),
        ("hints", _hints, "where to look after the first run"),
        ("url", _url, "the connection string of the company's own user, for psql"),
    ):
        verbs.add_parser(name, help=meaning, description=meaning).set_defaults(verb=verb)
    acting = verbs.add_parser("act", help="let the company do something: place, edit and delete orders, edit users")
    acting.set_defaults(verb=_act)
    for option, meaning in (
        ("--place", "new orders, at the current time"),
        ("--edit", "old orders to correct"),
        ("--delete", "old orders to delete"),
        ("--edit-users", "users who change"),
        ("--seed", "which ones: the same seed on the same company does the same"),
    ):
        acting.add_argument(option, type=int, default=0, metavar="N", help=meaning)
    resetting = verbs.add_parser("reset", help="stop the company and delete all of it")
    resetting.set_defaults(verb=_reset)
    resetting.add_argument("--yes", action="store_true", help="really delete it")
    return parser


def _start(home: Path, given: argparse.Namespace) -> int:
    from demo import box
    from demo.company import DATABASE, READER
    from demo.server import HOST
    from warehouse.source_settings import demo_env_file

    with _progress() as progress:
        server = box.start(home, progress=progress)
    say(f"The demo company is running: PostgreSQL on {HOST}, port {server.port}, database {DATABASE}.")
    say(f"The warehouse reads it as {READER}; connection string and key are in {demo_env_file(home)}.")
    say(f"Beside it run stand-ins of what the company uses: {', '.join(box.stand_ins_of(home).addresses())}.")
    say("Stop it with `make demo-stop`.")
    return 0


def _hints(home: Path, given: argparse.Namespace) -> int:
    command = Path(sys.executable).parent / "warehouse"
    shown = command.relative_to(Path.cwd()) if command.is_relative_to(Path.cwd()) else command
    say("Where to look next:")
    say(f'  ask the marts:  {shown} query "SELECT * FROM marts.daily_revenue ORDER BY revenue DESC LIMIT 5"')
    say(f"  what ran:       {shown} status")
    say(f"  how it is:      {shown} report")
    say("  your own data:  README.md, `Add a source`")
    return 0


def _stop(home: Path, given: argparse.Namespace) -> int:
    from demo import box

    say("The demo company is stopped; what it holds stays." if box.stop(home) else "The demo company was not running.")
    return 0


def _status(home: Path, given: argparse.Namespace) -> int:
    from demo import box
    from demo.server import HOST

    server = box.server_of(home)
    if not server.is_running():
        say("The demo company is not running.")
        return 1
    say(f"The demo company is running on {HOST}, port {server.port}.")
    if not box.stand_ins_of(home).is_running():
        say("Its stand-ins of APIs are not running.")
        return 1
    say(f"Stand-ins: {', '.join(box.stand_ins_of(home).addresses())}.")
    return 0


def _url(home: Path, given: argparse.Namespace) -> int:
    from demo import box

    say(box.owner_url(home))
    return 0


def _act(home: Path, given: argparse.Namespace) -> int:
    from demo import box
    from demo.acts import act

    url = box.owner_url(home)
    done = act(url, place=given.place, edit=given.edit, delete=given.delete, edit_users=given.edit_users, seed=given.seed)
    orders = f"orders placed: {len(done.placed)}, edited: {len(done.edited)}, deleted: {len(done.deleted)}"
    say(f"{orders}; users edited: {len(done.edited_users)}")
    return 0


def _reset(home: Path, given: argparse.Namespace) -> int:
    from demo import box

    if not given.yes:
        raise UsageError("reset deletes the demo company, with the key of its pseudonyms.", mend="python -m demo reset --yes")
    say("The demo company is deleted." if box.reset(home) else "There was no demo company.")
    return 0


@contextmanager
def _progress() -> Iterator[Callable[[str], object]]:
    """Show the step being done, to a person at a terminal only."""
    if not sys.stderr.isatty():
        yield lambda step: None
        return
    from rich.console import Console

    with Console(stderr=True).status("looking for the demo company") as status:
        yield lambda step: status.update(step)


if __name__ == "__main__":
    sys.exit(main())
