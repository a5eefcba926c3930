"""Evaluation protocols: which gallery images count for a query, as the data sets' authors define.

In every protocol junk (pid -1) is left out, and distractors (pid 0) stay as wrong answers. Further
images are left out by their camera:

- `market1501` (Zheng et al. 2015): the query's person in the query's own camera. CUHK03's new
  protocol, DukeMTMC-reID and MSMT17 do the same;
- `camera-free`: nothing more;
- `sysu-mm01` (Wu et al. 2017): as `market1501`, and all of camera 2 for queries from camera 3,
  because they are in the same room. Queries are by the infrared cameras 3 and 6, the gallery by the
  others. These numbers are the paper's, from 1; camids here are one lower.

Shapes: Q queries, G gallery images.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from san_core.data.records import JUNK
from san_core.evaluation.kernels.compiled import _ranking
from san_core.evaluation.labels import Ids, Labels, check_labels

Codes = NDArray[np.int32]


@dataclass(frozen=True)
class Protocol:
    """What is left out of the gallery in addition to junk, and what a gallery shot draws.

    Attributes:
        name: as in `PROTOCOLS`.
        own_camera: whether the query's person in the query's camera is left out.
        barred: pairs (query's camera, gallery camera), 0-based: all images of that gallery camera
            are left out. A query camera occurs at most once.
        asking: the cameras that queries are by, 0-based; empty for any.
        searched: the cameras that the gallery is by, 0-based; empty for any.
        shot_by_camera: whether a gallery shot draws an image of each person and camera and ranks
            people by the nearest of their images; else it draws one image of each person.
    """

    name: str
    own_camera: bool
    barred: tuple[tuple[int, int], ...] = ()
    asking: tuple[int, ...] = ()
    searched: tuple[int, ...] = ()
    shot_by_camera: bool = False

    @property
    def needs_cameras(self) -> bool:
        """Whether it needs known cameras."""
        goes_by = self.barred, self.asking, self.searched
        return self.own_camera or self.shot_by_camera or any(goes_by)


MARKET1501 = Protocol("market1501", own_camera=True)
CAMERA_FREE = Protocol("camera-free", own_camera=False)
SYSU_MM01 = Protocol(
    "sysu-mm01",
    own_camera=True,
    barred=((2, 1),),
    asking=(2, 5),
    searched=(0, 1, 3, 4),
    shot_by_camera=True,
)
PROTOCOLS = {each.name: each for each in (MARKET1501, CAMERA_FREE, SYSU_MM01)}


def default_protocol(labels: Labels) -> Protocol:
    """`market1501` if cameras are known, else `camera-free`."""
    return CAMERA_FREE if labels.camids is None else MARKET1501


def check_protocol_applies(protocol: Protocol, query: Labels, gallery: Labels) -> None:
    """Check that a protocol applies to these queries and this gallery.

    Raises:
        ValueError: as in `labels.check_labels`, or the protocol needs cameras and there are none,
            or needs other cameras.
    """
    check_labels(query, gallery)
    if protocol.needs_cameras and query.camids is None:
        raise ValueError(
            f"protocol {protocol.name} needs cameras, but camids are unknown; {CAMERA_FREE.name} "
            "needs none"
        )
    _check_cameras("query", query, protocol.asking, protocol)
    _check_cameras("gallery", gallery, protocol.searched, protocol)


def _check_cameras(role: str, labels: Labels, cameras: tuple[int, ...], of: Protocol) -> None:
    if labels.camids is None or not cameras:
        return
    wrong = ~np.isin(labels.camids, cameras)
    if wrong.any():
        i = int(np.argmax(wrong))
        raise ValueError(
            f"{role} {i} is by camera {labels.camids[i]}, but by protocol {of.name} the {role} is "
            f"by cameras {', '.join(map(str, cameras))} (counted from 0)"
        )


class RankingProblem(NamedTuple):
    """Queries, a gallery and a protocol in the layout of the counting loops.

    People are groups of the gallery: group p is `members[start[p]:start[p + 1]]`. Gallery images
    that are left out whatever their person are in lists: list o is `out[out_start[o]:out_start[o +
    1]]`.

    Attributes:
        start: int64, one more than there are groups.
        members: (G,) gallery indices, ascending in each group.
        group: (Q,) the group of each query's person; -1 if the person is not in the gallery.
        widest: size of the largest group of any query's person.
        query_camera: (Q,) camera whose images of the person are left out; -1 none.
        barred: (Q,) camera left out whole; -1 none.
        gallery_camera: (G,)
        out_start: int64, one more than there are lists.
        out: gallery indices, ascending in each list.
        out_list: (Q,) which list each query leaves out.
    """

    start: Ids
    members: Codes
    group: Codes
    widest: int
    query_camera: Codes
    barred: Codes
    gallery_camera: Codes
    out_start: Ids
    out: Codes
    out_list: Codes


def ranking_problem(query: Labels, gallery: Labels, protocol: Protocol) -> RankingProblem:
    """Lay out queries and gallery for counting.

    Raises:
        ValueError: as in `check_protocol_applies`.
    """
    check_protocol_applies(protocol, query, gallery)
    start, members, group = _group_gallery(query.pids, gallery.pids)
    wanted = group[group >= 0]
    query_camera, gallery_camera = _camera_codes(query, gallery, protocol)
    barred, out_list, lists = _excluded_lists(query, gallery, protocol)
    return RankingProblem(
        start=start,
        members=members,
        group=group,
        widest=int((start[wanted + 1] - start[wanted]).max(initial=0)),
        query_camera=query_camera,
        barred=barred,
        gallery_camera=gallery_camera,
        out_start=np.cumsum([0, *map(len, lists)]),
        out=np.concatenate(lists),
        out_list=out_list,
    )


def _group_gallery(query: Ids, gallery: Ids) -> tuple[Ids, Codes, Codes]:
    """`start`, `members` and `group` of a problem."""
    asked, searched = query, gallery
    if gallery.max() > 8 * len(gallery) + 1024:  # a table by pid would be mostly empty
        people = np.unique(gallery[gallery != JUNK])
        searched = np.where(gallery == JUNK, JUNK, np.searchsorted(people, gallery))
        found = np.minimum(np.searchsorted(people, query), len(people) - 1)
        asked = np.where(people[found] == query, found, len(people))
    start = np.zeros(int(searched.max()) + 2, np.int64)
    members = np.empty(int(np.count_nonzero(searched != JUNK)), np.int32)
    _ranking.group(searched.astype(np.int32), start, members)
    known = np.minimum(asked, len(start) - 2)
    is_there = (asked == known) & (start[known + 1] > start[known]) if len(start) > 1 else False
    return start, members, np.where(is_there, known, -1).astype(np.int32)


def _camera_codes(query: Labels, gallery: Labels, protocol: Protocol) -> tuple[Codes, Codes]:
    gallery_camera = np.zeros(len(gallery.pids), np.int32)
    if gallery.camids is not None:
        gallery_camera = gallery.camids.astype(np.int32)
    if protocol.own_camera and query.camids is not None:
        return query.camids.astype(np.int32), gallery_camera
    return np.full(len(query.pids), -1, np.int32), gallery_camera


def _excluded_lists(
    query: Labels, gallery: Labels, protocol: Protocol
) -> tuple[Codes, Codes, list[Codes]]:
    """`barred` and `out_list` of a problem, and the lists: junk, then junk and a barred camera."""
    barred = np.full(len(query.pids), -1, np.int32)
    out_list = np.zeros(len(query.pids), np.int32)
    junk = gallery.pids == JUNK
    lists = [np.flatnonzero(junk).astype(np.int32)]
    for of_query, of_gallery in protocol.barred:
        asking = query.camids == of_query
        barred[asking] = of_gallery
        out_list[asking] = len(lists)
        lists.append(np.flatnonzero(junk | (gallery.camids == of_gallery)).astype(np.int32))
    return barred, out_list, lists
