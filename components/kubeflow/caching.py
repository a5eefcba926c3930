"""Which tasks Kubeflow may take from its cache: none that reads what lies outside its artifacts.

KFP's cache key holds a place as a word. Whether the pictures behind `source=s3://...` are still the
same only the step can tell, so it runs anew. Its new artifact has a new id, and the id is in the
keys of the tasks after it: they run anew too.
"""

from collections.abc import Mapping
from typing import Any

from kfp.dsl.pipeline_channel import PipelineChannel

from components.__main__ import STEPS
from components.command.step import Step, step_parameters
from components.runner.ir import pipeline_parameters
from components.storage.sources import READ_PARAMETERS, names_place


def is_cacheable(step: Step, arguments: Mapping[str, Any]) -> bool:
    """Whether KFP may take a task from its cache, going by the arguments it is compiled with.

    A place that is known in the run only may be any place.
    """
    return not looks_into_store(step) and not any(
        isinstance(arguments.get(name), PipelineChannel) or names_place(name, arguments.get(name))
        for name in _read_parameters(step)
    )


def looks_into_store(step: Step) -> bool:
    """Whether a step finds finished work again by itself, in the store that it keeps it in.

    A cached manifest would be believed even if its shards were gone.
    """
    return any(p.name == "destination" for p in step_parameters(step))


def cache_what_reads_nothing(document: dict[str, Any], arguments: Mapping[str, Any]) -> None:
    """Let tasks be cached whose places turn out to be none, now that the arguments are known.

    Args:
        document: the compiled graph, which is changed.
        arguments: what the run is given; the graph's defaults hold for the others.
    """
    declared = pipeline_parameters(document)
    values = {name: spec.get("defaultValue") for name, spec in declared.items()} | dict(arguments)
    for name, task in document["root"]["dag"]["tasks"].items():
        step = STEPS.get(name.replace("-", "_"))
        if step and not looks_into_store(step) and not _reads_place(step, task, values):
            task["cachingOptions"] = {"enableCache": True}


def _reads_place(step: Step, task: Mapping[str, Any], values: Mapping[str, Any]) -> bool:
    """Whether a task is given a place to read, by a parameter of the graph or as a constant."""
    given = task.get("inputs", {}).get("parameters", {})
    for name in _read_parameters(step):
        source = given.get(name, {})
        outer = source.get("componentInputParameter")
        value = values.get(outer) if outer else source.get("runtimeValue", {}).get("constant")
        if names_place(outer or name, value):
            return True
    return False


def _read_parameters(step: Step) -> list[str]:
    """The parameters of a step that may name a place to read; artifacts are none."""
    return [
        p.name for p in step_parameters(step) if p.artifact is None and p.name in READ_PARAMETERS
    ]
