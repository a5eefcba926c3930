"""A texture whose colours are copied from the picture by attention, for `Decoder`.

Regressed colours tend to grey, the median of colours that cannot be predicted. So every query, a
cell of the texture, attends to the cells of the picture that show it, as in Texformer (Xu and Loy,
ICCV 2021). Visible texels copy the picture's colours at the place found. Hidden texels take the
mean colour of the cells they attend to, so the back can use the front. The lighting is divided out
of both. The rest is filled by a texture that the decoder regresses, with one texel per query.

Legend: B batch, H W rows and columns of the picture, h w those of f_e2, whose cells are attended
to, G queries a side, T texels a side, D length of queries and keys.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from san_core.data.batches.augmentation import IMAGENET_MEAN, IMAGENET_STD
from san_core.model.encoder import Encoder, Maps
from san_core.model.fixed_order import sample_in_fixed_order
from san_core.recipe import Recipe

POSES = 16  # learned position embeddings of the queries; every picture mixes them
_POSE_LENGTH = 64  # channels of a picture's pose, from which the mixture follows
_FEATURES = 16  # features that a query takes from the cells it attends to, beside colours and place
# outputs of a query: two of place, visibility, whether to copy, lighting, colours
_TOLD = 8


class Copied(NamedTuple):
    """The copied textures of a batch, and where they were copied from."""

    texture: Tensor  # (B, 3, T, T): copied and regressed colours, mixed
    attended: Tensor  # (B, 3, G, G): mean colours of the attended cells, lighting divided out
    regressed: Tensor  # (B, 3, G, G): the colours regressed by the decoder and the queries
    weights: Tensor  # (B, G * G, h * w): each query's attention, adding up to 1
    places: Tensor  # (B, 2, T, T): every texel's column and row of the picture, in -1 ... 1
    seen: Tensor  # (B, 1, G, G): logits of whether the picture shows the part of a query
    person: Tensor  # (B, 1, h, w): logits of whether a cell of the picture shows the person


class Copying(nn.Module):
    """Queries from the decoder's map and learned places; keys from the encoder's last three maps.

    Args:
        recipe: of the network.
        encoder: whose maps are attended to.
        channels: of the decoder's last map.
    """

    def __init__(self, recipe: Recipe, encoder: Encoder, channels: int) -> None:
        super().__init__()
        side, dim, stride = recipe.copy_queries, recipe.copy_dim, encoder.strides[1]
        self.cells = (recipe.image_height // stride, recipe.image_width // stride)
        self.side, self.texels, self.stride = side, recipe.texture_size, stride
        self.fixed_order = recipe.deterministic
        self.from_map = _norm_relu_conv(channels, dim)
        self.norm = nn.BatchNorm1d(encoder.channels[3])
        self.mix_poses = nn.Sequential(
            nn.Linear(encoder.channels[3], _POSE_LENGTH),
            nn.ReLU(inplace=True),
            nn.Linear(_POSE_LENGTH, POSES),
        )
        # for each pose and for none: the query, and whether it is visible
        self.query_places = nn.Parameter(0.3 * torch.randn(POSES + 1, dim + 1, side, side))
        self.laterals = nn.ModuleList(nn.Conv2d(c, dim, 1) for c in encoder.channels[1:])
        self.key_places = nn.Parameter(0.3 * torch.randn(1, dim, *self.cells))
        # keys, features, and whether a cell shows the person
        self.tell_cell = _norm_relu_conv(dim, dim + _FEATURES + 1)
        self.tell_query = nn.Sequential(
            nn.Conv2d(dim + _FEATURES, dim, 1),
            nn.BatchNorm2d(dim),
            nn.ReLU(inplace=True),
            _first_zero(nn.Conv2d(dim, _TOLD, 1)),
        )
        self.tell_light = _first_zero(nn.Linear(encoder.channels[3], 3))
        self.enlarge = _TexelMeans(side, recipe.texture_size)

    def forward(self, images: Tensor, maps: Maps, decoded: Tensor, regressed: Tensor) -> Copied:
        """The texture of normalised images (B, 3, H, W).

        Args:
            images: the encoder's input.
            maps: f_e1 ... f_e4 of them.
            decoded: the decoder's last map.
            regressed: (B, 3, G, G), the colours regressed from it.
        """
        whole, dim = self.norm(maps[3].mean(dim=(2, 3))), self.key_places.shape[1]
        queries, expected = self._queries(decoded, whole)
        told = self.tell_cell(self._cells(maps))
        keys, features, person = torch.split(told, [dim, _FEATURES, 1], dim=1)
        with torch.autocast(images.device.type, enabled=False):  # half precision misplaces pixels
            picture = _as_seen(images.float())
            person, asked = person.float(), queries.float()
            weights = _attention(asked, keys.float() + self.key_places, person)
            taken = self._take(weights, picture, features.float())  # (B, 5 + features, G, G)
            told = self.tell_query(torch.cat([asked, taken[:, 5:]], dim=1))
            told = torch.cat([told[:, :2], told[:, 2:3] + expected.float(), told[:, 3:]], dim=1)
            light = torch.tanh(self.tell_light(whole.float()))[:, :, None, None]
            regressed = regressed.float() + told[:, 5:]
            texture, attended, places = self._paint(picture, taken, told, light, regressed)
        return Copied(texture, attended, regressed, weights, places, told[:, 2:3], person)

    def _cells(self, maps: Maps) -> Tensor:
        """The last three maps of the encoder, added up at the size of f_e2: (B, D, h, w)."""
        second, third, last = (
            lateral(of_stage) for lateral, of_stage in zip(self.laterals, maps[1:], strict=True)
        )
        deep = third + _resized(last, third.shape[2:])
        cells: Tensor = second + _resized(deep, second.shape[2:])
        return cells

    def _queries(self, decoded: Tensor, whole: Tensor) -> tuple[Tensor, Tensor]:
        """Queries from the decoder's map and mixed poses, (B, D, G, G), and their visibility.

        whole: (B, C), a summary of the picture. The second result has logits (B, 1, G, G).
        """
        mixed = torch.einsum("bp,pdij->bdij", self.mix_poses(whole), self.query_places[1:])
        placed = mixed + self.query_places[0]
        shown = _resized(self.from_map(decoded), (self.side, self.side))
        return shown + placed[:, :-1], placed[:, -1:]

    def _take(self, weights: Tensor, picture: Tensor, features: Tensor) -> Tensor:
        """Means over the attended cells: three of colour, two of place, and the features."""
        colours = functional.avg_pool2d(picture, self.stride)
        columns, rows = (
            (torch.arange(n, device=picture.device) + 0.5) * (2 / n) - 1 for n in self.cells[::-1]
        )
        grid = torch.stack(torch.meshgrid(columns, rows, indexing="xy"))  # (2, h, w)
        values = torch.cat([colours, grid.expand(colours.shape[0], -1, -1, -1), features], dim=1)
        means = weights @ values.flatten(2).transpose(1, 2)  # (B, G * G, 5 + features)
        return torch.unflatten(means.transpose(1, 2), 2, (self.side, self.side))

    def _paint(
        self, picture: Tensor, taken: Tensor, told: Tensor, light: Tensor, regressed: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Texture, attended colours and the places of all texels.

        taken: (B, 5 or more, G, G), colours and place of the attended cells.
        told: (B, 8, G, G), by the queries.
        light: (B, 3, 1, 1), of the whole picture.
        """
        gain = torch.exp(light + torch.tanh(told[:, 4:5]))  # (B, 3, G, G)
        attended = (taken[:, :3] + 1) * gain - 1
        hidden = torch.lerp(regressed, attended, told[:, 3:4].sigmoid())
        place = taken[:, 3:5] + told[:, :2] / self.cells[0]
        found = self.enlarge(torch.cat([place, told[:, 2:3]], dim=1))  # (B, 3, T, T)
        smooth = _resized(torch.cat([hidden, gain], dim=1), found.shape[2:])
        hidden, gain = smooth[:, :3], smooth[:, 3:]
        places, seen = found[:, :2], found[:, 2:].sigmoid()
        shown = (self._sample(picture, places) + 1) * gain - 1
        return torch.lerp(hidden, shown, seen), attended, places

    def _sample(self, picture: Tensor, places: Tensor) -> Tensor:
        if self.fixed_order:
            return sample_in_fixed_order(picture, places)
        return functional.grid_sample(
            picture, places.permute(0, 2, 3, 1), padding_mode="border", align_corners=False
        )


class _TexelMeans(nn.Module):
    """Values of G x G queries at T x T texels: each takes learned shares of the 3x3 around it.

    They start as bilinear enlarging and learn to leave out queries across a chart's edge, which are
    of another part of the body.
    """

    def __init__(self, side: int, texels: int) -> None:
        super().__init__()
        self.side, self.times = side, texels // side
        line = _bilinear_shares(side, self.times)  # (G, T / G, 3)
        shares = torch.einsum("isk,jtl->ijstkl", line, line)
        self.shares = nn.Parameter(shares.reshape(side * side, self.times**2, 9))

    def forward(self, values: Tensor) -> Tensor:
        """(B, C, G, G) to (B, C, T, T)."""
        batch, channels = values.shape[:2]
        around = functional.unfold(values, 3, padding=1)  # (B, C * 9, G * G)
        around = around.view(batch, channels, 9, -1).permute(3, 2, 0, 1).flatten(2).contiguous()
        texels = torch.bmm(self.shares, around)  # (G * G, (T / G)^2, B * C)
        grid = texels.view(self.side, self.side, self.times, self.times, batch, channels)
        side = self.side * self.times
        return grid.permute(4, 5, 0, 2, 1, 3).reshape(batch, channels, side, side)


def _bilinear_shares(side: int, times: int) -> Tensor:
    """What the queries before, at and after count for the parts of each: (side, times, 3)."""
    at = (torch.arange(times) + 0.5) / times - 0.5
    shares = torch.stack([(-at).clamp(min=0), 1 - at.abs(), at.clamp(min=0)], dim=1)
    whole = shares.repeat(side, 1, 1)
    whole[0, :, 0] = whole[-1, :, 2] = 0  # there is none
    return whole / whole.sum(dim=2, keepdim=True)


def _attention(queries: Tensor, keys: Tensor, person: Tensor) -> Tensor:
    """The attention of each query to each cell, (B, G * G, h * w); small where no person is."""
    scaled = queries.flatten(2).transpose(1, 2) * queries.shape[1] ** -0.5
    asked = torch.cat([scaled, torch.ones_like(scaled[..., :1])], dim=2)
    offered = torch.cat([keys, functional.logsigmoid(person)], dim=1).flatten(2)
    return torch.softmax(asked @ offered, dim=2)


def _as_seen(images: Tensor) -> Tensor:
    """Normalised images as RGB in -1 ... 1."""
    mean, std = (
        torch.tensor(c, device=images.device)[:, None, None] for c in (IMAGENET_MEAN, IMAGENET_STD)
    )
    return images * (2 * std) + (2 * mean - 1)


def _resized(maps: Tensor, size: tuple[int, int] | torch.Size) -> Tensor:
    return functional.interpolate(maps, size=size, mode="bilinear")


def _norm_relu_conv(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.BatchNorm2d(inputs), nn.ReLU(inplace=True), nn.Conv2d(inputs, outputs, 1)
    )


def _first_zero(layer: nn.Conv2d | nn.Linear) -> nn.Module:
    """The layer with weights of zero, so at first it changes nothing."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer
