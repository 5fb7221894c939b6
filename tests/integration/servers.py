"""Servers that production has and the demo company has not: a standby, and one that speaks TLS."""

import socket
import ssl
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg2

from demo.binaries import account, programs
from demo.server import HOST, Server


def rows(url: str, query: str) -> list[tuple[Any, ...]]:
    """What a database answers."""
    with closing(psycopg2.connect(url)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(query)
            return cursor.fetchall() if cursor.description else []


@contextmanager
def standby_of(primary: Server, folder: Path) -> Iterator[Server]:
    """A hot standby that follows a server by streaming, with the same users and passwords."""
    folder.mkdir()
    folder.chmod(0o711)
    (folder / "secret").write_bytes((primary.folder / "secret").read_bytes())
    data = folder / "data"
    data.mkdir(mode=0o700)
    owner = account(folder, data)
    owner.owns(data)
    command = [str(programs() / "pg_basebackup"), f"--pgdata={data}", f"--dbname={primary.url()}", "--write-recovery-conf", "--checkpoint=fast", "--no-sync"]
    with (folder / "log").open("ab") as log:
        assert owner.launch(command, log).wait() == 0, (folder / "log").read_text()
    standby = Server(folder, fsync=False)
    standby.ensure_running()
    try:
        yield standby
    finally:
        standby.stop()


def catch_up(standby: Server, primary: Server) -> None:
    """Wait until the standby has replayed all that the primary has written by now."""
    position = rows(primary.url(), "SELECT pg_current_wal_flush_lsn()")[0][0]
    deadline = time.monotonic() + 25
    while rows(standby.url(), f"SELECT pg_last_wal_replay_lsn() >= '{position}'") != [(True,)]:
        assert time.monotonic() < deadline, "the standby does not follow"
        time.sleep(0.02)


class Certificates:
    """An authority, and what it signed: a server named `localhost`, a client, and another authority that signed nothing."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority, self.stranger = self._self_signed("authority"), self._self_signed("stranger")
        self.server, self.client = self._signed("localhost", "subjectAltName=DNS:localhost"), self._signed("client", "subjectAltName=DNS:client")

    def key(self, certificate: Path) -> Path:
        """The key of a certificate."""
        return certificate.with_suffix(".key")

    def _self_signed(self, name: str) -> Path:
        made = self.folder / f"{name}.crt"
        self._openssl("req", "-x509", *self._new_key(name), "-out", str(made), "-days", "2")
        return made

    def _signed(self, name: str, extension: str) -> Path:
        made, request, extensions = (self.folder / f"{name}.{kind}" for kind in ("crt", "csr", "ext"))
        extensions.write_text(extension + "\n")
        self._openssl("req", *self._new_key(name), "-out", str(request))
        authority = ("-CA", str(self.authority), "-CAkey", str(self.key(self.authority)), "-CAcreateserial")
        self._openssl("x509", "-req", "-in", str(request), *authority, "-out", str(made), "-days", "2", "-extfile", str(extensions))
        return made

    def _new_key(self, name: str) -> list[str]:
        return ["-newkey", "rsa:2048", "-nodes", "-keyout", str(self.folder / f"{name}.key"), "-subj", f"/CN={name}"]

    def _openssl(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], check=True, capture_output=True)
        for key in self.folder.glob("*.key"):
            key.chmod(0o600)


@contextmanager
def tls_in_front_of(server: Server, certificates: Certificates, *, asks_clients: bool = False) -> Iterator[int]:
    """A port on `localhost` that speaks PostgreSQL's TLS, as a server with `ssl = on` does, and passes on what it hears.

    The embedded server is built without TLS; for its client there is no difference (but channel binding).
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.server, certificates.key(certificates.server))
    if asks_clients:
        context.load_verify_locations(certificates.authority)
        context.verify_mode = ssl.CERT_REQUIRED
    listener = socket.create_server((HOST, 0))

    def serve(plain: socket.socket) -> None:
        with suppress(OSError), plain:
            while struct.unpack("!ii", plain.recv(8, socket.MSG_WAITALL))[1] != 80_877_103:
                plain.sendall(b"N")  # no GSSAPI
            plain.sendall(b"S")
            with context.wrap_socket(plain, server_side=True) as secure, socket.create_connection((HOST, server.port)) as inner:
                threading.Thread(target=pass_on, args=(inner, secure), daemon=True).start()
                pass_on(secure, inner)

    def pass_on(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while heard := source.recv(65_536):
                target.sendall(heard)
        with suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)

    def listen() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=listen, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
