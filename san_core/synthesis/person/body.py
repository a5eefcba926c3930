"""The body in use: its shape, poses by linear blend skinning, and smoothing.

The package's body was derived from the MakeHuman base mesh, targets and rig (CC0): 4,457 vertices,
12 principal shape components, 20 joints, four bone weights per vertex, and an atlas of 12
rectangular charts. `use_body` replaces it. Metres; x to the person's left, y to the back, z up; the
rest pose faces -y.

Legend: V vertices, F faces, B bones, K shape components, S sampled shapes.
"""

import functools
from importlib import resources
from pathlib import Path

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from san_core.synthesis.kernels import _raster
from san_core.synthesis.person.body_file import Body as Body
from san_core.synthesis.person.body_file import Floats as Floats
from san_core.synthesis.person.body_file import Ints as Ints
from san_core.synthesis.person.body_file import read_body

SPAN_ROUNDS = 28  # of smoothing, some ten centimetres wide
FLATTENED_SHARE = 0.3  # share of what stands out of the body that cloth presses flat
SOLE_HEIGHT = 0.024  # metres above the ground to which the edge of a sole reaches
_in_use: list[Body] = []  # at most one


@functools.cache
def shipped_body() -> Body:
    """The body of the package, whichever body is in use."""
    with resources.files("san_core.synthesis.person").joinpath("body.npz").open("rb") as file:
        return read_body(file, name="body.npz")


def current_body() -> Body:
    """The body of this process: that of `use_body`, else the package's. It is read once."""
    if not _in_use:
        _in_use.append(shipped_body())
    return _in_use[0]


def use_body(file: Path) -> None:
    """Use the body and the atlas of a file in this process.

    Values derived from the body are cached, so a process cannot change its body after first use.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: it is not a body that can be dressed and posed.
        RuntimeError: this process has already used another body.
    """
    if not file.is_file():
        raise FileNotFoundError(f"there is no file {file} with a body")
    with file.open("rb") as data:
        wanted = read_body(data, name=str(file))
    if _in_use and _in_use[0].sha256 != wanted.sha256:
        raise RuntimeError(f"this process already uses another body, so it cannot use {file}")
    if not _in_use:
        _in_use.append(wanted)


def sample_shape(rng: np.random.Generator, *, female: bool) -> Floats:
    """Shape coefficients (K,) of a random adult: a blend of two sampled people of that sex."""
    people = current_body()
    first, second = rng.choice(np.flatnonzero(people.adult & (people.female == female)), 2)
    share = np.float32(rng.random())
    shape: Floats = people.shapes[first] * (1 - share) + people.shapes[second] * share
    return shape


def joint_positions(shape: Floats) -> Floats:
    """Joint positions (B, 3) of a person in the rest pose."""
    people = current_body()
    # einsum rather than a matrix product: the same bytes whatever the number of BLAS threads.
    moved: Floats = people.joints + np.einsum("k,kbi->bi", shape, people.joint_components)
    return moved


def pose_vertices(shape: Floats, rotations: Floats, *, thickness: Floats, hang: Floats) -> Floats:
    """Vertices (V, 3) of a dressed person in a pose.

    Args:
        shape: (K,) coefficients.
        rotations: (B, 3, 3) orientation of each bone in the body's frame; identity at rest.
        thickness: (V,) distance of clothes and hair from the skin along the normal, in metres.
        hang: (V,) from 0, cloth follows the skin, to 1, cloth spans the hollows of the skin.
    """
    people = current_body()
    rest = people.mean + np.einsum("k,kvi->vi", shape, people.components)
    normals = vertex_normals(rest, people.faces)
    spanned, spanned_components = _spanned_shapes()
    span = spanned + np.einsum("k,kvi->vi", shape, spanned_components) - rest
    inwards = np.minimum(np.einsum("vi,vi->v", span, normals), 0)
    # What stands out is pressed flat a little, but cloth does not cut into the body.
    span -= normals * (np.float32(1 - FLATTENED_SHARE) * inwards)[:, None]
    rest = rest + span * hang[:, None] + normals * thickness[:, None] + shoe_offsets()
    out: Floats = np.empty_like(rest)
    transforms = _bone_transforms(joint_positions(shape), rotations)
    _raster.skin(rest, people.weight_bones, people.weights, transforms, out)
    return out


@functools.cache
def _spanned_shapes() -> tuple[Floats, Floats]:
    """The smoothed mean (V, 3) and components (K, V, 3) of shape, for cloth that spans hollows.

    Smoothing is linear, so a smoothed person is a sum of smoothed components.
    """
    people = current_body()
    mean = smooth_values(people.mean, rounds=SPAN_ROUNDS)
    components = [smooth_values(component, rounds=SPAN_ROUNDS) for component in people.components]
    return mean.astype(np.float32), np.stack(components).astype(np.float32)


def vertex_normals(vertices: Floats, faces: Ints) -> Floats:
    """Outward unit normals (V, 3), weighted by the areas of faces."""
    out = np.zeros_like(vertices)
    _raster.vertex_normals(vertices, faces, out)
    return out


def _bone_transforms(joints: Floats, rotations: Floats) -> Floats:
    """Transforms from rest to pose, (B, 3, 4): bones rotate about their joints, below parents."""
    people = current_body()
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


def smooth_values(values: Floats, *, rounds: int, share: float = 0.5) -> Floats:
    """Values per vertex (V,) or (V, n), moved `rounds` times towards the mean of neighbours."""
    for _ in range(rounds):
        values = values * np.float32(1 - share) + np.float32(share) * (_neighbour_mean() @ values)
    return values


@functools.cache
def _neighbour_mean() -> sp.csr_matrix:
    """A (V, V) matrix that averages over adjacent vertices."""
    people = current_body()
    pairs = np.concatenate([people.faces[:, [a, b]] for a, b in ((0, 1), (1, 2), (2, 0))])
    edges = np.unique(np.sort(pairs, axis=1), axis=0)
    rows, columns = np.r_[edges[:, 0], edges[:, 1]], np.r_[edges[:, 1], edges[:, 0]]
    degree = np.bincount(rows, minlength=len(people.mean)).astype(np.float32)
    size = (len(people.mean), len(people.mean))
    return sp.csr_matrix((1 / degree[rows], (rows, columns)), shape=size)


@functools.cache
def vertex_chart() -> NDArray[np.intp]:
    """The chart of each vertex (V,); on the edge of charts, the last of these charts."""
    people = current_body()
    chart = np.zeros(len(people.mean), np.intp)
    for index in range(len(people.charts)):
        chart[np.unique(people.faces[people.face_chart == index])] = index
    return chart


@functools.cache
def shoe_offsets() -> Floats:
    """Displacements (V, 3) that turn the mean person's feet into shoes: joined toes, flat sole."""
    people = current_body()
    feet = np.isin(vertex_chart(), [people.charts.index(f"foot.{side}") for side in "LR"])
    smooth = np.array(people.mean)
    for _ in range(22):
        smooth[feet] = smooth_values(smooth, rounds=1, share=0.65)[feet]
    shrunk = np.linalg.norm(smooth - people.mean, axis=1, keepdims=True)
    normals = vertex_normals(smooth, people.faces)
    shod = smooth + normals * np.clip(0.75 * shrunk, 0.002, 0.03)
    floor = people.mean[:, 2].min()
    low = np.clip((floor + SOLE_HEIGHT - shod[:, 2]) / SOLE_HEIGHT, 0, 1)[:, None]
    shod += 0.007 * np.sqrt(low) * normals * np.array([1, 1, 0], np.float32)
    shod[:, 2] = np.where(low[:, 0] > 0.55, floor, shod[:, 2])
    moved = np.where(feet[:, None], shod - people.mean, 0).astype(np.float32)
    moved[:, 2] = np.maximum(moved[:, 2], floor - people.mean[:, 2])
    return moved
