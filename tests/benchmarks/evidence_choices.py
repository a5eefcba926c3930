"""How weights and variants of `synthetic` were chosen: by people who are neither trained on nor
reported on.

`python -m tests.benchmarks.evidence_choices NAME --overrides "w_rec=5"` trains a variant at `hard`
and scores it on the validation people; rows are kept in tests/results/evidence_choices.json, and
the table that san_core/README.md shows is made from them.
"""

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from components.code import ROOT
from components.outputs import write_file
from tests.benchmarks.evidence import RESULTS
from tests.benchmarks.evidence_arms import Arm, Job, default_cache, run
from tests.benchmarks.evidence_code import fingerprint
from tests.benchmarks.evidence_data import TARGETS
from tests.benchmarks.evidence_rows import Kept, difference, paired, told

CHOICES = RESULTS / "evidence_choices.json"
TABLE = RESULTS / "evidence_choices.md"
DIFFICULTY = "hard"
REFERENCE = "baseline"


def main(words: Sequence[str] | None = None) -> int:
    """Train and score a variant, a row a seed; what is there already is left."""
    asked = _parser().parse_args(words)
    kept = Kept(asked.results)
    arm = Arm(asked.name, asked.recipe, asked.overrides, asked.targets)
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True
    ).stdout.strip()
    for seed in asked.seeds:
        job = Job(asked.name, DIFFICULTY, f"{asked.epochs} epochs", asked.epochs, seed, "val")
        if kept.find(arm=asked.name, budget=job.budget, seed=seed):
            continue
        row = run(job, arm, asked.cache, code=fingerprint(), commit=commit)
        kept = Kept(asked.results)  # another process may have added rows
        kept.add(row)
        print(
            f"{told(row)}: mAP {row['mAP']:.1%}, rank-1 {row['rank1']:.1%}, "
            f"{row['cpu_seconds']:.0f} CPU seconds, {row['losses']}",
            flush=True,
        )
    if asked.results == CHOICES:
        write_file(TABLE, table(kept) + "\n")
    return 0


def table(kept: Kept) -> str:
    """Markdown: every variant beside the baseline that was trained as long on the same people."""
    lines = ["| variant | epochs | seeds | mAP | gain over the baseline | CPU |"]
    lines.append("|---|---|---|---|---|---|")
    for arm, epochs in dict.fromkeys((row["arm"], row["epochs"]) for row in kept.rows):
        rows = kept.find(arm=arm, epochs=epochs)
        gains = paired(rows, kept.find(arm=REFERENCE, epochs=epochs))
        is_compared = gains and arm != REFERENCE
        gain = f"{difference(gains).mean:+.1f}" if is_compared else "–"
        mean, seconds = (fmean(row[name] for row in rows) for name in ("mAP", "cpu_seconds"))
        lines.append(f"| {arm} | {epochs} | {len(rows)} | {mean:.1%} | {gain} | {seconds:.0f} s |")
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.evidence_choices")
    parser.description = __doc__
    parser.add_argument("name", help="what the variant is called")
    parser.add_argument("--recipe", default="synthetic")
    parser.add_argument("--overrides", default="", help='fields to replace, as "w_rec=5 lr=1e-3"')
    parser.add_argument("--targets", default="none", choices=TARGETS)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--cache", type=Path, default=default_cache())
    parser.add_argument("--results", type=Path, default=CHOICES)
    return parser


if __name__ == "__main__":
    sys.exit(main())
