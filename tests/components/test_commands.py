"""Common behaviour of all commands beside the steps: Ctrl-C, and a closed output."""

import os
import signal
import subprocess
import sys
from functools import partial

import pytest

from components import __main__ as components
from components.command.code import ROOT
from tests.components.experiments.made_runs import make_run

COMMANDS = ("imageset", "recipes", "search", "export", "compare", "prune")


@pytest.mark.parametrize("name", COMMANDS)
def test_ctrl_c_ends_a_command_in_one_line(name, monkeypatch, capsys):
    def interrupted(_words):
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setitem(components.COMMANDS, name, interrupted)
    assert components.main([name]) == 130
    assert capsys.readouterr().err == f"{name}: stopped by Ctrl-C\n"


def run(command, **options):
    words = [sys.executable, *command]
    return subprocess.run(
        words, cwd=ROOT, stderr=subprocess.PIPE, text=True, timeout=200, check=False, **options
    )


@pytest.mark.parametrize(
    "command",
    [
        ["-m", "components", "--help"],
        ["-m", "components", "recipes"],
        ["-m", "components", "prune", "--runs", "runs-that-nobody-has"],
        ["pipeline.py", "runs", "list", "--runs", "{runs}"],
    ],
)
def test_commands_are_silent_where_nobody_reads_them_on(command, tmp_path):
    make_run(tmp_path / "a", {"mAP": 0.5})
    reading, writing = os.pipe()
    os.close(reading)
    done = run([word.format(runs=tmp_path) for word in command], stdout=writing)
    os.close(writing)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, "")


def test_an_output_without_disk_space_is_one_line():
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = run(["-m", "components", "recipes"], stdout=full)
    assert done.returncode == 1
    assert done.stderr == "recipes: [Errno 28] No space left on device\n"


CLOSING = """
import sys
from components.process.messages import open_standard_streams
open_standard_streams()
with open(sys.argv[1], "w") as file:
    file.write(f"{file.fileno()}")
sys.stdout.write("said")
print("warned", file=sys.stderr)
"""


@pytest.mark.parametrize("closed", [(1,), (2,), (0, 1, 2)])
def test_a_closed_stream_gives_its_number_to_no_file(tmp_path, closed):
    close = partial(list, map(os.close, closed))
    done = run(["-c", CLOSING, str(tmp_path / "made")], preexec_fn=close, stdout=None)
    assert done.returncode == 0
    assert int((tmp_path / "made").read_text()) > 2
