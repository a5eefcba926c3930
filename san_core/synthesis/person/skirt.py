"""Skirts and coats: a tube around both legs with the texels of the leg charts.

The leg charts are painted as cloth down to the hem, so a rendered skirt agrees with its texture.
The tube adds only the surface where the cloth hangs, from leg to leg.
"""

import functools
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from san_core.synthesis.person.atlas import TEXTURE_SIZE, chart_rectangle, texel_map
from san_core.synthesis.person.body import Floats, Ints, current_body, vertex_normals
from san_core.synthesis.person.surface import texel_surface, vertex_surface

RINGS, SPOKES = 8, 32
MIN_UPRIGHT_SHARE = 0.9  # share of steps down a leg's chart that must lead down the leg


class Tube(NamedTuple):
    """The mesh of a skirt; its vertices are numbered from 0."""

    vertices: Floats  # (RINGS * SPOKES, 3)
    normals: Floats  # (RINGS * SPOKES, 3)
    uv: Floats  # (RINGS * (SPOKES + 2), 2) in texel centres
    faces: Ints  # (n, 3)
    uv_faces: Ints  # (n, 3)


class Mesh(NamedTuple):
    """The mesh that the rasteriser draws."""

    vertices: Floats  # (V, 3)
    normals: Floats  # (V, 3)
    uv: Floats  # (U, 2) in texel centres
    faces: Ints  # (F, 3)
    uv_faces: Ints  # (F, 3)


def clothed_mesh(posed: Floats, hem: float) -> Mesh:
    """The posed body (V, 3), with a skirt down to `hem` along the legs if `hem` is above 0."""
    people = current_body()
    normals = vertex_normals(posed, people.faces)
    if hem <= 0:
        return Mesh(posed, normals, people.uv, people.faces, people.uv_faces)
    tube = skirt_tube(posed, hem)
    faces, uv_faces = _clothed_faces()
    return Mesh(
        np.concatenate([posed, tube.vertices]),
        np.concatenate([normals, tube.normals]),
        np.concatenate([people.uv, tube.uv]),
        faces,
        uv_faces,
    )


def skirt_tube(posed: Floats, hem: float) -> Tube:
    """A tube around the legs of a posed body (V, 3), from the hips to `hem`.

    In each direction a ring is as wide as the legs at its height, and hardly narrower than the
    ring above.
    """
    stations = np.linspace(0, hem, RINGS)
    band = max(0.045, 0.6 * hem / (RINGS - 1))
    directions, rings = _spoke_directions(), np.empty((RINGS, SPOKES, 3), np.float32)
    legs, radius = _leg_vertices(), np.zeros(SPOKES, np.float32)
    lefts = 0.5 + 0.5 * directions[:, 0]
    for row, station in enumerate(stations):
        near = legs[np.abs(vertex_surface().along_leg[legs] - station) < band]
        points, on_left = posed[near], vertex_surface().x[near] > 0
        centre = 0.5 * (points[:, :2].max(axis=0) + points[:, :2].min(axis=0))
        reach = ((points[:, :2] - centre) @ directions.T).max(axis=0) + 0.010 + 0.014 * row / RINGS
        radius = np.maximum(reach, 0.985 * radius).astype(np.float32)
        height = points[on_left, 2].mean() * lefts + points[~on_left, 2].mean() * (1 - lefts)
        rings[row, :, :2] = centre + radius[:, None] * directions
        rings[row, :, 2] = height
    flat, (faces, uv_faces) = rings.reshape(-1, 3), _tube_faces()
    return Tube(flat, vertex_normals(flat, faces), _tube_uv(stations, hem), faces, uv_faces)


def check_leg_charts() -> None:
    """Raise ValueError unless the legs' charts are upright rectangles, as `body_file` asks."""
    left, right = chart_rectangle("leg.L"), chart_rectangle("leg.R")
    if (left.top, left.bottom) != (right.top, right.bottom):
        raise ValueError(
            f"the body's atlas has leg.L in rows {left.top} to {left.bottom - 1}, leg.R in"
            f" {right.top} to {right.bottom - 1}; they must be the same"
        )
    charts, along = (
        values.reshape(TEXTURE_SIZE, TEXTURE_SIZE)
        for values in (texel_map().chart, texel_surface().along_leg)
    )
    for name, box in (("leg.L", left), ("leg.R", right)):
        inside = (slice(box.top, box.bottom), slice(box.left, box.right))
        if (charts[inside] != current_body().charts.index(name)).any():
            raise ValueError(f"the body's atlas shows other charts inside the rectangle of {name}")
        if np.mean(np.diff(along[inside], axis=0) > 0) < MIN_UPRIGHT_SHARE:
            raise ValueError(f"the body's atlas has {name} not upright, the hip above")


@functools.cache
def _leg_vertices() -> NDArray[np.intp]:
    return np.flatnonzero(vertex_surface().leg | vertex_surface().torso)


@functools.cache
def _spoke_directions() -> Floats:
    """Outward directions (SPOKES, 2): front, left, back, right."""
    angle = np.linspace(0, 2 * np.pi, SPOKES, endpoint=False)
    return np.stack([np.sin(angle), -np.cos(angle)], axis=1).astype(np.float32)


def _tube_uv(stations: NDArray[np.float64], hem: float) -> Floats:
    """Texels of the tube's vertices: columns by direction, rows by distance along the leg."""
    along = np.minimum(0.985 * stations, 0.97 * hem)
    uv = np.empty((RINGS, SPOKES + 2, 2), np.float32)
    uv[:, :, 0] = _leg_columns()
    uv[:, :, 1] = np.stack([_leg_rows(along, column) for column in _leg_columns()], axis=1)
    uv[0, :, 1] = chart_rectangle("leg.L").top
    return uv.reshape(-1, 2)


@functools.cache
def _leg_columns() -> Floats:
    """Columns (SPOKES + 2,) front to back on the left leg's chart, back to front on the right's."""
    depth, spokes, columns = (
        texel_surface().y.reshape(TEXTURE_SIZE, TEXTURE_SIZE),
        SPOKES // 2 + 1,
        [],
    )
    for name, from_front in (("leg.L", True), ("leg.R", False)):
        box = chart_rectangle(name)
        by_column = depth[box.top : box.bottom, box.left : box.right].mean(axis=0)
        half = len(by_column) // 2
        front_first = by_column[:half].mean() < by_column[half:].mean()
        run = np.linspace(box.left, box.right - 1, spokes)
        columns.append(run if front_first == from_front else run[::-1])
    return np.concatenate(columns).astype(np.float32)


def _leg_rows(along: NDArray[np.float64], column: float) -> NDArray[np.float64]:
    """The rows of a column of the leg charts at given distances along the leg."""
    first, profile = _leg_profile(round(column))
    rows: NDArray[np.float64] = np.interp(along, profile, first + np.arange(len(profile)))
    return rows


@functools.cache
def _leg_profile(column: int) -> tuple[int, Floats]:
    """The top row of the leg charts, and the distance along the leg of each texel in a column."""
    box = chart_rectangle("leg.L")
    profile = texel_surface().along_leg.reshape(TEXTURE_SIZE, TEXTURE_SIZE)[
        box.top : box.bottom, column
    ]
    return box.top, np.maximum.accumulate(profile)


@functools.cache
def _tube_faces() -> tuple[Ints, Ints]:
    """Faces of the tube as vertices and as UV vertices, whose rings are cut front and back."""
    faces, uv_faces, wide = [], [], SPOKES + 2
    for row in range(RINGS - 1):
        for spoke in range(SPOKES):
            a, b = row * SPOKES + spoke, row * SPOKES + (spoke + 1) % SPOKES
            faces += [(a, a + SPOKES, b + SPOKES), (a, b + SPOKES, b)]
            u = row * wide + spoke + (spoke >= SPOKES // 2)
            uv_faces += [(u, u + wide, u + wide + 1), (u, u + wide + 1, u + 1)]
    return np.array(faces, np.int32), np.array(uv_faces, np.int32)


@functools.cache
def _clothed_faces() -> tuple[Ints, Ints]:
    """Faces of body and tube in one mesh."""
    people, (faces, uv_faces) = current_body(), _tube_faces()
    joined = np.concatenate([people.faces, faces + len(people.mean)])
    return joined.astype(np.int32), np.concatenate(
        [people.uv_faces, uv_faces + len(people.uv)]
    ).astype(np.int32)
