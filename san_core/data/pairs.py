"""Existing pairs of images and textures: found in a folder or an archive, and checked.

Two layouts are read. With a table:

    index.csv      columns image and texture, paths beside it; split (train or val) if wanted;
                   any other column becomes a field of the image

or by name:

    textures/0012.png
    images/0012.jpg, images/0012_03.png     the texture's name, or that and "_" before anything

Images may be in folders of `images`, as textures in those of `textures`, and all of it in one
folder of any name. Textures with equal bytes belong to one person, whatever their names: otherwise
a set with a copy of the texture beside every image would train on held-out people.
"""

import hashlib
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from san_core.data.table import Table
from san_core.data.tree import ARCHIVE_SUFFIXES, Tree
from san_core.images.pixels import IMAGE_SUFFIXES, decode
from san_core.images.shard import TAR_NAME_RULE, is_plain_path, name_fits_tar

INDEX_FILE = "index.csv"
PAIR_SPLITS = ("train", "val")
_FOLDERS = ("images", "textures")
_OTHER_SUFFIXES = (".gif", ".npy")
_OWN_MANIFEST = "images/manifest.json"  # of a set in the project's own format
_MAX_SHOWN = 3  # names in a message
_RESERVED_COLUMNS = frozenset(
    {"name", "pid", "camid", "offset", "size", "sha256"}
)  # words of a sidecar


class Pair(NamedTuple):
    """An image and its texture.

    image and texture are paths in the tree; image_name and texture_name are what they are called
    below the folders of images and of textures. split is None if it is not given.
    """

    image: str
    texture: str
    image_name: str
    texture_name: str
    split: str | None
    fields: Mapping[str, str]


class Pairs(NamedTuple):
    """Every pair, by texture and image, and the tree their files are read from.

    copies is the number of texture files that equal another.
    """

    tree: Tree
    pairs: list[Pair]
    duplicate_textures: int


def find_pairs(tree: Tree) -> Pairs:
    """Every pair in a tree, or in the one folder of it that has pairs; textures are read once.

    Raises:
        FileNotFoundError: a file of the table is not there.
        ValueError: there is neither layout, the table is wrong, or a file has no partner.
    """
    root, table = _find_pairs_root(tree)
    listed = _pairs_from_table(root, table) if table else _pairs_by_name(root)
    for kind, paths in (
        ("image", {(pair.image_name, pair.image) for pair in listed}),
        ("texture", {(pair.texture_name, pair.texture) for pair in listed}),
    ):
        _check_names(root, kind, sorted(name for name, _ in paths))
    found = _merge_equal_textures(root, listed)
    copies = len({pair.texture for pair in listed}) - len({pair.texture for pair in found})
    _check_splits(root, found)
    return Pairs(root, sorted(found, key=lambda pair: (pair.texture_name, pair.image_name)), copies)


def _find_pairs_root(tree: Tree) -> tuple[Tree, str]:
    """The folder with pairs, and the name of its table; empty if names pair the files."""
    if tree.given_file:
        if not tree.given_file.lower().endswith(".csv"):
            raise ValueError(
                f"{tree.place}/{tree.given_file} is neither a table of pairs (.csv) nor an "
                f"archive ({', '.join(ARCHIVE_SUFFIXES)})"
            )
        return tree, tree.given_file
    if tree.is_file(_OWN_MANIFEST):
        raise ValueError(f"{tree.place} holds pairs as make_pit writes them; use them as they are")
    _, folders = tree.entries()
    roots = [tree] if _has_pairs(tree) else [*filter(_has_pairs, map(tree.subtree, folders))]
    if len(roots) == 1:
        return roots[0], INDEX_FILE if roots[0].is_file(INDEX_FILE) else ""
    if roots:
        places = ", ".join(root.place for root in roots[:_MAX_SHOWN])
        raise ValueError(f"{tree.place} has pairs in {len(roots)} folders, {places}; give one")
    raise ValueError(
        f"{tree.place} has neither {INDEX_FILE} nor the folders images and textures; it holds"
        f" {tree.describe_entries()}"
    )


def _has_pairs(tree: Tree) -> bool:
    return tree.is_file(INDEX_FILE) or all(map(tree.is_folder, _FOLDERS))


def _pairs_from_table(root: Tree, name: str) -> list[Pair]:
    """The pairs that a table lists."""
    table = Table(root, name)
    _check_columns(table)
    lines: dict[str, int] = {}
    found = []
    for line, row in table.rows():
        pair = _pair_from_row(root, row, where=f"{table.place} line {line}")
        if pair.image in lines:
            raise ValueError(
                f"{table.place} line {line}: image {pair.image!r} is in line"
                f" {lines[pair.image]} too"
            )
        lines[pair.image] = line
        found.append(pair)
    if not found:
        raise ValueError(f"{table.place} lists no pair")
    unsaid = [lines[pair.image] for pair in found if pair.split is None]
    if 0 < len(unsaid) < len(found):
        raise ValueError(f"{table.place} line {unsaid[0]}: it has no split, and other lines have")
    return found


def _check_columns(table: Table) -> None:
    columns = table.columns
    if missing := [name for name in ("image", "texture") if name not in columns]:
        told = table.describe_first_row(("image", "texture"))
        raise ValueError(f"{table.place} has no column {missing[0]!r}; {told}")
    if twice := [name for name in columns if columns.count(name) > 1]:
        raise ValueError(f"{table.place} has a column {twice[0]!r} twice")
    if taken := sorted(_RESERVED_COLUMNS.intersection(columns)):
        raise ValueError(f"{table.place}: a column cannot be called {taken[0]!r} here; rename it")


def _pair_from_row(root: Tree, row: Mapping[str, str | None], *, where: str) -> Pair:
    if None in row or None in row.values():
        raise ValueError(f"{where}: it has more or fewer columns than the first row")
    told = {name: str(value).strip() for name, value in row.items()}
    split = told.pop("split", "") or None
    if split is not None and split not in PAIR_SPLITS:
        raise ValueError(f"{where}: split {split!r} is not one of {', '.join(PAIR_SPLITS)}")
    image, texture = (told.pop(kind).removeprefix("./") for kind in ("image", "texture"))
    for kind, path in (("image", image), ("texture", texture)):
        if path and not is_plain_path(path):
            raise ValueError(f"{where}: {kind} {path!r} leads out of the table's folder")
        if not path or not root.is_file(path):
            raise FileNotFoundError(f"{where}: there is no {kind} {path!r}")
    names = image.removeprefix("images/"), texture.removeprefix("textures/")
    return Pair(image, texture, *names, split=split, fields=told)


def _pairs_by_name(root: Tree) -> list[Pair]:
    """The pairs given by file names."""
    textures, by_stem = _image_names(root, "textures"), dict[str, str]()
    for name in textures:
        stem = _stem(name)
        if stem in by_stem:
            raise ValueError(f"textures {by_stem[stem]} and {name} differ only in their endings")
        by_stem[stem] = name
    found, alone = [], []
    for name in _image_names(root, "images"):
        partner = next((by_stem[s] for s in _texture_stems(name) if s in by_stem), None)
        if partner is None:
            alone.append(name)
        else:
            paths = f"images/{name}", f"textures/{partner}"
            found.append(Pair(*paths, name, partner, split=None, fields={}))
    _raise_if_any(root, "images without a texture of their name", alone)
    worn = {pair.texture_name for pair in found}
    _raise_if_any(
        root, "textures without an image of their name", [t for t in textures if t not in worn]
    )
    return found


def _image_names(root: Tree, folder: str) -> list[str]:
    """The images in one of the two folders, named from there."""
    names = sorted(name.removeprefix(f"{folder}/") for name in root.walk(folder))
    found = [name for name in names if name.lower().endswith(IMAGE_SUFFIXES)]
    others = [f"{folder}/{name}" for name in names if name.lower().endswith(_OTHER_SUFFIXES)]
    _raise_if_any(root, f"files that do not end in {', '.join(IMAGE_SUFFIXES)}", others)
    if not found:
        raise ValueError(
            f"{root.place}/{folder} holds no image; images end in {', '.join(IMAGE_SUFFIXES)}"
        )
    return found


def _stem(name: str) -> str:
    return name.rpartition(".")[0]


def _texture_stems(name: str) -> Iterator[str]:
    """The possible names of an image's texture, the longest first: a_b_c, a_b, a."""
    stem = _stem(name)
    while stem:
        yield stem
        stem = stem.rpartition("_")[0]


def _raise_if_any(root: Tree, what: str, names: list[str]) -> None:
    if names:
        shown = ", ".join(names[:_MAX_SHOWN]) + (", ..." if len(names) > _MAX_SHOWN else "")
        raise ValueError(f"{root.place} has {len(names)} {what}: {shown}")


def _check_names(root: Tree, kind: str, names: list[str]) -> None:
    """Raise ValueError if two sorted names are equal, or one cannot be stored."""
    for name, following in zip(names, [*names[1:], None], strict=True):
        if name == following:
            raise ValueError(f"{root.place} has two {kind}s that would both be called {name}")
        if name != name.encode(errors="replace").decode():
            raise ValueError(f"{root.place}: the name of {kind} {name!r} is not in UTF-8")
        if not name_fits_tar(name):
            raise ValueError(
                f"{root.place}: the name of {kind} {name} is too long; {TAR_NAME_RULE}"
            )


def _merge_equal_textures(root: Tree, found: list[Pair]) -> list[Pair]:
    """The pairs, where the first of several textures of the same bytes stands for them all."""
    first: dict[bytes, tuple[str, str]] = {}
    worn: dict[str, tuple[str, str]] = {}
    for name, path in sorted({(pair.texture_name, pair.texture) for pair in found}):
        digest = hashlib.sha256(root.read(path)).digest()
        worn[path] = first.setdefault(digest, (path, name))
    return [
        pair._replace(texture=worn[pair.texture][0], texture_name=worn[pair.texture][1])
        for pair in found
    ]


def _check_splits(root: Tree, found: list[Pair]) -> None:
    splits: dict[str, str | None] = {}
    for pair in found:
        if splits.setdefault(pair.texture_name, pair.split) != pair.split:
            raise ValueError(
                f"{root.place}: texture {pair.texture_name}, or one of the same bytes, is in"
                " several splits; whoever is held out must not be trained on"
            )


class SizeChecker:
    """Refuses an image or a texture whose size differs from the first of its kind."""

    def __init__(self) -> None:
        self._first: dict[str, tuple[str, tuple[int, int]]] = {}

    def check_image(self, name: str, data: bytes) -> None:
        """Raise ValueError if an image is damaged or not as large as the first."""
        self._check_size("image", name, data)

    def check_texture(self, name: str, data: bytes) -> None:
        """Raise ValueError if a texture is damaged, not square or not as large as the first."""
        rows, columns = self._check_size("texture", name, data)
        if rows != columns:
            raise ValueError(f"texture {name} has {rows}x{columns} texels; it must be square")

    def _check_size(self, kind: str, name: str, data: bytes) -> tuple[int, int]:
        rows, columns, _ = decode(data, name=f"{kind} {name}").shape
        first, size = self._first.setdefault(kind, (name, (rows, columns)))
        if (rows, columns) != size:
            raise ValueError(
                f"{kind} {name} has {rows}x{columns} pixels and {first} {size[0]}x{size[1]};"
                f" all {kind}s must be of one size"
            )
        return rows, columns
