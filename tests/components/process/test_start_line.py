"""The first line of a step names its device."""

import logging
from types import SimpleNamespace

import pytest
import torch

from components.process import gpu, start_line


@pytest.fixture
def line(monkeypatch, caplog):
    """The start line of a step, on a machine without limits by default."""
    monkeypatch.setattr(start_line, "memory_limit", lambda: None)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(torch, "__version__", "2.14.1+cu130")
    monkeypatch.setattr(gpu, "is_usable", lambda: False)

    def said(step: str, **values: str) -> str:
        caplog.clear()
        with caplog.at_level(logging.INFO):
            start_line.log_start(step, **values)
        return caplog.messages[-1]

    return said


def test_step_without_torch_says_its_threads(line):
    assert line("evaluate") == "evaluate computes on the processor; 2 threads"


def test_training_on_a_processor_says_that_no_gpu_is_here(line):
    assert line("train_san", precision="auto") == (
        "train_san computes on the processor (no GPU found or requested), torch 2.14.1+cu130;"
        " float32; 2 threads"
    )


def test_processes_and_memory_limit_are_logged(line, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    monkeypatch.setattr(start_line, "memory_limit", lambda: 3 * 2**29)
    assert line("make_pit") == (
        "make_pit computes on the processor; 2 threads; one of 4 processes;"
        " memory limited to 1.5 GiB"
    )


def test_training_on_a_gpu_says_which_and_by_what(line, monkeypatch, tmp_path):
    (tmp_path / "version").write_text("580.65.06\n")
    monkeypatch.setattr(gpu, "DRIVER_FILES", (tmp_path / "version",))
    monkeypatch.setattr(gpu, "is_usable", lambda: True)
    for name, value in {
        "device_count": 1,
        "get_device_capability": (9, 0),
        "get_arch_list": ["sm_90"],
        "get_device_name": "NVIDIA H100 80GB HBM3",
        "get_device_properties": SimpleNamespace(total_memory=79.1 * 2**30),
        "is_bf16_supported": True,
    }.items():
        monkeypatch.setattr(torch.cuda, name, lambda *_, value=value, **__: value)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    assert line("train_san", precision="auto") == (
        "train_san computes on cuda:0, NVIDIA H100 80GB HBM3 with 79.1 GiB, driver 580.65.06,"
        " CUDA 13.0 of torch 2.14.1+cu130; bfloat16; 2 threads"
    )
