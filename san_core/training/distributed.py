"""Several processes training one network, each on its share of every batch.

A recipe's batch is the batch of all processes together: P identities of K images, of which each
process takes P / processes whole identities. Losses are computed over the gathered batch, so every
process mines the same triplets and sees the same values; DistributedDataParallel averages the
gradients. The processes are those of torch.distributed (from torchrun): the caller has called
init_process_group. Legend: B images of the whole batch.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from san_core.recipe import Recipe


class World(NamedTuple):
    """The processes that train together, and which of them this one is."""

    rank: int  # 0 ... size - 1
    size: int


ALONE = World(rank=0, size=1)


def current_world() -> World:
    """The processes of torch.distributed; ALONE if it is not initialised."""
    if not distributed.is_available() or not distributed.is_initialized():
        return ALONE
    return World(distributed.get_rank(), distributed.get_world_size())


def gather_batch(share: Tensor, world: World) -> Tensor:
    """The whole batch (B, ...) from every process's share (B / size, ...), in rank order.

    NOTE the gradient is right only if every process computes the loss from the same gathered
    tensors and gradients are averaged over processes afterwards: then no process needs another's
    gradient.
    """
    if world.size == 1:
        return share
    made: Tensor = _GatherBatch.apply(share, world)
    return made


def largest_of_processes(value: int, world: World, device: torch.device) -> int:
    """The largest of the processes' values, in every process."""
    if world.size == 1:
        return value
    largest = torch.tensor(value, device=device)
    distributed.all_reduce(largest, distributed.ReduceOp.MAX)
    return int(largest.item())


def broadcast_from_first(value: float, world: World, device: torch.device) -> float:
    """The value of process 0, in every process."""
    if world.size == 1:
        return value
    told = torch.tensor(value, dtype=torch.float64, device=device)
    distributed.broadcast(told, src=0)
    return float(told.item())


def distribute_network(
    model: nn.Module, recipe: Recipe, world: World, device: torch.device
) -> nn.Module:
    """The network to call in training, with gradients averaged over the processes.

    With `sync_batchnorm`, batch normalisation sees the whole batch, as one process would; without,
    each process normalises its own share, and the running statistics are those of process 0.
    Parameters and buffers stay those of `model`.
    """
    if world.size == 1:
        return model
    if recipe.sync_batchnorm:
        _replace_batchnorms(model, device)
    return DistributedDataParallel(
        model,
        device_ids=[device] if device.type == "cuda" else None,
        find_unused_parameters=_has_idle_parameters(recipe),
    )


def _has_idle_parameters(recipe: Recipe) -> bool:
    """Whether no loss reaches a part of the network in some batches, or in all."""
    return (
        recipe.pit_every > 0
        or recipe.frozen_epochs > 0
        or recipe.texture_every > 1
        or recipe.texture_epochs > 0
        or (recipe.needs_identities and recipe.w_id == 0)  # the classifier
        or (recipe.needs_decoder and recipe.w_rec == 0)  # the decoder's last convolution
        or (not recipe.needs_identities and recipe.embedding != "pool")  # the embedding head
        or (not recipe.needs_identities and recipe.pooling == "gem")
    )


class _GatherBatch(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, share: Tensor, among: World) -> Tensor:
        ctx.among, ctx.rows = among, len(share)
        share = share.contiguous()
        parts = [torch.empty_like(share) for _ in range(among.size)]
        distributed.all_gather(parts, share)
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        # All processes hold the same loss, so this share's gradient is the same in each of them;
        # times their number, for the mean over processes divides by it.
        start = ctx.among.rank * ctx.rows
        return gradients[0][start : start + ctx.rows] * ctx.among.size, None


class _SumOverProcesses(torch.autograd.Function):
    """The sum over processes, forwards and backwards."""

    @staticmethod
    def forward(_ctx: Any, part: Tensor) -> Tensor:
        total = part.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(_ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        distributed.all_reduce(total)
        return total


class _DistributedBatchNorm(_BatchNorm):
    """Batch normalisation over the shares of all processes; torch's own needs GPUs."""

    @classmethod
    def from_batchnorm(cls, norm: _BatchNorm) -> "_DistributedBatchNorm":
        """A layer that shares the parameters and running statistics of `norm`."""
        made = cls(norm.num_features, norm.eps, norm.momentum, norm.affine)
        made.weight, made.bias = norm.weight, norm.bias
        made.running_mean, made.running_var = norm.running_mean, norm.running_var
        made.num_batches_tracked = norm.num_batches_tracked
        return made.train(norm.training)

    def forward(self, maps: Tensor) -> Tensor:
        if not self.training:
            return functional.batch_norm(
                maps, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        x = maps.to(self.weight.dtype)  # half precision would lose the sums
        dims, one = [0, *range(2, x.dim())], [1, -1] + [1] * (x.dim() - 2)
        n = x.numel() // x.shape[1] * distributed.get_world_size()
        mean: Tensor = _SumOverProcesses.apply(x.sum(dims)) / n  # (C,)
        centred = x - mean.view(one)
        variance: Tensor = _SumOverProcesses.apply((centred * centred).sum(dims)) / n  # (C,)
        self._update_running_stats(mean.detach(), variance.detach() * n / (n - 1))
        scale: Tensor = self.weight * (variance + self.eps).rsqrt()
        return (centred * scale.view(one) + self.bias.view(one)).to(maps.dtype)

    def _update_running_stats(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)


def _replace_batchnorms(module: nn.Module, device: torch.device) -> None:
    """Replace every batch normalisation in place by one over all processes.

    NOTE torch's SyncBatchNorm, taken on GPUs, is not tested on one.
    """
    if device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(module)  # type: ignore[no-untyped-call]
        return
    for name, child in module.named_children():
        if isinstance(child, _BatchNorm):
            setattr(module, name, _DistributedBatchNorm.from_batchnorm(child))
        else:
            _replace_batchnorms(child, device)
