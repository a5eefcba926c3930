"""Your own images in a table: a .csv with a row for every image.

    path,pid,camid,split
    images/0001.jpg,alice,entrance,train

`path` is relative to the table's folder, and its folders are separated by slashes of either kind.
People and cameras may be numbers or names. Column `camid` may be left out or empty if cameras are
unknown. Column `split` (train, val, query, gallery or multi) may be left out; then people are held
out for testing. In a gallery, pid 0 is a distractor and -1 junk, as in Market-1501. An archive may
hold all of it in one folder, of any name.

With columns x, y, width and height, paths name frames, and a frame may be in many rows. The box of
each row is cut out of its frame and stored as a PNG; x and y are its upper left pixel in the
upright frame. Other columns are stored as facts of the image: only pages show them.
"""

import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from functools import partial
from typing import NamedTuple

from san_core.data.frames import Frames, parse_box
from san_core.data.held_out import check_no_splits
from san_core.data.people import OWN_OPTIONS, NamedImage, is_junk, make_listing
from san_core.data.records import Listing, Problem
from san_core.data.table import Table
from san_core.data.tree import Tree
from san_core.images.shard import is_plain_path

COLUMNS = ("path", "pid", "camid", "split")
BOX_COLUMNS = ("x", "y", "width", "height")
SPLITS = ("train", "val", "query", "gallery", "multi")
OPTIONS = OWN_OPTIONS
_NO_CAMERA = "-1"  # often written for unknown cameras
# Other names of these columns: such a column is not a fact if the column it may mean is absent
_OTHER_NAMES = {"camera": "camid", "cam": "camid", "subset": "split", "set": "split", "w": "width"}
_OTHER_NAMES |= {"person": "pid", "identity": "pid", "file": "path", "image": "path", "h": "height"}
# Words of a longer name, such as camera_id or data_split, that make it doubtful too
_WORDS = dict.fromkeys(("cam", "cams", "camera", "cameras", "camid"), "camid")
_WORDS |= dict.fromkeys(("split", "splits", "subset", "partition"), "split")


def listing(tree: Tree, options: Mapping[str, str]) -> Listing:
    """Every row of the table in the tree, in its order.

    Args:
        tree: the table's folder; the table is the file that was given, else its only .csv.
        options: keys of OPTIONS.

    Raises:
        FileNotFoundError: there is no .csv.
        ValueError: there are several, the table lacks columns or usable rows, it has splits
            although people are to be held out, or names are ambiguous.
    """
    tree = tree.unwrap_archive()
    name = tree.given_file or _find_table(tree)
    table = Table(tree, name)
    _check_columns(table)
    has_splits = "split" in table.columns
    if has_splits:
        check_no_splits(options, f"{tree.place}/{name} has a column split")
    problems: list[Problem] = []
    lines: dict[str, int] = {}
    frames = Frames(tree)
    images = list(_images_of_rows(tree, frames, name, table, problems, lines))
    if "camid" in table.columns:
        images = _require_cameras(images, table, name, problems, lines)
    if not images:
        raise ValueError(
            f"{tree.place}/{name} has no usable row"
            + (f"; the first is a {problems[0].kind}, {problems[0]}" if problems else "")
        )
    listed = make_listing(images, problems, options, has_splits=has_splits)
    return listed._replace(warnings_after_reading=frames.warnings)


def _require_cameras(
    images: list[NamedImage],
    table: Table,
    name: str,
    problems: list[Problem],
    lines: Mapping[str, int],
) -> list[NamedImage]:
    """The images with a camera, the others being problems; or all images if none has one."""
    known = [image for image in images if image.camera]
    if not known:
        return [image._replace(camera=None) for image in images]
    if {image.camera for image in images} == {_NO_CAMERA}:
        raise ValueError(
            f"{table.place}: camid is {_NO_CAMERA} in every row; where cameras are unknown, leave "
            "the column out"
        )
    nowhere = {"": "no camid", _NO_CAMERA: f"camid {_NO_CAMERA}: an unknown camera"}
    problems += [
        Problem("wrong row", f"{name} line {lines[image.name]}", nowhere[image.camera])
        for image in images
        if image.camera in nowhere
    ]
    return [image for image in images if image.camera not in nowhere]


def _find_table(tree: Tree) -> str:
    """The only .csv of a folder."""
    found = [name for name in tree.entries().files if name.lower().endswith(".csv")]
    if not found:
        raise FileNotFoundError(f"{tree.place} has no .csv with the columns {', '.join(COLUMNS)}")
    if len(found) > 1:
        raise ValueError(f"{tree.place} has several .csv: {', '.join(found)}; give one of them")
    return found[0]


def _check_columns(table: Table) -> None:
    """Raise ValueError unless a table has the required columns, and no doubtful ones."""
    columns = table.columns
    lacking = [column for column in ("path", "pid") if column not in columns]
    twice = [column for column in columns if columns.count(column) > 1]
    doubtful = [column for column in columns if _meant_column(column, columns)]
    boxes = [column for column in BOX_COLUMNS if column in columns]
    if lacking:
        what = f"no column {lacking[0]}"
    elif doubtful:
        meant = _meant_column(doubtful[0], columns)
        what = f"a column {doubtful[0]!r}, which may be meant as {meant}"
    elif twice or "" in columns:
        what = f"a column {twice[0]!r} twice" if twice else "a column without a name"
    elif boxes and len(boxes) < len(BOX_COLUMNS):
        what = f"boxes without {next(c for c in BOX_COLUMNS if c not in columns)}"
    else:
        return
    raise ValueError(
        f"{table.place} has {what}; {table.describe_first_row(COLUMNS)}; it must have the columns "
        "path and pid, and may have camid, split, and x, y, width and height"
    )


def _meant_column(column: str, columns: list[str]) -> str:
    """The absent column that an unknown column may mean; empty for a fact."""
    if column in (*COLUMNS, *BOX_COLUMNS):
        return ""
    small = column.lower()
    close = get_close_matches(small, (*COLUMNS, "width", "height"), n=1, cutoff=0.75)
    words = [_WORDS[word] for word in re.split(r"[\W_]+", small) if word in _WORDS]
    others = [_plain_name(other) for other in columns if other != column]
    known = (*COLUMNS, *BOX_COLUMNS) if set(others) & set(BOX_COLUMNS) else COLUMNS
    meant = (name for name in (_plain_name(column), *words, *close) if name in known)
    return next((name for name in meant if name not in columns), "")


def _plain_name(column: str) -> str:
    """The name used here for a column in another spelling."""
    return _OTHER_NAMES.get(column.lower(), column.lower())


class _RowImage(NamedTuple):
    """The image of a row: its name, its reader, and what is wrong with the row, if anything."""

    name: str
    read: Callable[[], bytes]
    wrong: str = ""
    size: Callable[[], tuple[int, int]] | None = None


def _images_of_rows(
    tree: Tree,
    frames: Frames,
    name: str,
    table: Table,
    problems: list[Problem],
    lines: dict[str, int],
) -> Iterator[NamedImage]:
    """The images of the rows; adds the line of each to `lines`."""
    columns = table.columns
    facts = [column for column in columns if column not in (*COLUMNS, *BOX_COLUMNS)]
    for line, row in table.rows():
        place = f"{name} line {line}"
        path = _find_image(tree, (row["path"] or "").strip())
        told = (row.get("split") or "").strip()
        wrong = _row_error(row, columns, path)
        image = _RowImage(path, partial(tree.read, path), wrong)
        if "x" in columns and not wrong:
            image = _cut_image(frames, path, row)
        if image.wrong:
            concerned = told if told in SPLITS else ""
            problems.append(Problem("wrong row", place, image.wrong, concerned))
        elif image.name in lines:
            detail = f"{image.name} is in line {lines[image.name]} too"
            problems.append(Problem("wrong row", place, detail, told))
        elif not tree.is_file(path):
            problems.append(Problem("missing image", path, place, told))
        else:
            lines[image.name] = line
            camera = row["camid"].strip() if "camid" in columns else None
            known = {column: text for column in facts if (text := row[column].strip())}
            yield NamedImage(
                image.name, row["pid"].strip(), camera, told, image.read, known, image.size
            )


def _cut_image(frames: Frames, path: str, row: Mapping[str, str]) -> _RowImage:
    """The part of a frame that a row's box holds."""
    try:
        box = parse_box(*(row[column].strip() for column in BOX_COLUMNS))
    except ValueError as error:
        return _RowImage(path, bytes, str(error))
    return _RowImage(
        box.image_name(path), partial(frames.cut, path, box), size=partial(frames.size, path, box)
    )


def _find_image(tree: Tree, told: str) -> str:
    """The path of an image in the tree's spelling; the given path if there is no such file.

    Windows separates folders by backslashes, and macOS may write an accent as a separate character.
    """
    told = told.removeprefix("./")
    plain = told.replace("\\", "/").removeprefix("./")
    ways = told, plain, unicodedata.normalize("NFC", plain), unicodedata.normalize("NFD", plain)
    return next((way for way in ways if is_plain_path(way) and tree.is_file(way)), told)


def _row_error(row: dict[str, str], columns: list[str], path: str) -> str:
    """What is wrong with a row; empty if nothing is."""
    if None in row or None in row.values():
        return f"not {len(columns)} columns"
    needed = [c for c in columns if c in ("path", "pid", "split", *BOX_COLUMNS)]
    if empty := [column for column in needed if not row[column].strip()]:
        return f"no {empty[0]}"
    if not is_plain_path(path):
        return f"path {path!r} leads out of the table's folder"
    split = row.get("split", SPLITS[0]).strip()
    if split not in SPLITS:
        return f"split {split!r} is not one of {', '.join(SPLITS)}"
    pid = row["pid"].strip()
    if is_junk(pid) and ("split" not in row or split != "gallery"):
        return f"pid {pid} is junk, which only a gallery may hold"
    return ""
