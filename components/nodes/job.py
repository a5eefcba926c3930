"""The TrainJob of one task: its name, the command line of its nodes, and its owner.

The compiled pipeline holds a template of it (image, nodes, requirements of the pods), made by
`components.kubeflow.nodes.train_job`. The rest is known at run time only.
"""

import copy
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from components.command.places import TaskPlace
from components.command.step import Parameter, Step, command_line_word, step_parameters
from components.nodes.api import NODE, TRAIN_JOB, TRAINER_VERSION
from components.nodes.follower import FOLLOWER_ANNOTATION, REQUEST_ANNOTATION, Attempt
from components.storage.places import is_remote
from san_core.images.shard import canonical_json

MANAGER = "san-pipeline/on-nodes"  # of our entry in runtimePatches
SCRATCH_FOLDER = "san-nodes"  # in the pipeline root, for the outputs of node 0
# Pods are called NAME-node-0-INDEX-xxxxx, and their names have at most 63 characters.
_DIGITS = 16


class TrainJob(NamedTuple):
    """A TrainJob to create, and the places of its outputs.

    Attributes:
        name: made of run and task, so that a later attempt finds it again.
        body: the TrainJob, as JSON.
        outputs: the URI of each output, by name.
        scratch: the URI of the folder with the outputs.
    """

    name: str
    body: dict[str, Any]
    outputs: dict[str, str]
    scratch: str

    @property
    def request(self) -> str:
        """The digest of its specification."""
        return str(self.body["metadata"]["annotations"][REQUEST_ANNOTATION])


def make_train_job(
    step: Step,
    template: Mapping[str, Any],
    values: Mapping[str, Any],
    *,
    inputs: Mapping[str, str],
    place: TaskPlace,
    pod: Mapping[str, Any],
    namespace: str,
) -> TrainJob:
    """The TrainJob of a step's task.

    Args:
        step: the step.
        template: the TrainJob from the compiled pipeline.
        values: values of the step's parameters, with `settle_places` applied.
        inputs: the URI of each input artifact that is given.
        place: run and task.
        pod: the pod that follows the TrainJob.
        namespace: the namespace of both.

    Raises:
        ValueError: an input is in storage that nodes cannot read.
    """
    declared = step_parameters(step)
    for name, uri in inputs.items():
        if not is_remote(uri):
            raise ValueError(
                f"{name} is at {uri}: nodes read artifacts at s3:// and minio:// alone"
            )
    digest = hashlib.sha256(f"{place.run}/{place.task}".encode()).hexdigest()
    name = f"san-{step.__name__.replace('_', '-')}-{digest[:_DIGITS]}"
    scratch = f"{place.root}/{SCRATCH_FOLDER}/{name}"
    outputs = {p.name: f"{scratch}/{p.name}" for p in declared if p.is_output and values[p.name]}
    body = copy.deepcopy(dict(template))
    body["spec"]["trainer"]["args"] = [*_words(declared, values, {**inputs, **outputs})]
    request = hashlib.sha256(canonical_json(body["spec"])).hexdigest()
    metadata = body.setdefault("metadata", {})
    annotations = {REQUEST_ANNOTATION: request, FOLLOWER_ANNOTATION: str(Attempt.of_pod(pod))}
    metadata.setdefault("annotations", {}).update(annotations)
    metadata |= {"name": name, "namespace": namespace}
    if owners := _workflows(pod):
        metadata["ownerReferences"] = owners
    if account := pod["spec"].get("serviceAccountName"):
        pod_spec_of(body)["serviceAccountName"] = account
    return TrainJob(name, body, outputs, scratch)


def bare_train_job() -> dict[str, Any]:
    """A TrainJob without requirements, with an empty patch of its pods."""
    pods = {"metadata": {}, "spec": {"containers": [{"name": NODE}]}}
    job = {"name": NODE, "template": {"spec": {"template": pods}}}
    patch = {
        "manager": MANAGER,
        "trainingRuntimeSpec": {"template": {"spec": {"replicatedJobs": [job]}}},
    }
    return {
        "apiVersion": TRAINER_VERSION,
        "kind": TRAIN_JOB,
        "spec": {"runtimeRef": {}, "trainer": {}, "runtimePatches": [patch]},
    }


def pod_template_of(body: Mapping[str, Any]) -> dict[str, Any]:
    """The patch of the pods of a TrainJob: metadata and spec."""
    patch = body["spec"]["runtimePatches"][0]["trainingRuntimeSpec"]["template"]["spec"]
    found: dict[str, Any] = patch["replicatedJobs"][0]["template"]["spec"]["template"]
    return found


def pod_spec_of(body: Mapping[str, Any]) -> dict[str, Any]:
    """The spec in the patch of the pods of a TrainJob."""
    found: dict[str, Any] = pod_template_of(body)["spec"]
    return found


def _words(
    declared: Sequence[Parameter], values: Mapping[str, Any], uris: Mapping[str, str]
) -> Iterator[str]:
    """The command line of the step, with URIs for artifacts."""
    for p in declared:
        if p.artifact is None:
            yield from (p.flag, command_line_word(_as_given(values[p.name])))
        elif p.name in uris:
            yield from (p.flag, uris[p.name])


def _as_given(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


def _workflows(pod: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The run's workflow as owner: Kubernetes deletes the TrainJob together with it."""
    owners = pod["metadata"].get("ownerReferences") or []
    keys = ("apiVersion", "kind", "name", "uid")
    return [{key: one[key] for key in keys} for one in owners if one.get("kind") == "Workflow"]
