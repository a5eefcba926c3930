"""Draws a mesh as a camera sees it, with its shadow, over a background.

The camera's frame: x to the right, y away from the camera along the ground, z up. Images are
rendered with 2x2 samples per pixel.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

from san_core.images.pixels import Pixels
from san_core.synthesis.camera.light import Light, body_openness
from san_core.synthesis.kernels import _raster
from san_core.synthesis.person.atlas import TEXTURE_SIZE
from san_core.synthesis.person.body import Floats
from san_core.synthesis.person.skirt import Mesh

SAMPLES_PER_SIDE = 2  # on a side of every pixel; _raster.composite averages 2 x 2
SKIRT_OPENNESS = 0.95
CONTACT_HEIGHT = 0.09  # metres above the ground at which a foot hardly darkens it any more
NO_UV = np.zeros((0, 0, 2), np.float32)


@dataclass(frozen=True)
class View:
    """The position of the camera relative to a person, and the crop. Angles in radians."""

    azimuth: float  # 0 from the front, pi / 2 from the person's right, pi from behind
    elevation: float  # of the camera above the person, 0 level
    distance: float  # metres
    fill: float  # share of the image's height that the person takes; above 1 the box cuts
    shift: tuple[float, float] = (0.0, 0.0)  # to the right and down, shares of width and height
    stretch: float = 1.0  # how much wider than true: boxes become images of one shape


@dataclass(frozen=True, eq=False)
class FramedMesh:
    """A mesh in the frame of a camera, with the crop that the view specifies."""

    mesh: Mesh
    view: View
    size: tuple[int, int]  # rows, columns
    heading: Floats  # (3, 3) from the body's frame to the camera's
    tilt: Floats  # (3, 3) by the camera's elevation
    points: Floats  # (V, 3) in the camera's frame
    screen: Floats  # (V, 3) column, row, inverse depth
    scale: float  # pixels a unit of slope
    axis: tuple[float, float]  # column and row of the optical axis

    @property
    def horizon(self) -> float:
        """The row of the horizon; it may lie outside the image."""
        return self.axis[1] - float(np.tan(self.view.elevation)) * self.scale


class Drawing(NamedTuple):
    """A rendered picture before the sensor is applied."""

    image: Floats  # (H, W, 3) RGB, 0-255
    alpha: Floats  # (H, W) share of each pixel that the mesh covers


def frame_mesh(mesh: Mesh, view: View, size: tuple[int, int]) -> FramedMesh:
    """Place a mesh before a camera; shrink a wide one to the box unless the box crops people."""
    rows, columns = size
    cos, sin = np.cos(view.azimuth), np.sin(view.azimuth)
    heading = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]], np.float32)
    cos, sin = np.cos(view.elevation), np.sin(view.elevation)
    tilt = np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]], np.float32)
    middle = 0.5 * (mesh.vertices.min(axis=0) + mesh.vertices.max(axis=0))
    points = (mesh.vertices - middle) @ heading.T
    x, y, inverse = _project(points, tilt, view.distance)
    x = x * np.float32(view.stretch)
    widest = 0.98 if view.fill <= 1 else view.fill
    scale = min(view.fill * rows / np.ptp(y), widest * columns / np.ptp(x))
    left = columns * (0.5 + view.shift[0]) - scale * 0.5 * (x.max() + x.min())
    top = rows * (0.5 + view.shift[1]) - scale * 0.5 * (y.max() + y.min())
    return FramedMesh(
        mesh=mesh,
        view=view,
        size=size,
        heading=heading,
        tilt=tilt,
        points=points,
        screen=np.stack([x * scale + left, y * scale + top, inverse], axis=1).astype(np.float32),
        scale=float(scale),
        axis=(float(left), float(top)),
    )


class _Projected(NamedTuple):
    """Projected points: slopes to the right and down, and inverse depth, (V,) each."""

    x: Floats
    y: Floats
    inverse: Floats


def _project(points: Floats, tilt: Floats, distance: float) -> _Projected:
    """Project points (V, 3) in the camera's frame, from a distance in metres."""
    seen = points @ tilt.T
    inverse: Floats = np.reciprocal(seen[:, 1] + np.float32(distance))
    return _Projected(seen[:, 0] * inverse, -seen[:, 2] * inverse, inverse)


def draw_mesh(
    framed: FramedMesh,
    texture: Pixels,
    *,
    light: Light,
    background: Floats,
    uv: Floats = NO_UV,
) -> Drawing:
    """Render the framed mesh, lit and textured, with its shadow, over a background.

    Args:
        framed: the mesh before its camera.
        texture: (T, T, 3), of the size that the UV coordinates of the mesh refer to.
        light: in the camera's frame.
        background: (H, W, 3) RGB, 0-255.
        uv: array for the texel of each sample, as in `render_uv`; None if it is not needed.
    """
    rows, columns = framed.size
    normals = framed.mesh.normals @ framed.heading.T
    rgba = _rasterise_samples(
        framed, texture, light.shading(normals, _mesh_openness(framed.mesh)), uv
    )
    image, alpha = np.empty((rows, columns, 3), np.float32), np.empty((rows, columns), np.float32)
    _raster.composite(rgba, background, _shadow_factors(framed, light), image, alpha)
    return Drawing(image, alpha)


def empty_uv(size: tuple[int, int]) -> Floats:
    """An array (2H, 2W, 2) of -1, for the texel of each sample of an image of that size."""
    rows, columns = size
    return np.full((rows * SAMPLES_PER_SIDE, columns * SAMPLES_PER_SIDE, 2), -1, np.float32)


def dense_map(uv: Floats, alpha: Floats) -> Pixels:
    """The texel of each pixel, as an image: red its column, green its row, blue the mask.

    The texel is that of one sample of the pixel, never a mean of several, because neighbouring
    samples may lie on different charts.

    Args:
        uv: (2H, 2W, 2), as `draw_mesh` writes it.
        alpha: (H, W) share of each pixel that the mesh covers.

    Returns:
        (H, W, 3): column and row, 0-255, in a 256x256 texture, 0 if no sample is on the mesh. Blue,
        0-255, is the share of the pixel that the mesh covers.
    """
    rows, columns = alpha.shape
    samples = uv.reshape(rows, SAMPLES_PER_SIDE, columns, SAMPLES_PER_SIDE, 2)
    texel = samples[:, 0, :, 0]
    for row, column in ((0, 1), (1, 0), (1, 1)):
        texel = np.where(texel < 0, samples[:, row, :, column], texel)
    image = np.empty((rows, columns, 3), np.uint8)
    image[..., :2] = np.rint(np.maximum(texel, 0))
    image[..., 2] = np.rint(255 * alpha)
    return image


def render_uv(framed: FramedMesh) -> Floats:
    """The texel of each sample: (2H, 2W, 2) column and row, -1 off the mesh."""
    out = empty_uv(framed.size)
    dark = np.zeros_like(framed.mesh.vertices)
    _rasterise_samples(framed, np.zeros((TEXTURE_SIZE, TEXTURE_SIZE, 3), np.uint8), dark, out)
    return out


def _rasterise_samples(
    framed: FramedMesh, texture: Pixels, light: Floats, uv_out: Floats
) -> Pixels:
    """The samples (2H, 2W, 4) of a framed mesh under light (V, 3), transparent off the mesh."""
    rows, columns = framed.size
    rgba = np.zeros((rows * SAMPLES_PER_SIDE, columns * SAMPLES_PER_SIDE, 4), np.uint8)
    nearest = np.zeros(rgba.shape[:2], np.float32)
    points = framed.screen * np.array([SAMPLES_PER_SIDE, SAMPLES_PER_SIDE, 1], np.float32)
    mesh = framed.mesh
    _raster.rasterise(
        points, light, mesh.uv, mesh.faces, mesh.uv_faces, texture, rgba, nearest, uv_out
    )
    return rgba


def _mesh_openness(mesh: Mesh) -> Floats:
    """The share of the sky (V,) that each vertex of a body and its skirt sees."""
    body = body_openness()
    openness = np.full(len(mesh.vertices), SKIRT_OPENNESS, np.float32)
    openness[: len(body)] = body
    return openness


def _shadow_factors(framed: FramedMesh, light: Light) -> Floats:
    """Factors (H, W) for the background's light in the person's contact and cast shadow."""
    height = framed.points[:, 2] - framed.points[:, 2].min()
    below = framed.points - height[:, None] * np.array([0, 0, 1], np.float32)
    x, y, z = light.direction
    cast = framed.points - height[:, None] * np.array([x / z, y / z, 1], np.float32)
    strength = light.lamp[1] / (light.lamp[1] + light.sky[1])
    contact = _point_density(framed, below, np.exp(-height / CONTACT_HEIGHT), spread=0.007)
    shadow = _point_density(framed, cast, np.ones_like(height), spread=0.006)
    shade: Floats = (1 - 0.75 * contact) * (1 - 0.8 * np.float32(strength) * shadow)
    return shade


def _point_density(framed: FramedMesh, points: Floats, weights: Floats, *, spread: float) -> Floats:
    """The density of points on the image, (H, W), 0 to 1, blurred by a share of its height.

    It is computed at a quarter of the resolution, because shadows are soft.
    """
    rows, columns = (-(-side // 4) for side in framed.size)
    x, y, inverse = _project(points, framed.tilt, framed.view.distance)
    x = x * np.float32(framed.view.stretch)
    column = np.floor((x * framed.scale + framed.axis[0]) / 4).astype(np.intp)
    row = np.floor((y * framed.scale + framed.axis[1]) / 4).astype(np.intp)
    inside = (column >= 0) & (column < columns) & (row >= 0) & (row < rows) & (inverse > 0)
    cell = row[inside] * columns + column[inside]
    count = np.bincount(cell, weights[inside], rows * columns).reshape(rows, columns)
    # 4,457 vertices of a person cover some 300 cells of a 64-row image several times over.
    density = count * (4457 / len(points)) * (rows / 64) ** 2
    soft = gaussian_filter(1 - np.exp(-0.35 * density), max(0.5, spread * framed.size[0]))
    image = Image.fromarray(soft.astype(np.float32))
    grown = image.resize(framed.size[::-1], Image.Resampling.BILINEAR)
    return np.asarray(grown)
