"""`warehouse serve`: what goes on running and answers others. Rooms are imported when their verb is called."""

import click


@click.group(short_help="Receive webhooks.")
def serve() -> None:
    """What goes on running and answers others, until it is told to end by SIGTERM or Ctrl+C."""


@serve.command(short_help="Receive Stripe's webhooks into the spool.")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on; a TLS proxy stands before it.")
@click.option("--port", default=8787, show_default=True, type=click.IntRange(0, 65535), help="The port to listen on; 0 takes a free one.")
def webhooks(host: str, port: int) -> None:
    """Receive Stripe's webhooks at POST /stripe: check the signature, make the event durable in the spool, answer 200.

    It never opens the warehouse; `warehouse load stripe` and `warehouse run` read the spool. /healthz says whether events
    can be kept now, /metrics what came. One line of JSON a request goes to standard output.
    """
    from serving.webhooks import serve as receive

    receive(host, port)


@serve.command(short_help="Answer Prometheus.")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", default=9187, show_default=True, type=click.IntRange(0, 65535), help="The port to listen on; 0 takes a free one.")
def metrics(host: str, port: int) -> None:
    """Answer GET /metrics in Prometheus' text format: runs, age of sources, findings, incidents, waiting alerts, backups, disk.

    Only the ledger and the home are looked at: it answers while a run is writing, and also when the warehouse cannot be opened.
    """
    import sys

    from cli.seeing import measured
    from monitoring.metrics import serve as answer

    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # a text stream, also when it is redirected
    answer(host, port, measured)
