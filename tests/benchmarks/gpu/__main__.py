"""`make bench-gpu`: the tests that need a GPU and the figures of one, in under eight minutes.

On a machine without a GPU it says so and measures nothing; what was measured elsewhere stays.
"""

import subprocess
import sys

import torch

from tests.benchmarks.__main__ import GPU, measure_group
from tests.benchmarks.measuring import ROOT

TEST_SECONDS = 120.0  # of the eight minutes


def main() -> int:
    """0 if the tests passed or there is no GPU, else 1; figures are measured in either case."""
    if not torch.cuda.is_available():
        print(f"torch {torch.__version__} finds no GPU on this machine: 0 figures")
        return 0
    passed = tests_pass()
    measure_group(GPU)
    return 0 if passed else 1


def tests_pass() -> bool:
    """Whether the tests marked gpu pass, in time."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "tests/san_core"]
    try:
        return subprocess.run(command, cwd=ROOT, timeout=TEST_SECONDS).returncode == 0
    except subprocess.TimeoutExpired:
        print(f"the tests are not done after {TEST_SECONDS:.0f} s", flush=True)
        return False


if __name__ == "__main__":
    sys.exit(main())
