"""The progress of a step: a bar on a terminal, else a line from time to time."""

import logging
import math
import os
import sys
import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Self, TypeVar

T = TypeVar("T")
log = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 60.0
# Set by who shows the newest line in place of the one before: more lines then disturb nobody.
WATCHED_VARIABLE = "SAN_WATCHED"
SECONDS_WHERE_WATCHED = 10.0


class Progress:
    """Shows how many of `total` are done, the rate, and the remaining time."""

    def __init__(self, total: int, unit: str) -> None:
        self.total = total
        self.unit = unit
        self.done = 0
        self._bar = None
        if sys.stderr.isatty():
            from tqdm import tqdm  # takes 0.1 s, and a pod does not need it

            scale = total > 10**6
            self._bar = tqdm(total=total, unit=f" {unit}", unit_scale=scale, leave=False)
        is_watched = bool(os.environ.get(WATCHED_VARIABLE))
        self._pause = SECONDS_WHERE_WATCHED if is_watched else SECONDS_BETWEEN_LINES
        self._started = self._last_line_at = time.monotonic()

    def add(self, count: int = 1) -> None:
        """Add to the number done."""
        self.done += count
        if self._bar is not None:
            self._bar.update(count)
            return
        now = time.monotonic()
        if now - self._last_line_at >= self._pause and self.done < self.total:
            self._last_line_at = now
            rate = self.done / (now - self._started)
            eta = (self.total - self.done) / rate if rate else math.inf
            log.info("%d/%d %s  %.1f/s  eta %.0f s", self.done, self.total, self.unit, rate, eta)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()


def track_progress(items: Iterable[T], *, total: int, unit: str) -> Iterator[T]:
    """Yield `items` and show the progress."""
    with Progress(total, unit) as bar:
        for item in items:
            yield item
            bar.add()
