"""Trying again what may succeed a moment later, with growing and scattered pauses."""

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
    """How long to go on trying: no further try begins after `total` seconds without progress.

    What a try takes until it last got on (`note_progress`) is not counted: a long upload that
    breaks off is tried again too.

    Pauses double from `first` up to `longest` seconds, and each is shortened by up to a half at
    random, so that many workers do not return at one instant.
    """

    total: float
    first: float = 0.5
    longest: float = 15.0


LONG_BACKOFF = Backoff(total=150)
# Where nothing is lost by giving up, as the same is tried again later.
SHORT_BACKOFF = Backoff(total=15)
# Where hours of work would be lost.
RESULT_BACKOFF = Backoff(total=3600, longest=60)


def note_progress() -> None:
    """Say that what this thread tries is getting on.

    Raises:
        PoolLeftError: nobody waits for it any more.
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
    """What `action` returns, after as many tries as `backoff` allows.

    Args:
        action: may be done again after it failed.
        is_transient: whether an error may pass; any other is raised at once.
        what: how the log calls it.
        backoff: when to give up.

    Raises:
        Exception: what the last try raised.
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
