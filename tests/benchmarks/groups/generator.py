"""A texture generator on people it has never seen: colours, levels, detail, agreement of views.

Its rivals are the mean texture and three oracles that copy by the true dense map. The first sees
pictures of 256x128. The second sees what the generator sees: pictures and dense maps reduced to its
input size. The third is the second, and spreads what it copies into the gaps between texels. Three
kinds of people are pictured: in plain clothes of 24 hues and four lightnesses, of five skins, under
twelve lights; those of PIT's studio, with patterns and prints; and those of its street. The texture
alone is also set beside a colour histogram, as what tells people apart at `hard`: make bench
GROUP=generator.

`python -m tests.benchmarks.groups.generator FOLDER` prints the figures of any generator, and
keeps none.
"""

import argparse
import dataclasses
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from san_core.evaluation import histogram
from san_core.images.pixels import Pixels
from san_core.inference.textures import predict_textures
from san_core.model import weights
from san_core.model.san import build_network
from san_core.model.weights import LoadedNetwork
from san_core.recipe import Recipe
from san_core.shipped.generator import SHIPPED_FOLDER
from tests.benchmarks.figure import Figure
from tests.benchmarks.generator.oracle import at_input_size, copy_seen, texels_shown
from tests.benchmarks.generator.people import (
    HeldOut,
    hard_people,
    mean_texture,
    people_of_a_wardrobe,
    people_of_hues,
)
from tests.benchmarks.generator.scores import (
    COLOUR_SIDE,
    DETAIL_SIDE,
    REGIONS,
    SKIN,
    at_side,
    detail_correlation,
    hue_is_right,
    mean_gradient,
    psnr_where,
    region_colours,
    texture_map,
    view_distance_share,
)
from tests.benchmarks.generator.sheet import write_sheet
from tests.benchmarks.groups.synthesis import mean_average_precision
from tests.benchmarks.measuring import least_cpu_seconds

# How their figures' names begin
OURS, ORACLE = "generator.", "generator.oracle_"
AT_INPUT_SIZE = f"{ORACLE}at_input_size_"
SPREAD = f"{AT_INPUT_SIZE}spread_"
SPREAD_SIGMA = 0.7  # texels: of 0.7, 1, 1.5 and 2 it gave the most detail


class Made(NamedTuple):
    """Textures of the pictures of some people, and what the names of their figures begin with."""

    name: str
    coarse: Pixels  # (N, 64, 64, 3)
    fine: Pixels  # (N, 128, 128, 3)


class Rivals(NamedTuple):
    """What is set side by side."""

    ours: Pixels  # (N, T, T, 3), of the generator's own size
    oracles: tuple[Made, ...]  # of whole pictures, at the input size, and the same spread

    def all_made(self) -> Iterator[Made]:
        """The generator's textures, then the oracles'."""
        yield Made(OURS, at_side(self.ours, COLOUR_SIDE), at_side(self.ours, DETAIL_SIDE))
        yield from self.oracles


def figures(generator: Path = SHIPPED_FOLDER, *, sheet: bool = True) -> Iterator[Figure]:
    """All figures of the group, of the generator saved in a folder; `sheet`: draw it too."""
    loaded = weights.load_network(generator)
    fill = {world: mean_texture(world) for world in ("studio", "street")}
    hues = people_of_hues()
    rivals = rival_textures(loaded, hues, fill["street"])
    if sheet:
        write_sheet(hues, rivals.ours, rivals.oracles[0].coarse)
    for made in rivals.all_made():
        yield from _colour_figures(made.name, made.coarse, hues)
    for world in ("studio", "street"):
        people = people_of_a_wardrobe(world)
        middle = "" if world == "studio" else "street_"
        mean = np.broadcast_to(
            at_side(fill[world][None], COLOUR_SIDE),
            (len(people.images), COLOUR_SIDE, COLOUR_SIDE, 3),
        )
        for made in rival_textures(loaded, people, fill[world]).all_made():
            yield from _level_figures(made.name + middle, made.coarse, mean, people)
            yield from _detail_figures(made.name + middle, made.fine, people, fill[world])
    yield from _matching_figures(loaded, fill["studio"])
    yield cost_figure(loaded.recipe)


def rival_textures(loaded: LoadedNetwork, people: HeldOut, fill: Pixels) -> Rivals:
    """What the generator and the oracles make of people; `fill` stands for what is not seen."""
    whole = list(zip(people.images, people.dense, strict=True))
    reduced = [at_input_size(*each, loaded.recipe.image_size) for each in whole]
    oracles = tuple(
        Made(name, *(_copied(pictures, fill, side, spread) for side in (COLOUR_SIDE, DETAIL_SIDE)))
        for name, pictures, spread in (
            (ORACLE, whole, 0),
            (AT_INPUT_SIZE, reduced, 0),
            (SPREAD, reduced, SPREAD_SIGMA),
        )
    )
    images = np.stack([image for image, _ in reduced])
    return Rivals(predict_textures(loaded.model, images, device="cpu"), oracles)


def _copied(
    pictures: Sequence[tuple[Pixels, Pixels]], fill: Pixels, side: int, spread: float
) -> Pixels:
    """What an oracle makes of pictures with their dense maps: (N, side, side, 3)."""
    return np.stack([copy_seen(*each, fill, side, spread=spread) for each in pictures])


def _colour_figures(name: str, made: Pixels, people: HeldOut) -> Iterator[Figure]:
    """Hues of garments and tones of skin, where the picture shows them and where it does not."""
    true = at_side(people.textures, COLOUR_SIDE)[people.person]
    shown = np.stack([texels_shown(dense, COLOUR_SIDE) for dense in people.dense])
    for side, where in (("", shown), ("hidden_", ~shown)):
        found = {}
        for region in REGIONS:
            colours = [region_colours(each, region, where) for each in (made, true)]
            ours, theirs = (each[~np.isnan(colours[0][:, 0])] for each in colours)
            away = np.linalg.norm(ours - theirs, axis=1)
            found[region] = away if region in SKIN else hue_is_right(ours, theirs)
            yield Figure(f"{name}{side}{region}_de", float(np.median(away)), "dE")
        right = np.concatenate([found["torso"], found["legs"]])
        yield Figure(f"{name}{side}hue_share", float(right.mean()), "fraction")
        skin = np.concatenate([found[region] for region in SKIN])
        yield Figure(f"{name}{side}skin_de", float(np.median(skin)), "dE")
    share = view_distance_share(made, people.person)
    yield Figure(f"{name}view_distance_share", share, "fraction")


def _level_figures(name: str, made: Pixels, mean: Pixels, people: HeldOut) -> Iterator[Figure]:
    """PSNR at 64 texels: of all, of those the picture shows, of the others."""
    true = at_side(people.textures, COLOUR_SIDE)[people.person]
    shown = np.stack([texels_shown(dense, COLOUR_SIDE) for dense in people.dense])
    for part, where in (("", None), ("_seen", shown), ("_unseen", ~shown)):
        yield Figure(f"{name}psnr{part}_db", psnr_where(made, true, where), "dB")
    gain = psnr_where(made, true) - psnr_where(mean, true)
    yield Figure(f"{name}psnr_gain_over_mean_db", gain, "dB")


def _detail_figures(name: str, made: Pixels, people: HeldOut, fill: Pixels) -> Iterator[Figure]:
    """Sharpness at 128 texels, and whether what is sharp is true; `own` is what others lack."""
    true = at_side(people.textures, DETAIL_SIDE)[people.person]
    shown = np.stack([texels_shown(dense, DETAIL_SIDE) for dense in people.dense])
    share = mean_gradient(made) / mean_gradient(true)
    yield Figure(f"{name}gradient_share", share, "fraction")
    yield Figure(f"{name}detail_correlation", detail_correlation(made, true, shown), "1")
    mean = at_side(fill[None], DETAIL_SIDE).astype(np.float32)
    own = detail_correlation(made - mean, true - mean, shown)
    yield Figure(f"{name}own_detail_correlation", own, "1")


def _matching_figures(loaded: LoadedNetwork, fill: Pixels) -> Iterator[Figure]:
    """The texture alone as a feature at `hard`, beside a colour histogram of the picture."""
    people, labels = hard_people()
    rivals = rival_textures(loaded, people, fill)
    by_colours = mean_average_precision(histogram.histogram_features(people.images), labels)
    yield Figure("generator.histogram_map", by_colours, "fraction")
    for made in rivals.all_made():
        found = texture_map(made.coarse, labels)
        yield Figure(f"{made.name}texture_map", found, "fraction")
        yield Figure(f"{made.name}texture_map_vs_histogram", found / by_colours, "ratio")


def cost_figure(recipe: Recipe) -> Figure:
    """CPU time of a texture over that of a decoder that regresses it, of equal sizes."""
    asked = dataclasses.asdict(recipe)
    for name in ("w_dense", "copy_queries", "copy_dim"):
        asked[name] = getattr(Recipe, name)
    rival = Recipe(**{**asked, "texture_from": "regress"})
    models = [build_network(each, num_classes=0, seed=0) for each in (recipe, rival)]
    images = np.zeros((32, *recipe.image_size, 3), np.uint8)
    ours, theirs = least_cpu_seconds(
        *(partial(predict_textures, model, images, device="cpu") for model in models)
    )
    return Figure("generator.cost_vs_regression", ours / theirs, "ratio")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("generator", type=Path, help="folder of a SAN-PG")
    for figure in figures(parser.parse_args().generator, sheet=False):
        print(f"figure {figure.name} {figure.value:.6g} {figure.unit}", flush=True)
