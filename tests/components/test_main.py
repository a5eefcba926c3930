"""Checks of `python -m components` before a step starts."""

import os
import subprocess
import sys

from components.command.code import ROOT

PROBE = """
import runpy, sys
import components.command.run as run
def probe(step, words, *, company):
    import matplotlib
    print(matplotlib.get_backend())
    return 0
run.run_step = probe
sys.argv[1:] = ["evaluate"]
runpy.run_module("components", run_name="__main__")
"""


def test_backend_that_a_notebook_has_set_does_not_count():
    done = subprocess.run(
        [sys.executable, "-c", PROBE],
        cwd=ROOT,
        env={**os.environ, "MPLBACKEND": "of-a-notebook"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout.lower()) == (0, "agg\n"), done.stderr
