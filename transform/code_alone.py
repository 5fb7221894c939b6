"""Read the models by themselves: no warehouse is opened, no secret is needed."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from transform.build import open_context
from warehouse import settings

if TYPE_CHECKING:
    from sqlmesh import Context

_SETTINGS = ("WAREHOUSE_HOME", "WAREHOUSE_STORAGE", "WAREHOUSE_MEMORY_LIMIT", "WAREHOUSE_THREADS")  # what open_context sets


@contextmanager
def open_code_alone() -> Iterator["Context"]:
    """SQLMesh's context over an empty embedded warehouse that lasts as long as the context; settings are put back afterwards.

    Raises:
        StepFailed: a model, an audit or config.yaml cannot be read.
    """
    before = {name: os.environ.get(name) for name in _SETTINGS}
    with tempfile.TemporaryDirectory(prefix="warehouse-code-") as home:
        os.environ |= {"WAREHOUSE_HOME": home, "WAREHOUSE_STORAGE": "duckdb"}
        settings.reload()
        try:
            with open_context() as context:
                yield context
        finally:
            for name, value in before.items():
                os.environ.pop(name, None) if value is None else os.environ.update({name: value})
            settings.reload()
