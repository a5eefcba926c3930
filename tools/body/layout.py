"""The atlas: every chart's disk laid into a rectangle, the rectangles tiling the texture.

The border of a disk is laid along the border of its rectangle, corner by corner, and the inside
follows by mean-value coordinates (Floater 2003), whose weights are then relaxed until areas on
texture and skin agree. UV is in texel centres, so a rectangle w texels wide spans 0 to w - 1.
"""

from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.sparse.linalg import spsolve

from tools.body.charts import CHART_NAMES, ChartedMesh
from tools.body.people import Array
from tools.body.skin import border_loops

RECTANGLES = {  # left, top, width, height in texels of 256x256
    "torso_front": (0, 0, 76, 132),
    "torso_back": (76, 0, 76, 132),
    "leg.L": (152, 0, 52, 132),
    "leg.R": (204, 0, 52, 132),
    "head_front": (0, 132, 72, 76),
    "head_back": (72, 132, 64, 76),
    "arm.L": (136, 132, 120, 38),
    "arm.R": (136, 170, 120, 38),
    "foot.L": (0, 208, 72, 48),
    "foot.R": (72, 208, 72, 48),
    "hand.L": (144, 208, 56, 48),
    "hand.R": (200, 208, 56, 48),
}
RELAX_ROUNDS = 8  # rounds
Ints = NDArray[np.int64]


class Layout(NamedTuple):
    """UV vertices and the faces they make, in the order of the mesh's faces."""

    uv: Array  # (U, 2)
    faces: Ints  # (F, 3)


class _Disk(NamedTuple):
    """A chart as a mesh of its own, slit open if it is a limb."""

    points: Array  # (n, 3)
    faces: Ints  # (f, 3)
    vertices: Ints  # (n,) of the whole mesh
    slit: NDArray[np.bool_]  # (n,) whether a vertex lies on the seam
    border: Ints  # clockwise as seen from outside


def lay_out_charts(cut: ChartedMesh) -> Layout:
    """Lay every chart into its rectangle.

    Raises:
        ValueError: a chart is no disk.
    """
    uv, faces, start = [], np.zeros_like(cut.mesh.faces), 0
    for name in CHART_NAMES:
        disk, (left, top, width, height) = _chart_disk(cut, name), RECTANGLES[name]
        path = _lay_border(cut, name, disk, (width, height))
        uv.append(_embed_disk(disk, path) + np.array([left, top]))
        faces[cut.faces_of(name)] = disk.faces + start
        start += len(disk.points)
    return Layout(np.concatenate(uv), faces)


def _chart_disk(cut: ChartedMesh, name: str) -> _Disk:
    vertices, faces = np.unique(cut.mesh.faces[cut.faces_of(name)], return_inverse=True)
    faces = faces.reshape(-1, 3)
    points, slit = cut.mesh.points[vertices], np.zeros(len(vertices), bool)
    if name in cut.seams:
        seam, on_seam = cut.seams[name], np.flatnonzero(np.isin(vertices, cut.on_seam[name]))
        distance, inwards = seam.distance(points), seam.inwards(points)
        distance[on_seam] = 0
        below = (distance[faces].sum(axis=1) < 0) & (inwards[faces].max(axis=1) > 0)
        twin = np.arange(len(points))
        twin[on_seam] = len(points) + np.arange(len(on_seam))
        faces[below] = twin[faces[below]]
        points, vertices = np.vstack([points, points[on_seam]]), np.r_[vertices, vertices[on_seam]]
        slit = np.isin(vertices, cut.on_seam[name])
    borders = border_loops(faces)
    if len(borders) != 1:
        raise ValueError(f"chart {name} has {len(borders)} borders; it must be a disk")
    return _Disk(points, faces, vertices, slit, np.array(borders[0][::-1]))


class _BorderPath:
    """Positions on a rectangle for the vertices of a border, laid side by side."""

    def __init__(self, disk: _Disk) -> None:
        self._points = disk.points[disk.border]
        self.places = np.zeros((len(self._points), 2))

    def walk(self, start: int, end: int) -> Ints:
        """From one place of the border to another, clockwise."""
        count = len(self._points)
        steps = (end - start) % count or count
        return (start + np.arange(steps + 1)) % count

    def share(self, way: Ints) -> Array:
        """How far along a way, 0 to 1, each of its vertices lies."""
        steps = np.linalg.norm(np.diff(self._points[way], axis=0), axis=1)
        length = np.r_[0, np.cumsum(steps)]
        return length / length[-1]

    def lay_side(self, start: int, end: int, first: tuple[int, int], last: tuple[int, int]) -> None:
        """Lay a stretch of the border along one side."""
        way = self.walk(start, end)
        share = self.share(way)[:, None]
        self.places[way] = np.array(first) * (1 - share) + np.array(last) * share

    def lay_three_sides(self, start: int, end: int, corners: list[tuple[int, int]]) -> None:
        """Lay a stretch along three sides, from the first of four corners to the last."""
        way = self.walk(start, end)
        sides = np.linalg.norm(np.diff(np.array(corners), axis=0), axis=1) + 1
        marks = np.cumsum(sides)[:2] / sides.sum()
        stops = [start, *(way[np.abs(self.share(way) - mark).argmin()] for mark in marks), end]
        for k in range(3):
            self.lay_side(int(stops[k]), int(stops[k + 1]), corners[k], corners[k + 1])


def _lay_border(cut: ChartedMesh, name: str, disk: _Disk, size: tuple[int, int]) -> Array:
    """Where every border vertex goes in a rectangle of `size` texels: (n, 2)."""
    right, bottom = size[0] - 1, size[1] - 1
    corners = [(0, 0), (right, 0), (right, bottom), (0, bottom)]
    path, part, side = _BorderPath(disk), name.partition(".")[0], name.partition(".")[2]
    if part.startswith("torso"):
        stops = _torso_corners(cut, name, disk)
        for k in range(4):
            path.lay_side(stops[k], stops[(k + 1) % 4], corners[k], corners[(k + 1) % 4])
    elif part.startswith("head"):
        right_end, left_end = _neck_corners(cut, name, disk)
        path.lay_side(right_end, left_end, corners[2], corners[3])
        path.lay_three_sides(left_end, right_end, [corners[3], corners[0], corners[1], corners[2]])
    elif part in ("arm", "leg"):
        upper = _shares_border(cut, disk, "torso_front") | _shares_border(cut, disk, "torso_back")
        lower = _shares_border(cut, disk, f"{'hand' if part == 'arm' else 'foot'}.{side}")
        top, end = _edge_ends(path, disk, upper), _edge_ends(path, disk, lower)
        turned = corners if part == "leg" else [corners[3], *corners[:3]]
        stops = [*top, *end]
        for k in range(4):
            path.lay_side(stops[k], stops[(k + 1) % 4], turned[k], turned[(k + 1) % 4])
    elif part == "foot":
        start, end = _edge_ends(path, disk, _shares_border(cut, disk, f"leg.{side}"))
        path.lay_side(start, end, corners[0], corners[1])
        path.lay_three_sides(end, start, [corners[1], corners[2], corners[3], corners[0]])
    else:
        _lay_hand(path, disk, size, corners)
    return path.places


def _lay_hand(
    path: _BorderPath, disk: _Disk, size: tuple[int, int], corners: list[tuple[int, int]]
) -> None:
    """A hand: all four sides, from the foremost point of the wrist."""
    start = int(np.argmin(disk.points[disk.border][:, 1]))
    way = path.walk(start, start)
    wide = size[0] / (2 * sum(size))
    marks = (0, wide, 0.5, 0.5 + wide)
    stops = [int(way[np.abs(path.share(way) - mark).argmin()]) for mark in marks]
    for k in range(4):
        path.lay_side(stops[k], stops[(k + 1) % 4], corners[k], corners[(k + 1) % 4])


def _shares_border(cut: ChartedMesh, disk: _Disk, other: str) -> NDArray[np.bool_]:
    """Which border vertices another chart has too."""
    theirs = np.unique(cut.mesh.faces[cut.faces_of(other)])
    return np.isin(disk.vertices[disk.border], theirs)


def _argmax_among(score: Array, among: NDArray[np.bool_]) -> int:
    return int(np.where(among, score, -np.inf).argmax())


def _torso_corners(cut: ChartedMesh, name: str, disk: _Disk) -> list[int]:
    """Shoulders and hips, clockwise from the upper left of the image."""
    front, points = name == "torso_front", disk.points[disk.border]
    half = _shares_border(cut, disk, "torso_back" if front else "torso_front")
    left, right = ("R", "L") if front else ("L", "R")
    shoulder = {
        s: _argmax_among(points[:, 2], _shares_border(cut, disk, f"arm.{s}") & half) for s in "LR"
    }
    hip = {
        s: _argmax_among(np.abs(points[:, 0]), _shares_border(cut, disk, f"leg.{s}") & half)
        for s in "LR"
    }
    return [shoulder[left], shoulder[right], hip[right], hip[left]]


def _neck_corners(cut: ChartedMesh, name: str, disk: _Disk) -> tuple[int, int]:
    """The neck's right and left end as seen on the image."""
    front, points = name == "head_front", disk.points[disk.border]
    trunk = _shares_border(cut, disk, "torso_front") | _shares_border(cut, disk, "torso_back")
    trunk &= _shares_border(cut, disk, "head_back" if front else "head_front")
    sign = 1 if front else -1
    return _argmax_among(sign * points[:, 0], trunk), _argmax_among(-sign * points[:, 0], trunk)


def _edge_ends(path: _BorderPath, disk: _Disk, edge: NDArray[np.bool_]) -> tuple[int, int]:
    """The two ends of a limb's upper or lower edge, in the order that runs along the edge."""
    ends = np.flatnonzero(disk.slit[disk.border] & edge)
    if len(ends) != 2:
        raise ValueError(f"a seam meets the edge of its limb {len(ends)} times; it must be twice")
    first, second = (int(end) for end in ends)
    if not edge[path.walk(first, second)].all():
        first, second = second, first
    return first, second


def _embed_disk(disk: _Disk, places: Array) -> Array:
    """UV of all vertices of a disk: (n, 2)."""
    weights = _mean_value_weights(disk)
    fixed = np.zeros(len(disk.points), bool)
    fixed[disk.border] = True
    uv = np.zeros((len(disk.points), 2))
    uv[disk.border] = places
    uv[~fixed] = _solve_inner(weights, fixed, uv)
    for _ in range(RELAX_ROUNDS):
        stretch = _stretch(disk, uv).clip(0.2, 5) ** -0.6
        weights = _normalise_rows(weights @ sp.diags(stretch))
        uv[~fixed] = _solve_inner(weights, fixed, uv)
    return uv


def _mean_value_weights(disk: _Disk) -> sp.csr_matrix:
    rows, columns, values = [], [], []
    for k in range(3):
        a, b, c = disk.faces[:, k], disk.faces[:, (k + 1) % 3], disk.faces[:, (k + 2) % 3]
        u, v = disk.points[b] - disk.points[a], disk.points[c] - disk.points[a]
        long_u, long_v = (np.linalg.norm(each, axis=1) + 1e-9 for each in (u, v))
        cosine = (np.einsum("fi,fi->f", u, v) / long_u / long_v).clip(-0.9999, 0.9999)
        tangent = np.tan(np.arccos(cosine) / 2)
        rows += [a, a]
        columns += [b, c]
        values += [tangent / long_u, tangent / long_v]
    places = (np.concatenate(rows), np.concatenate(columns))
    size = (len(disk.points),) * 2
    return _normalise_rows(sp.csr_matrix((np.concatenate(values), places), shape=size))


def _normalise_rows(weights: sp.csr_matrix) -> sp.csr_matrix:
    return (sp.diags(1 / np.asarray(weights.sum(axis=1)).ravel()) @ weights).tocsr()


def _solve_inner(weights: sp.csr_matrix, fixed: NDArray[np.bool_], uv: Array) -> Array:
    """Inner vertices as weighted means of their neighbours."""
    free = np.flatnonzero(~fixed)
    inner = sp.identity(len(free)) - weights[free][:, free]
    return spsolve(inner.tocsc(), weights[free][:, np.flatnonzero(fixed)] @ uv[fixed])


def _stretch(disk: _Disk, uv: Array) -> Array:
    """How much too small every vertex's surroundings are on the texture: (n,), 1 is right."""
    skin = np.linalg.norm(np.cross(*_edges(disk.points, disk.faces)), axis=1)
    (ux, uy), (vx, vy) = (edge.T for edge in _edges(uv, disk.faces))
    texture = np.abs(ux * vy - uy * vx) + 1e-6
    ratio = (skin / skin.sum()) / (texture / texture.sum())
    total, weight = np.zeros(len(uv)), np.zeros(len(uv))
    for k in range(3):
        np.add.at(total, disk.faces[:, k], ratio * skin)
        np.add.at(weight, disk.faces[:, k], skin)
    return np.sqrt(total / np.maximum(weight, 1e-12))


def _edges(points: Array, faces: Ints) -> tuple[Array, Array]:
    first = points[faces[:, 0]]
    return points[faces[:, 1]] - first, points[faces[:, 2]] - first
