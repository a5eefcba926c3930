"""The command line of `python pipeline.py compile|run|submit|upload|runs`."""

import argparse
from collections.abc import Collection
from pathlib import Path
from typing import Any

from components.command.once import OnceParser
from components.kubeflow.cluster_options import add_cluster_options
from components.kubeflow.submission import (
    add_compiled_options,
    add_server_options,
    add_submission_options,
)
from components.launch.graph import IMAGE, PINNED_IMAGE
from components.launch.parameters import parameters_help
from components.launch.presets import PRESETS
from components.launch.runs import add_runs_options


def argument_parser(graphs: Collection[str]) -> argparse.ArgumentParser:
    """The parser of `python pipeline.py`, given the names of the graphs."""
    parser = OnceParser(
        prog="python pipeline.py",
        description="Compile the SAN pipeline, run it here, or submit it to Kubeflow.",
    )
    commands = parser.add_subparsers(dest="command", required=True)

    compiling = commands.add_parser(
        "compile", help="compile the pipeline to a YAML file for Kubeflow"
    )
    compiling.add_argument("--graph", choices=graphs, help="default: full")
    compiling.add_argument("--output", type=Path, help="default: pipeline.yaml")
    compiling.add_argument(
        "--components",
        type=Path,
        metavar="DIR",
        help="write DIR/STEP/component.yaml for every step instead, for your own pipelines",
    )
    submitting = commands.add_parser(
        "submit",
        help="run it on Kubeflow Pipelines",
        epilog=parameters_help(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_submission_options(submitting, graphs=graphs, presets=PRESETS)
    uploading = commands.add_parser("upload", help="upload it to Kubeflow Pipelines as a version")
    add_server_options(uploading)
    uploading.add_argument("--graph", choices=graphs, help="default: full")
    uploading.add_argument("--pipeline", metavar="NAME", help="default: san-GRAPH")
    uploading.add_argument(
        "--version", metavar="NAME", help="default: the pipeline's name and the time"
    )
    add_compiled_options(uploading)
    for one in (compiling, uploading):
        one.add_argument(
            "--feature-workers",
            type=int,
            metavar="N",
            help="workers that embed the test images, as the parameter of that name (default: 1)",
        )
    for one in (compiling, submitting, uploading):
        _add_image(one, PINNED_IMAGE)
        add_cluster_options(one)

    _add_run(commands, graphs)
    add_runs_options(
        commands.add_parser("runs", help="list runs here or on Kubeflow; stop or retry them there")
    )
    return parser


def _add_run(commands: "argparse._SubParsersAction[Any]", graphs: Collection[str]) -> None:
    """The command `run`."""
    running = commands.add_parser(
        "run",
        help="run it on this machine, with a process or a container per step",
        description="Run the pipeline on this machine. Steps that a run in the same folder has\n"
        "finished with the same settings, code and inputs are skipped.",
        epilog=parameters_help(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    running.add_argument(
        "--runner",
        choices=("process", "docker"),
        help="how each step runs (default: as in the earlier run of that --name, else process)",
    )
    _add_image(running, IMAGE, is_kept=True)
    running.add_argument(
        "--preset",
        help=f"one of {', '.join(PRESETS)}; without one, the earlier run of that --name gives graph"
        " and parameters, except those that --param sets",
    )
    running.add_argument(
        "--of", metavar="RUN", help="use graph and parameters of another run in --runs"
    )
    running.add_argument(
        "--graph", choices=graphs, help="default: the graph of the preset, or of the run"
    )
    running.add_argument(
        "--param",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="set one parameter of the pipeline; may be repeated",
    )
    running.add_argument("--name", help="folder of the run (default: the name of the preset)")
    running.add_argument(
        "--runs", type=Path, default=Path("runs"), help="folder of all runs (default: runs)"
    )
    rerun = running.add_mutually_exclusive_group()
    rerun.add_argument(
        "--from",
        dest="start",
        metavar="STEP",
        help="run this step and all that follow it again; a finished training is restored from "
        "its checkpoint",
    )
    rerun.add_argument("--only", metavar="STEP", help="run only this step, again")
    running.add_argument("--verbose", action="store_true", help="show what the steps log")


def _add_image(parser: argparse.ArgumentParser, default: str, *, is_kept: bool = False) -> None:
    """is_kept: whether an earlier run of the same name may give the image."""
    parser.add_argument(
        "--image",
        default=None if is_kept else default,
        help="image of the steps; {target} in it stands for cpu or gpu, {commit} for this "
        f"checkout; or cpu=NAME,gpu=NAME (default: {default})",
    )
