"""A folder of photographs as places that people are put in, for whoever has some."""

import functools
import hashlib
import io
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from san_core.images.pixels import Pixels
from san_core.synthesis.place.background import COLUMNS, ROWS, Scene

SUFFIXES = (".jpg", ".jpeg", ".png")
HORIZON = (0.3, 0.5)  # of a photograph's height; nobody tells where it is, so it is drawn between

_DAMAGED = (
    *(OSError, SyntaxError, ValueError, TypeError, KeyError, EOFError),
    *(struct.error, zlib.error, Image.DecompressionBombError),
)


@dataclass(frozen=True)
class Photographs:
    """Every JPEG and PNG in a folder and its folders, by name.

    Attributes:
        fingerprint: number, names and sizes of the files as one sha256; tells sets apart.
    """

    folder: Path
    fingerprint: str

    @property
    def count(self) -> int:
        """How many there are."""
        return len(_listing(self.folder))

    def name(self, number: int) -> str:
        """The path of photograph `number` inside the folder."""
        return _listing(self.folder)[number].relative_to(self.folder).as_posix()

    def scene(self, rng: np.random.Generator) -> Scene:
        """One of the photographs, cut to the size of a painted place.

        Raises:
            ValueError: it is not a whole image.
        """
        return self.at(int(rng.integers(self.count)), horizon=rng.uniform(*HORIZON))

    def at(self, number: int, *, horizon: float) -> Scene:
        """Photograph `number`, its horizon at a share of its height.

        Raises:
            ValueError: it is not a whole image.
        """
        return Scene(_fitted(self.folder, number), int(ROWS * horizon))


def photographs(folder: Path) -> Photographs:
    """The photographs of a folder, of any size; what they show should be without people.

    Raises:
        FileNotFoundError: there is no such folder.
        NotADirectoryError: it is a file.
        ValueError: it holds no photograph, or one whose name cannot be told.
    """
    if folder.is_file():
        raise NotADirectoryError(f"{folder} is a file; backgrounds are a folder of photographs")
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder} of backgrounds")
    _listing.cache_clear()  # what is there now, whatever was there before
    _fitted.cache_clear()
    paths = _listing(folder)
    if not paths:
        raise ValueError(f"{folder} holds no photograph; they end in {', '.join(SUFFIXES)}")
    for name in map(str, paths):
        if name != name.encode(errors="replace").decode():
            raise ValueError(f"the name of photograph {name!r} is not in UTF-8")
    told = [f"{path.relative_to(folder).as_posix()}\t{path.stat().st_size}\n" for path in paths]
    return Photographs(folder, hashlib.sha256("".join(told).encode()).hexdigest())


@functools.lru_cache(maxsize=4)
def _listing(folder: Path) -> tuple[Path, ...]:
    found = (path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    # "._name" is what macOS writes beside every file on a foreign disk.
    mine = (path for path in found if not path.name.startswith("._"))
    return tuple(sorted(path for path in mine if path.is_file()))


@functools.lru_cache(maxsize=96)
def _fitted(folder: Path, number: int) -> Pixels:
    """A photograph's middle, as large as can be, at the size of a scene: (ROWS, COLUMNS, 3)."""
    path = _listing(folder)[number]
    data = path.read_bytes()
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.draft("RGB", (COLUMNS, ROWS))  # a JPEG is decoded no larger than need be
            upright = ImageOps.exif_transpose(image).convert("RGB")
    except UnidentifiedImageError as error:  # whose message tells an address in memory
        raise ValueError(f"{path} is no JPEG or PNG image") from error
    except _DAMAGED as error:
        raise ValueError(f"{path} is not a whole JPEG or PNG image: {error}") from error
    fitted = np.asarray(ImageOps.fit(upright, (COLUMNS, ROWS), Image.Resampling.BILINEAR))
    fitted.setflags(write=False)
    return fitted
