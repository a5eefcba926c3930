"""One run of an arm: trained once, then scored on all people it is to be judged on."""

import datetime
import time
from pathlib import Path
from typing import Any

import torch

from components.command.code import ROOT
from san_core.inference.features import embed
from san_core.model import weights
from san_core.model.encoder import Encoder
from san_core.model.san import SAN, build_network
from san_core.recipe import Recipe
from san_core.shipped.generator import SHIPPED_FOLDER
from san_core.training.loop import fit
from tests.benchmarks.evidence.arms import Arm, Job, recipe_fields, recipe_of_arm
from tests.benchmarks.evidence.data import RenderedSet, rendered_set, training_data
from tests.benchmarks.evidence.score import TESTS, query_and_gallery_rows, score_features
from tests.benchmarks.evidence.starts import (
    IDENTITY,
    NONE,
    OWN,
    Start,
    recipe_of_generator,
    recipe_of_rival,
    seen_textures,
    trained_start,
)
from tests.benchmarks.measuring import machine_facts


def run_job(job: Job, arm: Arm, cache: Path, *, code: str, commit: str) -> dict[str, Any]:
    """Train, embed, score: the row of a job, in one thread."""
    torch.set_num_threads(1)
    settings = recipe_of_arm(arm, job.epochs)
    place = (job.difficulty, job.seed, settings.image_size)
    them = rendered_set(cache, *place)
    seen = seen_textures(cache, *place) if arm.needs_pseudo else None
    start = None if arm.start == NONE else trained_start(cache, arm.start, settings)
    data = training_data(
        them, arm.targets, settings, pseudo=seen and seen.textures, people=job.people
    )
    model = build_network(settings, num_classes=data.num_classes, seed=job.seed)
    teacher = _begin_at_start(model, arm, settings, start) if start else None
    started = time.process_time()
    reports = list(fit(model, data, settings, seed=job.seed, device="cpu", teacher=teacher))
    trained = time.process_time()
    share = len(data.images) / len(them.train_rows)
    return {
        **job._asdict(),
        "tests": list(job.tests),
        "scores": {test: _scores(model, them, test, job, cache, settings) for test in job.tests},
        "cpu_seconds": round(trained - started, 2),
        "texture_cpu_seconds": round(share * seen.cpu_seconds, 2) if seen else 0.0,
        "losses": {name: round(value, 4) for name, value in reports[-1].terms.items()},
        "targets": arm.targets,
        "start": arm.start,
        "generator": start and _facts_of_start(start, arm, settings),
        "shipped": shipped_fingerprint() if arm.uses_shipped else None,
        "recipe": recipe_fields(settings),
        "data": them.fingerprint,
        "code": code,
        "commit": commit,
        "machine": machine_and_torch(),
        "date": datetime.date.today().isoformat(),
    }


def _begin_at_start(model: SAN, arm: Arm, settings: Recipe, start: Start) -> Encoder | None:
    """Copy the weights of a start; returns the teacher of an arm that distils."""
    found = weights.load_network(start.path)
    if arm.start == IDENTITY:
        weights.start_from_model(model, found, recipe=settings)
    elif settings.init != "none":
        weights.start_from_generator(model, found, recipe=settings)
    return found.model.encoder if settings.w_distill else None


def _scores(
    model: SAN, them: RenderedSet, test: str, job: Job, cache: Path, settings: Recipe
) -> dict[str, float | None]:
    level, split = TESTS[test]
    if level is not None and level != job.difficulty:
        them = rendered_set(cache, level, job.seed, settings.image_size)
    query, gallery = (
        embed(model, them.images[rows], mirrored=settings.mirrored)
        for rows in query_and_gallery_rows(them, split)
    )
    found = score_features(query, gallery, them, split, metric=settings.metric)
    return {name: value and round(value, 5) for name, value in found._asdict().items()}


def _facts_of_start(start: Start, arm: Arm, settings: Recipe) -> dict[str, Any]:
    """What a row tells of its start; of SAN-PG and its rival with the recipe."""
    told = {name: round(value, 3) for name, value in start.facts.items()}
    seconds = round(start.cpu_seconds, 2)
    recipe = recipe_of_start(arm, settings, told)
    return {**told, "cpu_seconds": seconds, "recipe": recipe and recipe_fields(recipe)}


def recipe_of_start(arm: Arm, settings: Recipe, told: dict[str, Any]) -> Recipe | None:
    """By what recipe a start was trained; None of what ships. told: its facts."""
    if arm.start == OWN:
        return recipe_of_generator(settings)
    return recipe_of_rival(settings, round(told["epochs"])) if arm.start == IDENTITY else None


def shipped_fingerprint() -> str:
    """Of the weights of the shipped generator."""
    return weights.fingerprint(SHIPPED_FOLDER)


def machine_and_torch() -> dict[str, Any]:
    """What an arm's CPU time is of."""
    return {**machine_facts(), "torch": torch.__version__}


def default_cache() -> Path:
    """Where sets and networks are kept: may be deleted at any time."""
    return ROOT / "runs" / "evidence"
