"""Images as arrays: the one decoder, encoder and resize that every part of the project shares.

An image is a uint8 array of shape (H, W, 3), RGB, 0-255. Resizing differs between libraries
(antialiasing, rounding), and a network sees the difference, so there is one implementation here
and training, texture generation, feature extraction and reports all use it.
"""

import io
import re
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image
from PIL.BmpImagePlugin import BmpImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

Pixels = NDArray[np.uint8]
MAX_PIXELS = 89_478_485  # what Pillow warns of as a decompression bomb
# The formats that are read, by the first bytes of the file; its name does not matter.
_DECODERS: dict[str, tuple[re.Pattern[bytes], Callable[[io.BytesIO], ImageFile]]] = {
    "JPEG": (re.compile(rb"\xff\xd8\xff"), JpegImageFile),
    "PNG": (re.compile(rb"\x89PNG\r\n\x1a\n"), PngImageFile),
    "WebP": (re.compile(rb"RIFF.{4}WEBP", re.DOTALL), WebPImageFile),
    "BMP": (re.compile(rb"BM"), BmpImageFile),
    "TIFF": (re.compile(rb"II\*\0|MM\0\*"), TiffImageFile),
}
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff")
# The formats that image sets store; other formats are converted to PNG.
KEPT_FORMATS = ("JPEG", "PNG")
_GREY_16_BITS = "I;16"  # how modes of 16-bit greyscale begin
_GROUND = "white"  # contact sheets too, so that a removed background does not reappear
# Chunks of a PNG that are not used. Pillow refuses a file if they are long.
_UNUSED_CHUNKS = (b"iCCP", b"tEXt", b"zTXt", b"iTXt")
_Z_RLE = 3
# Errors of Pillow for a damaged file or damaged EXIF data.
_DAMAGE_ERRORS = (
    *(SyntaxError, ValueError, TypeError, KeyError, IndexError, EOFError, OverflowError),
    *(OSError, struct.error, zlib.error),
)
_TURNS = {  # by the orientation in EXIF; 1 is upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode(data: bytes, *, name: str = "image", at_least: tuple[int, int] | None = None) -> Pixels:
    """The pixels of an image file: (H, W, 3), RGB, 0-255, upright if EXIF tells how.

    JPEG, PNG, WebP, BMP and TIFF are read, one picture per file. Of 16 bits per channel the upper 8
    are used, so the full range of the file becomes the full range of the pixels. Transparent parts
    become white, as in image viewers.

    Args:
        data: the whole file.
        name: the image's name in errors.
        at_least: the rows and columns that are needed; a larger JPEG may be decoded smaller, which
            is faster.

    Raises:
        ValueError: the bytes are not a whole image, or have an unsupported format.
    """
    with _open_image(data, name) as image:
        if at_least:
            image.draft("RGB", at_least[::-1])
        image.load()  # the EXIF data of a PNG may follow its pixels
        return _rgb_pixels(_turn_upright(image))


def image_format(data: bytes) -> str:
    """The format of an image file by how it begins, such as "JPEG"; empty if it is not read."""
    return next((name for name, (start, _) in _DECODERS.items() if start.match(data)), "")


class Look(NamedTuple):
    """The upright size and the brightness (0-255) of an image.

    `spread` is from the darkest to the lightest pixel, `brightness` the mean.
    """

    height: int
    width: int
    spread: int
    brightness: float


class KeptFile(NamedTuple):
    """An image file as sets store it, whether it has transparent parts, and its `Look`."""

    name: str
    data: bytes
    is_transparent: bool
    look: Look


def file_to_keep(name: str, data: bytes) -> KeptFile:
    """A JPEG or PNG unchanged; an image of another format converted to PNG.

    Raises:
        ValueError: the bytes are not a whole image, or have an unsupported format.
    """
    with _open_image(data, name) as image:
        image.load()
        is_transparent, upright = _is_transparent(image), _turn_upright(image)
        look = _look_of(upright)
        if image_format(data) in KEPT_FORMATS:
            return KeptFile(name, data, is_transparent, look)
        png = encode_png(_rgb_pixels(upright))
    return KeptFile(str(PurePosixPath(name).with_suffix(".png")), png, is_transparent, look)


def image_size(data: bytes, *, name: str = "image") -> tuple[int, int]:
    """Rows and columns of an image file, upright, by its header; arguments as of `decode`.

    Raises:
        ValueError: the bytes do not begin an image, or have an unsupported format.
    """
    with _open_image(data, name) as image:
        upright = _turn_upright(image) if "exif" in image.info else image
        return upright.height, upright.width


def _look_of(image: Image.Image) -> Look:
    """The look of a loaded image."""
    shown = image if image.mode in ("RGB", "L") else _rgb_image(image)
    counts = np.array(shown.convert("L").histogram())
    levels = np.flatnonzero(counts)
    brightness = float(counts @ np.arange(len(counts)) / counts.sum())
    return Look(image.height, image.width, int(levels[-1] - levels[0]), round(brightness, 2))


def _rgb_pixels(image: Image.Image) -> Pixels:
    """The pixels of a loaded image: (H, W, 3), RGB."""
    return np.asarray(_rgb_image(image))


def _rgb_image(image: Image.Image) -> Image.Image:
    """A loaded image in RGB.

    Pillow would clip 16-bit greyscale to white; it takes the upper 8 bits of 16-bit colours.
    """
    if image.mode.startswith(_GREY_16_BITS):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.has_transparency_data:
        ground = Image.new("RGBA", image.size, _GROUND)
        image = Image.alpha_composite(ground, image.convert("RGBA"))
    return image.convert("RGB")


def _is_transparent(image: Image.Image) -> bool:
    """Whether any pixel of a loaded image is transparent."""
    if image.mode.startswith(_GREY_16_BITS) or not image.has_transparency_data:
        return False
    return image.convert("RGBA").getchannel("A").getextrema() != (255, 255)


def _turn_upright(image: Image.Image) -> Image.Image:
    """An image turned upright by its EXIF data; unreadable EXIF data is ignored."""
    if "exif" not in image.info:
        return image
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except _DAMAGE_ERRORS:
        return image
    turn = _TURNS.get(orientation) if isinstance(orientation, int) else None
    return image if turn is None else image.transpose(turn)


@contextmanager
def _open_image(data: bytes, name: str) -> Iterator[Image.Image]:
    """Opens an image for decoding in the block; errors name its file.

    Raises:
        ValueError: the bytes are not a whole image, or have an unsupported format.
    """
    kind = image_format(data)
    if not kind:
        raise ValueError(f"{name}: {len(data)} bytes that are not one of {', '.join(_DECODERS)}")
    try:
        # Not Image.open: it reads forty formats and prints its own warning for big images.
        used = _without_unused_chunks(data) if kind == "PNG" else data
        with _DECODERS[kind][1](io.BytesIO(used)) as image:
            refusal = _refusal(image)
            if not refusal:
                yield image
                return
    except _DAMAGE_ERRORS as error:
        raise ValueError(f"{name}: {len(data)} bytes are not a whole image ({error})") from error
    raise ValueError(f"{name}: {refusal}")


def _without_unused_chunks(png: bytes) -> bytes:
    """A PNG, complete or not, without its colour profile and texts."""
    kept, at = [png[:8]], 8
    while at + 8 <= len(png):
        size, kind = struct.unpack_from(">I4s", png, at)
        end = at + 12 + size  # with the length, the kind and the sum
        if kind not in _UNUSED_CHUNKS:
            kept.append(png[at:end])
        at = end
    return b"".join(kept)


def _refusal(image: ImageFile) -> str:
    """Why an opened image is not decoded; empty if it is."""
    width, height = image.size
    if width * height > MAX_PIXELS:
        return f"{width}x{height} pixels; at most {MAX_PIXELS:,} are decoded"
    # An animated PNG has a still picture for programs without animation.
    if not isinstance(image, PngImageFile) and _has_second_picture(image):
        return "several pictures in one file; only single pictures are read"
    is_wide = image.mode.startswith(("I", "F")) and not image.mode.startswith(_GREY_16_BITS)
    return "32 bits per channel; 8 or 16 are read" if is_wide else ""


def _has_second_picture(image: ImageFile) -> bool:
    """Whether there is a second picture; counting all may take long."""
    try:
        image.seek(1)
    except EOFError:
        return False
    return True


def encode_png(image: Pixels) -> bytes:
    """Lossless PNG bytes of an image (H, W, 3).

    Run-length matching alone (zlib's Z_RLE): on textures 1.3 times as fast as zlib's level 1, and
    the files are smaller by a seventh.
    """
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", compress_level=1, compress_type=_Z_RLE)
    return buffer.getvalue()


def encode_jpeg(image: Pixels, *, quality: int) -> bytes:
    """JPEG bytes of an image (H, W, 3) at a quality of 1-100."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def resize(image: Pixels, size: tuple[int, int]) -> Pixels:
    """An image (H, W, 3) at `size` = (rows, columns), bilinear with antialiasing."""
    if image.shape[:2] == size:
        return image
    rows, columns = size
    return np.asarray(Image.fromarray(image).resize((columns, rows), Image.Resampling.BILINEAR))


def area_average(image: Pixels, size: int) -> Pixels:
    """A square texture (T, T, 3) reduced to `size` by averaging whole blocks of texels.

    Textures are never interpolated, because interpolation would mix texels of neighbouring charts,
    which are different parts of the body.

    Raises:
        ValueError: the texture is not square, or its side is no multiple of `size`.
    """
    rows, columns = image.shape[:2]
    if rows != columns or rows % size:
        raise ValueError(
            f"a texture of {rows}x{columns} cannot be averaged to {size}x{size}: "
            f"its sides must be equal and a multiple of {size}"
        )
    k = rows // size
    if k == 1:
        return image
    means = image.reshape(size, k, size, k, 3).mean(axis=(1, 3), dtype=np.float32)
    averaged: Pixels = np.rint(means).astype(np.uint8)
    return averaged
