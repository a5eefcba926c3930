"""What steps say of a disk that is full, a real one; nothing half-written stays on it."""

import re
import shutil
import subprocess

import pytest

from components.__main__ import main
from tests.tiny import step_command, with_flags, with_outputs_in


@pytest.fixture
def small_disk(tmp_path):
    """A real file system of 40 KiB; only root may mount one."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=40k", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, check=False).returncode:
        pytest.skip("no small disk can be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


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
    told = rf"{step}: {small_disk}.*: no space left \((needs [\d,.]+ MB, )?has 0\.0 MB\)"
    assert re.fullmatch(told, said[0])
    assert list(small_disk.iterdir()) == []


def test_a_full_disk_ends_an_extraction_in_one_line(tiny, small_disk, capsys):
    assert main(["imageset", "extract", tiny.reid, "--output", str(small_disk / "out")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    told = rf"imageset: {small_disk}/out/.*: no space left \(needs 0\.0 MB, has 0\.0 MB\)"
    assert re.fullmatch(told, line)
    assert not list(small_disk.rglob(".*"))
