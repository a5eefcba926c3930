"""The processes that torchrun starts for one step, one a GPU: who is first, and what all share.

    torchrun --nproc-per-node 2 -m components train_san ...

All of them train. The first alone decodes images, reads first weights, logs, keeps the state and
writes what the step makes. They share the files of one machine, so several machines are refused.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from components.process.machine import device
from components.process.torchrun import FirstRankFailed, is_first_rank
from components.storage.outputs import scratch_folder

if TYPE_CHECKING:
    from torch import nn

T = TypeVar("T")

# How long the others wait while the first decodes: torch's own patience is 10 minutes on GPUs.
BROADCAST_TIMEOUT = timedelta(days=1)


class _FailureMarker:
    """Told to the others instead of what could not be made."""


@dataclass(frozen=True)
class Ranks:
    """The processes of this step, joined by `process_group`.

    `gloo_group` is the group through which they tell each other things; None for one alone.
    """

    gloo_group: Any = None

    def make_on_first(self, make: Callable[[], T]) -> T:
        """What the first process makes, told to all; the others wait and make nothing.

        It must be small and picklable: a path, a fingerprint.

        Raises:
            Exception: what `make` raised, in the first process; FirstRankFailed in the others.
        """
        if self.gloo_group is None:
            return make()
        from torch import distributed

        if not is_first_rank():
            told: list[Any] = [None]
            distributed.broadcast_object_list(told, src=0, group=self.gloo_group)
            if isinstance(told[0], _FailureMarker):
                raise FirstRankFailed
            return told[0]  # type: ignore[no-any-return]
        try:
            made = make()
        except Exception:
            distributed.broadcast_object_list([_FailureMarker()], src=0, group=self.gloo_group)
            raise
        distributed.broadcast_object_list([made], src=0, group=self.gloo_group)
        return made

    def broadcast_weights(self, network: "nn.Module") -> None:
        """Give the first process's weights to all others' networks; those are on the CPU."""
        if self.gloo_group is None:
            return
        from torch import distributed

        for tensor in network.state_dict().values():
            distributed.broadcast(tensor, src=0, group=self.gloo_group)

    @contextmanager
    def shared_scratch_folder(self, path: Path) -> Iterator[Path]:
        """A directory beside `path`, the first process's own, that all see until it is done."""
        if is_first_rank():
            with scratch_folder(path) as room:
                yield self.make_on_first(lambda: room)
        else:
            yield self.make_on_first(lambda: path)


SINGLE_PROCESS = Ranks()


@contextmanager
def process_group() -> Iterator[Ranks]:
    """Join the processes torchrun started: nccl between GPUs, gloo between processors.

    NOTE nccl is not tested: no GPU was at hand.

    Raises:
        ValueError: they are on several machines, or more than there are GPUs.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield SINGLE_PROCESS
        return
    here = os.environ.get("LOCAL_WORLD_SIZE", "1")
    if int(here) != size:
        raise ValueError(
            f"{size} processes on several machines ({here} on this one): training shares files, so"
            " all must be on one; start it by torchrun --nproc-per-node alone"
        )
    import torch
    from torch import distributed

    place = device()
    if place.type == "cuda":
        torch.cuda.set_device(place)
    distributed.init_process_group("cpu:gloo,cuda:nccl" if place.type == "cuda" else "gloo")
    yield Ranks(distributed.new_group(backend="gloo", timeout=BROADCAST_TIMEOUT))
    # Not in a `finally`: after a failure the others wait for this one until torchrun ends them.
    distributed.destroy_process_group()
