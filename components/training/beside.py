"""Files beside a checkpoint during training: the history, and a usable model."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from components.storage.checkpoint import Checkpoint
from components.storage.outputs import write_file
from san_core.model import weights
from san_core.model.saved import HISTORY_FILE, write_sums
from san_core.recipe import Recipe


class Beside:
    """Writes history and model beside the checkpoint of a training; nothing without a checkpoint.

    Args:
        checkpoint: the checkpoint.
        recipe: recipe of the network.
        facts: facts of the model, with num_classes.
        room: a local folder for temporary files.
    """

    def __init__(
        self, checkpoint: Checkpoint, recipe: Recipe, facts: Mapping[str, Any], *, room: Path
    ) -> None:
        self.checkpoint, self._recipe, self._facts = checkpoint, recipe, facts
        self._room = room / "beside"

    def keep_history(self, history: Sequence[Mapping[str, Any]]) -> None:
        """Write the history, a record per epoch."""
        self.checkpoint.keep_beside(HISTORY_FILE, history_lines(history))

    def keep_model(
        self,
        tensors: Mapping[str, Tensor],
        history: Sequence[Mapping[str, Any]],
        **facts: Any,
    ) -> None:
        """Write weights as a model that every step can read, with further facts."""
        if not self.checkpoint.is_kept:
            return
        told = {**self._facts, **facts}
        weights.save_weights(self._room, tensors, self._recipe, facts=told)
        write_file(self._room / HISTORY_FILE, history_lines(history))
        write_sums(self._room)
        self.checkpoint.keep_model(self._room)
        shutil.rmtree(self._room)


def history_lines(history: Sequence[Mapping[str, Any]]) -> str:
    """A history as JSON, a line per epoch."""
    return "".join(json.dumps(record) + "\n" for record in history)
