"""Every library of a step takes as many threads as the step may use, whoever starts it."""

import json
import os
import subprocess
import sys

import pytest

from components.command.code import ROOT
from components.process import compute_threads
from components.process.compute_threads import VARIABLES, limit_threads


@pytest.fixture
def threads_of(monkeypatch):
    """The threads that each library is given in an environment, on a machine of eight cores."""
    monkeypatch.setattr(compute_threads, "core_count", lambda: 8)

    def limited(processes: int = 1, **environment: str) -> dict[str, str]:
        monkeypatch.setenv("WORLD_SIZE", str(processes))
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
        limit_threads(environment)
        return environment

    return limited


def test_all_libraries_take_the_cores_there_are(threads_of):
    assert [threads_of()[name] for name in VARIABLES] == ["8", "8", "8"]


def test_processes_of_one_machine_divide_its_cores(threads_of):
    assert threads_of(3)["OMP_NUM_THREADS"] == "2"
    assert threads_of(16)["OMP_NUM_THREADS"] == "1"


def test_one_thread_that_torchrun_set_is_no_choice_of_a_person(threads_of):
    assert threads_of(2, OMP_NUM_THREADS="1")["OMP_NUM_THREADS"] == "4"
    assert threads_of(1, OMP_NUM_THREADS="1")["OMP_NUM_THREADS"] == "1"
    assert threads_of(2, OMP_NUM_THREADS="2")["OMP_NUM_THREADS"] == "2"
    both = threads_of(2, OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")
    assert both["OMP_NUM_THREADS"] == "1"


@pytest.mark.parametrize(
    "given", [{"OMP_NUM_THREADS": "3"}, {"OMP_NUM_THREADS": "3,2"}, {"MKL_NUM_THREADS": "3"}]
)
def test_number_that_a_person_sets_is_that_of_all_libraries(threads_of, given):
    assert [threads_of(**given)[name] for name in VARIABLES] == ["3", "3", "3"]


@pytest.mark.parametrize("text", ["two", "0", "-1"])
def test_number_of_threads_that_is_none_is_refused(threads_of, text):
    with pytest.raises(ValueError, match=f"OMP_NUM_THREADS is '{text}'; it must be a number"):
        threads_of(OMP_NUM_THREADS=text)


def test_threads_that_wait_sleep_soon_unless_a_person_says_otherwise(threads_of):
    assert threads_of()["GOMP_SPINCOUNT"] == compute_threads.SPIN_VARIABLES["GOMP_SPINCOUNT"]
    assert threads_of(GOMP_SPINCOUNT="5")["GOMP_SPINCOUNT"] == "5"
    assert "GOMP_SPINCOUNT" not in threads_of(OMP_WAIT_POLICY="active")


PROBE = """
import json, os, runpy, sys
import components.command.run as run
def probe(step, words, *, company):
    import torch
    print(json.dumps([os.environ["OMP_NUM_THREADS"], torch.get_num_threads()]))
    return 0
run.run_step = probe
sys.argv[1:] = ["make_pit"]
runpy.run_module("components", run_name="__main__")
"""


def run_probe(**environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {k: v for k, v in os.environ.items() if k not in VARIABLES}
    return subprocess.run(
        [sys.executable, "-c", PROBE],
        cwd=ROOT,
        env={**inherited, **environment},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("processes", [1, 64])
def test_torch_takes_the_threads_that_the_command_says(processes):
    done = run_probe(WORLD_SIZE=str(processes), LOCAL_WORLD_SIZE=str(processes))
    said, taken = json.loads(done.stdout)
    expected = 1 if processes == 64 else len(os.sched_getaffinity(0))
    assert (int(said), taken) == (expected, expected)


def test_command_says_what_is_wrong_with_a_number_of_threads():
    done = run_probe(OMP_NUM_THREADS="all")
    assert done.returncode == 1
    assert done.stderr == (
        "components: OMP_NUM_THREADS is 'all'; it must be a number of threads, such as 2\n"
    )
