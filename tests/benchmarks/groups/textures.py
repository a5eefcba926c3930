"""Textures into a real S3 server and back, and what the step that makes them needs of memory.

10,000 textures of 256x256, about 100 KB each as PNG, into SeaweedFS on this machine, as shards and
as single objects in turns. Rates are wall-clock.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np

from components.storage.places import open_storage
from components.storage.staging import open_image_set
from components.storage.texture_store import FinishedUnit, put_shard
from san_core.images.imageset import build_manifest, manifest_bytes, write_imageset
from san_core.images.pixels import encode_jpeg, encode_png
from san_core.images.shard import Item, pack_shard
from san_core.model import weights
from tests.benchmarks.figure import Figure
from tests.san_core.training.tiny_run import tiny_model, tiny_recipe
from tests.servers.seaweedfs import BUCKET, running_server

ROOT = Path(__file__).parents[3]
SHARDS = 10
TURNS = 2
SHARD_SIZE = 1000
OBJECT_THREADS = 16
RUNS = 3
TEXTURE_SIDE = 256


def figures() -> Iterator[Figure]:
    """Write, stage, and generate."""
    with tempfile.TemporaryDirectory() as place:
        room = Path(place)
        with running_server(room / "s3" / "data") as server:
            os.environ |= {**server.environment, "SAN_CACHE": str(room / "cache")}
            yield from _storage_figures(room)
        yield from _memory_figures(room)


def _texture_pngs() -> list[bytes]:
    """A thousand PNGs as a generator's: two garments, stripes, soft edges, fine noise."""
    rng = np.random.default_rng(0)
    rows = np.linspace(0, 12, TEXTURE_SIDE)[:, None, None]
    made = []
    for _ in range(SHARD_SIZE):
        colours = rng.uniform(40, 215, (2, 3))
        mix = 0.5 + 0.5 * np.tanh(3 * np.sin(rows * rng.uniform(0.5, 2) + rng.uniform(0, 6)))
        picture = (
            mix * colours[0]
            + (1 - mix) * colours[1]
            + rng.normal(0, 3, (TEXTURE_SIDE, TEXTURE_SIDE, 3))
        )
        made.append(encode_png(picture.clip(0, 255).astype(np.uint8)))
    return made


def _storage_figures(room: Path) -> Iterator[Figure]:
    """Rates of two layouts through one and the same client, then of fetching the shards again."""
    textures = _texture_pngs()
    storage = open_storage(f"s3://{BUCKET}/textures")
    units: list[FinishedUnit] = []

    def as_shards(numbers: range) -> None:
        """As the step does: a shard is packed while the one before it is sent."""
        with ThreadPoolExecutor(1) as sender:
            sending: list[Future[FinishedUnit]] = []
            for number in numbers:
                named = enumerate(textures)
                items = (Item(f"{number}/{i:04d}.png", p, 1, 0, "train") for i, p in named)
                shard = pack_shard(items, room / f"{number}.tar", number, total=SHARDS)
                units.extend(sent.result() for sent in sending)
                sending = [sender.submit(put_shard, storage, shard)]
            units.extend(sent.result() for sent in sending)

    def as_objects(numbers: range) -> None:
        names = [(f"{number}/{i:04d}.png", i) for number in numbers for i in range(SHARD_SIZE)]
        with ThreadPoolExecutor(OBJECT_THREADS) as pool:
            list(pool.map(lambda one: storage.put_bytes(one[0], textures[one[1]]), names))

    seconds: dict[Callable[[range], None], list[float]] = {as_shards: [], as_objects: []}
    for turn in range(TURNS):
        numbers = range(turn * SHARDS // TURNS, (turn + 1) * SHARDS // TURNS)
        for write_some in (as_shards, as_objects) if turn % 2 else (as_objects, as_shards):
            started = time.monotonic()
            write_some(numbers)
            seconds[write_some].append(time.monotonic() - started)
    ratios = [b / a for a, b in zip(seconds[as_shards], seconds[as_objects], strict=True)]
    for name, how in (("shard", as_shards), ("object", as_objects)):
        rate = SHARDS * SHARD_SIZE / sum(seconds[how])
        yield Figure(f"textures.{name}_images_per_second", rate, "images/s")
    yield Figure("textures.shard_vs_object_write", statistics.median(ratios), "ratio")

    content = build_manifest({unit.name: unit.data for unit in units}, provenance={})
    (room / "artifact").mkdir()
    travelling = manifest_bytes({**content, "uri": storage.uri})
    (room / "artifact" / "manifest.json").write_bytes(travelling)
    for name, what in (("stage", "fetched"), ("restage", "found")):
        started = time.monotonic()
        with open_image_set(room / "artifact") as images:
            assert len(images.records) == SHARDS * SHARD_SIZE, what
        rate = SHARDS * SHARD_SIZE / (time.monotonic() - started)
        yield Figure(f"textures.{name}_images_per_second", rate, "images/s")


def _memory_figures(room: Path) -> Iterator[Figure]:
    """Peak resident memory of generate_textures at 1,000 and at 10,000 images, a process each.

    Most of it is torch and the network's largest maps; a narrow network lets the rest be seen.
    Medians of RUNS, since the peak of an allocator depends on the moment.
    """
    narrow = f"image_height=64 image_width=32 texture_size={TEXTURE_SIDE} decoder_width=0.25"
    settings = tiny_recipe("demo-pg", narrow)
    (room / "generator").mkdir()
    weights.save_network(room / "generator", tiny_model(settings), settings, facts={})
    peaks = {}
    for count in (SHARD_SIZE, SHARDS * SHARD_SIZE):
        _write_photographs(room / str(count), count)
        started = time.monotonic()
        peaks[count] = statistics.median(_peak_mib(room, count, run) for run in range(RUNS))
        rate = RUNS * count / (time.monotonic() - started)
        yield Figure(f"textures.memory_{count}_mib", peaks[count], "MiB")
    yield Figure(
        "textures.memory_growth_mib", peaks[SHARDS * SHARD_SIZE] - peaks[SHARD_SIZE], "MiB"
    )
    yield Figure("textures.generate_images_per_second", rate, "images/s")


def _write_photographs(folder: Path, count: int) -> None:
    rng = np.random.default_rng(0)
    pictures = [
        encode_jpeg(rng.integers(0, 256, (64, 32, 3), np.uint8), quality=90) for _ in range(50)
    ]
    items = (Item(f"{i:05d}.jpg", pictures[i % 50], 1, 0, "train") for i in range(count))
    write_imageset(folder, items, total=count, provenance={}, preview=None)


def _peak_mib(room: Path, count: int, run: int) -> float:
    words = ["--dataset", room / str(count), "--generator", room / "generator"]
    words += ["--written", room / f"written{count}-{run}"]
    words += ["--destination", room / f"made{count}-{run}"]
    command = [sys.executable, "-m", "components", "generate_textures", *map(str, words)]
    process = subprocess.Popen(command, cwd=ROOT)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return usage.ru_maxrss / 1024
