"""The state of unfinished training, kept so that a killed step goes on where it was.

A checkpoint belongs to one training run and no other: it lies in a folder named by everything that
decides the result (recipe, seed, inputs, code), so that no run revives another's.
The last state stays when training is done: if what was trained is lost on its way to storage, the
step that is run again has it within seconds. Delete the folder when it is not needed any more.
"""

import io
import logging
from collections.abc import Mapping
from typing import Any

import torch

from components.storage.places import open_storage
from components.storage.store import Storage
from san_core.images.shard import canonical_json, sha256

log = logging.getLogger(__name__)

_OBJECT_NAME = "state.pt"
_DIGEST_LENGTH = 64  # hexadecimal digits of a sha256


class Checkpoint:
    """Where one training run keeps its state; with an empty URI it keeps none.

    Args:
        uri: folder or URI under which the checkpoints of all runs lie.
        run_key: everything that decides what this run computes, as JSON.
    """

    def __init__(self, uri: str, run_key: Mapping[str, Any]) -> None:
        folder = sha256(canonical_json({**run_key, "torch": torch.__version__}))[:16]
        self._storage: Storage | None = open_storage(uri, folder) if uri else None

    def save(self, state: dict[str, Any]) -> None:
        """Keep the state; an older one is replaced, all or nothing."""
        if self._storage is None:
            return
        buffer = io.BytesIO()
        torch.save(state, buffer)
        data = buffer.getvalue()
        self._storage.put_bytes(_OBJECT_NAME, sha256(data).encode() + data)

    def load(self) -> dict[str, Any] | None:
        """The state kept last; None if there is none.

        Raises:
            ValueError: it is damaged.
        """
        if self._storage is None or self._storage.stat(_OBJECT_NAME) is None:
            return None
        stored = self._storage.get(_OBJECT_NAME)
        digest, data = stored[:_DIGEST_LENGTH], stored[_DIGEST_LENGTH:]
        if sha256(data).encode() != digest:
            raise ValueError(
                f"checkpoint {self._storage.uri}/{_OBJECT_NAME} is damaged; delete it to train anew"
            )
        state: dict[str, Any] = torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
        log.info("going on after epoch %s, from %s", state.get("epoch"), self._storage.uri)
        return state
