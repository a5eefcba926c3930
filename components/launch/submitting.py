"""The command `submit`: a graph, one step, or an earlier run again."""

import argparse
from collections.abc import Mapping
from typing import Any

from components.__main__ import STEPS
from components.kubeflow import documents as compiled
from components.kubeflow import submission
from components.kubeflow.api import KubeflowClient, check_name
from components.kubeflow.caching import cache_what_reads_nothing
from components.kubeflow.component import single_step_pipeline
from components.kubeflow.earlier_run import EarlierRun, parse_run, read_run, step_settings
from components.kubeflow.follow import follow_run, write_line
from components.kubeflow.schedule import schedule_from_options
from components.launch.feature_workers import shape_graph
from components.launch.graph import Graph
from components.launch.presets import Preset, choose_graph, find_preset
from components.launch.run_request import (
    RunRequest,
    apply_compiled_options,
    check_no_pod_options,
    compile_documents,
    default_name,
    image_and_cluster,
    resolve_arguments,
)
from components.launch.scheduling import make_schedule
from components.runner.ir import parse_arguments


def submit(options: argparse.Namespace, graphs: Mapping[str, Graph]) -> None:
    """Submit what the command line asks for, and follow the run with --wait.

    Raises:
        ValueError: an option is invalid.
        SubmissionError: the server cannot be reached or refuses, or the run fails.
    """
    server = submission.server_from_options(options)
    submission.check_no_user_info(options)
    submission.check_mode_options(options)
    deadline, schedule = submission.deadline_from_options(options), schedule_from_options(options)
    for kind in ("experiment", "pipeline", "version"):
        if getattr(options, kind) is not None:
            check_name(kind, getattr(options, kind))
    if options.name:
        check_name("run", options.name)
    client = KubeflowClient(server)
    if schedule:
        check_no_pod_options(options, "--schedule, which runs an uploaded version unchanged")
        make_schedule(client, options, graphs, schedule)
        return
    if options.only:
        request = _step_request(client, options)
    elif options.of:
        check_no_pod_options(options, "--of, which uses the images and pods of that run")
        request = _rerun_request(client, options)
    else:
        request = _graph_request(options, graphs)
    documents = apply_compiled_options(client, request.documents, options.no_cache, deadline)
    _start(client, request._replace(documents=documents), options)


def _graph_request(options: argparse.Namespace, graphs: Mapping[str, Graph]) -> RunRequest:
    """A whole graph, with the values of a preset and of the command line."""
    image, asked = image_and_cluster(options)
    preset = find_preset(options.preset) if options.preset else Preset("full", {})
    graph, values = shape_graph(graphs[choose_graph(options, preset)], preset.values, options)
    documents = compile_documents(graph.pipeline(image, asked))
    arguments = resolve_arguments(
        documents,
        values,
        options,
        asked.volumes.values(),
        processes={name: asked.processes(name) for name in STEPS},
    )
    cache_what_reads_nothing(documents[0], arguments)
    return RunRequest(documents, arguments)


def _step_request(client: KubeflowClient, options: argparse.Namespace) -> RunRequest:
    """One step on given artifacts; its settings may come from an earlier run."""
    image, asked = image_and_cluster(options)
    inputs = submission.inputs_from_options(options)
    documents = compile_documents(single_step_pipeline(options.only, inputs, image, asked))
    given = parse_arguments(options.param, documents[0])
    earlier, values = None, {}
    if options.of:
        earlier = read_run(client, parse_run(options.of))
        values = _earlier_settings(earlier, options.only, given)
    arguments = resolve_arguments(
        documents,
        values,
        options,
        asked.volumes.values(),
        processes={"": asked.processes(options.only)},
    )
    root = options.pipeline_root or (earlier.pipeline_root if earlier else "")
    submission.warn_of_inputs(inputs, root)
    return RunRequest(documents, arguments, earlier)


def _earlier_settings(earlier: EarlierRun, step: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of a step in an earlier run that the step still takes."""
    settings = step_settings(earlier, step)
    for name in settings.differing:
        if name not in given:
            raise ValueError(
                f"{step} ran with several values of {name} in run {earlier.id}; give --param "
                f"{name}=VALUE"
            )
    if settings.unknown:
        left_out = ", ".join(settings.unknown)
        write_line(f"left out, as {step} does not take them now: {left_out}")
    return settings.values


def _rerun_request(client: KubeflowClient, options: argparse.Namespace) -> RunRequest:
    """An earlier run again, with the given parameters, and from one step on without the cache."""
    earlier = read_run(client, parse_run(options.of))
    documents = earlier.documents
    arguments = resolve_arguments(
        documents,
        earlier.arguments,
        options,
        compiled.mounted_folders(documents),
        is_checked=bool(options.param),
    )
    if not options.start:
        return RunRequest(documents, arguments, earlier)
    task = compiled.find_task(documents[0], options.start)
    line = f"{task} and the steps after it run again; earlier steps come from the server's cache"
    if never := compiled.uncached_before(documents[0], task):
        line += f", except {', '.join(never)}, which this run does not cache"
    write_line(f"{line}; results that are not in the cache are made again")
    return RunRequest(compiled.without_caching(documents, {task}), arguments, earlier)


def _start(client: KubeflowClient, request: RunRequest, options: argparse.Namespace) -> None:
    """Start the run, print the link to its page, and follow it with --wait."""
    definition, earlier = request.documents[0], request.earlier
    name = options.name or default_name(definition["pipelineInfo"]["name"])
    if earlier and options.experiment is None:
        experiment = earlier.experiment
    else:
        experiment = client.make_experiment(options.experiment or submission.DEFAULT_EXPERIMENT)
    run = client.start_run(
        request.documents,
        request.arguments,
        experiment=experiment,
        name=name,
        pipeline_root=options.pipeline_root or (earlier.pipeline_root if earlier else ""),
        service_account=options.service_account or (earlier.service_account if earlier else ""),
    )
    write_line(f"run {name}: {client.server.run_url(run)}")
    if options.wait:
        follow_run(client, run, compiled.step_tasks(definition))
