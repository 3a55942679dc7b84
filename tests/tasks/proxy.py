"""A proxy between a worker and its servers, which simulates the faults of a network or a server."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress


class Proxy:
    """A proxy from a free port of 127.0.0.1 to `port`; it forwards everything unless its fields say otherwise."""

    def __init__(self, port: int) -> None:
        self.target = port
        self.held = threading.Event()
        """Set once a request has matched `hold`."""
        self.hold_replies_to: bytes | None = None
        self.hold: bytes | None = None
        """The proxy does not forward requests that contain this."""
        self.cut: bytes | None = None
        """The proxy cuts the connection of a request that contains this, once, in the middle of the data after it."""
        self.slow_s = 0.0
        """Seconds between two packets of a reply."""
        self._server = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._server.getsockname()[1]
        self._listening = True
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def refuse(self) -> None:
        self._listening = False
        with suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)  # else the thread that accepts keeps it open
        self._server.close()
        self.break_all()

    def accept_again(self) -> None:
        self._server = socket.create_server(("127.0.0.1", self.port), backlog=64)
        self._listening = True
        threading.Thread(target=self._accept, daemon=True).start()

    def let_go(self) -> None:
        self.hold = self.hold_replies_to = self.cut = None
        self.slow_s = 0.0
        self.held.clear()
        self.break_all()

    def break_all(self) -> None:
        for one in self._open:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        self._open.clear()

    def _accept(self) -> None:
        while self._listening:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self.target))
            except OSError:
                client.close()
                continue
            self._open += [client, server]
            mute = threading.Event()
            threading.Thread(target=self._requests, args=(client, server, mute), daemon=True).start()
            threading.Thread(target=self._answers, args=(server, client, mute), daemon=True).start()

    def _requests(self, client: socket.socket, server: socket.socket, mute: threading.Event) -> None:
        with suppress(OSError):
            while data := client.recv(65536):
                if self.hold and self.hold in data:
                    self.held.set()
                    return
                if self.hold_replies_to and self.hold_replies_to in data:
                    mute.set()
                if self.cut and self.cut in data:
                    self.cut = None
                    server.sendall(data[: len(data) // 2])
                    self.held.set()
                    self._end(client, server)
                    return
                server.sendall(data)
        self._end(client, server)

    def _answers(self, server: socket.socket, client: socket.socket, mute: threading.Event) -> None:
        with suppress(OSError):
            while data := server.recv(65536):
                if mute.is_set():
                    self.held.set()
                    return
                time.sleep(self.slow_s)
                client.sendall(data)
        self._end(client, server)

    @staticmethod
    def _end(*sockets: socket.socket) -> None:
        for one in sockets:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def end(self) -> None:
        self._listening = False
        with suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)  # else the thread that accepts keeps it open
        self._server.close()
        self.break_all()
