"""Runs a compiled pipeline on this machine: one process a step, everything under one folder.

A task is done again only when what decides its result has changed: its settings, the code of its
step, the content of its inputs, or its outputs themselves. A failed or killed run goes on where it
stopped when it is started again. Tasks of one loop run side by side, all others one by one.
"""

import fcntl
import hashlib
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TextIO

from components.command.code import ROOT, code_fingerprint
from components.command.suggestion import suggestion
from components.process.compute_threads import SPIN_VARIABLES, thread_limits
from components.process.machine import core_count
from components.process.signals import Terminated, signal_handler
from components.runner import state
from components.runner.ir import PLACEHOLDER, Task, read_tasks
from components.runner.processes import (
    SECONDS_BETWEEN_LOOKS,
    Screen,
    TaskProcess,
    log_lines,
    stop_processes,
)
from components.storage.sources import SOURCE_PARAMETERS, file_versions

# What the name of an artifact of these types ends with, so that a browser opens it.
FILE_SUFFIXES = {
    "system.HTML": ".html",
    "system.Metrics": ".json",
    "system.ClassificationMetrics": ".json",
}


LOG_FILE = "log.txt"  # in a task's folder, what it has said


class RunError(Exception):
    """Why a run stopped, in words for the person who started it."""


def run_in_processes(
    document: Mapping[str, Any],
    arguments: Mapping[str, Any],
    *,
    folder: Path,
    start: str | None = None,
    only: str | None = None,
    verbose: bool = False,
    root: Path = ROOT,
    terminal: TextIO | None = None,
) -> None:
    """Run a compiled pipeline; what is unchanged since the last run in `folder` is skipped.

    Args:
        document: the compiled pipeline, as loaded from its YAML
        arguments: values of the pipeline's parameters
        folder: where each task gets a folder of its own
        start: a step that is run again whatever it finds, with all that depends on it
        only: the only step that is run, again whatever it finds
        verbose: whether to show what the steps log
        root: the folder that holds components/ and san_core/
        terminal: where lines go; by default standard output

    Raises:
        ValueError: the pipeline cannot be run here, an argument is missing, or there is no such
            step.
        RunError: a step failed, another run uses the folder, or `only` lacks an input.
        Terminated: SIGTERM arrived; the steps that were running are stopped.
        KeyboardInterrupt: Ctrl-C, likewise.
    """
    plan = read_tasks(document, arguments)
    named = start or only
    chosen = _tasks_named(plan, named) if named else set()
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    screen = Screen(terminal or sys.stdout, verbose=verbose)
    with run_lock(folder), signal_handler(_raise_terminated, signal.SIGTERM):
        current = _Run(plan, folder, root, screen)
        if only:
            current.run_only(chosen)
        else:
            current.run_stale(forced=_downstream(plan, chosen))
        current.show_results(chosen if only else set(current.plan))


class _Run:
    """One run: its tasks, their folders, and the digests of what they have made."""

    def __init__(self, plan: list[Task], folder: Path, root: Path, screen: Screen) -> None:
        self.plan = {task.name: task for task in plan}
        self.folder = folder
        self.root = root
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
            if needed.imported:
                self._record_import(needed)
            elif name not in chosen:
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
            if task.imported:
                self._record_import(task)
                continue
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
        threads = max(1, core_count() // len(group))
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
            "sources": [file_versions(task.parameters.get(name)) for name in SOURCE_PARAMETERS],
            "env": task.env,
            "code": code_fingerprint(_step_module(task), self.root),
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
        finally:
            stop_processes(running)

    def _launch(self, task: Task, threads: int) -> TaskProcess:
        """Start a task in a clean folder."""
        folder = self.folder / task.name
        (folder / state.STATE_FILE).unlink(missing_ok=True)  # first: what follows destroys outputs
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir()
        words = [self._fill_placeholders(task, word) for word in task.words]
        env = {**SPIN_VARIABLES, **os.environ, **thread_limits(threads), "PYTHONUNBUFFERED": "1"}
        env |= task.env
        return TaskProcess(task, [sys.executable, *words[1:]], folder / LOG_FILE, env, self.root)

    def _accept_result(self, process: TaskProcess, key: str) -> None:
        """Believe what a task wrote, if it ended well."""
        task = process.task
        process.send_signal(signal.SIGKILL)  # to what it started and left behind
        if process.status != 0:
            raise RunError(process.failure_message())
        try:
            done = state.record_state(self.folder / task.name, key, self._output_paths(task))
        except FileNotFoundError as error:
            raise RunError(f"{task.name} ended well, but {error}\n  log: {process.log}") from error
        self.digests[task.name] = done.digests
        self.screen.write_line(f"{task.name} ... done in {_format_duration(process.seconds)}")
        self.screen.write_warnings(log_lines(process.log), process.log)

    def _record_import(self, task: Task) -> None:
        """Take in a folder or file that somebody has; it is read anew only if it has changed."""
        outputs = self._output_paths(task)
        folder, key = self.folder / task.name, str(task.imported)
        found = state.read_state(folder)
        if found is None or found.key != key or not state.outputs_unchanged(found, outputs):
            try:
                found = state.record_state(folder, key, outputs)
            except FileNotFoundError as error:
                raise RunError(f"{task.name} imports what does not exist: {key}") from error
        self.digests[task.name] = found.digests

    def _output_paths(self, task: Task) -> dict[str, Path]:
        """Where each output artifact of a task lies."""
        if task.imported:
            return dict.fromkeys(task.outputs, task.imported)
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


def _step_module(task: Task) -> str:
    """The module of the step that a task's command runs."""
    if task.words[:3] != ("python", "-m", "components") or len(task.words) < 4:
        raise ValueError(
            f"task {task.name} runs {' '.join(task.words[:4])}; here only "
            "`python -m components STEP` can be run"
        )
    return f"components.{task.words[3]}"


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
        steps = list(dict.fromkeys(task.step for task in plan if not task.imported))
        raise ValueError(f"this pipeline has no step {name!r}{suggestion(wanted, steps)}")
    return chosen


def _downstream(plan: Iterable[Task], chosen: set[str]) -> set[str]:
    """The chosen tasks and all that depend on them."""
    found = set(chosen)
    for task in plan:
        if found.intersection(_prerequisites(task)):
            found.add(task.name)
    return found


@contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Keep other runs out of the folder; the lock ends with the process, however it ends."""
    with (folder / ".lock").open("a+") as file:
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
        yield


def _raise_terminated(_signal: int, _frame: FrameType | None) -> NoReturn:
    """On SIGTERM the running steps are stopped on the way out."""
    raise Terminated
