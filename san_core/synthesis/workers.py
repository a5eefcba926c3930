"""Makes identities in several processes: in order, and with the same bytes as in one process."""

import functools
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import NamedTuple, TypeVar

from threadpoolctl import threadpool_limits

from san_core.synthesis.person.body import use_body
from san_core.synthesis.person.skirt import check_leg_charts
from san_core.synthesis.spec import Spec

S = TypeVar("S", bound=Spec)
T = TypeVar("T")


class WorkerMemory(NamedTuple):
    """Bytes of memory for each worker process, and for the process that distributes the work."""

    each: int
    beside: int


def worker_memory(image_size: tuple[int, int]) -> WorkerMemory:
    """The memory that `map_identities` needs for pictures of that size.

    Measured from 256x128 to 1024x512 pixels: 84 to 107 MiB per worker, and 56 to 121 MiB for the
    main process.
    """
    of_pictures = 64 * image_size[0] * image_size[1]
    return WorkerMemory((96 << 20) + of_pictures, (128 << 20) + of_pictures)


def map_identities(make: Callable[[S, int], T], spec: S, *, processes: int) -> Iterator[T]:
    """What `make(spec, identity)` returns for every identity, in order.

    Args:
        make: make_pit_identity or make_reid_identity; several processes need a module's function.
        spec: the specification. Every process uses its `body_file`, if it has one.
        processes: number of worker processes; 1 works in this process. At most two results per
            worker are made in advance, so memory does not grow with the number of identities.

    Raises:
        ValueError: processes is below 1.
        RuntimeError: `processes` is 1, and this process has already used another body.
        ChildProcessError: a worker process was killed.
        Exception: whatever `make` raises, in any process.
    """
    if processes < 1:
        raise ValueError(f"processes is {processes}: it must be at least 1")
    if processes == 1:
        _use_body_file(_body_file(spec))
        return (make(spec, identity) for identity in range(spec.identities))
    return _map_in_processes(make, spec, processes)


def _map_in_processes(make: Callable[[S, int], T], spec: S, processes: int) -> Iterator[T]:
    # Started afresh, not forked: a fork of a process with threads (BLAS, torch) may deadlock.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, mp_context=context, initializer=_prepare_worker)
    waiting: deque[Future[T]] = deque()
    try:
        for identity in range(spec.identities):
            waiting.append(pool.submit(_make_identity, make, spec, identity))
            if len(waiting) >= 2 * processes:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool as error:
        raise ChildProcessError(
            f"one of {processes} processes was killed, most often because memory ran out"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


@functools.cache
def _use_body_file(file: Path | None) -> None:
    if file is not None:
        use_body(file)
        check_leg_charts()


def _make_identity(make: Callable[[S, int], T], spec: S, identity: int) -> T:
    # Not in the initializer: its errors are lost, and the pool only reports that it is broken.
    _use_body_file(_body_file(spec))
    return make(spec, identity)


def _body_file(spec: Spec) -> Path | None:
    return getattr(spec, "body_file", None)  # only PIT's specs have one


def _prepare_worker() -> None:
    """Limit BLAS to one thread: the matrices are small, and the workers use all cores.

    The parent handles Ctrl-C and ends its workers.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threadpool_limits(1)
    end_with_parent()


def end_with_parent() -> None:
    """Let this worker process end when its parent is killed.

    A worker keeps its own work pipe open, so it would not notice. A thread watches the parent.
    """
    threading.Thread(target=_exit_after_parent, daemon=True).start()


def _exit_after_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)  # from a thread, and with nobody left to clean up for
