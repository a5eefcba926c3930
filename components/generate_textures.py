"""Generate the pseudo ground-truth texture of every image of a data set."""

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from components.outputs import finished
from components.step import Input, Output

if TYPE_CHECKING:
    import torch

    from san_core.imageset import ImageSet, Item, Record
    from san_core.model.weights import Loaded

log = logging.getLogger(__name__)


def generate_textures(
    dataset: Annotated[Path, Input("Dataset")],
    generator: Annotated[Path, Input("Model")],
    written: Annotated[Path, Output("Dataset")],
    destination: str,
    split: str = "train",
    worker: str = "0/1",
    shard_size: int = 1000,
    precision: str = "float32",
) -> None:
    """Generate the pseudo ground-truth texture of every image of one split, shard by shard.

    Shards that a former or another run has finished are kept. Run it once per worker, then
    seal_textures.

    Args:
        dataset: the person images, an image set
        generator: SAN-PG, made by train_san_pg
        written: receipt naming the shards of this worker and where they are
        destination: folder or URI under which textures are kept, in a folder of their own
        split: which images get a texture
        worker: "i/n": this is worker i of n, counted from 0; it makes every n-th shard
        shard_size: images per shard, at most 1,000
        precision: float32, or on a GPU float16 or bfloat16
    """
    from components.machine import device
    from components.staging import identity, open_set
    from components.storage import open_storage
    from components.texture_store import finished_units, put_shard
    from san_core.imageset import manifest_bytes, pack, preview_name, preview_sheet
    from san_core.model import weights
    from san_core.texture_set import TextureSettings, share, units

    loaded = weights.load(generator)
    settings = TextureSettings(
        source=weights.fingerprint(generator),
        dataset=identity(dataset),
        split=split,
        texture_size=loaded.recipe.texture_size,
        shard_size=shard_size,
        precision=precision,
    )
    storage = open_storage(destination, settings.folder)
    with open_set(dataset) as images:
        mine = share(worker, units(images.of_split(split), shard_size))
        done = finished_units(storage, {unit.number for unit in mine})
        todo = [unit for unit in mine if unit.number not in done]
        log.info("worker %s: %d of its %d shards to make", worker, len(todo), len(mine))
        log.info("textures go to %s", storage.uri)
        for unit in todo:
            started = time.monotonic()
            items = _textures(loaded, images, unit.records, precision, device())
            sheet = preview_sheet([item.data for item in items], cell=(64, 64))
            storage.put(preview_name(unit.number), sheet)
            done[unit.number] = put_shard(storage, pack(items, unit.number, total=unit.total))
            rate = len(items) / (time.monotonic() - started)
            log.info("shard %d of %d: %.0f images/s", unit.number, unit.total, rate)
    receipt = {
        "format": "san-receipt",
        "uri": storage.uri,
        "worker": worker,
        "count": sum(len(unit.records) for unit in mine),
        "shards": [done[unit.number].described() for unit in mine],
    }
    with finished(written) as folder:
        (folder / "manifest.json").write_bytes(manifest_bytes(receipt))


def _textures(
    generator: "Loaded",
    images: "ImageSet",
    records: "Sequence[Record]",
    precision: str,
    device: "torch.device",
) -> "list[Item]":
    """What the generator makes of some images, encoded and named after them."""
    import numpy as np

    from san_core.pixels import decode, encode_png, resize
    from san_core.texture_set import texture_item
    from san_core.textures import generate

    size = generator.recipe.image_size
    pictures = [resize(decode(images.read(r), name=r.name), size) for r in records]
    made = generate(generator.model, np.stack(pictures), device=device, precision=precision)
    return [
        texture_item(record, encode_png(texture))
        for record, texture in zip(records, made, strict=True)
    ]
