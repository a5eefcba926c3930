"""What train_san reads: whom to train on, whom to validate on, with which textures."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from components.process.machine import device
from components.storage.staging import image_set_digest
from components.training.inputs import (
    PixelCache,
    mirror_of,
    open_on_ranks,
    trained_on_pairs,
)
from components.training.loop import Validation
from san_core.data.batches.identities import (
    IdentitySplit,
    camids_of,
    few_validated_warning,
    pids_of,
)
from san_core.data.trained_on import (
    DescribedSet,
    TrainedOn,
    describe_training,
    merge_trainings,
)
from san_core.evaluation.labels import Labels
from san_core.images.imageset import ImageSet, read_manifest
from san_core.model.saved import read_description
from san_core.training.loop import TrainingData
from san_core.training.validation import MapEvaluator

log = logging.getLogger(__name__)


def check_textures_of(textures: Path, dataset: Path) -> None:
    """Raise ValueError unless textures are those of this data set, whose names others may have."""
    settings = read_manifest(textures)["provenance"].get("settings")
    made_of = settings.get("dataset") if isinstance(settings, dict) else None
    if made_of is None:
        log.warning("%s does not tell of which data set it is: names alone are compared", textures)
    elif made_of != image_set_digest(dataset):
        raise ValueError(
            f"{textures} holds the textures of another data set than {dataset}: the manifest that"
            f" they were made from is {made_of[:12]}, this one {image_set_digest(dataset)[:12]}"
        )


def whom_trained_on(
    dataset: Path,
    images: ImageSet,
    people: IdentitySplit,
    *,
    pit: Path | None,
    starts_from: Sequence[Path | None],
) -> TrainedOn:
    """Whom a model is trained on: those of its data, and of the networks that it starts from.

    pit, starts_from: None where they are not used.
    """
    of = DescribedSet(image_set_digest(dataset), images.manifest["provenance"])
    trainings = [describe_training(people.train_records, of)]
    if pit is not None:
        trainings.append(trained_on_pairs(pit))
    for network in filter(None, starts_from):
        told = read_description(network).facts.get("trained_on")
        trainings += [told] if told else []
    return merge_trainings(trainings)


def people_in_words(people: IdentitySplit) -> str:
    """How many images and people are trained on, and how many are held out."""
    told = f"{len(people.train_records):,} images of {people.num_classes:,} identities"
    if not people.validation_records:
        return told
    out = people.validation_records
    return (
        f"{told}; {len(out):,} images of {len(np.unique(pids_of(out))):,} identities are held out"
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
    enlarged = (
        reader.decode_enlarged("enlarged", images, people.train_records)
        if reader.recipe.crop == "translate_stored"
        else None
    )
    data = TrainingData(images=pictures, enlarged=enlarged, labels=people.labels)
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
    pids = pids_of(records)
    log.info("validation: %d images of %d identities", len(records), len(np.unique(pids)))
    unknown = sum(record.camid is None for record in records)
    if 0 < unknown < len(records):
        log.warning(
            "%d of %d validation images have no camera: cameras are left out of account",
            unknown,
            len(records),
        )
    if line := few_validated_warning(records):
        log.warning("%s", line)
    pictures = reader.decode_images("validation", images, records)
    labels = Labels(pids, camids_of(records))
    score = MapEvaluator(
        pictures,
        labels,
        reader.recipe,
        device=device(),
        on_zeros=lambda zeros: log.warning(
            "%d of %d validation features are all zeros, and tie", zeros, len(records)
        ),
    )
    of = f"{score.num_queries:,} queries of {score.num_people:,} identities"
    return Validation("mAP", score, lambda: score.interval, of)
