"""Statistics of a data set's crops, and which crops are useless.

Useless crops come from a detector that fires on a wall, a frame that was not decoded, or a person
far away. They teach a network nothing, and as queries or gallery they distort its scores.
"""

import re
from array import array
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np

from san_core.images.pixels import Look, file_to_keep, image_size

MIN_SIZE, NO_BLANK, NO_WIDE = "min_size", "no-blank", "no-wide"
OPTIONS = {
    MIN_SIZE: "min_size=ROWSxCOLUMNS: images with fewer rows or columns are left out",
    NO_BLANK: "images of one colour and nearly black ones are left out",
    NO_WIDE: "images that are wider than high are left out",
}
SMALL = (32, 16)  # rows, columns: below, a network sees little of a person
_QUANTILES = {"least": 0.0, "5 %": 0.05, "median": 0.5, "95 %": 0.95, "most": 1.0}
_FLAT_SPREAD = 4  # from the darkest to the lightest of 256 levels: what JPEG makes of one colour
_DARK = 8  # mean of 256 levels
_MANY = 0.01  # share of small or wide images above which a warning is given
_SIZE = re.compile(r"([1-9]\d{0,4})x([1-9]\d{0,4})")

# The kinds of useless crops, and the option that leaves each out.
_KINDS = {
    "of one colour": NO_BLANK,
    "nearly black": NO_BLANK,
    f"smaller than {SMALL[0]}x{SMALL[1]} (rows x columns)": f"{MIN_SIZE}={SMALL[0]}x{SMALL[1]}",
    "wider than high": NO_WIDE,
}
_FLAT, _BLACK, _SMALL, _WIDE = _KINDS


class _Readable(Protocol):
    """An image that is not read yet."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def read(self) -> Callable[[], bytes]:
        """Reads the bytes of its file."""

    @property
    def size(self) -> Callable[[], tuple[int, int]] | None:
        """What gives its rows and columns with less work than `read`, if there is such a way."""


Image = TypeVar("Image", bound=_Readable)


class CropTally:
    """Statistics of the crops that are counted; eight bytes of memory an image."""

    def __init__(self) -> None:
        self._heights, self._widths = array("I"), array("I")
        self._kinds: Counter[str] = Counter()
        self._examples: dict[str, str] = {}

    def add(self, name: str, look: Look) -> None:
        """Count an image."""
        self._heights.append(look.height)
        self._widths.append(look.width)
        for kind in _kinds_of(look):
            self._kinds[kind] += 1
            self._examples.setdefault(kind, name)

    def told(self) -> dict[str, Any]:
        """Quantiles of height, width and height by width, and counts of useless crops, as JSON."""
        if not self._heights:
            return {}
        heights, widths = (np.array(side, np.float64) for side in (self._heights, self._widths))
        sides = {"height": heights, "width": widths, "height by width": heights / widths}
        quantiles = {
            side: [round(float(np.quantile(values, q)), 2) for q in _QUANTILES.values()]
            for side, values in sides.items()
        }
        return {"quantiles": quantiles, "useless": {k: self._kinds[k] for k in _KINDS}}

    def table(self) -> list[str]:
        """The quantiles as a table, one line each; no lines without images."""
        if not self._heights:
            return []
        row = "{:<16}" + " {:>8}" * len(_QUANTILES)
        lines = [row.format("crops", *_QUANTILES)]
        for side, values in self.told()["quantiles"].items():
            lines.append(row.format(side, *(f"{value:,g}" for value in values)))
        return lines

    def warnings(self) -> list[str]:
        """The kinds of useless crops found, one line each."""
        lines = []
        for kind, option in _KINDS.items():
            count, total = self._kinds[kind], len(self._heights)
            if count and (kind in (_FLAT, _BLACK) or count >= _MANY * total):
                lines.append(
                    f"{count:,} of {total:,} images are {kind}, such as {self._examples[kind]};"
                    f" option {option} (of csv, folders and file_names) leaves them out"
                )
        return lines


def _kinds_of(look: Look) -> list[str]:
    """The kinds of uselessness of a crop."""
    is_flat = look.spread <= _FLAT_SPREAD
    found = {
        _FLAT: is_flat,
        _BLACK: look.brightness < _DARK and not is_flat,
        _SMALL: look.height < SMALL[0] or look.width < SMALL[1],
        _WIDE: look.width > look.height,
    }
    return [kind for kind, is_so in found.items() if is_so]


class UsefulCrops(NamedTuple):
    """The images that are left, and one line for each kind that was left out."""

    images: list[Any]
    warnings: list[str]


def leave_out_useless(images: Sequence[Image], options: Mapping[str, str]) -> UsefulCrops:
    """The images that the options keep. Unreadable images stay and are reported later.

    Raises:
        ValueError: an option makes no sense, or no image is left.
    """
    chosen = [name for name in OPTIONS if name in options]
    least = _parse_size(options[MIN_SIZE]) if MIN_SIZE in options else (0, 0)
    if not chosen:
        return UsefulCrops(list(images), [])
    left, out = [], Counter[str]()
    for image in images:
        reason = _reason_to_leave_out(image, options, least)
        if reason:
            out[reason] += 1
        else:
            left.append(image)
    told = ", ".join(f"{count:,} {reason}" for reason, count in sorted(out.items()))
    if not left:
        raise ValueError(f"no image is left: {told} are left out by {', '.join(chosen)}")
    return UsefulCrops(left, [f"left out as requested: {told}"] if out else [])


def _parse_size(text: str) -> tuple[int, int]:
    """Rows and columns of a word such as 64x32."""
    if not (found := _SIZE.fullmatch(text)):
        raise ValueError(
            f"option {MIN_SIZE}={text!r} is not a size in pixels; write ROWSxCOLUMNS, such as 64x32"
        )
    return int(found[1]), int(found[2])


def _reason_to_leave_out(
    image: _Readable, options: Mapping[str, str], least: tuple[int, int]
) -> str:
    """Why an image is left out; empty if it stays."""
    try:
        kinds = []
        if NO_BLANK in options:
            look = file_to_keep(image.name, image.read()).look
            kinds, height, width = _kinds_of(look), look.height, look.width
        else:
            height, width = image.size() if image.size else image_size(image.read())
    except (ValueError, OSError):
        return ""  # read again with all others, where damage is told
    if height < least[0] or width < least[1]:
        return f"smaller than {least[0]}x{least[1]}"
    if NO_WIDE in options and width > height:
        return _WIDE
    return next((kind for kind in kinds if kind in (_FLAT, _BLACK)), "")
