"""Twelve charts of the skin, each a disk, cut along exact lines: new vertices lie on the cuts.

A cut is the zero line of a function of the surface: a plane at shoulder, wrist, neck, hip, ankle
and through the trunk, and a seam along every limb, where a tube is slit open.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from tools.body.people import Array, People
from tools.body.skin import Mesh, connected_parts

CHART_NAMES = (
    *("torso_front", "torso_back", "head_front", "head_back", "arm.L", "arm.R", "hand.L", "hand.R"),
    *("leg.L", "leg.R", "foot.L", "foot.R"),
)
TRUNK = -1  # what no cut has taken yet
ON_CUT_DISTANCE = 1e-4  # metres from a cut within which a vertex lies on it
SurfaceField = Callable[[Array], Array]


class Seam:
    """Where a limb is slit: on the inner side of a line of joints."""

    def __init__(self, joints: list[Array], inner: Array) -> None:
        self._joints = np.array(joints)
        chord = self._joints[-1] - self._joints[0]
        self._along = chord / np.linalg.norm(chord)
        self._stations = (self._joints - self._joints[0]) @ self._along
        side = inner - self._along * (inner @ self._along)
        self._side = side / np.linalg.norm(side)
        self._normal = np.cross(self._along, self._side)

    def distance(self, points: Array) -> Array:
        """Signed distance (V,) from the surface that holds the seam and the joints."""
        return self._offset(points) @ self._normal

    def inwards(self, points: Array) -> Array:
        """How far (V,) points lie on the seam's side of the joints."""
        return self._offset(points) @ self._side

    def _offset(self, points: Array) -> Array:
        station = (points - self._joints[0]) @ self._along
        axis = [np.interp(station, self._stations, self._joints[:, k]) for k in range(3)]
        beyond = station - station.clip(self._stations[0], self._stations[-1])
        return points - np.stack(axis, axis=1) - beyond[:, None] * self._along


@dataclass
class ChartedMesh:
    """A mesh with a chart for every face."""

    mesh: Mesh
    chart: NDArray[np.int64]  # (F,) index into NAMES
    seams: dict[str, Seam] = field(default_factory=dict)
    on_seam: dict[str, NDArray[np.int64]] = field(default_factory=dict)  # vertices

    def faces_of(self, name: str) -> NDArray[np.int64]:
        """The numbers of a chart's faces."""
        return np.flatnonzero(self.chart == CHART_NAMES.index(name))


def cut_charts(mesh: Mesh, people: People) -> ChartedMesh:
    """Cut the template's skin."""
    joint = dict(zip(people.bones, people.template_heads, strict=True))
    work = ChartedMesh(mesh, np.full(len(mesh.faces), TRUNK))
    for side, sign in (("L", 1), ("R", -1)):
        _cut_arm(work, joint, side, sign)
    plane = joint["neck01"] + np.array([0, 0, 0.012])
    _cut_off_chart(work, "head_front", lambda x: (x - plane) @ (0, -0.35, 0.94), joint["head"])
    _cut_legs(work, joint)
    _halve_chart(
        work,
        ("torso_front", "torso_back"),
        lambda x: _front_depth(x[:, 2]) - x[:, 1],
        TRUNK,
    )
    _halve_chart(
        work,
        ("head_front", "head_back"),
        lambda x: -0.028 - x[:, 1],
        CHART_NAMES.index("head_front"),
    )
    for side, sign in (("L", 1), ("R", -1)):
        _slit_limbs(work, joint, side, sign)
    return work


def _cut_arm(work: ChartedMesh, joint: dict[str, Array], side: str, sign: int) -> None:
    shoulder, elbow, wrist = (joint[f"{b}.{side}"] for b in ("upperarm01", "lowerarm01", "wrist"))
    fingers = joint[f"finger3-1.{side}"]
    armpit = shoulder + 0.035 * _unit(elbow - shoulder)
    _cut_off_chart(work, f"arm.{side}", lambda x: (x - armpit) @ (sign * 0.93, 0, -0.36), fingers)
    down = _unit(wrist - elbow)
    arm = CHART_NAMES.index(f"arm.{side}")
    _cut_off_chart(
        work, f"hand.{side}", lambda x: (x - wrist - 0.005 * down) @ down, fingers, within=arm
    )


def _cut_legs(work: ChartedMesh, joint: dict[str, Array]) -> None:
    trunk = work.mesh.points[np.unique(work.mesh.faces[work.chart == TRUNK])]
    middle = trunk[(np.abs(trunk[:, 0]) < 0.012) & (trunk[:, 2] < 0.1)]
    crotch = middle[:, 2].min() - 0.006
    for side, sign in (("L", 1), ("R", -1)):
        thigh = np.array([sign * 0.2, 0, -0.6])
        _cut_off_chart(
            work, f"leg.{side}", lambda x: crotch + 0.4 * np.abs(x[:, 0]) - x[:, 2], thigh
        )
    for side in "LR":
        ankle, leg = joint[f"foot.{side}"], CHART_NAMES.index(f"leg.{side}")
        toes = ankle + np.array([0, -0.1, -0.06])
        height = ankle[2] + 0.015
        _cut_off_chart(work, f"foot.{side}", lambda x, z=height: z - x[:, 2], toes, within=leg)


def _front_depth(height: Array) -> Array:
    """Where the trunk's front ends, by height: between armpit and hip bone, through the sides."""
    heights, depths = (-0.1, 0.1, 0.35, 0.52, 0.6), (-0.012, -0.018, -0.028, -0.022, -0.02)
    return np.interp(height, heights, depths)


def _slit_limbs(work: ChartedMesh, joint: dict[str, Array], side: str, sign: int) -> None:
    arm = [joint[f"{bone}.{side}"] for bone in ("upperarm01", "lowerarm01", "wrist")]
    hip, knee, ankle, toe = (
        joint[f"{bone}.{side}"] for bone in ("upperleg01", "lowerleg01", "foot", "toe1-1")
    )
    ball = 0.5 * (toe + np.array([ankle[0] + sign * 0.03, -0.14, toe[2]]))
    _slit_chart(work, f"arm.{side}", Seam(arm, np.array([-sign * 0.8, 0.35, -0.45])))
    _slit_chart(
        work,
        f"leg.{side}",
        Seam([hip, knee + np.array([0, 0.01, 0]), ankle], np.array([-sign, 0.0, 0.0])),
    )
    _slit_chart(
        work,
        f"foot.{side}",
        Seam([ankle + np.array([0, 0, 0.035]), ball], np.array([0.0, 0.0, -1.0])),
    )


def _cut_off_chart(
    work: ChartedMesh, name: str, field: SurfaceField, near: Array, within: int = TRUNK
) -> None:
    """Make a chart of what lies on the positive side of a cut, in the part nearest to a point."""
    touched = (field(work.mesh.points)[work.mesh.faces] > 0).any(axis=1) & (work.chart == within)
    was, values = _split_faces(work, field, _nearest_part(work, touched, near))
    side = was & (values[work.mesh.faces].sum(axis=1) > 0)
    work.chart[_nearest_part(work, side, near)] = CHART_NAMES.index(name)


def _nearest_part(work: ChartedMesh, faces: NDArray[np.bool_], near: Array) -> NDArray[np.bool_]:
    chosen = np.flatnonzero(faces)
    part = connected_parts(work.mesh.faces[chosen], len(work.mesh.points))
    centres = work.mesh.points[work.mesh.faces[chosen]].mean(axis=1)
    home = part[np.square(centres - near).sum(axis=1).argmin()]
    mask = np.zeros(len(faces), bool)
    mask[chosen[part == home]] = True
    return mask


def _halve_chart(
    work: ChartedMesh, names: tuple[str, str], field: SurfaceField, within: int
) -> None:
    """Make two charts of one: the positive side and the other, each in one piece."""
    was, values = _split_faces(work, field, work.chart == within)
    side = values[work.mesh.faces].sum(axis=1)
    for sign, name in zip((1, -1), names, strict=True):
        work.chart[was & (np.sign(side) == sign)] = CHART_NAMES.index(name)
    for _ in range(3):
        for name, other in (names, names[::-1]):
            mine = work.faces_of(name)
            part = connected_parts(work.mesh.faces[mine], len(work.mesh.points))
            work.chart[mine[part != np.bincount(part).argmax()]] = CHART_NAMES.index(other)


def _slit_chart(work: ChartedMesh, name: str, seam: Seam) -> None:
    inner = (seam.inwards(work.mesh.points)[work.mesh.faces] > 0).all(axis=1)
    _, values = _split_faces(work, seam.distance, inner & (work.chart == CHART_NAMES.index(name)))
    points = work.mesh.points
    near = (values == 0) & (seam.inwards(points) > 0)
    mine = np.zeros(len(points), bool)
    mine[np.unique(work.mesh.faces[work.faces_of(name)])] = True
    work.seams[name], work.on_seam[name] = seam, np.flatnonzero(near & mine)


def _split_faces(
    work: ChartedMesh, field: SurfaceField, where: NDArray[np.bool_]
) -> tuple[NDArray[np.bool_], Array]:
    """Put vertices where a cut crosses edges of some faces.

    Returns:
        Which faces of the new mesh were of these, (F,), and on which side of the cut its vertices
        lie, (V,): 0 on it. The field may bend within a face, so it is not asked again.
    """
    mesh, values = work.mesh, field(work.mesh.points)
    values[np.abs(values) < ON_CUT_DISTANCE] = 0
    sign = np.sign(values)
    crossed: dict[tuple[int, int], int] = {}
    for a, b, c in mesh.faces[where]:
        for u, v in ((a, b), (b, c), (c, a)):
            if sign[u] * sign[v] < 0:
                crossed.setdefault((min(u, v), max(u, v)), len(mesh.points) + len(crossed))
    faces, parent = [], []
    for number, corners in enumerate(mesh.faces.tolist()):
        pieces = _face_pieces(corners, crossed, len(mesh.points))
        faces += pieces
        parent += [number] * len(pieces)
    work.chart = work.chart[parent]
    work.mesh = _add_crossings(mesh, values, crossed, np.array(faces))
    return where[parent], np.r_[values, np.zeros(len(crossed))]


def _face_pieces(
    corners: list[int], crossed: dict[tuple[int, int], int], first: int
) -> list[list[int]]:
    """A face cut along the new vertices, numbered from `first`, on its edges."""
    outline = []
    for u, v in zip(corners, corners[1:] + corners[:1], strict=True):
        outline.append(u)
        if (min(u, v), max(u, v)) in crossed:
            outline.append(crossed[min(u, v), max(u, v)])
    if len(outline) == 3:
        return [corners]
    if len(outline) == 5:  # one corner alone, and a quadrangle
        alone = next(
            k for k in range(5) if outline[k] < first <= min(outline[k - 1], outline[(k + 1) % 5])
        )
        a, m, b, c, n = (outline[(alone + k) % 5] for k in range(5))
        return [[a, m, n], [m, b, c], [m, c, n]]
    start = next(k for k, vertex in enumerate(outline) if vertex >= first)
    fan = outline[start:] + outline[:start]
    return [[fan[0], fan[k], fan[k + 1]] for k in range(1, len(fan) - 1)]


def _add_crossings(
    mesh: Mesh, values: Array, crossed: dict[tuple[int, int], int], faces: NDArray[np.int64]
) -> Mesh:
    if not crossed:
        return Mesh(mesh.source, mesh.points, faces)
    first, second = np.array(list(crossed)).T
    share = values[first] / (values[first] - values[second])
    rows = np.arange(len(crossed))
    entries = (np.r_[1 - share, share], (np.r_[rows, rows], np.r_[first, second]))
    added = sp.csr_matrix(entries, shape=(len(crossed), len(mesh.points)))
    points = np.vstack([mesh.points, added @ mesh.points])
    return Mesh(sp.vstack([mesh.source, added @ mesh.source]).tocsr(), points, faces)


def _unit(vector: Array) -> Array:
    return vector / np.linalg.norm(vector)
