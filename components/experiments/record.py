"""The record of a run, `runs/NAME/run.json`: its request and how it ended.

It has all parameters of the run, so that the run can be repeated with one changed.
"""

import json
import logging
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict

from components.command.code import git_commit
from components.process.messages import os_error_message, printable
from components.runner.artifacts import output_paths, paths_of_kind
from components.runner.folder import process_using
from components.runner.ir import Task
from components.runner.state import read_state
from components.runner.store import run_folders
from components.storage.outputs import write_file
from san_core.checked_json import read_json_file

RUN_FILE = "run.json"
FORMAT = "san-run"
# Partial: --only has run a step, and other steps are not current.
State = Literal["running", "done", "partial", "failed", "stopped"]

log = logging.getLogger(__name__)


class TaskRecord(TypedDict):
    """A task of a run; its outputs are under its name in the folder of the run.

    Attributes:
        step: its step, without the number of an iteration.
        parameters: the parameters of the step.
        inputs: the source task and artifact of each input artifact.
        outputs: the KFP type of each output artifact.
    """

    step: str
    parameters: dict[str, Any]
    inputs: dict[str, list[str]]
    outputs: dict[str, str]


@dataclass(frozen=True)
class Request:
    """The request of a run.

    Attributes:
        graph: the name of the graph.
        parameters: all parameters of the pipeline, except places in the store.
        runner: process or docker.
        image: image of the containers.
    """

    graph: str
    parameters: dict[str, Any]
    runner: str
    image: str


@dataclass(frozen=True)
class RunRecord:
    """The content of `run.json`; times are seconds since 1970.

    Attributes:
        request: the request.
        state: running, or how it ended.
        started: time of the last start.
        ended: time of the end; 0 before.
        commit: commit of the code; empty without git.
        tasks: the tasks by name, in order.
        results: digests of the outputs of tasks with a page, for a finished run.
        current: the tasks whose results are of this request; all, for a finished run.
    """

    request: Request
    state: State
    started: float
    ended: float = 0.0
    commit: str = ""
    tasks: dict[str, TaskRecord] = field(default_factory=dict)
    results: dict[str, dict[str, str]] = field(default_factory=dict)
    current: list[str] = field(default_factory=list)


class _RequestFile(TypedDict):
    graph: str
    parameters: dict[str, Any]
    runner: str
    image: str


class _RecordFile(TypedDict):
    format: Literal["san-run"]
    request: _RequestFile
    state: State
    started: float
    ended: float
    commit: str
    tasks: dict[str, TaskRecord]
    results: dict[str, dict[str, str]]
    current: NotRequired[list[str]]


@dataclass(frozen=True)
class Run:
    """A run that has a record, in its folder."""

    folder: Path
    record: RunRecord

    @property
    def name(self) -> str:
        """Its name."""
        return self.folder.name

    @property
    def state(self) -> str:
        """How it ended; killed if it could not record its end."""
        if self.record.state != "running":
            return self.record.state
        with suppress(OSError):  # the lock of another user may not be looked at
            return "killed" if process_using(self.folder) is None else "running"
        return "running"

    def is_current(self, task: str) -> bool:
        """Whether a task's result is of this request, not of an earlier one."""
        return self.record.state == "done" or task in self.record.current

    def figures(self) -> dict[str, float | str | bool]:
        """The metrics of the last task that has some; empty before it has finished."""
        for name, task in reversed(self.record.tasks.items()):
            if "system.Metrics" in task["outputs"].values():
                return self._figures_of(name) if self.is_current(name) else {}
        return {}

    def _figures_of(self, name: str) -> dict[str, float | str | bool]:
        """The metrics of a task; empty if they cannot be read."""
        outputs = self.record.tasks[name]["outputs"]
        for file in paths_of_kind(outputs, self.folder / name, "system.Metrics"):
            try:
                return read_json_file(file, dict[str, float | str | bool])
            except (OSError, ValueError) as error:
                log.warning("the metrics of run %s cannot be read: %s", self.name, error)
        return {}

    def pages(self) -> dict[str, list[Path]]:
        """The pages of all tasks."""
        found = {
            name: paths_of_kind(task["outputs"], self.folder / name, "system.HTML")
            for name, task in self.record.tasks.items()
            if self.is_current(name)
        }
        return {name: pages for name, pages in found.items() if pages}

    def output(self, step: str, artifact: str) -> Path | None:
        """The path of an output of a step; None if there is no such step or output."""
        for name, task in self.record.tasks.items():
            if task["step"] == step and artifact in task["outputs"]:
                path = output_paths(task["outputs"], self.folder / name)[artifact]
                return path if self.is_current(name) and path.exists() else None
        return None


def read_run(folder: Path) -> Run | None:
    """The run in a folder; None if there is no record, or one of another version."""
    try:
        told = read_json_file(folder / RUN_FILE, _RecordFile)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    asked = told["request"]
    record = RunRecord(
        Request(asked["graph"], asked["parameters"], asked["runner"], asked["image"]),
        told["state"],
        told["started"],
        told["ended"],
        told["commit"],
        told["tasks"],
        told["results"],
        told.get("current", []),
    )
    return Run(folder, record)


def readable_run(folder: Path) -> Run | None:
    """As `read_run`, but a record that cannot be read is None too, with a warning."""
    try:
        run = read_run(folder)
        is_record = run is not None or not (folder / RUN_FILE).exists()
    except OSError as error:
        log.warning("%s is left out: %s", *map(printable, (str(folder), os_error_message(error))))
        return None
    if not is_record:
        log.warning("%s is left out: its %s cannot be read", printable(str(folder)), RUN_FILE)
    return run


def read_runs(runs: Path) -> list[Run]:
    """The runs in a folder that have a record, newest first.

    One that cannot be read, such as that of another user, is left out with a warning.
    """
    found = [run for folder in run_folders(runs) if (run := readable_run(folder))]
    return sorted(found, key=lambda run: (-run.record.started, run.name))


def write_record(folder: Path, record: RunRecord) -> None:
    """Write the record of a run."""
    content = {"format": FORMAT, **asdict(record)}
    write_file(folder / RUN_FILE, json.dumps(content, indent=1) + "\n")


def begun_record(
    request: Request, plan: Sequence[Task], clock: Callable[[], float] = time.time
) -> RunRecord:
    """The record of a run that starts now."""
    tasks = {
        task.name: TaskRecord(
            step=task.step,
            parameters=dict(task.parameters),
            inputs={name: [made.task, made.artifact] for name, made in task.inputs.items()},
            outputs=dict(task.outputs),
        )
        for task in plan
    }
    return RunRecord(request, "running", clock(), commit=_commit(), tasks=tasks)


def results_in(folder: Path, tasks: Mapping[str, TaskRecord]) -> dict[str, dict[str, str]]:
    """The digests of the outputs of tasks with a page."""
    states = {
        name: read_state(folder / name)
        for name, task in tasks.items()
        if "system.HTML" in task["outputs"].values()
    }
    return {name: state.digests for name, state in states.items() if state}


def _commit() -> str:
    try:
        return git_commit()
    except (OSError, subprocess.CalledProcessError):
        return ""
