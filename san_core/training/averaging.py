"""The moving average of a network's weights, which may become the model (`Recipe.ema`).

The average after each step is decay times itself plus the rest of the new weights; running
statistics are averaged alike. It starts as the first weights, and nothing waits for the device.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class WeightAverage:
    """An exponential moving average of the weights of `model`, on its device."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._model, self._decay = model, decay
        self._average = {n: t.detach().clone() for n, t in model.state_dict().items()}

    @torch.no_grad()
    def update(self) -> None:
        """Update the average with the weights after a step."""
        weights = self._model.state_dict()
        floats = [name for name, average in self._average.items() if average.is_floating_point()]
        torch._foreach_lerp_(
            [self._average[name] for name in floats],
            [weights[name] for name in floats],
            1 - self._decay,
        )
        for name in self._average.keys() - set(floats):  # counters
            self._average[name].copy_(weights[name])

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within the block the network's weights are the average."""
        trained = {n: t.detach().clone() for n, t in self._model.state_dict().items()}
        self.keep()
        try:
            yield
        finally:
            self._model.load_state_dict(trained)

    def keep(self) -> None:
        """Make the average the network's weights."""
        self._model.load_state_dict(self._average)

    def state_dict(self) -> dict[str, Tensor]:
        """Its state for a checkpoint."""
        return self._average

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore a state from `state_dict`."""
        for name, average in self._average.items():
            average.copy_(state[name])
