"""What a Prometheus asks for: runs, the age of each source, findings, incidents and waiting alerts, as its text format."""

import json
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from monitoring import book
from warehouse import clock, ledger
from warehouse.console import say
from warehouse.errors import UsageError

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_OLD_RUNS = 50


def render(freshness: Mapping[str, timedelta], now: datetime) -> str:
    """All metrics. Only the ledger is read, so that it works while a run is writing.

    Args:
        freshness: source to its limit; a source that was never loaded has no age.
        now: aware, by the one clock.
    """
    runs = [run for run in ledger.recent_runs(_OLD_RUNS) if run["command"].split()[0] == "run" and run["ended_at"]]
    lines: list[str] = []

    def add(name: str, what: str, values: Iterable[tuple[Mapping[str, str], float]]) -> None:
        lines.extend((f"# HELP {name} {what}", f"# TYPE {name} gauge"))
        lines.extend(f"{name}{_labels(labels)} {value:.10g}" for labels, value in values)

    last = runs[:1]
    add("warehouse_last_run_timestamp_seconds", "When the last run ended.", [({}, _epoch(run["ended_at"])) for run in last])
    add(
        "warehouse_last_run_success",
        "Whether the last run did its work; findings are counted apart.",
        [({}, run["status"] in ("succeeded", "findings")) for run in last],
    )
    add("warehouse_last_run_seconds", "How long the last run took.", [({}, run["seconds"] or 0) for run in last])
    steps = [step for run in last for step in run["steps"] if step["status"] != "skipped"]
    add(
        "warehouse_last_run_step_seconds",
        "How long each step of it took.",
        [({"step": one["step"], "item": one["item"]}, one["seconds"] or 0) for one in steps],
    )
    loaded = {source: ledger.last_success("load", source) for source in freshness}
    ages = [({"source": source}, (now - at).total_seconds()) for source, at in loaded.items() if at is not None]
    add("warehouse_source_age_seconds", "How long ago the source was last loaded well.", ages)
    add("warehouse_source_limit_seconds", "How old it may be.", [({"source": source}, limit.total_seconds()) for source, limit in freshness.items()])
    with book.opened() as kept:
        found = kept.execute("SELECT severity, count(*) FROM findings WHERE resolved_at IS NULL GROUP BY 1").fetchall()
        (incidents,) = kept.execute("SELECT count(*) FROM incidents WHERE resolved_at IS NULL").fetchone()
        (waiting,) = kept.execute("SELECT count(*) FROM alerts WHERE status IN ('queued', 'sending')").fetchone()
    counts = {"error": 0, "warning": 0} | dict(map(tuple, found))
    add("warehouse_findings", "What is wrong now.", [({"severity": severity}, count) for severity, count in counts.items()])
    add("warehouse_open_incidents", "How many incidents are open.", [({}, incidents)])
    add("warehouse_alerts_waiting", "Alerts that no channel has taken yet.", [({}, waiting)])
    return "\n".join(lines) + "\n"


def serve(host: str, port: int, freshness: Mapping[str, timedelta]) -> None:
    """Answer GET /metrics until told to end.

    Raises:
        UsageError: the address cannot be listened on.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            is_known = self.path.split("?")[0] == "/metrics"
            body = (render(freshness, clock.now()) if is_known else "GET /metrics\n").encode()
            self.send_response(200 if is_known else 404)
            self.send_header("Content-Type", CONTENT_TYPE)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            """Say nothing: a line every fifteen seconds helps nobody."""

    try:
        server = ThreadingHTTPServer((host, port), Handler)
    except OSError as error:
        raise UsageError(f"{host}:{port} cannot be listened on: {error.strerror}.", mend="choose another --port, or end who has it") from None
    with server:
        say(json.dumps({"listening": f"http://{host}:{server.server_port}/metrics"}))
        server.serve_forever()


def _epoch(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def _labels(labels: Mapping[str, str]) -> str:
    def escaped(value: str) -> str:
        return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

    return "{" + ",".join(f'{name}="{escaped(value)}"' for name, value in labels.items()) + "}" if labels else ""
