import io
import struct
import zlib
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image

from san_core.images.pixels import (
    area_average,
    decode,
    encode_jpeg,
    encode_png,
    file_to_keep,
    image_format,
    resize,
)


def test_png_comes_back_exactly(picture):
    assert np.array_equal(decode(encode_png(picture(1))), picture(1))


def test_jpeg_comes_back_nearly(picture):
    # 16 levels: chroma is stored at half the resolution, which blurs the edges of the blocks
    difference = decode(encode_jpeg(picture(1), quality=95)).astype(int) - picture(1)
    assert np.abs(difference).mean() < 16


def test_truncated_image_is_refused_by_name(picture):
    data = encode_png(picture(1))
    with pytest.raises(ValueError, match=r"a\.png: \d+ bytes are not a whole image"):
        decode(data[: len(data) // 2], name="a.png")


def test_what_is_no_image_is_refused_by_name():
    with pytest.raises(
        ValueError,
        match=r"a\.txt: 5 bytes that are not one of JPEG, PNG, WebP, "
        r"BM",
    ):
        decode(b"words", name="a.txt")


@pytest.mark.parametrize("kind", ["GIF", "PPM", "ICO"])
def test_other_formats_are_refused_whatever_their_name(picture, kind):
    buffer = io.BytesIO()
    Image.fromarray(picture(1)).save(buffer, kind)
    with pytest.raises(ValueError, match=r"a\.jpg: \d+ bytes that are not one of JPEG, PNG"):
        decode(buffer.getvalue(), name="a.jpg")


def saved(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")  # Pillow's, of a TIFF that was cut
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("BMP", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("TIFF", {"compression": "tiff_adobe_deflate"}),
        ("WEBP", {"lossless": True}),
    ],
)
def test_other_formats_are_read_and_kept_as_png(picture, kind, options):
    data = saved(Image.fromarray(picture(1)), kind, **options)
    assert np.array_equal(decode(data), picture(1))
    kept = file_to_keep("a/1.jpg", data)
    assert (kept.name, image_format(kept.data)) == ("a/1.png", "PNG")
    assert np.array_equal(decode(kept.data), picture(1))
    with pytest.raises(ValueError, match=r"a/1\.jpg: \d+ bytes are not a whole image"):
        file_to_keep("a/1.jpg", data[: len(data) // 2])


def test_a_jpeg_or_png_is_kept_as_it_is(picture):
    for data in (encode_png(picture(1)), encode_jpeg(picture(1), quality=90)):
        assert file_to_keep("a.JPG", data)[:3] == ("a.JPG", data, False)


@pytest.mark.parametrize("kind", ["TIFF", "WEBP"])
def test_a_file_of_several_pictures_is_refused(picture, kind):
    first, *more = (Image.fromarray(picture(seed)) for seed in range(3))
    data = saved(first, kind, save_all=True, append_images=more)
    with pytest.raises(ValueError, match=r"a\.tif: several pictures in one file; only single"):
        decode(data, name="a.tif")


def cut_out(kind, **options):
    """Red in the left half; blue in the right one, where nothing of it is to be seen."""
    pixels = np.zeros((8, 8, 4), np.uint8)
    pixels[:, :4], pixels[:, 4:] = (255, 0, 0, 255), (0, 0, 255, 0)
    return saved(Image.fromarray(pixels), kind, **options)


def cut_out_by_a_key(mode):
    """As `cut_out`, where one colour of the file says that it is transparent."""
    image = Image.new(mode, (8, 8), 0 if mode == "P" else (255, 0, 0))
    blue = 1 if mode == "P" else (0, 0, 255)
    if mode == "P":
        image.putpalette([255, 0, 0, 0, 0, 255])
    image.paste(blue, (4, 0, 8, 8))
    return saved(image, "PNG", transparency=blue)


@pytest.mark.parametrize(
    "data",
    [
        cut_out("PNG"),
        cut_out("WEBP", lossless=True, exact=True),
        cut_out("TIFF"),
        cut_out_by_a_key("P"),
        cut_out_by_a_key("RGB"),
    ],
    ids=["PNG", "WebP", "TIFF", "key in a palette", "key"],
)
def test_a_background_that_was_removed_does_not_come_back(data):
    kept = file_to_keep("a.png", data)
    for found in (decode(data), decode(kept.data)):
        assert (found[:, :4] == (255, 0, 0)).all()
        assert (found[:, 4:] == 255).all()
    assert kept.is_transparent


def test_a_picture_that_could_be_transparent_and_is_not_is_itself(picture):
    image = Image.fromarray(picture(1))
    image.putalpha(255)
    data = saved(image, "PNG")
    assert np.array_equal(decode(data), picture(1))
    assert not file_to_keep("a.png", data).is_transparent


@pytest.mark.parametrize("kind", [b"iCCP", b"iTXt", b"zTXt"])
def test_long_profiles_and_texts_of_a_png_are_passed_over(picture, kind):
    packed = zlib.compress(bytes(2 << 20))  # Pillow reads 1 MiB of it
    start = b"XML\0\1\0\0\0" if kind == b"iTXt" else b"note\0\0"
    body = kind + start + packed
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    plain = encode_png(picture(1))
    data = plain[:33] + chunk + plain[33:]
    with pytest.raises(ValueError, match="too large"):
        Image.open(io.BytesIO(data)).load()
    assert np.array_equal(decode(data), picture(1))
    assert file_to_keep("a.png", data).data == data


GREY = np.linspace(0, 65535, 32 * 16).astype(np.uint16).reshape(32, 16)


@pytest.mark.parametrize(
    "data",
    [
        saved(Image.fromarray(GREY), "PNG"),
        saved(Image.fromarray(GREY), "TIFF"),
        saved(Image.fromarray(GREY.astype(">u2")), "TIFF"),
    ],
    ids=["PNG", "TIFF", "TIFF of big-endian order"],
)
def test_greyscale_of_16_bits_keeps_its_range(data):
    found = decode(data)
    assert np.array_equal(found, np.repeat((GREY // 256)[..., None], 3, axis=2))
    assert (found == 255).mean() < 0.01
    assert file_to_keep("a.png", data).name == "a.png"


@pytest.mark.parametrize("pixels", [np.zeros((8, 4), np.int32), np.zeros((8, 4), np.float32)])
def test_pixels_of_32_bits_are_refused(pixels):
    with pytest.raises(ValueError, match=r"a\.tif: 32 bits per channel; 8 or 16 are read"):
        decode(saved(Image.fromarray(pixels), "TIFF"), name="a.tif")


def test_a_jpeg_that_may_come_smaller_is_no_smaller_than_asked(picture):
    whole = encode_jpeg(picture(1, 512, 256), quality=90)
    assert decode(whole, at_least=(100, 60)).shape == (128, 64, 3)
    assert decode(whole).shape == (512, 256, 3)


@pytest.mark.parametrize("side", [10_000, 30_000])
def test_an_image_that_would_fill_the_memory_is_refused(picture, side):
    data = bytearray(encode_png(picture(1)))
    data[16:24] = struct.pack(">II", side, side)  # width and height in the first chunk, IHDR
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    with pytest.raises(ValueError, match=f"a.png: {side}x{side} pixels; at most 89,478,485 are"):
        decode(bytes(data), name="a.png")


@pytest.mark.filterwarnings("ignore")  # Pillow's, of damaged TIFF files
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])  # it keeps no state
@given(st.data())
def test_damage_of_any_kind_is_an_error_of_the_image(picture, data):
    image = Image.fromarray(picture(1))
    whole = saved(image, data.draw(st.sampled_from(["PNG", "JPEG", "WEBP", "BMP", "TIFF"])))
    damaged = bytearray(whole)
    for place, value in data.draw(st.lists(st.tuples(st.integers(0, 150), st.integers(0, 255)))):
        damaged[place % len(damaged)] = value
    with suppress(ValueError):  # anything else would end a step by a traceback
        decode(bytes(damaged), name="a.png")


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_a_picture_of_a_turned_camera_is_upright(orientation, kind):
    turned = np.zeros((20, 10, 3), np.uint8)
    turned[:8, :4] = 255
    exif, buffer = Image.Exif(), io.BytesIO()
    exif[ExifTags.Base.Orientation] = orientation
    Image.fromarray(turned).save(buffer, kind, exif=exif)
    turns = {  # rows and columns as the standard says where row 0 and column 0 are
        2: turned[:, ::-1],
        3: turned[::-1, ::-1],
        4: turned[::-1],
        5: turned.transpose(1, 0, 2),
        6: np.rot90(turned, -1),
        7: np.rot90(turned, 2).transpose(1, 0, 2),
        8: np.rot90(turned),
    }
    expected = turns.get(orientation, turned)
    found = decode(buffer.getvalue())
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).mean() < 20


def test_exif_that_cannot_be_read_turns_nothing(picture):
    buffer = io.BytesIO()
    Image.fromarray(picture(1)).save(buffer, "PNG", exif=b"Exif\0\0no TIFF at all")
    assert np.array_equal(decode(buffer.getvalue()), picture(1))


def test_resize_takes_rows_then_columns(picture):
    assert resize(picture(1), (64, 8)).shape == (64, 8, 3)
    assert resize(picture(1), (32, 16)) is not None


def test_resize_averages_when_it_shrinks():
    checkered = np.indices((64, 64)).sum(0) % 2 * 255
    small = resize(np.repeat(checkered[..., None], 3, 2).astype(np.uint8), (8, 8))
    assert small.min() > 100
    assert small.max() < 155


def test_area_average_is_the_mean_of_whole_blocks():
    texture = np.zeros((4, 4, 3), np.uint8)
    texture[:2, :2] = [[[0, 0, 0], [10, 0, 0]], [[20, 0, 0], [30, 0, 3]]]
    small = area_average(texture, 2)
    # (0 + 10 + 20 + 30) / 4 = 15;  (0 + 0 + 0 + 3) / 4 = 0.75, rounded to 1
    assert small[0, 0].tolist() == [15, 0, 1]
    assert small[1:].sum() == 0


@pytest.mark.parametrize("shape", [(4, 6, 3), (6, 6, 3)])
def test_texture_that_is_no_multiple_is_refused(shape):
    with pytest.raises(ValueError, match=rf"{shape[0]}x{shape[1]} cannot be averaged to 4x4"):
        area_average(np.zeros(shape, np.uint8), 4)
