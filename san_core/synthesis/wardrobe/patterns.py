"""Patterns of cloth: colours per texel for the names in `identity.PATTERNS` and elsewhere."""

from collections.abc import Callable

import numpy as np

from san_core.synthesis.person.body import Floats
from san_core.synthesis.person.identity import Colour
from san_core.synthesis.wardrobe.canvas import Canvas, smoothstep

# Metres on the mean person.
TRUNK_RADIUS, TRUNK_MIDDLE, ARM_RADIUS, ARM_LENGTH, LEG_RADIUS = 0.14, -0.01, 0.045, 0.5, 0.07

Colours = tuple[Colour, Colour, Colour]


def cloth_colours(canvas: Canvas, pattern: str, colours: Colours) -> Floats:
    """The colour (N, 3) of every texel if this pattern covered the whole body."""
    if pattern == "plain":
        return np.tile(np.array(colours[0], np.float32), (len(canvas.texels.x), 1))
    if pattern == "camouflage":
        return _camouflage(canvas, colours)
    weight = _WEIGHTS[pattern](canvas)[:, None].astype(np.float32)
    first, second = np.array(colours[0], np.float32), np.array(colours[1], np.float32)
    mixed: Floats = first + (second - first) * weight
    return mixed


def _camouflage(canvas: Canvas, colours: Colours) -> Floats:
    out = np.tile(np.array(colours[0], np.float32), (len(canvas.texels.x), 1))
    out[canvas.noise(canvas.rng.uniform(0.04, 0.08)) > 0.15] = colours[1]
    out[canvas.noise(canvas.rng.uniform(0.03, 0.06)) > 0.35] = colours[2]
    return out


def _square_wave(values: Floats, period: float, duty: float) -> Floats:
    """A square wave: 1 in the first `duty` share of each period, else 0."""
    wave: Floats = ((values / np.float32(period)) % 1 < duty).astype(np.float32)
    return wave


def _metres_around(canvas: Canvas) -> Floats:
    """Metres around trunk and limbs, so that patterns have the same width at the sides."""
    body = canvas.texels
    trunk = TRUNK_RADIUS * np.arctan2(body.x, TRUNK_MIDDLE - body.y)
    limb = np.where(body.arm, ARM_RADIUS * body.around_arm, LEG_RADIUS * body.around_leg)
    around: Floats = np.where(body.torso, trunk, limb).astype(np.float32)
    return around


def _metres_up(canvas: Canvas) -> Floats:
    """Metres up the trunk and the legs, and along the arms."""
    body = canvas.texels
    up: Floats = np.where(body.arm, -ARM_LENGTH * body.along_arm, body.z).astype(np.float32)
    return up


def _horizontal_stripes(canvas: Canvas) -> Floats:
    return _square_wave(
        _metres_up(canvas), canvas.rng.uniform(0.025, 0.08), canvas.rng.uniform(0.3, 0.6)
    )


def _vertical_stripes(canvas: Canvas) -> Floats:
    return _square_wave(
        _metres_around(canvas), canvas.rng.uniform(0.015, 0.04), canvas.rng.uniform(0.25, 0.5)
    )


def _plaid(canvas: Canvas) -> Floats:
    period = canvas.rng.uniform(0.04, 0.09)
    return 0.5 * (
        _square_wave(_metres_up(canvas), period, 0.5)
        + _square_wave(_metres_around(canvas), period, 0.5)
    )


def _dots(canvas: Canvas) -> Floats:
    period = canvas.rng.uniform(0.03, 0.06)
    across, up = (
        (axis / period) % 1 - 0.5 for axis in (_metres_around(canvas), _metres_up(canvas))
    )
    dots: Floats = (across**2 + up**2 < 0.06).astype(np.float32)
    return dots


def _block(canvas: Canvas) -> Floats:
    below: Floats = (canvas.texels.torso_height < canvas.rng.uniform(0.45, 0.75)).astype(np.float32)
    return below


def _chest_band(canvas: Canvas) -> Floats:
    low, height = canvas.rng.uniform(0.5, 0.72), canvas.texels.torso_height
    high = low + canvas.rng.uniform(0.06, 0.14)
    band: Floats = ((height > low) & (height < high)).astype(np.float32)
    return band


def _gradient(canvas: Canvas) -> Floats:
    return smoothstep(0.2, 0.95, canvas.texels.torso_height)


def _heather(canvas: Canvas) -> Floats:
    flecks: Floats = np.clip(0.5 + canvas.noise(0.008) * 0.5, 0, 1) * np.float32(0.35)
    return flecks


def _side_panels(canvas: Canvas) -> Floats:
    panels: Floats = (np.abs(canvas.texels.x) > canvas.rng.uniform(0.09, 0.12)).astype(np.float32)
    return panels


def _diagonal_stripes(canvas: Canvas) -> Floats:
    across = _metres_around(canvas) + _metres_up(canvas)
    return _square_wave(across, canvas.rng.uniform(0.04, 0.1), canvas.rng.uniform(0.35, 0.6))


def _zigzag(canvas: Canvas) -> Floats:
    period = canvas.rng.uniform(0.05, 0.09)
    tooth = np.abs((_metres_around(canvas) / period) % 1 - 0.5) * np.float32(period)
    return _square_wave(_metres_up(canvas) + tooth, period, 0.5)


def _chequers(canvas: Canvas) -> Floats:
    period = canvas.rng.uniform(0.05, 0.12)
    across, up = (
        _square_wave(axis, period, 0.5) for axis in (_metres_around(canvas), _metres_up(canvas))
    )
    squares: Floats = np.abs(across - up)
    return squares


def _rings(canvas: Canvas) -> Floats:
    period = canvas.rng.uniform(0.06, 0.1)
    across, up = (
        (axis / period) % 1 - 0.5 for axis in (_metres_around(canvas), _metres_up(canvas))
    )
    rings: Floats = (np.abs(np.hypot(across, up) - 0.32) < 0.1).astype(np.float32)
    return rings


_WEIGHTS: dict[str, Callable[[Canvas], Floats]] = {
    "horizontal stripes": _horizontal_stripes,
    "vertical stripes": _vertical_stripes,
    "plaid": _plaid,
    "dots": _dots,
    "block": _block,
    "chest band": _chest_band,
    "gradient": _gradient,
    "heather": _heather,
    "side panels": _side_panels,
    # of elsewhere.clothes
    "diagonal stripes": _diagonal_stripes,
    "zigzag": _zigzag,
    "chequers": _chequers,
    "rings": _rings,
}
