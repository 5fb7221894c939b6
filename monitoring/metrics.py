"""What Prometheus asks for, in its text format: answered over HTTP, or written into a file that node_exporter collects."""

import json
import sqlite3
from collections.abc import Callable, Iterable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import groupby
from pathlib import Path

from monitoring.measures import METRICS, Measure
from warehouse.console import say
from warehouse.errors import UsageError, WarehouseError, scrub
from warehouse.files import write_atomically

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def render(measures: Iterable[Measure]) -> str:
    """Measures, those of one metric together, as Prometheus' text format."""
    lines: list[str] = []
    for name, values in groupby(measures, key=lambda one: one.name):
        lines.extend((f"# HELP {name} {METRICS[name][0]}", f"# TYPE {name} gauge"))
        lines.extend(f"{name}{_labels(one.labels)} {one.value:.15g}" for one in values)
    return "\n".join(lines) + "\n"


def write(file: Path, measures: Iterable[Measure]) -> None:
    """Replace the file that node_exporter's textfile collector reads, whole: it never sees a part."""
    write_atomically(file, render(measures))


def serve(host: str, port: int, measured: Callable[[], Iterable[Measure]]) -> None:
    """Answer GET /metrics until told to end.

    Raises:
        UsageError: the address cannot be listened on.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = self._answer()
            self.send_response(status)
            self.send_header("Content-Type", CONTENT_TYPE)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _answer(self) -> tuple[int, bytes]:
            if self.path.split("?")[0] != "/metrics":
                return 404, b"GET /metrics\n"
            try:
                return 200, render(measured()).encode()
            except (WarehouseError, OSError, sqlite3.Error) as error:  # a declaration may be broken while somebody edits it
                return 503, f"{scrub(str(error))}\n".encode()

        def log_message(self, format: str, *arguments: object) -> None:
            """Say nothing: a line every fifteen seconds helps nobody."""

    try:
        server = ThreadingHTTPServer((host, port), Handler)
    except OSError as error:
        raise UsageError(f"{host}:{port} cannot be listened on: {error.strerror}.", mend="choose another --port, or end who has it") from None
    with server:
        say(json.dumps({"listening": f"http://{host}:{server.server_port}/metrics"}))
        server.serve_forever()


def _labels(labels: Mapping[str, str]) -> str:
    def escaped(value: str) -> str:
        return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

    return "{" + ",".join(f'{name}="{escaped(value)}"' for name, value in labels.items()) + "}" if labels else ""
