"""The processes that torchrun starts for one step, one a GPU: who is first, and what all share.

    torchrun --nproc-per-node 2 -m components train_san ...
    torchrun --nnodes 2 --node-rank 0 --master-addr HOST -m components train_san ...

All of them train. The first of each node stages and decodes for its node; the first of all reads
first weights, logs, keeps the state and writes what the step makes. Heartbeats tell who is still
there, and why whoever failed has ended.
"""

import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

from components.process.machine import device
from components.process.scratch import scratch_folder
from components.process.torchrun import (
    is_first_of_node,
    is_first_rank,
    node_rank,
    process_count,
)
from components.training.heartbeats import Heartbeats, advise, beating

T = TypeVar("T")

# How long a step of training may take in one process while the others wait: the first may validate,
# or keep a state in a slow store meanwhile.
TRAINING_TIMEOUT = timedelta(minutes=15)
# What is made for others may take hours. Heartbeats tell who is lost meanwhile.
MAKING_TIMEOUT = timedelta(days=7)
_LOST = re.compile(
    r"[Tt]imed out|timeout|Connection (closed|reset|refused)|Broken pipe|Application timeout"
)


@dataclass(frozen=True)
class Ranks:
    """The processes of this step, joined by `process_group`.

    `gloo_group` is the group through which they tell each other things; None for one alone.
    """

    gloo_group: Any = None

    def make_on_first(self, make: Callable[[], T]) -> T:
        """What the first process makes, told to all; the others wait and make nothing.

        It must be small and picklable: a path, a fingerprint. Where `make` raises, the error ends
        the first process, and heartbeats end the others.
        """
        return self.gather(make() if is_first_rank() else None)[0]  # type: ignore[return-value]

    def make_on_each_node(self, make: Callable[[], T]) -> T:
        """What the first process of this node makes, told to all of the node; all nodes wait.

        As for `make_on_first`.
        """
        told = self.gather((node_rank(), make()) if is_first_of_node() else None)
        return next(word[1] for word in told if word and word[0] == node_rank())

    def gather(self, word: T) -> list[T]:
        """The words of all processes, by their ranks; they must be small and picklable."""
        if self.gloo_group is None:
            return [word]
        from torch import distributed

        words: list[Any] = [None] * process_count()
        _beside_signals(lambda: distributed.all_gather_object(words, word, group=self.gloo_group))
        return words

    @contextmanager
    def scratch_folder_of_node(self, path: Path) -> Iterator[Path]:
        """A scratch directory of this node for making `path`, for its processes until then."""
        if is_first_of_node():
            with scratch_folder(path) as room:
                yield self.make_on_each_node(lambda: room)
        else:
            yield self.make_on_each_node(lambda: path)


SINGLE_PROCESS = Ranks()


@contextmanager
def process_group(step: str, *, keeps_state: bool) -> Iterator[Ranks]:
    """Join the processes torchrun started for a step: nccl between GPUs, gloo between processors.

    NOTE nccl is not tested: no GPU was at hand.

    Args:
        step: its name.
        keeps_state: whether there is a checkpoint that training can go on from.

    Raises:
        ValueError: there are more of them here than GPUs.
        ConnectionError: one of them is lost, which the message names, or has failed. Where a wait
            inside torch cannot be interrupted, this process ends there and then, with that line.
    """
    if process_count() == 1:
        yield SINGLE_PROCESS
        return
    import torch
    from torch import distributed

    place = device()
    if place.type == "cuda":
        torch.cuda.set_device(place)
    backend = "cpu:gloo,cuda:nccl" if place.type == "cuda" else "gloo"
    advice = advise(keeps_state=keeps_state)
    with beating(step, keeps_state=keeps_state) as beats, _name_lost_processes(beats, advice):
        yield Ranks(_beside_signals(lambda: _meet(backend)))
    # Not in a `finally`: after a failure the others wait for this one until torchrun ends them.
    distributed.destroy_process_group()


def _meet(backend: str) -> Any:
    """Wait for the other processes; the group through which they tell each other things."""
    from torch import distributed

    distributed.init_process_group(backend, timeout=TRAINING_TIMEOUT)
    return distributed.new_group(backend="gloo", timeout=MAKING_TIMEOUT)


def _beside_signals(wait: Callable[[], T]) -> T:
    """What `wait` returns, from a thread: Python hears no signal while torch waits for a peer."""
    done: Future[T] = Future()

    def run() -> None:
        try:
            done.set_result(wait())
        except BaseException as error:
            done.set_exception(error)

    threading.Thread(target=run, daemon=True).start()  # not waited for if a signal comes
    return done.result()


@contextmanager
def _name_lost_processes(beats: Heartbeats, advice: str) -> Iterator[None]:
    """Say in one line who is lost, instead of torch's many that the processes cannot talk.

    Raises:
        ConnectionError: they cannot.
    """
    from torch import distributed

    try:
        yield
    except RuntimeError as error:
        is_gloo = "gloo" in str(error) and _LOST.search(str(error))
        if not is_gloo and not isinstance(error, distributed.DistError):
            raise
        told = str(error).strip().splitlines()[0]
        raise ConnectionError(
            beats.explain_loss()
            or f"the processes of this step have lost each other ({told}). {advice}"
        ) from error
