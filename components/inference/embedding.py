"""Reading and decoding images of any size for an encoder, a batch at a time."""

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice

import numpy as np

from components.inference.lazy_sequence import LazySequence
from components.process.machine import core_count
from components.process.progress import track_progress
from components.process.threads import map_bounded, thread_pool
from san_core.data.batches.cache import EncodedImage
from san_core.images.imageset import ImageSet
from san_core.images.pixels import Pixels, decode, resize
from san_core.images.shard import Record

BATCH = 64


def encoded_images(images: ImageSet, records: Sequence[Record]) -> Sequence[EncodedImage]:
    """Images of a set; none is held, as there may be millions."""
    return LazySequence(records, lambda one: EncodedImage(one.name, partial(images.read, one)))


def decoded_batches(files: Sequence[EncodedImage], size: tuple[int, int]) -> Iterator[Pixels]:
    """Images at a size, in batches (B, H, W, 3) of BATCH; the next batch is decoded meanwhile.

    Raises:
        ValueError: a file is not an image; the message names it.
    """

    def decode_image(file: EncodedImage) -> Pixels:
        return resize(decode(file.read(), name=file.name), size)

    with thread_pool(core_count()) as pool:
        decoded = map_bounded(pool, decode_image, files, ahead=2 * BATCH)
        shown = track_progress(decoded, total=len(files), unit="images")
        while batch := list(islice(shown, BATCH)):
            yield np.stack(batch)
