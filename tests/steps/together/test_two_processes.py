"""The training steps under torchrun: two processes on one processor, joined by gloo."""

import json
import os
import socket
import subprocess
import sys

import pytest

from components.__main__ import main
from components.command.code import ROOT
from tests.tiny import SAN_OVERRIDES, file_contents, step_command, with_flags, with_outputs_in

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
pytestmark = pytest.mark.slow

MOVING = f"{SAN_OVERRIDES} lr=1e-4 decoder_lr=1e-4"  # so far that the processes could part


@pytest.fixture
def start(start_process):
    """A step under torchrun, started."""

    def start(command, torchrun=TORCHRUN):
        return start_process(
            [*torchrun, "-m", "components", *command],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )

    return start


@pytest.fixture
def run(start):
    """The log of a step under torchrun, which has ended with a status."""

    def run(command, *, status=0):
        process = start(command)
        _, log = process.communicate(timeout=240)
        assert process.returncode == status, log
        return log

    return run


def _check_near(one, other):
    """Two trainings are the same but for rounding, which Adam's first steps make visible."""
    first, second = (
        [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
        for folder in (one, other)
    )
    assert len(first) == len(second)
    for mine, theirs in zip(first, second, strict=True):
        assert mine == pytest.approx(theirs, rel=5e-3)


def _trained(tiny, folder, **flags):
    command = with_outputs_in(step_command("train_san", tiny), folder)
    return with_flags(command, overrides=MOVING, **flags)


def test_two_processes_train_what_one_trains(run, tiny, tmp_path):
    assert main(_trained(tiny, tmp_path / "one")) == 0
    told = _executor_input(tmp_path / "two", tmp_path / "told.json")
    state = {"checkpoint": str(tmp_path / "state")}
    log = run(_trained(tiny, tmp_path / "two", executor_input=told, **state))
    assert log.count("epoch 3/3") == 1, "the first process alone logs"
    _check_near(tmp_path / "one" / "model", tmp_path / "two" / "model")
    assert file_contents(tmp_path / "one").keys() == file_contents(tmp_path / "two").keys()
    # and a state of two processes is one that a process alone can go on from
    assert main(_trained(tiny, tmp_path / "again", **state)) == 0
    weights = [
        file_contents(tmp_path / n / "model")["weights.safetensors"] for n in ("two", "again")
    ]
    assert weights[0] == weights[1]
    # and Kubeflow is told once what they made
    artifacts = json.loads((tmp_path / "told.json").read_text())["artifacts"]
    assert "loss_identity" in artifacts["losses"]["artifacts"][0]["metadata"]


def _executor_input(folder, file):
    """What KFP tells a step whose outputs lie in a folder, and which is to answer in a file."""
    artifacts = {}
    for name in ("model", "training_page", "losses"):
        kind = {"losses": "system.Metrics"}.get(name, "system.Model")
        artifact = {"name": name, "uri": str(folder / name), "type": {"schemaTitle": kind}}
        artifacts[name] = {"artifacts": [artifact]}
    return json.dumps({"outputs": {"artifacts": artifacts, "outputFile": str(file)}})


def test_two_processes_train_a_generator(run, tiny, tmp_path):
    overrides = "epochs=2 batch_size=8 warmup_epochs=0 lr=1e-4 decoder_lr=1e-4"
    command = step_command("train_san_pg", tiny)
    one, two = (
        with_flags(with_outputs_in(command, tmp_path / name), overrides=overrides)
        for name in ("one", "two")
    )
    assert main(one) == 0
    run(two)
    _check_near(tmp_path / "one" / "generator", tmp_path / "two" / "generator")


@pytest.mark.parametrize(
    "where",
    ["seen by the first", "seen by both", "seen in training"],
)
def test_mistake_is_told_in_one_line_and_ends_both(run, tiny, tmp_path, where):
    command = _trained(tiny, tmp_path)
    if where == "seen by both":
        command = with_flags(command, textures=str(tmp_path / "nowhere"))
    elif where == "seen by the first":
        command = with_flags(command, overrides=f"{MOVING} pretrained=/nowhere/weights.pth")
    else:  # weights that soon are not finite any more
        overrides = f"{SAN_OVERRIDES} lr=10 decoder_lr=10 optimizer=adamw weight_decay=10"
        command = with_flags(command, overrides=overrides.replace("epochs=3", "epochs=60"))
    log = run(command, status=1)
    ours, _, _ = log.partition("torch.distributed.elastic")  # which then shows its own traceback
    said = [line for line in log.splitlines() if line.startswith("train_san")]
    assert len(said) == 1, log
    assert said[0].startswith("train_san: ")
    assert ("nowhere" in said[0]) == ("training" not in where)
    assert "Traceback" not in ours.partition("train_san: ")[0]
    kept = where == "seen in training"  # what it had learned until then
    assert (tmp_path / "model" / "weights.safetensors").exists() == kept


def test_two_processes_stop_together_and_go_on_to_the_same_weights(start, run, tiny, tmp_path):
    def command(name):
        line = _trained(tiny, tmp_path / name, checkpoint=str(tmp_path / f"{name}-state"))
        return with_flags(
            line, overrides=MOVING.replace("epochs=3", "epochs=40 checkpoint_every=40")
        )

    run(command("undisturbed"))
    process = start(command("stopped"))
    for line in process.stderr:
        if "epoch 2/40" in line:
            break
    process.terminate()  # torchrun tells both
    _, log = process.communicate(timeout=60)
    assert process.returncode != 0, log
    assert "stopped in epoch" in log
    assert not (tmp_path / "stopped" / "model").exists()
    log = run(command("stopped"))
    assert "resuming after epoch" in log
    assert file_contents(tmp_path / "stopped" / "model") == file_contents(
        tmp_path / "undisturbed" / "model"
    )


def test_processes_end_with_a_torchrun_that_is_killed(start, tiny, tmp_path):
    overrides = MOVING.replace("epochs=3", "epochs=4000 checkpoint_every=4000")
    process = start(with_flags(_trained(tiny, tmp_path), overrides=overrides))
    for line in process.stderr:
        if "epoch 1/" in line:
            break
    process.kill()
    _, log = process.communicate(timeout=60)  # until nobody can write to its stderr any more
    assert "is lost" not in log, "they noticed only that its store was away"


def test_node_that_fails_before_they_meet_tells_the_other_why(start, tiny, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    there = ["--nnodes", "2", "--master-addr", "127.0.0.1", "--master-port", port, "--node-rank"]
    wrong = {"textures": str(tmp_path / "nowhere")}
    nodes = [
        start(
            with_flags(_trained(tiny, tmp_path), **changes),
            torchrun=[*TORCHRUN[:3], *there, str(rank)],
        )
        for rank, changes in enumerate([{}, wrong])
    ]
    log, _ = (node.communicate(timeout=120)[1] for node in nodes)
    (line,) = (line for line in log.splitlines() if line.startswith("train_san: "))
    assert line.startswith(f"train_san: node 1 ({socket.gethostname()}) has ended: ")
    assert "nowhere" in line
