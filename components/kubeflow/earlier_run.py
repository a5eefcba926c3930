"""An earlier run on the server, as the start of the next one."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from components.__main__ import STEPS
from components.command.step import step_parameters
from components.kubeflow.api import KubeflowClient
from components.kubeflow.documents import Documents, find_task, from_spec
from components.runner.ir import read_tasks


class EarlierRun(NamedTuple):
    """The pipeline and the arguments of a run.

    Attributes:
        id: its id on the server
        documents: its compiled pipeline, with the requirements of its pods
        arguments: values of the pipeline's parameters; absent ones have their default
        experiment: id of its experiment
        pipeline_root: URI of its artifacts; empty for the server's default
        service_account: service account of its pods
    """

    id: str
    documents: Documents
    arguments: dict[str, Any]
    experiment: str
    pipeline_root: str
    service_account: str


class StepSettings(NamedTuple):
    """The parameters of one step in an earlier run.

    Attributes:
        values: by name
        differing: parameters that had several values, as in a loop of workers
        unknown: parameters that the step does not take now
    """

    values: dict[str, Any]
    differing: list[str]
    unknown: list[str]


def parse_run(text: str) -> str:
    """The id of a run, from the id or from the link to its page.

    Raises:
        ValueError: the text is neither.
    """
    found = re.fullmatch(r"(?:https?://\S*/runs/details/)?([\w-]+)", text, re.ASCII)
    if not found:
        raise ValueError(f"{text} is neither the id of a run nor the link to its page")
    return found[1]


def read_run(client: KubeflowClient, run: str) -> EarlierRun:
    """A run on the server.

    Raises:
        SubmissionError: the server has no run of that id, or does not return its pipeline.
    """
    found = client.get_run(run)
    config = found.runtime_config
    return EarlierRun(
        id=run,
        documents=from_spec(client.run_spec(found)),
        arguments=dict((config and config.parameters) or {}),
        experiment=found.experiment_id,
        pipeline_root=(config and config.pipeline_root) or "",
        service_account=found.service_account or "",
    )


def step_settings(run: EarlierRun, step: str) -> StepSettings:
    """The parameters of a step in a run.

    Raises:
        ValueError: the run has no such step, or is not of a pipeline of this project.
    """
    definition = run.documents[0]
    find_task(definition, step)
    tasks = [t for t in read_tasks(definition, run.arguments) if t.step == step]
    taken = {p.name for p in step_parameters(STEPS[step]) if p.artifact is None}
    names = {name for task in tasks for name in task.parameters}
    common: Mapping[str, Any] = tasks[0].parameters
    differing = {n for n in names if any(t.parameters.get(n) != common.get(n) for t in tasks)}
    return StepSettings(
        {name: common[name] for name in names & taken - differing},
        sorted(differing & taken),
        sorted(names - taken),
    )
