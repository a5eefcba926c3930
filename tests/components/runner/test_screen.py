"""The display of a run, on a terminal of any width and without one."""

import io
import os

import pytest

from components.runner import screen
from components.runner.screen import Screen, figures_in_words, fit_fields

EPOCH = (
    "12:00:00 epoch 12/120  loss 1.83 (id 1.21 x1, tri 0.31 x0.75 growing to 1, rec 0.31 x5)"
    "  identities right 10%  lr 0.00035  412 img/s  waiting for data 3%  eta 41 min"
)
PROGRESS = "12:00:00 1000/36036 images  512.3/s  eta 70 s"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("width", [60, 80, 120])
def test_how_far_how_fast_and_how_long_survive_a_narrow_terminal(monkeypatch, width):
    monkeypatch.setattr(screen.shutil, "get_terminal_size", lambda: os.terminal_size((width, 24)))
    terminal = Terminal()
    shown = Screen(terminal)
    shown.number_steps(["make_pit", "make_pit", "train_san"])
    shown.show_progress("train_san", "train_san", EPOCH)
    line = terminal.getvalue().removeprefix("\r\x1b[K")
    assert len(line) < width
    assert line.startswith("step 2/2 train_san  epoch 12/120")
    assert line.endswith("412 img/s  eta 41 min") or "waiting" in line
    assert "eta 41 min" in line


def test_line_of_progress_is_kept_whole_at_80_columns():
    fields = ["step 3/9 generate_textures-0", *PROGRESS.removeprefix("12:00:00 ").split("  ")]
    assert fit_fields(fields, 79) == "  ".join(fields)


def test_line_that_cannot_be_shortened_is_cut():
    assert fit_fields(["step 3/9 train_san", "a long word", "eta 5 s"], 10) == "step 3/9 t"


def test_without_a_terminal_one_line_is_logged_per_minute():
    now, lines = [0.0], io.StringIO()
    shown = Screen(lines, clock=lambda: now[0])
    shown.number_steps(["make_pit", "train_san"])
    for second in range(0, 130, 5):
        now[0] = float(second)
        shown.show_progress("train_san", "train_san", EPOCH)
    whole = EPOCH.removeprefix("12:00:00 ")
    assert lines.getvalue().splitlines() == [f"step 2/2 train_san  {whole}"] * 2


def test_what_is_too_long_for_a_line_is_left_out():
    now, lines = [0.0], io.StringIO()
    shown = Screen(lines, clock=lambda: now[0])
    shown.number_steps(["train_san"])
    now[0] = 60.0
    shown.show_progress("train_san", "train_san", "12:00:00 recipe: " + 300 * "x")
    assert lines.getvalue() == "step 1/1 train_san\n"


def test_shares_are_shown_in_per_cent_and_other_figures_as_they_are():
    figures = {"rank1": 0.8512, "mAP_sysu": 0.5, "val_mAP": 0.25, "psnr": 21.456, "loss": 0.5}
    assert figures_in_words({**figures, "num_skipped": 3, "world": "studio", "ok": True}) == (
        "rank1 85.1%  mAP_sysu 50.0%  val_mAP 25.0%  psnr 21.46  loss 0.5  num_skipped 3"
        "  world studio  ok True"
    )
