"""`python -m tests.steps.together.in_float64 STEP ...`: a step that computes in float64.

Adam's steps are of one size however small a gradient is, so in float32 the rounding of several
processes' sums shows after a few of them.
"""

import sys

import torch

from components.__main__ import main

if __name__ == "__main__":
    torch.set_default_dtype(torch.float64)
    sys.exit(main(sys.argv[1:]))
