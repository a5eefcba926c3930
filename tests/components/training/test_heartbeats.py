"""How processes of one step notice that another is lost; minutes are seconds here."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from components.command.code import ROOT
from components.process.signals import Terminated
from components.training import heartbeats
from tests.servers.network import MASTER_PORT, NoNetworksError, address_of, running_network

# One of two processes. It makes something on the first for some seconds, and then both train.
ONE_OF_TWO = """
import sys, time
import torch
from torch import distributed
from components.process import failure
from components.training import heartbeats, ranks

heartbeats.SECONDS_BETWEEN_BEATS = 0.2
heartbeats.SECONDS_UNTIL_LOST = heartbeats.SECONDS_UNTIL_LOST_HERE = 2.0
heartbeats.SECONDS_FOR_OWN_ERROR = 0.5
failure.SECONDS_FOR_FIRST = 0.5

def make():
    print("making", flush=True)
    time.sleep(float(sys.argv[1]))
    if sys.argv[2] == "fails":
        raise ValueError("the disk is full")
    return "made"

try:
    with ranks.process_group("train_san", keeps_state=True) as found:
        print(found.make_on_first(make), flush=True)
        while sys.argv[2] == "trains":
            distributed.all_reduce(torch.ones(1))
            time.sleep(0.01)
except (ConnectionError, ValueError) as error:
    failure.report_failure("train_san", str(error))
"""


@pytest.fixture
def two_processes(start_process):
    """Start two processes of one step, and wait until the first makes something."""

    def start(seconds, what="", *, nodes=1, wrap=lambda _rank: [], host="127.0.0.1", port=None):
        world = {"MASTER_ADDR": host, "MASTER_PORT": port or _free_port(), "WORLD_SIZE": "2"}
        world["TORCH_CPP_LOG_LEVEL"] = "ERROR"  # as `python -m components` sets it
        started = []
        for rank in range(2):
            here = {"RANK": str(rank), "LOCAL_RANK": str(rank if nodes == 1 else 0)}
            here["LOCAL_WORLD_SIZE"] = str(2 // nodes)
            started.append(
                start_process(
                    [*wrap(rank), sys.executable, "-c", ONE_OF_TWO, str(seconds), what],
                    cwd=ROOT,
                    env={**os.environ, **world, **here, "CUDA_VISIBLE_DEVICES": ""},
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                )
            )
        assert started[0].stdout.readline() == "making\n"
        return started

    return start


def _free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def _said(process):
    """The lines that a process says in the end."""
    _, log = process.communicate(timeout=60)
    return log.splitlines()


@pytest.mark.slow
def test_others_wait_for_what_the_first_makes_longer_than_for_signs(two_processes):
    first, second = two_processes(4)
    assert [one.communicate(timeout=60)[0] for one in (first, second)] == ["made\n", "made\n"]


@pytest.mark.parametrize(
    ("nodes", "sign"),
    [
        pytest.param(1, signal.SIGSTOP, id="hangs"),
        pytest.param(1, signal.SIGKILL, id="is killed", marks=pytest.mark.slow),
        pytest.param(2, signal.SIGSTOP, id="node hangs", marks=pytest.mark.slow),
        pytest.param(2, signal.SIGKILL, id="node is killed", marks=pytest.mark.slow),
    ],
)
def test_process_that_is_lost_ends_the_other_with_a_line_that_names_it(two_processes, nodes, sign):
    first, second = two_processes(600, nodes=nodes)
    time.sleep(1)  # until they have given signs
    first.send_signal(sign)
    (line,) = _said(second)
    who = "process 1" if nodes == 1 else f"node 0 ({socket.gethostname()})"
    found = "process 2" if nodes == 1 else "node 1"
    assert line == (
        f"train_san, {found}: {who} is lost: no sign of life for 2 s."
        " Run again: training goes on from its checkpoint"
    )


def test_other_nodes_report_why_a_node_failed(two_processes):
    first, second = two_processes(0.5, "fails", nodes=2)
    assert _said(first) == ["train_san: the disk is full"]
    here = socket.gethostname()
    assert _said(second) == [f"train_san, node 1: node 0 ({here}) has ended: the disk is full"]


@pytest.mark.slow
@pytest.mark.parametrize("what", ["", "trains"])
def test_pulled_cable_ends_both_nodes_with_a_line_that_names_the_other(
    two_processes, tmp_path, what
):
    with contextlib.ExitStack() as stack:
        try:
            network = stack.enter_context(running_network(tmp_path, 2))
        except NoNetworksError as error:
            pytest.skip(f"no network namespaces can be made here: {error}")
        first, second = two_processes(
            0.1 if what else 600,
            what,
            nodes=2,
            wrap=lambda rank: network.nodes[rank].prefix,
            host=address_of(network.address, 0),
            port=MASTER_PORT,
        )
        time.sleep(1)
        network.nodes[1].pull_cable()
        here = socket.gethostname()
        for process, who in ((first, "node 1"), (second, "node 0")):
            (line,) = _said(process)
            assert f"{who} ({here}) is lost: no sign of life for 2 s" in line


@pytest.fixture
def first_process(monkeypatch):
    """Make heartbeats of the first of two processes, which has just started and hears nothing."""

    def start(*, nodes=2, keeps_state=True):
        told = {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "GROUP_RANK": "0"}
        told |= {"LOCAL_WORLD_SIZE": str(2 // nodes), "MASTER_ADDR": "10.0.0.1"}
        for name, value in told.items():
            monkeypatch.setenv(name, value)
        return heartbeats.Heartbeats("train_san", keeps_state=keeps_state)

    return start


@pytest.fixture
def first_of_two_nodes(first_process):
    """Heartbeats of the first node, which has just started and hears nothing yet."""
    return first_process()


@pytest.mark.parametrize(("contact", "who"), [(0.0, "node 1"), (None, "node 0")])
def test_node_that_never_joins_is_waited_for_some_minutes(first_of_two_nodes, contact, who):
    beats, started = first_of_two_nodes, first_of_two_nodes._started
    beats._last_contact = None if contact is None else started + 290
    assert beats._judge(started + 290) == ""
    beats._last_contact = None if contact is None else started + 301
    assert beats._judge(started + 301) == (
        f"{who} has not joined within 300 s. Run again: training goes on from its checkpoint"
    )


def test_cable_that_is_out_for_a_moment_ends_nothing(first_of_two_nodes):
    beats, started = first_of_two_nodes, first_of_two_nodes._started
    sign = heartbeats._Sign(3, "node 1 (there)")
    beats._seen[1] = heartbeats._Seen(sign, started + 10)
    beats._last_contact = started + 39
    assert beats._judge(started + 39) == ""
    beats._last_contact = started + 41
    assert beats._judge(started + 41).startswith("node 1 (there) is lost: no sign of life for 30 s")


def test_node_that_has_left_is_not_missed(first_of_two_nodes):
    beats, started = first_of_two_nodes, first_of_two_nodes._started
    sign = heartbeats._Sign(3, "node 1 (there)", has_left=True)
    beats._seen[1] = heartbeats._Seen(sign, started)
    beats._last_contact = started + 4000
    assert beats._judge(started + 4000) == ""


def test_lost_process_of_the_same_node_is_named_before_torchrun_kills_all(first_process):
    beats = first_process(nodes=1)
    beats._seen[1] = heartbeats._Seen(heartbeats._Sign(3, "process 2"), beats._started)
    beats._last_contact = beats._started + 12.5
    assert beats._judge(beats._started + 12.5).startswith(
        "process 2 is lost: no sign of life for 12 s. Run again"
    )


def test_loss_without_a_checkpoint_says_that_none_was_kept(first_process):
    beats = first_process(keeps_state=False)
    beats._last_contact = beats._started
    assert beats._judge(beats._started + 31) == (
        "node 0 (10.0.0.1) is lost: no sign of life for 30 s."
        " Run again: training begins anew, as no checkpoint was kept"
    )


def test_process_that_was_stopped_leaves_the_others_time_to_stop(first_of_two_nodes):
    beats, started = first_of_two_nodes, first_of_two_nodes._started
    stopped = heartbeats._Sign(3, "node 1 (there)", True, "stopped by SIGTERM", was_stopped=True)
    beats._seen[1] = heartbeats._Seen(stopped, started)
    beats._last_contact = started + 29
    assert beats._judge(started + 29) == ""
    beats._last_contact = started + 31
    assert beats._judge(started + 31) == "node 1 (there) has ended: stopped by SIGTERM"


def test_process_that_misses_one_that_was_stopped_says_so_at_once(first_of_two_nodes):
    beats, started = first_of_two_nodes, first_of_two_nodes._started
    stopped = heartbeats._Sign(3, "node 1 (there)", True, "stopped by SIGTERM", was_stopped=True)
    beats._seen[1] = heartbeats._Seen(stopped, started)
    beats._last_contact = started
    beats._take_word()
    assert beats._judge(started + 1) == "node 1 (there) has ended: stopped by SIGTERM"


@pytest.mark.parametrize(("error", "waits"), [(ValueError("disk"), True), (Terminated(), False)])
def test_node_with_the_store_waits_to_be_heard_unless_it_was_stopped(
    first_of_two_nodes, monkeypatch, error, waits
):
    slept = []
    monkeypatch.setattr(heartbeats.time, "sleep", slept.append)
    monkeypatch.setattr(heartbeats, "_connect", _raise)
    with pytest.raises(type(error)), heartbeats.beating("train_san", keeps_state=True):
        raise error
    assert slept == ([heartbeats.SECONDS_BETWEEN_BEATS + 1] if waits else [])


def test_process_that_beats_from_its_start_leaves_once(first_of_two_nodes, monkeypatch):
    left, slept = [], []
    monkeypatch.setattr(heartbeats.time, "sleep", slept.append)
    monkeypatch.setattr(heartbeats, "_connect", lambda: left.append("asked") or _raise())
    with (
        pytest.raises(ValueError, match="disk"),
        heartbeats.beating_in_company("train_san", keeps_state=True),
        heartbeats.beating("train_san", keeps_state=True),
    ):
        raise ValueError("disk")
    assert left == ["asked"]
    assert slept == [heartbeats.SECONDS_BETWEEN_BEATS + 1]


def _raise():
    raise OSError("away")


def test_single_process_sends_no_heartbeats(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setattr(heartbeats, "Heartbeats", None)
    with heartbeats.beating_in_company("train_san", keeps_state=True):
        assert not heartbeats._BEATING
