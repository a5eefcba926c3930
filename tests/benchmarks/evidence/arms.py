"""The arms that are compared, and one run of an arm.

All arms of a seed train on the same people with the same batches and augmentation. They differ in
their losses, in their texture targets, and in whether they start from first weights of chance, the
same in a seed, or from SAN-PG, which is the same in all seeds.
"""

import dataclasses
import datetime
import json
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch

from components.command.code import ROOT
from san_core.inference.features import embed
from san_core.model import weights
from san_core.model.san import build_network
from san_core.recipe import Recipe, recipe_with_overrides
from san_core.recipes import get_recipe
from san_core.training.loop import fit
from tests.benchmarks.evidence.data import Generator, rendered_set, trained_generator, training_data
from tests.benchmarks.evidence.score import query_and_gallery_rows, score_features
from tests.benchmarks.measuring import machine_facts


class Arm(NamedTuple):
    """A way of training."""

    words: str  # what the table calls it
    recipe: str
    overrides: str = ""
    targets: str = "none"  # one of evidence_data.TARGETS
    seeds: int = 3
    cost: float = 1.8  # of a step, in steps of the baseline; roughly, for plans

    @property
    def uses_generator(self) -> bool:
        """Whether SAN-PG has a part in it: its textures, or its weights."""
        settings = recipe_with_overrides(get_recipe(self.recipe), self.overrides)
        return self.targets in ("pseudo", "shuffled") or settings.needs_generator


_FULL = "init=none w_tr=0.1"  # from first weights of chance, with both texture losses
_FROM_ENCODER = "init=encoder w_tr=0.1"  # so too, from SAN-PG's encoder
# Texture supervision that costs less than `full_pg` and starts alike; weights are not tuned
CHEAP_ARMS = {
    "every_pg": Arm(
        "full in every fourth batch, starts as SAN-PG's encoder",
        "synthetic",
        f"{_FROM_ENCODER} texture_every=4",
        "pseudo",
        cost=1.2,
    ),
    "first_pg": Arm(
        "full in the first 4 epochs, starts as SAN-PG's encoder",
        "synthetic",
        f"{_FROM_ENCODER} texture_epochs=4",
        "pseudo",
        cost=1.25,
    ),
    "coarse_pg": Arm(
        "full, 16 texels, starts as SAN-PG's encoder",
        "synthetic",
        f"{_FROM_ENCODER} texture_size=16",
        "pseudo",
        cost=1.5,
    ),
    "share_pg": Arm(
        "full on a quarter of the identities, starts as SAN-PG's encoder",
        "synthetic",
        f"{_FROM_ENCODER} texture_share=0.25",
        "pseudo",
        cost=1.3,
    ),
    "kept_pg": Arm(
        "full, starts as SAN-PG, whose decoder stays as it is",
        "synthetic",
        "w_tr=0.1 train_decoder=false",
        "pseudo",
        cost=1.6,
    ),
    "distilled": Arm(
        "baseline + features of SAN-PG's encoder", "synthetic-baseline", "w_distill=1", cost=1.4
    ),
    "distilled_pg": Arm(
        "baseline + features of SAN-PG's encoder, starts as it",
        "synthetic-baseline",
        "init=encoder w_distill=1",
        cost=1.4,
    ),
}
ARMS = {
    "baseline": Arm("baseline: L_ID + L_Triplet", "synthetic-baseline", seeds=5, cost=1),
    "rec": Arm("+ L_Rec, textures of SAN-PG", "synthetic", "init=none", "pseudo"),
    "full": Arm("full: + L_Rec + L_TR, textures of SAN-PG", "synthetic", _FULL, "pseudo", seeds=5),
    "light": Arm(
        "full, light decoder",
        "synthetic",
        f"{_FULL} decoder_plan=light",
        "pseudo",
        seeds=5,
        cost=1.5,
    ),
    "oracle": Arm("oracle: full, true textures", "synthetic", _FULL, "true"),
    "shuffled": Arm("control: full, textures of other people", "synthetic", _FULL, "shuffled"),
    "input": Arm("control: full, the image as its own target", "synthetic", _FULL, "input"),
    "baseline_pg": Arm(
        "baseline, starts as SAN-PG's encoder",
        "synthetic-baseline",
        "init=encoder",
        seeds=5,
        cost=1,
    ),
    "light_pg": Arm(
        "light decoder, starts as SAN-PG's encoder",
        "synthetic",
        "init=encoder w_tr=0.1 decoder_plan=light",
        "pseudo",
        cost=1.5,
    ),
    "rec_pg": Arm("+ L_Rec, starts as SAN-PG (recipe synthetic)", "synthetic", "", "pseudo"),
    "full_pg": Arm("full, starts as SAN-PG", "synthetic", "w_tr=0.1", "pseudo", seeds=5),
    **CHEAP_ARMS,
}
GENERATOR_RECIPE = ("demo-pg", "epochs=12 erasing=0 crop=pad")  # recipe of SAN-PG, and overrides


class Job(NamedTuple):
    """A run that is asked for."""

    arm: str
    difficulty: str
    budget: str  # as figures.py names them: EQUAL_EPOCHS, MULTIPLE, MATCHED_CPU
    epochs: int
    seed: int
    split: str = "test"


def recipe_of_arm(arm: Arm, epochs: int) -> Recipe:
    """The recipe an arm trains by."""
    return dataclasses.replace(
        recipe_with_overrides(get_recipe(arm.recipe), arm.overrides),
        epochs=epochs,
        checkpoint_every=epochs,
    )


def recipe_of_generator() -> Recipe:
    """The recipe of SAN-PG, whose textures have the size of the arms'."""
    return recipe_with_overrides(get_recipe(GENERATOR_RECIPE[0]), GENERATOR_RECIPE[1])


def recipe_fields(settings: Recipe) -> dict[str, Any]:
    """A recipe as JSON has it."""
    found: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(settings)))
    return found


def run_job(job: Job, arm: Arm, cache: Path, *, code: str, commit: str) -> dict[str, Any]:
    """Train, embed, score: the row of a job, in one thread."""
    torch.set_num_threads(1)
    settings = recipe_of_arm(arm, job.epochs)
    them = rendered_set(cache, job.difficulty, job.seed)
    made_by = trained_generator(cache, recipe_of_generator()) if arm.uses_generator else None
    started = time.process_time()
    data = training_data(them, arm.targets, settings, made_by and made_by.path)
    prepared = time.process_time()
    model = build_network(settings, num_classes=data.num_classes, seed=job.seed)
    teacher = None
    if settings.needs_generator:
        assert made_by is not None  # an arm that starts or learns from SAN-PG uses it
        generator = weights.load_network(made_by.path)
        if settings.init != "none":
            weights.start_from_generator(model, generator, recipe=settings)
        teacher = generator.model.encoder if settings.w_distill else None
    reports = list(fit(model, data, settings, seed=job.seed, device="cpu", teacher=teacher))
    trained = time.process_time()
    query, gallery = (
        embed(model, them.images[rows], mirrored=settings.mirrored)
        for rows in query_and_gallery_rows(them, job.split)
    )
    metric = settings.metric
    found = score_features(query, gallery, them, job.split, metric=metric)
    return {
        **job._asdict(),
        **{name: value and round(value, 5) for name, value in found._asdict().items()},
        "cpu_seconds": round(trained - prepared, 2),
        "texture_cpu_seconds": round(prepared - started, 2),
        "losses": {name: round(value, 4) for name, value in reports[-1].terms.items()},
        "targets": arm.targets,
        "generator": None if made_by is None else _generator_facts(made_by),
        "recipe": recipe_fields(settings),
        "data": them.fingerprint,
        "code": code,
        "commit": commit,
        "machine": machine_and_torch(),
        "date": datetime.date.today().isoformat(),
    }


def machine_and_torch() -> dict[str, Any]:
    """What an arm's CPU time is of."""
    return {**machine_facts(), "torch": torch.__version__}


def _generator_facts(made: Generator) -> dict[str, Any]:
    measured = {name: round(getattr(made, name), 3) for name in Generator._fields[1:]}
    return {**measured, "recipe": recipe_fields(recipe_of_generator())}


def default_cache() -> Path:
    """Where sets and SAN-PG are kept: may be deleted at any time."""
    return ROOT / "runs" / "evidence"
