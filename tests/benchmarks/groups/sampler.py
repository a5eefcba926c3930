"""Drawing an epoch's batches of P identities with K images, at the size of large data sets.

The least CPU time of one thread, since other work on the machine only adds to it.
"""

from collections.abc import Iterator

import numpy as np

from san_core.data.batches.sampler import identity_batches
from tests.benchmarks.figure import Figure
from tests.benchmarks.measuring import least_cpu_seconds, one_thread

IDENTITIES, IMAGES = 16, 4  # P and K of the official recipe
PEOPLE = (3_000, 30_000)  # of IMAGES images each: MSMT17 has 1,041 people to train on


def figures() -> Iterator[Figure]:
    """Seconds an epoch, by number of people."""
    with one_thread():
        for people in PEOPLE:
            labels = np.repeat(np.arange(people), IMAGES)

            def draw_epoch(labels: np.ndarray = labels) -> np.ndarray:
                return identity_batches(
                    labels, identities=IDENTITIES, images=IMAGES, seed=0, epoch=0
                )

            (seconds,) = least_cpu_seconds(draw_epoch)
            yield Figure(f"sampler.epoch_seconds_{people}", seconds, "s")
