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
    is_first_of_node,
    is_first_rank,
    local_process_count,
    process_name,
)
from components.training import ranks


def _torchrun(monkeypatch, **words):
    for name, value in words.items():
        monkeypatch.setenv(name, value)


def test_process_alone_is_the_first_and_makes_everything(monkeypatch, tmp_path):
    for name in ("LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert is_first_rank()
    with (
        ranks.process_group("act", keeps_state=False) as found,
        found.scratch_folder_of_node(tmp_path / "model") as room,
    ):
        assert found.make_on_first(lambda: 5) == 5
        assert found.make_on_each_node(lambda: 6) == 6
        assert room.is_dir()
    assert not room.exists()


@pytest.mark.parametrize(
    ("rank", "local_rank", "here", "is_first", "speaks", "name"),
    [
        ("0", "0", "2", True, True, ""),
        ("1", "1", "2", False, False, "process 2"),
        ("1", "0", "1", False, True, "node 1"),
        ("2", "0", "2", False, True, "node 1"),
        ("3", "1", "2", False, False, "node 1, process 2"),
    ],
)
def test_process_knows_which_of_its_node_and_of_all_it_is(
    monkeypatch, rank, local_rank, here, is_first, speaks, name
):
    world = "2" if here == "1" or rank == "1" else "4"
    _torchrun(monkeypatch, RANK=rank, LOCAL_RANK=local_rank, WORLD_SIZE=world)
    _torchrun(monkeypatch, LOCAL_WORLD_SIZE=here)
    monkeypatch.delenv("GROUP_RANK", raising=False)
    assert (is_first_rank(), is_first_of_node(), process_name()) == (is_first, speaks, name)


def test_torchrun_says_which_node_this_is(monkeypatch):
    _torchrun(monkeypatch, **(WHOLE | {"WORLD_SIZE": "4", "RANK": "3", "GROUP_RANK": "2"}))
    assert process_name() == "node 2"


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
    with ranks.process_group("act", keeps_state=False) as found:
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
        ({"WORLD_SIZE": "two"}, "^WORLD_SIZE is 'two'; start the step with torchrun"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE is '0'"),
        *(({name: ""}, f"WORLD_SIZE is '2', and {name} is not set; ") for name in list(WHOLE)[1:]),
        ({"LOCAL_RANK": "x"}, "WORLD_SIZE is '2', and LOCAL_RANK is 'x'; "),
    ],
)
def test_inconsistent_variables_are_reported(monkeypatch, wrong, message):
    _torchrun(monkeypatch, **(WHOLE | wrong))
    with pytest.raises(ValueError, match=message):
        check_may_share_work("train_san")


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGHUP])
def test_process_without_its_peers_hears_that_it_shall_stop(start_process, sign):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    alone = start_process(
        [sys.executable, "-c", WAITING],
        cwd=ROOT,
        env={**os.environ, **WHOLE, "MASTER_PORT": port, "CUDA_VISIBLE_DEVICES": ""},
        stdout=subprocess.PIPE,
    )
    assert alone.stdout.readline() == "waiting\n"
    time.sleep(0.5)  # until it does
    alone.send_signal(sign)
    assert alone.wait(timeout=30) == 128 + sign


WAITING = """
import signal, sys, torch
from components.process.signals import STOP_SIGNALS, Terminated, raise_terminated, signal_handler
from components.training import ranks

signal.signal(signal.SIGHUP, signal.SIG_DFL)
try:
    with signal_handler(raise_terminated, *STOP_SIGNALS):
        print("waiting", flush=True)
        with ranks.process_group("act", keeps_state=False):
            pass
except Terminated as stop:
    sys.exit(stop.status)
"""
