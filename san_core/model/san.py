"""SAN: encoder, decoder and classifier as one module (paper, Figure 2).

The same module is the baseline (no decoder), SAN, and the texture generator SAN-PG (no
classifier); the recipe's losses decide. Inference uses `encoder` alone.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from san_core.model.copying import Copied
from san_core.model.decoder import Decoder
from san_core.model.encoder import Encoder
from san_core.model.head import make_classifier
from san_core.model.randomness import drawing_from
from san_core.recipe import Recipe


class SANOutput(NamedTuple):
    """The outputs that training needs of a batch; None if the recipe's losses do not need one."""

    compared: Tensor | None  # (B, D), the features for triplet losses
    logits: Tensor | None  # (B, identities); cosines if the recipe's classifier gives cosines
    texture: Tensor | None  # (B, 3, T, T)
    maps: tuple[Tensor, ...]  # decoder maps f_d1 ... f_dn
    copied: Copied | None = None  # for recipes with texture_from="copy"
    regressed: Tensor | None = None  # (B, C, rows, columns), from f_e4, if the recipe distils


class SAN(nn.Module):
    """The network of a recipe.

    Args:
        recipe: decides the architecture.
        num_classes: training identities; 0 for SAN-PG, which has no classifier.

    Raises ValueError if sizes do not fit each other, or the identities are too few.
    """

    def __init__(self, recipe: Recipe, *, num_classes: int) -> None:
        super().__init__()
        if recipe.needs_identities and num_classes < 2:
            raise ValueError(f"{num_classes} training identities: a ReID recipe needs at least 2")
        if not recipe.needs_identities and num_classes:
            raise ValueError(
                f"a recipe without identity losses has no classifier, but num_classes is "
                f"{num_classes}: must be 0"
            )
        self.num_classes = num_classes
        self.encoder = Encoder(recipe)
        self.is_neck = recipe.embedding == "bnneck"
        self.classifier = (
            make_classifier(recipe, self.encoder.dim, num_classes) if num_classes else None
        )
        self.decoder = Decoder(recipe, self.encoder) if recipe.needs_decoder else None
        channels = self.encoder.channels[3]
        self.regressor = nn.Conv2d(channels, channels, 1) if recipe.w_distill else None

    def forward(
        self,
        images: Tensor,
        *,
        identities: bool = True,
        textures: bool = True,
        textured: Tensor | None = None,
    ) -> SANOutput:
        """Everything the losses need, from normalised images (B, 3, H, W).

        Triplets compare embeddings, or with a BN neck the features before it (Luo et al. 2019,
        section 3.5). With `identities` false, as for PIT images, features and logits are left out,
        and the statistics of the embedding head come from ReID images only. With `textures` false
        the decoder does not run. textured: (b,) int64, the images that it runs on; None for all.
        """
        compared = logits = regressed = None
        if identities:
            embedding, maps, pooled = self.encoder(images)
            compared = pooled if self.is_neck else embedding
            logits = None if self.classifier is None else self.classifier(embedding)
            regressed = None if self.regressor is None else self.regressor(maps[3])
        else:
            maps = self.encoder.stage_maps(images)
        if self.decoder is None or not textures:
            return SANOutput(compared, logits, None, (), regressed=regressed)
        if textured is not None:
            f_e1, f_e2, f_e3, f_e4, images = (_pick(x, textured) for x in (*maps, images))
            maps = f_e1, f_e2, f_e3, f_e4
        decoded = self.decoder(maps, images)
        return SANOutput(compared, logits, *decoded)._replace(regressed=regressed)


def _pick(maps: Tensor, rows: Tensor) -> Tensor:
    """Some images' maps (B, C, rows, columns), in the faster memory layout."""
    return maps.index_select(0, rows).contiguous(memory_format=torch.channels_last)


def build_network(recipe: Recipe, *, num_classes: int, seed: int) -> SAN:
    """A network with initial weights from `seed` alone; torch's generators are untouched.

    The decoder is initialised late, and the distillation layer last, so one seed gives SAN and its
    baseline the same encoder and classifier.
    """
    with drawing_from(seed, torch.device("cpu")):
        return SAN(recipe, num_classes=num_classes)
