"""OpenTelemetry: spans of runs and their steps, and what is measured, over OTLP by HTTP, where an endpoint is set.

Off unless `OTEL_EXPORTER_OTLP_ENDPOINT` (or that of one signal) is set: then nothing of OpenTelemetry is even imported.
A collector that is down costs a bounded time when a process ends, and never fails a run. Attributes hold names of steps,
sources and tables, counts, and types of errors: never a message, a value of a row, or a setting.
"""

import os
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, Protocol

from warehouse.settings import settings

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span

PATIENCE = 3.0
"""Seconds that a process waits at its end for all that is still to be sent."""
Value = str | int | float | bool
Signal = Literal["traces", "metrics"]
SIGNALS: tuple[Signal, ...] = ("traces", "metrics")


class Measured(Protocol):
    """One value of a metric, as monitoring/measures.py has it."""

    @property
    def name(self) -> str: ...
    @property
    def help(self) -> str: ...
    @property
    def unit(self) -> str: ...
    @property
    def labels(self) -> Mapping[str, str]: ...
    @property
    def value(self) -> float: ...


_provider: "TracerProvider | None" = None
_open: "list[Span]" = []
"""The spans that are open, the innermost last. One process does one thing at a time, though some of it in other threads."""
_sending: threading.Thread | None = None


def is_on(signal: Signal) -> bool:
    """Whether a signal is sent: an endpoint is set and the SDK is not disabled; only OTLP over HTTP with protobuf is spoken."""
    given = os.environ.get
    if not is_asked_for(signal) or given("OTEL_SDK_DISABLED", "").strip().lower() == "true" or given(f"OTEL_{signal.upper()}_EXPORTER", "otlp") != "otlp":
        return False
    protocol = given(f"OTEL_EXPORTER_OTLP_{signal.upper()}_PROTOCOL") or given("OTEL_EXPORTER_OTLP_PROTOCOL") or "http/protobuf"
    return protocol == "http/protobuf"


def is_asked_for(*signals: Signal) -> bool:
    """Whether an endpoint is set for one of the signals (of any, when none is named)."""
    return bool(settings().otlp_endpoint) or any(os.environ.get(f"OTEL_EXPORTER_OTLP_{one.upper()}_ENDPOINT") for one in signals or SIGNALS)


@contextmanager
def span(name: str, **attributes: Value | None) -> "Iterator[Attributes]":
    """Time what is inside, below the span that is open. What is raised is marked by its type and raised again.

    Yields:
        what takes attributes that are known only later.
    """
    if not is_on("traces"):
        yield Attributes(None)
        return
    current = _start(name, attributes, None)
    _open.append(current)
    try:
        yield Attributes(current)
    except BaseException as error:
        _fail(current, type(error).__name__)
        raise
    finally:
        _open.remove(current)
        current.end()


def past_span(name: str, seconds: float, **attributes: Value | None) -> None:
    """Note what has just ended and took so long."""
    if is_on("traces"):
        end = time.time_ns()
        _start(name, attributes, end - int(seconds * 1e9)).end(end)


class Attributes:
    """Takes attributes of a span; nothing where none is kept."""

    def __init__(self, kept: "Span | None") -> None:
        self._kept = kept

    def set(self, **attributes: Value | None) -> None:
        """Add attributes, named without their prefix `warehouse.`; None is left out."""
        if self._kept is not None:
            self._kept.set_attributes(_named(attributes))

    def fail(self, kind: str) -> None:
        """Mark the span as failed, by a type of error."""
        if self._kept is not None:
            _fail(self._kept, kind)


def send(values: Iterable[Measured]) -> None:
    """Begin to send what was measured; `finish` waits for it. What is still on its way is not waited for: it is newer than nothing."""
    global _sending
    if not is_on("metrics") or (_sending is not None and _sending.is_alive()):
        return
    _environment()
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    reader = InMemoryMetricReader()
    meter = MeterProvider([reader], resource=_resource(), shutdown_on_exit=False).get_meter("warehouse")
    gauges: dict[str, Any] = {}
    for one in values:
        if one.name not in gauges:
            gauges[one.name] = meter.create_gauge(one.name, unit=one.unit, description=one.help)
        gauges[one.name].set(one.value, dict(one.labels))
    data = reader.get_metrics_data()
    if data is not None:
        exporter = OTLPMetricExporter()
        _sending = threading.Thread(target=lambda: exporter.export(data, timeout_millis=PATIENCE * 1000), daemon=True)
        _sending.start()


def finish() -> None:
    """Wait for what is still to be sent, for `PATIENCE` seconds in all; the rest is lost."""
    global _provider, _sending
    waiting = [_sending] if _sending is not None else []
    if _provider is not None:
        provider = _provider
        waiting.append(threading.Thread(target=lambda: provider.force_flush(int(PATIENCE * 1000)), daemon=True))
        waiting[-1].start()
    until = time.monotonic() + PATIENCE
    for thread in waiting:
        thread.join(max(0.0, until - time.monotonic()))
    _provider, _sending = None, None


def _start(name: str, attributes: Mapping[str, Value | None], began: int | None) -> "Span":
    from opentelemetry.trace import set_span_in_context

    context = set_span_in_context(_open[-1]) if _open else _callers()
    return _tracing().get_tracer("warehouse").start_span(name, context, attributes=_named(attributes), start_time=began)


def _callers() -> Any:
    """The trace that the caller is in, when it says so by `TRACEPARENT`: several commands of one job are one trace."""
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    return TraceContextTextMapPropagator().extract({"traceparent": os.environ.get("TRACEPARENT", "")})


def _tracing() -> "TracerProvider":
    """Our own provider, not the global one: what libraries trace by themselves is not sent."""
    global _provider
    if _provider is None:
        _environment()
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        _provider = TracerProvider(resource=_resource(), shutdown_on_exit=False)
        _provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return _provider


def _resource() -> "Resource":
    from importlib.metadata import version

    from opentelemetry.sdk.resources import Resource

    own = {"service.name": os.environ.get("OTEL_SERVICE_NAME") or "warehouse", "service.version": version("startup-warehouse")}
    return Resource.create(own)


def _environment() -> None:
    """Hand what may stand in `.env` to OpenTelemetry, which reads nothing but the environment."""
    now = settings()
    if now.otlp_endpoint:
        os.environ.setdefault("OTEL_EXPORTER_OTLP_ENDPOINT", now.otlp_endpoint)
    if now.otlp_headers is not None and now.otlp_headers.get_secret_value():
        os.environ.setdefault("OTEL_EXPORTER_OTLP_HEADERS", now.otlp_headers.get_secret_value())


def _fail(current: "Span", kind: str) -> None:
    from opentelemetry.trace import StatusCode

    current.set_status(StatusCode.ERROR, kind)
    current.set_attribute("error.type", kind)


def _named(attributes: Mapping[str, Value | None]) -> dict[str, Value]:
    return {f"warehouse.{name}": value for name, value in attributes.items() if value is not None and value != ""}
