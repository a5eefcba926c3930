"""The commands `runs list`, `runs stop` and `runs retry`: without --host, of local runs."""

import argparse
import time
from pathlib import Path
from typing import Any

from components.experiments.listing import age_in_words, list_lines
from components.experiments.record import read_runs
from components.kubeflow import submission
from components.kubeflow.api import KubeflowClient
from components.kubeflow.connection import SubmissionError
from components.kubeflow.earlier_run import parse_run
from components.kubeflow.follow import END_STATES, write_line


def add_runs_options(parser: argparse.ArgumentParser) -> None:
    """Add the actions on runs to a command line."""
    actions = parser.add_subparsers(dest="action", required=True)
    listing = actions.add_parser(
        "list",
        help="list the runs of this machine, or of an experiment on --host, newest first",
        description="List the runs of this machine with state, age, size and figures; with --host,"
        " those of an experiment with id, state, start, duration and name. Kubeflow's list of runs"
        " has no sizes and no figures; its page that compares runs shows the figures.",
    )
    listing.add_argument("--runs", type=Path, help="folder of all local runs (default: runs)")
    listing.add_argument(
        "--experiment", help=f"needs --host (default: {submission.DEFAULT_EXPERIMENT})"
    )
    listing.add_argument(
        "--most", help="number of runs to list (default: 20)", type=int, default=20, metavar="N"
    )
    stopping = actions.add_parser("stop", help="stop a run; its pods are killed")
    retrying = actions.add_parser(
        "retry",
        help="run the failed steps of a run again, and those that wait for them; nothing can be "
        "changed (`submit --of` can change parameters)",
    )
    for one in (stopping, retrying):
        one.add_argument("run", help="id of the run, or the link to its page", metavar="RUN")
    for one in (listing, stopping, retrying):
        submission.add_server_options(one, is_host_needed=one is not listing)


def manage_runs(options: argparse.Namespace) -> None:
    """List, stop or retry runs, as the command line asks.

    Raises:
        ValueError: an option is invalid.
        SubmissionError: the server cannot be reached or refuses.
    """
    if options.action == "list":
        if options.most < 1:
            raise ValueError(f"--most {options.most} is not a number of runs")
        if options.host is None:
            _list_here(options)
            return
        if options.runs is not None:
            raise ValueError("--runs is for local runs; it has no effect with --host")
    client = KubeflowClient(submission.server_from_options(options))
    {"list": _list, "stop": _stop, "retry": _retry}[options.action](client, options)


def _list_here(options: argparse.Namespace) -> None:
    """List the runs of this machine.

    Raises:
        ValueError: an option is given that needs a server.
        SubmissionError: there are no runs.
    """
    for name in ("experiment", "namespace", "token_file"):
        if getattr(options, name):
            raise ValueError(f"--{name.replace('_', '-')} needs --host")
    folder = options.runs or Path("runs")
    runs = read_runs(folder)[: options.most]
    if not runs:
        raise SubmissionError(f"there are no runs in {folder}")
    for line in list_lines(runs, now=time.time()):
        write_line(line)


def _list(client: KubeflowClient, options: argparse.Namespace) -> None:
    name = options.experiment or submission.DEFAULT_EXPERIMENT
    experiment = client.find_experiment(name)
    if experiment is None:
        raise SubmissionError(f"{client.server.host} has no experiment {name}")
    for run in client.list_runs(experiment, options.most):
        write_line(_line_of(run))


def _line_of(run: Any) -> str:
    """A run in one line: id, state, creation time, duration if it has ended, name."""
    made = f"{run.created_at:%Y-%m-%d %H:%M}" if run.created_at else " " * 16
    has_ended = run.created_at and run.finished_at and run.finished_at > run.created_at
    took = age_in_words((run.finished_at - run.created_at).total_seconds()) if has_ended else ""
    return f"{run.run_id}  {run.state or 'PENDING':9}  {made}  {took:>6}  {run.display_name}"


def _stop(client: KubeflowClient, options: argparse.Namespace) -> None:
    run = parse_run(options.run)
    state = client.get_run(run).state
    if state in (*END_STATES, "CANCELING"):
        raise SubmissionError(f"run {run} cannot be stopped: it is {state}")
    client.stop_run(run)
    write_line(f"run {run} is being stopped: {client.server.run_url(run)}")


def _retry(client: KubeflowClient, options: argparse.Namespace) -> None:
    run = parse_run(options.run)
    client.retry_run(run)
    write_line(f"run {run} continues: {client.server.run_url(run)}")
