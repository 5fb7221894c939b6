"""A real browser without a window: Chromium, spoken to by its DevTools protocol over a pipe, so that nothing but the browser is needed."""

import base64
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome-headless-shell")
MACOS = ("/Applications/Google Chrome.app/Contents/MacOS/Google Chrome", "/Applications/Chromium.app/Contents/MacOS/Chromium")


# The protocol is spoken on descriptors 3 and 4, which may be in use where the pipes are made: they are put there last.
_PIPES = """
import fcntl, os, sys
high = [fcntl.fcntl(int(one), fcntl.F_DUPFD, 100) for one in sys.argv[1:3]]
for place, one in zip((3, 4), high):
    os.dup2(one, place)
os.execv(sys.argv[3], sys.argv[3:])
"""


def found() -> str | None:
    """Where a browser is; None where there is none."""
    return next((path for path in (*(shutil.which(name) for name in NAMES), *(one for one in MACOS if os.path.exists(one))) if path), None)


class Page:
    """One tab: what it shows, asked by JavaScript, and what it complained of or tried to load."""

    def __init__(self, write: int, read: int) -> None:
        self._write, self._read, self._number, self._rest = write, read, 0, b""
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self._loaded = False
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session: str | None = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")

    _session = None

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol; events that come meanwhile are noted."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters} | ({"sessionId": self._session} if self._session else {})
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer["error"]
                result: dict[str, Any] = answer["result"]
                return result

    def show(self, url: str) -> None:
        """Load a page whole."""
        self._loaded = False
        self.requests.clear()
        self.ask("Page.navigate", url=url)
        while not self._loaded:
            self._next()

    def evaluate(self, script: str) -> Any:
        """What an expression of JavaScript says, as JSON; a promise is waited for."""
        answer = self.ask("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def resize(self, width: int, height: int = 900) -> None:
        """Be as wide as a telephone or a desk."""
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)

    def like(self, scheme: str, media: str = "screen") -> None:
        """Be dark or light, on the screen or on paper."""
        self.ask("Emulation.setEmulatedMedia", media=media, features=[{"name": "prefers-color-scheme", "value": scheme}])

    def picture(self, file: Path | None = None, *, whole: bool = False) -> bytes:
        """A screenshot as PNG."""
        data = base64.b64decode(self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"])
        if file is not None:
            file.write_bytes(data)
        return data

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            more = os.read(self._read, 1 << 20)
            assert more, "the browser ended"
            self._rest += more
        line, _, self._rest = self._rest.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        self._note(message.get("method", ""), message.get("params", {}))
        return message

    def _note(self, event: str, said: dict[str, Any]) -> None:
        if event == "Page.loadEventFired":
            self._loaded = True
        elif event == "Network.requestWillBeSent":
            self.requests.append(said["request"]["url"])
        elif event == "Log.entryAdded":
            self.complaints.append(said["entry"]["text"])
        elif event == "Runtime.consoleAPICalled":
            self.complaints.append(str([one.get("value") for one in said["args"]]))
        elif event == "Runtime.exceptionThrown":
            self.complaints.append(said["exceptionDetails"]["text"])


@contextmanager
def opened(browser: str, profile: Path) -> Iterator[Page]:
    """A browser with one empty tab, ended afterwards."""
    (its_in, ours_out), (ours_in, its_out) = os.pipe(), os.pipe()
    arguments = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--hide-scrollbars"]
    arguments += ["--disable-background-networking", "--remote-debugging-pipe", f"--user-data-dir={profile}", "about:blank"]
    command = [sys.executable, "-c", _PIPES, str(its_in), str(its_out), *arguments]
    process = subprocess.Popen(command, pass_fds=(its_in, its_out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    os.close(its_in)
    os.close(its_out)
    try:
        yield Page(ours_out, ours_in)
    finally:
        process.terminate()
        process.wait(timeout=30)
        os.close(ours_out)
        os.close(ours_in)
