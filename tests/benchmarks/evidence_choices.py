"""How weights and variants of `synthetic` were chosen: by people who are neither trained on nor
reported on.

`make reproduce ARGS=--choices` trains every variant at `hard` and scores it on the validation
people; rows are kept in tests/results/evidence_choices.json, and the table that
san_core/README.md shows is made from them.
"""

from collections.abc import Iterator
from statistics import fmean

from components.outputs import write_file
from tests.benchmarks import evidence
from tests.benchmarks.evidence_arms import ARMS, Arm, Job
from tests.benchmarks.evidence_queue import Queue
from tests.benchmarks.evidence_rows import Kept, difference, paired

CHOICES = evidence.RESULTS / "evidence_choices.json"
TABLE = evidence.RESULTS / "evidence_choices.md"
EPOCHS, SEEDS = 16, 2


def _from_chance(words: str, overrides: str, targets: str = "pseudo") -> Arm:
    return Arm(words, "synthetic", f"init=none {overrides}", targets)


def _from_generator(words: str, overrides: str, targets: str = "pseudo") -> Arm:
    return Arm(f"{words}, starts as SAN-PG", "synthetic", overrides, targets)


VARIANTS = {
    "baseline": ARMS["baseline"],
    "baseline_pg": ARMS["baseline_pg"],
    "rec": _from_chance("+ L_Rec (5)", ""),
    "rec_pg": _from_generator("+ L_Rec (5)", ""),
    "published": _from_chance("+ L_Rec (1) + L_TR (1), the published weights", "w_rec=1 w_tr=1"),
    "published_pg": _from_generator("+ L_Rec (1) + L_TR (1)", "w_rec=1 w_tr=1"),
    "rec_1": _from_chance("+ L_Rec (1)", "w_rec=1"),
    "rec_1_pg": _from_generator("+ L_Rec (1)", "w_rec=1"),
    "rec_15": _from_chance("+ L_Rec (15)", "w_rec=15"),
    "tr": _from_chance("+ L_Rec (5) + L_TR (0.1)", "w_tr=0.1"),
    "decoder_lr": _from_chance("+ L_Rec (5), a third of the decoder's rate", "decoder_lr=1e-3"),
    "true": _from_chance("+ L_Rec (5), true textures", "", "true"),
    "light": _from_chance("+ L_Rec (5), light plan", "decoder_plan=light"),
    "texels": _from_chance(
        "+ L_Rec (5), light plan, 16 texels", "decoder_plan=light texture_size=16"
    ),
    "skips": _from_chance("+ L_Rec (5), skips past the embedding", "skips=true"),
    "pool": _from_chance("+ L_Rec (5), pooled feature", "embedding=pool"),
    "baseline_pool": Arm(
        "baseline, pooled feature", "synthetic-baseline", "embedding=pool", cost=1
    ),
}


def jobs() -> Iterator[Job]:
    """Every variant on the same people, seed by seed."""
    for seed in range(1, SEEDS + 1):
        for name in VARIANTS:
            yield Job(name, "hard", evidence.EQUAL_EPOCHS, EPOCHS, seed, "val")


def measure(queue: Queue) -> None:
    """Run what is missing and renew the table."""
    queue.run(jobs(), VARIANTS)
    write_file(TABLE, table(queue.kept) + "\n")


def table(kept: Kept) -> str:
    """Markdown: every variant beside the baseline of the same people."""
    lines = [f"| variant, {EPOCHS} epochs | seeds | mAP | gain over the baseline | CPU |"]
    lines.append("|---|---|---|---|---|")
    for name, arm in VARIANTS.items():
        rows = kept.find(arm=name)
        if not rows:
            continue
        gains = paired(rows, kept.find(arm="baseline"))
        gain = f"{difference(gains).mean:+.1f}" if gains and name != "baseline" else "–"
        mean, seconds = (fmean(row[each] for row in rows) for each in ("mAP", "cpu_seconds"))
        lines.append(f"| {arm.words} | {len(rows)} | {mean:.1%} | {gain} | {seconds:.0f} s |")
    return "\n".join(lines)
