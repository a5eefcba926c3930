"""The scratch space of steps, on disks as in clusters."""

import pytest

from components.__main__ import main
from tests.tiny import SAN_OVERRIDES, step_command, with_flags, with_outputs_in


def quick_command(step, tiny, folder):
    """A step on the tiny run's artifacts, training as short as it can be, with validation."""
    command = with_outputs_in(step_command(step, tiny), folder)
    if step == "train_san":
        held_out = "identities_per_batch=3 eval_every=1 validation_share=0.1"
        overrides = SAN_OVERRIDES.replace("identities_per_batch=4", held_out)
        command = with_flags(command, overrides=overrides.replace("epochs=3", "epochs=2"))
    if step == "train_san_pg":
        command = with_flags(command, overrides="epochs=1 batch_size=8 warmup_epochs=0")
    if step.startswith("train"):
        command = with_flags(command, checkpoint=str(folder / "state"))
    return command


@pytest.mark.parametrize("step", ["make_pit", "train_san_pg", "train_san", "extract_features"])
def test_step_ends_well_on_nfs_and_leaves_nothing_there(
    nfs, tiny, tmp_path, monkeypatch, capsys, step
):
    monkeypatch.setenv("SAN_SCRATCH", str(tmp_path / "scratch"))
    for _ in ("anew", "from its last state, if it keeps one"):
        assert main(quick_command(step, tiny, tmp_path / "out")) == 0
        assert "cannot be removed" not in capsys.readouterr().err
        assert list((tmp_path / "scratch").iterdir()) == []
        assert not list((tmp_path / "out").glob(".*"))
