"""Inputs of the training steps: images and textures decoded once, first weights, PIT pairs."""

import hashlib
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from components.process.machine import core_count
from components.process.progress import track_progress
from components.process.threads import map_bounded, thread_pool
from components.process.torchrun import is_first_of_node
from components.storage.places import is_remote, local_path
from components.storage.staging import (
    image_set_digest,
    open_image_records,
    open_image_set,
    shards_of_splits,
)
from components.storage.transfer import fetch_file
from components.training.ranks import SINGLE_PROCESS, Ranks
from san_core.data.batches.cache import (
    EncodedImage,
    Mapper,
    cache_dense,
    cache_images,
    cache_textures,
    enlarged_size,
    row_indices,
)
from san_core.data.trained_on import DescribedSet, TrainedOn, describe_training
from san_core.images.imageset import ImageSet, read_manifest
from san_core.images.pixels import Pixels
from san_core.images.shard import Record
from san_core.model import weights
from san_core.model.san import SAN, build_network
from san_core.model.saved import RECIPE_FILE, read_description
from san_core.model.trunks.published import left_out_in_words
from san_core.recipe import Recipe
from san_core.synthesis.person.atlas import ATLAS_NAME, mirror_index, mirror_matrix
from san_core.training.loop import TrainingData

log = logging.getLogger(__name__)

DENSE_FOLDER = "dense"  # of a PIT set, beside images and textures


class DecodedPairs(NamedTuple):
    """N images and their M textures, decoded at the sizes of a recipe."""

    images: Pixels  # (N, H, W, 3)
    textures: Pixels  # (M, T, T, 3)
    texture_index: NDArray[np.int64]  # (N,), the row of each image's texture
    atlas: str | None  # of the textures
    mirror: csr_array | None  # of that atlas
    dense: Pixels | None = None  # (N, H, W, 3), if there are dense maps and the recipe uses them

    def split_by_texture(self) -> "tuple[DecodedPairs, DecodedPairs]":
        """The pairs of every other texture, and the remaining pairs.

        Raises:
            ValueError: there is only one texture.
        """
        if len(self.textures) < 2:
            raise ValueError(
                "there is only 1 held-out texture; validation (eval_every) and the report need one"
                " each"
            )
        return self._half(0), self._half(1)

    def _half(self, which: int) -> "DecodedPairs":
        is_in = self.texture_index % 2 == which
        return self._replace(
            images=self.images[is_in],
            textures=self.textures[which::2],
            texture_index=self.texture_index[is_in] // 2,
            dense=None if self.dense is None else self.dense[is_in],
        )

    def as_training_data(self) -> TrainingData:
        """The pairs as training data without identities."""
        return TrainingData(
            images=self.images,
            textures=self.textures,
            texture_index=self.texture_index,
            mirror=self.mirror,
            dense=self.dense,
            texel_mirror=mirror_index() if self.atlas == ATLAS_NAME else None,
        )


def check_atlases(recipe: Recipe, **artifacts: Path | None) -> None:
    """Check that the textures that one decoder learns from have the same atlas.

    Args:
        recipe: recipe of the training; it may mirror textures.
        artifacts: sets of textures, and generators, by name; None for unused ones.

    Raises:
        ValueError: two of them have different atlases.
    """
    atlases = {name: _atlas_of(place) for name, place in artifacts.items() if place is not None}
    known = {name: atlas for name, atlas in atlases.items() if atlas is not None}
    if len(set(known.values())) > 1:
        told = ", ".join(f"{name} {atlas!r}" for name, atlas in known.items())
        raise ValueError(f"textures with different atlases cannot be used together: {told}")
    for name, atlas in atlases.items():
        is_mirrored = recipe.flip and recipe.flip_textures == "mirror"
        if is_mirrored and atlas != ATLAS_NAME and name != "generator":
            log.warning(
                "the atlas of the %s is %s, so mirrored textures are unknown, and mirrored images"
                " are left out of the texture losses",
                name,
                "unknown" if atlas is None else repr(atlas),
            )


def _atlas_of(place: Path) -> str | None:
    """The atlas that a set of textures or a generator names."""
    if (place / RECIPE_FILE).exists():
        told = read_description(place).facts.get("atlas")
    else:
        told = read_manifest(place)["provenance"].get("atlas")
    return None if told is None else str(told)


def open_on_ranks(artifact: Path, splits: Sequence[str] = ()) -> ImageSet:
    """Open an image set, or only the shards of some splits.

    Only the first process of a node compares every byte.

    Raises:
        OSError, ValueError: as `staging.open_image_set`.
    """
    shards = shards_of_splits(artifact, splits) if splits else None
    return open_image_set(artifact, verify=is_first_of_node(), shards=shards)


def _check_made_together(pit: Path, images: ImageSet, textures: ImageSet) -> None:
    """Raise ValueError unless images and textures are from the same run of make_pit.

    Names do not tell, as they are the same in every run.
    """
    if images.manifest["provenance"] != textures.manifest["provenance"]:
        raise ValueError(
            f"{pit}: by their manifests, images and textures are from different runs of make_pit,"
            " so pictures would be paired with wrong textures"
        )


def trained_on_pairs(pit: Path) -> TrainedOn:
    """The people of split train, for a network that trains on its pairs."""
    with open_image_records(pit / "images") as images:
        of = DescribedSet(image_set_digest(pit / "images"), images.manifest["provenance"])
        return describe_training(images.records_in_splits("train"), of)


class PixelCache:
    """Decodes into memory-mapped files in `folder`, once for all processes of a node."""

    def __init__(self, folder: Path, recipe: Recipe, ranks: Ranks) -> None:
        self._folder, self.recipe, self._ranks = folder, recipe, ranks

    def decode_images(self, name: str, images: ImageSet, records: Sequence[Record]) -> Pixels:
        """The images of `records` at the recipe's size, decoded to a file of that name."""
        cache = partial(cache_images, size=self.recipe.image_size)
        return self._decode_once(name, images, records, cache, unit="images")

    def decode_enlarged(self, name: str, images: ImageSet, records: Sequence[Record]) -> Pixels:
        """The images of `records`, each enlarged from its file's own size; as `decode_images`."""
        cache = partial(cache_images, size=enlarged_size(self.recipe.image_size))
        return self._decode_once(name, images, records, cache, unit="images")

    def decode_textures(self, name: str, textures: ImageSet, records: Sequence[Record]) -> Pixels:
        """The textures of `records`, averaged to the recipe's size; else as `decode_images`."""
        cache = partial(cache_textures, size=self.recipe.texture_size)
        return self._decode_once(name, textures, records, cache, unit="textures")

    def decode_pairs(self, pit: Path, split: str) -> DecodedPairs:
        """A split of paired image-texture data; textures of other splits are not read."""
        with (
            open_on_ranks(pit / "images", [split]) as images,
            open_on_ranks(pit / "textures", [split]) as textures,
        ):
            _check_made_together(pit, images, textures)
            shown, painted = images.records_in_splits(split), textures.records_in_splits(split)
            atlas = textures.manifest["provenance"].get("atlas")
            return DecodedPairs(
                self.decode_images(f"pit-{split}-images", images, shown),
                self.decode_textures(f"pit-{split}-textures", textures, painted),
                row_indices(
                    [record.named("texture") for record in shown],
                    [record.name for record in painted],
                    what="texture",
                ),
                atlas,
                mirror_of(atlas, self.recipe.texture_size),
                self._decode_dense(pit, split, shown) if self.recipe.w_dense else None,
            )

    def _decode_dense(self, pit: Path, split: str, shown: Sequence[Record]) -> Pixels | None:
        """The dense maps of images, at the recipe's size; None, with a warning, without maps."""
        if not (pit / DENSE_FOLDER).is_dir():
            log.warning(
                "%s has no dense maps (make_pit --dense true): w_dense %g has no effect",
                pit,
                self.recipe.w_dense,
            )
            return None
        with open_on_ranks(pit / DENSE_FOLDER, [split]) as maps:
            of_image = {record.named("image"): record for record in maps.records_in_splits(split)}
            if missing := [record.name for record in shown if record.name not in of_image]:
                raise ValueError(
                    f"{pit}: {len(missing)} of {len(shown)} images have no dense map,"
                    f" such as {missing[0]}"
                )
            records = [of_image[record.name] for record in shown]
            cache = partial(cache_dense, size=self.recipe.image_size)
            return self._decode_once(f"pit-{split}-dense", maps, records, cache, unit="dense maps")

    def _decode_once(
        self,
        name: str,
        images: ImageSet,
        records: Sequence[Record],
        cache: Callable[..., Pixels],
        *,
        unit: str,
    ) -> Pixels:
        path = self._folder / f"{name}.npy"

        def decode() -> tuple[int, ...]:
            files = (EncodedImage(record.name, partial(images.read, record)) for record in records)
            mapper = decoding_threads(len(records), unit)
            return cache(path, files, count=len(records), mapper=mapper).shape

        self._ranks.make_on_each_node(decode)
        return np.load(path, mmap_mode="r")  # type: ignore[no-any-return]


def decoding_threads(total: int, unit: str) -> Mapper:
    """Reads and decodes a few images ahead, with a thread per core, and logs the rate."""

    def decode_all(
        decode: Callable[[EncodedImage], Pixels], files: Iterable[EncodedImage]
    ) -> Iterator[Pixels]:
        threads, started = core_count(), time.monotonic()
        with thread_pool(threads) as pool:
            decoded = map_bounded(pool, decode, files, ahead=2 * threads)
            yield from track_progress(decoded, total=total, unit=f"{unit} decoded")
        rate = total / max(time.monotonic() - started, 1e-9)
        log.info("%d %s decoded  %.0f/s  %d threads", total, unit, rate, threads)

    return decode_all


def mirror_of(atlas: object, size: int) -> csr_array | None:
    """The operator that mirrors a texture of an atlas; None if the atlas is unknown."""
    return mirror_matrix(size) if atlas == ATLAS_NAME else None


def fetch_pretrained_file(folder: Path, recipe: Recipe) -> Path | None:
    """The file of first weights that a recipe names, downloaded to `folder` from a bucket.

    None if it names no file: pretrained is "none" or "imagenet".

    Raises:
        FileNotFoundError: the file does not exist.
        OSError: it cannot be downloaded.
    """
    source = recipe.pretrained
    if source in ("none", "imagenet"):
        return None
    if not is_remote(source):
        path = local_path(source)
        if not path.is_file():
            raise FileNotFoundError(f"pretrained weights {source} do not exist")
        return path
    path = folder / f"pretrained{Path(source).suffix}"
    if not path.exists():
        fetch_file(source, path)
    return path


def initial_weights_fingerprint(
    folder: Path, recipe: Recipe, generator: Path | None
) -> dict[str, str | None]:
    """Digests of the weights from which training starts, and of the generator that it uses."""
    file = fetch_pretrained_file(folder, recipe) if recipe.init == "none" else None
    return {
        "pretrained": file_sha256(file) if file else None,
        "generator": weights.fingerprint(generator) if generator else None,
    }


def file_sha256(path: Path) -> str:
    """The sha256 of a file's bytes, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def initial_model(
    recipe: Recipe,
    *,
    num_classes: int,
    seed: int,
    folder: Path,
    generator: Path | None = None,
    start_from: Path | None = None,
    ranks: Ranks = SINGLE_PROCESS,
) -> SAN:
    """A network at the start of training: new, pretrained or from another network.

    Args:
        recipe: recipe of the network.
        num_classes: identities of the classifier; 0 for none.
        seed: seed of all other weights.
        folder: folder for a file from a bucket.
        generator: SAN-PG, for recipes that start from it.
        start_from: a trained model, for recipes that start from one.
        ranks: the first process reads the weights; training sends them to the others.
    """
    model = build_network(recipe, num_classes=num_classes, seed=seed)

    def load_weights() -> None:
        if recipe.init == "model" and start_from is not None:
            own = weights.start_from_model(model, weights.load_network(start_from), recipe=recipe)
            told = left_out_in_words(own) or "nothing"
            log.info("weights are loaded from %s; new are those of: %s", start_from, told)
        elif recipe.init != "none" and generator is not None:  # it includes the pretrained weights
            weights.start_from_generator(model, weights.load_network(generator), recipe=recipe)
        elif recipe.pretrained != "none":
            file = fetch_pretrained_file(folder, recipe)
            left = weights.load_pretrained(model, str(file or "imagenet"), name=recipe.pretrained)
            if left:
                told = left_out_in_words(left)
                log.info("not loaded from the weights %s: %s", recipe.pretrained, told)

    ranks.make_on_first(load_weights)
    return model
