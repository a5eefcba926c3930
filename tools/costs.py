"""What the presets of the published data sets cost: computed from measured steps, not measured.

A step of the paper's network was measured on one thread (`make bench GROUP=training`). An epoch has
as many such steps as the data set has training images over the images of a measured step, and
processors are taken to scale with their number.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from components.launch.presets import PRESETS
from san_core.data.readers import cuhk03, market1501, msmt17
from san_core.recipes import RECIPES
from san_core.synthesis.spec import PitSpec, held_out_identities

IMAGES_A_STEP = 8  # of the steps that were measured
PRICE = 0.04  # USD an hour and core, assumed; clouds ask for 0.03 to 0.06
TRAINING_IMAGES = {
    "cuhk03": cuhk03.PUBLISHED["labeled"]["train"].images,
    "market1501": market1501.PUBLISHED["train"].images,
    "msmt17": msmt17.PUBLISHED["train"].images,
}
HEAD = (
    "| preset | training images x epochs | SAN-PG, core-hours | SAN, core-hours | both, core-hours "
    "| both at {price} USD | baseline, core-hours | decoded images on disk |"
)


class Cost(NamedTuple):
    """Core-hours of the parts of a preset, and gigabytes that training keeps on disk."""

    preset: str
    images: int
    epochs: int
    generator: float
    san: float
    baseline: float
    disk: float


def preset_costs(seconds: Mapping[str, float]) -> Iterator[Cost]:
    """The costs of SAN on each published data set.

    seconds: CPU seconds of a step by the figures' names, of the groups training.
    """
    joint = seconds["training.joint_step_cpu_seconds"] / IMAGES_A_STEP / 3600
    plain = seconds["training.baseline_step_cpu_seconds"] / IMAGES_A_STEP / 3600
    pairs = _training_pairs()
    for preset, images in TRAINING_IMAGES.items():
        values = PRESETS[preset].values
        san, generator = RECIPES[values["san_recipe"]], RECIPES[values["pg_recipe"]]
        shown = images * san.epochs
        bytes_kept = 3 * images * (san.image_height * san.image_width + san.texture_size**2)
        yield Cost(
            preset=preset,
            images=images,
            epochs=san.epochs,
            generator=pairs * generator.epochs * joint,
            san=shown * joint,
            baseline=shown * plain,
            disk=bytes_kept / 1e9,
        )


def _training_pairs() -> int:
    """Images of PIT that are trained on, at the defaults of make_pit."""
    spec = PitSpec(seed=0)
    held_out = held_out_identities(spec.seed, spec.identities, spec.held_out)
    return (spec.identities - len(held_out)) * spec.meshes


def costs_table(seconds: Mapping[str, float], where: str) -> str:
    """Markdown: one row per preset, and the source of the figures."""
    rows = [HEAD.format(price=f"{PRICE:.2f}"), "|---|---|---|---|---|---|---|---|"]
    for cost in preset_costs(seconds):
        total = cost.generator + cost.san
        rows.append(
            f"| `{cost.preset}` | {cost.images:,} x {cost.epochs} | {cost.generator:,.0f} | "
            f"{cost.san:,.0f} | {total:,.0f} | {total * PRICE:,.0f} USD | {cost.baseline:,.0f} | "
            f"{cost.disk:.1f} GB |"
        )
    joint, plain, memory = (
        seconds[f"training.{name}"]
        for name in ("joint_step_cpu_seconds", "baseline_step_cpu_seconds", "joint_step_peak_mib")
    )
    computed = (
        f"Core-hours are computed, not measured. One step of {IMAGES_A_STEP} images ({where}) took "
        f"{joint:.2f} CPU seconds with textures, {plain:.2f} without, and {memory:,.0f} MiB of "
        "memory at its peak."
    )
    return "\n".join([*rows, "", computed])
