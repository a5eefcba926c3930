"""What decides the result of a task, as one digest."""

import hashlib
import json
from collections.abc import Mapping, Sequence

from components.runner.ir import Task
from components.runner.store import Store
from components.storage.places import is_remote, local_path
from components.storage.sources import STORE_PARAMETERS, file_versions, read_places


def task_key(task: Task, store: Store, *, code: str, inputs: Mapping[str, str]) -> str:
    """The key of a task: settings, code and inputs, and no folder of a run.

    Where states of training are kept decides nothing. Where textures are kept does only outside of
    the store: whoever names a place wants them there.

    Args:
        task: the task.
        store: of finished steps.
        code: what stands for the code that it runs.
        inputs: the digest of the content of each input artifact.
    """
    kept = str(task.parameters.get("destination") or "")
    is_elsewhere = bool(kept) and (is_remote(kept) or not store.holds(local_path(kept)))
    words = task.words
    for name in STORE_PARAMETERS:
        words = _without_flag(words, f"--{name}")
    content = {
        "words": words,
        "parameters": {k: v for k, v in task.parameters.items() if k not in STORE_PARAMETERS},
        "destination": kept if is_elsewhere else "",
        "places": {
            place.name: file_versions(place.uri, is_single=place.is_single)
            for place in read_places(task.parameters, task.step)
        },
        "env": task.env,
        "code": code,
        "inputs": inputs,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _without_flag(words: Sequence[str], flag: str) -> tuple[str, ...]:
    """A command line without one flag and its value."""
    pairs = zip(["", *words], words, strict=False)
    return tuple(word for before, word in pairs if flag not in (before, word))
