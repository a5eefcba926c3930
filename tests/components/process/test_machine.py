"""The resources of a machine, as a container sees them."""

import os

import pytest
import torch

from components.process import gpu, machine
from components.process.machine import (
    core_count,  # all tests have a stand-in for the attribute
    worker_count,
)


@pytest.mark.parametrize(
    ("quota", "expected"),
    [
        (2.0, 2),
        (3.5, 4),  # three would leave an eighth of what is paid for
        (1.2, 1),  # a second would wait most of the time
        (0.5, 1),
        (0.1, 1),
        (16.0, 8),
        (None, 8),
    ],
)
def test_cores_are_those_of_the_quota_and_of_the_affinity(monkeypatch, quota, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr(machine, "cpu_quota", lambda: quota)
    assert core_count() == expected


def test_cores_are_no_more_than_a_pod_was_given(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr(machine, "cpu_quota", lambda: None)
    for given, expected in (("4", 4), ("16", 8), ("", 8)):
        monkeypatch.setenv("SAN_CPUS", given)
        assert core_count() == expected


@pytest.mark.parametrize("given", ["0", "500m", "many"])
def test_number_of_cores_that_is_none_is_refused(monkeypatch, given):
    monkeypatch.setenv("SAN_CPUS", given)
    with pytest.raises(ValueError, match=f"SAN_CPUS is '{given}'; it must be a number of cores"):
        core_count()


@pytest.mark.parametrize(
    ("limit", "count", "told"),
    [
        (None, 8, "8 processes, with about 900 MiB of memory in total"),
        (2000, 8, "8 processes, with about 900 MiB of memory in total"),
        (
            850,
            7,
            "7 processes on 8 cores (memory is limited), with about 800 MiB of memory in total",
        ),
        (50, 1, "1 process on 8 cores (memory is limited), with about 200 MiB of memory in total"),
    ],
)
def test_processes_are_as_many_as_memory_is_there_for(monkeypatch, caplog, limit, count, told):
    caplog.set_level("INFO")
    monkeypatch.setattr(machine, "core_count", lambda: 8)
    monkeypatch.setattr(machine, "memory_limit", lambda: limit and limit << 20)
    assert worker_count(bytes_each=100 << 20, bytes_beside=100 << 20) == count
    assert caplog.messages == [f"working in {told}"]


def test_processor_is_used_where_no_gpu_is(monkeypatch):
    monkeypatch.setattr(gpu, "is_usable", lambda: False)
    assert machine.device() == torch.device("cpu")


def test_every_process_of_torchrun_takes_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setattr(gpu, "is_usable", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert machine.device() == torch.device("cuda", 1)
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(ValueError, match="process 3 has no GPU: this machine has 2"):
        machine.device()
