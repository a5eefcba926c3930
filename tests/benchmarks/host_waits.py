"""How often the host waits for the device in a training step, counted without a GPU.

A dispatch mode runs everything that is on "cuda" as fake tensors, which have shapes and no values:
what needs a value fails there. It counts what would make the host wait: a value read, a shape that
depends on values, a copy that is not asynchronous from or to pinned memory, an event waited for.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_flatten

from san_core.data.batches.loader import Buffers, LoadedBatch, Wanted
from san_core.data.batches.training_data import TrainingData
from san_core.model.encoder import to_channels_last
from san_core.model.san import build_network
from san_core.recipe import Recipe
from san_core.synthesis.person.atlas import mirror_matrix
from san_core.training import loop

_CUDA = torch.device("cuda")
_STEPS = 3  # the first makes the optimiser's state and is not counted

aten = torch.ops.aten
_VALUE_READ = (aten._local_scalar_dense.default, aten.item.default, aten.is_nonzero.default)
_SHAPE_READ = ("nonzero", "unique", "_unique", "_unique2", "unique_dim", "masked_select")
_COPIES = (aten._to_copy.default, aten.copy_.default)


class WaitCounter(TorchDispatchMode):
    """Counts the waits of what runs within; `waits` names them."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []
        self.fake = FakeTensorMode(allow_non_fake_inputs=True)
        self._parameters: list[Tensor] = []
        self._pinned: list[Tensor] = []  # kept, so that no memory is taken for another's

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        given = dict(kwargs or {})
        if func is aten._pin_memory.default:
            return self._pin(args[0])
        is_pinned = given.pop("pin_memory", False)
        if not self._is_on_device(args, given):
            with _disable_current_modes():  # real numbers: what the host does
                made = func(*args, **given)
            return self._pin(made) if is_pinned else made
        if func in _VALUE_READ:
            self.waits.append(str(func))
            return _some_value(args[0])
        if _shape_depends_on_values(func, args, given):
            self.waits.append(str(func))
        if func in _COPIES:
            return self._copy(func, args, given)
        return func(*args, **kwargs or {})

    def network_on_device(self, recipe: Recipe, num_classes: int) -> Any:
        """A network of the recipe that is on the device, as training lays it out."""
        with _disable_current_modes():
            network = to_channels_last(build_network(recipe, num_classes=num_classes, seed=0))
            for module in network.modules():
                for kept in (module._parameters, module._buffers):
                    for name, tensor in kept.items():
                        if tensor is not None:
                            kept[name] = self._send(tensor)
        self._parameters = list(network.parameters())
        network.to = lambda *_, **__: network  # it is there already, and cannot be moved
        return network

    def make_gradients(self, loss: Tensor) -> None:
        """In place of a backward pass, which autograd does on no device that is not there."""
        assert loss.requires_grad
        for parameter in self._parameters:
            parameter.grad = torch.zeros_like(parameter)

    def _send(self, tensor: Tensor) -> Tensor:
        with self.fake:
            there = self.fake.from_tensor(tensor.detach()).to(_CUDA)
        return torch.nn.Parameter(there) if isinstance(tensor, torch.nn.Parameter) else there

    def _pin(self, tensor: Tensor) -> Tensor:
        self._pinned.append(tensor)
        return tensor

    def _is_on_device(self, args: tuple[Any, ...], given: dict[str, Any]) -> bool:
        flat, _ = tree_flatten((args, given))
        return any(_is_fake_or_cuda(one) for one in flat)

    def _copy(self, func: Any, args: tuple[Any, ...], given: dict[str, Any]) -> Any:
        is_write = func is aten.copy_.default
        source = args[1] if is_write else args[0]
        target = args[0].device if is_write else torch.device(given.get("device") or source.device)
        if source.device.type == target.type:
            return func(*args, **given)
        host = args[0] if is_write and target.type == "cpu" else source
        non_blocking = args[2] if is_write and len(args) > 2 else given.get("non_blocking", False)
        if not (non_blocking and self._is_pinned(host)):
            self.waits.append(f"{func} of {tuple(source.shape)} from {source.device} to {target}")
        if is_write and target.type == "cpu":
            with _disable_current_modes():
                return args[0].fill_(1)  # as if all flags were good
        return func(*args, **given)

    def _is_pinned(self, tensor: Tensor) -> bool:
        place = tensor.untyped_storage().data_ptr()
        return any(place == one.untyped_storage().data_ptr() for one in self._pinned)


@contextmanager
def counting_waits() -> Iterator[WaitCounter]:
    """Count the waits of the block."""
    counter = WaitCounter()

    class Event:
        """An event of the device, waited for at once."""

        def record(self) -> None:
            """The place of the event in what the device does."""

        def synchronize(self) -> None:
            """Waiting for it."""
            counter.waits.append("Event.synchronize")

    with (
        mock.patch.object(torch.cuda, "Event", Event),
        mock.patch.object(torch.autograd, "backward", counter.make_gradients),
        counter.fake,
        counter,
    ):
        yield counter


def count_step_waits(recipe: Recipe) -> list[list[str]]:
    """The waits of each of some training steps of a recipe in float32, but for the first.

    Batches are loaded as the background thread loads them, copies included, but by this thread.
    """
    data = _random_data(recipe)
    with counting_waits() as counter:
        network = counter.network_on_device(recipe, data.num_classes)
        with mock.patch.object(loop, "make_buffers", lambda device: Buffers(device, pinned=True)):
            run = loop._TrainingRun(network, data, recipe, 0, _CUDA, "float32")
        network.train()
        batches = run._epoch_batches()
        batches = np.concatenate([batches] * _STEPS)[:_STEPS]
        loader = _LoaderWithoutThread(run.batch_buffers, run._wanted_batches(batches), recipe)
        found = []
        for number in range(_STEPS):
            before = len(counter.waits)
            run.batch_index = number
            run._train_batch(loader, len(batches))  # type: ignore[arg-type]  # its `next` is used
            run.late.read(but_last=1)
            found.append(counter.waits[before:])
        return found[1:]


class _ReadCounter(TorchDispatchMode):
    """Counts values and shapes that are read, on any device."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func in _VALUE_READ or _shape_depends_on_values(func, args, kwargs or {}):
            self.waits.append(str(func))
        return func(*args, **kwargs or {})


def count_backward_waits(recipe: Recipe) -> list[str]:
    """What the backward pass of a step reads, counted on a processor where it is real."""
    data, backward = _random_data(recipe), torch.autograd.backward
    network = build_network(recipe, num_classes=data.num_classes, seed=0)
    counter = _ReadCounter()

    def counted(loss: Tensor) -> None:
        with counter:
            backward(loss)

    with mock.patch.object(torch.autograd, "backward", counted):
        next(loop.fit(network, data, recipe, seed=0, device="cpu"))
    return counter.waits


class _LoaderWithoutThread:
    def __init__(
        self, buffers: Sequence[Buffers], wanted: Sequence[Wanted], recipe: Recipe
    ) -> None:
        self._buffers, self._left, self._recipe = buffers, iter(wanted), recipe

    def next(self) -> LoadedBatch:
        return self._buffers[0].load(next(self._left), self._recipe)


def _random_data(recipe: Recipe) -> TrainingData:
    draw = np.random.default_rng(0)
    n, size = recipe.images_per_batch, recipe.texture_size
    people = np.arange(n) // recipe.images_per_identity
    return TrainingData(
        images=draw.integers(0, 256, (n, *recipe.image_size, 3), np.uint8),
        labels=people,
        textures=draw.integers(0, 256, (2, size, size, 3), np.uint8),
        texture_index=people % 2,
        mirror=mirror_matrix(size),
    )


def _is_fake_or_cuda(one: Any) -> bool:
    return isinstance(one, FakeTensor) or (isinstance(one, torch.device) and one.type == _CUDA.type)


def _some_value(tensor: Tensor) -> bool | int | float:
    return True if tensor.dtype is torch.bool else 1.0 if tensor.is_floating_point() else 1


def _shape_depends_on_values(func: Any, args: tuple[Any, ...], given: dict[str, Any]) -> bool:
    name = func._schema.name.removeprefix("aten::")
    if name in ("index", "index_put", "index_put_"):
        return any(one is not None and one.dtype in (torch.bool, torch.uint8) for one in args[1])
    if name == "repeat_interleave":
        return given.get("output_size") is None
    return name in _SHAPE_READ
