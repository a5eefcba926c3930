"""Means of the loss terms of an epoch, summed on the device so that nothing waits for it."""

from collections.abc import Sequence

import torch
from torch import Tensor


class LossSums:
    """Sums over the steps of an epoch, and the number of steps in each, in double precision."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._sums: dict[
            str, Tensor
        ] = {}  # by their names, "loss id tri": (n + 1,), the count last

    def add(self, names: Sequence[str], values: Tensor, *, counts: Tensor) -> None:
        """Add a step's values (n,), unless it does not count: () bool, on the device."""
        step = torch.cat(
            [values.detach().double(), torch.ones_like(values[:1], dtype=torch.double)]
        )
        step = torch.where(counts, step, 0.0)
        key = " ".join(names)
        self._sums[key] = self._sums[key] + step if key in self._sums else step

    def means(self) -> dict[str, float]:
        """The mean of every name.

        Raises:
            ZeroDivisionError: no step counted.
        """
        found = {}
        for key, sums in self.state_dict().items():
            *totals, count = sums
            found.update({n: t / count for n, t in zip(key.split(), totals, strict=True)})
        return found

    def state_dict(self) -> dict[str, list[float]]:
        """Its state for a checkpoint."""
        return {key: sums.tolist() for key, sums in self._sums.items()}

    def load_state_dict(self, state: dict[str, list[float]]) -> None:
        """Restore a state from `state_dict`."""
        self._sums = {
            key: torch.tensor(sums, dtype=torch.double, device=self._device)
            for key, sums in state.items()
        }
