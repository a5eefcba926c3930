"""Check that a data set has enough people and images for training and evaluation."""

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from components.command.step import Input, Output
from components.storage.outputs import write_metrics

if TYPE_CHECKING:
    from san_core.images.shard import Record

log = logging.getLogger(__name__)


def check_reid(
    dataset: Annotated[Path, Input("Dataset")],
    counts: Annotated[Path, Output("Metrics")],
    recipe: str = "cuhk03",
    overrides: str = "",
) -> None:
    """Check, before training starts, that a data set suffices for training and evaluation.

    The step fails if there are too few people for a batch, if people are in both training and
    validation, or if there are no queries or no gallery images. No image is read.

    Args:
        dataset: the person images, an image set
        counts: numbers of people and images for training and for validation, and of queries and
            gallery images
        recipe: recipe of the ReID training, as given to train_san
        overrides: recipe fields to replace, as given to train_san
    """
    from components.command import recipes
    from components.storage.staging import open_image_records
    from san_core.data.batches.identities import (
        few_validated_warning,
        pids_of,
        rare_textures_warning,
        split_identities,
        unseen_images_warning,
    )

    chosen = recipes.resolve_recipe(recipe, overrides)
    with open_image_records(dataset) as images:
        people = split_identities(images, chosen)
        asked, searched = (_count_of_split(images.records, s) for s in ("query", "gallery"))
    for line in (
        unseen_images_warning(people.labels, chosen),
        rare_textures_warning(people.labels, chosen),
        few_validated_warning(people.validation_records),
    ):
        if line:
            log.warning("%s", line)
    told = {
        "train_people": people.num_classes,
        "train_images": len(people.train_records),
        "validation_people": len(set(pids_of(people.validation_records).tolist())),
        "validation_images": len(people.validation_records),
        "queries": asked,
        "gallery_images": searched,
    }
    write_metrics(counts, told)
    log.info("%s", "  ".join(f"{name} {count:,}" for name, count in told.items()))


def _count_of_split(records: "Iterable[Record]", split: str) -> int:
    """The number of images in a split that the evaluation needs.

    Raises:
        ValueError: the split has no images.
    """
    count = sum(record.split == split for record in records)
    if not count:
        raise ValueError(
            f"the data set has no images in split {split}, so a model trained on it cannot be"
            " scored; name a target that has some, or run train_san by hand"
        )
    return count
