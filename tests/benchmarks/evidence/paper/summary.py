"""The lines of the README: what the rows come to for somebody who must choose.

Every statement is made by the interval that stands beside it. What has no rows is said to be
unmeasured.
"""

from tests.benchmarks.evidence import figures, plan
from tests.benchmarks.evidence.arms import ARMS, BASELINE
from tests.benchmarks.evidence.data import ELSEWHERE
from tests.benchmarks.evidence.figures import mean_seconds, rows_of
from tests.benchmarks.evidence.paper.table import UNMEASURED, points
from tests.benchmarks.evidence.plan import EQUAL_EPOCHS, HARD, NORMAL
from tests.benchmarks.evidence.rows import Difference, RowsFile
from tests.benchmarks.evidence.starts import OWN

SUMMARY_FILE = figures.RESULTS / "evidence_summary.md"


def summary_text(kept: RowsFile, large: RowsFile) -> str:
    """Markdown: five numbered lines."""
    if not rows_of(kept, BASELINE):
        return UNMEASURED
    lines = (
        _losses_line(kept),
        _starts_line(kept),
        _choice_line(kept),
        _reach_line(kept),
        _size_line(large),
    )
    return "\n".join(f"{n}. {line}" for n, line in enumerate(lines, 1))


def _losses_line(kept: RowsFile) -> str:
    """Texture losses against the same start without them, in equal time."""
    seconds = mean_seconds(rows_of(kept, BASELINE))
    from_shipped, seldom = (
        effect(figures.loss_gain(kept, arm)) for arm in ("full_shipped", "every_shipped")
    )
    return (
        f"**Texture losses in equal CPU time** ({seconds:.0f} s), against the baseline from random "
        f"weights: full SAN {effect(figures.gain(kept, 'full'))}; with textures of other people "
        f"{effect(figures.gain(kept, 'shuffled'))}, so that its own bring "
        f"{effect(figures.gain(kept, 'full', over='shuffled'))}; with true textures, whose making "
        f"is not counted, {effect(figures.gain(kept, 'oracle'))}. From the shipped encoder, "
        f"against the baseline from the same encoder: {from_shipped}, with losses in every fourth "
        f"batch {seldom}. At {plan.CONTINUED_EPOCHS} epochs each, whatever their time, full SAN "
        f"has {effect(figures.gain(kept, 'full', EQUAL_EPOCHS))}."
    )


def _starts_line(kept: RowsFile) -> str:
    """What a network is worth as a start of the baseline."""
    rival, against_shipped = (
        effect(figures.gain(kept, "baseline_identity", over=arm))
        for arm in ("baseline_pg", "baseline_shipped")
    )
    return (
        "**The baseline from a trained encoder**: from the shipped generator's "
        f"{effect(figures.gain(kept, 'baseline_shipped'))}; from SAN-PG's "
        f"{effect(figures.gain(kept, 'baseline_pg'))}, with SAN-PG's training counted "
        f"{effect(figures.counted_gain(kept, 'baseline_pg', 1))}, with a quarter of it counted "
        f"{effect(figures.counted_gain(kept, 'baseline_pg', 4))}. The control, an encoder trained "
        "without textures to recognise the people in SAN-PG's pictures, for as long: "
        f"{effect(figures.gain(kept, 'baseline_identity'))}, which is {rival} over the start from "
        f"SAN-PG and {against_shipped} over the shipped encoder."
    )


def _choice_line(kept: RowsFile) -> str:
    """What validation people choose, what it gains, and what to do."""
    name = next(iter(figures.best_arms(kept, 1)), None)
    if name is None:
        return "**To choose**: not measured."
    found = figures.fair_gain(kept, name)
    counted = " with SAN-PG's training counted" if ARMS[name].start == OWN else ""
    advice = "Use it" if pays(found) else "Train the baseline"
    if pays(found) and name == "baseline_shipped":
        advice += " (graph `pretrained`)"
    return (
        f"**To choose**: of all arms with texture losses, or with a generator's encoder as start, "
        f"validation people choose *{ARMS[name].words}*. "
        f"On test people it has {effect(found)}{counted}. {advice}. {_advice_on_losses(kept)} "
        "On images unlike these, compare it with a start from random weights: nobody has measured "
        "it there."
    )


def _advice_on_losses(kept: RowsFile) -> str:
    """When to leave the losses off."""
    alone = figures.gain(kept, "full")
    started = figures.gain(kept, "full_shipped", over="baseline_shipped")
    if alone is None or started is None:
        return "Whether to leave texture losses on is not measured."
    if pays(alone) and pays(started):
        return "Leave texture losses on."
    if pays(alone) or pays(started):
        return f"Leave texture losses on {'without' if pays(alone) else 'with'} a start, else off."
    return "Leave texture losses off where CPU time is what you are short of."


def _reach_line(kept: RowsFile) -> str:
    """People and cameras that are unlike those of training."""
    seeds = len(rows_of(kept, BASELINE, difficulty=NORMAL))
    told = []
    for name, test in (
        (f"new people of `{NORMAL}`", "test"),
        (f"`{HARD}`", HARD),
        ("other clothes, places and cameras", ELSEWHERE),
    ):
        full, start, control = (
            effect(figures.gain(kept, arm, difficulty=NORMAL, test=test))
            for arm in ("full", "baseline_shipped", "baseline_identity")
        )
        told.append(f"{name}: full SAN {full}, the shipped encoder {start}, the control {control}")
    return f"**Trained on `{NORMAL}`** ({seeds} seeds), judged on {'; '.join(told)}."


def _size_line(large: RowsFile) -> str:
    full, start = (figures.gain(large, arm) for arm in ("full", "baseline_pg"))
    if full is None and start is None:
        return "**Larger networks and photographs**: nobody has measured them."
    return (
        f"**ResNet-18 at 128x64**: full SAN {effect(full)}, the baseline from SAN-PG "
        f"{effect(start)}. Nobody has measured photographs."
    )


def pays(found: Difference | None) -> bool:
    """Whether a gain was shown."""
    return found is not None and found.half is not None and found.mean > found.half


def effect(found: Difference | None) -> str:
    """A difference, and whether it was shown at all."""
    if found is None:
        return "(not measured)"
    if found.half is None:
        return f"{points(found)} (one seed)"
    is_shown = abs(found.mean) > found.half
    return points(found) if is_shown else f"{points(found)} (no difference shown)"
