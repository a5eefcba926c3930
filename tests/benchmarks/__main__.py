"""`python -m tests.benchmarks [GROUP ...]`: measure, print and keep figures.

Every figure is printed as `figure NAME VALUE UNIT`. A group is a module of
`groups`, or figures.py of evidence/, gpu/ or nodes/, with a function `figures` that yields them.
"""

import argparse
import datetime
import importlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.benchmarks.measuring import commit, machine_facts

EVIDENCE = "evidence"
TESTS = "tests"  # the share of mutants that they kill
GPU = "gpu"  # measured by `make bench-gpu`
NODES = "nodes"  # several of them, which only root may make
GROUPS = (
    *("training", "sampler", "textures", "ranking", "search", "datasets", "synthesis", "generator"),
    "pipeline",
)
# Measured only when named: long training, many runs of tests, and what `make reproduce` recorded
LONG_GROUPS = ("teaching", "baselines", "encoders", NODES, TESTS, EVIDENCE)
RESULTS = Path(__file__).parents[1] / "results"


def main(words: Sequence[str] | None = None) -> None:
    """Measure the groups that the command line names, or all that take a short time."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=", ".join(GROUPS + LONG_GROUPS))
    chosen = parser.parse_args(words).groups or GROUPS
    if unknown := set(chosen) - set(GROUPS + LONG_GROUPS):
        sys.exit(f"no group {min(unknown)!r}; there are {', '.join(GROUPS + LONG_GROUPS)}")
    if (at := commit()).endswith("-dirty"):
        sys.stderr.write(
            f"warning: something is not committed, so the figures will be recorded as of {at}\n"
        )
    for name in chosen:
        measure_group(name)


def measure_group(group: str) -> None:
    """Measure one group, print its figures and write its results file."""
    place = f"{group}.figures" if group in (EVIDENCE, GPU, NODES) else f"groups.{group}"
    module = importlib.import_module(f"tests.benchmarks.{place}")
    found = {}
    for figure in module.figures():
        found[figure.name] = {"value": figure.value, "unit": figure.unit}
        print(f"figure {figure.name} {figure.value:.6g} {figure.unit}", flush=True)
    measured = getattr(module, "circumstances", circumstances)()
    document = {"group": group, **measured, "figures": found}
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{group}.json").write_text(json.dumps(document, indent=1) + "\n")


def circumstances() -> dict[str, Any]:
    """What the figures were measured on and with."""
    return {
        "machine": machine_facts(),
        "commit": commit(),
        "date": datetime.date.today().isoformat(),
    }


if __name__ == "__main__":
    main()
