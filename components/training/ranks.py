"""The processes that torchrun starts for one step, one a GPU: who is first, and what all share.

    torchrun --nproc-per-node 2 -m components train_san ...

All of them train. The first alone decodes images, reads first weights, logs, keeps the state and
writes what the step makes. They share the files of one machine, so several machines are refused.
"""

import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

from components.process.machine import device
from components.process.scratch import scratch_folder
from components.process.torchrun import (
    FirstRankFailed,
    is_first_rank,
    local_process_count,
    process_count,
)

T = TypeVar("T")

# Without a word from one another for so long, processes take each other for lost. While the first
# makes what may take hours it says again and again that it is still there.
WORD_TIMEOUT = timedelta(minutes=5)
SECONDS_BETWEEN_WORDS = 20.0
# For a step of training the others wait longer: the first may validate, or keep a state in a slow
# store meanwhile.
TRAINING_TIMEOUT = timedelta(minutes=15)
_LOST = re.compile(
    r"[Tt]imed out|timeout|Connection (closed|reset|refused)|Broken pipe|Application timeout"
)


class _FailureMarker:
    """Told to the others instead of what could not be made."""


class _StillMaking:
    """Told to the others now and then until it is made."""


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
        if not is_first_rank():
            return self._wait_for_first()  # type: ignore[no-any-return]
        try:
            with self._words_of_life():
                made = make()
        except Exception:
            with suppress(RuntimeError):  # the others are lost: what could not be made says more
                self._tell(_FailureMarker())
            raise
        self._tell(made)
        return made

    def _wait_for_first(self) -> Any:
        """What the first process tells when it has made it.

        Raises:
            FirstRankFailed: it could not make it.
        """
        told: Any = _StillMaking()
        while isinstance(told, _StillMaking):
            told = self._tell(None)
        if isinstance(told, _FailureMarker):
            raise FirstRankFailed
        return told

    def _tell(self, word: Any) -> Any:
        """The word of the first process, in all of them."""
        from torch import distributed

        told = [word]
        distributed.broadcast_object_list(told, src=0, group=self.gloo_group)
        return told[0]

    @contextmanager
    def _words_of_life(self) -> Iterator[None]:
        """Within the block the others are told, by another thread, that this process is there."""
        is_made = threading.Event()

        def repeat() -> None:
            while not is_made.wait(SECONDS_BETWEEN_WORDS):
                self._tell(_StillMaking())

        with ThreadPoolExecutor(1) as pool:
            telling = pool.submit(repeat)
            try:
                yield
            finally:
                is_made.set()
        telling.result()  # raises if the others could not be told

    @contextmanager
    def shared_scratch_folder(self, path: Path) -> Iterator[Path]:
        """A scratch directory for making `path`, the first process's, which all see until then."""
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
        ConnectionError: one of them has ended, or says nothing for minutes. Where nccl misses one
            it ends the process itself, after the same time and with lines of its own.
    """
    size = process_count()
    if size == 1:
        yield SINGLE_PROCESS
        return
    here = local_process_count()
    if here != size:
        raise ValueError(
            f"{size} processes on several machines ({here} on this one): training shares files, so"
            " all must be on one; start it by torchrun --nproc-per-node alone"
        )
    import torch
    from torch import distributed

    place = device()
    if place.type == "cuda":
        torch.cuda.set_device(place)
    backend = "cpu:gloo,cuda:nccl" if place.type == "cuda" else "gloo"
    with _name_lost_processes():
        yield Ranks(_beside_signals(lambda: _meet(backend)))
    # Not in a `finally`: after a failure the others wait for this one until torchrun ends them.
    distributed.destroy_process_group()


def _meet(backend: str) -> Any:
    """Wait for the other processes; the group through which they tell each other things."""
    from torch import distributed

    distributed.init_process_group(backend, timeout=TRAINING_TIMEOUT)
    return distributed.new_group(backend="gloo", timeout=WORD_TIMEOUT)


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
def _name_lost_processes() -> Iterator[None]:
    """Say in one line that the processes have lost each other, instead of torch's many.

    Raises:
        ConnectionError: they have.
    """
    from torch import distributed

    try:
        yield
    except RuntimeError as error:
        is_gloo = "gloo" in str(error) and _LOST.search(str(error))
        if not is_gloo and not isinstance(error, distributed.DistError):
            raise
        raise ConnectionError(
            "the processes of this step have lost each other: one has ended, or has said nothing"
            " for minutes; why is among its lines, if it could tell. Run again, training goes on"
            f" from its checkpoint ({str(error).strip().splitlines()[0]})"
        ) from error
