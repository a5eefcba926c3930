"""A run that the server knows, as what the next one starts from."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from components.__main__ import STEPS
from components.command.step import step_parameters
from components.kubeflow.api import KubeflowClient
from components.kubeflow.documents import Documents, find_task, from_spec
from components.runner.ir import read_tasks


class EarlierRun(NamedTuple):
    """What a run was made of.

    Attributes:
        id: as the server calls it
        documents: its compiled pipeline, with what its pods ask for
        arguments: values of the pipeline's parameters; those left out have their default
        experiment: id of the experiment it belongs to
        pipeline_root: where its artifacts are; empty for the server's own place
        service_account: of its pods
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
        differing: those that had several values, as workers in a loop have
        unknown: those that the step here does not take
    """

    values: dict[str, Any]
    differing: list[str]
    unknown: list[str]


def parse_run(text: str) -> str:
    """The id of a run, given as it is or as the link to its page.

    Raises:
        ValueError: it is neither.
    """
    found = re.fullmatch(r"(?:https?://\S*/runs/details/)?([\w-]+)", text, re.ASCII)
    if not found:
        raise ValueError(f"{text} is neither the id of a run nor the link to its page")
    return found[1]


def read_run(client: KubeflowClient, run: str) -> EarlierRun:
    """A run as the server has it.

    Raises:
        SubmissionError: it has none of that id, or does not give its pipeline.
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
    """What a step was run with.

    Raises:
        ValueError: the run has no such step, or is not of a pipeline like ours.
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
