"""How many small defects of the code its tests notice: the share of a sample of mutants killed.

The sample is fixed and of `EACH` mutants an area, less those that are equivalent, which
mutants/equivalent.json lists with the reason. cosmic-ray makes the mutants; that each is tried by
the tests of its own module, in a copy of the tree, is ours, as its own sessions know one command
for all modules and mutate the checkout. A measurement that was stopped goes on where it was.
"""

import sys
from collections.abc import Iterator
from typing import Any

from tests.benchmarks.figure import Figure
from tests.benchmarks.measuring import ROOT
from tests.benchmarks.mutants.making import sample_mutants
from tests.benchmarks.mutants.modules import AREAS
from tests.benchmarks.mutants.mutant import Mutant
from tests.benchmarks.mutants.trying import MutantTrials, copied_tree, import_packages

EACH = 26
_survivors: list[Mutant] = []


def figures() -> Iterator[Figure]:
    """The share that is killed of each area and of all, and how many were tried."""
    _survivors.clear()
    total = 0
    import_packages()
    with copied_tree() as tree:
        trials = MutantTrials(tree)
        for area, tests in AREAS.items():
            tried = sample_mutants(ROOT, tests, count=EACH)
            by_tests: dict[tuple[str, ...], list[Mutant]] = {}
            for one in tried:
                by_tests.setdefault(tests[one.module], []).append(one)
            alive = [one for run, some in by_tests.items() for one in trials.survivors(some, run)]
            for one in alive:
                print(f"survived: {told(one)}", file=sys.stderr)
            _survivors.extend(alive)
            total += len(tried)
            yield Figure(
                f"tests.mutants_killed_{area}", 1 - len(alive) / len(tried), f"of {len(tried)}"
            )
    yield Figure("tests.mutants_killed", 1 - len(_survivors) / total, f"of {total}")


def told(mutant: Mutant) -> str:
    """A mutant in a line."""
    return f"{mutant.module}:{mutant.line}  {mutant.before}  ->  {mutant.after}"


def circumstances() -> dict[str, Any]:
    """As of other groups, with the mutants that survived."""
    from tests.benchmarks.__main__ import circumstances as usual

    return {**usual(), "survived": [told(one) for one in _survivors]}
