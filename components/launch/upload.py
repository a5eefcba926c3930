"""The command `upload`: a compiled pipeline, as a new one or as a version of an existing one."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml

from components.kubeflow import submission
from components.kubeflow.api import KubeflowClient, check_name
from components.kubeflow.documents import Documents
from components.kubeflow.follow import write_line
from components.launch.feature_workers import graph_of_count
from components.launch.graph import Graph
from components.launch.run_request import (
    apply_compiled_options,
    compile_documents,
    default_name,
    image_and_cluster,
)


def upload(options: argparse.Namespace, graphs: Mapping[str, Graph]) -> None:
    """Upload a graph, as the command line asks.

    Raises:
        ValueError: an option is invalid.
        SubmissionError: the server cannot be reached or refuses.
    """
    server = submission.server_from_options(options)
    submission.check_no_user_info(options)
    deadline = submission.deadline_from_options(options)
    for kind in ("pipeline", "version"):
        if getattr(options, kind) is not None:
            check_name(kind, getattr(options, kind))
    graph = graph_of_count(graphs[options.graph or "full"], options.feature_workers)
    documents = compile_documents(graph.pipeline(*image_and_cluster(options)))
    client = KubeflowClient(server)
    documents = apply_compiled_options(client, documents, options.no_cache, deadline)
    with TemporaryDirectory() as folder:
        file = Path(folder, "pipeline.yaml")
        file.write_text(yaml.safe_dump_all(documents, sort_keys=False), "utf-8")
        _upload_file(client, file, documents, options)


def _upload_file(
    client: KubeflowClient, file: Path, documents: Documents, options: argparse.Namespace
) -> None:
    """Create the pipeline if there is none of that name, else add a version.

    The server gives the first version the pipeline's name. For another name, a version is added.
    """
    name = options.pipeline or documents[0]["pipelineInfo"]["name"]
    found = client.find_pipeline(name)
    pipeline = found or client.upload_pipeline(file, name)
    page = client.server.page_url("pipelines", "details", pipeline)
    if found is None:
        write_line(f"pipeline {name}: {page}")
    if found or options.version:
        version = options.version or default_name(name)
        ids = client.upload_version(file, version, pipeline)
        write_line(f"version {version} of {name}: {page}/version/{ids.version}")
