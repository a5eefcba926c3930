import threading
import time

import pytest

from components.process.threads import PoolLeftError, pause, thread_pool


def test_pause_ends_when_its_pool_is_left_by_an_exception():
    begun, started = threading.Event(), time.monotonic()

    def work():
        begun.set()
        pause(60)

    with pytest.raises(KeyboardInterrupt), thread_pool(1) as pool:  # noqa: PT012
        waiting = pool.submit(work)
        begun.wait()
        raise KeyboardInterrupt
    assert isinstance(waiting.exception(), PoolLeftError)
    assert time.monotonic() - started < 30


def test_work_that_has_not_begun_is_not_begun_when_its_pool_is_left_by_an_exception():
    begun = threading.Event()

    def work():
        begun.set()
        pause(60)

    with pytest.raises(KeyboardInterrupt), thread_pool(1) as pool:  # noqa: PT012
        pool.submit(work)
        later = pool.submit(begun.clear)
        begun.wait()
        raise KeyboardInterrupt
    assert later.cancelled()
    assert begun.is_set()
