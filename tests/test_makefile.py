"""Which Python `make` takes, and when it makes .venv anew."""

import subprocess
from pathlib import Path

import pytest

from components.command.code import ROOT


def write_python(path: Path, *, version: str, is_usable: bool) -> Path:
    """A Python that tells its version, notes its words beside it, and makes others like it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f"""#!/bin/sh
case "$*" in
    --version) echo Python {version} ;;
    -c*) exit {int(not is_usable)} ;;
    "-m venv"*) echo "$@" >> "$0.words"; mkdir -p "$4/bin"; cp "$0" "$4/bin/python" ;;
esac
"""
    )
    path.chmod(0o755)
    return path


def make_install(tmp_path: Path, python: Path) -> subprocess.CompletedProcess[str]:
    words = ["make", "install", f"VENV={tmp_path}/.venv", f"PYTHON={python}"]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True)


def test_a_python_that_is_too_old_is_refused_in_one_line(tmp_path):
    old = write_python(tmp_path / "python3.10", version="3.10.12", is_usable=False)
    done = make_install(tmp_path, old)
    line, *_ = done.stderr.splitlines()
    assert done.returncode == 2
    assert line == (
        f"make: {old} is Python 3.10.12; needed is Python 3.11 to 3.14 with venv: make PYTHON=..."
    )
    assert not (tmp_path / ".venv").exists()


@pytest.mark.parametrize("is_usable", [True, False])
def test_a_venv_of_another_python_is_made_anew_and_any_other_is_kept(tmp_path, is_usable):
    write_python(tmp_path / ".venv/bin/python", version="3.10.12", is_usable=is_usable)
    python = write_python(tmp_path / "python3", version="3.12.1", is_usable=True)
    assert make_install(tmp_path, python).returncode == 0
    assert (tmp_path / ".venv/.installed").exists()
    assert (tmp_path / "python3.words").exists() == (not is_usable)
