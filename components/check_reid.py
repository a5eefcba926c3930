"""Compare a data set's counts with what will be trained and scored on it."""

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
    """Check that a data set has what a training and an evaluation need, before hours go into it.

    Refused are too few people for a batch, people who are trained and validated on, and a set
    without queries or gallery. No image is read.

    Args:
        dataset: the person images, an image set
        counts: how many people and images are trained on and validated on, and how many queries and
            gallery images there are
        recipe: the recipe of the ReID training to come, as given to train_san
        overrides: fields of the recipe to replace, as given to train_san
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
    """How many images a split has, which a graph scores.

    Raises:
        ValueError: it has none.
    """
    count = sum(record.split == split for record in records)
    if not count:
        raise ValueError(
            f"the data set has no images in split {split}: what is trained on it could not be"
            " scored; name a target that has some, or train by hand"
        )
    return count
