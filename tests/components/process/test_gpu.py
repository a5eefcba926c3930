"""GPUs that are there and cannot be used: faked, for the tests run where there is none."""

import os

import pytest
import torch

from components.process import gpu


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A machine without a GPU; `machine(...)` adds one, by default one that torch cannot use."""
    for name in ("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(gpu, "DEVICE_NODES", tmp_path)
    monkeypatch.setattr(gpu, "DRIVER_FILES", (tmp_path / "version",))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch, "__version__", "2.14.1+cu130")
    monkeypatch.setattr(torch.version, "cuda", "13.0")

    def give(*, driver: str | None = None, build: str | None = "13.0", works: bool = False):
        (tmp_path / "nvidiactl").touch()
        (tmp_path / "nvidia0").touch()
        if driver:
            (tmp_path / "version").write_text(driver)
        monkeypatch.setattr(torch.version, "cuda", build)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: works)

    return give


def test_machine_without_a_gpu_uses_its_processor(machine):
    assert not gpu.is_usable()


def test_gpu_that_torch_can_use_is_used(machine):
    machine(driver="580.65.06\n", works=True)
    assert gpu.is_usable()


def test_an_outdated_driver_is_reported_with_the_required_version(machine):
    machine(driver="535.129.03\n")
    with pytest.raises(ValueError, match=r"its driver is 535\.129\.03, and CUDA 13.0 of") as told:
        gpu.is_usable()
    for word in ("/nvidia0)", "needs 580.65.06 or newer", "TORCH_CUDA", gpu.HOW_TO_DO_WITHOUT):
        assert word in str(told.value)


def test_a_driver_missing_in_the_container_is_reported(machine):
    machine()
    with pytest.raises(ValueError, match=r"no driver was found.*NVIDIA Container Toolkit"):
        gpu.is_usable()


def test_a_build_of_torch_without_cuda_is_reported(machine):
    machine(driver="580.65.06\n", build=None)
    with pytest.raises(ValueError, match="is built without CUDA; install a build with CUDA"):
        gpu.is_usable()


def test_other_errors_of_torch_are_quoted(machine, monkeypatch):
    def refuse() -> None:
        raise RuntimeError("CUDA unknown error\nmore of it")

    machine(driver="590.1\n")
    monkeypatch.setattr(torch.cuda, "init", refuse)
    with pytest.raises(ValueError, match=r"with driver 590.1 .*: CUDA unknown error; --device"):
        gpu.is_usable()


@pytest.mark.parametrize("hidden", ["", "-1"])
def test_gpu_that_a_person_hides_is_not_missed(machine, monkeypatch, hidden):
    machine(driver="535.129.03\n")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    assert not gpu.is_usable()


@pytest.mark.parametrize("former", [None, "0"])
def test_gpus_are_hidden_for_a_while_where_that_is_asked_for(machine, monkeypatch, former):
    machine(driver="535.129.03\n")
    if former:
        monkeypatch.setenv(gpu.HIDING_VARIABLE, former)
    with gpu.hide_gpus(True):
        assert not gpu.is_usable()
    assert os.environ.get(gpu.HIDING_VARIABLE) == former
    with gpu.hide_gpus(False), pytest.raises(ValueError, match="a GPU is here"):
        gpu.is_usable()


def test_pod_that_was_given_a_gpu_ends_where_none_arrived(machine, monkeypatch):
    monkeypatch.setenv("NVIDIA_VISIBLE_DEVICES", "GPU-1f2e")
    with pytest.raises(ValueError, match=r"a GPU is here \(NVIDIA_VISIBLE_DEVICES=GPU-1f2e\)"):
        gpu.is_usable()
    for nothing in ("void", "none", ""):
        monkeypatch.setenv("NVIDIA_VISIBLE_DEVICES", nothing)
        assert not gpu.is_usable()


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("580.65.06\n", "580.65.06"),
        (
            "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.129.03  Thu Oct 19 2023\n"
            "GCC version:  gcc version 11.4.0\n",
            "535.129.03",
        ),
        (
            "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.10  Release Build\n",
            "570.86.10",
        ),
        ("nothing of the kind\n", None),
    ],
)
def test_version_of_the_driver_is_read_as_the_kernel_tells_it(tmp_path, text, version):
    (tmp_path / "version").write_text(text)
    assert gpu.driver_version([tmp_path / "none", tmp_path / "version"]) == version


@pytest.mark.parametrize(
    ("capability", "serves"),
    [((7, 0), False), ((8, 0), True), ((8, 9), True), ((9, 0), True), ((12, 0), False)],
)
def test_build_serves_a_generation_from_its_minor_version_on(monkeypatch, capability, serves):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Tesla V100")
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75", "sm_80", "sm_90a"])
    place = torch.device("cuda", 0)
    if serves:
        gpu.check_has_kernels(place)
        return
    number = "".join(map(str, capability))
    with pytest.raises(ValueError, match=rf"Tesla V100 is a GPU of generation sm_{number}, but"):
        gpu.check_has_kernels(place)


def test_code_that_is_compiled_on_the_machine_serves_newer_generations(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (12, 1))
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_90", "compute_90"])
    gpu.check_has_kernels(torch.device("cuda", 0))
