"""Which attempt follows a TrainJob: an annotation names its pod, and only this pod may delete it.

A pod whose node was lost may come back, or be stopped late, when the next attempt has already
adopted the TrainJob. It must then leave it alone, together with its outputs.
"""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from components.nodes.api import ConflictError, Kubernetes, KubernetesError, NotFoundError

FOLLOWER_ANNOTATION = "san-pipeline/follower"
MOST_READS = 5  # of a TrainJob that changes between reading and deleting it


class AdoptedError(KubernetesError):
    """Another attempt follows the TrainJob; the message is one line."""


def follower_name(pod: Mapping[str, Any]) -> str:
    """What the annotation says of a pod: NAME/UID."""
    return f"{pod['metadata']['name']}/{pod['metadata']['uid']}"


def check_follower(found: Mapping[str, Any], follower: str) -> None:
    """Check that this attempt still follows a TrainJob.

    Args:
        found: the TrainJob as it was just read.
        follower: the `follower_name` of this pod.

    Raises:
        AdoptedError: another attempt follows it.
    """
    other = _follower_of(found)
    if other != follower:
        who = f"attempt {other}" if other else "an attempt without a name"
        raise AdoptedError(f"{who} goes on with TrainJob {found['metadata']['name']}")


def adopt(kubernetes: Kubernetes, found: Mapping[str, Any], follower: str) -> Mapping[str, Any]:
    """The TrainJob of an earlier attempt, which this attempt follows from now on.

    Raises:
        ConflictError: it has changed since it was read.
        NotFoundError: it is gone.
        KubernetesError: the API refuses.
    """
    if _follower_of(found) == follower:  # the answer to its creation was lost
        return found
    return kubernetes.annotate_train_job(found, {FOLLOWER_ANNOTATION: follower})


def delete_own(
    kubernetes: Kubernetes, name: str, follower: str, *, is_stopped: bool = False
) -> None:
    """Delete a TrainJob, if it exists and this attempt still follows it.

    Nobody can adopt it between the check and the deletion: the API deletes only the version that
    was checked.

    is_stopped: whether this process is being stopped: no request is then repeated.

    Raises:
        AdoptedError: another attempt follows it; it stays.
        KubernetesError: the API refuses.
    """
    for _ in range(MOST_READS):
        try:
            found = kubernetes.get_train_job(name, is_stopped=is_stopped)
        except NotFoundError:
            return
        if found["metadata"].get("deletionTimestamp"):
            return
        check_follower(found, follower)
        with suppress(ConflictError):  # it has changed since
            kubernetes.delete_train_job(found, is_stopped=is_stopped)
            return
    raise KubernetesError(f"TrainJob {name} changed {MOST_READS} times while it was to be deleted")


def _follower_of(found: Mapping[str, Any]) -> str:
    return str((found["metadata"].get("annotations") or {}).get(FOLLOWER_ANNOTATION, ""))
