"""A compiled pipeline as data: its tasks, and changes that need no new compilation.

It is one document, the pipeline's definition, or two; the second is the platform specification, for
Kubernetes. KFP's API takes two as one object.
"""

import copy
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from components.command.suggestion import suggestion

Documents = list[dict[str, Any]]


def as_spec(documents: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The documents in the form that the API takes."""
    if len(documents) == 1:
        return documents[0]
    return {"pipeline_spec": documents[0], "platform_spec": documents[1]}


def from_spec(spec: Mapping[str, Any]) -> Documents:
    """The documents in an answer of the API."""
    definition, platform = spec.get("pipeline_spec", spec), spec.get("platform_spec")
    return [dict(definition), dict(platform)] if platform else [dict(definition)]


def step_tasks(document: Mapping[str, Any]) -> list[str]:
    """The names of all tasks that run a container, such as train-san, including those in loops."""
    return [name for name, task in _tasks(document) if _is_container(document, task)]


def find_task(document: Mapping[str, Any], step: str) -> str:
    """The task of a step, such as train-san of train_san.

    Raises:
        ValueError: there is none.
    """
    names = step_tasks(document)
    wanted = step.replace("_", "-")
    if wanted not in names:
        raise ValueError(f"no step {step!r}{suggestion(wanted, names)}")
    return wanted


def without_caching(documents: Documents, tasks: Collection[str] | None = None) -> Documents:
    """The documents with caching off for these tasks, or for all."""
    changed = copy.deepcopy(documents)
    for name, task in _tasks(changed[0]):
        if tasks is None or name in tasks:
            task["cachingOptions"] = {}
    return changed


def uncached_before(document: Mapping[str, Any], task: str) -> list[str]:
    """The tasks that do not depend on `task` and that are never taken from the cache."""
    following = _following(document, task)
    return [
        name
        for name, one in _tasks(document)
        if name not in following
        and _is_container(document, one)
        and not one.get("cachingOptions", {}).get("enableCache")
    ]


def with_deadline(documents: Documents, seconds: int) -> Documents:
    """The documents with a time limit for the whole run."""
    definition, *platform = copy.deepcopy(documents)
    own = platform[0] if platform else {}
    kubernetes = own.setdefault("platforms", {}).setdefault("kubernetes", {})
    kubernetes.setdefault("pipelineConfig", {})["activeDeadlineSeconds"] = seconds
    return [definition, own]


def mounted_folders(documents: Documents) -> list[str]:
    """The folders at which its pods mount persistent volumes."""
    if len(documents) == 1:
        return []
    kubernetes = documents[1].get("platforms", {}).get("kubernetes", {})
    executors = kubernetes.get("deploymentSpec", {}).get("executors", {})
    mounts = [mount for one in executors.values() for mount in one.get("pvcMount", [])]
    return sorted({mount["mountPath"] for mount in mounts})


def _dags(document: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The tasks of every graph: the pipeline's own, and those of its loops."""
    for component in (document["root"], *document.get("components", {}).values()):
        if "dag" in component:
            yield component["dag"]["tasks"]


def _tasks(document: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for dag in _dags(document):
        yield from dag.items()


def _is_container(document: Mapping[str, Any], task: Mapping[str, Any]) -> bool:
    component = document["components"][task["componentRef"]["name"]]
    executors = document.get("deploymentSpec", {}).get("executors", {})
    return "container" in executors.get(component.get("executorLabel"), {})


def _following(document: Mapping[str, Any], task: str) -> set[str]:
    """A task, all tasks that depend on it, and the loops they are in with all their tasks."""
    found = {task}
    while True:
        more = {
            name
            for dag in _dags(document)
            for name, one in dag.items()
            if name not in found and _depends_on(document, one, found)
        }
        more |= {
            inner
            for name, one in _tasks(document)
            if name in found
            for inner in _inside(document, one)
        } - found
        if not more:
            return found
        found |= more


def _depends_on(document: Mapping[str, Any], task: Mapping[str, Any], names: set[str]) -> bool:
    """Whether a task depends on one of `names`, or is the loop that contains one of them."""
    artifacts = task.get("inputs", {}).get("artifacts", {}).values()
    used = {a.get("taskOutputArtifact", {}).get("producerTask") for a in artifacts}
    awaited = {*task.get("dependentTasks", []), *used, *_inside(document, task)}
    return bool(names & awaited)


def _inside(document: Mapping[str, Any], task: Mapping[str, Any]) -> Collection[str]:
    """The tasks of a loop."""
    component = document["components"][task["componentRef"]["name"]]
    inner: Mapping[str, Any] = component.get("dag", {}).get("tasks", {})
    return inner.keys()
