"""The people and cameras of images.

Shapes: N images.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from san_core.data.records import JUNK, LabelledImage

Ids = NDArray[np.int64]

_LARGEST_LABEL = 2**31 - 1


class Labels(NamedTuple):
    """The people and cameras of N images.

    `pids` is (N,): people from 1, in a gallery also 0 (distractor) and -1 (junk). `camids` is (N,),
    0-based, or None where cameras are unknown.
    """

    pids: Ids
    camids: Ids | None

    def take(self, index: NDArray[np.intp] | Ids) -> "Labels":
        """The labels of some of the images."""
        return Labels(self.pids[index], None if self.camids is None else self.camids[index])


def labels_of(records: Iterable[LabelledImage]) -> Labels:
    """The labels of records, in their order; `camids` is None if no record knows its camera.

    Raises:
        ValueError: a person is unknown, or only some cameras are known.
    """
    records = list(records)
    for record in records:
        if record.pid is None:
            raise ValueError(f"{record.name}: it has no pid, so its ranking cannot be scored")
    pids = np.array([record.pid for record in records], np.int64)
    without = [record.name for record in records if record.camid is None]
    if len(without) == len(records):
        return Labels(pids, None)
    if without:
        raise ValueError(
            f"{without[0]}: it has no camid, like {len(without)} of {len(records)} images; every "
            "image must have one, or none"
        )
    return Labels(pids, np.array([record.camid for record in records], np.int64))


def check_labels(query: Labels, gallery: Labels) -> None:
    """Check the labels of queries and a gallery.

    Raises:
        ValueError: one of them is empty, only one has camids, there are too few camids, a pid is
            not allowed, or a number does not fit into 31 bits.
    """
    for role, labels in (("query", query), ("gallery", gallery)):
        if len(labels.pids) == 0:
            raise ValueError(f"the {role} is empty: there is nothing to rank")
        if labels.camids is not None and len(labels.camids) != len(labels.pids):
            raise ValueError(f"{len(labels.pids)} {role} pids but {len(labels.camids)} camids")
    if (query.camids is None) != (gallery.camids is None):
        known, unknown = ("gallery", "query") if query.camids is None else ("query", "gallery")
        raise ValueError(
            f"the {known} has camids and the {unknown} has none: give both, or neither to rank "
            "without the camera rule"
        )
    for role, labels, lowest in (("query", query, 1), ("gallery", gallery, JUNK)):
        _check_pids(role, labels.pids, lowest)
        if labels.camids is not None:
            _check_camids(role, labels.camids)


def _check_pids(role: str, pids: Ids, lowest: int) -> None:
    if pids.min() < lowest:
        i = int(np.argmax(pids < lowest))
        raise ValueError(
            f"{role} {i} has pid {pids[i]}; people are numbered from 1, and only a "
            f"gallery may hold distractors (0) and junk ({JUNK})"
        )
    if pids.max() > _LARGEST_LABEL:
        i = int(np.argmax(pids))
        raise ValueError(f"{role} {i} has pid {pids[i]}; the largest allowed is {_LARGEST_LABEL}")


def _check_camids(role: str, camids: Ids) -> None:
    wrong = (camids < 0) | (camids > _LARGEST_LABEL)
    if wrong.any():
        i = int(np.argmax(wrong))
        raise ValueError(
            f"{role} {i} has camid {camids[i]}; cameras are numbered from 0 to {_LARGEST_LABEL}"
        )
