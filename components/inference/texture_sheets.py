"""Contact sheets of textures: pictures, each with its texture and a body that wears it."""

from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

from san_core.data.records import person_label
from san_core.images.imageset import ImageSet
from san_core.images.pixels import Pixels, decode, encode_png
from san_core.images.shard import Record
from san_core.images.sheet import contact_sheet
from san_core.synthesis.mannequin import STRIP_HEIGHT, strip_width, texture_strip

COLUMNS, MOST = 4, 24  # textures on a contact sheet: in a row, and in all


def sheet_strip(images: ImageSet, record: Record, png: bytes, atlas: str | None) -> Pixels:
    """A picture, its texture, and a body that wears it where the layout `atlas` is known."""
    shown = STRIP_HEIGHT, STRIP_HEIGHT // 2
    picture = decode(images.read(record), name=record.name, at_least=shown)
    return texture_strip(picture, decode(png), atlas=atlas)


def texture_sheet(
    records: Sequence[Record], strips: Iterable[Pixels], *, atlas: str | None
) -> bytes:
    """A contact sheet (PNG) of strips, each with its person and the name of its picture."""
    labels = [
        " · ".join([*([] if r.pid is None else [person_label(r)]), PurePosixPath(r.name).stem])
        for r in records
    ]
    sheet = contact_sheet(
        strips, columns=COLUMNS, cell=(STRIP_HEIGHT, strip_width(atlas)), labels=labels
    )
    return encode_png(sheet)
