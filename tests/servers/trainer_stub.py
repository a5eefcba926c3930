"""A stub of a Kubernetes API with Kubeflow Trainer, which records its requests.

Bodies of TrainJobs are held to the models of kubeflow-trainer-api: with fieldValidation=Strict a
field that they do not have is refused, without it it is dropped, as a cluster does. A patch or a
deletion of another version than the one that is there is refused, too.
"""

import contextlib
import copy
import http.server
import json
import re
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

from kubeflow_trainer_api.models import TrainerV1alpha1TrainJob

NAMESPACE = "my-profile"
TOKEN = "token-of-the-pod"
POD_NAME = "san-full-abcde-1234"
WORKFLOW = {
    "apiVersion": "argoproj.io/v1alpha1",
    "kind": "Workflow",
    "name": "san-full-abcde",
    "uid": "11111111-2222-3333-4444-555555555555",
}
# Attempts of one task, each with its own pod.
LATER_PODS = ("san-full-abcde-5678", "san-full-abcde-9012")
_UIDS = {
    name: f"{number}1111111-0000-4000-8000-000000000000"
    for number, name in enumerate((POD_NAME, *LATER_PODS))
}
CREATED = {
    name: f"2026-11-29T10:{number}0:00Z" for number, name in enumerate((POD_NAME, *LATER_PODS))
}
_PATH = re.compile(
    r"/(?:api/v1|apis/(?P<group>[^/]+)/[^/]+)/namespaces/(?P<namespace>[^/]+)"
    r"/(?P<kind>[a-z]+)(?:/(?P<name>[^/]+))?(?P<log>/log)?"
)
_VERBS = {"POST": "create", "DELETE": "delete", "GET": "get", "PATCH": "patch"}
_VERSION = ("uid", "resourceVersion")
_MERGE_PATCH = "application/merge-patch+json"


class Request(NamedTuple):
    """One request as it came."""

    method: str
    path: str
    query: dict[str, str]
    token: str | None
    body: Any


class _RefusalError(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class TrainerStub:
    """The server. What it answers can be set before or between requests.

    Attributes:
        requests: all that came, in order
        jobs: the TrainJobs that are there, by name
        statuses: those of every TrainJob, one for each time it is asked for; the last stays; one
            may be a function that gives it
        pods: of the nodes, likewise
        log: of node 0's container, as Kubernetes gives it
        rules: of the role of the pod's account; None allows everything
        has_trainer: whether the cluster knows TrainJobs
        unknown: names of fields that an older Trainer does not know
        denial: why an admission webhook denies every TrainJob
        is_away: whether it closes connections without an answer now
        on_create: is called with a TrainJob that is created
        on_answer: is called with each request that succeeds, before its answer is sent
        looks_until_gone: how often a deleted TrainJob is still there
    """

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.jobs: dict[str, dict[str, Any]] = {}
        self.statuses: list[Any] = [{}]
        self.pods: list[list[dict[str, Any]]] = [[]]
        self.log = ""
        self.rules: list[dict[str, Any]] | None = None
        self.has_trainer = True
        self.unknown: tuple[str, ...] = ()
        self.denial = ""
        self.is_away: Callable[[], bool] = lambda: False
        self.on_create: Callable[[dict[str, Any]], None] = lambda _: None
        self.on_answer: Callable[[Request], None] = lambda _: None
        self.looks_until_gone = 0
        self.port = 0
        self._version = 0
        self._created = 0

    @contextlib.contextmanager
    def running(self, certificate: ssl.SSLContext) -> Iterator["TrainerStub"]:
        """Listen on loopback by TLS until the block ends."""
        stub = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def answer(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                data = self.rfile.read(length)
                if stub.is_away():
                    self.close_connection = True
                    return
                status, body = stub._answer(self.command, self, data)
                with contextlib.suppress(ConnectionError):
                    self.send_response(status)
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)

            do_GET = do_POST = do_DELETE = do_PATCH = answer  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.socket = certificate.wrap_socket(server.socket, server_side=True)
        server.daemon_threads = True
        server.handle_error = lambda *_: None  # type: ignore[method-assign]
        self.port = server.server_address[1]
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()

    def asked(self, method: str, end: str = "") -> list[Request]:
        """The requests of a method whose path ends so."""
        return [one for one in self.requests if one.method == method and one.path.endswith(end)]

    def touch(self, name: str, **annotations: str) -> None:
        """Give a TrainJob its next version, and annotations, as some other client does."""
        self._version += 1
        metadata = self.jobs[name]["metadata"]
        metadata["resourceVersion"] = str(self._version)
        metadata.setdefault("annotations", {}).update(annotations)

    def _answer(
        self, method: str, asked: http.server.BaseHTTPRequestHandler, data: bytes
    ) -> tuple[int, bytes]:
        url = urlsplit(asked.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        body = json.loads(data) if data else None
        token = asked.headers.get("authorization")
        request = Request(method, url.path, query, token, body)
        self.requests.append(request)
        try:
            if token != f"Bearer {TOKEN}":
                raise _RefusalError(401, "Unauthorized")
            found = _PATH.fullmatch(url.path)
            assert found, url.path
            assert found["namespace"] == NAMESPACE
            self._authorize(method, found)
            if method == "PATCH" and asked.headers.get("content-type") != _MERGE_PATCH:
                raise _RefusalError(415, "the body of the request was in an unknown format")
            content = self._content(method, found, query, body)
        except _RefusalError as error:
            status = {"kind": "Status", "code": error.status, "message": str(error)}
            return error.status, json.dumps(status).encode()
        text = content if isinstance(content, str) else json.dumps(content)
        self.on_answer(request)
        return 201 if method == "POST" else 200, text.encode()

    def _authorize(self, method: str, found: "re.Match[str]") -> None:
        """Refuse what the role does not allow."""
        group, kind = found["group"] or "", found["kind"] + ("/log" if found["log"] else "")
        verb = "list" if method == "GET" and not found["name"] else _VERBS[method]
        if self.rules is not None and not any(
            group in rule["apiGroups"] and kind in rule["resources"] and verb in rule["verbs"]
            for rule in self.rules
        ):
            raise _RefusalError(
                403,
                f'{kind} is forbidden: User "system:serviceaccount:{NAMESPACE}:default-editor"'
                f' cannot {verb} resource "{kind}" in API group "{group}"',
            )

    def _content(
        self, method: str, found: "re.Match[str]", query: Mapping[str, str], body: Any
    ) -> Any:
        name = found["name"] or ""
        if found["kind"] == "pods":
            return self._pod(name, query, is_log=bool(found["log"]))
        if not self.has_trainer:
            raise _RefusalError(404, "the server could not find the requested resource")
        if method == "POST":
            return self._create(body, query)
        if name not in self.jobs:
            raise _RefusalError(404, f'trainjobs.trainer.kubeflow.org "{name}" not found')
        job = self.jobs[name]
        if method == "DELETE":
            _check_version(job, body.get("preconditions") or {})
            job["metadata"]["deletionTimestamp"] = "2026-11-29T10:00:00Z"
            self.touch(name)
            if not self.looks_until_gone:
                del self.jobs[name]
            return job
        if method == "PATCH":
            wanted = body["metadata"]
            _check_version(job, {key: wanted[key] for key in _VERSION if key in wanted})
            self.touch(name, **wanted["annotations"])
            return {**job, "status": _next(self.statuses[:1])}
        if "deletionTimestamp" in job["metadata"]:
            self.looks_until_gone -= 1
            if self.looks_until_gone <= 0:
                del self.jobs[name]
                return self._content(method, found, query, body)
        return {**job, "status": _next(self.statuses)}

    def _pod(self, name: str, query: Mapping[str, str], *, is_log: bool) -> Any:
        if is_log:
            if not self.log:
                raise _RefusalError(400, f'container "node" in pod "{name}" is waiting to start')
            second = query.get("sinceTime", "")[:19]
            lines = self.log.splitlines(keepends=True)
            return "".join(line for line in lines if line[:19] >= second)
        if name in _UIDS:
            return own_pod(name)
        if name:
            raise _RefusalError(404, f'pods "{name}" not found')
        return {"kind": "PodList", "items": _next(self.pods)}

    def _create(self, body: dict[str, Any], query: Mapping[str, str]) -> dict[str, Any]:
        name = body["metadata"]["name"]
        if name in self.jobs:
            raise _RefusalError(409, f'trainjobs.trainer.kubeflow.org "{name}" already exists')
        for field in self.unknown:
            if f'"{field}"' in json.dumps(body) and query.get("fieldValidation") == "Strict":
                raise _RefusalError(400, f'strict decoding error: unknown field "spec.{field}"')
        if problems := problems_of(body):
            raise _RefusalError(422, f"TrainJob is invalid: {problems[0]}")
        if self.denial:
            webhook = "validator.trainjob.trainer.kubeflow.org"
            raise _RefusalError(
                403, f'admission webhook "{webhook}" denied the request: {self.denial}'
            )
        self._created += 1
        self.jobs[name] = job = copy.deepcopy(body)
        job["metadata"]["uid"] = f"22222222-0000-4000-8000-{self._created:012}"
        self.touch(name)
        self.on_create(body)
        return job


def own_pod(name: str) -> dict[str, Any]:
    """The pod of an attempt."""
    return {
        "metadata": {
            "name": name,
            "uid": _UIDS[name],
            "creationTimestamp": CREATED[name],
            "ownerReferences": [{**WORKFLOW, "controller": True}],
        },
        "spec": {"serviceAccountName": "default-editor"},
    }


def _check_version(job: Mapping[str, Any], wanted: Mapping[str, str]) -> None:
    """Refuse a request for another version of a TrainJob than this one."""
    for key, value in wanted.items():
        if (own := job["metadata"][key]) != value:
            raise _RefusalError(409, f"Precondition failed: {key} {value}, in object meta: {own}")


def problems_of(body: dict[str, Any]) -> list[str]:
    """What Kubeflow Trainer (v2.3) refuses of a TrainJob; nothing if it is right."""
    found = []
    if TrainerV1alpha1TrainJob.from_dict(body).to_dict() != body:
        found.append("it has fields that the models do not know")
    name, trainer = body["metadata"].get("name", ""), body["spec"]["trainer"]
    if not re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name) or len(f"{name}-node-0-0-xxxxx") > 63:
        found.append(f"name {name!r}")
    if any(entry["name"].startswith("PET_") for entry in trainer.get("env", [])):
        found.append("must not have reserved envs")
    for patch in body["spec"].get("runtimePatches", []):
        if not re.fullmatch(r"[a-z0-9.-]+/[A-Za-z0-9._-]+", patch["manager"]):
            found.append("manager must be a domain-prefixed path")
        for job in patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]:
            containers = job["template"]["spec"]["template"]["spec"]["containers"]
            if any(container.get("env") for container in containers):
                found.append("must not have envs for the node containers")
    return found


def status(kind: str, reason: str = "", message: str = "") -> dict[str, Any]:
    """The status of a TrainJob of which one condition holds."""
    condition = {
        "type": kind,
        "status": "True",
        "reason": reason or kind,
        "message": message,
        "lastTransitionTime": "2026-11-29T10:00:00Z",
    }
    return {"conditions": [condition]}


def node_pod(job: str, node: int, phase: str, *, attempt: str = "a", **fields: Any) -> Any:
    """A pod of a node.

    fields: exit_code, message and reason of the container's end; pod_reason; waiting.
    """
    state: dict[str, Any] = {"running": {}} if phase == "Running" else {}
    if "exit_code" in fields:
        state = {"terminated": {"exitCode": fields["exit_code"]}}
        state["terminated"] |= {k: fields[k] for k in ("message", "reason") if k in fields}
    if "waiting" in fields:
        state = {"waiting": {"reason": fields["waiting"]}}
    found = {"phase": phase, "containerStatuses": [{"name": "node", "state": state}]}
    if "pod_reason" in fields:
        found["reason"] = fields["pod_reason"]
    return {
        "metadata": {
            "name": f"{job}-node-0-{node}-{attempt * 5}",
            "creationTimestamp": f"2026-11-29T10:00:0{ord(attempt) - ord('a')}Z",
        },
        "status": found,
    }


def _next(answers: list[Any]) -> Any:
    answer = answers.pop(0) if len(answers) > 1 else answers[0]
    return answer() if callable(answer) else answer
