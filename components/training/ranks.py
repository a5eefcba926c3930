"""The processes that torchrun starts for one step, one per GPU, and how they share values.

    torchrun --nproc-per-node 2 -m components train_san ...
    torchrun --nnodes 2 --node-rank 0 --master-addr HOST -m components train_san ...

All of them train. The first process of each node stages and decodes for its node. The first process
of all reads initial weights, logs, saves the state and writes the outputs. Heartbeats detect lost
processes and report why a process failed.
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

# The others wait this long for one process in a training step: the first may validate, or save its
# state to a slow store.
TRAINING_TIMEOUT = timedelta(minutes=15)
# What one process makes for others may take hours. Heartbeats detect losses meanwhile.
MAKING_TIMEOUT = timedelta(days=7)
_LOST = re.compile(
    r"[Tt]imed out|timeout|Connection (closed|reset|refused)|Broken pipe|Application timeout"
)


@dataclass(frozen=True)
class Ranks:
    """The processes of this step, joined by `process_group`.

    gloo_group: the group in which they exchange Python objects; None for a single process.
    """

    gloo_group: Any = None

    def make_on_first(self, make: Callable[[], T]) -> T:
        """Call `make` in the first process and return its result in all; the others wait.

        The result must be small and picklable: a path or a fingerprint, for example. An error in
        `make` ends the first process, and heartbeats end the others.
        """
        return self.gather(make() if is_first_rank() else None)[0]  # type: ignore[return-value]

    def make_on_each_node(self, make: Callable[[], T]) -> T:
        """Call `make` in the first process of each node and return its result in all of this node.

        All nodes wait. Results and errors are treated as in `make_on_first`.
        """
        told = self.gather((node_rank(), make()) if is_first_of_node() else None)
        return next(word[1] for word in told if word and word[0] == node_rank())

    def gather(self, word: T) -> list[T]:
        """The values of all processes in the order of ranks; they must be small and picklable."""
        if self.gloo_group is None:
            return [word]
        from torch import distributed

        words: list[Any] = [None] * process_count()
        _beside_signals(lambda: distributed.all_gather_object(words, word, group=self.gloo_group))
        return words

    @contextmanager
    def scratch_folder_of_node(self, path: Path) -> Iterator[Path]:
        """A scratch folder for writing `path`, shared by the processes of this node."""
        if is_first_of_node():
            with scratch_folder(path) as room:
                yield self.make_on_each_node(lambda: room)
        else:
            yield self.make_on_each_node(lambda: path)


SINGLE_PROCESS = Ranks()


@contextmanager
def process_group(step: str, *, keeps_state: bool) -> Iterator[Ranks]:
    """Join the processes that torchrun started for a step: nccl on GPUs, gloo on CPUs.

    NOTE nccl is not tested: no GPU was available.

    Args:
        step: the name of the step.
        keeps_state: whether there is a checkpoint from which training can resume.

    Raises:
        ValueError: this node has more processes than GPUs.
        ConnectionError: a process is lost or has failed; the message names it. If this process
            waits inside torch and cannot be interrupted, it ends at once with the same line.
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
    """Wait for the other processes; return the group in which they exchange objects."""
    from torch import distributed

    distributed.init_process_group(backend, timeout=TRAINING_TIMEOUT)
    return distributed.new_group(backend="gloo", timeout=MAKING_TIMEOUT)


def _beside_signals(wait: Callable[[], T]) -> T:
    """The result of `wait`, run in a thread: a main thread inside torch handles no signals."""
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
    """Replace torch's long connection errors by one line that names the lost process.

    Raises:
        ConnectionError: the processes have lost their connection.
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
