"""The words that `python pipeline.py compile|run|submit|upload|runs` takes."""

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
    """What `python pipeline.py` understands, where these are the names of the graphs."""
    parser = OnceParser(
        prog="python pipeline.py",
        description="Compile the SAN pipeline, run it here, or submit it to Kubeflow.",
    )
    commands = parser.add_subparsers(dest="command", required=True)

    compiling = commands.add_parser("compile", help="write the pipeline for Kubeflow")
    compiling.add_argument("--graph", choices=graphs, help="default: full")
    compiling.add_argument("--output", type=Path, help="default: pipeline.yaml")
    compiling.add_argument(
        "--components",
        type=Path,
        metavar="DIR",
        help="write DIR/STEP/component.yaml of every step instead, to compose pipelines of",
    )
    submitting = commands.add_parser(
        "submit",
        help="run it on Kubeflow Pipelines",
        epilog=parameters_help(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_submission_options(submitting, graphs=graphs, presets=PRESETS)
    uploading = commands.add_parser("upload", help="keep it on Kubeflow Pipelines, as a version")
    add_server_options(uploading)
    uploading.add_argument("--graph", choices=graphs, help="default: full")
    uploading.add_argument("--pipeline", metavar="NAME", help="default: san-GRAPH")
    uploading.add_argument("--version", metavar="NAME", help="default: pipeline and time")
    add_compiled_options(uploading)
    for one in (compiling, submitting, uploading):
        _add_image(one, PINNED_IMAGE)
        add_cluster_options(one)

    _add_run(commands, graphs)
    add_runs_options(commands.add_parser("runs", help="list, stop or retry runs on Kubeflow"))
    return parser


def _add_run(commands: "argparse._SubParsersAction[Any]", graphs: Collection[str]) -> None:
    """The command `run`."""
    running = commands.add_parser(
        "run",
        help="run it on this machine, a process or a container per step",
        description="Run the pipeline on this machine; what is unchanged since the last run of\n"
        "the same name is skipped.",
        epilog=parameters_help(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    running.add_argument(
        "--runner",
        choices=("process", "docker"),
        default="process",
        help="what runs each step (default: %(default)s)",
    )
    _add_image(running, IMAGE)
    running.add_argument("--preset", required=True, help=f"one of {', '.join(PRESETS)}")
    running.add_argument("--graph", choices=graphs, help="default: the graph of the preset")
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
        help="run this step again and all that follow it; finished training is taken from "
        "its checkpoint",
    )
    rerun.add_argument("--only", metavar="STEP", help="run this step again and nothing else")
    running.add_argument("--verbose", action="store_true", help="show what the steps log")


def _add_image(parser: argparse.ArgumentParser, default: str) -> None:
    parser.add_argument(
        "--image",
        default=default,
        help="image of the steps; {target} in it stands for cpu or gpu, {commit} for this "
        "checkout; or cpu=NAME,gpu=NAME (default: %(default)s)",
    )
