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
from san_core.synthesis.place.background import SCENE_COLUMNS, SCENE_ROWS, Scene

PHOTOGRAPH_SUFFIXES = (".jpg", ".jpeg", ".png")
HORIZON_RANGE = (
    0.3,
    0.5,
)  # of a photograph's height; nobody tells where it is, so it is drawn between

_DECODE_ERRORS = (
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
        return len(_photograph_paths(self.folder))

    def name(self, number: int) -> str:
        """The path of photograph `number` inside the folder."""
        return _photograph_paths(self.folder)[number].relative_to(self.folder).as_posix()

    def random_scene(self, rng: np.random.Generator) -> Scene:
        """One of the photographs, cut to the size of a painted place.

        Raises:
            ValueError: it is not a whole image.
        """
        return self.scene_at(int(rng.integers(self.count)), horizon=rng.uniform(*HORIZON_RANGE))

    def scene_at(self, number: int, *, horizon: float) -> Scene:
        """Photograph `number`, its horizon at a share of its height.

        Raises:
            ValueError: it is not a whole image.
        """
        return Scene(_load_fitted(self.folder, number), int(SCENE_ROWS * horizon))


def open_photographs(folder: Path) -> Photographs:
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
    _photograph_paths.cache_clear()  # what is there now, whatever was there before
    _load_fitted.cache_clear()
    paths = _photograph_paths(folder)
    if not paths:
        raise ValueError(
            f"{folder} holds no photograph; they end in {', '.join(PHOTOGRAPH_SUFFIXES)}"
        )
    for name in map(str, paths):
        if name != name.encode(errors="replace").decode():
            raise ValueError(f"the name of photograph {name!r} is not in UTF-8")
    told = [f"{path.relative_to(folder).as_posix()}\t{path.stat().st_size}\n" for path in paths]
    return Photographs(folder, hashlib.sha256("".join(told).encode()).hexdigest())


@functools.lru_cache(maxsize=4)
def _photograph_paths(folder: Path) -> tuple[Path, ...]:
    found = (path for path in folder.rglob("*") if path.suffix.lower() in PHOTOGRAPH_SUFFIXES)
    # "._name" is what macOS writes beside every file on a foreign disk.
    mine = (path for path in found if not path.name.startswith("._"))
    return tuple(sorted(path for path in mine if path.is_file()))


@functools.lru_cache(maxsize=96)
def _load_fitted(folder: Path, number: int) -> Pixels:
    """A photograph's middle, as large as can be, at the size of a scene: (ROWS, COLUMNS, 3)."""
    path = _photograph_paths(folder)[number]
    data = path.read_bytes()
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.draft(
                "RGB", (SCENE_COLUMNS, SCENE_ROWS)
            )  # a JPEG is decoded no larger than need be
            upright = ImageOps.exif_transpose(image).convert("RGB")
    except UnidentifiedImageError as error:  # whose message tells an address in memory
        raise ValueError(f"{path} is no JPEG or PNG image") from error
    except _DECODE_ERRORS as error:
        raise ValueError(f"{path} is not a whole JPEG or PNG image: {error}") from error
    fitted = np.asarray(
        ImageOps.fit(upright, (SCENE_COLUMNS, SCENE_ROWS), Image.Resampling.BILINEAR)
    )
    fitted.setflags(write=False)
    return fitted
