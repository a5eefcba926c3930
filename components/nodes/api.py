"""A client of the Kubernetes API for use in a pod: TrainJobs, and the pods and logs of their nodes.

The token of the pod's service account is read for each request, as Kubernetes renews its file.
Requests are repeated for ten minutes while the API is unavailable.
"""

import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from components.storage.retry import Backoff, call_with_retries, root_cause
from san_core.checked_json import read_json

# Kubernetes mounts this folder and sets these variables in every pod.
SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
HOST_VARIABLE, PORT_VARIABLE = "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"
# KFP and Kubernetes set the name of a pod in one of these.
POD_VARIABLES = ("KFP_POD_NAME", "HOSTNAME")

TRAINER_VERSION = "trainer.kubeflow.org/v1alpha1"
TRAIN_JOB = "TrainJob"
NODE = "node"  # Trainer's name for the replicated job that trains, and for its container

PATIENCE = Backoff(total=600, first=1, longest=30)
TIMEOUT = (10.0, 60.0)  # seconds to connect, and to wait for an answer
MOST_LOG_BYTES = 16 << 20  # of one request
MOST_SAID = 500  # characters of the API's messages
_LACKING_RIGHT = re.compile(r' cannot \w+ resource "')  # as Kubernetes writes it

_Object = dict[str, Any]


class KubernetesError(OSError):
    """The API refuses a request; the message is one line."""


class UnavailableError(KubernetesError):
    """The API is unavailable, perhaps temporarily."""


class NotFoundError(KubernetesError):
    """The object, or the kind of objects, does not exist."""


class ConflictError(KubernetesError):
    """An object of that name exists, or it has changed since it was read."""


class Kubernetes:
    """The API in the namespace of this pod.

    Methods raise KubernetesError if the API refuses or stays unavailable, and FileNotFoundError if
    the token is missing.
    """

    def __init__(self, url: str, namespace: str, *, account: Path) -> None:
        """Create a client.

        Args:
            url: URL of the API, such as https://10.96.0.1:443.
            namespace: the namespace of this pod.
            account: the folder with the token and with the certificate of the API's authority.
        """
        import urllib3

        self.namespace = namespace
        self._url, self._token = url, account / "token"
        self._http = urllib3.PoolManager(ca_certs=str(account / "ca.crt"), retries=False)

    @classmethod
    def of_this_pod(cls) -> "Kubernetes":
        """The API of the cluster that this process runs in.

        Raises:
            KubernetesError: this is not a pod, or it has no service account.
        """
        host, port = os.environ.get(HOST_VARIABLE), os.environ.get(PORT_VARIABLE, "443")
        if not host:
            raise KubernetesError(
                f"this is not a pod of a Kubernetes cluster: {HOST_VARIABLE} is not set"
            )
        lacking = [
            name for name in ("token", "namespace") if not (SERVICE_ACCOUNT / name).is_file()
        ]
        if lacking:
            raise KubernetesError(
                f"this pod has no service account: {SERVICE_ACCOUNT / lacking[0]} is missing"
                " (automountServiceAccountToken)"
            )
        namespace = (SERVICE_ACCOUNT / "namespace").read_text("utf-8").strip()
        address = f"[{host}]" if ":" in host else host
        return cls(f"https://{address}:{port}", namespace, account=SERVICE_ACCOUNT)

    def create_train_job(self, body: Mapping[str, Any]) -> _Object:
        """Create a TrainJob; the API refuses unknown fields.

        Raises:
            ConflictError: one of that name exists.
        """
        try:
            return self._ask("POST", self._train_jobs(), body=body, fieldValidation="Strict")
        except NotFoundError as error:
            raise KubernetesError(
                f"this cluster has no Kubeflow Trainer ({TRAINER_VERSION}), which several nodes"
                f" need: {error}"
            ) from error

    def get_train_job(self, name: str, *, until: float | None = None) -> _Object:
        """A TrainJob with its status.

        until: a time of `time.monotonic`; the request is then not repeated, and ends by it.

        Raises:
            NotFoundError: it does not exist.
        """
        return self._ask("GET", self._train_jobs(name), until=until)

    def annotate_train_job(
        self, found: Mapping[str, Any], annotations: Mapping[str, str]
    ) -> _Object:
        """Set annotations of a TrainJob, unless it has changed since it was read.

        Raises:
            ConflictError: it has changed.
            NotFoundError: it does not exist.
        """
        read = found["metadata"]
        wanted = {"resourceVersion": read["resourceVersion"], "annotations": dict(annotations)}
        return self._ask("PATCH", self._train_jobs(read["name"]), body={"metadata": wanted})

    def delete_train_job(self, found: Mapping[str, Any], *, until: float | None = None) -> None:
        """Delete a TrainJob and its pods, if it exists. It exists until its pods are gone.

        Args:
            found: the TrainJob as it was read.
            until: a time of `time.monotonic`; the request is then not repeated, and ends by it.

        Raises:
            ConflictError: it has changed since it was read; it stays.
        """
        read = found["metadata"]
        body = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": "Foreground",
            "preconditions": {key: read[key] for key in ("uid", "resourceVersion")},
        }
        try:
            self._ask("DELETE", self._train_jobs(read["name"]), body=body, until=until)
        except NotFoundError:
            return

    def own_pod(self) -> _Object:
        """This pod."""
        name = next((os.environ[one] for one in POD_VARIABLES if os.environ.get(one)), "")
        if not name:
            raise KubernetesError(f"the name of this pod is unknown: set {POD_VARIABLES[0]}")
        return self._ask("GET", self._pods(name))

    def node_pods(self, job: str) -> list[_Object]:
        """The pods of a TrainJob's nodes, sorted by name."""
        labels = {"jobset-name": job, "replicatedjob-name": NODE}
        wanted = ",".join(f"jobset.sigs.k8s.io/{name}={value}" for name, value in labels.items())
        listed = self._ask("GET", self._pods(), labelSelector=wanted)
        return sorted(listed.get("items") or [], key=lambda pod: str(pod["metadata"]["name"]))

    def node_log(self, pod: str, *, since: str = "") -> bytes:
        """The log of a node's container, with a time before each line.

        since: a time in RFC 3339; only lines from that second on are returned.
        """
        query = {"container": NODE, "timestamps": "true", "limitBytes": str(MOST_LOG_BYTES)}
        if since:
            query["sinceTime"] = since
        return self._ask_once("GET", f"{self._pods(pod)}/log", None, query)

    def _train_jobs(self, name: str = "") -> str:
        return self._path(f"/apis/{TRAINER_VERSION}", "trainjobs", name)

    def _pods(self, name: str = "") -> str:
        return self._path("/api/v1", "pods", name)

    def _path(self, group: str, kind: str, name: str) -> str:
        return f"{group}/namespaces/{self.namespace}/{kind}" + (f"/{name}" if name else "")

    def _ask(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        until: float | None = None,
        **query: str,
    ) -> _Object:
        """The answer to a request, which is repeated while the API is unavailable.

        until: a time of `time.monotonic`; the request is then not repeated, and ends by it.
        """
        if until is not None:
            data = self._ask_once(method, path, body, query, until=until)
        else:
            data = call_with_retries(
                lambda: self._ask_once(method, path, body, query),
                is_transient=lambda error: isinstance(error, UnavailableError),
                what="the Kubernetes API",
                backoff=PATIENCE,
            )
        try:
            return read_json(data, dict[str, Any], where=f"the answer of {self._url}")
        except ValueError as error:
            raise KubernetesError(str(error)) from error

    def _ask_once(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None,
        query: Mapping[str, str],
        *,
        until: float | None = None,
    ) -> bytes:
        """The bytes of an answer."""
        import urllib3

        left = None if until is None else until - time.monotonic()
        if left is not None and left <= 0:
            raise UnavailableError("no time is left for the Kubernetes API")
        headers = {"Authorization": f"Bearer {self._token.read_text('ascii').strip()}"}
        if method == "PATCH":
            headers["Content-Type"] = "application/merge-patch+json"
        url = f"{self._url}{path}" + (f"?{urlencode(query)}" if query else "")
        try:
            answer = self._http.request(
                method,
                url,
                headers=headers,
                json=None if body is None else dict(body),
                # The total counts until an answer begins; those of the API are short.
                timeout=urllib3.Timeout(left, connect=TIMEOUT[0], read=TIMEOUT[1]),
            )
        except urllib3.exceptions.SSLError as error:
            raise KubernetesError(
                f"the certificate of {self._url} is not trusted: {root_cause(error)}"
            ) from error
        except urllib3.exceptions.HTTPError as error:
            raise UnavailableError(
                f"cannot reach the Kubernetes API at {self._url}: {root_cause(error)}"
            ) from error
        if answer.status >= 400:
            raise _refusal(method, path, answer.status, answer.data)
        return answer.data


def _refusal(method: str, path: str, status: int, data: bytes) -> KubernetesError:
    """The error for a status."""
    said = _words(data)
    told = f"{said} ({status})" if said else f"{method} {path}: {status}"
    if status == 404:
        return NotFoundError(told)
    if status == 409:
        return ConflictError(told)
    # An admission webhook that denies a request, such as Trainer's own, answers 403 too.
    if status == 401 or (status == 403 and _LACKING_RIGHT.search(said)):
        return KubernetesError(
            f"the service account of this pod lacks a right: {told}; docker/README.md, section"
            " Nodes on Kubeflow, has the role that it needs"
        )
    if "unknown field" in said:
        return KubernetesError(f"Kubeflow Trainer is too old here, 2.2 is needed: {told}")
    if status == 429 or status >= 500:
        return UnavailableError(f"the Kubernetes API fails: {told}")
    return KubernetesError(f"the Kubernetes API refuses: {told}")


def _words(data: bytes) -> str:
    """The message in an answer, in one line."""
    try:
        message = str(read_json(data, dict[str, Any], where="an answer").get("message", ""))
    except ValueError:  # for example the page of a proxy
        return ""
    return " ".join(message.split())[:MOST_SAID]
