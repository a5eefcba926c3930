"""Runs a compiled pipeline on this machine.

For each task, a launcher starts a process (`components.runner.processes`) or a container
(`components.runner.containers`).

A task runs only if no finished task has the same key, a digest of its settings, the code of its
step and the content of its inputs (`components.runner.keys`). One store has the finished tasks of
all runs (`components.runner.store`), and the folder of a run has links to its own. When a failed or
killed run is started again, it continues where it stopped. Tasks of one loop run in parallel, all
others one by one.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TextIO

from components.command.suggestion import suggestion
from components.process.machine import core_count
from components.process.signals import STOP_SIGNALS, defer_stop, raise_terminated, signal_handler
from components.runner import state
from components.runner.artifacts import filled_words, output_paths, paths_of_kind
from components.runner.folder import RunError, check_folder_of_runs, check_no_container, run_lock
from components.runner.ir import Task, read_tasks
from components.runner.keys import finds_results_of, task_key
from components.runner.processes import (
    LOG_FILE,
    SECONDS_BETWEEN_LOOKS,
    TaskProcess,
    log_lines,
    stop_processes,
)
from components.runner.screen import Screen
from components.runner.store import Making, Store
from components.storage.places import real_path


class Launcher(Protocol):
    """Starts tasks."""

    def prepare(self, plan: Iterable[Task], /) -> None:
        """Check the requirements of the tasks of a run, and remove leftovers of a killed run."""

    def code_of(self, task: Task) -> str:
        """The digest of the code that a task runs, a part of its key."""

    def launch(
        self, task: Task, words: Sequence[str], folder: Path, *, threads: int
    ) -> TaskProcess:
        """Start a task with this number of threads; its log goes into its folder."""


# Called for each task whose result is current.
Note = Callable[[str], None]
# A context that records a run, given its tasks, while the run has locked its folder.
Record = Callable[[Sequence[Task]], AbstractContextManager[Note]]


def run_pipeline(
    document: Mapping[str, Any],
    arguments: Mapping[str, Any],
    *,
    folder: Path,
    launcher: Launcher,
    record: Record | None = None,
    start: str | None = None,
    only: str | None = None,
    verbose: bool = False,
    terminal: TextIO | None = None,
) -> None:
    """Run a compiled pipeline; tasks that are finished with the same key are skipped.

    Args:
        document: the compiled pipeline, as loaded from its YAML
        arguments: values of the pipeline's parameters
        folder: folder of the run, which gets a link per task; the store is beside it
        launcher: starts the tasks
        record: records the run
        start: a step to run again even if it is finished, with all steps that depend on it
        only: the only step to run, even if it is finished
        verbose: whether to show the logs of the steps
        terminal: the stream for lines; by default standard output

    Raises:
        ValueError: the pipeline cannot be run here, an argument is missing, or a step is unknown.
        RunError: a step failed, another run or a container of a killed run uses the folder, the
            folder is not of a run, or `only` lacks an input.
        Terminated: SIGTERM or SIGHUP arrived; the running steps were stopped.
        KeyboardInterrupt: Ctrl-C, likewise.
    """
    plan = read_tasks(document, arguments)
    for task in plan:
        if task.imported:
            raise ValueError(f"task {task.name} imports an artifact, which is not supported here")
    named = start or only
    chosen = _tasks_named(plan, named) if named else set()
    folder = real_path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    check_folder_of_runs(folder)
    screen = Screen(terminal, verbose=verbose)
    recorded = record or (lambda _: nullcontext(lambda _: None))
    stoppable = signal_handler(raise_terminated, *STOP_SIGNALS)
    with run_lock(folder), stoppable, recorded(plan) as note:
        launcher.prepare(plan)
        check_no_container(folder)
        current = _Run(plan, folder, launcher, screen, note)
        if only:
            current.run_only(chosen)
        else:
            current.run_stale(forced=_downstream(plan, chosen))
        current.show_results(chosen if only else set(current.plan))


class _Wanted(NamedTuple):
    """A task to run."""

    task: Task
    key: str
    is_forced: bool


class _Run:
    """One run: its tasks, their folders, and the digests of their outputs."""

    def __init__(
        self, plan: list[Task], folder: Path, launcher: Launcher, screen: Screen, note: Note
    ) -> None:
        self.plan = {task.name: task for task in plan}
        self.task_counts = Counter(task.step for task in plan)
        self.folder = folder
        self.launcher = launcher
        self.screen = screen
        self.note = note
        self.store = Store.of_runs(folder.parent)
        self.digests: dict[str, dict[str, str]] = {}
        self.hides_former = False
        screen.number_steps(task.step for task in plan)

    def run_stale(self, *, forced: set[str]) -> None:
        """Run every task that is not finished, and those in `forced`."""
        self.hides_former = True
        for _, group in groupby(self.plan.values(), key=lambda task: task.step):
            self._run_stale_tasks(list(group), forced)

    def run_only(self, chosen: set[str]) -> None:
        """Run the chosen tasks; their inputs must be finished."""
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
                        f"{name} ... kept, although its settings or code have changed"
                    )
        self._run_stale_tasks(group, chosen)
        self._note_all_but(chosen)

    def _note_all_but(self, chosen: set[str]) -> None:
        """Record the other tasks that are current; name those that are out of date."""
        later = _downstream(self.plan.values(), chosen)
        for name, task in self.plan.items():
            if name in chosen:
                continue
            if self._is_as_asked(task):
                self.note(name)
            elif self.digests.pop(name, None) and name in later:
                self.screen.write_line(
                    f"{name} ... is out of date, from earlier inputs or settings; run without"
                    " --only to renew"
                )

    def _is_as_asked(self, task: Task) -> bool:
        """Whether the present result of a task is the one that this run would make."""
        found = state.read_state(self.folder / task.name)
        if found is None or not self._has_input_digests(task):
            return False
        try:
            key = self._task_key(task)
        except (OSError, ValueError):  # in a place that this run did not need
            return False
        return found.key == key and state.outputs_unchanged(found, self._output_paths(task))

    def _run_stale_tasks(self, group: list[Task], forced: set[str]) -> None:
        """Run the tasks of one step: all its iterations, if it is in a loop."""
        wanted = [_Wanted(task, self._task_key(task), task.name in forced) for task in group]
        wanted = [one for one in wanted if one.is_forced or not self._take_finished(one)]
        # Divided by all tasks of the step, not only by those to run: the number of threads can
        # change the last digit of a sum, and a resumed run must give the same result.
        threads = max(1, core_count() // self.task_counts[group[0].step])
        self._run_side_by_side(wanted, threads=threads)

    def _has_input_digests(self, task: Task) -> bool:
        """Whether the digest of every input is known."""
        return all(
            made.artifact in self.digests.get(made.task, {}) for made in task.inputs.values()
        ) and all(name in self.digests for name in finds_results_of(task))

    def _take_finished(self, wanted: _Wanted) -> bool:
        """Link a finished folder of the same key, if there is one; return whether there is."""
        task, link = wanted.task, self.folder / wanted.task.name
        former = self._former_link(task.name)
        before = real_path(former if former.is_symlink() else link)
        found = self.store.take(
            task.step, wanted.key, link=link, outputs=partial(output_paths, task.outputs)
        )
        if found is None or found.state.remote:  # nothing here has checked remote objects
            return False
        former.unlink(missing_ok=True)
        self.digests[task.name] = found.state.digests
        self.note(task.name)
        how = "skipped (unchanged)" if found.folder == before else "skipped (found in the store)"
        self.screen.write_line(f"{task.name} ... {how}")
        self.screen.write_warnings(log_lines(link / LOG_FILE), link / LOG_FILE)
        return True

    def _task_key(self, task: Task) -> str:
        """The key of a task."""
        inputs = {
            name: self.digests[made.task][made.artifact] for name, made in task.inputs.items()
        }
        for before in finds_results_of(task):
            inputs |= {f"{before} {name}": told for name, told in self.digests[before].items()}
        return task_key(task, self.store, code=self.launcher.code_of(task), inputs=inputs)

    def _run_side_by_side(self, waiting: list[_Wanted], *, threads: int) -> None:
        """Run tasks in parallel, at most one per core; stop all if one fails."""
        running: dict[TaskProcess, tuple[_Wanted, Making]] = {}
        try:
            while waiting or running:
                waiting = [
                    one
                    for one in waiting
                    if len(running) >= core_count() or not self._begin(one, running, threads)
                ]
                time.sleep(SECONDS_BETWEEN_LOOKS)
                ended = [one for one in running if one.has_ended()]
                self.screen.show_logs(
                    list(running)
                )  # after the check, so that the last lines are shown
                for process in ended:
                    wanted, making = running.pop(process)
                    try:
                        self._accept_result(process, wanted.key)
                    finally:
                        making.release()
        except BaseException:
            with defer_stop():  # the terminal may be closed after Ctrl-C or a failure
                stop_processes(list(running))
                for _, making in running.values():
                    making.release()
            raise

    def _begin(
        self, wanted: _Wanted, running: dict[TaskProcess, tuple[_Wanted, Making]], threads: int
    ) -> bool:
        """Start a task, or link it if it is finished now; False while another run makes it."""
        task = wanted.task
        making = self.store.try_making(task.step, wanted.key)
        if isinstance(making, int):
            waits = f"waits for another run (process {making}) that makes the same result"
            self.screen.show_progress(task.step, task.name, waits)
            return False
        try:
            if wanted.is_forced or not self._take_finished(wanted):
                running[self._launch(wanted, threads)] = wanted, making
                return True
        except BaseException:
            making.release()
            raise
        making.release()
        return True

    def _launch(self, wanted: _Wanted, threads: int) -> TaskProcess:
        """Start a task in a folder that has only the logs of earlier attempts."""
        task, link = wanted.task, self.folder / wanted.task.name
        folder = self.store.begin(task.step, wanted.key, link=link)
        if self.hides_former:
            self._hide_former_results(task.name)
        inputs = {
            name: self._output_paths(self.plan[made.task])[made.artifact]
            for name, made in task.inputs.items()
        }
        kinds = {
            name: self.plan[made.task].outputs[made.artifact] for name, made in task.inputs.items()
        }
        words = filled_words(task, folder, inputs, kinds)
        return self.launcher.launch(task, words, link, threads=threads)

    def _hide_former_results(self, name: str) -> None:
        """Hide the results of later tasks until they are found to be current.

        If the run fails before that, nobody opens a page of earlier settings by mistake.
        """
        self._former_link(name).unlink(missing_ok=True)
        for later in _downstream(self.plan.values(), {name}) - {name}:
            link = self.folder / later
            if link.is_symlink() and state.read_state(real_path(link)):
                link.rename(self._former_link(later))

    def _former_link(self, name: str) -> Path:
        """The path of the link to a hidden earlier result of a task."""
        return self.folder / f".{name}.former"

    def _accept_result(self, process: TaskProcess, key: str) -> None:
        """Accept the outputs of a task, if it succeeded."""
        task = process.task
        process.clean_up()
        if process.status != 0:
            raise RunError(process.failure_message())
        folder = real_path(self.folder / task.name)
        try:
            done = state.record_state(folder, key, self._output_paths(task))
        except (FileNotFoundError, ValueError) as error:
            raise RunError(f"{task.name} succeeded, but {error}\n  log: {process.log}") from error
        self.store.replace_former(folder)
        self.digests[task.name] = done.digests
        self.note(task.name)
        self.screen.write_line(f"{task.name} ... done in {_format_duration(process.seconds)}")
        self.screen.write_warnings(log_lines(process.log), process.log)

    def _output_paths(self, task: Task) -> dict[str, Path]:
        """The path in the store of each output artifact of a task."""
        return output_paths(task.outputs, real_path(self.folder / task.name))

    def show_results(self, names: set[str]) -> None:
        """Print the paths of these tasks' pages, each followed by its metrics."""
        for task in (task for task in self.plan.values() if task.name in names):
            folder = self.folder / task.name
            for page in paths_of_kind(task.outputs, folder, "system.HTML"):
                self.screen.write_line(f"{task.name}: {page}")
            for figures in paths_of_kind(task.outputs, folder, "system.Metrics"):
                self.screen.write_metrics_line(figures)


def _format_duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if seconds >= 100 else f"{seconds:.1f} s"


def _prerequisites(task: Task) -> list[str]:
    """The tasks that must finish before this one."""
    return [made.task for made in task.inputs.values()] + list(task.after)


def _tasks_named(plan: Iterable[Task], name: str) -> set[str]:
    """The tasks of a step, or its one named iteration."""
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
