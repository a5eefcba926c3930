"""The paths of a task's artifacts, and how it gets them: its words and KFP's executor input."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.runner.ir import PLACEHOLDER, Task

# The file suffix of artifacts of these types, so that a browser opens them.
FILE_SUFFIXES = {
    "system.HTML": ".html",
    "system.Metrics": ".json",
    "system.ClassificationMetrics": ".json",
}


def output_paths(outputs: Mapping[str, str], folder: Path) -> dict[str, Path]:
    """The path of each output artifact of a task in its folder, given their KFP types."""
    return {name: folder / (name + FILE_SUFFIXES.get(kind, "")) for name, kind in outputs.items()}


def paths_of_kind(outputs: Mapping[str, str], folder: Path, kind: str) -> list[Path]:
    """The outputs of a task that are of a KFP type and have been written."""
    paths = output_paths(outputs, folder)
    return [paths[n] for n, k in outputs.items() if k == kind and paths[n].is_file()]


def filled_words(
    task: Task, folder: Path, inputs: Mapping[str, Path], kinds: Mapping[str, str]
) -> list[str]:
    """The command of a task, with paths of artifacts and the executor input filled in.

    Args:
        task: the task.
        folder: its folder.
        inputs: the path of each input artifact that was passed.
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
    """Artifacts in the form of KFP's executor input."""
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
