"""The command `submit --schedule`: an uploaded version, run at set times."""

import argparse
from collections.abc import Mapping

from components.command.suggestion import suggestion
from components.kubeflow import documents as compiled
from components.kubeflow import submission
from components.kubeflow.api import KubeflowClient, VersionIds
from components.kubeflow.connection import SubmissionError
from components.kubeflow.documents import Documents
from components.kubeflow.follow import write_line
from components.kubeflow.schedule import Schedule
from components.launch.graph import Graph
from components.launch.presets import Preset, choose_graph, find_preset
from components.launch.run_request import default_name, resolve_arguments
from components.process.machine import shell_command


def make_schedule(
    client: KubeflowClient,
    options: argparse.Namespace,
    graphs: Mapping[str, Graph],
    schedule: Schedule,
) -> None:
    """Let the server run an uploaded version at set times."""
    preset = find_preset(options.preset) if options.preset else Preset("full", {})
    graph = graphs[choose_graph(options, preset)].name
    pipeline = options.pipeline or f"san-{graph}"
    ids, documents = _find_version(client, pipeline, options.version, graph)
    folders = compiled.mounted_folders(documents)
    arguments = resolve_arguments(documents, preset.values, options, folders)
    name = options.name or default_name(pipeline)
    made = client.make_schedule(
        ids,
        arguments,
        schedule,
        experiment=client.make_experiment(options.experiment or submission.DEFAULT_EXPERIMENT),
        name=name,
        pipeline_root=options.pipeline_root,
        service_account=options.service_account,
    )
    page = client.server.page_url("recurringrun", "details", made)
    write_line(f"schedule {name} ({schedule.cron}): {page}")


def _find_version(
    client: KubeflowClient, pipeline: str, version: str | None, graph: str
) -> tuple[VersionIds, Documents]:
    """The newest version of an uploaded pipeline, or the one of a given name."""
    host, found = client.server.host, client.find_pipeline(pipeline)
    if found is None:
        upload = shell_command("pipeline.py", "upload", "--graph", graph)
        raise SubmissionError(f"{host} has no pipeline {pipeline}; `{upload}` uploads it")
    names = []
    for one in client.versions(found):
        if version in (None, one.name, one.display_name):
            ids = VersionIds(found, one.pipeline_version_id)
            return ids, compiled.from_spec(one.pipeline_spec or client.version_spec(ids))
        names.append(one.name or one.display_name)
    raise SubmissionError(
        f"{host}: pipeline {pipeline} has no version {version!r}{suggestion(version or '', names)}"
    )
