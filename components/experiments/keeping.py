"""The record that a run writes of itself, beside its results."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from time import time

from components.experiments import history
from components.experiments.index import write_index
from components.experiments.record import (
    Request,
    State,
    begun_record,
    results_in,
    write_record,
)
from components.process.messages import os_error_message
from components.process.signals import Terminated
from components.runner.folder import PIPELINE_FILE
from components.runner.ir import Task
from components.runner.store import Store
from components.storage.outputs import write_file

log = logging.getLogger(__name__)


@contextmanager
def recorded(
    plan: Sequence[Task], *, folder: Path, request: Request, source: str
) -> Iterator[Callable[[str], None]]:
    """Record the run in the block, and update the index after it.

    The block gets a function that marks a task's result as current. Other tasks still link to
    results of earlier requests, which are not shown for this run.

    Args:
        plan: its tasks.
        folder: its folder, which no other run uses meanwhile.
        request: the request.
        source: the compiled pipeline, written to pipeline.yaml.
    """
    history.keep_former(folder)
    begun = begun_record(request, plan)
    write_file(folder / PIPELINE_FILE, source)
    write_record(folder, begun)
    tasks, current = {task.name for task in plan}, begun.current

    def note(task: str) -> None:
        current.append(task)
        write_record(folder, begun)

    state: State = "failed"
    try:
        yield note
        state = "done" if tasks.issubset(current) else "partial"
    except (KeyboardInterrupt, Terminated):
        state = "stopped"
        raise
    finally:
        results = results_in(folder, begun.tasks) if state == "done" else {}
        write_record(folder, replace(begun, state=state, ended=time(), results=results))
        if state == "done":
            _unlink_others(folder, tasks)
            history.forget_equal(folder)
        _renew_index(folder.parent)


def _unlink_others(folder: Path, tasks: set[str]) -> None:
    """Remove the links of tasks that this run does not have, which are of an earlier graph."""
    store = Store.of_runs(folder.parent)
    for link in folder.iterdir():
        if link.is_symlink() and link.name not in tasks and store.holds(link):
            link.unlink()


def _renew_index(runs: Path) -> None:
    try:
        with Store.of_runs(runs).locked():
            write_index(runs)
    except OSError as error:
        log.warning("the index of the runs was not updated: %s", os_error_message(error))
