"""Retries after transient errors, with growing random pauses."""

import logging
import random
import threading
import time
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from components.process.threads import check_pool_not_left, pause

T = TypeVar("T")
log = logging.getLogger(__name__)
_attempt = threading.local()


class Backoff(NamedTuple):
    """How long to retry: no further attempt begins after `total` seconds without progress.

    The time of an attempt until its last progress (`note_progress`) does not count, so that a long
    upload that fails is retried too.

    Pauses double from `first` up to `longest` seconds. Each is shortened at random by up to a half,
    so that many workers do not retry at the same time.
    """

    total: float
    first: float = 0.5
    longest: float = 15.0


LONG_BACKOFF = Backoff(total=150)
# For work where giving up loses nothing, as it is done again later.
SHORT_BACKOFF = Backoff(total=15)
# For results of hours of work.
RESULT_BACKOFF = Backoff(total=3600, longest=60)


def note_progress() -> None:
    """Record that this thread's attempt makes progress.

    Raises:
        PoolLeftError: nobody waits for it.
    """
    check_pool_not_left()
    _attempt.got_on_at = time.monotonic()


def call_with_retries(
    action: Callable[[], T],
    *,
    is_transient: Callable[[Exception], bool],
    what: str,
    backoff: Backoff,
) -> T:
    """The result of `action`, after as many attempts as `backoff` allows.

    Args:
        action: can be repeated after a failure.
        is_transient: whether an error is transient; any other is raised at once.
        what: its name in the log.
        backoff: when to give up.

    Raises:
        Exception: the error of the last attempt.
    """
    lost, longest_wait = 0.0, backoff.first
    while True:
        note_progress()
        try:
            return action()
        except Exception as error:
            wait = longest_wait * random.uniform(0.5, 1)
            lost += time.monotonic() - _attempt.got_on_at + wait
            if not is_transient(error) or lost > backoff.total:
                raise
            log.warning("%s: %s; trying again in %.1f s", what, root_cause(error), wait)
        pause(wait)
        longest_wait = min(2 * longest_wait, backoff.longest)


def root_cause(error: BaseException) -> str:
    """The innermost cause of a network error, in one line: `Connection refused`."""
    while True:
        reason = getattr(error, "reason", None)
        inner = error.__cause__ or error.__context__
        if isinstance(reason, BaseException):
            error = reason
        elif isinstance(inner, BaseException):
            error = inner
        else:
            break
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).split())
