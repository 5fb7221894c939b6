"""Start the demo company again when its server or a stand-in is down, so that the next command works after a reboot."""

import socket
import subprocess
import sys
from urllib.parse import urlsplit

from warehouse.console import complain, progress
from warehouse.errors import StepFailed, UsageError
from warehouse.settings import ROOT, reload, settings
from warehouse.source_settings import demo_values


def start_if_needed() -> None:
    """Start the demo company if this home belongs to it and something of it does not answer; otherwise do nothing.

    Raises:
        StepFailed: it could not be started.
    """
    try:
        if not settings().is_demo:
            return
    except UsageError:
        return  # the load will say what is wrong
    addresses = [value for name, value in demo_values(settings().home).items() if name.endswith(("__CREDENTIALS", "__BASE_URL"))]
    if all(_answers(address) for address in addresses):
        return
    complain("the demo company is not running; starting it (`make demo-stop` stops it)")
    with progress("starting the demo company"):
        started = subprocess.run([sys.executable, "-m", "demo", "start"], cwd=ROOT, capture_output=True, text=True, check=False)
    if started.returncode != 0:
        raise StepFailed(f"the demo company could not be started: {started.stderr.strip()[-500:]}", mend="`make demo` starts it anew")
    reload()


def _answers(url: str) -> bool:
    address = urlsplit(url)
    try:
        with socket.create_connection((address.hostname or "127.0.0.1", address.port or 80), timeout=1):
            return True
    except OSError:
        return False
