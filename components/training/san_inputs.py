"""What train_san reads: whom to train on, whom to validate on, with which textures."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from components.process.machine import device
from components.storage.staging import image_set_digest
from components.training.inputs import PixelCache, mirror_of, open_on_ranks
from components.training.loop import Validation
from san_core.data.batches.cache import label_map
from san_core.evaluation.labels import Labels
from san_core.images.imageset import ImageSet, read_manifest
from san_core.images.shard import Record
from san_core.recipe import Recipe
from san_core.training.loop import TrainingData
from san_core.training.validation import held_out_mask, make_map_evaluator

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class IdentitySplit:
    """The images of a data set that training uses."""

    train_records: Sequence[Record]
    validation_records: Sequence[Record]  # empty where the recipe does not validate
    labels: NDArray[np.int64]  # of `train_records`, classes 0 ... C-1

    @property
    def num_classes(self) -> int:
        """How many people are trained on."""
        return int(self.labels.max()) + 1


def split_identities(images: ImageSet, recipe: Recipe) -> IdentitySplit:
    """Whom to train on and whom to validate on: the split val, or a share of the people.

    Raises:
        ValueError: there are no training images, one shows nobody, the split val shows people who
            are trained on, or too few people are left.
    """
    records: Sequence[Record] = images.records_in_splits("train")
    others: Sequence[Record] = []
    if recipe.eval_every and any(record.split == "val" for record in images.records):
        others = images.records_in_splits("val")
        _check_not_trained_on(_pids(others), _pids(records))
    elif recipe.eval_every:
        is_out = held_out_mask(_pids(records), recipe.validation_share)
        others = [record for record, out in zip(records, is_out, strict=True) if out]
        records = [record for record, out in zip(records, is_out, strict=True) if not out]
    pids = _pids(records).tolist()
    classes = label_map(pids)
    return IdentitySplit(records, others, np.array([classes[pid] for pid in pids], np.int64))


def _check_not_trained_on(watched: NDArray[np.int64], learned: NDArray[np.int64]) -> None:
    """Raise ValueError if people to validate on are trained on: they would be found too well."""
    known = np.intersect1d(watched, learned)
    if len(known):
        raise ValueError(
            f"{len(known)} of {len(np.unique(watched))} people in split val are trained on, such as"
            f" {known[0]}: their score would tell nothing of others; validate on other people, or"
            " train with eval_every=0"
        )


def check_textures_of(textures: Path, dataset: Path) -> None:
    """Raise ValueError unless textures are those of this data set, whose names others may have."""
    made_of = read_manifest(textures)["provenance"].get("settings", {}).get("dataset")
    if made_of is None:
        log.warning("%s does not tell of which data set it is: names alone are compared", textures)
    elif made_of != image_set_digest(dataset):
        raise ValueError(
            f"{textures} holds the textures of another data set than {dataset}: the manifest that"
            f" they were made from is {made_of[:12]}, this one {image_set_digest(dataset)[:12]}"
        )


def training_data(
    reader: PixelCache,
    images: ImageSet,
    people: IdentitySplit,
    *,
    textures: Path | None,
    pit: Path | None,
) -> TrainingData:
    """Training images with their classes, and with textures and paired data if the recipe uses any.

    Raises:
        ValueError: a training image has no texture.
    """
    pictures = reader.decode_images("images", images, people.train_records)
    data = TrainingData(images=pictures, labels=people.labels)
    if reader.recipe.needs_decoder and textures is not None:
        data = _add_textures(data, reader, people, textures)
    if pit is not None and reader.recipe.pit_every:
        data = replace(data, pit=reader.decode_pairs(pit, "train").as_training_data())
    return data


def _add_textures(
    data: TrainingData, reader: PixelCache, people: IdentitySplit, textures: Path
) -> TrainingData:
    records = people.train_records
    with open_on_ranks(textures) as painted:
        of_image = {record.named("image"): record for record in painted.records}
        if missing := [record.name for record in records if record.name not in of_image]:
            raise ValueError(
                f"{len(missing)} of {len(records)} training images have no texture,"
                f" such as {missing[0]}: the textures are of another data set"
            )
        used = [of_image[record.name] for record in records]
        atlas = painted.manifest["provenance"].get("atlas")
        return replace(
            data,
            textures=reader.decode_textures("textures", painted, used),
            texture_index=np.arange(len(records)),
            mirror=mirror_of(atlas, reader.recipe.texture_size),
        )


def validation_by_map(reader: PixelCache, images: ImageSet, people: IdentitySplit) -> Validation:
    """The mAP of people who are not trained on.

    Raises:
        ValueError: there is none of them.
    """
    records = people.validation_records
    pids = _pids(records)
    camids = [record.camid for record in records if record.camid is not None]
    log.info("validation: %d images of %d people", len(records), len(np.unique(pids)))
    if 0 < len(camids) < len(records):
        log.warning(
            "%d of %d validation images have no camera: cameras are left out of account",
            len(records) - len(camids),
            len(records),
        )
    known = np.array(camids, np.int64) if len(camids) == len(records) else None
    pictures = reader.decode_images("validation", images, records)
    return Validation(
        "mAP",
        make_map_evaluator(pictures, Labels(pids, known), reader.recipe, device=device()),
    )


def _pids(records: Sequence[Record]) -> NDArray[np.int64]:
    """Whom the images show.

    Raises:
        ValueError: an image has no identity.
    """
    pids = [record.pid for record in records if record.pid is not None]
    if len(pids) < len(records):
        nobody = next(record.name for record in records if record.pid is None)
        raise ValueError(f"image {nobody} has no identity to learn")
    return np.array(pids, np.int64)
