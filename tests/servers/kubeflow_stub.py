"""A server that answers as Kubeflow Pipelines' v2beta1 API would, and keeps what it was asked."""

import contextlib
import http.server
import json
import re
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

API = "/apis/v2beta1"


class Request(NamedTuple):
    """One request as it came."""

    method: str
    path: str
    query: dict[str, list[str]]
    token: str | None
    body: Any


class KubeflowStub:
    """The server. What it answers can be set before or between requests.

    Attributes:
        requests: all that came, in order
        states: states of the run, one for each time it is asked for; the last stays
        tasks: task_details of the run, likewise
        refusal: (status, body, content type) to answer everything with instead
        token: the bearer token that is asked for, if any
        failures_left: how many requests are answered with `failure_status` before one is answered
            well
    """

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.experiments: dict[str, str] = {}
        self.states = ["SUCCEEDED"]
        self.tasks: list[list[dict[str, Any]]] = [[]]
        self.error: dict[str, Any] | None = None
        self.refusal: tuple[int, str, str] | None = None
        self.token: str | None = None
        self.failures_left = 0
        self.failure_status = 503
        self.host = ""

    @contextlib.contextmanager
    def running(self) -> Iterator["KubeflowStub"]:
        """Listen on loopback until the block ends."""
        stub = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def answer(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                status, body, kind = stub._answer(self.command, self, self.rfile.read(length))
                data = body.encode()
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

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        self.host = f"http://127.0.0.1:{server.server_address[1]}"
        serve = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        serve.start()
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()

    def _answer(
        self, method: str, asked: http.server.BaseHTTPRequestHandler, data: bytes
    ) -> tuple[int, str, str]:
        url = urlsplit(asked.path)
        token = asked.headers.get("authorization")
        body = json.loads(data) if data else None
        self.requests.append(Request(method, url.path, parse_qs(url.query), token, body))
        if self.refusal:
            return self.refusal
        if self.failures_left:
            self.failures_left -= 1
            return self.failure_status, "upstream connect error", "text/plain"
        if self.token and token != f"Bearer {self.token}":
            return 401, json.dumps({"message": "Request header error"}), "application/json"
        status, content = self._content(method, url.path, body)
        return status, json.dumps(content), "application/json"

    def _content(self, method: str, path: str, body: Any) -> tuple[int, dict[str, Any]]:
        if (method, path) == ("GET", f"{API}/experiments"):
            (predicate,) = json.loads(self.requests[-1].query["filter"][0])["predicates"]
            name = predicate["stringValue"]
            found = [
                {"experiment_id": one, "display_name": called}
                for called, one in self.experiments.items()
                if called == name
            ]
            return 200, {"experiments": found} if found else {}
        if (method, path) == ("POST", f"{API}/experiments"):
            self.experiments[body["display_name"]] = f"experiment-{len(self.experiments)}"
            return 200, {**body, "experiment_id": self.experiments[body["display_name"]]}
        if (method, path) == ("POST", f"{API}/runs"):
            return 200, {**body, "run_id": "run-1", "state": "PENDING"}
        if (method, path) == ("GET", f"{API}/healthz"):
            return 200, {"multi_user": False}
        if method == "GET" and re.fullmatch(f"{API}/runs/run-1", path):
            state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
            tasks = self.tasks.pop(0) if len(self.tasks) > 1 else self.tasks[0]
            run = {"run_id": "run-1", "state": state, "run_details": {"task_details": tasks}}
            return 200, {**run, "error": self.error} if self.error else run
        return 404, {"message": f"no route {method} {path}"}
