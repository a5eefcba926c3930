"""A proxy on loopback that forwards requests to a server and can change the responses."""

import contextlib
import http.client
import http.server
import threading
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple


class Answer(NamedTuple):
    """What the server said to one request."""

    method: str
    path: str
    status: int
    body: bytes


DENIAL = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
# Given an answer, whether it is denied in its place, as S3 does by its policies.
Denier = Callable[[Answer], bool]
# Given an answer, the bytes to send in place of its body; fewer than announced break off.
Tamper = Callable[[Answer], bytes]


def unchanged_body(answer: Answer) -> bytes:
    """The body as it is."""
    return answer.body


def without(*actions: str) -> Denier:
    """Denies what S3 denies whoever is not allowed these actions, such as s3:ListBucket.

    Without s3:ListBucket whoever asks for an object that is missing is not told so.
    """

    def is_denied(answer: Answer) -> bool:
        is_of_bucket = "list-type=" in answer.path
        reads = answer.method in ("GET", "HEAD") and not is_of_bucket
        needed = {
            "s3:ListBucket": is_of_bucket or (reads and answer.status == 404),
            "s3:GetObject": reads,
            "s3:PutObject": answer.method in ("PUT", "POST"),
            "s3:DeleteObject": answer.method == "DELETE",
        }
        return any(needed[action] for action in actions)

    return is_denied


class TamperingProxy:
    """The proxy; `tamper` may be set at any time, `tampered` counts the answers it changed.

    Bodies are taken at `seconds_per_mib` and handed on as `alter_request` makes them. What `invent`
    gives for a method and a path is answered with 200, and the server hears nothing of it; what
    `deny` says yes to is answered with 403.
    """

    def __init__(self, server_port: int) -> None:
        self.server_port = server_port
        self.tamper: Tamper = unchanged_body
        self.tampered = 0
        self.deny: Denier = lambda _: False
        self.seconds_per_mib = 0.0
        self.alter_request: Callable[[str, bytes], bytes] = lambda _method, body: body
        self.invent: Callable[[str, str], bytes | None] = lambda _method, _path: None
        self.port = 0

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @contextlib.contextmanager
    def running(self) -> Iterator["TamperingProxy"]:
        """Listen until the block ends."""
        tampering_proxy = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one_request(self) -> None:
                try:
                    super().handle_one_request()
                except ConnectionError:  # of the client, or of a server that is not there
                    self.close_connection = True

            def hand_on(self) -> None:
                tampering_proxy._forward(self)

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = hand_on  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        proxy = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        proxy.daemon_threads = True
        self.port = proxy.server_address[1]
        thread = threading.Thread(target=proxy.serve_forever, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            proxy.shutdown()
            proxy.server_close()

    def _forward(self, asked: http.server.BaseHTTPRequestHandler) -> None:
        sent = self._read_slowly(asked, int(asked.headers.get("Content-Length") or 0))
        sent = self.alter_request(asked.command, sent)
        if (invented := self.invent(asked.command, asked.path)) is not None:
            asked.send_response_only(200)
            asked.send_header("Content-Length", str(len(invented)))
            asked.end_headers()
            asked.wfile.write(invented)
            return
        connection = http.client.HTTPConnection("127.0.0.1", self.server_port, timeout=30)
        try:
            connection.request(asked.command, asked.path, sent, dict(asked.headers.items()))
            response = connection.getresponse()
            answer = Answer(asked.command, asked.path, response.status, response.read())
        finally:
            connection.close()
        if self.deny(answer):
            self._answer_denial(asked)
            return
        body = self.tamper(answer)
        self.tampered += body != answer.body
        asked.send_response_only(response.status)
        for name, value in response.getheaders():
            if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                asked.send_header(name, value)
        length = response.getheader("Content-Length") or str(len(answer.body))
        asked.send_header("Content-Length", length)
        asked.end_headers()
        if asked.command != "HEAD":
            asked.wfile.write(body)
            asked.close_connection = len(body) < len(answer.body)

    def _answer_denial(self, asked: http.server.BaseHTTPRequestHandler) -> None:
        asked.send_response_only(403)
        asked.send_header("Content-Type", "application/xml")
        asked.send_header("Content-Length", str(len(DENIAL)))
        asked.end_headers()
        if asked.command != "HEAD":
            asked.wfile.write(DENIAL)

    def _read_slowly(self, asked: http.server.BaseHTTPRequestHandler, length: int) -> bytes:
        """The request body, read at the configured rate."""
        pieces = []
        while length > 0:
            pieces.append(asked.rfile.read(min(length, 1 << 20)))
            length -= len(pieces[-1])
            time.sleep(self.seconds_per_mib)
        return b"".join(pieces)
