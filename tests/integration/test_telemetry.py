"""A collector is told of each run by OTLP, nothing personal among it; one that is down costs little; without one nothing is imported."""

import gzip
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from conftest import Company, call
from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from cli.seeing import measured, tell
from warehouse import ledger, telemetry
from warehouse.errors import StepFailed, scrub
from warehouse.settings import ROOT

SECRET = "k3y-of-the-collector"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
Setting = Callable[[str, str | None], None]


class Collector:
    """An OTLP receiver that reads what it is sent as protobuf, and keeps it."""

    def __init__(self) -> None:
        self.headers: list[str | None] = []
        self.spans: list[Span] = []
        self.metrics: dict[str, list[tuple[dict[str, str], float]]] = {}
        self.service: set[str] = set()
        self.texts: list[str] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                body = gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body
                collector.headers.append(self.headers.get("dd-api-key"))
                collector.take(self.path, body)
                self.send_response(200)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *arguments: object) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def take(self, path: str, body: bytes) -> None:
        """Read one request."""
        if path == "/v1/traces":
            traces = ExportTraceServiceRequest.FromString(body)
            self.texts.append(str(MessageToDict(traces)))
            for resource in traces.resource_spans:
                self.service |= {one.value.string_value for one in resource.resource.attributes if one.key == "service.name"}
                self.spans += [span for scope in resource.scope_spans for span in scope.spans]
        else:
            assert path == "/v1/metrics"
            metrics = ExportMetricsServiceRequest.FromString(body)
            self.texts.append(str(MessageToDict(metrics)))
            for metric in (one for resource in metrics.resource_metrics for scope in resource.scope_metrics for one in scope.metrics):
                points = metric.gauge.data_points
                self.metrics[metric.name] = [({one.key: one.value.string_value for one in point.attributes}, point.as_double) for point in points]

    def tree(self) -> set[tuple[str, str]]:
        """Each span's name below its parent's."""
        names = {span.span_id: span.name for span in self.spans}
        return {(names.get(span.parent_span_id, ""), span.name) for span in self.spans}


@pytest.fixture
def collector(setting: Setting) -> Iterator[Collector]:
    one = Collector()
    setting("OTEL_EXPORTER_OTLP_ENDPOINT", one.url)
    setting("OTEL_EXPORTER_OTLP_HEADERS", f"dd-api-key={SECRET}")
    yield one
    telemetry.finish()
    one.server.shutdown()


def _attributes(span: Span) -> dict[str, object]:
    return {one.key: one.value.string_value or one.value.int_value for one in span.attributes}


def test_a_load_is_one_trace_of_its_steps_without_anything_personal(collector: Collector, company: Company) -> None:
    """The command itself, in a process of its own, from the real PostgreSQL, as part of a job's trace."""
    company.execute("TRUNCATE shop.orders CASCADE", "DELETE FROM shop.users WHERE id > 500")
    settings = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_EXPORTER_OTLP_HEADERS": f"dd-api-key={SECRET}"}
    ran = call("load", "postgres", **settings, TRACEPARENT=f"00-{TRACE}-00f067aa0ba902b7-01")
    assert ran.code == 0, ran.err
    tree = collector.tree()
    steps = {("warehouse load", "load"), ("load", "extract"), ("load", "normalize"), ("load", "write")}
    assert {("", "warehouse load"), *steps} <= tree
    assert {span.trace_id.hex() for span in collector.spans} == {TRACE}
    load = next(span for span in collector.spans if span.name == "load")
    assert _attributes(load) == {"warehouse.item": "postgres", "warehouse.status": "succeeded", "warehouse.rows_in": 500, "warehouse.rows_out": 500}
    assert load.start_time_unix_nano < load.end_time_unix_nano
    assert collector.service == {"warehouse"}
    assert set(collector.headers) == {SECRET}
    assert ({"source": "postgres", "table": "users"}, 500.0) in collector.metrics["warehouse_last_load_rows"]
    ((email,),) = company.rows("SELECT email FROM shop.users LIMIT 1")
    said = "\n".join(collector.texts)
    for secret in (email, "@", SECRET, company.reader_url, str(company.server.folder)):
        assert secret not in said
    assert scrub(f"refused {SECRET}") == "refused ***"


def test_every_metric_that_has_a_value_arrives(collector: Collector) -> None:
    with ledger.run("run"):
        pass
    tell()
    telemetry.finish()
    values = measured()
    assert set(collector.metrics) == {one.name for one in values}
    assert len(collector.metrics["warehouse_runs_last_day"]) == 3
    assert ({}, 1.0) in collector.metrics["warehouse_last_run_success"]


def test_a_failure_is_told_by_its_type_alone(collector: Collector) -> None:
    def breaks() -> None:
        with ledger.run("run") as run, run.step("transform"):
            telemetry.past_span("model", 0.5, model="marts.order_facts")
            raise StepFailed("the customer jane@example.org broke it")

    with pytest.raises(StepFailed):
        breaks()
    telemetry.finish()
    transform = next(span for span in collector.spans if span.name == "transform")
    assert transform.status.code == Status.STATUS_CODE_ERROR
    assert transform.status.message == "StepFailed"
    assert "jane" not in "\n".join(collector.texts)
    model = next(span for span in collector.spans if span.name == "model")
    assert model.parent_span_id == transform.span_id
    assert model.end_time_unix_nano - model.start_time_unix_nano == 500_000_000


@pytest.mark.parametrize("kind", ["refuses", "never answers"])
def test_a_collector_that_is_down_neither_fails_a_run_nor_holds_it_up(setting: Setting, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(telemetry, "PATIENCE", 0.5)
    silent = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)  # listens, and never answers
    if kind == "refuses":
        silent.server_close()
    setting("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{silent.server_port}")
    began = time.monotonic()
    for _ in range(2500):  # more than are kept for later: the rest is lost
        with telemetry.span("load", item="x"):
            pass
    assert time.monotonic() - began < 9  # were each to wait for the collector, it would be hours
    with ledger.run("run"):
        pass
    tell()
    began = time.monotonic()
    telemetry.finish()
    assert time.monotonic() - began < telemetry.PATIENCE + 1
    assert [one["status"] for one in ledger.recent_runs(1)] == ["succeeded"]
    silent.server_close()


@pytest.mark.parametrize("name", ["OTEL_SDK_DISABLED", "OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_TRACES_EXPORTER"])
def test_the_standard_switches_turn_it_off(collector: Collector, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, {"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_TRACES_EXPORTER": "none"}[name])
    with ledger.run("run"):
        pass
    telemetry.finish()
    assert not collector.spans


def test_without_an_endpoint_nothing_is_imported(setting: Setting) -> None:
    setting("WAREHOUSE_NOW", None)
    code = (
        "import sys; from warehouse import ledger, telemetry; from cli.seeing import tell\n"
        "with ledger.run('run') as run, run.step('load', 'x'): pass\n"
        "tell(); telemetry.finish(); print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert ran.stdout.strip() == "[]"
