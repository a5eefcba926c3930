import json
import math
import subprocess
import time

import pytest
import torch
from torch import nn

from tests.benchmarks import __main__ as benchmarks
from tests.benchmarks.gpu import __main__ as script
from tests.benchmarks.gpu import figures as gpu_figures
from tests.benchmarks.gpu.busy import busy_share, covered
from tests.benchmarks.gpu.convolutions import (
    convolutions_per_second,
    record_convolutions,
)
from tests.benchmarks.gpu.figures import NETWORKS, Scale, figures

CPU = torch.device("cpu")
TINY = Scale(
    overrides="arch=resnet10_quarter decoder_width=0.25 image_height=32 image_width=16"
    " texture_size=16 embedding_dim=16 identities_per_batch=4 images_per_identity=2 batch_size=8",
    people=8,
    images=16,
    inference_images=4,
    epochs=1,
    seconds=0.01,
)


def test_every_figure_is_measured_at_tiny_size_on_a_processor(monkeypatch):
    monkeypatch.setattr(gpu_figures, "PRECISIONS", ("float32",))  # others by what it has
    found = {}
    for figure in figures(CPU, TINY):
        found[figure.name] = figure.value
        if len(found) == 2 + 4 * len(NETWORKS):
            break  # the compiled ones take minutes on a processor
    for network in NETWORKS:
        name = f"gpu.{network}_float32"
        steps, limit = found[f"{name}_steps_per_second"], found[f"{name}_limit_steps_per_second"]
        assert found[f"{name}_of_limit"] == steps / limit
        assert 0 < found[f"{name}_busy_share"] <= 1
    assert found["gpu.embedding_images_per_second"] > 0
    assert found["gpu.texture_float32_images_per_second"] > 0
    assert all(math.isfinite(value) and value > 0 for value in found.values())


def test_what_is_not_begun_in_time_is_named(capsys):
    found = [figure.name for figure in figures(CPU, TINY, seconds=0.0)]
    assert not any("steps" in name for name in found)
    told = capsys.readouterr().out
    assert "gpu.san_float32 is left out: 0 s are over" in told
    assert "gpu.light_san_float32_compiled is left out" in told
    assert "tf32 is left out: precision tf32 is not native" in told


def test_what_the_device_has_no_memory_for_is_named(monkeypatch, capsys):
    def measure(*_):
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 2 GiB")

    monkeypatch.setattr(gpu_figures, "_training_figures", measure)
    assert not any("steps" in figure.name for figure in figures(CPU, TINY))
    assert "gpu.san_float32 is left out: CUDA out of memory.\n" in capsys.readouterr().out


def test_overlapping_work_is_counted_once():
    # 0-4 and 2-6 are 6 together, 3-5 lies within, 8-9 is 1
    assert covered([(8, 9), (2, 6), (0, 4), (3, 5)]) == 6 + 1
    assert covered([]) == 0


def test_a_processor_that_waits_is_not_busy():
    def run():
        torch.ones(300, 300) @ torch.ones(300, 300)
        time.sleep(0.5)

    assert 0 < busy_share(run, CPU) < 0.5


def test_convolutions_of_a_step_are_recorded_forward_and_backward():
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1))
    images = torch.zeros(2, 3, 8, 4)
    calls = record_convolutions(lambda: network(images).sum().backward())
    assert sum(calls.values()) == 3 + 3
    assert {call.operator.name() for call in calls} == {
        "aten::convolution",
        "aten::convolution_backward",
    }
    inputs = {call.arguments[0].shape: n for call, n in calls.items() if len(call.arguments) == 9}
    assert inputs == {(2, 3, 8, 4): 1, (2, 4, 8, 4): 2}  # the two alike are one call, made twice


def test_measuring_the_limit_leaves_the_settings_of_convolutions_as_they_were():
    def settings():
        return torch.backends.cudnn.benchmark, torch.backends.cudnn.conv.fp32_precision

    before, network = settings(), nn.Conv2d(3, 4, 1)
    calls = record_convolutions(lambda: network(torch.zeros(2, 3, 8, 4)))
    assert convolutions_per_second(calls, CPU, seconds=0.0, precision="tf32") > 0
    assert settings() == before


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.setattr(benchmarks, "RESULTS", tmp_path)
    return tmp_path


def test_without_a_gpu_it_says_so_and_nothing_is_measured(results, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert script.main() == 0
    assert "finds no GPU on this machine: 0 figures" in capsys.readouterr().out
    assert list(results.iterdir()) == []


@pytest.mark.parametrize(("returncode", "expected"), [(0, 0), (1, 1)])
def test_with_a_gpu_tests_run_and_figures_are_kept(
    results, monkeypatch, capsys, returncode, expected
):
    ran = []

    def run(command, **options):
        ran.append(command)
        return subprocess.CompletedProcess(command, returncode)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(script.subprocess, "run", run)
    monkeypatch.setattr(
        gpu_figures, "figures", lambda: [gpu_figures.Figure("gpu.san_steps", 3.0, "1/s")]
    )
    monkeypatch.setattr(gpu_figures, "circumstances", lambda: {"commit": "c"})
    assert script.main() == expected
    assert ran[0][1:] == ["-m", "pytest", "-q", "-m", "gpu", "tests/san_core"]
    assert "figure gpu.san_steps 3 1/s" in capsys.readouterr().out
    kept = json.loads((results / "gpu.json").read_text())
    assert kept["figures"] == {"gpu.san_steps": {"value": 3.0, "unit": "1/s"}}


def test_tests_that_take_too_long_have_not_passed(results, monkeypatch, capsys):
    def run(command, *, timeout, **options):
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(script.subprocess, "run", run)
    assert not script.tests_pass()
    assert "the tests are not done after 120 s" in capsys.readouterr().out


@pytest.mark.parametrize("at", ["5c3e0a1", "5c3e0a1-dirty", ""])
def test_figures_of_a_commit_that_nobody_else_has_are_warned_of(monkeypatch, capsys, at):
    measured = []
    monkeypatch.setattr(benchmarks, "commit", lambda: at)
    monkeypatch.setattr(benchmarks, "measure_group", measured.append)
    benchmarks.main(["sampler", "search"])
    assert measured == ["sampler", "search"]
    warned = "warning: something is not committed, so the figures will be recorded as of"
    expected = f"{warned} {at}\n" if at.endswith("-dirty") else ""
    assert capsys.readouterr() == ("", expected)
