"""Steps on a full disk, a real one: one line, and no partial output stays."""

import re

import pytest

from components.__main__ import main
from tests.tiny import step_command, with_flags, with_outputs_in


@pytest.mark.parametrize(
    ("step", "output"),
    [
        ("make_pit", "pit"),
        ("prepare_reid", "reid"),
        ("train_san_pg", "generator"),
        ("train_san", "model"),
        ("extract_features", "features"),
        ("evaluate", "report-page"),
    ],
)
def test_a_full_disk_ends_a_step_in_one_line_that_says_how_full(
    tiny, tmp_path, small_disk, capsys, step, output
):
    command = with_outputs_in(step_command(step, tiny), tmp_path / "out")
    assert main(with_flags(command, **{output: str(small_disk / output)})) == 1
    said = [x for x in capsys.readouterr().err.splitlines() if x.startswith(f"{step}: ")]
    assert len(said) == 1
    told = rf"{step}: {small_disk}.*: no space left \((needs [\d,.]+ [kM]B, )?has [\d,.]+ kB\)"
    assert re.fullmatch(told, said[0])
    assert list(small_disk.iterdir()) == []


def test_a_full_disk_ends_an_extraction_in_one_line(tiny, small_disk, capsys):
    assert main(["imageset", "extract", tiny.reid, "--output", str(small_disk / "out")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    told = rf"imageset: {small_disk}/out/.*: no space left \(needs [\d,.]+ kB, has [\d,.]+ kB\)"
    assert re.fullmatch(told, line)
    assert not list(small_disk.rglob(".*"))


def test_full_scratch_ends_a_step_in_one_line_that_says_what_helps(
    tiny, tmp_path, small_disk, monkeypatch, capsys
):
    monkeypatch.setenv("SAN_SCRATCH", str(small_disk))
    assert main(with_outputs_in(step_command("train_san", tiny), tmp_path / "out")) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    told = r"no space left \(needs .+ [kM]B, has .+ [kM]B\)"
    hint = f"{told}; SAN_SCRATCH names another folder to use"
    assert re.fullmatch(rf"train_san: {small_disk}/san-\w+/images.npy.partial: {hint}", line)
    assert list(small_disk.iterdir()) == []
