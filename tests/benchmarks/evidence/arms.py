"""The arms that are compared: ways to spend CPU time on a network.

All arms of a seed train on the same people with the same batches and augmentation. They differ in
their losses, in their texture targets and in what they start as: from random weights, the same in a
seed, or from a network that is the same in all seeds.
"""

import dataclasses
import json
from typing import Any, NamedTuple

from san_core.recipe import Recipe, recipe_with_overrides
from san_core.recipes import get_recipe
from tests.benchmarks.evidence.data import TRAIN_PEOPLE
from tests.benchmarks.evidence.starts import IDENTITY, NONE, OWN, SHIPPED


class Arm(NamedTuple):
    """A way of training."""

    words: str  # what the table calls it
    recipe: str
    overrides: str = ""
    targets: str = "none"  # one of data.TARGETS
    start: str = NONE  # whose weights it starts from or learns from: one of starts
    with_textures: float = 1.0  # share of its epochs that have texture losses
    is_candidate: bool = False  # whether somebody may choose it who wants textures to pay
    cost: float = 1.9  # of a step, in steps of the baseline; roughly, for plans
    seeds: int = 5

    @property
    def needs_pseudo(self) -> bool:
        """Whether it is given textures of the shipped generator."""
        return self.targets in ("pseudo", "shuffled")

    @property
    def has_losses(self) -> bool:
        """Whether it is trained with texture losses."""
        return self.targets != "none"

    @property
    def uses_shipped(self) -> bool:
        """Whether the generator that comes with the package has a part in it."""
        return self.needs_pseudo or self.start == SHIPPED


BASELINE = "baseline"
_FULL = "init=none w_tr=0.1 texture_every=1"  # from random weights, both losses in every batch
_FROM_ENCODER = "init=encoder w_tr=0.1"  # both losses, from the encoder of a generator
_EVERY_BATCH = f"{_FROM_ENCODER} texture_every=1"  # so too, in every batch
_FROM_PG = "init=generator w_tr=0.1 texture_every=1"  # so too, from the whole generator


def _supervised(words: str, overrides: str, targets: str = "pseudo", **fields: Any) -> Arm:
    return Arm(words, "synthetic", overrides, targets, **fields)


def _baseline(words: str, overrides: str = "", **fields: Any) -> Arm:
    return Arm(words, "synthetic-baseline", overrides, cost=fields.pop("cost", 1.0), **fields)


# Texture supervision that costs less than the full one that starts alike; weights are not tuned
CHEAP_ARMS = {
    "every_shipped": _supervised(
        "full in every fourth batch, starts as the shipped encoder",
        f"{_FROM_ENCODER} texture_every=4",
        start=SHIPPED,
        is_candidate=True,
        cost=1.25,
    ),
    "first_shipped": _supervised(
        "full in the first quarter of epochs, starts as the shipped encoder",
        _EVERY_BATCH,
        start=SHIPPED,
        with_textures=0.25,
        is_candidate=True,
        cost=1.25,
    ),
    "coarse_shipped": _supervised(
        "full, 16 texels, starts as the shipped encoder",
        f"{_EVERY_BATCH} texture_size=16",
        start=SHIPPED,
        is_candidate=True,
        cost=1.5,
    ),
    "share_shipped": _supervised(
        "full on a quarter of the identities, starts as the shipped encoder",
        f"{_EVERY_BATCH} texture_share=0.25",
        start=SHIPPED,
        is_candidate=True,
        cost=1.3,
    ),
    "kept_pg": _supervised(
        "full, starts as SAN-PG, whose decoder stays as it is",
        f"{_FROM_PG} train_decoder=false",
        start=OWN,
        is_candidate=True,
        cost=1.6,
    ),
    "distilled": _baseline(
        "baseline + features of SAN-PG's encoder",
        "w_distill=1",
        start=OWN,
        is_candidate=True,
        cost=1.4,
    ),
}
ARMS = {
    BASELINE: _baseline("baseline: L_ID + L_Triplet"),
    "full": _supervised("full: + L_Rec + L_TR", _FULL, is_candidate=True),
    "baseline_shipped": _baseline(
        "baseline, starts as the shipped encoder", "init=encoder", start=SHIPPED, is_candidate=True
    ),
    "full_shipped": _supervised(
        "full, starts as the shipped encoder", _EVERY_BATCH, start=SHIPPED, is_candidate=True
    ),
    "baseline_pg": _baseline(
        "baseline, starts as SAN-PG's encoder", "init=encoder", start=OWN, is_candidate=True
    ),
    "full_pg": _supervised("full, starts as SAN-PG", _FROM_PG, start=OWN, is_candidate=True),
    "baseline_identity": _baseline(
        "control: baseline, first trained on identities of PIT", "init=model", start=IDENTITY
    ),
    "rec": _supervised("+ L_Rec", "init=none w_tr=0 texture_every=1", is_candidate=True),
    "oracle": _supervised("oracle: full, true textures", _FULL, "true"),
    "shuffled": _supervised("control: full, textures of other people", _FULL, "shuffled"),
    **CHEAP_ARMS,
}
del ARMS["share_shipped"]  # as good as a twin of "every_shipped", whose cost alone is measured
_LARGE = "arch=resnet18 image_height=128 image_width=64 crop_pad=5 lr=1e-3 decoder_lr=1e-3"
LARGE_ARMS = {
    name: ARMS[name]._replace(overrides=f"{ARMS[name].overrides} {_LARGE}{size}".strip())
    for name, size in ((BASELINE, ""), ("full", " texture_size=64"), ("baseline_pg", ""))
}


class Job(NamedTuple):
    """A run that is asked for."""

    arm: str
    difficulty: str
    budget: str  # as plan.py names them
    epochs: int
    seed: int
    people: int = TRAIN_PEOPLE  # to train on
    tests: tuple[str, ...] = ("val", "test")  # names of score.TESTS


def recipe_of_arm(arm: Arm, epochs: int) -> Recipe:
    """The recipe an arm trains by."""
    textured = max(1, round(arm.with_textures * epochs)) if arm.with_textures < 1 else 0
    base = recipe_with_overrides(get_recipe(arm.recipe), arm.overrides)
    return dataclasses.replace(
        base, epochs=epochs, checkpoint_every=epochs, texture_epochs=textured
    )


def recipe_fields(settings: Recipe) -> dict[str, Any]:
    """A recipe as JSON has it."""
    found: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(settings)))
    return found
