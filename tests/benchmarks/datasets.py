"""What preparing a data set takes beside copying it: 10,000 JPEGs of 64x128 in Market's layout."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from components.prepare_reid import prepare_reid
from san_core.pixels import encode_jpeg
from tests.benchmarks.figure import Figure
from tests.benchmarks.measuring import cpu_seconds, one_thread

IMAGES = {"bounding_box_train": 6000, "query": 1000, "bounding_box_test": 3000}
TIMES = 5


def figures() -> Iterator[Figure]:
    """The ratio of CPU times, in turns, and both."""
    with tempfile.TemporaryDirectory() as place, one_thread():
        release = Path(place, "Market-1501-v15.09.15")
        _make(release)

        def prepared() -> None:
            prepare_reid(Path(place, "reid"), dataset="market1501", source=str(release))

        def copied() -> None:
            shutil.rmtree(Path(place, "copy"), ignore_errors=True)
            shutil.copytree(release, Path(place, "copy"))

        def removed() -> None:
            shutil.rmtree(Path(place, "copy"), ignore_errors=True)

        prepare, copy = cpu_seconds(prepared, copied, times=TIMES)
        yield Figure("datasets.prepare_cpu_seconds", prepare, "s")
        yield Figure("datasets.copy_cpu_seconds", copy, "s")
        yield Figure("datasets.prepare_vs_copy", prepare / copy, "ratio")


def _make(release: Path) -> None:
    """Pictures as smooth as photographs, each of its own: 2 to 3 KB of JPEG."""
    rng = np.random.default_rng(0)
    number = 0
    for folder, count in IMAGES.items():
        (release / folder).mkdir(parents=True)
        for _ in range(count):
            number += 1
            coarse = rng.uniform(0, 255, (17, 9, 3))
            rows, columns = np.linspace(0, 15.99, 128), np.linspace(0, 7.99, 64)
            picture = _interpolated(coarse, rows, columns) + rng.normal(0, 6, (128, 64, 3))
            name = f"{1 + number // 10:04d}_c{1 + number % 6}s1_{number:06d}_00.jpg"
            data = encode_jpeg(picture.clip(0, 255).astype(np.uint8), quality=90)
            (release / folder / name).write_bytes(data)


def _interpolated(coarse: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """A coarse picture (h, w, 3) at fractional rows and columns, bilinear."""
    top, left = rows.astype(int), columns.astype(int)
    down, right = (rows - top)[:, None, None], (columns - left)[None, :, None]
    upper = coarse[top][:, left] * (1 - right) + coarse[top][:, left + 1] * right
    lower = coarse[top + 1][:, left] * (1 - right) + coarse[top + 1][:, left + 1] * right
    return upper * (1 - down) + lower * down
