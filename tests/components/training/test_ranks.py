"""Torchrun's processes as steps see them; how they train together is in test_two_processes."""

import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from components.command.code import ROOT
from components.process.torchrun import (
    check_may_share_work,
    is_first_rank,
    local_process_count,
)
from components.training import ranks


def _torchrun(monkeypatch, **words):
    for name, value in words.items():
        monkeypatch.setenv(name, value)


def test_process_alone_is_the_first_and_makes_everything(monkeypatch, tmp_path):
    for name in ("LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert is_first_rank()
    with ranks.process_group() as found, found.shared_scratch_folder(tmp_path / "model") as room:
        assert found.make_on_first(lambda: 5) == 5
        assert room.is_dir()
    assert not room.exists()


def test_second_process_is_not_the_first(monkeypatch):
    _torchrun(monkeypatch, LOCAL_RANK="1", WORLD_SIZE="2")
    assert not is_first_rank()


@pytest.mark.parametrize("world", [None, "", "1"])
def test_variables_that_were_left_over_make_no_process_one_of_several(monkeypatch, world):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    _torchrun(monkeypatch, LOCAL_RANK="1", LOCAL_WORLD_SIZE="4", RANK="1")
    if world is not None:
        monkeypatch.setenv("WORLD_SIZE", world)
    assert is_first_rank()
    assert local_process_count() == 1
    for step in ("train_san", "evaluate"):
        check_may_share_work(step)
    with ranks.process_group() as found:
        assert found is ranks.SINGLE_PROCESS


WHOLE = {
    "WORLD_SIZE": "2",
    "RANK": "0",
    "LOCAL_RANK": "0",
    "LOCAL_WORLD_SIZE": "2",
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "29500",
}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"WORLD_SIZE": "two"}, "^WORLD_SIZE is 'two': start the step by torchrun"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE is '0'"),
        *(({name: ""}, f"WORLD_SIZE is '2', and {name} is not set: ") for name in list(WHOLE)[1:]),
        ({"LOCAL_RANK": "x"}, "WORLD_SIZE is '2', and LOCAL_RANK is 'x': "),
    ],
)
def test_variables_that_do_not_fit_together_are_told(monkeypatch, wrong, message):
    _torchrun(monkeypatch, **(WHOLE | wrong))
    with pytest.raises(ValueError, match=message):
        check_may_share_work("train_san")


def test_processes_on_several_machines_are_refused(monkeypatch):
    _torchrun(monkeypatch, LOCAL_RANK="0", WORLD_SIZE="8", LOCAL_WORLD_SIZE="4")
    with (
        pytest.raises(ValueError, match=r"8 processes on several machines \(4 on this one\)"),
        ranks.process_group(),
    ):
        pass


# One of two processes, in which minutes are half seconds.
ONE_OF_TWO = """
import sys, time
from datetime import timedelta
from components.training import ranks

ranks.SECONDS_BETWEEN_WORDS = 0.2
ranks.WORD_TIMEOUT = timedelta(seconds=2)

def make():
    print("making", flush=True)
    time.sleep(float(sys.argv[1]))
    return "made"

try:
    with ranks.process_group() as found:
        print(found.make_on_first(make), flush=True)
except ConnectionError as error:
    print(error, flush=True)
"""


@pytest.fixture
def two_processes():
    """Start two processes of one step, the first of which makes something for some seconds."""
    started = []

    def start(seconds):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        world = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2"}
        for rank in ("0", "1"):
            env = {"RANK": rank, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": "2"}
            started.append(
                subprocess.Popen(
                    [sys.executable, "-c", ONE_OF_TWO, str(seconds)],
                    cwd=ROOT,
                    env={**os.environ, **world, **env, "CUDA_VISIBLE_DEVICES": ""},
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
        assert started[0].stdout.readline() == "making\n"
        return started

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGHUP])
def test_process_without_its_peers_hears_that_it_shall_stop(sign):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    alone = subprocess.Popen(
        [sys.executable, "-c", WAITING],
        cwd=ROOT,
        env={**os.environ, **WHOLE, "MASTER_PORT": port, "CUDA_VISIBLE_DEVICES": ""},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert alone.stdout.readline() == "waiting\n"
        time.sleep(0.5)  # until it does
        alone.send_signal(sign)
        assert alone.wait(timeout=30) == 128 + sign
    finally:
        alone.kill()
        alone.communicate()


WAITING = """
import signal, sys, torch
from components.process.signals import STOP_SIGNALS, Terminated, raise_terminated, signal_handler
from components.training import ranks

signal.signal(signal.SIGHUP, signal.SIG_DFL)
try:
    with signal_handler(raise_terminated, *STOP_SIGNALS):
        print("waiting", flush=True)
        with ranks.process_group():
            pass
except Terminated as stop:
    sys.exit(stop.status)
"""


@pytest.mark.slow
def test_others_wait_for_what_the_first_makes_however_long_it_takes(two_processes):
    first, second = two_processes(6)
    assert [one.communicate(timeout=90)[0] for one in (first, second)] == ["made\n", "made\n"]


@pytest.mark.slow
@pytest.mark.parametrize("sign", [signal.SIGSTOP, signal.SIGKILL], ids=["hangs", "is killed"])
def test_processes_that_lose_each_other_end_with_a_line(two_processes, sign):
    first, second = two_processes(600)
    time.sleep(1)
    first.send_signal(sign)
    said, _ = second.communicate(timeout=60)
    assert said.startswith("the processes of this step have lost each other: one has ended, or")
    assert said.count("\n") == 1
