"""Which attempt follows a TrainJob: an annotation names its pod, and only this pod may delete it.

A pod whose node was lost may come back, or be stopped late, when the next attempt has already
adopted the TrainJob. It must then leave it alone, together with its outputs. So a TrainJob goes
from an earlier attempt to a later one only, by the times when their pods were created.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from components.nodes.api import ConflictError, Kubernetes, KubernetesError, NotFoundError

FOLLOWER_ANNOTATION = "san-pipeline/follower"  # holds NAME/UID/TIME of the pod
# Holds a digest of the specification, by which a different TrainJob of this name is recognised.
REQUEST_ANNOTATION = "san-pipeline/request"
MOST_TRIES = 5  # to delete a TrainJob that changes between reading and deleting it


class AdoptedError(KubernetesError):
    """Another attempt follows the TrainJob; the message is one line."""


class Attempt(NamedTuple):
    """An attempt of a task, known by its pod; a later attempt is greater.

    Attributes:
        created: when the API created the pod, in RFC 3339 and UTC, to the second. As text it sorts
            by time; no time is the earliest.
        uid: of the pod; it orders pods of one second.
        name: of the pod.
    """

    created: str
    uid: str
    name: str

    @classmethod
    def of_pod(cls, pod: Mapping[str, Any]) -> "Attempt":
        """The attempt of a pod."""
        metadata = pod["metadata"]
        return cls(metadata["creationTimestamp"], metadata["uid"], metadata["name"])

    @classmethod
    def of_train_job(cls, found: Mapping[str, Any]) -> "Attempt":
        """The attempt that the annotation of a TrainJob names; all parts are empty if none is."""
        name, uid, created = [*_annotation(found, FOLLOWER_ANNOTATION).split("/"), "", ""][:3]
        return cls(created, uid, name)

    def __str__(self) -> str:
        """What the annotation says of it."""
        return f"{self.name}/{self.uid}/{self.created}"


class Follower:
    """This attempt as the follower of a TrainJob.

    Attributes:
        followed: the TrainJob as it was last read while this attempt followed it; None if it never
            did, or has deleted it.
    """

    def __init__(self, kubernetes: Kubernetes, name: str, attempt: Attempt, request: str) -> None:
        """Create it; nothing is followed yet.

        Args:
            kubernetes: the API.
            name: of the TrainJob.
            attempt: this attempt.
            request: the digest of the TrainJob's specification.
        """
        self.followed: Mapping[str, Any] | None = None
        self._kubernetes, self.name = kubernetes, name
        self._attempt, self._request = attempt, request

    def check(self, found: Mapping[str, Any]) -> None:
        """Check that this attempt follows a TrainJob that was just read, and remember its version.

        Raises:
            AdoptedError: another attempt follows it.
        """
        other = Attempt.of_train_job(found)
        if other != self._attempt:
            raise self._adopted_by(other)
        self.followed = found

    def check_adoptable(self, found: Mapping[str, Any]) -> None:
        """Check that a TrainJob is that of this task, and of this attempt or an earlier one.

        Raises:
            AdoptedError: a later attempt follows it.
            KubernetesError: it is a different one.
        """
        if _annotation(found, REQUEST_ANNOTATION) != self._request:
            raise KubernetesError(
                f"namespace {self._kubernetes.namespace} has a different TrainJob {self.name}:"
                " delete it, and run again"
            )
        other = Attempt.of_train_job(found)
        if other > self._attempt:
            raise self._adopted_by(other)

    def adopt(self, found: Mapping[str, Any]) -> Mapping[str, Any]:
        """The TrainJob of an earlier attempt, which this attempt follows from now on.

        Raises:
            ConflictError: it has changed since it was read.
            NotFoundError: it is gone.
            KubernetesError: the API refuses, or it is not adoptable.
        """
        self.check_adoptable(found)
        if Attempt.of_train_job(found) != self._attempt:  # else the answer to its creation was lost
            named = {FOLLOWER_ANNOTATION: str(self._attempt)}
            found = self._kubernetes.annotate_train_job(found, named)
        self.check(found)
        return found

    def delete(self, *, until: float | None = None) -> bool:
        """Delete the TrainJob; returns whether there was one.

        If this attempt has followed it, it must still do so; else the TrainJob must be adoptable.
        The version that was last read is deleted. Only if the API refuses, as it has changed, it is
        read again. So nobody can adopt it between the check and the deletion.

        until: a time of `time.monotonic`; no request is then repeated, and all end by it.

        Raises:
            AdoptedError: another attempt follows it; it stays.
            KubernetesError: the API refuses, or it is a different one.
        """
        check = self.check if self.followed else self.check_adoptable
        found = self.followed
        for _ in range(MOST_TRIES):
            try:
                found = found or self._kubernetes.get_train_job(self.name, until=until)
            except NotFoundError:
                return False
            check(found)
            try:
                if not found["metadata"].get("deletionTimestamp"):
                    self._kubernetes.delete_train_job(found, until=until)
            except ConflictError:  # it has changed since
                found = None
            else:
                self.followed = None
                return True
        raise KubernetesError(
            f"TrainJob {self.name} changed {MOST_TRIES} times while it was to be deleted"
        )

    def _adopted_by(self, other: Attempt) -> AdoptedError:
        who = f"attempt {other}" if other.name else "an attempt without a name"
        return AdoptedError(f"{who} goes on with TrainJob {self.name}")


def _annotation(found: Mapping[str, Any], name: str) -> str:
    return str((found["metadata"].get("annotations") or {}).get(name, ""))
