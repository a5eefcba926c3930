"""Work in parallel threads, with results in order."""

import math
import select
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")
SECONDS_BETWEEN_LOOKS = 0.5
_here = threading.local()


class PoolLeftError(Exception):
    """The thread pool was left; nobody waits for the work of this thread."""


def map_bounded(
    pool: Executor, function: Callable[[A], B], items: Iterable[A], *, ahead: int
) -> Iterator[B]:
    """`function` of every item, in order, with at most `ahead` results not yet consumed.

    Unlike Executor.map it takes items only as results are consumed, so memory does not grow with
    the number of items.
    """
    waiting: deque[Future[B]] = deque()
    for item in items:
        waiting.append(pool.submit(function, item))
        if len(waiting) >= ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


@contextmanager
def thread_pool(count: int) -> Iterator[ThreadPoolExecutor]:
    """A pool of threads, none of which works after the block has ended.

    If an exception ends the block, pending work does not start, threads in `pause` wake up, and
    threads that call `check_pool_not_left` or `await_socket` end.
    """
    is_left = threading.Event()
    pool = ThreadPoolExecutor(count, initializer=_enter_pool, initargs=(is_left,))
    try:
        yield pool
    except BaseException:
        is_left.set()
        pool.shutdown(cancel_futures=True)
        raise
    pool.shutdown()


def _enter_pool(is_left: threading.Event) -> None:
    _here.is_left = is_left


def check_pool_not_left() -> None:
    """Raise PoolLeftError in a thread of a `thread_pool` whose block an exception has ended."""
    is_left = getattr(_here, "is_left", None)
    if is_left is not None and is_left.is_set():
        raise PoolLeftError


def pause(seconds: float) -> None:
    """Sleep; in a thread of a `thread_pool`, only until an exception ends its block.

    Raises:
        PoolLeftError: an exception has ended it.
    """
    is_left = getattr(_here, "is_left", None)
    if is_left is None:
        time.sleep(seconds)
    elif is_left.wait(seconds):
        raise PoolLeftError


def await_socket(connected: object, *, to_write: bool = False) -> None:
    """Wait until a socket can be read or written; in a `thread_pool`, only until its block ends.

    Outside of a pool, and for objects that are not Python's own sockets, this returns at once: a
    signal interrupts the main thread, and TLS in TLS buffers bytes that no socket reports.

    Raises:
        TimeoutError: nothing happened within the socket's own timeout.
        PoolLeftError: an exception has ended the pool's block.
    """
    if not hasattr(_here, "is_left") or not isinstance(connected, socket.socket):
        return
    if not to_write and isinstance(connected, ssl.SSLSocket) and connected.pending():
        return
    until = time.monotonic() + (connected.gettimeout() or math.inf)
    events = select.poll()
    events.register(connected, select.POLLOUT if to_write else select.POLLIN)
    while not events.poll(1000 * SECONDS_BETWEEN_LOOKS):
        check_pool_not_left()
        if time.monotonic() > until:
            raise TimeoutError("timed out")
