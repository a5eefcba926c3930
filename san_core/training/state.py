"""Checks that a state belongs to the same training and is complete.

A file with the right name and checksum may hold anything.
"""

from collections.abc import Mapping
from typing import Any, TypedDict

import torch
from torch import Tensor

from san_core.checked_json import check_shape
from san_core.images.shard import Size

State = dict[str, Any]


class _Best(TypedDict):
    """The best validation so far."""

    epoch: Size
    score: float


class _Position(TypedDict):
    """The position of training, and the other parts of a state that are not tensors."""

    recipe: dict[str, Any]
    seed: int
    images: int
    pit_images: int
    precision: str
    epoch: Size
    step: Size
    best: _Best | None
    sums: dict[str, list[float]]


def check_position(state: Mapping[str, Any]) -> None:
    """Raise ValueError unless a state holds a valid position of training."""
    told: Any = {name: state[name] for name in _Position.__annotations__ if name in state}
    if isinstance(best := told.get("best"), dict):  # without its weights
        told["best"] = {name: value for name, value in best.items() if name != "weights"}
    position = check_shape(told, _Position, where="the training state")
    if position["best"] and not 1 <= position["best"]["epoch"] <= position["epoch"]:
        raise ValueError("the training state holds the best weights of an epoch that has not ended")


def check_conditions(state: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Raise ValueError if a state has another recipe, seed, number of images or precision."""
    for name, value in expected.items():
        if state[name] != value:
            raise ValueError(_mismatch_message(name, state[name], value))


def _mismatch_message(name: str, found: Any, expected: Any) -> str:
    if isinstance(found, dict) and isinstance(expected, dict):
        differing = [k for k in expected if found.get(k) != expected[k]]
        listed = ", ".join(f"{k} {found.get(k)!r} there, {expected[k]!r} here" for k in differing)
        return f"the state belongs to another recipe: {listed}"
    return f"the state belongs to another run: {name} {found!r} there, {expected!r} here"


def check_tensors(what: str, found: object, own: Mapping[str, Tensor]) -> None:
    """Raise ValueError unless tensors match a network's by name, shape and type, and are finite.

    Args:
        what: the network whose weights they are, as messages call it.
        found: what a state holds.
        own: what it will replace.
    """
    tensors = found if isinstance(found, dict) else {}
    for name in [*own, *tensors]:
        one, other = tensors.get(name), own.get(name)
        if not isinstance(one, Tensor) or other is None or _kind(one) != _kind(other):
            raise ValueError(f"the {what}'s weights in this state do not fit: {name}")
        if not one.isfinite().all():
            raise ValueError(f"the {what}'s weights in this state are not finite: {name}")


def _kind(tensor: Tensor) -> tuple[torch.Size, torch.dtype]:
    return tensor.shape, tensor.dtype
