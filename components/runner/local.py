"""Runs a compiled pipeline on this machine, everything under one folder.

What a launcher starts for each task is a process (`components.runner.processes`) or a container
(`components.runner.containers`).

A task is done again only when what decides its result has changed: its settings, the code of its
step, the content of its inputs, or its outputs themselves. A failed or killed run goes on where it
stopped when it is started again. Tasks of one loop run side by side, all others one by one.
"""

import fcntl
import hashlib
import json
import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol, TextIO

from components.command.suggestion import suggestion
from components.process.machine import core_count
from components.process.signals import STOP_SIGNALS, defer_stop, raise_terminated, signal_handler
from components.runner import state
from components.runner.ir import PLACEHOLDER, Task, read_tasks
from components.runner.processes import (
    CONTAINER_FILE,
    LOG_FILE,
    SECONDS_BETWEEN_LOOKS,
    Screen,
    TaskProcess,
    log_lines,
    stop_processes,
)
from components.storage.outputs import write_file
from components.storage.places import real_path
from components.storage.sources import file_versions, read_places

# What the name of an artifact of these types ends with, so that a browser opens it.
FILE_SUFFIXES = {
    "system.HTML": ".html",
    "system.Metrics": ".json",
    "system.ClassificationMetrics": ".json",
}
PIPELINE_FILE = "pipeline.yaml"  # in a run's folder, what is run
LOCK_FILE = ".lock"  # there too, as long as the folder is


class RunError(Exception):
    """Why a run stopped, in words for the person who started it."""


class Launcher(Protocol):
    """What starts tasks."""

    def prepare(self, plan: Iterable[Task], /) -> None:
        """See that what the tasks of a run need is there, and nothing that a killed run left."""

    def code_of(self, task: Task) -> str:
        """What stands for the code that a task runs: part of what decides its result."""

    def launch(
        self, task: Task, words: Sequence[str], folder: Path, *, threads: int
    ) -> TaskProcess:
        """Start a task, which may take so many threads; its log goes into its folder."""


def run_pipeline(
    document: Mapping[str, Any],
    arguments: Mapping[str, Any],
    *,
    folder: Path,
    launcher: Launcher,
    source: str = "",
    start: str | None = None,
    only: str | None = None,
    verbose: bool = False,
    terminal: TextIO | None = None,
) -> None:
    """Run a compiled pipeline; what is unchanged since the last run in `folder` is skipped.

    Args:
        document: the compiled pipeline, as loaded from its YAML
        arguments: values of the pipeline's parameters
        folder: where each task gets a folder of its own
        launcher: what starts the tasks
        source: that YAML, kept in the folder as pipeline.yaml
        start: a step that is run again whatever it finds, with all that depends on it
        only: the only step that is run, again whatever it finds
        verbose: whether to show what the steps log
        terminal: where lines go; by default standard output

    Raises:
        ValueError: the pipeline cannot be run here, an argument is missing, or there is no such
            step.
        RunError: a step failed, another run uses the folder, a container of a killed one may, it is
            no run's, or `only` lacks an input.
        Terminated: SIGTERM or SIGHUP arrived; the steps that were running are stopped.
        KeyboardInterrupt: Ctrl-C, likewise.
    """
    plan = read_tasks(document, arguments)
    for task in plan:
        if task.imported:
            raise ValueError(f"task {task.name} imports an artifact, which cannot be done here")
    named = start or only
    chosen = _tasks_named(plan, named) if named else set()
    folder = real_path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    _check_folder_of_runs(folder)
    screen = Screen(terminal or sys.stdout, verbose=verbose)
    with run_lock(folder, source), signal_handler(raise_terminated, *STOP_SIGNALS):
        launcher.prepare(plan)
        _check_no_container(folder)
        current = _Run(plan, folder, launcher, screen)
        if only:
            current.run_only(chosen)
        else:
            current.run_stale(forced=_downstream(plan, chosen))
        current.show_results(chosen if only else set(current.plan))


class _Run:
    """One run: its tasks, their folders, and the digests of what they have made."""

    def __init__(self, plan: list[Task], folder: Path, launcher: Launcher, screen: Screen) -> None:
        self.plan = {task.name: task for task in plan}
        self.task_counts = Counter(task.step for task in plan)
        self.folder = folder
        self.launcher = launcher
        self.screen = screen
        self.digests: dict[str, dict[str, str]] = {}

    def run_stale(self, *, forced: set[str]) -> None:
        """Do every task that is not done yet, and those in `forced`."""
        for _, group in groupby(self.plan.values(), key=lambda task: task.step):
            self._run_stale_tasks(list(group), forced)

    def run_only(self, chosen: set[str]) -> None:
        """Do the chosen tasks; what they need must have been done before."""
        group = [task for task in self.plan.values() if task.name in chosen]
        states = {name: state.read_state(self.folder / name) for name in self.plan}
        self.digests = {name: found.digests for name, found in states.items() if found}
        for name in dict.fromkeys(name for task in group for name in _prerequisites(task)):
            needed = self.plan[name]
            if name not in chosen:
                found = states[name]
                if found is None or not state.outputs_unchanged(found, self._output_paths(needed)):
                    raise RunError(
                        f"{group[0].step} needs {name}, which is not finished in {self.folder}; "
                        "run without --only first"
                    )
                if self._has_input_digests(needed) and found.key != self._task_key(needed):
                    self.screen.write_line(
                        f"{name} ... kept, though its settings or code have changed"
                    )
        self._run_stale_tasks(group, chosen)

    def _run_stale_tasks(self, group: list[Task], forced: set[str]) -> None:
        """Do the tasks of one step: all iterations of it, if it is in a loop."""
        stale = {}
        for task in group:
            key = self._task_key(task)
            found = state.read_state(self.folder / task.name)
            if task.name not in forced and self._is_done(task, key, found):
                assert found is not None
                self.digests[task.name] = found.digests
                self.screen.write_line(f"{task.name} ... skipped (unchanged)")
                log = self.folder / task.name / LOG_FILE
                self.screen.write_warnings(log_lines(log), log)
            else:
                stale[task.name] = key
        # Divided by all of the step's tasks, not by those that are run: how many threads add up
        # a sum can change its last digit, and a resumed run shall give what an undisturbed gives.
        threads = max(1, core_count() // self.task_counts[group[0].step])
        self._run_side_by_side([self.plan[name] for name in stale], stale, threads=threads)

    def _has_input_digests(self, task: Task) -> bool:
        """Whether the digest of every input is at hand."""
        return all(
            made.artifact in self.digests.get(made.task, {}) for made in task.inputs.values()
        )

    def _is_done(self, task: Task, key: str, found: state.TaskState | None) -> bool:
        return (
            found is not None
            and found.key == key
            and not found.remote
            and state.outputs_unchanged(found, self._output_paths(task))
        )

    def _task_key(self, task: Task) -> str:
        """What decides the result of a task, as a digest; where its checkpoints are does not."""
        content = {
            "words": _without_flag(task.words, "--checkpoint"),
            "parameters": {k: v for k, v in task.parameters.items() if k != "checkpoint"},
            "places": {
                place.name: file_versions(place.uri, is_single=place.is_single)
                for place in read_places(task.parameters, task.step)
            },
            "env": task.env,
            "code": self.launcher.code_of(task),
            "inputs": {
                name: self.digests[made.task][made.artifact] for name, made in task.inputs.items()
            },
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def _run_side_by_side(
        self, waiting: list[Task], keys: Mapping[str, str], *, threads: int
    ) -> None:
        """Run tasks side by side, as many at once as there are cores; stop all if one fails."""
        waiting = waiting[::-1]
        running: list[TaskProcess] = []
        try:
            while waiting or running:
                while waiting and len(running) < core_count():
                    running.append(self._launch(waiting.pop(), threads))
                time.sleep(SECONDS_BETWEEN_LOOKS)
                ended = [one for one in running if one.has_ended()]
                self.screen.show_logs(running)  # after that look, or its last lines would be lost
                for process in ended:
                    running.remove(process)
                    self._accept_result(process, keys[process.task.name])
        except BaseException:
            with defer_stop():  # after Ctrl-C or a failure the terminal may be closed
                stop_processes(running)
            raise

    def _launch(self, task: Task, threads: int) -> TaskProcess:
        """Start a task in a folder that holds nothing but the logs of former tries."""
        folder = self.folder / task.name
        (folder / state.STATE_FILE).unlink(missing_ok=True)  # first: what follows destroys outputs
        folder.mkdir(exist_ok=True)
        _keep_logs_alone(folder)
        words = [self._fill_placeholders(task, word) for word in task.words]
        return self.launcher.launch(task, words, folder, threads=threads)

    def _accept_result(self, process: TaskProcess, key: str) -> None:
        """Believe what a task wrote, if it ended well."""
        task = process.task
        process.clean_up()
        if process.status != 0:
            raise RunError(process.failure_message())
        try:
            done = state.record_state(self.folder / task.name, key, self._output_paths(task))
        except (FileNotFoundError, ValueError) as error:
            raise RunError(f"{task.name} ended well, but {error}\n  log: {process.log}") from error
        self.digests[task.name] = done.digests
        self.screen.write_line(f"{task.name} ... done in {_format_duration(process.seconds)}")
        self.screen.write_warnings(log_lines(process.log), process.log)

    def _output_paths(self, task: Task) -> dict[str, Path]:
        """Where each output artifact of a task lies."""
        folder = self.folder / task.name
        return {
            name: folder / (name + FILE_SUFFIXES.get(kind, ""))
            for name, kind in task.outputs.items()
        }

    def _input_paths(self, task: Task) -> dict[str, Path]:
        """Where each input artifact that was passed lies."""
        return {
            name: self._output_paths(self.plan[made.task])[made.artifact]
            for name, made in task.inputs.items()
        }

    def _fill_placeholders(self, task: Task, word: str) -> str:
        """A word of the command with the paths of artifacts, or the executor input, filled in."""
        filled = {"{{$}}": lambda: json.dumps(self._executor_input(task))}
        for direction, paths in (
            ("inputs", self._input_paths(task)),
            ("outputs", self._output_paths(task)),
        ):
            for name, path in paths.items():
                for part in ("path", "uri"):
                    placeholder = f"{{{{$.{direction}.artifacts['{name}'].{part}}}}}"
                    filled[placeholder] = path.__str__
        return PLACEHOLDER.sub(lambda match: filled[match[0]](), word)

    def _executor_input(self, task: Task) -> dict[str, Any]:
        """What KFP tells a container of its run."""
        kinds = {
            name: self.plan[made.task].outputs[made.artifact] for name, made in task.inputs.items()
        }
        return {
            "inputs": {
                "parameterValues": dict(task.parameters),
                "artifacts": _executor_artifacts(self._input_paths(task), kinds),
            },
            "outputs": {
                "artifacts": _executor_artifacts(self._output_paths(task), task.outputs),
                "outputFile": str(self.folder / task.name / "executor_output.json"),
            },
        }

    def show_results(self, names: set[str]) -> None:
        """Say where the pages of these tasks are, and under each its figures."""
        for task in (task for task in self.plan.values() if task.name in names):
            paths = self._output_paths(task)
            for page in paths_of_kind(task, paths, "system.HTML"):
                self.screen.write_line(f"{task.name}: {page}")
            for figures in paths_of_kind(task, paths, "system.Metrics"):
                self.screen.write_metrics_line(figures)


def paths_of_kind(task: Task, paths: Mapping[str, Path], kind: str) -> list[Path]:
    """Of the outputs of a task, those of a KFP type that have been written."""
    return [paths[n] for n, k in task.outputs.items() if k == kind and paths[n].is_file()]


def _without_flag(words: Sequence[str], flag: str) -> list[str]:
    """A command line without one flag and its value."""
    return [
        word
        for before, word in zip(["", *words], words, strict=False)
        if flag not in (before, word)
    ]


def _executor_artifacts(paths: Mapping[str, Path], kinds: Mapping[str, str]) -> dict[str, Any]:
    """Artifacts as KFP writes them in an executor input."""
    return {
        name: {
            "artifacts": [
                {
                    "name": name,
                    "type": {"schemaTitle": kinds[name], "schemaVersion": "0.0.1"},
                    "uri": str(path),
                    "metadata": {},
                }
            ]
        }
        for name, path in paths.items()
    }


def _keep_logs_alone(folder: Path) -> None:
    """Empty the folder of a task; the log of the last try gets a number, the first being 1."""
    logs = [path for path in folder.glob("log-*.txt") if path.stem[4:].isdecimal()]
    for path in folder.iterdir():
        if path.name == LOG_FILE:
            number = 1 + max((int(log.stem[4:]) for log in logs), default=0)
            path.rename(folder / f"log-{number}.txt")
        elif path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path not in logs:
            path.unlink()


def _format_duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if seconds >= 100 else f"{seconds:.1f} s"


def _prerequisites(task: Task) -> list[str]:
    """The tasks that must be done before this one."""
    return [made.task for made in task.inputs.values()] + list(task.after)


def _tasks_named(plan: Iterable[Task], name: str) -> set[str]:
    """The tasks of a step, or the one iteration of it that is named."""
    wanted = name.replace("-", "_")
    chosen = {task.name for task in plan if wanted in (task.step, task.name.replace("-", "_"))}
    if not chosen:
        steps = list(dict.fromkeys(task.step for task in plan))
        raise ValueError(f"this pipeline has no step {name!r}{suggestion(wanted, steps)}")
    return chosen


def _downstream(plan: Iterable[Task], chosen: set[str]) -> set[str]:
    """The chosen tasks and all that depend on them."""
    found = set(chosen)
    for task in plan:
        if found.intersection(_prerequisites(task)):
            found.add(task.name)
    return found


def _check_folder_of_runs(folder: Path) -> None:
    """Refuse a folder that holds what no run has left: a run empties those of its tasks.

    Raises:
        RunError: it does.
    """
    found = {path.name for path in folder.iterdir()}
    if found and not found & {LOCK_FILE, PIPELINE_FILE}:
        raise RunError(
            f"{folder} is not of a run: it holds {min(found)}, and no {PIPELINE_FILE}; choose"
            " another --name"
        )


def _check_no_container(folder: Path) -> None:
    """Refuse a folder that a container writes to, which outlived the run that started it.

    Raises:
        RunError: there may be one.
    """
    for mark in sorted(folder.glob(f"*/{CONTAINER_FILE}")):
        container = mark.read_text()[:12]
        raise RunError(
            f"container {container} of a run that was killed may still write to {mark.parent};"
            f" go on with --runner docker, or: docker rm --force {container}; rm {mark}"
        )


@contextmanager
def run_lock(folder: Path, source: str) -> Iterator[None]:
    """Keep other runs out of the folder; the lock ends with the process, however it ends.

    source: the compiled pipeline, which only the run that has the lock keeps there.
    """
    with (folder / LOCK_FILE).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise RunError(
                f"{folder} is in use by another run (process {file.read().strip()}); "
                "wait for it, or choose another --name"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        if source:
            write_file(folder / PIPELINE_FILE, source)
        yield
