"""Options of the command line for the requests of pods."""

import argparse

import pytest

from components.__main__ import STEPS
from components.kubeflow import cluster_options
from components.kubeflow.cluster import Identity
from components.kubeflow.words import S3_KEYS, Toleration
from components.process.gpu import GPU_STEPS
from tests.write_golden import asked


def test_a_step_named_counts_more_than_all_in_any_order():
    assert asked("--cpu", "evaluate=8", "--cpu", "2").cpu == {
        **dict.fromkeys(STEPS, "2"),
        "evaluate": "8",
    }
    assert asked("--memory", "make_pit=1Gi").memory == {"make_pit": "1Gi"}


@pytest.mark.parametrize(
    ("given", "written"),
    [("16Gi", "16Gi"), ("1.5Gi", "1536Mi"), ("2.0Gi", "2Gi"), ("0.25T", "250G"), ("1.5M", None)],
)
def test_parts_of_a_size_become_smaller_units(given, written):
    if written is None:
        with pytest.raises(ValueError, match="not a whole number of M"):
            asked("--memory", given)
    else:
        chosen = asked("--memory", given, "--shm", given)
        assert set(chosen.memory.values()) == set(chosen.shm.values()) == {written}


def test_place_of_a_step_is_added_to_that_of_all_and_counts_more():
    found = asked(
        *("--node-selector", "disk=ssd", "--node-selector", "pool=gpu"),
        *("--node-selector", "train_san=pool=a100", "--node-selector", "evaluate=pool=cpu"),
        *("--toleration", "gpu", "--toleration", "train_san=nvidia.com/gpu:NoSchedule"),
        *("--toleration", "make_pit=spot=yes"),
    )
    usual = {"disk": "ssd", "pool": "gpu"}
    assert found.node_selector == {
        **dict.fromkeys(GPU_STEPS, usual),
        "train_san": {"disk": "ssd", "pool": "a100"},
        "evaluate": {"pool": "cpu"},
    }
    anywhere = Toleration("gpu", "", "")
    assert found.tolerations == {
        **{step: [anywhere] for step in GPU_STEPS},
        "train_san": [anywhere, Toleration("nvidia.com/gpu", "", "NoSchedule")],
        "make_pit": [Toleration("spot", "yes", "")],
    }


def test_kind_of_gpu_is_that_of_the_step():
    found = asked("--gpu-type", "amd.com/gpu", "--gpu-type", "train_san=nvidia.com/gpu").gpu_type
    assert found == {**dict.fromkeys(GPU_STEPS, "amd.com/gpu"), "train_san": "nvidia.com/gpu"}


def test_several_processes_on_slices_of_a_gpu_are_refused():
    one = ("--gpu-type", "nvidia.com/mig-1g.10gb")
    assert asked(*one).gpus["train_san"] == 1
    with pytest.raises(ValueError, match=r"a process sees only one nvidia\.com/mig-1g\.10gb"):
        asked(*one, "--gpus", "train_san=2")
    with pytest.raises(ValueError, match=r"--gpus train_san(_pg)?=4: a process sees only one"):
        asked(*one, "--gpus", "4")


def test_value_of_an_annotation_may_be_any_text():
    found = asked("--annotation", "a.b/c=x=y {z}", "--annotation", "evaluate=a.b/c=own")
    assert found.annotations["make_pit"] == {"a.b/c": "x=y {z}"}
    assert found.annotations["evaluate"] == {"a.b/c": "own"}


def test_help_says_that_pauses_do_not_grow_and_what_is_requested_without_asking():
    parser = argparse.ArgumentParser()
    cluster_options.add_cluster_options(parser)
    text = " ".join(parser.format_help().split())
    assert "pause before each further attempt; it does not grow" in text
    assert "a request of make_pit 1Gi, prepare_reid 512Mi, generate_textures 2Gi" in text


def test_no_user_is_set_by_default():
    assert asked().identity == Identity()
    assert asked("--run-as-user", "0").identity == Identity(user=0)


def test_variable_given_by_env_is_not_taken_from_a_secret_without_a_list():
    found = asked("--secret", "a", "--env", "AWS_REGION=eu", "--env", "OTHER=1")
    secret, _ = found.secrets
    assert set(secret.variables.values()) == set(S3_KEYS) - {"AWS_REGION"}
    assert found.env == {"AWS_REGION": "eu", "OTHER": "1"}


def test_many_gpus_are_for_the_steps_that_can_use_them():
    assert asked("--gpus", "4").gpus == {
        "train_san_pg": 4,
        "train_san": 4,
        "generate_textures": 1,
        "extract_features": 1,
    }
    assert not any(asked("--gpus", "0").gpus.values())
    one = dict.fromkeys(GPU_STEPS, 1)
    assert asked("--gpus", "train_san=2").gpus == {**one, "train_san": 2}
    assert asked().gpus == dict.fromkeys(GPU_STEPS, 1)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--gpus", "two"], "--gpus two: not a whole number"),
        (["--gpus", "-1"], "--gpus -1: not a whole number"),
        (["--gpus", "generate_textures=2"], "generate_textures uses one GPU at most"),
        (["--gpus", "evaluate=1"], "--gpus evaluate=1: no such step; there are extract_features"),
        (["--cpu", "train_sam=4"], "no such step; did you mean 'train_san'?"),
        (["--cpu", "4 cores"], "--cpu 4 cores: not a number of cores, such as 4"),
        (["--memory", "16"], "--memory 16: not a size, such as 16Gi"),
        (["--shm", "much"], "--shm much: not a size"),
        (["--timeout", "12"], "--timeout 12: not a time, such as 90s"),
        (["--timeout", "0h"], "--timeout 0h: not a time"),
        (["--backoff", "soon"], "--backoff soon: not a time"),
        (["--retries", "-1"], "--retries -1 is not a number from 0"),
        (["--gpu-type", "gpu"], "--gpu-type gpu: not the name of a device, such as nvidia.com/gpu"),
        (["--gpu-type", "train_sam=nvidia.com/gpu"], "no such step; did you mean 'train_san'?"),
        (["--gpu-type", "evaluate=nvidia.com/gpu"], "no such step; there are extract_features"),
        (["--cpu-limit", "2", "--cpu", "4"], "is 2, below the 4 of --cpu"),
        (["--cpu-limit", "500m", "--cpu", "0.6"], "is 500m, below the 0.6 of --cpu"),
        (["--node-selector", "pool"], "--node-selector pool: not of the form [STEP=]LABEL=VALUE"),
        (["--node-selector", "train_san=a100"], "train_san=a100: not of the form [STEP=]LABEL=VA"),
        (["--node-selector", "train_sam=pool=a"], "no such step; did you mean 'train_san'?"),
        (["--node-selector", "pool=a/b"], "--node-selector pool=a/b: not of the form [STEP=]LABEL"),
        (["--toleration", "train_sam=a=b"], "no such step; did you mean 'train_san'?"),
        (["--toleration", "train_sam=nvidia.com/gpu:NoSchedule"], "not of the form [STEP=]KEY"),
        (["--toleration", "a", "--toleration", "a"], "--toleration a is given 2 times"),
        (["--label", "queue"], "--label queue: not of the form [STEP=]LABEL=VALUE"),
        (["--label", "a=1", "--label", "a=2"], "--label a is given 2 times"),
        (["--annotation", "inject"], "--annotation inject: not of the form [STEP=]NAME=VALUE"),
        (["--ephemeral-storage", "much"], "--ephemeral-storage much: not a size"),
        (["--run-as-user", "-1"], "--run-as-user -1 is not a number from 0"),
        (["--run-as-user", "0", "--run-as-non-root"], "is root, which --run-as-non-root refuses"),
        (["--cpu", "4", "--env", "SAN_CPUS=2"], "SAN_CPUS is given 2 times, by --env and --cpu"),
        (["--ephemeral-storage", "1Gi", "--env", "TMPDIR=/x"], "by --env and --ephemeral-storage"),
        (["--config-map", "ca"], "--config-map ca: not of the form NAME:/FOLDER"),
        (["--config-map", "ca:certs"], "--config-map ca:certs: not of the form NAME:/FOLDER"),
        (["--secret-files", "a.b:/d"], "--secret-files a.b:/d: not of the form NAME:/FOLDER"),
        (
            ["--config-map", "ca:/a", "--secret-files", "ca:/b"],
            "the pods have a volume of this name",
        ),
        (
            ["--config-map", "ca:/a", "--secret-files", "b:/a"],
            "something else is already mounted at /a",
        ),
        (["--volume", "a:/dev/shm"], "--volume a: something else is already mounted at /dev/shm"),
        (["--volume", "shm:/a"], "--volume shm: the pods have a volume of this name"),
        (["--toleration", "gpu:Never"], "not of the form [STEP=]KEY[=VALUE][:EFFECT]"),
        (["--secret", "a:b"], "--secret a:b: not of the form NAME or NAME:KEY=VARIABLE"),
        (["--secret", "Bad_Name"], "--secret Bad_Name: not of the form NAME"),
        (["--env", "X"], "--env X: not of the form NAME=VALUE"),
        (["--volume", "claim:data"], "--volume claim:data: not of the form NAME:/FOLDER"),
        (["--volume", "a:/../x"], "--volume a:/../x: not of the form NAME:/FOLDER"),
        (["--volume", "a:/x/./y"], "--volume a:/x/./y: not of the form NAME:/FOLDER"),
        (["--volume", "a:/x/.."], "--volume a:/x/..: not of the form NAME:/FOLDER"),
        (["--secret", "a:k=1X"], "--secret a:k=1X: not of the form NAME"),
        (["--secret", "a:k=X Y"], "--secret a:k=X Y: not of the form NAME"),
        (["--secret", "a:k=X,k=Y"], "--secret a:k=X,k=Y: key k is given 2 times"),
        (["--secret", "a:k=X,l=X"], "variable X is given 2 times"),
        (["--secret", "a:k=X", "--secret", "b:k=X"], "variable X is given 2 times"),
        (["--secret", "a:k=X", "--env", "X=1"], "variable X is given 2 times"),
        (["--secret", "a:k=X", "--env", "X=1"], "by --secret a and --env; give it once"),
        (["--secret", "a", "--secret", "a"], "--secret a is given 2 times"),
        (["--secret", "a", "--secret", "b"], "variable AWS_ACCESS_KEY_ID is given 2 times"),
        (["--secret", "a", "--secret", "b:k=AWS_REGION"], "AWS_REGION is given 2 times, by --s"),
        (["--env", "\u00c4=1"], "--env \u00c4: not of the form NAME=VALUE"),
        (["--env", "A=1", "--env", "A=2"], "variable A is given 2 times"),
        (["--node-selector", "a=1", "--node-selector", "a=2"], "--node-selector a is given 2 t"),
        (["--gpus", "2", "--gpus", "4"], "--gpus of all steps is given 2 times"),
        (["--cpu", "evaluate=2", "--cpu", "evaluate=4"], "--cpu of evaluate is given 2 times"),
        (["--cpu", "0"], "--cpu 0: not a number of cores"),
        (["--cpu", "0.0"], "--cpu 0.0: not a number of cores"),
        (["--cpu", "0m"], "--cpu 0m: not a number of cores"),
        (["--memory", "0Gi"], "--memory 0Gi: not a size"),
        (["--memory", "8K"], "--memory 8K: not a size"),
        (["--memory", "0.0001Ki"], "--memory 0.0001Ki: not a whole number of Ki"),
        (
            ["--volume", "a:/d", "--volume", "b:/d"],
            "--volume b: something else is already mounted at /d",
        ),
        (
            ["--volume", "a:/d", "--volume", "a:/e"],
            "--volume a: the pods have a volume of this name",
        ),
    ],
)
def test_what_is_not_understood_is_refused(words, message):
    with pytest.raises(ValueError) as found:
        asked(*words)
    assert message in str(found.value)


def test_credentials_in_the_environment_are_refused_and_not_repeated():
    with pytest.raises(ValueError, match="a compiled pipeline must not contain") as found:
        asked("--env", "AWS_SECRET_ACCESS_KEY=hunter2")
    assert "hunter2" not in str(found.value)
