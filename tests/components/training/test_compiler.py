import re

import pytest
import torch

from components.__main__ import main
from components.training.compiler import check_compiler
from tests.tiny import step_command, with_flags, with_outputs_in


@pytest.fixture
def nothing_installed(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("CC", "CXX"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.mark.parametrize(
    ("device", "missing"),
    [("cpu", "a C++ compiler, and g++"), ("cuda", "a C compiler, and gcc or clang")],
)
def test_missing_compiler_is_named_by_the_kind_of_device(nothing_installed, device, missing):
    with pytest.raises(ValueError, match=re.escape(f"compiled=true needs {missing} was not found")):
        check_compiler(torch.device(device))


def test_compiler_that_is_named_must_be_there(nothing_installed, monkeypatch):
    monkeypatch.setenv("CC", "clang-99 -m64")
    with pytest.raises(ValueError, match="a C compiler, and CC=clang-99 was not found"):
        check_compiler(torch.device("cuda"))
    compiler = nothing_installed / "clang-99"
    compiler.touch(mode=0o755)
    check_compiler(torch.device("cuda"))


def test_missing_headers_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr("sysconfig.get_path", lambda _: str(tmp_path))
    with pytest.raises(
        ValueError, match=rf"Python's headers, and {tmp_path}/Python.h was not found"
    ):
        check_compiler(torch.device("cpu"))


@pytest.mark.parametrize("step", ["train_san", "train_san_pg"])
def test_training_without_a_compiler_is_refused_before_anything_is_read(
    nothing_installed, tiny, tmp_path, capsys, step
):
    command = with_outputs_in(step_command(step, tiny), tmp_path)
    assert main(with_flags(command, compiled="true")) == 1
    said = capsys.readouterr().err.splitlines()
    assert said[-1].startswith(f"{step}: compiled=true needs a C++ compiler, and g++ was not found")
    assert not [line for line in said if "decoded" in line]
