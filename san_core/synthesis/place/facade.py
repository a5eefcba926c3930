"""House fronts as functions of position in metres, so that they render from any direction."""

from typing import NamedTuple

import numpy as np

from san_core.synthesis.person.body import Floats
from san_core.synthesis.place.materials import TiledNoise, accent_colour, muted_colour


class Facade(NamedTuple):
    """The parameters of a house. Lengths in metres, shares of a bay or a storey."""

    wall: Floats  # RGB
    glass: Floats
    frame: Floats
    below: Floats  # the ground floor
    sign: Floats
    height: float
    ground_floor: float
    storey: float
    bay: float
    window: tuple[float, float]  # shares of bay and storey
    shop: float  # width of a shop; 0 for a plain ground floor
    brick: float  # depth of its joints, 0 for plaster
    panes: Floats  # (16, 16) brightness of windows, one for another
    noise: TiledNoise

    def colours_at(self, u: Floats, v: Floats, step: Floats | float) -> Floats:
        """Colours (..., 3) at points u along and v up, in metres, for pixels of size `step`."""
        stained = (
            1
            + 0.03 * self.noise.values_at(u, v, 2.5)
            + 0.03 * self.noise.values_at(u, 0.15 * v, 0.7)
        )
        stained -= 0.1 * np.exp(-v / 0.7)  # splashes of rain
        if self.brick:
            course = np.floor(v / 0.085)
            joint = (v / 0.085 % 1 < 0.16) | ((u / 0.26 + 0.5 * course) % 1 < 0.05)
            stained -= self.brick * joint * np.clip(0.05 / np.maximum(step, 0.01), 0, 1)
        colours = self.wall * stained[..., None]
        self._draw_windows(colours, u, v)
        low = v < self.ground_floor
        colours[low] = self._ground_floor_colours(u[low], v[low], stained[low])
        cornice = np.abs(v - self.ground_floor) < 0.14
        colours[cornice] *= 0.8
        colours[v > self.height - 0.35] *= 0.82
        shaded: Floats = colours.astype(np.float32)
        return shaded

    def _draw_windows(self, colours: Floats, u: Floats, v: Floats) -> None:
        across = np.abs(u / self.bay % 1 - 0.5)
        level = (v - self.ground_floor) / self.storey
        up = level % 1 - 0.52
        wide, high = self.window
        frame = (across < 0.5 * wide + 0.03) & (np.abs(up) < 0.5 * high + 0.03)
        colours[frame] = self.frame
        pane = (across < 0.5 * wide) & (np.abs(up) < 0.5 * high) & (across > 0.012)
        numbers = np.floor(u / self.bay).astype(np.int32), np.floor(level).astype(np.int32)
        bright = self.panes[numbers[0] & 15, numbers[1] & 15] * (0.85 + 0.5 * up)
        bright = np.where(up > 0.5 * high - 0.08, 0.6 * bright, bright)  # the lintel's shadow
        colours[pane] = self.glass * bright[pane][..., None]
        sill = (across < 0.5 * wide + 0.04) & (np.abs(up + 0.5 * high + 0.04) < 0.02)
        colours[sill] *= 1.18

    def _ground_floor_colours(self, u: Floats, v: Floats, stained: Floats) -> Floats:
        colours = self.below * stained[..., None]
        if not self.shop:
            return colours
        place = u / self.shop % 1
        number = np.floor(u / self.shop).astype(np.int32) & 15
        up = v / self.ground_floor
        display = (place > 0.08) & (place < 0.92) & (up < 0.72) & (up > 0.1)
        inside = 0.75 + 0.6 * self.panes[number, 3] + 0.18 * self.noise.values_at(u, v, 0.5)
        colours[display] = (self.glass * inside[..., None])[display]
        colours[display & (np.abs(place * 4 % 1 - 0.5) > 0.475)] *= 0.55  # mullions
        door = (np.abs(place - 0.5) < 0.1) & (up < 0.66)
        colours[door] = (0.55 * self.glass * inside[..., None])[door]
        board = (up > 0.76) & (up < 0.93) & (place > 0.05) & (place < 0.95)
        colours[board] = self.sign * (0.6 + 0.5 * self.panes[number, 7][board])[..., None]
        return colours


def sample_facade(rng: np.random.Generator) -> Facade:
    """A random house: plaster, concrete or brick, of one to eight floors."""
    brick = rng.random() < 0.3
    wall = muted_colour(rng, 90, 205)
    if brick:
        wall = np.array((136, 98, 80), np.float32) * np.float32(rng.uniform(0.6, 1.25))
    floors = rng.choice([1, 2, 3, 4, 6, 8])
    storey, ground_floor = rng.uniform(2.8, 3.6), rng.uniform(3.2, 4.4)
    return Facade(
        wall=wall,
        glass=muted_colour(rng, 45, 95) * np.array((0.94, 1, 1.06), np.float32),
        frame=muted_colour(rng, 40, 215),
        below=muted_colour(rng, 60, 190) if rng.random() < 0.6 else wall * np.float32(0.9),
        sign=accent_colour(rng) if rng.random() < 0.5 else muted_colour(rng, 40, 200),
        height=ground_floor + storey * (floors - 1) + rng.uniform(0.4, 1.2),
        ground_floor=ground_floor,
        storey=storey,
        bay=rng.uniform(1.7, 3.8),
        window=(rng.uniform(0.35, 0.75), rng.uniform(0.42, 0.68)),
        shop=rng.uniform(4, 8) if rng.random() < 0.6 else 0.0,
        brick=rng.uniform(0.1, 0.2) if brick else 0.0,
        panes=(0.6 + 0.8 * rng.random((16, 16)) ** 2).astype(np.float32),
        noise=TiledNoise(rng),
    )
