"""A bad network before an S3 server: a proxy that speaks TCP, and spoils some of the requests that pass through it."""

import random
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress

from integration.object_stores import S3Server

WAYS = ("answers 500", "answers cut off", "no answers", "slow answers", "connections reset")
PATIENCE = 0.5
"""Seconds that a client under trial waits for an answer: one that does not come takes longer."""

_SPOILED = 0.15
_BEGINS = (b"GET ", b"PUT ", b"POST ", b"HEAD ", b"DELETE ")
_500 = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


@contextmanager
def bad_network(server: S3Server, chance: random.Random, way: str) -> Iterator[str]:
    """Stands before a server while inside; yields its address."""
    port = int(server.url.rpartition(":")[2])
    listener = socket.create_server(("127.0.0.1", 0))
    ended = threading.Event()

    def serve(client: socket.socket) -> None:
        with suppress(OSError), closing(client), closing(socket.create_connection(("127.0.0.1", port))) as upstream:
            left = [1 << 40]
            back = threading.Thread(target=_back, args=(upstream, client, left), daemon=True)
            back.start()
            while data := client.recv(1 << 16):
                if data.startswith(_BEGINS) and chance.random() < _SPOILED and not _spoil(way, client, chance, left, ended):
                    return
                upstream.sendall(data)

    def accept() -> None:
        while not ended.is_set():
            with suppress(OSError):
                connection, _ = listener.accept()
                threading.Thread(target=serve, args=(connection,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        ended.set()
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(timeout=10)


def _spoil(way: str, client: socket.socket, chance: random.Random, left: list[int], ended: threading.Event) -> bool:
    """Whether the request goes on to the server all the same."""
    match way:
        case "answers 500":
            client.sendall(_500)
            return False
        case "no answers":
            ended.wait(3 * PATIENCE)
            return False
        case "connections reset":
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return False
        case "answers cut off":
            left[0] = chance.randrange(0, 60_000)
        case "slow answers":
            left[0] = -1
    return True


def _back(source: socket.socket, target: socket.socket, left: list[int]) -> None:
    """What the server says; as much as is left, or slowly when that is negative."""
    with suppress(OSError):
        while left[0] and (data := source.recv(1 << 16)):
            if left[0] < 0:
                for at in range(0, len(data), 1 << 14):
                    time.sleep(0.02)
                    target.sendall(data[at : at + (1 << 14)])
                continue
            data = data[: left[0]]
            target.sendall(data)
            left[0] -= len(data)
    for one in (source, target):
        with suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
