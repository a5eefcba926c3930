"""Ctrl-C in the middle of an import, which takes longer than some people wait."""

import os
import subprocess
import sys

import pytest

from components.command.code import ROOT

# Ctrl-C at the moment when a module is looked for.
INTERRUPTING = """
import os, signal, sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == {name!r}:
            signal.signal(signal.SIGINT, signal.getsignal(signal.SIGINT) or signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder())
"""


@pytest.mark.parametrize(
    ("command", "module", "who"),
    [
        (["-m", "components", "evaluate", "--help"], "components.evaluate", "components"),
        (["pipeline.py", "run", "--preset", "demo"], "kfp", "pipeline.py"),
    ],
)
def test_ctrl_c_in_the_middle_of_an_import_ends_in_one_line(tmp_path, command, module, who):
    (tmp_path / "sitecustomize.py").write_text(INTERRUPTING.format(name=module))
    done = subprocess.run(
        [sys.executable, *command],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr == f"{who}: stopped by Ctrl-C\n"
