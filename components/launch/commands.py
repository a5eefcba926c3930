"""The commands `python pipeline.py compile|run|submit|upload|runs`."""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from components.experiments.keeping import recorded
from components.experiments.record import Request, read_run
from components.kubeflow.cluster_options import check_component_options, cluster_from_options
from components.kubeflow.component import check_image_pinned, fill_commit, write_components
from components.kubeflow.connection import SubmissionError
from components.kubeflow.submission import check_no_user_info
from components.launch.closing import closing_lines
from components.launch.feature_workers import graph_of_count, shape_graph
from components.launch.graph import IMAGE, Graph
from components.launch.options import argument_parser
from components.launch.presets import (
    Preset,
    check_beforehand,
    check_places,
    choose_graph,
    find_preset,
    kept_parameters,
    pipeline_arguments,
)
from components.launch.runs import manage_runs
from components.launch.submitting import submit
from components.launch.upload import upload
from components.process.messages import (
    drop_output,
    is_output_closed,
    os_error_message,
    printable,
)
from components.process.signals import Terminated
from components.runner import local
from components.runner.containers import ContainerLauncher
from components.runner.folder import RunError
from components.runner.processes import ProcessLauncher
from components.storage.places import real_path

# What has happened when a command is stopped, for the person who stops it.
STOPPED_HINTS = {
    "compile": "nothing was compiled",
    "run": "the same command continues from here",
    "submit": "a run that was started continues on the server",
    "upload": "what was sent is on the server",
    "runs": "the server carries out what it has received",
}


def main(graphs: Mapping[str, Graph], argv: Sequence[str] | None = None) -> int:
    """Run a command line; return the exit status.

    1 is a failed run, 2 wrong usage, 130 Ctrl-C, 143 SIGTERM and 129 SIGHUP.
    """
    parser = argument_parser(graphs)
    options = parser.parse_args(argv)
    try:
        COMMANDS[options.command](options, graphs)
        sys.stdout.flush()
    except ValueError as error:
        parser.error(printable(" ".join(str(error).split())))
    except (RunError, SubmissionError, OSError) as error:
        if isinstance(error, BrokenPipeError) and is_output_closed():
            if options.command != "runs":
                hint = STOPPED_HINTS[options.command]
                print(f"pipeline.py: nobody reads its output any more; {hint}", file=sys.stderr)
            return drop_output()
        told = os_error_message(error) if isinstance(error, OSError) else str(error)
        print(printable(f"pipeline.py: {told}"), file=sys.stderr)
        return 1
    except (KeyboardInterrupt, Terminated) as stop:
        print(f"pipeline.py: stopped; {STOPPED_HINTS[options.command]}", file=sys.stderr)
        return 130 if isinstance(stop, KeyboardInterrupt) else stop.status
    return 0


def _compile(options: argparse.Namespace, graphs: Mapping[str, Graph]) -> None:
    """The command `compile`."""
    check_no_user_info(options)
    image, asked = fill_commit(options.image), cluster_from_options(options)
    check_image_pinned(image)
    if options.components:
        for given in ("graph", "output", "feature_workers"):
            if getattr(options, given) is not None:
                flag = given.replace("_", "-")
                raise ValueError(
                    f"--{flag} has no effect with --components, which writes every step"
                )
        check_component_options(options)
        write_components(options.components, image, asked)
    else:
        output = options.output or Path("pipeline.yaml")
        graph = graph_of_count(graphs[options.graph or "full"], options.feature_workers)
        graph.compile(output, image=image, cluster=asked)


def _run(options: argparse.Namespace, graphs: Mapping[str, Graph]) -> None:
    """The command `run`."""
    name = options.preset if options.name is None else options.name
    if name is None:
        raise ValueError(
            "give --preset, or the --name of an earlier run, whose parameters are used"
        )
    if Path(name).name != name or name in ("", "..") or name.startswith("."):
        raise ValueError(f"--name {name!r} is not the name of a folder in {options.runs}")
    if not name.isprintable():
        raise ValueError(f"--name {name!r} has characters that no terminal or page shows")
    folder = options.runs / name
    former = _former_request(options, name)
    preset = Preset(former.graph, former.parameters) if former else find_preset(options.preset)
    runner = options.runner or (former.runner if former else "process")
    asked_image = options.image or (former.image if former and runner == former.runner else IMAGE)
    if runner == "process" and asked_image != IMAGE:
        raise ValueError("--image needs --runner docker")
    graph, values = shape_graph(graphs[choose_graph(options, preset)], preset.values, options)
    preset = preset._replace(values=values)
    document, source = graph.compiled(image=fill_commit(asked_image))
    arguments = pipeline_arguments(preset, document, options.param, folder=folder)
    check_beforehand(arguments, document)
    if not options.only:  # one step reads only its own places, and opens them at once
        check_places(arguments, document)
    kept = kept_parameters(arguments, document, folder=folder)
    request = Request(graph.name, kept, runner, asked_image)
    local.run_pipeline(
        document,
        arguments,
        folder=folder,
        launcher=ContainerLauncher(arguments, folder) if runner == "docker" else ProcessLauncher(),
        record=partial(recorded, folder=real_path(folder), request=request, source=source),
        start=options.start,
        only=options.only,
        verbose=options.verbose,
    )
    for line in closing_lines(folder):
        print(printable(line))


def _former_request(options: argparse.Namespace, name: str) -> Request | None:
    """The record of the run whose parameters are used; None if a preset gives them.

    Raises:
        ValueError: neither is given, or both are.
    """
    if options.preset is not None:
        if options.of is not None:
            raise ValueError("--of and --preset both give parameters; leave one out")
        return None
    folder = options.runs / (options.of or name)
    run = read_run(folder)
    if run is None:
        raise ValueError(f"--preset is needed, as {folder} has no parameters of an earlier run")
    return run.record.request


COMMANDS: dict[str, Callable[[argparse.Namespace, Mapping[str, Graph]], None]] = {
    "compile": _compile,
    "run": _run,
    "submit": submit,
    "upload": upload,
    "runs": lambda options, _: manage_runs(options),
}
