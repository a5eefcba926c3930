"""Where the artifacts of a task lie, and how it is told: its words and KFP's executor input."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.runner.ir import PLACEHOLDER, Task

# What the name of an artifact of these types ends with, so that a browser opens it.
FILE_SUFFIXES = {
    "system.HTML": ".html",
    "system.Metrics": ".json",
    "system.ClassificationMetrics": ".json",
}


def output_paths(outputs: Mapping[str, str], folder: Path) -> dict[str, Path]:
    """Where each output artifact of a task lies, by the KFP types of all, in a folder of it."""
    return {name: folder / (name + FILE_SUFFIXES.get(kind, "")) for name, kind in outputs.items()}


def paths_of_kind(outputs: Mapping[str, str], folder: Path, kind: str) -> list[Path]:
    """Of the outputs of a task, those of a KFP type that have been written."""
    paths = output_paths(outputs, folder)
    return [paths[n] for n, k in outputs.items() if k == kind and paths[n].is_file()]


def filled_words(
    task: Task, folder: Path, inputs: Mapping[str, Path], kinds: Mapping[str, str]
) -> list[str]:
    """The command of a task, with paths of artifacts and the executor input filled in.

    Args:
        task: the task.
        folder: where it is made.
        inputs: where each input artifact that was passed lies.
        kinds: the KFP type of each.
    """
    outputs = output_paths(task.outputs, folder)
    told = {
        "inputs": {
            "parameterValues": dict(task.parameters),
            "artifacts": _executor_artifacts(inputs, kinds),
        },
        "outputs": {
            "artifacts": _executor_artifacts(outputs, task.outputs),
            "outputFile": str(folder / "executor_output.json"),
        },
    }
    filled = {"{{$}}": json.dumps(told)}
    for direction, paths in (("inputs", inputs), ("outputs", outputs)):
        for name, path in paths.items():
            for part in ("path", "uri"):
                filled[f"{{{{$.{direction}.artifacts['{name}'].{part}}}}}"] = str(path)
    return [PLACEHOLDER.sub(lambda match: filled[match[0]], word) for word in task.words]


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
