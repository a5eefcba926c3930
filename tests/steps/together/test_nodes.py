"""The training steps on several nodes: network namespaces of this machine, joined by gloo."""

import subprocess
import sys
import time
from functools import partial

import pytest
from safetensors.numpy import load

from components.command.code import ROOT
from components.storage.places import open_storage
from components.storage.transfer import send_artifact
from tests.servers.network import NoNetworksError, running_network
from tests.servers.seaweedfs import BUCKET, running_server
from tests.tiny import SAN_OVERRIDES, step_command, with_flags, with_outputs_in

pytestmark = [pytest.mark.s3, pytest.mark.slow]

MOVING = f"{SAN_OVERRIDES} lr=1e-3 decoder_lr=1e-3"  # so far that the processes could part
OUTPUTS = {"model": "model", "training_page": "page.html", "losses": "losses.json"}


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """Two nodes of one network."""
    try:
        with running_network(tmp_path_factory.mktemp("nodes"), 2) as network:
            yield network
    except NoNetworksError as error:
        pytest.skip(f"no network namespaces can be made here: {error}")


@pytest.fixture(scope="module")
def server(network, tmp_path_factory):
    """An S3 server that all nodes reach."""
    folder = tmp_path_factory.mktemp("s3") / "data"
    with running_server(folder, host=network.address) as server:
        yield server


@pytest.fixture
def start(network, server, isolated_environment, monkeypatch):
    """Start a step on both nodes, by so many processes on each."""
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)

    yield partial(network.start, environment=server.environment)
    for node in network.nodes:
        node.plug_cable()
        node.kill()


def _log_of(process, *, fails=False, seconds=120):
    """What a node said until it ended."""
    _, log = process.communicate(timeout=seconds)
    assert (process.returncode != 0) == fails, log
    return log


def _in_bucket(command, name):
    """A command line whose outputs and state go to the bucket."""
    places = {output: f"s3://{BUCKET}/{name}/{file}" for output, file in OUTPUTS.items()}
    return with_flags(command, **places, checkpoint=f"s3://{BUCKET}/{name}/states")


def _weights(place):
    return load(open_storage(str(place)).get("weights.safetensors"))


def _check_equal(one, other):
    assert one.keys() == other.keys()
    assert max(abs(one[n].astype(float) - other[n]).max() for n in one) < 1e-5


@pytest.mark.parametrize("processes", [1, 2])
def test_two_nodes_train_to_the_weights_of_one_process(tiny, tmp_path, start, processes):
    command = with_flags(step_command("train_san", tiny), overrides=MOVING)
    alone = [sys.executable, "-m", "tests.steps.together.in_float64"]
    subprocess.run([*alone, *with_outputs_in(command, tmp_path)], check=True, cwd=ROOT)
    data = f"s3://{BUCKET}/equal/data"
    send_artifact(tmp_path.parent / tiny.reid, data)
    there = with_flags(_in_bucket(command, f"equal{processes}"), dataset=data)
    logs = [
        _log_of(node)
        for node in start(there, processes=processes, module="tests.steps.together.in_float64")
    ]
    assert [log.count("epoch 3/3") for log in logs] == [1, 0], "the first of all alone logs"
    _check_equal(_weights(tmp_path / "model"), _weights(f"s3://{BUCKET}/equal{processes}/model"))


LONG = MOVING.replace("epochs=3", "epochs=16 checkpoint_every=3")


def _line(log):
    """The one line in which a step says why it ends."""
    (line,) = (line for line in log.splitlines() if line.startswith("train_san:"))
    return line


@pytest.mark.parametrize("how", ["pull_cable", "kill"])
def test_lost_node_ends_the_other_within_a_minute_and_training_goes_on(tiny, start, network, how):
    command = _in_bucket(with_flags(step_command("train_san", tiny), overrides=LONG), how)
    first, second = start(command)
    for line in first.stderr:
        if "epoch 4/" in line:
            break
    getattr(network.nodes[1], how)()
    began = time.monotonic()
    line = _line(_log_of(first, fails=True))
    assert time.monotonic() - began < 60
    assert line.startswith("train_san: node 1 (")
    assert "is lost: no sign of life for 30 s" in line
    second.communicate(timeout=60)
    network.nodes[1].plug_cable()
    log = _log_of(start(command)[0])
    assert "resuming after epoch" in log
    assert "epoch 16/16" in log


def test_node_with_a_wrong_flag_ends_the_other_at_once(tiny, start, network):
    command = _in_bucket(step_command("train_san", tiny), "flag")
    first, second = start(command, others=[*command, "--no-such-flag", "1"])
    began = time.monotonic()
    line = _line(_log_of(first, fails=True))
    assert time.monotonic() - began < 60
    assert line.startswith("train_san: node 1 (")
    assert line.endswith("has ended: its command line is wrong, as its log says")
    assert second.wait(60)
