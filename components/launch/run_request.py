"""A request to run something on Kubeflow, and its checks before anything is sent."""

import argparse
import sys
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from kfp.dsl.graph_component import GraphComponent

from components.command.beforehand import Processes
from components.kubeflow import documents as compiled
from components.kubeflow import submission
from components.kubeflow.api import KubeflowClient
from components.kubeflow.cluster import Cluster
from components.kubeflow.cluster_options import add_cluster_options, cluster_from_options
from components.kubeflow.component import check_image_pinned, compile_pipeline, fill_commit
from components.kubeflow.connection import SubmissionError
from components.kubeflow.documents import Documents
from components.kubeflow.earlier_run import EarlierRun
from components.launch.graph import PINNED_IMAGE
from components.launch.presets import check_beforehand, check_complete, chosen_values
from components.runner.ir import check_arguments, parse_arguments, pipeline_parameters
from components.storage.sources import (
    STORE_PARAMETERS,
    names_place,
    read_places,
    takes_shipped_generator,
)

DEADLINE_VERSION = (2, 17)  # the first Kubeflow Pipelines that supports a run's deadline


class RunRequest(NamedTuple):
    """What to run.

    Attributes:
        documents: the compiled pipeline
        arguments: values of its parameters
        earlier: the run that it repeats, if any
    """

    documents: Documents
    arguments: dict[str, Any]
    earlier: EarlierRun | None = None


def image_and_cluster(options: argparse.Namespace) -> tuple[str, Cluster]:
    """Image and pods of the steps.

    Raises:
        ValueError: the image is not pinned, or an option is invalid.
    """
    image, asked = fill_commit(options.image), cluster_from_options(options)
    check_image_pinned(image)
    return image, asked


def check_no_pod_options(options: argparse.Namespace, why: str) -> None:
    """Refuse options for images and pods, which are fixed already.

    Raises:
        ValueError: such an option is given.
    """
    parser = argparse.ArgumentParser()
    add_cluster_options(parser)
    defaults = {**vars(parser.parse_args([])), "image": PINNED_IMAGE}
    for name, default in defaults.items():
        if getattr(options, name) != default:
            raise ValueError(f"--{name.replace('_', '-')} has no effect with {why}")


def compile_documents(pipeline: GraphComponent) -> Documents:
    """The documents of a KFP pipeline."""
    with TemporaryDirectory() as folder:
        return compile_pipeline(pipeline, Path(folder, "pipeline.yaml"))


def apply_compiled_options(
    client: KubeflowClient, documents: Documents, no_cache: bool, deadline: int | None
) -> Documents:
    """A compiled pipeline, changed by `--no-cache` and `--deadline`.

    Raises:
        SubmissionError: the server does not support deadlines.
    """
    if no_cache:
        documents = compiled.without_caching(documents)
    if deadline is None:
        return documents
    _check_keeps_deadline(client)
    return compiled.with_deadline(documents, deadline)


def _check_keeps_deadline(client: KubeflowClient) -> None:
    """Refuse an older server, which silently drops fields that it does not know."""
    version, host = client.version(), client.server.host
    if version is None:
        sys.stderr.write(
            f"pipeline.py: warning: {host} does not report its version; Kubeflow Pipelines before"
            " 2.17 ignores --deadline\n"
        )
    elif version < DEADLINE_VERSION:
        raise SubmissionError(
            f"{host} is Kubeflow Pipelines {version[0]}.{version[1]}, which ignores --deadline"
            " (it needs 2.17 or newer); --timeout limits each attempt of a step"
        )


def resolve_arguments(
    documents: Documents,
    values: Mapping[str, Any],
    options: argparse.Namespace,
    volumes: Collection[str],
    *,
    processes: Mapping[str, Processes] | None = None,
    is_checked: bool = True,
) -> dict[str, Any]:
    """The pipeline's arguments: those of the command line, then `values` that the pipeline takes.

    Args:
        documents: the compiled pipeline.
        values: initial values.
        options: the command line.
        volumes: folders that outlast a pod.
        processes: the number of processes by step, as for `check_beforehand`.
        is_checked: whether to check for mistakes that only a step would find.
    """
    declared = pipeline_parameters(documents[0])
    given = parse_arguments(options.param, documents[0])
    arguments = chosen_values(values, given, declared)
    if is_checked:
        check_complete(arguments, documents[0])
    check_arguments(documents[0], arguments)
    if is_checked:
        kept = {n: arguments.get(n, "") for n in STORE_PARAMETERS if n in declared}
        submission.check_pipeline_root(options.pipeline_root, kept)
        places = {n: value for n, value in kept.items() if names_place(n, value)}
        step = _only_step(documents[0])
        if not takes_shipped_generator(step, arguments):  # which is in the image
            places |= {place.name: place.uri for place in read_places(arguments, step)}
        submission.check_places_outlast_pod(places, volumes)
        check_beforehand(arguments, documents[0], processes)
    return arguments


def _only_step(document: Mapping[str, Any]) -> str:
    """The step of a pipeline that runs one alone; empty for a graph."""
    tasks = compiled.step_tasks(document)
    return tasks[0].replace("-", "_") if len(tasks) == 1 else ""


def default_name(kind: str) -> str:
    """The name of a run or version for which none was given."""
    return f"{kind} {time.strftime('%Y-%m-%d %H:%M:%S')}"
