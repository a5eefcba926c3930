"""The atlas: the point of the body that each texel of a texture shows.

A texture is a square tiled without gaps by 12 rectangular charts (front and back of torso and
head, arms, hands, legs, feet). It is painted at 256x256 and averaged for smaller sizes.
The layout differs from those of SMPL and SURREAL; textures of different atlases cannot be mixed.
The layout is part of the body's file; `body_file` describes how to use another one.
"""

import functools
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from scipy.sparse import coo_array, csr_array
from scipy.spatial import cKDTree

from san_core.synthesis.kernels import _raster
from san_core.synthesis.person.body import Floats, Ints, current_body
from san_core.synthesis.person.body_file import TEXTURE_SIZE as TEXTURE_SIZE
from san_core.synthesis.person.body_file import Body

ATLAS_NAME = "san-atlas-1"  # the package's; the name manifests carry, for textures cannot be mixed
# Of the height, as a mean over a chart. A hand that is mirrored in its place is at 0.023.
MAX_ATLAS_GAP = 0.01
SEAM_PULL = 0.0003  # metres that one texel of distance counts for in mirror_index


class Rectangle(NamedTuple):
    """A chart's texels: columns left to right - 1 and rows top to bottom - 1."""

    left: int
    top: int
    right: int
    bottom: int


@dataclass(frozen=True, eq=False)
class TexelMap:
    """The points of the body that the N = 256 * 256 texels show, row by row."""

    face: Ints  # (N,)
    barycentric: Floats  # (N, 3)
    chart: NDArray[np.intp]  # (N,)
    points: Floats  # (N, 3) on the mean person in the rest pose


@functools.cache
def texel_map() -> TexelMap:
    """The surface point of every texel, computed once in a process from the UV coordinates."""
    return _bake(current_body())


def _bake(people: Body) -> TexelMap:
    """The surface point of every texel of a body's atlas.

    A texel that no face covers, as in other layouts, gets the point of the nearest covered one.
    """
    face = np.full((TEXTURE_SIZE, TEXTURE_SIZE), -1, np.int32)
    barycentric = np.zeros((TEXTURE_SIZE, TEXTURE_SIZE, 3), np.float32)
    _raster.bake(people.uv, people.uv_faces, face, barycentric)
    if (gaps := face < 0).any():
        rows, columns = distance_transform_edt(gaps, return_distances=False, return_indices=True)
        face, barycentric = face[rows, columns], barycentric[rows, columns]
    flat, share = face.ravel(), barycentric.reshape(-1, 3)
    corners = people.mean[people.faces[flat]]  # (N, 3 corners, 3)
    points = np.einsum("nc,nci->ni", share, corners)
    return TexelMap(flat, share, people.face_chart[flat], points)


def is_same_atlas(one: Body, other: Body) -> bool:
    """Whether the texels of two bodies show the same points, whatever the names of the atlases.

    Charts must cover the same texels with the same orientation: their points on the mean people,
    scaled to equal height, may be MAX_ATLAS_GAP apart on average.
    """
    charts, places = [], []
    for people in (one, other):
        baked = _bake(people)
        charts.append(np.array(people.charts)[baked.chart])
        places.append(baked.points / np.ptp(people.mean[:, 2]))
    if (charts[0] != charts[1]).any():
        return False
    gaps = np.linalg.norm(places[0] - places[1], axis=1)
    return all(gaps[charts[0] == chart].mean() <= MAX_ATLAS_GAP for chart in one.charts)


def chart_rectangle(name: str) -> Rectangle:
    """The texels of a chart of the 256x256 texture."""
    people = current_body()
    corners = people.uv[people.uv_faces[people.face_chart == people.charts.index(name)]]
    left, top = np.rint(corners.min(axis=(0, 1))).astype(int)
    right, bottom = np.rint(corners.max(axis=(0, 1))).astype(int) + 1
    return Rectangle(int(left), int(top), int(right), int(bottom))


def check_texture_size(size: int) -> None:
    """Raise ValueError unless a painted texture can be averaged to `size` texels per side."""
    if size < 1 or TEXTURE_SIZE % size:
        raise ValueError(
            f"texture size {size} does not divide {TEXTURE_SIZE}: textures are averaged over whole "
            f"blocks, so use a divisor of {TEXTURE_SIZE}, such as 32, 64, 128 or 256"
        )


@functools.cache
def mirror_index() -> NDArray[np.intp]:
    """For every texel of the 256x256 texture, the texel that shows the mirrored point of the body.

    `texture.reshape(-1, 3)[mirror_index()].reshape(SIZE, SIZE, 3)` is the texture of the mirrored
    person. Each index is the texel of the mirrored chart that is nearest to the point reflected in
    the body's plane of symmetry.

    Returns:
        (SIZE * SIZE,), read-only.
    """
    chart, points = texel_map().chart, texel_map().points
    layout = np.stack(
        np.divmod(np.arange(TEXTURE_SIZE * TEXTURE_SIZE), TEXTURE_SIZE), axis=1
    )  # rows and columns
    index = np.empty(TEXTURE_SIZE * TEXTURE_SIZE, np.intp)
    for source, target in enumerate(_mirrored_charts()):
        texels, candidates = np.flatnonzero(chart == source), np.flatnonzero(chart == target)
        reflected = points[texels] * np.array([-1, 1, 1], np.float32)
        nearest = cKDTree(points[candidates]).query(reflected)[1]
        # Both edges of a chart cut along a seam show one line of the body, and the nearest point
        # alone may jump from one to the other; a small pull towards the mirrored layout decides.
        expected = _mirrored_layout(layout[texels], layout[candidates][nearest])
        tree = cKDTree(np.hstack([points[candidates], layout[candidates] * SEAM_PULL]))
        index[texels] = candidates[tree.query(np.hstack([reflected, expected * SEAM_PULL]))[1]]
    index.setflags(write=False)
    return index


def mirror_matrix(size: int) -> csr_array:
    """The mirror of textures averaged to `size` texels on a side: `mirror_index` in block averages.

    `mirror_matrix(size) @ texture.reshape(-1, 3)` is the texture of the mirrored person. The edges
    of charts do not lie on the grid of a small texture, so the mirror image of a texel covers
    several texels, weighted by their shares. A single texel would be inaccurate at 32x32.

    Returns:
        (size * size, size * size) float32 in CSR form. Each row sums to 1. At 256 each row has a
        single 1, in column `mirror_index()`.

    Raises:
        ValueError: size does not divide 256.
    """
    check_texture_size(size)
    k = TEXTURE_SIZE // size
    rows, columns = np.divmod(np.arange(TEXTURE_SIZE * TEXTURE_SIZE), TEXTURE_SIZE)
    block = rows // k * size + columns // k  # of every texel
    shares = np.full(TEXTURE_SIZE * TEXTURE_SIZE, 1 / k**2, np.float32)
    texels = (block, block[mirror_index()])
    return coo_array((shares, texels), shape=(size * size, size * size)).tocsr()


def _mirrored_charts() -> list[int]:
    """The mirrored chart of every chart: left and right limbs are swapped."""
    charts = current_body().charts
    swap = {"L": "R", "R": "L"}
    sides = [name.rpartition(".") for name in charts]
    return [
        charts.index(f"{limb}.{swap[side]}") if limb else index
        for index, (limb, _, side) in enumerate(sides)
    ]


def _mirrored_layout(texels: NDArray[np.intp], matches: NDArray[np.intp]) -> NDArray[np.intp]:
    """The positions of a chart's texels (n, 2) on its mirrored chart, in its orientation."""
    expected = np.empty_like(texels)
    for axis in (0, 1):
        place = texels[:, axis] - texels[:, axis].min()
        turned = np.cov(texels[:, axis], matches[:, axis])[0, 1] < 0
        expected[:, axis] = matches[:, axis].min() + (place.max() - place if turned else place)
    return expected
