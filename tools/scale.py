"""What workers, GPUs or nodes do with large work: computed from what was measured on one thread.

Processors are taken to scale with their number. Of a network only what gradients need is counted:
in a ring of n nodes each sends and receives 2 (n - 1) / n of them in every step.
"""

from collections.abc import Mapping

from tools.costs import TRAINING_IMAGES, preset_costs

CORES, NODES = 64, 4
GALLERY = 1_000_000
BATCH = 64  # images of a step of the published recipes
GRADIENT_BYTES = 136e6  # of the published network: 34.0 million parameters in float32
NETWORK = 10e9 / 8  # bytes a second, of 10 Gbit/s
_HEAD = f"| work | core-hours | one machine of {CORES} cores | {NODES} of them | spread by |"


def scale_table(training: Mapping[str, float], nodes: Mapping[str, float], where: str) -> str:
    """Markdown: one row per kind of work, and the source of the figures.

    Args:
        training: figures of that group, by their names.
        nodes: the same; empty where they were not measured.
        where: on what these were measured.
    """
    rows = [_HEAD, "|---|---|---|---|---|"]
    if nodes:
        images = TRAINING_IMAGES["msmt17"]
        rows.append(
            _row(
                f"textures of the {images:,} training images of MSMT17",
                images * nodes["nodes.texture_cpu_seconds"] / 3600,
                "texture workers",
            )
        )
        rows.append(
            _row(
                f"features of a gallery of {GALLERY:,} images",
                GALLERY * nodes["nodes.embed_cpu_seconds"] / 3600,
                "feature workers",
            )
        )
    for cost in preset_costs(training):
        steps = cost.images * cost.epochs / BATCH
        waiting = steps * 2 * (NODES - 1) / NODES * GRADIENT_BYTES / NETWORK / 3600
        rows.append(_row(f"SAN by preset `{cost.preset}`", cost.san, "nodes", waiting=waiting))
    told = f"images: {where}" if nodes else "the work of workers is not measured yet"
    computed = (
        "Computed, not measured, from the CPU time of one step and of one image on one thread"
        f" ({told}). Of several nodes the time that the gradients of {GRADIENT_BYTES / 1e6:.0f} MB"
        " need at 10 Gbit/s in every step is added."
    )
    return "\n".join([*rows, "", computed])


def _row(work: str, core_hours: float, spread_by: str, *, waiting: float = 0.0) -> str:
    """A row of the table. waiting: hours for the network, of several machines."""
    alone = core_hours / CORES
    several = alone / NODES + waiting
    return f"| {work} | {_number(core_hours)} | {_time(alone)} | {_time(several)} | {spread_by} |"


def _time(hours: float) -> str:
    if hours >= 1:
        return f"{_number(hours)} h"
    return "< 1 min" if hours < 1 / 60 else f"{_number(60 * hours)} min"


def _number(value: float) -> str:
    """Whole from 10 on, below with a decimal."""
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"
