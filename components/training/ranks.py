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

from components.process.machine import device, local_rank
from components.process.signals import FirstFailed
from components.storage.outputs import scratch

if TYPE_CHECKING:
    from torch import nn

T = TypeVar("T")

# The steps that share their work among several processes of one machine. The others use one GPU;
# textures are spread over GPUs by more workers.
SHARED = frozenset({"train_san", "train_san_pg"})
# How long the others wait while the first decodes: torch's own patience is 10 minutes on GPUs.
PATIENCE = timedelta(days=1)


def is_first() -> bool:
    """Whether this is the process that logs and writes; always so where there is one alone."""
    return local_rank() == 0


class _Failed:
    """Told to the others instead of what could not be made."""


def check_alone(step: str) -> None:
    """Raise ValueError if torchrun started several processes for a step that cannot share work."""
    if step in SHARED:
        return
    if "LOCAL_RANK" in os.environ and os.environ.get("WORLD_SIZE", "1") != "1":
        raise ValueError(
            f"torchrun started {os.environ['WORLD_SIZE']} processes, but {step} is the work of one:"
            " start it by python -m components"
        )


@dataclass(frozen=True)
class Ranks:
    """The processes of this step, joined by `together`; `waiting` is a process group, or None."""

    waiting: Any = None

    def of_first(self, make: Callable[[], T]) -> T:
        """What the first process makes, told to all; the others wait and make nothing.

        It must be small and picklable: a path, a fingerprint.

        Raises:
            Exception: what `make` raised, in the first process; FirstFailed in the others.
        """
        if self.waiting is None:
            return make()
        from torch import distributed

        if not is_first():
            told: list[Any] = [None]
            distributed.broadcast_object_list(told, src=0, group=self.waiting)
            if isinstance(told[0], _Failed):
                raise FirstFailed
            return told[0]  # type: ignore[no-any-return]
        try:
            made = make()
        except Exception:
            distributed.broadcast_object_list([_Failed()], src=0, group=self.waiting)
            raise
        distributed.broadcast_object_list([made], src=0, group=self.waiting)
        return made

    def share_weights(self, network: "nn.Module") -> None:
        """Give the first process's weights to all others' networks; those are on the CPU."""
        if self.waiting is None:
            return
        from torch import distributed

        for tensor in network.state_dict().values():
            distributed.broadcast(tensor, src=0, group=self.waiting)

    @contextmanager
    def scratch(self, path: Path) -> Iterator[Path]:
        """A directory beside `path`, the first process's own, that all see until it is done."""
        if is_first():
            with scratch(path) as room:
                yield self.of_first(lambda: room)
        else:
            yield self.of_first(lambda: path)


ALONE = Ranks()


@contextmanager
def together() -> Iterator[Ranks]:
    """Join the processes torchrun started: nccl between GPUs, gloo between processors.

    NOTE nccl is not tested: no GPU was at hand.

    Raises:
        ValueError: they are on several machines, or more than there are GPUs.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield ALONE
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
    yield Ranks(distributed.new_group(backend="gloo", timeout=PATIENCE))
    # Not in a `finally`: after a failure the others wait for this one until torchrun ends them.
    distributed.destroy_process_group()
