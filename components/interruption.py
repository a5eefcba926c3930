"""SIGTERM, waited for where work can be put down well: a pod is told before it is killed."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Terminated(BaseException):
    """SIGTERM arrived; not an Exception, so that no step swallows it."""


class FirstFailed(BaseException):
    """The first of several processes has failed, and says why itself."""


@contextmanager
def asked_to_stop() -> Iterator[Callable[[], bool]]:
    """Within the block SIGTERM interrupts nothing; the given function says whether it has come.

    Who uses it must ask often enough: Kubernetes kills 30 seconds after SIGTERM by default.
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set  # signals are none of this thread's business
        return
    former = signal.signal(signal.SIGTERM, lambda *_: asked.set())
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGTERM, former)
