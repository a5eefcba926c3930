"""Signals that ask to stop, waited for where work can be put down well.

SIGTERM comes from Kubernetes before it kills a pod, SIGHUP from a connection that has dropped. What
they become as an exit status is decided in `components.command.run`.
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
    """A signal asks to stop; not an Exception, so that no step swallows it.

    Attributes:
        name: of the signal, such as SIGTERM
        status: the exit status that says so, as shells count
    """

    def __init__(self, number: int = signal.SIGTERM) -> None:
        super().__init__()
        self.name = signal.Signals(number).name
        self.status = 128 + number


class StopRequest:
    """Says, when it is called, whether a signal has asked to stop; `number` is the signal's."""

    def __init__(self) -> None:
        self.number = 0

    def __call__(self) -> bool:  # noqa: D102 - said above
        return self.number != 0


@contextmanager
def defer_stop() -> Iterator[StopRequest]:
    """Within the block SIGTERM and SIGHUP interrupt nothing; the request says if one has come.

    Who uses it must ask often enough: Kubernetes kills 30 seconds after SIGTERM by default.
    """
    request = StopRequest()

    def note(number: int, _frame: FrameType | None) -> None:
        request.number = number

    with signal_handler(note, *STOP_SIGNALS):
        yield request


def raise_terminated(number: int, _frame: FrameType | None) -> NoReturn:
    """A handler of signals: what runs is stopped on the way out, which no other one interrupts.

    Where a connection drops, shell and kernel each send a SIGHUP.
    """
    ignore_stop()
    raise Terminated(number)


def ignore_stop() -> None:
    """From here on SIGTERM and SIGHUP are ignored: one has been heard."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def signal_handler(
    handler: Callable[[int, FrameType | None], Any], *numbers: signal.Signals
) -> Iterator[None]:
    """Within the block these signals call `handler`; outside the main thread nothing changes.

    A signal that is ignored stays so: nohup lets a process outlive its connection.
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
    """In a new process: be killed when its parent is, so that no orphan goes on beside a rerun.

    prctl(PR_SET_PDEATHSIG) is Linux; elsewhere an orphan goes on to its end.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
        if os.getppid() != parent:  # it died before it could be watched
            os._exit(1)


def hear_interrupt(handler: Callable[[int, FrameType | None], Any]) -> None:
    """Let Ctrl-C call `handler`; where it is ignored, as in a script's background, it stays so."""
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
        signal.signal(signal.SIGINT, handler)


def end_by_interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
    """On Ctrl-C, end at once in one line: where nothing has been begun, nothing is to be put down.

    A KeyboardInterrupt in the middle of an import would show where, which helps nobody.
    """
    file = Path(sys.argv[0])
    who = file.parent.name if file.name == "__main__.py" else file.name
    os.write(2, f"{who}: stopped by Ctrl-C\n".encode())
    os._exit(130)
