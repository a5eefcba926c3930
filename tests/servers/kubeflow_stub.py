"""A stub of Kubeflow Pipelines' v2beta1 API, which records its requests."""

import contextlib
import http.server
import json
import ssl
import threading
import time
from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

from tests.servers.kubeflow_answers import API, Asked, KubeflowAnswers, RefusalError, refusal

NO_IDENTITY = (
    "List experiments failed: Failed to authorize with API: Failed to authorize with API: "
    "Unauthenticated: Failed to check authorization. User identity is empty in the request header: "
    "Unauthenticated: Request header error: there is no user identity header.: Request header "
    "error: there is no user identity header."
)
BAD_TOKEN = (
    "List experiments failed: Failed to authorize with API: Failed to authorize with API: "
    "Unauthenticated: Failed to check authorization. User identity is empty in the request header: "
    "[Unauthenticated: Request header error: there is no user identity header.: Request header "
    "error: there is no user identity header. ...]"
)


class Request(NamedTuple):
    """One request as it came; the body of an upload is its type and bytes."""

    method: str
    path: str
    query: dict[str, list[str]]
    token: str | None
    body: Any
    proxy_token: str | None = None


class KubeflowStub(KubeflowAnswers):
    """The server. What it answers can be set before or between requests.

    Attributes:
        requests: all that came, in order
        states: states of every run, one for each time it is asked for; the last stays; none are
            those that the run is in
        tasks: task_details of the run, likewise
        refusal: (status, body, content type) to answer everything with instead
        token: the bearer token that is asked for, if any
        failures_left: how many requests are answered with `failure_status` before one is answered
            well
        seconds_to_answer: how long each answer takes
    """

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[Request] = []
        self.states: list[str] = []
        self.tasks: list[list[dict[str, Any]]] = [[]]
        self.error: dict[str, Any] | None = None
        self.refusal: tuple[int, str, str] | None = None
        self.token: str | None = None
        self.failures_left = 0
        self.failure_status = 503
        self.seconds_to_answer = 0.0
        self.host = ""

    @contextlib.contextmanager
    def running(self, certificate: ssl.SSLContext | None = None) -> Iterator["KubeflowStub"]:
        """Listen on loopback until the block ends, by TLS where there is a certificate."""
        stub = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def answer(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                status, body, kind = stub._answer(self.command, self, self.rfile.read(length))
                time.sleep(stub.seconds_to_answer)
                data = body.encode()
                with contextlib.suppress(ConnectionError):
                    self.send_response(status)
                    self.send_header("Content-Type", kind)
                    self.send_header("Content-Length", str(len(data)))
                    if status == 302:
                        self.send_header("Location", "/dex/auth")
                    self.end_headers()
                    self.wfile.write(data)

            do_GET = do_POST = answer  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        server = _QuietServer(("127.0.0.1", 0), Handler)
        scheme = "http"
        if certificate:
            server.socket = certificate.wrap_socket(server.socket, server_side=True)
            scheme = "https"
        server.daemon_threads = True
        self.host = f"{scheme}://127.0.0.1:{server.server_address[1]}"
        serve = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        serve.start()
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()

    def add_run(self, run: str, **fields: Any) -> None:
        """Add a run that was not submitted to this server."""
        experiment = self.experiments.setdefault("san", self.new_id("experiments"))
        known = {"run_id": run, "experiment_id": experiment, "state": "PENDING"}
        self.runs[run] = {**known, "display_name": run, **fields}

    def _answer(
        self, method: str, asked: http.server.BaseHTTPRequestHandler, data: bytes
    ) -> tuple[int, str, str]:
        url = urlsplit(asked.path)
        token = asked.headers.get("authorization")
        kind = asked.headers.get("Content-Type") or ""
        body: Any = (kind, data) if "multipart" in kind else json.loads(data) if data else None
        by = asked.headers.get("proxy-authorization")
        self.requests.append(Request(method, url.path, parse_qs(url.query), token, body, by))
        if self.refusal:
            return self.refusal
        if self.failures_left:
            self.failures_left -= 1
            return self.failure_status, "upstream connect error", "text/plain"
        try:
            if self.token and token != f"Bearer {self.token}":
                raise refusal(401, 16, BAD_TOKEN if token else NO_IDENTITY)
            query = {name: values[0] for name, values in parse_qs(url.query).items()}
            content = self.answer(Asked(method, url.path, query, body))
        except RefusalError as refused:
            content = refused.content
            if isinstance(content, str):
                return refused.status, content, "text/plain"
            return refused.status, json.dumps(content), "application/json"
        return 200, json.dumps(content), "application/json"

    def get_run(self, asked: Asked, run: str) -> Any:
        """The run in the states that are set for it, if any are."""
        found = super().get_run(asked, run)
        if not self.states or asked.method != "GET":
            return found
        state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        tasks = self.tasks.pop(0) if len(self.tasks) > 1 else self.tasks[0]
        now = {**found, "state": state, "run_details": {"task_details": tasks}}
        return {**now, "error": self.error} if self.error else now


class _QuietServer(http.server.ThreadingHTTPServer):
    """Says nothing of clients that go away."""

    def handle_error(self, *_: object) -> None:
        pass


__all__ = ["API", "KubeflowStub", "Request"]
