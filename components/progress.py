"""How far a step is: a bar on a terminal, a line now and then in a pod's log."""

import logging
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")
log = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 10.0


def progress(items: Iterable[T], *, total: int, unit: str) -> Iterator[T]:
    """Pass `items` through, telling how many of `total` are done, how fast, and what is left."""
    if sys.stderr.isatty():
        yield from tqdm(items, total=total, unit=f" {unit}", leave=False)
        return
    start = said = time.monotonic()
    for done, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if now - said >= SECONDS_BETWEEN_LINES and done < total:
            said = now
            rate = done / (now - start)
            left = (total - done) / rate
            log.info("%d/%d %s  %.1f/s  eta %.0f s", done, total, unit, rate, left)
