"""Stop signals, handled where work can be interrupted safely.

Kubernetes sends SIGTERM before it kills a pod; a dropped connection causes SIGHUP.
`components.command.run` turns them into exit statuses.
"""

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

STOP_SIGNALS = (signal.SIGTERM, signal.SIGHUP)


class Terminated(BaseException):
    """A stop signal was received; not an Exception, so that no step catches it.

    Attributes:
        name: of the signal, such as SIGTERM
        status: its exit status, 128 plus its number, as in shells
    """

    def __init__(self, number: int = signal.SIGTERM) -> None:
        super().__init__()
        self.name = signal.Signals(number).name
        self.status = 128 + number


class StopRequest:
    """Returns, when called, whether a stop signal was received; `number` is its number."""

    def __init__(self) -> None:
        self.number = 0

    def __call__(self) -> bool:  # noqa: D102 - see the class
        return self.number != 0


@contextmanager
def defer_stop() -> Iterator[StopRequest]:
    """Within the block, SIGTERM and SIGHUP do not interrupt; the request tells if one was received.

    The caller must ask often enough: by default Kubernetes kills 30 seconds after SIGTERM.
    """
    request = StopRequest()

    def note(number: int, _frame: FrameType | None) -> None:
        request.number = number

    with signal_handler(note, *STOP_SIGNALS):
        yield request


def raise_terminated(number: int, _frame: FrameType | None) -> NoReturn:
    """A signal handler that stops the running code; later stop signals are ignored.

    When a connection drops, shell and kernel each send a SIGHUP.
    """
    ignore_stop()
    raise Terminated(number)


def ignore_stop() -> None:
    """Ignore SIGTERM and SIGHUP from here on, as one was received."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def signal_handler(
    handler: Callable[[int, FrameType | None], Any], *numbers: signal.Signals
) -> Iterator[None]:
    """Within the block, these signals call `handler`; no effect outside the main thread.

    A signal that is ignored stays ignored, as with nohup.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard = [number for number in numbers if signal.getsignal(number) != signal.SIG_IGN]
    former = {number: signal.signal(number, handler) for number in heard}
    try:
        yield
    finally:
        for number, one in former.items():
            signal.signal(number, one)


def die_with_parent(parent: int) -> None:
    """Let Linux kill this new process when its parent dies, so that no orphan works beside a rerun.

    prctl(PR_SET_PDEATHSIG) exists on Linux only; elsewhere an orphan runs to its end.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
        if os.getppid() != parent:  # it died before the call
            os._exit(1)


def hear_interrupt(handler: Callable[[int, FrameType | None], Any]) -> None:
    """Let Ctrl-C call `handler`, unless it is ignored, as in a script's background."""
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
        signal.signal(signal.SIGINT, handler)


def end_by_interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
    """On Ctrl-C, end at once with one line, as nothing has begun.

    A KeyboardInterrupt in an import would show a traceback, which does not help.
    """
    file = Path(sys.argv[0])
    who = file.parent.name if file.name == "__main__.py" else file.name
    os.write(2, f"{who}: stopped by Ctrl-C\n".encode())
    os._exit(130)
