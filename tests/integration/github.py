"""The part of GitHub's API that keeps the comments of pull requests and merges them, on a local port."""

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

TOKEN = "ghs_only-for-the-tests"
REPOSITORY = "startup/warehouse"
SHA = "5f" * 20


class GitHub(ThreadingHTTPServer):
    """Its comments, oldest first, what was asked of it, and how it is to fail: (method, status, whether it did it all the same)."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.comments: list[dict[str, Any]] = []
        self.asked: list[str] = []
        self.failures: list[tuple[str, int, bool]] = []
        self.permission, self.behind_by = "write", 0
        self.pull: dict[str, Any] = {
            "state": "open", "draft": False, "merged": False, "mergeable": True, "mergeable_state": "clean",
            "head": {"sha": SHA, "repo": {"full_name": REPOSITORY}}, "base": {"ref": "main"},
        }  # fmt: skip

    @property
    def url(self) -> str:
        """What GITHUB_API_URL says."""
        return f"http://127.0.0.1:{self.server_port}"

    def write(self, body: str) -> dict[str, Any]:
        """Add a comment."""
        comment = {"id": 1000 + len(self.comments), "body": body}
        self.comments.append(comment)
        return comment


class _Handler(BaseHTTPRequestHandler):
    server: GitHub

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def do_PATCH(self) -> None:
        self._answer()

    def _answer(self) -> None:
        parts = urlsplit(self.path)
        given = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or "{}")
        self.server.asked.append(f"{self.command} {self.path}")
        failure = next((one for one in self.server.failures if one[0] == self.command), None)
        if failure:
            self.server.failures.remove(failure)
            if failure[2]:
                self._do(parts.path, {}, given)
            self._send(failure[1], {"message": f"no, {self.headers['Authorization']}"})
        elif self.headers["Authorization"] != f"Bearer {TOKEN}":
            self._send(401, {"message": "Bad credentials"})
        else:
            self._send(*self._do(parts.path, parse_qs(parts.query), given))

    def _do(self, path: str, asked: dict[str, list[str]], given: dict[str, Any]) -> tuple[int, Any]:
        if len(given.get("body", "")) > 65_536:
            return 422, {"message": "Body is too long (maximum is 65536 characters)"}
        if path == f"/repos/{REPOSITORY}/issues/12/comments":
            if self.command == "POST":
                return 201, self.server.write(given["body"])
            size, page = int(asked.get("per_page", ["30"])[0]), int(asked.get("page", ["1"])[0])
            return 200, self.server.comments[size * (page - 1) : size * page]
        if path == f"/repos/{REPOSITORY}/collaborators/ada/permission":
            return 200, {"permission": self.server.permission}
        if path == f"/repos/{REPOSITORY}/compare/{self.server.pull['base']['ref']}...{self.server.pull['head']['sha']}":
            return 200, {"behind_by": self.server.behind_by}
        if path == f"/repos/{REPOSITORY}/pulls/12":
            return 200, self.server.pull
        if path == f"/repos/{REPOSITORY}/pulls/12/merge" and self.command == "PUT":
            if self.server.pull["merged"]:
                return 405, {"message": "Pull Request is not mergeable"}
            if given["sha"] != self.server.pull["head"]["sha"]:
                return 409, {"message": "Head branch was modified. Review and try the merge again."}
            self.server.pull |= {"merged": True, "state": "closed"}
            return 200, {"merged": True}
        named = re.fullmatch(rf"/repos/{REPOSITORY}/issues/comments/(\d+)", path)
        held = [one for one in self.server.comments if named and one["id"] == int(named[1])]
        if self.command == "PATCH" and held:
            held[0]["body"] = given["body"]
            return 200, held[0]
        return 404, {"message": "Not Found"}

    def _send(self, status: int, value: Any) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@contextmanager
def pull_request(folder: Path, patch: pytest.MonkeyPatch, head: str = REPOSITORY, label: str = "") -> Iterator[GitHub]:
    """GitHub, and the environment of a job that it runs for pull request 12, from the repository `head`; with `label`, because ada set it."""
    event = folder / "event.json"
    happened = {"action": "synchronize", "pull_request": {"number": 12, "head": {"repo": {"full_name": head}}}}
    event.write_text(json.dumps(happened | ({"action": "labeled", "label": {"name": label}, "sender": {"login": "ada"}} if label else {})))
    with GitHub() as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        values = {"GITHUB_API_URL": server.url, "GITHUB_TOKEN": TOKEN, "GITHUB_REPOSITORY": REPOSITORY, "GITHUB_EVENT_PATH": str(event)}
        for name, value in values.items():
            patch.setenv(name, value)
        yield server
        server.shutdown()
