"""A step on several nodes, before a stub of a Kubernetes API with Kubeflow Trainer."""

import json
import os
import signal
import threading
import time
from types import SimpleNamespace

import pytest

from components.__main__ import main
from components.nodes import api, on_nodes
from components.process import messages
from components.storage import retry
from components.storage.object_store import ObjectStorage
from components.storage.places import open_storage
from components.storage.transfer import check_uri_replaceable
from tests.components.nodes.pod import RUN, template, words
from tests.servers.certificates import self_signed
from tests.servers.trainer_stub import (
    LATER_PODS,
    TOKEN,
    WORKFLOW,
    TrainerStub,
    node_pod,
    problems_of,
    status,
)

LOG = """2026-11-29T10:00:00.000000001Z recipe: {}
2026-11-29T10:00:00.500000000Z epoch 1/2  loss 2.00
2026-11-29T10:00:01.000000000Z epoch 2/2  loss 1.00
"""


def put_outputs(body: dict) -> None:
    """What node 0 leaves, where the TrainJob's command says."""
    given = body["spec"]["trainer"]["args"]
    uris = dict(zip(given[::2], given[1::2], strict=True))
    parent, _, name = uris["--losses"].rpartition("/")
    open_storage(parent).put_bytes(name, b'{"loss": 1.0}')
    open_storage(parent).put_bytes("training_page", b"<html></html>")
    for file in ("recipe.json", "weights.safetensors"):
        open_storage(uris["--model"]).put_bytes(file, b"{}")


def only_job(stub: TrainerStub) -> dict:
    (created,) = stub.asked("POST")
    return created.body


def last_words() -> str:
    return messages.TERMINATION_LOG.read_text()


def leave_behind(stub: TrainerStub, given: list[str]) -> None:
    """Let an attempt lose the API, so that it ends while its TrainJob goes on."""
    stub.statuses = [{}]
    stub.is_away = lambda: len(stub.asked("GET", "/pods")) > 2
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(api, "PATIENCE", retry.Backoff(total=0.01, first=0.01))
        assert main(given) == 1
    stub.is_away = lambda: False


def fail(stub: TrainerStub, *pods, reason: str = "FailedJobs") -> None:
    """Let the next TrainJob fail, its pods as they are made of its name."""
    stub.statuses = [status("Failed", reason, "jobset failed due to one or more job failures")]
    stub.on_create = lambda body: stub.pods.__setitem__(
        0, [pod(body["metadata"]["name"]) for pod in pods]
    )


@pytest.mark.s3
def test_outputs_of_the_nodes_become_those_of_the_pod(stub, s3, tmp_path, capfd):
    root = f"{s3}/root"
    stub.on_create = put_outputs
    stub.statuses = [{}, status("Suspended"), {}, status("Complete")]
    stub.log = LOG
    name = "san-train-san-" + "0" * 16
    stub.pods = [
        [node_pod(name, 0, "Pending", waiting="ContainerCreating")],
        [node_pod(name, 0, "Running"), node_pod(name, 1, "Running")],
    ]
    assert main(words(root, tmp_path, "--checkpoint", "")) == 0
    assert (tmp_path / "model" / "weights.safetensors").read_bytes() == b"{}"
    assert (tmp_path / "training_page").read_bytes() == b"<html></html>"
    assert not (tmp_path / "events").exists()
    told = json.loads((tmp_path / "executor_output.json").read_text())["artifacts"]
    assert told["losses"]["artifacts"][0]["metadata"] == {"loss": 1.0}
    assert open_storage(f"{root}/san-nodes").is_empty()  # nothing stays
    assert stub.jobs == {}
    log = capfd.readouterr().err
    assert log.count("epoch 1/2  loss 2.00\n") == log.count("epoch 2/2  loss 1.00\n") == 1
    assert "suspended (Suspended)" in log
    assert (
        "node 0 (san-train-san-0000000000000000-node-0-0-aaaaa) pending (ContainerCreating)" in log
    )


def test_nodes_are_told_uris_and_settings_and_the_place_of_checkpoints(stub, tmp_path, capfd):
    fail(stub)
    assert main(words("s3://b/root", tmp_path, "--seed", "3", "--onnx", "true")) == 1
    body = only_job(stub)
    name = body["metadata"]["name"]
    given = body["spec"]["trainer"]["args"]
    told = dict(zip(given[::2], given[1::2], strict=True))
    assert told["--dataset"] == "s3://b/root/reid"
    assert told["--model"] == f"s3://b/root/san-nodes/{name}/model"
    assert told["--checkpoint"] == "s3://b/root/san-checkpoints"
    assert (told["--seed"], told["--onnx"], told["--recipe"]) == ("3", "true", "demo-baseline")
    assert "--textures" not in told  # it was not passed
    assert "--executor-input" not in told
    assert body["metadata"]["ownerReferences"] == [WORKFLOW]
    assert problems_of(body) == []
    assert stub.asked("POST")[0].query == {"fieldValidation": "Strict"}


def test_pods_of_the_nodes_have_the_account_of_the_pod_that_follows(stub, tmp_path):
    fail(stub)
    main(words("s3://b/root", tmp_path))
    (patch,) = only_job(stub)["spec"]["runtimePatches"]
    (job,) = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    assert job["template"]["spec"]["template"]["spec"]["serviceAccountName"] == "default-editor"


@pytest.mark.s3
def test_a_later_attempt_goes_on_with_the_trainjob_that_is_there(
    stub, s3, tmp_path, monkeypatch, capfd
):
    stub.on_create = put_outputs
    given = words(f"{s3}/root", tmp_path)
    leave_behind(stub, given)
    assert "if the TrainJob is there, it goes on, and the next attempt follows it" in last_words()
    stub.statuses = [status("Complete")]
    monkeypatch.setenv("HOSTNAME", LATER_PODS[0])
    assert main(given) == 0
    assert len(stub.asked("POST")) == 2
    assert len(stub.asked("PATCH")) == 1
    assert "following TrainJob" in capfd.readouterr().err
    assert (tmp_path / "model" / "recipe.json").exists()


@pytest.mark.s3
def test_a_later_attempt_replaces_a_trainjob_that_failed(stub, s3, tmp_path, capfd):
    fail(stub)
    assert main(words(f"{s3}/root", tmp_path)) == 1
    (first,) = stub.jobs
    stub.looks_until_gone = 3
    stub.statuses = [status("Failed"), {}, status("Complete")]
    stub.on_create = put_outputs
    assert main(words(f"{s3}/root", tmp_path)) == 0
    assert [one.path.rpartition("/")[2] for one in stub.asked("DELETE")] == [first, first]
    assert stub.asked("DELETE")[0].body["propagationPolicy"] == "Foreground"
    assert "of an earlier attempt" in capfd.readouterr().err


@pytest.mark.s3
def test_outputs_that_were_handed_on_and_lost_are_made_again(stub, s3, tmp_path, capfd):
    stub.statuses = [status("Complete")]
    assert main(words(f"{s3}/root", tmp_path)) == 1  # nothing is there
    assert "is complete, but left nothing at" in last_words()
    stub.on_create = put_outputs
    assert main(words(f"{s3}/root", tmp_path)) == 0
    assert "its outputs are gone: creating it anew" in capfd.readouterr().err


@pytest.mark.s3
def test_outputs_whose_deletion_broke_off_may_be_made_again(stub, s3, tmp_path, monkeypatch, capfd):
    delete = ObjectStorage.delete

    def break_off(storage, name):
        if name == "weights.safetensors":
            raise OSError("no right to delete")
        delete(storage, name)

    monkeypatch.setattr(ObjectStorage, "delete", break_off)
    stub.on_create = put_outputs
    stub.statuses = [status("Complete")]
    assert main(words(f"{s3}/root", tmp_path)) == 0
    assert "cannot be cleaned up: no right to delete" in capfd.readouterr().err
    uri = f"{s3}/root/san-nodes/{only_job(stub)['metadata']['name']}/model"
    assert open_storage(uri).stat("recipe.json") is None
    check_uri_replaceable(uri, is_file=False)


def test_a_trainjob_of_another_request_is_refused(stub, tmp_path):
    fail(stub)
    main(words("s3://b/root", tmp_path))
    assert main(words("s3://b/root", tmp_path, "--seed", "1")) == 1
    assert "has a different TrainJob" in last_words()


def test_another_run_or_task_has_another_name(stub, tmp_path):
    fail(stub)
    for run in (RUN, RUN.replace("1", "2")):
        given = [one.replace(RUN, run) for one in words("s3://b/root", tmp_path)]
        main([one.replace("-00000000ff", "-00000000ee") for one in given])
    assert len(stub.jobs) == 2


def test_failure_is_reported_with_the_message_of_node_0(stub, tmp_path, capfd):
    line = "train_san: node 1 (host) is lost: no sign of life for 30 s. Run again"
    fail(
        stub,
        lambda job: node_pod(job, 0, "Failed", exit_code=1, reason="Error", message=line),
        lambda job: node_pod(job, 1, "Failed", exit_code=137, reason="OOMKilled"),
    )
    assert main(words("s3://b/root", tmp_path)) == 1
    expected = f"{line}; node 1 ended as OOMKilled (137)"
    assert last_words() == expected
    assert capfd.readouterr().err.splitlines()[-1] == expected


def test_exit_status_is_that_of_the_node_with_a_message(stub, tmp_path):
    message = "train_san: recipe 'demo' needs textures (--textures), none were given"
    fail(stub, lambda job: node_pod(job, 0, "Failed", exit_code=2, message=message))
    assert main(words("s3://b/root", tmp_path)) == 2
    assert last_words() == message


def test_a_pod_that_was_evicted_or_whose_node_is_gone_is_named(stub, tmp_path):
    fail(
        stub,
        lambda job: node_pod(job, 0, "Succeeded", exit_code=0),
        lambda job: node_pod(job, 1, "Failed", pod_reason="NodeLost"),
    )
    assert main(words("s3://b/root", tmp_path)) == 1
    assert last_words() == "train_san: node 1 ended as NodeLost"


def test_a_node_that_was_started_again_speaks_by_its_newest_pod(stub, tmp_path):
    fail(
        stub,
        lambda job: node_pod(job, 0, "Failed", exit_code=1, message="train_san: old"),
        lambda job: node_pod(job, 0, "Failed", exit_code=1, message="train_san: new", attempt="b"),
    )
    main(words("s3://b/root", tmp_path))
    assert last_words() == "train_san: new"


def test_message_of_a_deleted_pod_is_reported(stub, tmp_path):
    """As Kubernetes does with the pods of a job that has failed too often."""
    fail(stub, lambda job: node_pod(job, 0, "Running", exit_code=2, message="train_san: why"))
    stub.statuses = [{}, *stub.statuses]
    stub.pods = [[], []]
    assert main(words("s3://b/root", tmp_path)) == 2
    assert last_words() == "train_san: why"


def test_without_pods_the_condition_is_the_message(stub, tmp_path):
    fail(stub)
    assert main(words("s3://b/root", tmp_path)) == 1
    assert last_words() == (
        "train_san: the TrainJob failed (FailedJobs: jobset failed due to one or more job failures)"
    )


def test_a_trainjob_that_ran_out_of_time_says_what_gives_it_more(stub, tmp_path):
    fail(stub, reason="DeadlineExceeded")
    assert main(words("s3://b/root", tmp_path, job=template("--timeout", "train_san=2h"))) == 1
    assert last_words().endswith("exceeded its 7200 s; --timeout allows more")


@pytest.mark.parametrize(
    ("kind", "verb"),
    [("trainjobs", "create"), ("trainjobs", "get"), ("pods", "list"), ("pods", "get")],
)
def test_missing_permissions_of_the_role_are_one_line(stub, tmp_path, kind, verb):
    for rule in stub.rules:
        if kind in rule["resources"]:
            rule["verbs"].remove(verb)
    assert main(words("s3://b/root", tmp_path)) == 1
    told = last_words()
    assert f'cannot {verb} resource "{kind}"' in told
    assert "docker/README.md, section Nodes on Kubeflow" in told
    assert TOKEN not in told


def test_a_role_that_may_not_adopt_is_one_line_and_the_trainjob_goes_on(
    stub, tmp_path, monkeypatch
):
    leave_behind(stub, words("s3://b/root", tmp_path))
    (before,) = stub.jobs.values()
    stub.statuses = [{}, {}, status("Failed")]
    for rule in stub.rules:
        rule["verbs"] = [verb for verb in rule["verbs"] if verb != "patch"]
    monkeypatch.setenv("HOSTNAME", LATER_PODS[0])
    assert main(words("s3://b/root", tmp_path)) == 1
    told = last_words()
    assert "the service account of this pod lacks a right: trainjobs is forbidden" in told
    assert 'cannot patch resource "trainjobs"' in told
    assert told.endswith("docker/README.md, section Nodes on Kubeflow, has the role that it needs")
    assert [*stub.jobs.values()] == [before]
    assert stub.asked("DELETE") == []


def test_a_trainjob_that_is_denied_is_no_lack_of_a_right(stub, tmp_path):
    stub.denial = 'spec.runtimeRef: Invalid value: "mine": the runtime does not exist'
    assert main(words("s3://b/root", tmp_path)) == 1
    assert last_words() == (
        "train_san: the Kubernetes API refuses: admission webhook"
        f' "validator.trainjob.trainer.kubeflow.org" denied the request: {stub.denial} (403)'
    )


def test_a_log_that_may_not_be_read_is_warned_of_and_no_more(stub, tmp_path, capfd):
    stub.rules = [rule for rule in stub.rules if rule["resources"] != ["pods/log"]]
    fail(stub, lambda job: node_pod(job, 0, "Running"))
    main(words("s3://b/root", tmp_path))
    assert "the log of node 0 cannot be read" in capfd.readouterr().err


def test_a_cluster_without_trainer_is_one_line(stub, tmp_path):
    stub.has_trainer = False
    assert main(words("s3://b/root", tmp_path)) == 1
    assert "this cluster has no Kubeflow Trainer (trainer.kubeflow.org/v1alpha1)" in last_words()


def test_a_trainer_that_would_drop_fields_refuses(stub, tmp_path):
    stub.unknown = ("runtimePatches",)
    assert main(words("s3://b/root", tmp_path)) == 1
    assert "Kubeflow Trainer is too old here, 2.2 is needed" in last_words()


@pytest.fixture
def clock(monkeypatch):
    """A clock for retries that pauses move on, instead of waiting."""
    now = [0.0]
    monkeypatch.setattr(retry, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(retry, "pause", lambda seconds: now.__setitem__(0, now[0] + seconds))
    return now


def test_an_api_that_is_away_for_a_minute_is_waited_for(stub, tmp_path, clock, capfd):
    fail(stub)
    stub.statuses = [{}, {}, *stub.statuses]
    stub.is_away = lambda: len(stub.requests) == 5 and clock[0] < 60
    assert main(words("s3://b/root", tmp_path)) == 1
    assert clock[0] >= 60
    assert len(stub.asked("POST")) == 1
    assert "the TrainJob failed" in last_words()
    assert "cannot reach the Kubernetes API" not in last_words()


def test_an_api_that_stays_away_ends_the_pod_and_not_the_trainjob(stub, tmp_path, clock):
    stub.is_away = lambda: len(stub.requests) == 5
    assert main(words("s3://b/root", tmp_path)) == 1
    assert 500 < clock[0] <= 600
    told = last_words()
    assert "cannot reach the Kubernetes API at https://127.0.0.1" in told
    assert told.endswith("; if the TrainJob is there, it goes on, and the next attempt follows it")
    assert len(stub.jobs) == 1


def test_a_trainjob_whose_creation_broke_off_is_created_once(stub, tmp_path, clock, monkeypatch):
    """The request has arrived, and its answer has not."""
    fail(stub)
    answer = TrainerStub._answer
    broken = []

    def break_off(self, method, asked, data):
        result = answer(self, method, asked, data)
        if method == "POST" and not broken:
            broken.append(method)
            return 504, b"gateway timeout"
        return result

    monkeypatch.setattr(TrainerStub, "_answer", break_off)
    stub.statuses = [{}, *stub.statuses]
    assert main(words("s3://b/root", tmp_path)) == 1
    assert len(stub.asked("POST")) == 2
    assert len(stub.jobs) == 1


def test_creation_is_not_repeated_without_a_pause(stub, tmp_path, monkeypatch):
    """Some other object is in the way: the name is taken, and no TrainJob has it."""
    pauses = []

    def give_up(seconds):
        pauses.append(seconds)
        if len(pauses) == 3:
            raise OSError("enough")

    monkeypatch.setattr(on_nodes, "time", SimpleNamespace(sleep=give_up))
    monkeypatch.setattr(api.Kubernetes, "create_train_job", raise_conflict)
    assert main(words("s3://b/root", tmp_path)) == 1
    assert last_words() == "train_san: enough"
    assert pauses == [on_nodes.SECONDS_BETWEEN_LOOKS] * 3


def raise_conflict(*_):
    raise api.ConflictError("it exists")


def test_deletion_of_a_trainjob_is_reported(stub, tmp_path):
    stub.on_create = lambda _: threading.Timer(0.3, stub.jobs.clear).start()
    assert main(words("s3://b/root", tmp_path)) == 1
    assert "was deleted while it ran" in last_words()


def test_a_pod_that_is_stopped_deletes_its_trainjob(stub, tmp_path, capfd):
    def stop() -> None:
        while not stub.asked("GET", "/pods"):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop, daemon=True).start()
    begun = time.monotonic()
    assert main(words("s3://b/root", tmp_path)) == 143
    assert stub.jobs == {}
    assert last_words() == "train_san: stopped by SIGTERM"
    assert "is deleted" in capfd.readouterr().err
    assert time.monotonic() - begun < 60


def test_a_pod_that_is_stopped_while_the_api_is_away_ends_all_the_same(stub, tmp_path, capfd):
    def stop() -> None:
        while not stub.asked("GET", "/pods"):
            time.sleep(0.01)
        stub.is_away = lambda: True
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop, daemon=True).start()
    assert main(words("s3://b/root", tmp_path)) == 143
    assert "may remain: cannot reach the Kubernetes API" in capfd.readouterr().err


def test_the_token_is_read_for_every_request(stub, tmp_path):
    fail(stub)
    main(words("s3://b/root", tmp_path))
    (api.SERVICE_ACCOUNT / "token").write_text("old")
    assert main(words("s3://b/root", tmp_path)) == 1
    assert "Unauthorized (401)" in last_words()


def test_outside_of_a_cluster_one_line_says_so(stub, tmp_path, monkeypatch):
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST")
    assert main(words("s3://b/root", tmp_path)) == 1
    assert last_words() == (
        "train_san: this is not a pod of a Kubernetes cluster: KUBERNETES_SERVICE_HOST is not set"
    )


def test_a_pod_without_a_service_account_is_reported(stub, tmp_path):
    (api.SERVICE_ACCOUNT / "token").unlink()
    assert main(words("s3://b/root", tmp_path)) == 1
    assert "this pod has no service account" in last_words()


def test_a_pod_that_does_not_know_its_name_says_so(stub, tmp_path, monkeypatch):
    monkeypatch.delenv("HOSTNAME")
    assert main(words("s3://b/root", tmp_path)) == 1
    assert last_words() == "train_san: the name of this pod is unknown: set KFP_POD_NAME"


def test_an_api_with_another_certificate_is_not_trusted(stub, tmp_path):
    other, _ = self_signed(tmp_path)
    (api.SERVICE_ACCOUNT / "ca.crt").write_bytes(other.read_bytes())
    assert main(words("s3://b/root", tmp_path)) == 1
    assert "is not trusted" in last_words()


@pytest.mark.parametrize("root", ["/tmp/root", "gs://b/root"])
def test_a_pipeline_root_that_nodes_cannot_use_is_refused(stub, tmp_path, root):
    assert main(words(root, tmp_path, "--checkpoint", "none")) == 2
    assert (
        "several nodes need Kubeflow Pipelines and a pipeline root at s3:// or minio://"
        in last_words()
    )
    assert stub.requests == []


def test_an_input_that_nodes_cannot_fetch_is_refused(stub, tmp_path):
    given = [
        one.replace("s3://b/root/reid", "gs://b/reid") for one in words("s3://b/root", tmp_path)
    ]
    assert main(given) == 1
    assert "dataset is at gs://b/reid: nodes read artifacts at s3:// and minio://" in last_words()
    assert stub.asked("POST") == []


def test_wrong_words_are_a_wrong_usage(stub, tmp_path, capfd):
    assert main(["on_nodes", "--job", "{}", "evaluate"]) == 2
    assert main(words("s3://b/root", tmp_path, "--sead", "1")) == 2
    assert "--sead" in capfd.readouterr().err
    given = words("s3://b/root", tmp_path)
    assert main([*given[:2], "no json", *given[3:]]) == 2
    assert "argument --job is not JSON" in capfd.readouterr().err
