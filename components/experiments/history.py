"""The earlier results of a run of one name: `runs/NAME/history/1`, 2 and so on.

Each has the record of that run, with copies of its pages, metrics and reports, which stay when its
steps are pruned.
"""

import shutil
from pathlib import Path

from components.experiments.record import RUN_FILE, Run, read_run, readable_run
from components.runner.artifacts import output_paths
from components.storage.outputs import atomic_folder

HISTORY_FOLDER = "history"
_SHOWN_KINDS = ("system.HTML", "system.Metrics", "system.ClassificationMetrics")


def keep_former(folder: Path) -> None:
    """Keep the result of the last run in a folder, if it finished, before a new one replaces it."""
    former = read_run(folder)
    if former is None or former.record.state != "done":
        return
    kept = former_results(folder)
    if kept and kept[-1].record == former.record:  # by a run that was killed right after
        return
    number = 1 + max((int(one.name) for one in _numbered(folder)), default=0)
    with atomic_folder(folder / HISTORY_FOLDER / str(number)) as room:
        shutil.copyfile(folder / RUN_FILE, room / RUN_FILE)
        _copy_results(former, room)


def forget_equal(folder: Path) -> None:
    """Remove the newest earlier result if the run's own is the same."""
    run, kept = read_run(folder), former_results(folder)
    if run and kept and run.record.results == kept[-1].record.results:
        shutil.rmtree(kept[-1].folder)
        if not any((folder / HISTORY_FOLDER).iterdir()):
            (folder / HISTORY_FOLDER).rmdir()


def former_results(folder: Path) -> list[Run]:
    """The earlier results of a run, oldest first."""
    found = (readable_run(one) for one in sorted(_numbered(folder), key=lambda one: int(one.name)))
    return [run for run in found if run]


def _numbered(folder: Path) -> list[Path]:
    """The folders of all earlier results, including those with an unreadable record."""
    return [one for one in (folder / HISTORY_FOLDER).glob("*") if one.name.isdecimal()]


def _copy_results(run: Run, room: Path) -> None:
    """Copy pages, metrics, and all outputs of tasks on which no other depends."""
    taken = {task for each in run.record.tasks.values() for task, _ in each["inputs"].values()}
    for name, task in run.record.tasks.items():
        is_last = name not in taken and "system.HTML" in task["outputs"].values()
        for artifact, path in output_paths(task["outputs"], run.folder / name).items():
            if not path.exists() or not (is_last or task["outputs"][artifact] in _SHOWN_KINDS):
                continue
            (room / name).mkdir(exist_ok=True)
            copy = shutil.copytree if path.is_dir() else shutil.copyfile
            copy(path, room / name / path.name)
