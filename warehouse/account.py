"""Under which account a PostgreSQL server runs that is started here: it refuses to run as root."""

import os
import pwd
import shutil
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from warehouse.errors import StepFailed, UsageError


@dataclass(frozen=True)
class Account:
    """Who runs the server: ourselves (no ids), or another user because PostgreSQL refuses to run as root."""

    uid: int | None = None
    gid: int | None = None
    prefix: tuple[str, ...] = ()

    def owns(self, path: Path) -> None:
        """Make this account the owner of a file or of a folder with all it holds."""
        if self.uid is None or self.gid is None:
            return
        for folder, _, files in os.walk(path):
            for name in (folder, *(os.path.join(folder, file) for file in files)):
                os.chown(name, self.uid, self.gid, follow_symlinks=False)
        if not path.is_dir():
            os.chown(path, self.uid, self.gid)

    def launch(self, command: list[str], output: IO[bytes]) -> "subprocess.Popen[bytes]":
        """Start a program under this account in a session of its own; everything it says goes to `output`.

        Raises:
            StepFailed: it cannot be executed.
        """
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        # setpriv changes the user itself: it must still be root to keep the capability.
        switches = self.uid is not None and not self.prefix
        try:
            return subprocess.Popen(
                [*self.prefix, *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd="/",
                env={**environment, "LC_ALL": "C", "TZ": "UTC"},
                start_new_session=True,
                user=self.uid if switches else None,
                group=self.gid if switches else None,
                extra_groups=[] if switches else None,
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise StepFailed(f"{command[0]} cannot be executed: {error}", mend="is PostgreSQL installed whole?") from error


def account_for(folder: Path, data: Path, program: Path) -> Account:
    """The account for a server whose files are in `folder` and whose data folder, if it exists already, is `data`.

    Args:
        program: what it must be able to execute.

    Raises:
        UsageError: the data belongs to somebody else, or an account for root to switch to cannot reach the files.
    """
    owner = data.stat() if data.exists() else None
    if os.geteuid() != 0:
        if owner is not None and owner.st_uid != os.geteuid():
            raise UsageError(
                f"{data} belongs to user id {owner.st_uid}, not to you.",
                mend="run this as that user (root can), or set WAREHOUSE_HOME to a folder of your own",
            )
        return Account()
    if owner is not None and owner.st_uid != 0:
        uid, gid = owner.st_uid, owner.st_gid
    else:
        uid, gid = _nobody()
    closed = _closed_to(uid, gid, folder) or _closed_to(uid, gid, program)
    if closed is None:
        return Account(uid, gid)
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise UsageError(
            f"PostgreSQL does not run as root, and user id {uid}, which runs it instead, cannot enter {closed}.",
            mend=f"`chmod o+x {closed}`, or install setpriv (util-linux), or set WAREHOUSE_HOME to a folder that everybody can enter",
        )
    # Of the capabilities that pass closed folders this is the one that containers grant by default.
    capability = "+dac_override"
    switch = (f"--reuid={uid}", f"--regid={gid}", "--clear-groups", f"--inh-caps={capability}", f"--ambient-caps={capability}")
    return Account(uid, gid, (setpriv, *switch))


def _nobody() -> tuple[int, int]:
    try:
        found = pwd.getpwnam("nobody")
    except KeyError:
        raise UsageError(
            "PostgreSQL does not run as root, and there is no user `nobody` to run it instead.",
            mend="run this as an ordinary user",
        ) from None
    return found.pw_uid, found.pw_gid


def _closed_to(uid: int, gid: int, path: Path) -> Path | None:
    """The first folder on the way to `path`, or `path` itself, that the user may not enter (or execute)."""
    resolved = path.resolve()
    for step in (*reversed(resolved.parents), resolved):
        if not step.exists():
            return None
        found = step.stat()
        needed = stat.S_IXUSR if found.st_uid == uid else stat.S_IXGRP if found.st_gid == gid else stat.S_IXOTH
        if not found.st_mode & needed:
            return step
    return None
