"""A Zendesk account, its warehouse, and one clock for both."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from demo.stand_ins.zendesk import Asked, ZendeskStandIn
from pipelines import load, source, zendesk_client
from pipelines import zendesk as module
from warehouse import ledger

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
TICKETS = "incremental/tickets/cursor"


class World:
    """An account, its warehouse, and one clock for both, which is also what is slept by."""

    def __init__(self, setting: Callable[[str, str | None], None], account: ZendeskStandIn, file: Path) -> None:
        self._setting, self.account, self._file = setting, account, file
        self.slept: list[float] = []
        self.at(NOW)

    def at(self, now: datetime) -> None:
        self.now = now
        self._setting("WAREHOUSE_NOW", now.isoformat())

    def later(self, **by: float) -> None:
        self.at(self.now + timedelta(**by))

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.later(seconds=seconds)

    def declare(self, **values: object) -> None:
        text = self._file.read_text()
        for key, value in values.items():
            text = re.sub(rf"^{key}: \S+", f"{key}: {value}", text, flags=re.MULTILINE)
        self._file.write_text(text)

    def load(self) -> dict[str, load.Loaded]:
        with ledger.run("load zendesk") as run:
            return {one.table: one for one in load.load("zendesk", run)}

    def findings(self) -> list[str]:
        return [finding for one in self.load().values() for finding in one.findings]

    def tickets(self, count: int, **fields: Any) -> list[int]:
        """Open tickets, a minute after each other, all of them old enough to be shown."""
        made = []
        for number in range(count):
            with self.account.at(self.now - timedelta(hours=2) + timedelta(minutes=number)):
                made.append(int(self.account.create_ticket(subject=f"ticket {number}", **fields)["id"]))
        return made

    def on_page(self, number: int, happens: Callable[[], None], path: str = TICKETS) -> None:
        """Let something happen before a page of an export is answered, once."""
        seen = self.account.requests_of(path)

        def before(asked: Asked) -> None:
            if asked.path == f"/api/v2/{path}" and self.account.requests_of(path) == seen + number:
                self.account.before = None
                happens()

        self.account.before = before


@contextmanager
def zendesk_world(setting: Callable[[str, str | None], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[World]:
    """An account that is configured; nobody really sleeps."""
    folder = tmp_path / "declared"
    folder.mkdir()
    (folder / "zendesk.yaml").write_text((source.FOLDER / "zendesk.yaml").read_text())
    monkeypatch.setattr(module, "FOLDER", folder)
    with ZendeskStandIn() as account:
        setting("SOURCES__ZENDESK__BASE_URL", account.url)
        setting("SOURCES__ZENDESK__CLIENT_ID", account.client_id)
        setting("SOURCES__ZENDESK__CLIENT_SECRET", account.client_secret)
        world = World(setting, account, folder / "zendesk.yaml")
        monkeypatch.setattr(zendesk_client.WAITING, "sleep", world.sleep)
        monkeypatch.setattr(zendesk_client.WAITING, "monotonic", lambda: world.now.timestamp())
        yield world
