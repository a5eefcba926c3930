"""What pods ask for: read from words, and found again in the compiled pipeline."""

import argparse

import pytest
import yaml
from google.protobuf import json_format
from kfp import components as kfp_components
from kfp.kubernetes import kubernetes_executor_config_pb2 as kubernetes_pb
from kfp.pipeline_spec import pipeline_spec_pb2 as pipeline_pb

from components.__main__ import GPU_STEPS, STEPS
from components.command.step import step_parser
from components.kubeflow import cluster
from components.kubeflow.cluster import Cluster
from components.runner.ir import read_tasks
from pipeline import GRAPHS
from tests.write_golden import CLUSTER_IMAGE, GOLDEN, golden_cluster

IN_FULL = [step for step in STEPS if step != "take_generator"]  # it trains its own


def asked(*words: str) -> Cluster:
    parser = argparse.ArgumentParser()
    cluster.add_cluster_options(parser)
    return cluster.cluster_from_options(parser.parse_args(words))


@pytest.fixture(scope="module")
def documents(tmp_path_factory) -> list[dict]:
    """The graph `full` with every option: its definition and its platform specification."""
    file = tmp_path_factory.mktemp("cluster") / "full.yaml"
    GRAPHS["full"].compile(file, image=CLUSTER_IMAGE, cluster=golden_cluster())
    return list(yaml.safe_load_all(file.read_text("utf-8")))


def container(documents: list[dict], step: str) -> dict:
    name = f"exec-{step.replace('_', '-')}"
    return documents[0]["deploymentSpec"]["executors"][name]["container"]


def platform(documents: list[dict], step: str) -> dict:
    executors = documents[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    return executors[f"exec-{step.replace('_', '-')}"]


def test_pipeline_on_a_cluster_is_the_golden_one(documents):
    """Renew it by `make golden`."""
    golden = list(yaml.safe_load_all((GOLDEN / "cluster.yaml").read_text("utf-8")))
    assert [{**documents[0], "sdkVersion": ""}, documents[1]] == [
        {**golden[0], "sdkVersion": ""},
        golden[1],
    ]


def test_both_documents_are_of_kfps_schema(documents):
    json_format.ParseDict(documents[0], pipeline_pb.PipelineSpec())
    json_format.ParseDict(documents[1], pipeline_pb.PlatformSpec())
    for step in IN_FULL:
        json_format.ParseDict(platform(documents, step), kubernetes_pb.KubernetesExecutorConfig())
    loaded = kfp_components.load_component_from_text(yaml.safe_dump_all(documents))
    assert loaded.pipeline_spec.pipeline_info.name == "san-full"


def test_command_of_every_task_still_parses_by_the_steps_own_command_line(documents):
    places = {"destination": "s3://b/d", "checkpoint": "s3://b/c"}
    for task in read_tasks(documents[0], places):
        words = task.words[task.words.index("components") + 1 :]
        given = vars(step_parser(STEPS[words[0]]).parse_args(words[1:]))
        assert given["executor_input"] == "{{$}}"
        assert {name: given[name] for name in task.parameters} == dict(task.parameters)


def test_more_than_one_gpu_starts_as_many_processes_in_the_pod(documents):
    command = container(documents, "train_san")["command"]
    torchrun = ["torch.distributed.run", "--standalone", "--nproc-per-node=4"]
    assert command == ["python", "-m", *torchrun, "-m", "components", "train_san"]
    assert container(documents, "train_san_pg")["command"] == [
        *("python", "-m", "components", "train_san_pg")
    ]


@pytest.mark.parametrize("step", IN_FULL)
def test_steps_ask_for_gpus_cores_and_memory(documents, step):
    resources = container(documents, step)["resources"]
    is_large = step == "train_san"
    count = resources.get("accelerator", {}).get("resourceCount")
    assert count == ("4" if is_large else "1" if step in GPU_STEPS else None)
    assert resources["resourceCpuRequest"] == ("16" if is_large else "2")
    assert "resourceCpuLimit" not in resources
    assert resources["resourceMemoryRequest"] == ("64Gi" if is_large else "8Gi")
    assert resources["resourceMemoryLimit"] == resources["resourceMemoryRequest"]


@pytest.mark.parametrize("step", IN_FULL)
def test_only_steps_with_gpus_go_to_their_nodes(documents, step):
    found = platform(documents, step)
    assert ("nodeSelector" in found) is (step in GPU_STEPS)
    assert ("tolerations" in found) is (step in GPU_STEPS)


def test_without_gpus_every_step_goes_to_the_nodes():
    chosen = asked("--gpus", "0", "--node-selector", "pool=cheap")
    documents = compiled_twice("baseline", chosen)
    for step in ("prepare_reid", "train_san", "evaluate"):
        assert platform(documents, step)["nodeSelector"] == {"labels": {"pool": "cheap"}}
        assert "resources" not in container(documents, step)


def compiled_twice(graph: str, chosen: Cluster) -> list[dict]:
    """Definition and platform specification, without a file."""
    made = GRAPHS[graph].pipeline(CLUSTER_IMAGE, chosen)
    return [json_format.MessageToDict(one) for one in (made.pipeline_spec, made.platform_spec)]


def test_tasks_are_tried_again_with_growing_pauses_and_end_in_time(documents):
    every = [
        *documents[0]["root"]["dag"]["tasks"].values(),
        *documents[0]["components"]["comp-for-loop-1"]["dag"]["tasks"].values(),
    ]
    policies = [task["retryPolicy"] for task in every if "parameterIterator" not in task]
    assert len(policies) == len(IN_FULL)
    for policy in policies:
        assert policy == {
            "maxRetryCount": 3,
            "backoffDuration": "30s",
            "backoffFactor": 2.0,
            "backoffMaxDuration": f"{30 * 24 * 3600}s",  # in which all attempts must begin
        }
    assert platform(documents, "train_san")["activeDeadlineSeconds"] == str(2 * 24 * 3600)
    assert platform(documents, "evaluate")["activeDeadlineSeconds"] == str(6 * 3600)


def test_shared_memory_is_what_is_asked_for_or_what_several_processes_need(documents):
    (mount,) = platform(documents, "train_san")["emptyDirMounts"]
    assert (mount["mountPath"], mount["medium"], mount["sizeLimit"]) == (
        *("/dev/shm", "Memory", "8Gi"),
    )
    assert "emptyDirMounts" not in platform(documents, "evaluate")
    (mount,) = platform(compiled_twice("baseline", asked("--gpus", "2")), "train_san")[
        "emptyDirMounts"
    ]
    assert mount["sizeLimit"] == "1Gi"


def test_credentials_come_from_secrets_and_stand_nowhere_else(documents):
    for step in IN_FULL:
        storage, other, _ = platform(documents, step)["secretAsEnv"]
        assert storage["secretName"] == "san-storage"
        assert storage["optional"] is True
        by_env = {"AWS_ENDPOINT_URL"}  # which counts more
        assert {one["secretKey"] for one in storage["keyToEnv"]} == set(cluster.S3_KEYS) - by_env
        assert other["keyToEnv"] == [{"envVar": "MINIO_ACCESS", "secretKey": "accesskey"}]
        assert other["optional"] is False
        assert container(documents, step)["env"] == [
            {"name": "AWS_ENDPOINT_URL", "value": "http://seaweedfs.kubeflow:8333"}
        ]


def test_keys_of_minio_are_those_of_the_installation_and_may_be_missing(documents):
    for step in IN_FULL:
        *_, own = platform(documents, step)["secretAsEnv"]
        assert own["secretName"] == "mlpipeline-minio-artifact"
        assert own["optional"] is True
        assert {one["secretKey"]: one["envVar"] for one in own["keyToEnv"]} == {
            "accesskey": "MINIO_ACCESS_KEY",
            "secretkey": "MINIO_SECRET_KEY",
        }


@pytest.mark.parametrize(
    ("words", "secrets"),
    [
        ((), ["mlpipeline-minio-artifact"]),
        (("--secret", "aws"), ["aws", "mlpipeline-minio-artifact"]),
        (("--secret", "mine:a=MINIO_ACCESS_KEY,s=MINIO_SECRET_KEY"), ["mine"]),
        (("--secret", "mine:s=MINIO_SECRET_KEY"), ["mine"]),  # half a pair goes with no other
        (("--secret", "none"), []),
        (("--secret", "none", "--secret", "aws"), ["aws"]),
    ],
)
def test_secret_of_the_installation_is_not_given_where_another_is_asked_for(words, secrets):
    assert [secret.name for secret in asked(*words).secrets] == secrets


def test_volume_is_mounted_where_data_is_read_or_kept(documents):
    mounted = {step for step in IN_FULL if "pvcMount" in platform(documents, step)}
    reading = {"prepare_reid", "generate_textures", "seal_textures", "train_san", "train_san_pg"}
    assert reading <= mounted
    assert not mounted & {"extract_features", "evaluate"}


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
        resources = container(compiled_twice("baseline", chosen), "evaluate")["resources"]
        assert resources["resourceMemoryLimit"] == written


def test_variable_given_by_env_is_not_taken_from_a_secret_without_a_list():
    found = asked("--secret", "a", "--env", "AWS_REGION=eu", "--env", "OTHER=1")
    secret, _ = found.secrets
    assert set(secret.variables.values()) == set(cluster.S3_KEYS) - {"AWS_REGION"}
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
        (["--retries", "-1"], "--retries -1 is not a number of tries"),
        (["--node-selector", "pool"], "--node-selector pool: not of the form LABEL=VALUE"),
        (["--toleration", "gpu:Never"], "not of the form KEY"),
        (["--secret", "a:b"], "--secret a:b: not of the form NAME or NAME:KEY=VARIABLE"),
        (["--secret", "Bad_Name"], "--secret Bad_Name: not of the form NAME"),
        (["--env", "X"], "--env X: not of the form NAME=VALUE"),
        (["--volume", "claim:data"], "--volume claim:data: not of the form CLAIM:/FOLDER"),
        (["--volume", "a:/../x"], "--volume a:/../x: not of the form CLAIM:/FOLDER"),
        (["--volume", "a:/x/./y"], "--volume a:/x/./y: not of the form CLAIM:/FOLDER"),
        (["--volume", "a:/x/.."], "--volume a:/x/..: not of the form CLAIM:/FOLDER"),
        (["--secret", "a:k=1X"], "--secret a:k=1X: not of the form NAME"),
        (["--secret", "a:k=X Y"], "--secret a:k=X Y: not of the form NAME"),
        (["--secret", "a:k=X,k=Y"], "--secret a:k=X,k=Y: key k is given 2 times"),
        (["--secret", "a:k=X,l=X"], "variable X is given 2 times"),
        (["--secret", "a:k=X", "--secret", "b:k=X"], "variable X is given 2 times"),
        (["--secret", "a:k=X", "--env", "X=1"], "variable X is given 2 times"),
        (["--secret", "a:k=X", "--env", "X=1"], "by --secret a and --env; once is right"),
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
        (["--volume", "a:/d", "--volume", "b:/d"], "two claims cannot share a folder"),
    ],
)
def test_what_is_not_understood_is_refused(words, message):
    with pytest.raises(ValueError) as found:
        asked(*words)
    assert message in str(found.value)


def test_credentials_in_the_environment_are_refused_and_not_repeated():
    with pytest.raises(ValueError, match="must not stand in a compiled pipeline") as found:
        asked("--env", "AWS_SECRET_ACCESS_KEY=hunter2")
    assert "hunter2" not in str(found.value)
