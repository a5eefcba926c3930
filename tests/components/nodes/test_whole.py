"""A TrainJob whose nodes are processes of this machine, started as Kubeflow Trainer starts them."""

import json
import os
import socket
import subprocess
import sys

import pytest

from components.__main__ import main
from components.command.code import ROOT
from components.storage.places import open_storage
from san_core.model.saved import read_description
from tests.components.nodes.pod import template, words
from tests.servers.trainer_stub import status

pytestmark = [pytest.mark.s3, pytest.mark.slow]

OVERRIDES = "epochs=2 identities_per_batch=4 images_per_identity=2 warmup_epochs=0"


class Nodes:
    """The nodes of a TrainJob: its command, with the variables of Trainer's runtime for torch."""

    def __init__(self, folder) -> None:
        self.folder = folder
        self.processes = []

    def start(self, body) -> None:
        trainer = body["spec"]["trainer"]
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        for node in range(trainer["numNodes"]):
            home = self.folder / f"node-{node}"
            home.mkdir()
            variables = {
                "PET_NNODES": trainer["numNodes"],
                "PET_NPROC_PER_NODE": trainer["numProcPerNode"],
                "PET_NODE_RANK": node,
                "PET_MASTER_ADDR": "127.0.0.1",
                "PET_MASTER_PORT": port,
                **dict.fromkeys(("HOME", "TMPDIR", "SAN_CACHE"), home),
                "GLOO_SOCKET_IFNAME": "lo",
            }
            with (home / "log").open("wb") as log:
                process = subprocess.Popen(
                    [*trainer["command"], *trainer["args"]],
                    env={**os.environ, **{name: str(value) for name, value in variables.items()}},
                    cwd=ROOT,
                    stdout=log,
                    stderr=log,
                )
            self.processes.append(process)

    def status(self):
        ended = [process.poll() for process in self.processes]
        if any(ended):
            return status("Failed", "FailedJobs", "jobset failed")
        return status("Complete") if ended == [0] * len(ended) else {}

    def log(self, node: int) -> str:
        return (self.folder / f"node-{node}" / "log").read_text()


@pytest.fixture
def nodes(tmp_path):
    made = Nodes(tmp_path)
    yield made
    for process in made.processes:
        process.kill()
        process.wait()


@pytest.fixture
def with_python_here(tmp_path, monkeypatch):
    """`python`, as a TrainJob calls it, is the interpreter of the tests."""
    folder = tmp_path / "bin"
    folder.mkdir()
    python = folder / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def test_two_nodes_train_and_their_model_is_the_pods(stub, s3, nodes, with_python_here, tmp_path):
    root = f"{s3}/root"
    made = ["prepare_reid", "--reid", f"{root}/reid", "--identities", "9", "--cameras", "2"]
    assert main([*made, "--shots", "2", "--image-height", "64"]) == 0
    stub.on_create = nodes.start
    stub.statuses = [nodes.status]
    job = template(gpus=0)
    given = words(root, tmp_path / "pod", "--overrides", OVERRIDES, job=job)
    assert main(given) == 0, nodes.log(0) + nodes.log(1)
    assert "epoch 2/2" in nodes.log(0)
    assert "epoch" not in nodes.log(1)
    assert read_description(tmp_path / "pod" / "model").recipe.epochs == 2
    assert "SAN" in (tmp_path / "pod" / "training_page").read_text()
    told = json.loads((tmp_path / "pod" / "executor_output.json").read_text())["artifacts"]
    assert told["losses"]["artifacts"][0]["metadata"]["loss"] > 0
    assert open_storage(f"{root}/san-nodes").is_empty()
    assert not open_storage(f"{root}/san-checkpoints").is_empty()
