"""Requests of pods in the compiled pipeline."""

import pytest
import yaml
from google.protobuf import json_format
from kfp import components as kfp_components
from kfp.kubernetes import kubernetes_executor_config_pb2 as kubernetes_pb
from kfp.pipeline_spec import pipeline_spec_pb2 as pipeline_pb

from components.__main__ import STEPS
from components.command.step import step_parser
from components.kubeflow.cluster import Cluster
from components.kubeflow.words import S3_KEYS
from components.process.gpu import GPU_STEPS
from components.runner.ir import read_tasks
from pipeline import GRAPHS
from tests.write_golden import CLUSTER_IMAGE, GOLDEN, asked, golden_cluster

# It trains its own models, and features are embedded by one worker
IN_FULL = [step for step in STEPS if not step.startswith("take_") and step != "seal_features"]


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
    kind = "mig-1g.10gb" if step == "generate_textures" else "gpu"
    assert resources.get("accelerator", {}).get("resourceType") == (
        f"nvidia.com/{kind}" if step in GPU_STEPS else None
    )
    assert resources["resourceCpuRequest"] == ("16" if is_large else "2")
    assert resources.get("resourceCpuLimit") == ("24" if is_large else None)
    assert resources["resourceMemoryRequest"] == ("64Gi" if is_large else "8Gi")
    assert resources["resourceMemoryLimit"] == resources["resourceMemoryRequest"]


@pytest.mark.parametrize("step", IN_FULL)
def test_only_steps_with_gpus_and_those_that_are_named_go_to_chosen_nodes(documents, step):
    found = platform(documents, step)
    labels = found.get("nodeSelector", {}).get("labels")
    keys = [taint.get("key") for taint in found.get("tolerations", [])]
    if step in GPU_STEPS:
        assert labels == {"cloud.google.com/gke-accelerator": "nvidia-tesla-a100"}
        assert keys == ["nvidia.com/gpu", "team"]
    else:
        assert labels == ({"pool": "cpu"} if step == "evaluate" else None)
        assert keys == (["spot"] if step == "evaluate" else [])


def test_without_gpus_every_step_goes_to_the_nodes():
    chosen = asked("--gpus", "0", "--node-selector", "pool=cheap")
    documents = compiled_twice("baseline", chosen)
    for step in ("prepare_reid", "train_san", "evaluate"):
        assert platform(documents, step)["nodeSelector"] == {"labels": {"pool": "cheap"}}
        assert "accelerator" not in container(documents, step).get("resources", {})


def compiled_twice(graph: str, chosen: Cluster) -> list[dict]:
    """Definition and platform specification, without a file."""
    made = GRAPHS[graph].pipeline(CLUSTER_IMAGE, chosen)
    return [json_format.MessageToDict(one) for one in (made.pipeline_spec, made.platform_spec)]


def test_tasks_are_tried_again_with_equal_pauses_and_end_in_time(documents):
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
            "backoffFactor": 1.0,
            "backoffMaxDuration": f"{30 * 24 * 3600}s",  # in which all attempts must begin
        }
    assert platform(documents, "train_san")["activeDeadlineSeconds"] == str(2 * 24 * 3600)
    assert platform(documents, "evaluate")["activeDeadlineSeconds"] == str(6 * 3600)


def test_shared_memory_is_what_is_asked_for_or_what_several_processes_need(documents):
    mount, _ = platform(documents, "train_san")["emptyDirMounts"]
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
        assert {one["secretKey"] for one in storage["keyToEnv"]} == set(S3_KEYS) - by_env
        assert other["keyToEnv"] == [{"envVar": "MINIO_ACCESS", "secretKey": "accesskey"}]
        assert other["optional"] is False
        assert {"name": "AWS_ENDPOINT_URL", "value": "http://seaweedfs.kubeflow:8333"} in container(
            documents, step
        )["env"]


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


def variables(documents: list[dict], step: str) -> dict[str, str]:
    return {one["name"]: one["value"] for one in container(documents, step).get("env", [])}


def test_the_number_of_cores_is_passed_to_a_step(documents):
    assert variables(documents, "train_san")["SAN_CPUS"] == "24"  # its limit, above its request
    assert variables(documents, "evaluate")["SAN_CPUS"] == "2"
    found = compiled_twice(
        "baseline", asked("--cpu", "train_san=2500m", "--cpu-limit", "prepare_reid=500m")
    )
    assert variables(found, "train_san") == {"SAN_CPUS": "2"}
    assert variables(found, "prepare_reid") == {"SAN_CPUS": "1"}
    assert variables(found, "evaluate") == {}


def test_temporary_files_go_where_there_is_room_for_them(documents):
    _, mount = platform(documents, "train_san")["emptyDirMounts"]
    assert mount == {"volumeName": "scratch", "mountPath": "/scratch", "sizeLimit": "200Gi"}
    assert variables(documents, "train_san")["TMPDIR"] == "/scratch"
    assert "TMPDIR" not in variables(documents, "evaluate")


def test_memory_that_was_measured_is_requested_and_no_limit():
    found = compiled_twice("full", asked("--memory", "generate_textures=4Gi"))
    resources = container(found, "make_pit")["resources"]
    assert resources["resourceMemoryRequest"] == "1Gi"
    assert "resourceMemoryLimit" not in resources
    resources = container(found, "generate_textures")["resources"]
    assert resources["resourceMemoryRequest"] == resources["resourceMemoryLimit"] == "4Gi"
    assert "resources" not in container(found, "evaluate")


@pytest.mark.parametrize("step", IN_FULL)
def test_pods_carry_labels_annotations_and_whom_they_run_as(documents, step):
    found = platform(documents, step)
    queue = {"kueue.x-k8s.io/queue-name": "gpu"} if step == "train_san" else {}
    assert found["podMetadata"] == {
        "labels": {"team": "vision", **queue},
        "annotations": {"sidecar.istio.io/inject": "false"},
    }
    assert found["securityContext"] == {
        "runAsUser": "1000",
        "runAsGroup": "2000",
        "runAsNonRoot": True,
    }


@pytest.mark.parametrize("step", IN_FULL)
def test_files_and_volumes_of_the_cluster_are_in_every_step(documents, step):
    found = platform(documents, step)
    (volume,), (config,), (secret,) = (
        found[key] for key in ("pvcMount", "configMapAsVolume", "secretAsVolume")
    )
    assert (volume["constant"], volume["mountPath"]) == ("reid-data", "/data")
    assert (config["configMapName"], config["mountPath"]) == ("company-ca", "/certificates")
    assert (secret["secretName"], secret["mountPath"]) == ("netrc", "/run/netrc")
