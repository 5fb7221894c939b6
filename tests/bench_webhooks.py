"""Measure the receiver of webhooks: `make bench-webhooks`. Signed events of 3 kB, a real flush to disk, the sender on this machine.

Each line of JSON is one figure. The sender is another process than the receiver and shares the processors with it.
"""

import argparse
import asyncio
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from demo.stand_ins.stripe import StripeStandIn
from demo.stand_ins.stripe_webhooks import body_of, signature
from warehouse import spool
from warehouse.console import say
from warehouse.settings import ROOT, reload

SECRET = "whsec_of_the_bench"  # signs nothing but what is measured here
BODY_BYTES = 3_000


@dataclass
class Measured:
    """What one sending came to: the status and the seconds of each request, and the second in which it was answered."""

    seconds: float = 0.0
    statuses: Counter[int] = field(default_factory=Counter)
    latencies: list[float] = field(default_factory=list)
    by_second: Counter[int] = field(default_factory=Counter)

    def quantile(self, share: float) -> float:
        """Milliseconds within which this share of the requests was answered."""
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))] * 1000

    @property
    def slowest_second(self) -> int:
        """The fewest answers within one whole second."""
        return min(self.by_second[second] for second in range(int(self.seconds)))


def main() -> None:
    """Run both measurements and write one line each, with the bar and whether it was met."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--seconds", type=float, default=60.0)
    arguments.add_argument("--bucket", action="store_true", help="spool into a bucket of an S3 server on this machine instead of a file")
    given = arguments.parse_args()
    seconds: float = given.seconds
    with tempfile.TemporaryDirectory(prefix="warehouse_bench_") as home, ExitStack() as stack:
        os.environ |= {"WAREHOUSE_HOME": home, "SOURCES__STRIPE__WEBHOOK_SECRETS": SECRET}
        if given.bucket:
            from tests.object_store import object_store

            store = stack.enter_context(object_store(Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="warehouse_bench_")))))
            os.environ |= store.settings("SOURCES__STRIPE__SPOOL", f"s3://{store.new_bucket()}/spool")
        reload()
        with (Path(home) / "receiver.log").open("w") as log:
            receiver, url = start(log)
            try:
                most = asyncio.run(send(url, seconds, connections=32, a_second=None))
                _report("sustained, as fast as it answers", most, f">= 500 requests/s over {seconds:.0f} s", most.slowest_second >= 500)
                steady = asyncio.run(send(url, seconds, connections=32, a_second=100))
                _report("100 requests/s", steady, "p99 <= 50 ms", steady.quantile(0.99) <= 50)
            finally:
                receiver.terminate()
                receiver.wait()
        kept = sum(len(spool.read(segment).records) for segment in spool.segments("stripe"))
        say(json.dumps({"what": "acknowledged and in the spool", "acknowledged": most.statuses[200] + steady.statuses[200], "spooled": kept}))


def start(log: IO[str]) -> "tuple[subprocess.Popen[bytes], str]":
    """A receiver in a process of its own, and where it listens; `log` is an open file for what it says."""
    command = [str(Path(sys.executable).with_name("warehouse")), "serve", "webhooks", "--port", "0"]
    receiver = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
    while not (found := re.search(r"http://\S+/stripe", Path(log.name).read_text())):
        if receiver.poll() is not None:
            raise SystemExit(Path(log.name).read_text())
        time.sleep(0.02)
    return receiver, found[0]


async def send(url: str, seconds: float, *, connections: int, a_second: float | None, secret: str = SECRET) -> Measured:
    """Send events over connections that stay open, each signed when it is sent.

    Args:
        seconds: for how long.
        connections: how many requests are under way at the most.
        a_second: at which rate; a request that had to wait for a connection is late from its due time on. None: as fast as it answers.
    """
    address = urlsplit(url)
    template = _event()
    measured, numbers, began = Measured(seconds), iter(range(10**9)), time.perf_counter()

    async def one_connection() -> None:
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        while True:
            number = next(numbers)
            due = began + number / a_second if a_second else time.perf_counter()
            if due - began >= seconds or time.perf_counter() - began >= seconds:
                break
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            body = template.replace(b"evt_of_the_bench", b"evt_%012d" % number)
            head = f"POST {address.path} HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Length: {len(body)}\r\n"
            head += f"Stripe-Signature: {signature(body, [secret], datetime.now(UTC))}\r\n\r\n"
            writer.write(head.encode() + body)
            answer = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"(?i)content-length: (\d+)", answer)
            await reader.readexactly(int(length[1]) if length else 0)
            now = time.perf_counter()
            measured.statuses[int(answer[9:12])] += 1
            measured.latencies.append(now - due)
            measured.by_second[int(now - began)] += 1
        writer.close()

    await asyncio.gather(*(one_connection() for _ in range(connections)))
    return measured


def _event() -> bytes:
    """The body of an invoice's event, of about 3 kB, as Stripe sends them."""
    account = StripeStandIn()
    account.create("invoices", customer="cus_00000001", total=1500, status="paid", lines=[{"amount": 1500, "description": "Plan"}])
    event = account.events()[0] | {"id": "evt_of_the_bench"}
    missing = BODY_BYTES - len(body_of(event))
    event["data"]["object"]["metadata"]["padding"] = "x" * max(0, missing - 30)
    return body_of(event)


def _report(what: str, measured: Measured, bar: str, is_met: bool) -> None:
    good = measured.statuses[200] == sum(measured.statuses.values())
    figures = {"requests_per_s": round(len(measured.latencies) / measured.seconds), "slowest_second": measured.slowest_second}
    latencies = {f"p{share}_ms": round(measured.quantile(share / 100), 2) for share in (50, 99)}
    most = {"max_ms": round(max(measured.latencies) * 1000, 2), "mean_ms": round(statistics.mean(measured.latencies) * 1000, 2)}
    say(json.dumps({"what": what, **figures, **latencies, **most, "statuses": dict(measured.statuses), "bar": bar, "met": is_met and good}))


if __name__ == "__main__":
    os.chdir(ROOT)
    main()
