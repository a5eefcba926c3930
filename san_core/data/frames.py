"""People, vehicles or animals cut losslessly out of frames by the boxes of a table."""

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

from san_core.data.tree import Tree
from san_core.images.pixels import Pixels, decode, encode_png, image_size

_MOST_SHOWN = 5


class Box(NamedTuple):
    """A box in a frame, in pixels from the upper left; it may reach beyond the frame."""

    left: int
    top: int
    width: int
    height: int

    def image_name(self, frame: str) -> str:
        """The name of the image that the box cuts out of a frame."""
        path = PurePosixPath(frame)
        told = f"{path.stem}_{self.left}_{self.top}_{self.width}x{self.height}.png"
        return str(path.with_name(told))


def parse_box(x: str, y: str, width: str, height: str) -> Box:
    """The box of four numbers, each edge at the nearest pixel.

    Raises:
        ValueError: one is not a number, or the box is empty.
    """
    try:
        left, top, across, down = map(float, (x, y, width, height))
        edges = [round(edge) for edge in (left, top, left + across, top + down)]
    except (ValueError, OverflowError) as error:
        raise ValueError(f"box {x},{y},{width},{height} is not four numbers") from error
    box = Box(edges[0], edges[1], edges[2] - edges[0], edges[3] - edges[1])
    if min(box.width, box.height) < 1:
        raise ValueError(f"box {x},{y},{width},{height} has no width or no height")
    return box


class Frames:
    """The frames of a tree; the last one stays decoded, since its boxes mostly follow each other.

    Each box that reaches beyond its frame is counted once, when it is cut.
    """

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._last: tuple[str, Pixels] | None = None
        self._last_size: tuple[str, tuple[int, int]] | None = None
        self._beyond: dict[str, None] = {}
        self._cut = set[int]()  # hashes alone: of millions of boxes the names would fill memory

    def cut(self, frame: str, box: Box) -> bytes:
        """The part of an upright frame inside a box, as a PNG.

        Raises:
            OSError: the frame cannot be read.
            ValueError: it is not a whole image, or the box lies outside of it.
        """
        if self._last is None or self._last[0] != frame:
            self._last = None  # two frames at once may be too many
            self._last = frame, decode(self._tree.read(frame), name=frame)
        pixels = self._last[1]
        held = pixels[_rows_and_columns_held(box, pixels.shape[:2])]
        self._cut.add(hash((frame, box)))
        if held.shape[:2] != (box.height, box.width):
            self._beyond[box.image_name(frame)] = None
        return encode_png(held)

    def size(self, frame: str, box: Box) -> tuple[int, int]:
        """Rows and columns of what a box holds, by the header of the upright frame.

        Raises:
            OSError: the frame cannot be read.
            ValueError: it does not begin an image, or the box lies outside of it.
        """
        if self._last_size is None or self._last_size[0] != frame:
            self._last_size = frame, image_size(self._tree.read(frame), name=frame)
        rows, columns = _rows_and_columns_held(box, self._last_size[1])
        return rows.stop - rows.start, columns.stop - columns.start

    def warnings(self) -> Sequence[str]:
        """A line that says how many boxes reach beyond their frames; empty if none does."""
        if not self._beyond:
            return []
        shown = ", ".join(list(self._beyond)[:_MOST_SHOWN])
        shown += ", ..." * (len(self._beyond) > _MOST_SHOWN)
        return [
            f"{len(self._beyond):,} of {len(self._cut):,} boxes reach beyond their frames and "
            f"were cut at the border: {shown}"
        ]


def _rows_and_columns_held(box: Box, shape: Sequence[int]) -> tuple[slice, slice]:
    """Which rows and columns of a frame of so many a box holds.

    Raises:
        ValueError: it lies outside the frame.
    """
    rows, columns = shape
    down = slice(max(0, box.top), min(rows, box.top + box.height))
    across = slice(max(0, box.left), min(columns, box.left + box.width))
    if down.start >= down.stop or across.start >= across.stop:
        raise ValueError(
            f"box {','.join(map(str, box))} lies outside the frame of {columns}x{rows}"
        )
    return down, across
