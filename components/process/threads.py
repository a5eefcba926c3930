"""Work done side by side, its results in order."""

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
    """The work of a thread is not waited for any more."""


def map_bounded(
    pool: Executor, function: Callable[[A], B], items: Iterable[A], *, ahead: int
) -> Iterator[B]:
    """`function` of every item, in order, with at most `ahead` results not yet taken.

    Unlike Executor.map it takes items only as results are taken, so memory stays flat however
    many there are.
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
    """Threads of which none is at work any more when the block is left, however it is left.

    If it is left by an exception, what has not begun by then is not begun, who sleeps by `pause` is
    woken, and who asks by `check_pool_not_left` or waits by `await_socket` is ended.
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
    """Raise PoolLeftError in a thread of a `thread_pool` that is left by an exception."""
    is_left = getattr(_here, "is_left", None)
    if is_left is not None and is_left.is_set():
        raise PoolLeftError


def pause(seconds: float) -> None:
    """Sleep, but not on in a thread of a `thread_pool` that is left by an exception.

    Raises:
        PoolLeftError: it is left.
    """
    is_left = getattr(_here, "is_left", None)
    if is_left is None:
        time.sleep(seconds)
    elif is_left.wait(seconds):
        raise PoolLeftError


def await_socket(connected: object, *, to_write: bool = False) -> None:
    """Wait until a socket can be read or written, but not on in a `thread_pool` that is left.

    Outside of one, and for what is no socket of Python's own, this returns at once: a signal ends
    whatever the main thread waits for, and TLS in TLS keeps bytes that no socket tells of.

    Raises:
        TimeoutError: nothing happened for as long as the socket's own timeout.
        PoolLeftError: the pool is left.
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
