"""What the released code does, written anew from its description, to be measured beside ours.

Nothing of it is copied; see san_core/README.md for where the two differ. The network is ours, whose
architecture and size are the same. The released step raises on every torch since 1.5, because it
changes the encoder's weights between two backward passes over one graph; here, as before 1.5, the
optimisers write to aliases of the weights that autograd does not watch.
"""

import random

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from torchvision.transforms import functional as transforms

from san_core.data.batches.augmentation import IMAGENET_MEAN, IMAGENET_STD

IMAGES_PER_IDENTITY = 4  # K; the positions below are right for no other


class OfficialStep:
    """One forward, two backward passes, three Adams."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model.train()
        reid = [*model.encoder.parameters(), *model.classifier.parameters()]
        encoder, decoder = list(model.encoder.parameters()), list(model.decoder.parameters())
        slow = {"lr": 1e-5, "betas": (0.5, 0.999)}
        self.optimizers = [
            _AliasedAdam(reid, lr=8e-4, weight_decay=5e-4, amsgrad=True),
            _AliasedAdam(encoder, **slow),
            _AliasedAdam(decoder, **slow),
        ]

    def __call__(self, images: Tensor, labels: Tensor, textures: Tensor) -> None:
        embedding, logits, made, maps = self.model(images)[:4]
        loss = smoothed_cross_entropy(logits, labels) + hard_triplet(embedding, labels)
        self.optimizers[0].zero_grad()
        loss.backward(retain_graph=True)
        self.optimizers[0].step()
        loss = functional.l1_loss(made, textures) + fixed_triplets(maps)
        for step in self.optimizers[1:]:
            step.zero_grad()
        loss.backward()
        for step in self.optimizers[1:]:
            step.step()


class _AliasedAdam:
    """An Adam of torch's default kernels, on aliases of the weights."""

    def __init__(self, parameters: list[nn.Parameter], **options: object) -> None:
        self.parameters = parameters
        self.aliases = [nn.Parameter(parameter.data) for parameter in parameters]
        self.optimizer = torch.optim.Adam(self.aliases, **options)

    def zero_grad(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None

    def step(self) -> None:
        for alias, parameter in zip(self.aliases, self.parameters, strict=True):
            alias.grad = parameter.grad
        self.optimizer.step()


def smoothed_cross_entropy(logits: Tensor, labels: Tensor, smoothing: float = 0.1) -> Tensor:
    """Targets one-hot on the processor, then smoothed."""
    one_hot = torch.zeros(logits.shape).scatter_(1, labels[:, None].cpu(), 1)
    targets = (1 - smoothing) * one_hot + smoothing / logits.shape[1]
    return (-targets * functional.log_softmax(logits, dim=1)).mean(0).sum()


def hard_triplet(embedding: Tensor, labels: Tensor, margin: float = 0.3) -> Tensor:
    """An anchor at a time."""
    squares = embedding.pow(2).sum(dim=1, keepdim=True)
    distances = (squares + squares.t() - 2 * embedding @ embedding.t()).clamp(min=1e-12).sqrt()
    same = labels[:, None] == labels[None, :]
    positive, negative = [], []
    for anchor in range(len(labels)):
        positive.append(distances[anchor][same[anchor]].max()[None])
        negative.append(distances[anchor][~same[anchor]].min()[None])
    far, near = torch.cat(positive), torch.cat(negative)
    return functional.margin_ranking_loss(near, far, torch.ones_like(near), margin=margin)


def fixed_triplets(maps: tuple[Tensor, ...], margin: float = 0.3) -> Tensor:
    """Of every identity but the last, one anchor, positive and negative a map, by position."""
    loss = torch.zeros(())
    for start in range(0, len(maps[0]) - IMAGES_PER_IDENTITY, IMAGES_PER_IDENTITY):
        for i, decoded in enumerate(maps):
            anchor, positive = decoded[start + i], decoded[start + (i + 1) % IMAGES_PER_IDENTITY]
            negative = decoded[
                start + IMAGES_PER_IDENTITY + (i if i < IMAGES_PER_IDENTITY - 1 else 0)
            ]
            closer = functional.mse_loss(anchor, positive)
            loss = loss + max(closer - functional.mse_loss(anchor, negative) + margin, 0.0)
    return loss


def augmented_sample(image: Image.Image, texture: Image.Image) -> tuple[Tensor, Tensor]:
    """An image augmented at 256x128 and its texture, each from its decoded file."""
    if random.random() < 0.5:
        image = image.resize((128, 256), Image.Resampling.BILINEAR)
    else:
        image = image.resize((144, 288), Image.Resampling.BILINEAR)
        left, top = random.randint(0, 16), random.randint(0, 32)
        image = image.crop((left, top, left + 128, top + 256))
    if random.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    view = transforms.normalize(transforms.to_tensor(image), IMAGENET_MEAN, IMAGENET_STD)
    if random.random() < 0.5:
        _random_erase(view)
    half = (0.5, 0.5, 0.5)
    return view, transforms.normalize(transforms.to_tensor(texture), half, half)


def _random_erase(view: Tensor) -> None:
    rows, columns = view.shape[1:]
    for _ in range(100):
        area = random.uniform(0.02, 0.4) * rows * columns
        ratio = random.uniform(0.3, 1 / 0.3)
        tall, wide = round((area * ratio) ** 0.5), round((area / ratio) ** 0.5)
        if tall < rows and wide < columns:
            top, left = random.randint(0, rows - tall), random.randint(0, columns - wide)
            view[:, top : top + tall, left : left + wide] = torch.tensor(IMAGENET_MEAN)[
                :, None, None
            ]
            return


def generate_one(model: nn.Module, pixels: np.ndarray) -> np.ndarray:
    """The texture of one image (H, W, 3): a batch of one, with autograd on."""
    x = transforms.normalize(transforms.to_tensor(pixels), IMAGENET_MEAN, IMAGENET_STD)
    made = model.decoder(model.encoder(x[None]).maps).texture[0].detach()
    levels = ((made + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return levels.permute(1, 2, 0).numpy()
