"""The key of a task: a digest of everything that decides its result."""

import hashlib
import json
from collections.abc import Mapping, Sequence

from components.runner.ir import Task
from components.runner.store import Store
from components.storage.places import is_remote, local_path
from components.storage.sources import (
    STORE_PARAMETERS,
    file_versions,
    names_place,
    read_places,
)


def task_key(task: Task, store: Store, *, code: str, inputs: Mapping[str, str]) -> str:
    """The key of a task: a digest of settings, code and inputs, without the folder of the run.

    The place of checkpoints does not count. The place of textures, or of the features of several
    workers, counts only outside the store, as a user who names a place wants them there.

    Args:
        task: the task.
        store: the store of finished steps.
        code: the digest of the code that it runs.
        inputs: the digest of the content of each input artifact, and of what `finds_results_of`.
    """
    words = task.words
    for name in STORE_PARAMETERS:
        words = _without_flag(words, f"--{name.replace('_', '-')}")
    parts = _place_elsewhere("feature_parts", task, store)
    content = {
        "words": words,
        "parameters": {k: v for k, v in task.parameters.items() if k not in STORE_PARAMETERS},
        "destination": _place_elsewhere("destination", task, store),
        "places": {
            place.name: file_versions(place.uri, is_single=place.is_single)
            for place in read_places(task.parameters, task.step)
        },
        "env": task.env,
        "code": code,
        "inputs": inputs,
        **({"feature_parts": parts} if parts else {}),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def finds_results_of(task: Task) -> tuple[str, ...]:
    """The tasks whose results a task finds in a shared place: those before it that give no input.

    Textures are found by all that decides them, so it does not matter who made them. Features are
    found by their code too, which is not that of the task that joins them.
    """
    is_joining = names_place("feature_parts", task.parameters.get("feature_parts"))
    giving = {made.task for made in task.inputs.values()}
    return tuple(name for name in task.after if is_joining and name not in giving)


def _place_elsewhere(name: str, task: Task, store: Store) -> str:
    """A place to keep results in; empty where a task names none, or one in the store."""
    place = task.parameters.get(name)
    if not names_place(name, place):
        return ""
    is_elsewhere = is_remote(str(place)) or not store.holds(local_path(str(place)))
    return str(place) if is_elsewhere else ""


def _without_flag(words: Sequence[str], flag: str) -> tuple[str, ...]:
    """A command line without one flag and its value."""
    pairs = zip(["", *words], words, strict=False)
    return tuple(word for before, word in pairs if flag not in (before, word))
