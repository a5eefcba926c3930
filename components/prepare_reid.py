"""Convert a person re-identification data set to an image set."""

import inspect
import logging
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from components.command.step import Output
from components.storage.outputs import atomic_folder

if TYPE_CHECKING:
    from san_core.data.prepare import Findings, WrittenSet
    from san_core.data.records import Problem

log = logging.getLogger(__name__)


def prepare_reid(
    reid: Annotated[Path, Output("Dataset")],
    dataset: str = "synthetic",
    source: str = "",
    target: str = "",
    target_source: str = "",
    skip_bad: bool = False,
    difficulty: str = "normal",
    identities: int = 300,
    cameras: int = 6,
    shots: int = 3,
    image_height: int = 256,
    backgrounds: str = "",
    seed: int = 0,
) -> None:
    """Convert a person re-identification data set to an image set, the format that all steps read.

    With a target, the image set holds the training images of one data set and the test images of
    another. To give several data sets, join their names with + and list their sources in the same
    order in one argument, separated by spaces ("s3://b/market s3://b/cuhk03"; write %20 for a
    space within a source). Their people and cameras are kept apart.

    Args:
        reid: the data set, as an image set with splits train, query and gallery, or images alone
        dataset: the data set: synthetic, market1501, cuhk03, msmt17, partial, csv, folders,
            file_names, vehicleid or images; several, such as market1501+cuhk03, are trained on
            together; options follow a colon, such as cuhk03:detected,classic=7; NAME:all trains on
            the test images too
        source: folder, .zip, .tar or URI of the data set, one for each of several; leave it out for
            synthetic
        target: the data set to test on, written as dataset is; several, such as market1501+msmt17,
            are scored one by one; if empty, dataset itself
        target_source: folder, .zip, .tar or URI of the target, one for each of several
        skip_bad: whether to leave out damaged images, duplicates and the like and list them in the
            manifest; otherwise they stop the step
        difficulty: how hard synthetic people are to tell apart: easy, normal or hard
        identities: number of synthetic people; a third of them is held out for testing
        cameras: number of synthetic cameras
        shots: pictures of each synthetic person by each camera
        image_height: height of a synthetic picture in pixels; its width is half of that
        backgrounds: folder or URI of photographs without people, used as backgrounds of synthetic
            people; if empty, backgrounds are painted
        seed: seed of every random choice in synthetic pictures
    """
    from components.command.data_sets import DataSetReader, resolve_data_sets
    from components.storage.transfer import local_source
    from san_core.data.prepare import write_prepared_set
    from san_core.data.readers.sources import SYNTHETIC, check_synthetic_identities
    from san_core.data.records import ProblemsError
    from san_core.synthesis.place.photographs import open_photographs
    from san_core.synthesis.spec import ReidSpec

    named = resolve_data_sets(dataset, source, target, target_source)
    provenance: dict[str, Any] = {"made_by": "prepare_reid"}
    if named.has_synthetic:
        check_synthetic_identities(identities)
    else:
        _warn_of_unused(
            difficulty=difficulty,
            identities=identities,
            cameras=cameras,
            shots=shots,
            image_height=image_height,
            backgrounds=backgrounds,
        )
    with ExitStack() as places:
        spec = None
        if named.has_synthetic:
            behind = places.enter_context(local_source(backgrounds))
            is_learned = any(one.name.key == SYNTHETIC for one in named.learned)
            is_tested = not named.tested or not is_learned
            spec = ReidSpec(
                seed=seed,
                train_identities=identities - identities // 3 if is_learned else 0,
                test_identities=identities // 3 if is_tested else 0,
                cameras=cameras,
                shots=shots,
                image_size=(image_height, image_height // 2),
                difficulty=difficulty,
                backgrounds=open_photographs(behind) if backgrounds else None,
            )
            provenance |= spec.provenance()
        reader = places.enter_context(DataSetReader(spec))
        if len(named.learned) + len(named.tested) > 1:
            made = reader.read_together(named)
            provenance |= {"target_pids_follow": made.highest_pid} if target else {}
        else:
            made = reader.read_splits(named.learned[0])
        provenance |= reader.describe(dataset=named.learned, target=named.tested)
        try:
            with atomic_folder(reid) as folder:
                written = write_prepared_set(
                    folder,
                    made.items,
                    reader.found,
                    provenance=provenance,
                    parts=made.parts,
                    skip_bad=skip_bad,
                )
        except ProblemsError as error:
            _log_problems(error.problems)
            advice = "repair them, or leave them out with --skip-bad"
            advice = "no image is left" if skip_bad else advice
            raise ValueError(f"{error}; {advice}") from error
    _log_summary(written, reader.found)


def _warn_of_unused(**given: object) -> None:
    """Warn of settings of synthetic people that have no effect, as nothing is synthetic."""
    declared = inspect.signature(prepare_reid).parameters
    for name, value in given.items():
        if value != declared[name].default:
            log.warning(
                "%s %s has no effect: no data set is synthetic", name.replace("_", "-"), value
            )


def _log_problems(problems: "list[Problem]") -> None:
    """Log every problem, if there are several."""
    if len(problems) > 1:
        for problem in problems:
            log.info("%s: %s", problem.kind, problem)


def _log_summary(written: "WrittenSet", found: "Findings") -> None:
    """Log the usual table of counts, what was done with single images, and every warning.

    If there are several data sets, each has its own rows, with its name before the split.
    """
    from san_core.data.records import ProblemsError, split_table

    _log_problems(found.problems)
    if found.duplicates:
        log.info("kept as published: %s", ProblemsError(found.duplicates))
    if found.kept_as_png:
        kinds = ", ".join(f"{n:,} {kind}" for kind, n in sorted(found.kept_as_png.items()))
        log.info("kept as PNG: %s", kinds)
    if found.laid_on_white:
        log.info("transparent, so put on a white background: %s", f"{found.laid_on_white:,}")
    told = {
        f"{part.prefix}{split}": counts
        for part in written.parts
        for split, counts in part.counts.items()
    }
    for line in (*split_table(told or written.counts).splitlines(), *found.crops.table()):
        log.info("%s", line)
    for line in written.warnings:
        log.warning("%s", line)
    if written.is_as_published:
        log.info("all counts are as published")
    for part in written.parts:
        _log_protocol(f" of {part.name}", part.protocol if "query" in part.counts else "")
    if not written.parts:
        _log_protocol("", written.protocol)


def _log_protocol(which: str, protocol: str) -> None:
    """Log how queries are scored, unless it is the usual protocol."""
    if protocol == "camera-free":
        log.info("queries%s are scored camera-free, against the whole gallery", which)
    elif protocol == "single-gallery-shot":
        log.info("queries%s are scored by single-gallery-shot", which)
