"""Which tasks Kubeflow may take from its cache: those that read nothing but artifacts.

KFP's cache key contains a place only as a word. Only the step can tell whether the pictures behind
`source=s3://...` are still the same, so it runs again. Its new artifact has a new id. The id is in
the cache keys of the tasks after it, so they run again too.
"""

from collections.abc import Mapping
from typing import Any

from kfp.dsl.pipeline_channel import PipelineChannel

from components.__main__ import STEPS
from components.command.step import Step, step_parameters
from components.runner.ir import pipeline_parameters
from components.storage.sources import READ_PARAMETERS, keeps_nothing, names_place

_PARTS = "feature_parts"


def is_cacheable(step: Step, arguments: Mapping[str, Any]) -> bool:
    """Whether KFP may take a task from its cache, by the arguments with which it is compiled.

    An argument that is known only in the run may name any place.
    """
    return not looks_into_store(step, arguments.get(_PARTS)) and not any(
        isinstance(arguments.get(name), PipelineChannel) or names_place(name, arguments.get(name))
        for name in _read_parameters(step)
    )


def looks_into_store(step: Step, parts: object = None) -> bool:
    """Whether a step finds its finished work again by itself, in its store.

    From the cache it would return a manifest even if the shards were deleted.

    Args:
        step: the step.
        parts: the argument feature_parts, or None if the task has none; empty is a default place.
    """
    if any(p.name == "destination" for p in step_parameters(step)):
        return True
    return isinstance(parts, PipelineChannel) or (
        parts is not None and not keeps_nothing(_PARTS, parts)
    )


def cache_what_reads_nothing(document: dict[str, Any], arguments: Mapping[str, Any]) -> None:
    """Turn caching on for tasks whose arguments, now known, name no place.

    Args:
        document: the compiled graph, which is changed.
        arguments: arguments of the run; the others have the graph's defaults.
    """
    declared = pipeline_parameters(document)
    values = {name: spec.get("defaultValue") for name, spec in declared.items()} | dict(arguments)
    for name, task in document["root"]["dag"]["tasks"].items():
        step = STEPS.get(name.replace("-", "_"))
        if step is None or looks_into_store(step, _given_parts(task)):
            continue
        if not _reads_place(step, task, values):
            task["cachingOptions"] = {"enableCache": True}


def _given_parts(task: Mapping[str, Any]) -> object:
    """Where a task keeps or finds features of several workers: as a constant or a parameter."""
    source = task.get("inputs", {}).get("parameters", {}).get(_PARTS)
    return source and source.get("runtimeValue", {}).get("constant", source)


def _reads_place(step: Step, task: Mapping[str, Any], values: Mapping[str, Any]) -> bool:
    """Whether a task has a place to read, from a parameter of the graph or as a constant."""
    given = task.get("inputs", {}).get("parameters", {})
    for name in _read_parameters(step):
        source = given.get(name, {})
        outer = source.get("componentInputParameter")
        value = values.get(outer) if outer else source.get("runtimeValue", {}).get("constant")
        if names_place(outer or name, value):
            return True
    return False


def _read_parameters(step: Step) -> list[str]:
    """The parameters of a step that may name a place to read, artifacts excluded."""
    return [
        p.name for p in step_parameters(step) if p.artifact is None and p.name in READ_PARAMETERS
    ]
