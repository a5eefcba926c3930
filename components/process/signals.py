"""SIGTERM, waited for where work can be put down well: a pod is told before it is killed.

What a signal becomes as an exit status is decided in `components.command.run`.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class Terminated(BaseException):
    """SIGTERM arrived; not an Exception, so that no step swallows it."""


@contextmanager
def defer_sigterm() -> Iterator[Callable[[], bool]]:
    """Within the block SIGTERM interrupts nothing; the given function says whether it has come.

    Who uses it must ask often enough: Kubernetes kills 30 seconds after SIGTERM by default.
    """
    asked = threading.Event()
    with signal_handler(lambda *_: asked.set(), signal.SIGTERM):
        yield asked.is_set


@contextmanager
def signal_handler(
    handler: Callable[[int, FrameType | None], Any], *numbers: signal.Signals
) -> Iterator[None]:
    """Within the block these signals call `handler`; outside the main thread nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, one in former.items():
            signal.signal(number, one)
