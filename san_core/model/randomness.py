"""Torch's global generators, from which initial weights and dropped branches are drawn."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def drawing_from(seed: int, device: torch.device) -> Iterator[None]:
    """Within the block torch draws from `seed`; afterwards its generators are as they were."""
    gpus = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=gpus):
        # torch.manual_seed reseeds GPUs as well; the processor's generator drops all but 32 bits.
        torch.default_generator.manual_seed(seed ^ (seed >> 32))
        for gpu in gpus:
            index = torch.cuda.current_device() if gpu.index is None else gpu.index
            torch.cuda.default_generators[index].manual_seed(seed)
        yield
