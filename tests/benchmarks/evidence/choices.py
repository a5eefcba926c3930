"""How weights and variants of `synthetic` were chosen: by people who are neither trained on nor
reported on.

`make reproduce ARGS=--choices` trains every variant at `hard` and scores it on the validation
people; rows are kept in tests/results/evidence_choices.json, and the table that
san_core/README.md shows is made from them.
"""

from collections.abc import Iterator

from components.storage.outputs import write_file
from tests.benchmarks.evidence import figures
from tests.benchmarks.evidence.arms import ARMS, Arm, Job
from tests.benchmarks.evidence.plan import EQUAL_EPOCHS
from tests.benchmarks.evidence.queue import JobQueue
from tests.benchmarks.evidence.rows import (
    RowsFile,
    mean_difference,
    mean_score,
    paired_differences,
)
from tests.benchmarks.evidence.starts import OWN

CHOICES_ROWS = figures.RESULTS / "evidence_choices.json"
CHOICES_TABLE = figures.RESULTS / "evidence_choices.md"
CHOICES_EPOCHS = 16
SEEDS = 2  # of what was most likely to be chosen; the rest got a first look, of one seed


def _from_chance(
    words: str, overrides: str = "", *, w_tr: float = 0.0, targets: str = "pseudo", seeds: int = 1
) -> Arm:
    overrides = f"{_in_every_batch('none', w_tr)} {overrides}".strip()
    return Arm(words, "synthetic", overrides, targets, seeds=seeds)


def _from_generator(words: str, overrides: str = "", *, w_tr: float = 0.0) -> Arm:
    words = f"{words}, starts as SAN-PG"
    overrides = f"{_in_every_batch('generator', w_tr)} {overrides}".strip()
    return Arm(words, "synthetic", overrides, "pseudo", OWN, seeds=SEEDS)


def _in_every_batch(init: str, w_tr: float) -> str:
    return f"init={init} w_tr={w_tr:g} texture_every=1"


VARIANTS = {
    "baseline": ARMS["baseline"]._replace(seeds=SEEDS),
    "baseline_pg": ARMS["baseline_pg"]._replace(seeds=SEEDS),
    "rec": _from_chance("+ L_Rec (5)", seeds=SEEDS),
    "rec_pg": _from_generator("+ L_Rec (5)"),
    "rec_1": _from_chance("+ L_Rec (1)", "w_rec=1"),
    "rec_1_pg": _from_generator("+ L_Rec (1)", "w_rec=1"),
    "rec_15": _from_chance("+ L_Rec (15)", "w_rec=15"),
    "published": _from_chance("+ L_Rec (1) + L_TR (1)", "w_rec=1", w_tr=1, seeds=SEEDS),
    "published_pg": _from_generator("+ L_Rec (1) + L_TR (1)", "w_rec=1", w_tr=1),
    "tr": _from_chance("+ L_Rec (5) + L_TR (0.1)", w_tr=0.1),
    "decoder_lr": _from_chance("+ L_Rec (5), decoder at a third of the rate", "decoder_lr=1e-3"),
    "true": _from_chance("+ L_Rec (5), true textures", targets="true"),
    "light": _from_chance("+ L_Rec (5), light plan", "decoder_plan=light"),
    "texels": _from_chance(
        "+ L_Rec (5), light plan, 16 texels", "decoder_plan=light texture_size=16"
    ),
    "skips": _from_chance("+ L_Rec (5), skips past the embedding", "skips=true"),
    "pool": _from_chance("+ L_Rec (5), pooled feature", "embedding=pool"),
    "baseline_pool": Arm(
        "baseline, pooled feature", "synthetic-baseline", "embedding=pool", seeds=1
    ),
}


def variant_jobs() -> Iterator[Job]:
    """Every variant on the same people, seed by seed."""
    for seed in range(1, SEEDS + 1):
        for name, arm in VARIANTS.items():
            if seed <= arm.seeds:
                yield Job(name, "hard", EQUAL_EPOCHS, CHOICES_EPOCHS, seed, tests=("val",))


def measure_variants(queue: JobQueue) -> None:
    """Run what is missing and renew the table."""
    queue.run_jobs(variant_jobs(), VARIANTS)
    write_file(CHOICES_TABLE, choices_table(queue.kept) + "\n")


def choices_table(kept: RowsFile) -> str:
    """Markdown: every variant beside the baseline of the same people."""
    lines = [f"| variant, {CHOICES_EPOCHS} epochs | seeds | mAP | gain over the baseline |"]
    lines.append("|---|---|---|---|")
    for name, arm in VARIANTS.items():
        rows = kept.find(arm=name)
        if not rows:
            continue
        gains = paired_differences(rows, kept.find(arm="baseline"), test="val")
        gain = f"{mean_difference(gains).mean:+.1f}" if gains and name != "baseline" else "–"
        mean = mean_score(rows, test="val")
        lines.append(f"| {arm.words} | {len(rows)} | {mean:.1%} | {gain} |")
    return "\n".join(lines)
