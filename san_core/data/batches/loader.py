"""Batches gathered ahead of training by one background thread, and copied to the device.

The thread gathers the rows of a batch into one of two buffers while training computes on the other.
For a GPU the buffers are pinned and copied in a separate stream: the GPU waits for it, the host
does not. A processor reads the buffers directly. Legend: B images of the whole batch, b of this
process's share, H W rows and columns, T texels a side.
"""

import queue
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from san_core.data.batches.augmentation import BufferPool
from san_core.data.batches.autoaugment import PolicyDraw, apply_policies, draw_policies
from san_core.data.batches.draws import Draws, draw_views
from san_core.data.batches.training_data import TrainingData
from san_core.recipe import Recipe
from san_core.seeds import derive_seed


class Wanted(NamedTuple):
    """A batch to be gathered."""

    source: str  # "main" or "pit": its name in errors, and the buffers it uses
    data: TrainingData
    rows: NDArray[np.int64]  # (B,), of the whole batch
    mine: NDArray[np.int64]  # (b,), of this process
    skip: int  # images of the batch that come before these
    seed: tuple[int | str, ...]  # of its augmentation, as `derive_seed` takes it
    has_textures: bool = True  # whether it has texture losses
    textured: NDArray[np.int64] | None = None  # the places in `rows` that have; None: all


class TexturedPart(NamedTuple):
    """The images of a batch that have texture losses, on the device."""

    rows: Tensor  # (d,) int64, which of the b images of this process
    flipped: Tensor  # which of these d are mirrored, by number, int64
    labels: Tensor | None  # (D,) int64, of all processes' such images


class LoadedBatch(NamedTuple):
    """A gathered batch, on the device."""

    source: str
    pixels: Tensor  # (b, H, W, 3) uint8
    draws: Draws  # of b images
    labels: Tensor | None  # (B,) int64
    texels: Tensor | None  # (b, T, T, 3) uint8; None where the batch has no texture losses
    large: Tensor | None  # (enlarged, H', W', 3) uint8, as `draws.enlarged` numbers them
    dense: Tensor | None  # (b, H, W, 3) uint8; None where the recipe learns nothing from them
    part: TexturedPart | None = None  # what `texels`, (d, T, T, 3) then, are of; None: all b images


class BatchLoader:
    """The batches of `loading_ahead` in order, and how long training waited for them."""

    def __init__(self, buffers: "Sequence[Buffers]") -> None:
        self.seconds_waited = 0.0
        self._filled: queue.Queue[_Filled | BaseException] = queue.Queue()
        self._free: queue.Queue[Buffers | None] = queue.Queue()
        self._held: Buffers | None = None
        self._ended = False
        for one in buffers:
            self._free.put(one)

    def next(self) -> LoadedBatch:
        """The next batch. On a processor it is valid until the next call.

        Raises:
            Exception: what gathering it raised.
        """
        self._give_back()
        started = time.perf_counter()
        filled = self._filled.get()
        self.seconds_waited += time.perf_counter() - started
        if isinstance(filled, BaseException):
            raise filled
        self._held = filled.buffers
        filled.buffers.use_on_this_stream(filled.batch)
        return filled.batch

    def _give_back(self) -> None:
        if self._held is not None:
            self._free.put(self._held)
            self._held = None

    def end(self) -> None:
        """Let the thread end after its current batch."""
        self._ended = True
        self._free.put(None)

    def fill(self, wanted: Sequence[Wanted], recipe: Recipe) -> None:
        """The loop of the thread: it fills buffers with batches as they become free."""
        try:
            for one in wanted:
                buffers = self._free.get()
                if buffers is None or self._ended:
                    return
                self._filled.put(_Filled(buffers.load(one, recipe), buffers))
        except BaseException as error:
            self._filled.put(error)


@contextmanager
def loading_ahead(
    wanted: Sequence[Wanted], recipe: Recipe, buffers: "Sequence[Buffers]"
) -> Iterator[BatchLoader]:
    """Gather these batches in a thread that ends when the block is left.

    buffers: two or more: one that training reads and one that is filled. Reuse them for the next
        epoch, because fresh memory costs time.
    """
    loader = BatchLoader(buffers)
    thread = threading.Thread(
        target=loader.fill, args=(wanted, recipe), name="batches", daemon=True
    )
    thread.start()
    try:
        yield loader
    finally:
        loader.end()
        thread.join()


class Buffers:
    """Memory of one batch on a processor, where training reads it."""

    def __init__(self, device: torch.device, *, pinned: bool = False) -> None:
        self._device, self._pool = device, BufferPool(pinned=pinned)

    def load(self, wanted: Wanted, recipe: Recipe) -> LoadedBatch:
        """The batch, gathered into these buffers."""
        data, rows = wanted.data, wanted.mine
        generator = torch.Generator().manual_seed(derive_seed(*wanted.seed))
        draws = draw_views(
            len(rows),
            recipe.image_size,
            recipe,
            generator=generator,
            skip=wanted.skip,
        )
        part = self._textured_part(wanted, draws)
        drawn = draw_policies(len(rows), recipe, generator=generator, skip=wanted.skip)
        return LoadedBatch(
            wanted.source,
            self._gather(f"{wanted.source} pixels", data.images, rows, drawn),
            draws.unpacked(self._place(f"{wanted.source} draws", draws.packed())),
            None
            if data.labels is None
            else self._place(f"{wanted.source} labels", torch.from_numpy(data.labels[wanted.rows])),
            self._gather_texels(wanted, rows if part is None else rows[part.rows.numpy()])
            if recipe.needs_decoder and wanted.has_textures
            else None,
            self._gather_large(wanted, rows[draws.enlarged.numpy()]),
            None
            if data.dense is None or not recipe.w_dense
            else self._gather(f"{wanted.source} dense", data.dense, rows),
            part and self._placed_part(wanted, part),
        )

    def _textured_part(self, wanted: Wanted, draws: Draws) -> TexturedPart | None:
        """The images that have texture losses, on the host; None where all or none have."""
        if wanted.textured is None or not wanted.has_textures:
            return None
        places = wanted.textured - wanted.skip
        rows = places[(places >= 0) & (places < len(wanted.mine))]
        flipped = np.flatnonzero(np.isin(rows, draws.flipped.numpy()))
        labels = wanted.data.labels
        return TexturedPart(
            torch.from_numpy(rows),
            torch.from_numpy(flipped),
            None if labels is None else torch.from_numpy(labels[wanted.rows[wanted.textured]]),
        )

    def _placed_part(self, wanted: Wanted, part: TexturedPart) -> TexturedPart:
        rows, flipped, labels = (
            values if values is None else self._place(f"{wanted.source} textured {name}", values)
            for name, values in part._asdict().items()
        )
        assert rows is not None
        assert flipped is not None
        return TexturedPart(rows, flipped, labels)

    def _gather_texels(self, wanted: Wanted, rows: NDArray[np.int64]) -> Tensor | None:
        data = wanted.data
        if data.textures is None or data.texture_index is None:
            return None
        return self._gather(f"{wanted.source} texels", data.textures, data.texture_index[rows])

    def _gather_large(self, wanted: Wanted, rows: NDArray[np.int64]) -> Tensor | None:
        large = wanted.data.enlarged
        if large is None or not len(rows):
            return None
        return self._gather(f"{wanted.source} large pixels", large, rows)

    def _gather(
        self,
        name: str,
        array: NDArray[np.uint8],
        rows: NDArray[np.int64],
        drawn: Sequence[PolicyDraw] = (),
    ) -> Tensor:
        picked = self._pool.gather_rows(name, array, rows)
        apply_policies(picked, drawn)
        return self._to_device(picked)

    def _place(self, name: str, small: Tensor) -> Tensor:
        return self._to_device(self._pool.buffer(name, small.shape, dtype=small.dtype).copy_(small))

    def _to_device(self, tensor: Tensor) -> Tensor:
        return tensor.to(self._device, non_blocking=True)

    def use_on_this_stream(self, batch: LoadedBatch) -> None:
        """Let the device wait for the copies of the batch before it computes on."""


class PinnedBuffers(Buffers):
    """Memory that is copied to a GPU while it computes. NOTE not tested on a GPU."""

    def __init__(self, device: torch.device) -> None:
        super().__init__(device, pinned=True)
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._copied = torch.cuda.Event()  # type: ignore[no-untyped-call]

    def load(self, wanted: Wanted, recipe: Recipe) -> LoadedBatch:
        """The batch on its way to the device, once the buffers' previous batch has arrived."""
        self._copied.synchronize()  # this thread alone waits for the copies made of these buffers
        with torch.cuda.stream(self._stream):
            batch = super().load(wanted, recipe)
            self._copied.record(self._stream)
        return batch

    def use_on_this_stream(self, batch: LoadedBatch) -> None:
        """The stream waits for the copies; the host does not."""
        stream = torch.cuda.current_stream(self._device)
        stream.wait_event(self._copied)
        for tensor in (*batch[1:2], *batch.draws, *batch[3:-1], *(batch.part or ())):
            if tensor is not None:
                tensor.record_stream(stream)  # or torch would reuse its memory too early


def make_buffers(device: torch.device) -> Buffers:
    """Buffers of one batch for a device."""
    return PinnedBuffers(device) if device.type == "cuda" else Buffers(device)


class _Filled(NamedTuple):
    batch: LoadedBatch
    buffers: Buffers
