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
