"""What `python pipeline.py compile|run|submit` does."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from components.__main__ import STEPS
from components.command import beforehand
from components.kubeflow import submission
from components.kubeflow.api import SubmissionError
from components.kubeflow.caching import cache_what_reads_nothing
from components.kubeflow.cluster_options import check_component_options, cluster_from_options
from components.kubeflow.component import (
    check_image_pinned,
    compile_pipeline,
    fill_commit,
    single_step_pipeline,
    write_components,
)
from components.launch.graph import IMAGE, Graph
from components.launch.options import argument_parser
from components.launch.presets import Preset, find_preset, pipeline_arguments
from components.process.signals import Terminated
from components.runner import local
from components.runner.ir import check_arguments, parse_argument, pipeline_parameters
from components.storage.sources import STORE_PARAMETERS, names_place

# What a person who stops a command should know.
STOPPED_HINTS = {
    "compile": "nothing was compiled",
    "run": "the same command goes on from here",
    "submit": "a run that was started goes on at the server",
}


def main(graphs: Mapping[str, Graph], argv: Sequence[str] | None = None) -> int:
    """Do what the words of a command line say; return the exit status.

    1 is a failed run, 2 wrong usage, 130 Ctrl-C and 143 SIGTERM.
    """
    parser = argument_parser(graphs)
    options = parser.parse_args(argv)
    try:
        {"compile": _compile, "submit": _submit, "run": _run}[options.command](options, graphs)
    except ValueError as error:
        parser.error(str(error))
    except (local.RunError, SubmissionError, OSError) as error:
        print(f"pipeline.py: {error}", file=sys.stderr)
        return 1
    except (KeyboardInterrupt, Terminated) as stop:
        print(f"pipeline.py: stopped; {STOPPED_HINTS[options.command]}", file=sys.stderr)
        return 130 if isinstance(stop, KeyboardInterrupt) else 143
    return 0


def _compile(options: argparse.Namespace, graphs: Mapping[str, Graph]) -> None:
    """The command `compile`."""
    image, asked = fill_commit(options.image), cluster_from_options(options)
    check_image_pinned(image)
    if options.components:
        for given in ("graph", "output"):
            if getattr(options, given) is not None:
                raise ValueError(
                    f"--{given} has no effect with --components, which writes every step"
                )
        check_component_options(options)
        write_components(options.components, image, asked)
    else:
        output = options.output or Path("pipeline.yaml")
        graphs[options.graph or "full"].compile(output, image=image, cluster=asked)


def _run(options: argparse.Namespace, graphs: Mapping[str, Graph]) -> None:
    """The command `run`."""
    preset = find_preset(options.preset)
    name = options.name or options.preset
    if Path(name).name != name or name in ("", ".."):
        raise ValueError(f"--name {name} is not the name of a folder in {options.runs}")
    if options.runner == "process" and options.image != IMAGE:
        raise ValueError("--image is for --runner docker")
    folder = options.runs / name
    graph, image = graphs[choose_graph(options, preset)], fill_commit(options.image)
    document = graph.compile(folder / "pipeline.yaml", image=image)
    arguments = pipeline_arguments(preset, document, options.param, folder=folder)
    check_beforehand(arguments, document)
    if options.runner == "process":
        local.run_in_processes(
            document,
            arguments,
            folder=folder,
            start=options.start,
            only=options.only,
            verbose=options.verbose,
        )
        return
    from components.runner import containers  # needs the package docker, and nothing else does

    if options.start or options.only:
        raise ValueError("--from and --only are for the process runner; docker runs every step")
    containers.run_in_containers(
        graph.pipeline(image),
        document,
        arguments,
        folder=folder,
        terminal=sys.stdout,
        verbose=options.verbose,
    )


def _submit(options: argparse.Namespace, graphs: Mapping[str, Graph]) -> None:
    """The command `submit`."""
    server = submission.server_from_options(options)
    image, asked = fill_commit(options.image), cluster_from_options(options)
    check_image_pinned(image)
    preset = find_preset(options.preset) if options.preset else Preset("full", {})
    submission.check_only_option(options)
    if options.only:
        pipeline = single_step_pipeline(
            options.only, submission.inputs_from_options(options), image, asked
        )
    else:
        pipeline = graphs[choose_graph(options, preset)].pipeline(image, asked)
    with TemporaryDirectory() as folder:
        documents = compile_pipeline(pipeline, Path(folder, "pipeline.yaml"))
    declared = pipeline_parameters(documents[0])
    arguments = {name: value for name, value in preset.values.items() if name in declared}
    arguments |= dict(parse_argument(word, documents[0]) for word in options.param)
    check_arguments(documents[0], arguments)
    kept = {name: arguments.get(name, "") for name in STORE_PARAMETERS if name in declared}
    submission.check_pipeline_root(options.pipeline_root, kept)
    places = {name: value for name, value in arguments.items() if names_place(name, value)}
    submission.check_places_outlast_pod(places, asked.volumes.values())
    processes = {name: asked.process_count(name) for name in STEPS}
    if options.only:
        processes = {"": processes[options.only]}
    check_beforehand(arguments, documents[0], processes)
    if not options.only:
        cache_what_reads_nothing(documents[0], arguments)
    submission.submit(server, documents, arguments, options)


def choose_graph(options: argparse.Namespace, preset: Preset) -> str:
    """The graph that is asked for; with a generator that is there, none is trained."""
    has_generator = any(word.partition("=")[0] == "generator" for word in options.param)
    return options.graph or ("ready" if preset.graph == "full" and has_generator else preset.graph)


def check_beforehand(
    arguments: Mapping[str, Any],
    document: Mapping[str, Any],
    processes: Mapping[str, int] | None = None,
) -> None:
    """Find mistakes that the last step would find only after all others have run.

    processes: as for `beforehand.check_parameters`.

    Raises:
        ValueError: there is one.
    """
    defaults = {n: d.get("defaultValue") for n, d in pipeline_parameters(document).items()}
    beforehand.check_parameters({**defaults, **arguments}, processes)
