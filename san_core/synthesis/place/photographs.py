"""A user's folder of photographs as backgrounds for people."""

import functools
import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from san_core.data.tree import is_litter
from san_core.images.pixels import IMAGE_SUFFIXES, Pixels, decode
from san_core.images.shard import MOST_FILE_BYTES
from san_core.synthesis.place.background import SCENE_COLUMNS, SCENE_ROWS, Scene

HORIZON_RANGE = (
    0.3,
    0.5,
)  # of a photograph's height; the horizon is unknown, so it is drawn between these


@dataclass(frozen=True)
class Photographs:
    """All images in a folder and its subfolders, sorted by name.

    Attributes:
        fingerprint: sha256 of the number, names and sizes of the files; it identifies the set.
    """

    folder: Path
    fingerprint: str

    @property
    def count(self) -> int:
        """The number of photographs."""
        return len(_photograph_paths(self.folder))

    def name(self, number: int) -> str:
        """The path of photograph `number` inside the folder."""
        return _photograph_paths(self.folder)[number].relative_to(self.folder).as_posix()

    def random_scene(self, rng: np.random.Generator) -> Scene:
        """A random photograph, cropped to the size of a painted scene.

        Raises:
            ValueError: it is not a whole image.
        """
        return self.scene_at(int(rng.integers(self.count)), horizon=rng.uniform(*HORIZON_RANGE))

    def scene_at(self, number: int, *, horizon: float) -> Scene:
        """Photograph `number`, with its horizon at a share of its height.

        Raises:
            ValueError: it is not a whole image.
        """
        return Scene(_load_fitted(self.folder, number), int(SCENE_ROWS * horizon))


def open_photographs(folder: Path) -> Photographs:
    """The photographs of a folder, of any size; they should show no people.

    Raises:
        FileNotFoundError: the folder does not exist.
        NotADirectoryError: it is a file.
        ValueError: it has no photograph, or the name of one is not valid text.
    """
    if folder.is_file():
        raise NotADirectoryError(f"{folder} is a file; backgrounds are a folder of photographs")
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder} of backgrounds")
    _photograph_paths.cache_clear()  # the present files, not an earlier listing
    _load_fitted.cache_clear()
    paths = _photograph_paths(folder)
    if not paths:
        raise ValueError(
            f"{folder} holds no photograph; photographs end in {', '.join(IMAGE_SUFFIXES)}"
        )
    for name in map(str, paths):
        if name != name.encode(errors="replace").decode():
            raise ValueError(f"the name of photograph {name!r} is not in UTF-8")
    told = [f"{path.relative_to(folder).as_posix()}\t{path.stat().st_size}\n" for path in paths]
    return Photographs(folder, hashlib.sha256("".join(told).encode()).hexdigest())


@functools.lru_cache(maxsize=4)
def _photograph_paths(folder: Path) -> tuple[Path, ...]:
    found = (path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    mine = (path for path in found if not any(map(is_litter, path.relative_to(folder).parts)))
    return tuple(sorted(path for path in mine if path.is_file()))


@functools.lru_cache(maxsize=96)
def _load_fitted(folder: Path, number: int) -> Pixels:
    """The largest central crop of a photograph, resized to a scene: (ROWS, COLUMNS, 3)."""
    path = _photograph_paths(folder)[number]
    if (size := path.stat().st_size) > MOST_FILE_BYTES:
        raise ValueError(f"{path} has {size:,} bytes; at most {MOST_FILE_BYTES:,} are read")
    # A JPEG is decoded no larger than need be.
    whole = decode(path.read_bytes(), name=str(path), at_least=(SCENE_ROWS, SCENE_COLUMNS))
    fitted = np.asarray(
        ImageOps.fit(Image.fromarray(whole), (SCENE_COLUMNS, SCENE_ROWS), Image.Resampling.BILINEAR)
    )
    fitted.setflags(write=False)
    return fitted
