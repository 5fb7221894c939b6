"""Fixtures of the end-to-end tests: no settings but those that a test gives."""

import os
from collections.abc import Iterator

import pytest
from e2e.homes import SETTINGS, Forks

from warehouse import settings


@pytest.fixture(scope="module")
def no_settings() -> Iterator[pytest.MonkeyPatch]:
    """An environment without settings of the warehouse; what is set here is undone."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(SETTINGS):
                patch.delenv(name)
        settings.reload()
        yield patch
    settings.reload()


@pytest.fixture(scope="module")
def forks(no_settings: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    """Runs that share their imports."""
    with_imports = Forks(tmp_path_factory.mktemp("forks"))
    yield with_imports
    with_imports.close()
