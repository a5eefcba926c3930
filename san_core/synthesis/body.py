"""The body: a parametric mesh with a skeleton, its shape space, and linear blend skinning.

The asset `body.npz` was distilled from the MakeHuman base mesh, targets and rig (CC0): 4,457
vertices, 12 principal shape components, 20 joints, four bone weights a vertex, and an atlas of 12
rectangular charts. Metres; x to the person's left, y to the back, z up; the rest pose faces -y.

Legend: V vertices, F faces, B bones, K shape components, S sampled shapes.
"""

import functools
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from san_core.synthesis import _raster

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Body:
    """The asset's arrays, read-only; `body()` gives the one instance."""

    mean: Floats  # (V, 3) rest positions of the mean person
    components: Floats  # (K, V, 3), scaled so that coefficients have unit variance
    joints: Floats  # (B, 3)
    joint_components: Floats  # (K, B, 3)
    bones: tuple[str, ...]  # B names, a parent before its children
    parents: tuple[int, ...]  # -1 for the root
    weight_bones: Ints  # (V, 4)
    weights: Floats  # (V, 4), rows sum to 1
    faces: Ints  # (F, 3), wound so that normals point outwards
    uv: Floats  # (U, 2) column and row in texel centres of a 256x256 texture
    uv_faces: Ints  # (F, 3)
    face_chart: NDArray[np.intp]  # (F,) index into charts
    charts: tuple[str, ...]
    shapes: Floats  # (S, K) coefficients of sampled people
    female: NDArray[np.bool_]  # (S,)
    adult: NDArray[np.bool_]  # (S,)

    def bone(self, name: str) -> int:
        """The index of a bone."""
        return self.bones.index(name)

    def joint(self, name: str) -> Floats:
        """Where a bone of the mean person begins: (3,)."""
        joint: Floats = self.joints[self.bone(name)]
        return joint


@functools.cache
def body() -> Body:
    """The body of the package's asset, read once a process."""
    with resources.files("san_core.synthesis").joinpath("body.npz").open("rb") as file:
        arrays = dict(np.load(file, allow_pickle=False))
    weights = arrays["ww"].astype(np.float32)
    return Body(
        mean=_fixed(arrays["mean"], np.float32),
        components=_fixed(arrays["comp"], np.float32),
        joints=_fixed(arrays["jmean"], np.float32),
        joint_components=_fixed(arrays["jcomp"], np.float32),
        bones=tuple(str(name) for name in arrays["names"]),
        parents=tuple(int(parent) for parent in arrays["parents"]),
        weight_bones=_fixed(arrays["wi"], np.int32),
        weights=_fixed(weights / weights.sum(axis=1, keepdims=True), np.float32),
        faces=_fixed(arrays["F"], np.int32),
        uv=_fixed(arrays["UV"], np.float32),
        uv_faces=_fixed(arrays["FU"], np.int32),
        face_chart=_fixed(arrays["chart"], np.intp),
        charts=tuple(str(name) for name in arrays["charts"]),
        shapes=_fixed(arrays["coefs"], np.float32),
        female=_fixed(arrays["ph"][:, 0] > 0.5, np.bool_),
        adult=_fixed(arrays["ph"][:, 1] > 0.6, np.bool_),
    )


def _fixed(array: NDArray[Any], dtype: type[np.generic]) -> NDArray[Any]:
    """A contiguous, read-only copy: cached arrays are shared by every caller."""
    fixed = np.ascontiguousarray(array, dtype)
    fixed.setflags(write=False)
    return fixed


def sample_shape(rng: np.random.Generator, *, female: bool) -> Floats:
    """Shape coefficients (K,) of an adult: a random blend of two sampled people of that sex."""
    people = body()
    first, second = rng.choice(np.flatnonzero(people.adult & (people.female == female)), 2)
    share = np.float32(rng.random())
    shape: Floats = people.shapes[first] * (1 - share) + people.shapes[second] * share
    return shape


def joints_of(shape: Floats) -> Floats:
    """Joint positions (B, 3) of a person in the rest pose."""
    people = body()
    # einsum rather than a matrix product: the same bytes whatever the number of BLAS threads.
    moved: Floats = people.joints + np.einsum("k,kbi->bi", shape, people.joint_components)
    return moved


def posed(shape: Floats, rotations: Floats, *, thickness: Floats) -> Floats:
    """Vertices (V, 3) of a dressed person in a pose.

    Args:
        shape: (K,) coefficients.
        rotations: (B, 3, 3) orientation of every bone in the body's frame, identity at rest.
        thickness: (V,) metres that clothes and hair stand off the skin, along the normal.
    """
    people = body()
    rest = people.mean + np.einsum("k,kvi->vi", shape, people.components)
    rest = rest + vertex_normals(rest, people.faces) * thickness[:, None] + _shoes()
    out: Floats = np.empty_like(rest)
    transforms = _transforms(joints_of(shape), rotations)
    _raster.skin(rest, people.weight_bones, people.weights, transforms, out)
    return out


def vertex_normals(vertices: Floats, faces: Ints) -> Floats:
    """Outward unit normals (V, 3), each face counted by its area."""
    out = np.zeros_like(vertices)
    _raster.vertex_normals(vertices, faces, out)
    return out


def _transforms(joints: Floats, rotations: Floats) -> Floats:
    """Rest to posed, (B, 3, 4): joints hang from their parents, bones turn about their joints."""
    people = body()
    position = np.zeros_like(joints)
    for bone, parent in enumerate(people.parents):
        if parent < 0:
            position[bone] = joints[bone]
        else:
            arm = joints[bone] - joints[parent]
            position[bone] = position[parent] + rotations[parent] @ arm
    transforms = np.empty((len(joints), 3, 4), np.float32)
    transforms[:, :, :3] = rotations
    transforms[:, :, 3] = position - np.einsum("bij,bj->bi", rotations, joints)
    return transforms


def smoothed(values: Floats, *, rounds: int, share: float = 0.5) -> Floats:
    """Values per vertex (V,) or (V, n), moved `rounds` times towards their neighbours' mean."""
    for _ in range(rounds):
        values = values * np.float32(1 - share) + np.float32(share) * (_neighbour_mean() @ values)
    return values


@functools.cache
def _neighbour_mean() -> sp.csr_matrix:
    """A (V, V) matrix that averages over the vertices joined by an edge."""
    people = body()
    pairs = np.concatenate([people.faces[:, [a, b]] for a, b in ((0, 1), (1, 2), (2, 0))])
    edges = np.unique(np.sort(pairs, axis=1), axis=0)
    rows, columns = np.r_[edges[:, 0], edges[:, 1]], np.r_[edges[:, 1], edges[:, 0]]
    degree = np.bincount(rows, minlength=len(people.mean)).astype(np.float32)
    size = (len(people.mean), len(people.mean))
    return sp.csr_matrix((1 / degree[rows], (rows, columns)), shape=size)


@functools.cache
def vertex_chart() -> NDArray[np.intp]:
    """The chart each vertex (V,) lies in; on a cut it is the last of the charts that meet."""
    people = body()
    chart = np.zeros(len(people.mean), np.intp)
    for index in range(len(people.charts)):
        chart[np.unique(people.faces[people.face_chart == index])] = index
    return chart


@functools.cache
def _shoes() -> Floats:
    """Displacements (V, 3) that smooth the toes into a shoe and keep its sole on the ground."""
    people = body()
    feet = np.isin(vertex_chart(), [people.charts.index(f"foot.{side}") for side in "LR"])
    smooth = np.array(people.mean)
    for _ in range(14):
        smooth[feet] = smoothed(smooth, rounds=1, share=0.65)[feet]
    shrunk = np.linalg.norm(smooth - people.mean, axis=1, keepdims=True)
    outwards = vertex_normals(smooth, people.faces) * np.clip(0.5 * shrunk, 0, 0.02)
    moved = np.where(feet[:, None], smooth + outwards - people.mean, 0).astype(np.float32)
    floor = people.mean[:, 2].min()
    moved[:, 2] = np.maximum(moved[:, 2], floor - people.mean[:, 2])
    return moved
