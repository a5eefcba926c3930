"""Whether synthetic people teach: SAN-PG on people it has never seen, a ReID encoder at `hard`.

SAN-PG is set beside two rivals that learn nothing: the mean training texture, and the texture of
the training image whose foreground is nearest by colour histogram. Errors are pooled over all
held-out images, and told apart by whether the image shows the texel: what is seen can be copied,
what is not must be known about people. The encoder is set beside a matcher of colours, on the same
people and by the same protocol: noise alone must not be what makes `hard` hard.
Together it takes half an hour of CPU time; make bench GROUP=teaching.
"""

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from components.process.machine import device
from san_core.evaluation import histogram
from san_core.images.imageset import ImageSet
from san_core.images.pixels import Pixels, area_average, decode, resize
from san_core.inference.features import embed
from san_core.inference.textures import predict_textures
from san_core.model import weights
from san_core.training.precision import resolve_precision
from tests.benchmarks.figure import Figure
from tests.benchmarks.groups import synthesis
from tests.benchmarks.measuring import run_step
from tests.benchmarks.teaching_sheet import write_sheet

PIT_FLAGS = ("--textures", "929", "--meshes", "10", "--image-height", "128", "--texture-size", "64")
GENERATOR_FLAGS = ("--recipe", "pit-small")
# Other people than those to be told apart: another seed draws them all anew.
REID_FLAGS = ("--difficulty", "hard", "--identities", "450", "--seed", str(synthesis.SEED + 1))
ENCODER_FLAGS = ("--recipe", "synthetic-baseline")
GENERATOR_OUTPUTS = ("generator", "generator-page", "generator-scores")
MODEL_OUTPUTS = ("model", "training-page", "losses")
SSIM_SIGMA, C1, C2 = 1.5, (0.01 * 255) ** 2, (0.03 * 255) ** 2  # Wang et al. 2004


class PitSplit(NamedTuple):
    """Images (N, H, W, 3), masks of their people, their textures, and which texels they show."""

    images: Pixels
    masks: NDArray[np.bool_]  # (N, H, W)
    textures: Pixels  # (N, T, T, 3)
    shown: NDArray[np.bool_]  # (N, T, T)


def figures() -> Iterator[Figure]:
    """All figures of the group."""
    with tempfile.TemporaryDirectory() as name:
        yield from _generator_figures(Path(name))
        yield from _encoder_figures(Path(name))


def _generator_figures(folder: Path) -> Iterator[Figure]:
    """Make PIT, train SAN-PG on it, and compare."""
    run_step("make_pit", "--pit", f"{folder}/pit", *PIT_FLAGS, "--dense", "true")
    outputs = [f"--{kind}={folder}/{kind}" for kind in GENERATOR_OUTPUTS]
    cost = run_step(
        "train_san_pg", "--pit", f"{folder}/pit", *outputs, *GENERATOR_FLAGS, *_precision_flags()
    )
    yield Figure("teaching.mixed_precision", float("bfloat16" in _precision_flags()), "1 if so")
    yield Figure("teaching.training_seconds", cost.wall, "s")
    yield Figure("teaching.training_cpu_seconds", cost.cpu, "s")
    loaded = weights.load_network(folder / "generator")
    size = loaded.recipe.texture_size
    seen, unseen = (_read_split(folder / "pit", split, size) for split in ("train", "val"))
    images = np.stack([resize(image, loaded.recipe.image_size) for image in unseen.images])
    guesses = {
        "san_pg": predict_textures(loaded.model, images, device="cpu"),
        "nearest": seen.textures[_nearest_by_colour(seen, unseen)],
        "mean": np.broadcast_to(_mean_texture(seen.textures), unseen.textures.shape),
    }
    write_sheet(unseen.images, {"true": unseen.textures, **guesses})
    yield from _comparison_figures(guesses, unseen)


def _precision_flags() -> tuple[str, str]:
    """Mixed precision where the processor has instructions for it, as one would ask for here."""
    try:
        return "--precision", resolve_precision("bfloat16", device())
    except ValueError:
        return "--precision", "float32"


def _comparison_figures(guesses: Mapping[str, Pixels], truth: PitSplit) -> Iterator[Figure]:
    found = {
        figure.name: figure
        for rival, guess in guesses.items()
        for figure in _score_figures(rival, guess, truth)
    }
    yield from found.values()
    ours = found["teaching.psnr_san_pg_all"].value
    for rival in ("mean", "nearest"):
        gain = ours - found[f"teaching.psnr_{rival}_all"].value
        yield Figure(f"san_pg.psnr_gain_over_{rival}_db", gain, "dB")


def _encoder_figures(folder: Path) -> Iterator[Figure]:
    """Train the encoder alone on people at `hard`, and let it find others again."""
    run_step("prepare_reid", "--reid", f"{folder}/reid", *REID_FLAGS)
    outputs = [f"--{kind}={folder}/encoder/{kind}" for kind in MODEL_OUTPUTS]
    cost = run_step(
        "train_san", "--dataset", f"{folder}/reid", *outputs, *ENCODER_FLAGS, *_precision_flags()
    )
    yield Figure("teaching.encoder_training_seconds", cost.wall, "s")
    yield Figure("teaching.encoder_training_cpu_seconds", cost.cpu, "s")
    loaded = weights.load_network(folder / "encoder" / "model")
    seen = synthesis.matcher_set("hard")
    images = np.stack([resize(image, loaded.recipe.image_size) for image in seen.images])
    by_colours = histogram.histogram_features(seen.images)
    for name, features in (
        ("baseline", embed(loaded.model, images)),
        ("histogram", by_colours),
    ):
        score = synthesis.mean_average_precision(features, seen.labels)
        yield Figure(f"synthesis.hard_{name}_map", score, "fraction")


def _read_split(pit: Path, split: str, size: int) -> PitSplit:
    """The pairs of a split, their textures averaged to `size`."""
    with (
        ImageSet.open(pit / "images") as images,
        ImageSet.open(pit / "textures") as textures,
        ImageSet.open(pit / "dense") as dense,
    ):
        by_name = {
            record.name: area_average(decode(textures.read(record)), size)
            for record in textures.records_in_splits(split)
        }
        shown = images.records_in_splits(split)
        maps = [decode(dense.read(record)) for record in dense.records_in_splits(split)]
        return PitSplit(
            np.stack([decode(images.read(record)) for record in shown]),
            np.stack([each[..., 2] > 127 for each in maps]),
            np.stack([by_name[record.fields["texture"]] for record in shown]),
            np.stack([_texels_shown(each, size) for each in maps]),
        )


def _texels_shown(dense: Pixels, size: int) -> NDArray[np.bool_]:
    """The texels (size, size) that an image's dense map speaks of."""
    shown = np.zeros((size, size), bool)
    column, row, cover = np.moveaxis(dense[dense[..., 2] > 0].astype(int), 1, 0)
    shown[row[cover > 127] * size // 256, column[cover > 127] * size // 256] = True
    return shown


def _mean_texture(textures: Pixels) -> Pixels:
    mean: Pixels = np.rint(textures.mean(axis=0, dtype=np.float64)).astype(np.uint8)
    return mean


def _nearest_by_colour(seen: PitSplit, unseen: PitSplit) -> NDArray[np.intp]:
    """For every held-out image the training image whose person has the nearest colours."""
    gallery, query = (
        histogram.histogram_features(
            np.where(mask[..., None], image, np.uint8(0))
            for image, mask in zip(split.images, split.masks, strict=True)
        )
        for split in (seen, unseen)
    )
    return np.argmax(query @ gallery.T, axis=1)


def _score_figures(rival: str, guess: Pixels, truth: PitSplit) -> Iterator[Figure]:
    squares = np.square(guess.astype(np.float32) - truth.textures).mean(axis=3)
    for part, where in (("all", None), ("seen", truth.shown), ("unseen", ~truth.shown)):
        error = (squares if where is None else squares[where]).mean(dtype=np.float64)
        yield Figure(f"teaching.psnr_{rival}_{part}", float(10 * np.log10(255**2 / error)), "dB")
    pairs = zip(guess, truth.textures, strict=True)
    yield Figure(f"teaching.ssim_{rival}", float(np.mean([ssim(a, b) for a, b in pairs])), "1")


def ssim(first: Pixels, second: Pixels) -> float:
    """Structural similarity of two images (H, W, 3) in grey, Gaussian window (Wang et al. 2004)."""
    a, b = (image.mean(axis=2, dtype=np.float64) for image in (first, second))

    def smooth(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return gaussian_filter(values, SSIM_SIGMA)

    mean_a, mean_b = smooth(a), smooth(b)
    var_a, var_b = smooth(a * a) - mean_a**2, smooth(b * b) - mean_b**2
    both = smooth(a * b) - mean_a * mean_b
    top = (2 * mean_a * mean_b + C1) * (2 * both + C2)
    bottom = (mean_a**2 + mean_b**2 + C1) * (var_a + var_b + C2)
    return float((top / bottom).mean())
