"""Following a TrainJob: its conditions, its nodes, the log of node 0, and why it failed."""

import logging
import re
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from components.nodes.api import NODE, Kubernetes, KubernetesError, NotFoundError, UnavailableError
from components.nodes.follower import Follower
from components.process.messages import printable

log = logging.getLogger(__name__)

SECONDS_BETWEEN_LOOKS = 5.0
COMPLETE, FAILED = "Complete", "Failed"
# Reasons that add nothing to the exit status of a container.
_PLAIN_REASONS = ("", "Error", "Completed")
# A second, its time zone, and the text.
_LOG_LINE = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.\d+)?(Z|[+-]\d\d:\d\d) ?(.*)")


class End(NamedTuple):
    """The end of a TrainJob, with exit status and message if it failed."""

    is_complete: bool
    status: int = 0
    message: str = ""


class _Failure(NamedTuple):
    """The failure of a node."""

    node: int
    status: int
    message: str
    reason: str


def end_of(job: Mapping[str, Any]) -> str:
    """COMPLETE or FAILED; empty while a TrainJob has not ended."""
    return next((kind for kind in (COMPLETE, FAILED) if _condition(job, kind)), "")


def follow(kubernetes: Kubernetes, follower: Follower) -> End:
    """Log the progress of a TrainJob until it ends.

    follower: this attempt, which follows it.

    Raises:
        AdoptedError: another attempt follows it now.
        KubernetesError: the API refuses or stays unavailable, or the TrainJob was deleted.
    """
    name, told = follower.name, _Changes()
    node_log = _NodeLog(kubernetes)
    # Kubernetes deletes the pods of a job that has failed, and with them the messages.
    last_seen: dict[str, Mapping[str, Any]] = {}
    while True:
        try:
            job = kubernetes.get_train_job(name)
        except NotFoundError as error:
            raise KubernetesError(f"TrainJob {name} was deleted while it ran") from error
        follower.check(job)
        pods = kubernetes.node_pods(name)
        told.tell_conditions(job)
        last_seen |= {pod["metadata"]["name"]: pod for pod in pods}
        told.tell_pods(pods)
        node_log.copy(_pod_of_node(pods, 0))
        if kind := end_of(job):
            return End(True) if kind == COMPLETE else _failure_of(job, [*last_seen.values()])
        time.sleep(SECONDS_BETWEEN_LOOKS)


class _Changes:
    """Logs each change of a TrainJob and of its pods once."""

    def __init__(self) -> None:
        self._last: dict[str, str] = {}

    def tell_conditions(self, job: Mapping[str, Any]) -> None:
        """The conditions: created, suspended by a queue, complete, failed."""
        for one in _conditions(job):
            if one.get("status") == "True" or one["type"] in self._last:
                state = "" if one.get("status") == "True" else "no longer "
                self._tell(one["type"], f"{state}{one['type'].lower()}{_because(one)}")

    def tell_pods(self, pods: Sequence[Mapping[str, Any]]) -> None:
        """The phase of each node's pod, and the reason if it waits."""
        for pod in pods:
            who = f"node {_node_of(pod)} ({pod['metadata']['name']})"
            state = str(pod.get("status", {}).get("phase", "Pending")).lower()
            self._tell(who, f"{who} {state}{_waits_for(pod)}")

    def _tell(self, of: str, line: str) -> None:
        if self._last.get(of) != line:
            self._last[of] = line
            log.info("%s", line)


class _NodeLog:
    """Copies the log of a node to that of this process."""

    def __init__(self, kubernetes: Kubernetes) -> None:
        self._kubernetes = kubernetes
        self._since: datetime | None = None  # the last second; `_seen` has its lines
        self._seen = set[bytes]()
        self._is_refused = False

    def copy(self, pod: Mapping[str, Any] | None) -> None:
        """Copy the lines that are new."""
        if pod is None or self._is_refused:
            return
        since = f"{self._since:%Y-%m-%dT%H:%M:%SZ}" if self._since else ""
        try:
            data = self._kubernetes.node_log(pod["metadata"]["name"], since=since)
        except (UnavailableError, NotFoundError):  # the next look may succeed
            return
        except KubernetesError as error:
            if _has_run(pod):
                self._is_refused = True
                log.warning("the log of node 0 cannot be read: %s", error)
            return
        for line in data[: data.rfind(b"\n") + 1].splitlines():
            self._write(line)

    def _write(self, line: bytes) -> None:
        """Write a line, unless it was written before."""
        found = _LOG_LINE.fullmatch(line)
        if found is None or line in self._seen:
            return
        second = datetime.fromisoformat((found[1] + found[2]).decode()).astimezone(UTC)
        if self._since and second < self._since:
            return
        if second != self._since:
            self._since, self._seen = second, set()
        self._seen.add(line)
        sys.stderr.write(printable(found[3].decode("utf-8", "backslashreplace")) + "\n")
        sys.stderr.flush()


def _conditions(job: Mapping[str, Any]) -> list[dict[str, Any]]:
    return list((job.get("status") or {}).get("conditions") or [])


def _condition(job: Mapping[str, Any], kind: str) -> dict[str, Any] | None:
    """The condition of a type, if it is true."""
    holds = (c for c in _conditions(job) if c.get("type") == kind and c.get("status") == "True")
    return next(holds, None)


def _because(condition: Mapping[str, Any]) -> str:
    words = filter(None, (condition.get("reason"), condition.get("message")))
    told = ": ".join(str(word) for word in words)
    return f" ({told})" if told else ""


def _node_of(pod: Mapping[str, Any]) -> int:
    """The number of a pod's node: its name is JOB-node-0-NUMBER-xxxxx."""
    found = re.search(rf"-{NODE}-0-(\d+)(?:-[a-z0-9]+)?$", str(pod["metadata"]["name"]))
    return int(found[1]) if found else 0


def _pod_of_node(pods: Sequence[Mapping[str, Any]], node: int) -> Mapping[str, Any] | None:
    """The newest pod of a node; Kubernetes may restart one that failed."""
    own = [pod for pod in pods if _node_of(pod) == node]
    return max(own, key=lambda pod: str(pod["metadata"].get("creationTimestamp")), default=None)


def _container(pod: Mapping[str, Any]) -> Mapping[str, Any]:
    """The status of the container that trains."""
    states = pod.get("status", {}).get("containerStatuses") or []
    return next((one for one in states if one.get("name") == NODE), {})


def _has_run(pod: Mapping[str, Any]) -> bool:
    state = _container(pod).get("state") or {}
    return any(state.get(kind) is not None for kind in ("running", "terminated"))


def _waits_for(pod: Mapping[str, Any]) -> str:
    """The reason why a pod waits, in parentheses; empty if it does not wait."""
    status = pod.get("status", {})
    waiting = (_container(pod).get("state") or {}).get("waiting") or {}
    unplaced = [
        one
        for one in status.get("conditions") or []
        if one.get("type") == "PodScheduled" and one.get("status") == "False"
    ]
    return next(filter(None, map(_because, [*unplaced, waiting, status])), "")


def _failure_of(job: Mapping[str, Any], pods: Sequence[Mapping[str, Any]]) -> End:
    """The failure of a TrainJob: the message of the first node that has one, and other reasons."""
    newest = (_pod_of_node(pods, node) for node in sorted(set(map(_node_of, pods))))
    failures = [one for pod in newest if pod and (one := _failure_of_node(pod))]
    condition = _condition(job, FAILED) or {}
    if condition.get("reason") == "DeadlineExceeded":
        seconds = job["spec"].get("activeDeadlineSeconds")
        return End(False, 1, f"the TrainJob exceeded its {seconds} s; --timeout allows more")
    speaking = next((one for one in failures if one.message), None)
    fates = [
        f"node {one.node} ended as {one.reason}" + (f" ({one.status})" if one.status else "")
        for one in failures
        if one.reason not in _PLAIN_REASONS
    ]
    told = [speaking.message] if speaking else []
    told += fates or ([] if speaking else [f"the TrainJob failed{_because(condition)}"])
    of_nodes = [one.status for one in (speaking, *failures) if one and one.status]
    return End(False, next(iter(of_nodes), 1), "; ".join(told))


def _failure_of_node(pod: Mapping[str, Any]) -> _Failure | None:
    """The failure of a node, by the last end of its container or by the status of its pod."""
    own, status = _container(pod), pod.get("status", {})
    ends = [(own.get(when) or {}).get("terminated") for when in ("state", "lastState")]
    end = next((one for one in ends if one and one.get("exitCode")), None)
    reason = str(status.get("reason") or (end or {}).get("reason") or "")
    if end is None and status.get("phase") != "Failed":
        return None
    message = " ".join(str((end or {}).get("message") or "").split())
    return _Failure(_node_of(pod), int((end or {}).get("exitCode") or 0), message, reason)
