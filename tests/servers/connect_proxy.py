"""A proxy on loopback that opens tunnels (CONNECT), as companies have them."""

import contextlib
import select
import socket
import socketserver
import threading
from collections.abc import Iterator


class ConnectProxy:
    """The proxy; `asked` holds the first line and the header of authorization of each tunnel."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.url = ""

    @contextlib.contextmanager
    def running(self) -> Iterator["ConnectProxy"]:
        """Listen until the block ends."""
        proxy = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                first = self.rfile.readline().decode().strip()
                headers = {}
                while line := self.rfile.readline().decode().strip():
                    name, _, value = line.partition(": ")
                    headers[name.lower()] = value
                proxy.asked.append((first, headers.get("proxy-authorization", "")))
                host, _, port = first.split()[1].rpartition(":")
                with socket.create_connection((host, int(port))) as server:
                    self.connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                    _pump(self.connection, server)

        server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        self.url = f"http://127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()


def _pump(one: socket.socket, other: socket.socket) -> None:
    """Hand on what comes from either side until one of them ends."""
    to = {one: other, other: one}
    while True:
        for ready in select.select([one, other], [], [], 10)[0]:
            data = ready.recv(65536)
            if not data:
                return
            to[ready].sendall(data)
