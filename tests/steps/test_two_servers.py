"""One run on two object stores with different keys: data on s3://, the pipeline root on "
"minio://."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from minio.error import S3Error

from components.__main__ import STEPS, main
from components.command.step import step_parameters
from components.storage.places import open_storage
from components.storage.transfer import send_artifact
from tests.servers.seaweedfs import BUCKET, running_server
from tests.tiny import file_contents, step_command, with_flags, with_outputs_in

pytestmark = pytest.mark.s3

RUN = "6c1b4f0e-2d3a-4b5c-8d9e-0f1a2b3c4d5e"
ID = "0f1a2b3c-4d5e-6f70-8192-a3b4c5d6e7f8"
ROOT = f"minio://{BUCKET}/v2/artifacts"


@pytest.fixture
def kubeflow_store(tmp_path_factory, s3, monkeypatch):
    """The object store of an installation, with its own keys, as a pod is configured for it."""
    folder = tmp_path_factory.mktemp("kubeflow") / "data"
    with running_server(folder, keys=("installation", "its-own-secret")) as server:
        monkeypatch.setenv("MINIO_ENDPOINT", server.endpoint)
        monkeypatch.setenv("MINIO_ACCESS_KEY", server.access_key)
        monkeypatch.setenv("MINIO_SECRET_KEY", server.secret_key)
        yield server


@pytest.fixture
def as_task(tiny, tmp_path):
    """Makes the command of a step as in a pod: without places, with the pipeline root."""

    def make(step, **flags):
        command = with_outputs_in(step_command(step, tiny), tmp_path)
        if "--destination" in command:
            place = command.index("--destination")
            del command[place : place + 2]
        names = [p.name for p in step_parameters(STEPS[step]) if p.is_output]
        told = {"artifacts": {name: {"artifacts": [output(step, name)]} for name in names}}
        told["outputFile"] = str(tmp_path / f"{step}-executor.json")
        return with_flags(command, executor_input=json.dumps({"outputs": told}), **flags)

    return make


def output(step, name):
    """An output as the driver of an uploaded pipeline tells a task of it."""
    return {"uri": f"{ROOT}/pipeline/san-full/{RUN}/{step}/{ID}/{name}"}


def test_run_takes_data_from_one_server_and_keeps_textures_on_the_other(
    tiny, s3, s3_server, kubeflow_store, as_task
):
    send_artifact(Path(tiny.reid), f"{s3}/reid")
    assert main(as_task("generate_textures", dataset=f"{s3}/reid")) == 0
    assert main(as_task("seal_textures", dataset=f"{s3}/reid")) == 0
    storage = open_storage(f"{ROOT}/san-textures")
    found = {stat.name: storage.get(stat.name) for stat in storage.list()}
    assert found == file_contents(Path(tiny.destination))
    assert {stat.name.partition("/")[0] for stat in open_storage(s3).list()} == {"reid"}
    for server, other in ((s3_server, kubeflow_store), (kubeflow_store, s3_server)):
        stranger = replace(server, access_key=other.access_key, secret_key=other.secret_key)
        with pytest.raises(S3Error, match="InvalidAccessKeyId"):
            stranger.client().get_object(BUCKET, "x")


def test_training_goes_on_from_the_checkpoint_in_the_pipeline_root(kubeflow_store, as_task, caplog):
    command = as_task("train_san_pg")
    assert main(command) == 0
    kept = {stat.name.partition("/")[2] for stat in open_storage(f"{ROOT}/san-checkpoints").list()}
    assert {"run.json", "state.pt", "history.jsonl", "model/weights.safetensors"} <= kept
    with caplog.at_level("INFO"):
        assert main(command) == 0
    assert "resuming after epoch" in caplog.text
