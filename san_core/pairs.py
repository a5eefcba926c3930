"""Paired images and textures that somebody has: found in a folder, checked, and split.

Two layouts are read. With an index:

    index.csv      columns image and texture, paths beside it; split (train or val) if wanted;
                   every other column becomes a field of the image

or by name:

    textures/0012.png
    images/0012.jpg, images/0012_03.png     the texture's name, or that and "_" before anything

Images may be in folders of `images`, as textures in those of `textures`.
"""

import csv
import tarfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from san_core.pixels import decode

SUFFIXES = (".jpg", ".jpeg", ".png")
INDEX = "index.csv"
SPLITS = ("train", "val")
_SHOWN = 3  # names in a message
_TAKEN = frozenset({"name", "pid", "camid", "offset", "size", "sha256"})  # words of a sidecar


class Pair(NamedTuple):
    """An image and its texture.

    split is None where nobody has said; texture and image are files, and names are what they are
    called below the folders of images and of textures.
    """

    image: Path
    texture: Path
    image_name: str
    texture_name: str
    split: str | None
    fields: Mapping[str, str]


def pairs(folder: Path) -> list[Pair]:
    """Every pair in a folder, or in the one folder inside it, by texture and image.

    Raises:
        FileNotFoundError: there is no such folder, or a file of the index is not there.
        ValueError: there is neither layout, the index is wrong, or a file has no partner.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder} of images and textures")
    root = _root(folder)
    found = _indexed(root) if (root / INDEX).is_file() else _named(root)
    for kind in ("image_name", "texture_name"):
        files = {(getattr(pair, kind), getattr(pair, kind.partition("_")[0])) for pair in found}
        names = [name for name, _ in files]
        if len(set(names)) < len(names):
            twin = max(sorted(names), key=names.count)
            raise ValueError(f"{root} has two files that would both be called {twin}")
    return sorted(found, key=lambda pair: (pair.texture_name, pair.image_name))


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a tar (plain, gzip, bzip2, xz) or a zip; nothing is written outside the folder.

    Raises:
        ValueError: it is neither, it is damaged, or it would write elsewhere.
    """
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as packed:
                packed.extractall(folder)
        else:
            with tarfile.open(archive) as packed_tar:
                packed_tar.extractall(folder, filter="data")
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError) as error:
        raise ValueError(f"{archive} is not a whole tar or zip archive: {error}") from error


def _root(folder: Path) -> Path:
    """The folder that has an index, or images and textures."""
    inside = sorted(path for path in folder.iterdir() if path.is_dir())
    for root in (folder, *inside[: 1 if len(inside) == 1 else 0]):
        if (root / INDEX).is_file() or all((root / n).is_dir() for n in ("images", "textures")):
            return root
    seen = ", ".join(sorted(path.name for path in folder.iterdir())[:8]) or "nothing"
    raise ValueError(
        f"{folder} has neither {INDEX} nor the folders images and textures; it has {seen}"
    )


def _indexed(root: Path) -> list[Pair]:
    """The pairs that an index lists."""
    with (root / INDEX).open(newline="", encoding="utf-8-sig") as file:
        table = csv.DictReader(file)
        columns = table.fieldnames or []
        if missing := [name for name in ("image", "texture") if name not in columns]:
            raise ValueError(
                f"{root / INDEX} has no column {missing[0]!r}; it has {', '.join(columns)}"
            )
        if taken := sorted(_TAKEN.intersection(columns)):
            raise ValueError(f"{root / INDEX}: a column cannot be called {taken[0]!r} here; rename")
        found = [_row(root, number, row) for number, row in enumerate(table, start=2)]
    if not found:
        raise ValueError(f"{root / INDEX} lists no pair")
    splits: dict[str, str | None] = {}
    for pair in found:
        if splits.setdefault(pair.texture_name, pair.split) != pair.split:
            raise ValueError(
                f"{root / INDEX}: texture {pair.texture_name} is in several splits; whoever is"
                " held out must not be trained on"
            )
    return found


def _row(root: Path, number: int, row: Mapping[str, str | None]) -> Pair:
    where = f"{root / INDEX} row {number}"
    if None in row or None in row.values():
        raise ValueError(f"{where}: it has more or fewer columns than the first row")
    told = {name: str(value) for name, value in row.items()}
    split = told.get("split") or None
    if split is not None and split not in SPLITS:
        raise ValueError(f"{where}: split {split!r} is none of {', '.join(SPLITS)}")
    files = {}
    for kind in ("image", "texture"):
        files[kind] = root / told[kind]
        if ".." in Path(told[kind]).parts or Path(told[kind]).is_absolute():
            raise ValueError(f"{where}: {kind} {told[kind]!r} does not lie beside the index")
        if not told[kind] or not files[kind].is_file():
            raise FileNotFoundError(f"{where}: there is no {kind} {told[kind]!r}")
    return Pair(
        image=files["image"],
        texture=files["texture"],
        image_name=_below(told["image"], "images"),
        texture_name=_below(told["texture"], "textures"),
        split=split,
        fields={k: v for k, v in told.items() if k not in ("image", "texture", "split")},
    )


def _below(path: str, folder: str) -> str:
    """The name of a file without the folder that all of its kind are in."""
    return Path(path).as_posix().removeprefix(f"{folder}/")


def _named(root: Path) -> list[Pair]:
    """The pairs that names tell."""
    textures = {file.relative_to(root / "textures"): file for file in _files(root / "textures")}
    by_stem: dict[str, Path] = {}
    for name in textures:
        stem = name.with_suffix("").as_posix()
        if stem in by_stem:
            raise ValueError(f"textures {by_stem[stem]} and {name} differ in their endings alone")
        by_stem[stem] = name
    found, alone = [], []
    for file in _files(root / "images"):
        name = file.relative_to(root / "images")
        partner = next((by_stem[s] for s in _stems(name) if s in by_stem), None)
        if partner is None:
            alone.append(name.as_posix())
        else:
            names = name.as_posix(), partner.as_posix()
            found.append(Pair(file, textures[partner], *names, split=None, fields={}))
    _refuse(root, "images without a texture of their name", alone)
    worn = {pair.texture_name for pair in found}
    spare = [name.as_posix() for name in textures if name.as_posix() not in worn]
    _refuse(root, "textures without an image of their name", spare)
    return found


def _files(folder: Path) -> list[Path]:
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not found:
        raise ValueError(f"{folder} holds no image; they end in {', '.join(SUFFIXES)}")
    return found


def _stems(name: Path) -> Iterator[str]:
    """What an image's texture may be called, the longest first: a_b_c, a_b, a."""
    stem = name.with_suffix("").as_posix()
    while stem:
        yield stem
        stem = stem.rpartition("_")[0]


def _refuse(root: Path, what: str, names: list[str]) -> None:
    if names:
        shown = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
        raise ValueError(f"{root} has {len(names)} {what}: {shown}")


class Sizes:
    """Refuses an image or a texture of another size than the first of its kind."""

    def __init__(self) -> None:
        self._first: dict[str, tuple[str, tuple[int, int]]] = {}

    def check_image(self, name: str, data: bytes) -> None:
        """Raise ValueError if an image is damaged or not as large as the first."""
        self._compare("image", name, data)

    def check_texture(self, name: str, data: bytes) -> None:
        """Raise ValueError if a texture is damaged, not square or not as large as the first."""
        rows, columns = self._compare("texture", name, data)
        if rows != columns:
            raise ValueError(f"texture {name} has {rows}x{columns} texels; it must be square")

    def _compare(self, kind: str, name: str, data: bytes) -> tuple[int, int]:
        rows, columns, _ = decode(data, name=f"{kind} {name}").shape
        first, size = self._first.setdefault(kind, (name, (rows, columns)))
        if (rows, columns) != size:
            raise ValueError(
                f"{kind} {name} has {rows}x{columns} pixels and {first} {size[0]}x{size[1]};"
                f" all {kind}s must be of one size"
            )
        return rows, columns
