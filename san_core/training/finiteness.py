"""Checks that the values of a step are finite: on the device, read during the next step.

Reading a value immediately would make host and device wait for each other.
"""

from collections import deque
from typing import Any, NamedTuple

import torch
from torch import Tensor


class NonFiniteError(ValueError):
    """A loss is infinite or NaN. The message names the loss."""


class TrainingFailedError(ValueError):
    """Training has failed: a value is not finite, or all features have become equal.

    `kept` has the best weights so far, with the keys of a state's "best". Its score is None if
    nothing was validated; `kept` itself is None if no epoch had ended.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.kept: dict[str, Any] | None = None


class FiniteFlags:
    """The flags of the named values of one step, on their device."""

    def __init__(self) -> None:
        self._names: list[str] = []
        self._flags: list[Tensor] = []

    def note(self, name: str, values: Tensor) -> None:
        """Record whether all values are finite."""
        self._names.append(name)
        self._flags.append(torch.isfinite(values.detach()).all())

    def take(self, others: "FiniteFlags", *, prefix: str) -> None:
        """Add the flags of another object, with a prefix before their names."""
        self._names += [prefix + name for name in others._names]
        self._flags += others._flags

    def stacked(self) -> Tensor:
        """A bool for every name, in the order they were noted."""
        return torch.stack(self._flags)

    def all_finite(self) -> Tensor:
        """One bool, on the device."""
        return self.stacked().all()

    def name_of(self, number: int) -> str:
        """The name of that flag."""
        return self._names[number]


def check_finite(name: str, values: Tensor, flags: FiniteFlags | None) -> Tensor:
    """The values; records in `flags` whether they are finite, or checks at once without `flags`.

    Raises:
        NonFiniteError: `flags` is None and a value is not finite.
    """
    if flags is not None:
        flags.note(name, values)
    elif not torch.isfinite(values).all():
        raise NonFiniteError(f"{name} is not finite")
    return values


class _Pending(NamedTuple):
    place: str  # such as "epoch 1 batch 2"
    flags: FiniteFlags
    told: Tensor  # on the host, or on its way there
    arrived: "torch.cuda.Event | None"  # None: it is there


class LateCheck:
    """The flags of steps in order, read one step later."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pending: deque[_Pending] = deque()

    def add(self, place: str, flags: FiniteFlags) -> None:
        """Send a step's flags to the host without waiting for them."""
        found, arrived = flags.stacked(), None
        if self._device.type == "cuda":
            told = torch.empty(found.shape, dtype=torch.bool, pin_memory=True)
            found = told.copy_(found, non_blocking=True)
            arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
            arrived.record()
        self._pending.append(_Pending(place, flags, found, arrived))

    def read(self, *, but_last: int = 0) -> None:
        """Read all flags but those of the last steps.

        Raises:
            TrainingFailedError: a value was not finite; the message names the place and the first
                such value.
        """
        while len(self._pending) > but_last:
            place, flags, told, arrived = self._pending.popleft()
            if arrived is not None:
                arrived.synchronize()
            found = told.tolist()
            if not all(found):
                raise TrainingFailedError(
                    f"{place}: {flags.name_of(found.index(False))} is not finite"
                )
