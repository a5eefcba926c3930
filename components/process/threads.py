"""Work done side by side, its results in order."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")


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

    What has not begun by then is not begun if the block is left by an exception.
    """
    pool = ThreadPoolExecutor(count)
    try:
        yield pool
    except BaseException:
        pool.shutdown(cancel_futures=True)
        raise
    pool.shutdown()
