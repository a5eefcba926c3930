"""What preparing a data set takes.

CPU time beside copying: 10,000 JPEGs of 64x128 in Market-1501's layout, every one decoded. Memory:
130,000 JPEGs, so that what grows with their number is seen.
"""

import shutil
import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import numpy as np

from components.prepare_reid import prepare_reid
from san_core.images.pixels import encode_jpeg
from tests.benchmarks.figure import Figure
from tests.benchmarks.measuring import least_cpu_seconds, one_thread, peak_mib

IMAGE_COUNTS = {"bounding_box_train": 6000, "query": 1000, "bounding_box_test": 3000}
TIMES = 7

PREPARE_CODE = """
from pathlib import Path
from functools import partial
from tempfile import TemporaryDirectory

from san_core.data.prepare import Findings, check_images, write_prepared_set
from san_core.data.records import ListedImage
from san_core.images.pixels import encode_jpeg
import numpy as np

noise = np.random.default_rng(0).integers(0, 256, (64, 32, 3), np.uint8)
base = encode_jpeg(noise, quality=95)

def read(i):
    return base + i.to_bytes(4, "big")  # decoders ignore what follows the image; no two are equal

def prepare(count):
    found = Findings()
    images = [
        ListedImage(
            f"{{i // 100:04d}}/{{i:06d}}.jpg", 1 + i // 100, i % 6, "train", partial(read, i)
        )
        for i in range(count)
    ]
    with TemporaryDirectory() as folder:
        kept = check_images(images, found, seen={{}})
        write_prepared_set(Path(folder), kept, found, provenance={{}})

prepare(2000)

def run():
    prepare({count})
"""


def figures() -> Iterator[Figure]:
    """CPU times, in turns, and their ratio; memory."""
    with tempfile.TemporaryDirectory() as place, one_thread():
        release = Path(place, "Market-1501-v15.09.15")
        _write_release(release)

        def run_prepare() -> None:
            prepare_reid(Path(place, "reid"), dataset="market1501", source=str(release))

        copies = count()

        def run_copy() -> None:  # each to a folder of its own: removing one would be timed too
            shutil.copytree(release, Path(place, f"copy{next(copies)}"))

        prepare, copy = least_cpu_seconds(run_prepare, run_copy, times=TIMES)
        yield Figure("datasets.prepare_cpu_seconds", prepare, "s")
        yield Figure("datasets.copy_cpu_seconds", copy, "s")
        yield Figure("datasets.prepare_vs_copy", prepare / copy, "ratio")
    yield Figure("datasets.memory_130000_mib", peak_mib(PREPARE_CODE.format(count=130_000)), "MiB")


def _write_release(release: Path) -> None:
    """Pictures as smooth as photographs, each of its own: 2 to 3 KB of JPEG."""
    rng = np.random.default_rng(0)
    number = 0
    for folder, images in IMAGE_COUNTS.items():
        (release / folder).mkdir(parents=True)
        for _ in range(images):
            number += 1
            coarse = rng.uniform(0, 255, (17, 9, 3))
            rows, columns = np.linspace(0, 15.99, 128), np.linspace(0, 7.99, 64)
            picture = _interpolate(coarse, rows, columns) + rng.normal(0, 6, (128, 64, 3))
            name = f"{1 + number // 10:04d}_c{1 + number % 6}s1_{number:06d}_00.jpg"
            data = encode_jpeg(picture.clip(0, 255).astype(np.uint8), quality=90)
            (release / folder / name).write_bytes(data)


def _interpolate(coarse: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """A coarse picture (h, w, 3) at fractional rows and columns, bilinear."""
    top, left = rows.astype(int), columns.astype(int)
    down, right = (rows - top)[:, None, None], (columns - left)[None, :, None]
    upper = coarse[top][:, left] * (1 - right) + coarse[top][:, left + 1] * right
    lower = coarse[top + 1][:, left] * (1 - right) + coarse[top + 1][:, left + 1] * right
    return upper * (1 - down) + lower * down
