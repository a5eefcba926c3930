"""Runs of a made-up graph, written as the runner leaves them, within milliseconds."""

import hashlib
import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from components.experiments.keeping import recorded
from components.experiments.record import Request
from components.runner import state
from components.runner.artifacts import output_paths
from components.runner.ir import Task, TaskOutput
from components.runner.store import Store

DATA = Task(
    "prepare_reid", "prepare_reid", ("python",), outputs={"reid": "system.Dataset"}, parameters={}
)
SCORED = Task(
    "evaluate",
    "evaluate",
    ("python",),
    inputs={"dataset": TaskOutput("prepare_reid", "reid")},
    outputs={
        "report": "system.Dataset",
        "report_page": "system.HTML",
        "scores": "system.Metrics",
    },
)
PLAN = (DATA, SCORED)


# What writes an output of a task, by its name, into a folder.
Fill = Callable[[str, Path], None]


def make_run(
    folder: Path,
    figures: Mapping[str, float],
    *,
    fails: bool = False,
    only: str = "",
    fill: Fill | None = None,
    **parameters: Any,
) -> None:
    """A run whose last step has these figures, or fails; or one that makes only one step."""
    request = Request("baseline", {"seed": 0, **parameters}, "process", "san:{target}")
    folder.mkdir(parents=True, exist_ok=True)
    with recorded(PLAN, folder=folder, request=request, source="pipelineInfo: {}\n") as note:
        store = Store.of_runs(folder.parent)
        for task in (one for one in PLAN if only in ("", one.name)):
            if fails and task is SCORED:
                raise ValueError("it fails")
            told = {"task": task.name, **(figures if task is SCORED else {})}
            key = hashlib.sha256(json.dumps(told).encode()).hexdigest()
            outputs = partial(output_paths, task.outputs)
            if not store.take(task.step, key, link=folder / task.name, outputs=outputs):
                _finish(store, task, key, folder / task.name, fill or _content(figures), figures)
            note(task.name)


def _content(figures: Mapping[str, float]) -> Fill:
    return lambda _, folder: (folder / "content.json").write_text(json.dumps(dict(figures)))


def _finish(
    store: Store, task: Task, key: str, link: Path, fill: Fill, figures: Mapping[str, float]
) -> None:
    making = store.try_making(task.step, key)
    made = store.begin(task.step, key, link=link)
    paths = output_paths(task.outputs, made)
    for name, path in paths.items():
        if name in ("report_page", "scores"):
            path.write_text(json.dumps(dict(figures)))
        else:
            path.mkdir()
            fill(name, path)
    state.record_state(made, key, paths)
    making.release()
