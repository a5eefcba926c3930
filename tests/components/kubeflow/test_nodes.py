"""The effect of `--nodes` on a compiled pipeline: the TrainJob, and the pod that follows it."""

import copy
import json
import re
from typing import Any

import pytest
import yaml
from google.protobuf import json_format
from kfp import components as kfp_components
from kfp.kubernetes import kubernetes_executor_config_pb2 as kubernetes_pb
from kfp.pipeline_spec import pipeline_spec_pb2 as pipeline_pb
from kubernetes import client

from components.__main__ import STEPS
from components.command.beforehand import Processes
from components.command.code import ROOT
from components.kubeflow.component import component_on_nodes
from components.kubeflow.nodes.train_job import train_job_template
from components.nodes.job import bare_train_job
from pipeline import GRAPHS
from tests.components.kubeflow.test_cluster import container, platform
from tests.servers.trainer_stub import problems_of
from tests.write_golden import CLUSTER_IMAGE, GOLDEN, asked, golden_nodes

STEPS_ON_NODES = ("train_san_pg", "train_san")


@pytest.fixture(scope="module")
def documents(tmp_path_factory) -> list[dict]:
    """The graph `full` with every option and nodes: its definition and platform specification."""
    file = tmp_path_factory.mktemp("nodes") / "full.yaml"
    GRAPHS["full"].compile(file, image=CLUSTER_IMAGE, cluster=golden_nodes())
    return list(yaml.safe_load_all(file.read_text("utf-8")))


def template(documents: list[dict], step: str) -> dict:
    """The TrainJob in the command of the step's pod."""
    *command, flag, job, name = container(documents, step)["command"]
    assert command == ["python", "-m", "components", "on_nodes"]
    assert (flag, name) == ("--job", step)
    return json.loads(job)


def pods_of(body: dict) -> dict:
    (patch,) = body["spec"]["runtimePatches"]
    (job,) = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    assert job["name"] == "node"
    return job["template"]["spec"]["template"]


def named(body: dict) -> dict:
    return {**body, "metadata": {**body["metadata"], "name": "san-train-san-0123456789abcdef"}}


def test_pipeline_on_nodes_is_the_golden_one(documents):
    """Renew it by `make golden`."""
    golden = list(yaml.safe_load_all((GOLDEN / "nodes.yaml").read_text("utf-8")))
    assert [{**documents[0], "sdkVersion": ""}, documents[1]] == [
        {**golden[0], "sdkVersion": ""},
        golden[1],
    ]


def test_both_documents_are_of_kfps_schema(documents):
    json_format.ParseDict(documents[0], pipeline_pb.PipelineSpec())
    for step in STEPS_ON_NODES:
        json_format.ParseDict(platform(documents, step), kubernetes_pb.KubernetesExecutorConfig())
    kfp_components.load_component_from_text(yaml.safe_dump_all(documents))


@pytest.mark.parametrize("step", STEPS_ON_NODES)
def test_trainjobs_are_of_trainers_models(documents, step):
    assert problems_of(named(template(documents, step))) == []


@pytest.mark.parametrize(
    "words", [(), ("--gpus", "0"), ("--secret", "none"), ("--cpu", "4"), ("--memory", "8Gi")]
)
def test_trainjobs_of_fewer_options_are_too(words):
    body = train_job_template(asked("--nodes", "train_san=3", *words), "train_san", "image:1")
    assert problems_of(named(body)) == []
    assert body["spec"]["trainer"]["numNodes"] == 3


def test_models_and_rules_of_trainer_find_what_is_wrong():
    wrong = named({**bare_train_job(), "metadata": {}})
    wrong["spec"]["runtimeRef"] = {"name": "torch-distributed"}
    assert problems_of(wrong) == []
    wrong["spec"]["trainer"] = {"env": [{"name": "PET_NNODES", "value": "2"}], "gpus": 4}
    pods_of(wrong)["spec"]["containers"][0]["env"] = [{"name": "A", "value": "b"}]
    assert problems_of(wrong) == [
        "it has fields that the models do not know",
        "must not have reserved envs",
        "must not have envs for the node containers",
    ]


def test_trainjob_has_image_command_nodes_processes_and_resources(documents):
    body = template(documents, "train_san")
    trainer = body["spec"]["trainer"]
    assert trainer["image"] == "registry.example/san-pipeline:gpu-0123456789ab"
    assert container(documents, "train_san")["image"] == CLUSTER_IMAGE.format(target="cpu")
    assert trainer["command"] == [
        *("python", "-m", "torch.distributed.run", "-m", "components", "train_san")
    ]
    assert (trainer["numNodes"], trainer["numProcPerNode"]) == (2, 4)
    assert trainer["resourcesPerNode"] == {
        "requests": {"cpu": "16", "memory": "64Gi", "nvidia.com/gpu": "4"},
        "limits": {"cpu": "24", "memory": "64Gi", "nvidia.com/gpu": "4"},
    }
    assert body["spec"]["runtimeRef"] == {"kind": "TrainingRuntime", "name": "torch-own"}
    assert body["spec"]["activeDeadlineSeconds"] == 2 * 24 * 3600
    assert template(documents, "train_san_pg")["spec"]["trainer"]["numProcPerNode"] == 1


def test_a_number_of_processes_never_stands_without_requests():
    """Else Trainer starts one process a node."""
    for words in ((), ("--cpu-limit", "4")):
        cluster = asked("--nodes", "2", "--gpus", "train_san=4", *words)
        trainer = train_job_template(cluster, "train_san", "i:1")["spec"]["trainer"]
        assert trainer["resourcesPerNode"]["requests"]["nvidia.com/gpu"] == "4"
    trainer = train_job_template(asked("--nodes", "2", "--gpus", "0"), "train_san", "i:1")
    assert "resourcesPerNode" not in trainer["spec"]["trainer"]


def test_an_abandoned_trainjob_ends_by_itself():
    body = train_job_template(asked("--nodes", "2"), "train_san", "i:1")
    assert body["spec"]["activeDeadlineSeconds"] == 7 * 24 * 3600
    assert body["spec"]["runtimeRef"] == {"name": "torch-distributed"}


def test_variables_and_secrets_reach_the_nodes(documents):
    env = {e["name"]: e for e in template(documents, "train_san")["spec"]["trainer"]["env"]}
    assert env["AWS_ENDPOINT_URL"]["value"] == "http://seaweedfs.kubeflow:8333"
    assert (env["SAN_CPUS"]["value"], env["TMPDIR"]["value"]) == ("24", "/scratch")
    reference = env["MINIO_ACCESS"]["valueFrom"]["secretKeyRef"]
    assert reference == {
        "name": "mlpipeline-minio-artifact",
        "key": "accesskey",
        "optional": False,
    }
    assert env["AWS_ACCESS_KEY_ID"]["valueFrom"]["secretKeyRef"]["optional"] is True


def test_what_pods_ask_for_reaches_the_nodes(documents):
    pods = pods_of(template(documents, "train_san"))
    spec = pods["spec"]
    assert spec["nodeSelector"] == {"cloud.google.com/gke-accelerator": "nvidia-tesla-a100"}
    assert spec["tolerations"] == [
        {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},
        {"key": "team", "operator": "Equal", "value": "vision", "effect": "NoExecute"},
    ]
    assert spec["imagePullSecrets"] == [{"name": "registry"}]
    assert {volume.pop("name"): volume for volume in copy.deepcopy(spec["volumes"])} == {
        "shm": {"emptyDir": {"medium": "Memory", "sizeLimit": "8Gi"}},
        "scratch": {"emptyDir": {"sizeLimit": "200Gi"}},
        "reid-data": {"persistentVolumeClaim": {"claimName": "reid-data"}},
        "company-ca": {"configMap": {"name": "company-ca"}},
        "netrc": {"secret": {"secretName": "netrc"}},
    }
    (node,) = spec["containers"]
    assert {mount["name"]: mount["mountPath"] for mount in node["volumeMounts"]} == {
        "shm": "/dev/shm",
        "scratch": "/scratch",
        "reid-data": "/data",
        "company-ca": "/certificates",
        "netrc": "/run/netrc",
    }
    security = node["securityContext"]
    assert (security["runAsUser"], security["runAsGroup"]) == (1000, 2000)
    assert security["runAsNonRoot"] is True
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert pods["metadata"]["annotations"] == {"sidecar.istio.io/inject": "false"}


def test_a_queue_takes_the_trainjob_as_a_whole(documents):
    body = template(documents, "train_san")
    assert body["metadata"]["labels"] == {"team": "vision", "kueue.x-k8s.io/queue-name": "gpu"}
    assert pods_of(body)["metadata"]["labels"] == {"team": "vision"}
    assert platform(documents, "train_san")["podMetadata"]["labels"] == {"team": "vision"}


def test_root_is_root_on_the_nodes_too():
    body = train_job_template(asked("--nodes", "2", "--run-as-user", "0"), "train_san", "i:1")
    security = pods_of(body)["spec"]["containers"][0]["securityContext"]
    assert security["runAsUser"] == 0
    assert "runAsNonRoot" not in security


@pytest.mark.parametrize("step", STEPS_ON_NODES)
def test_the_pod_that_follows_asks_for_little(documents, step):
    resources = container(documents, step)["resources"]
    assert resources == {"memoryRequest": 0.268435456, "resourceMemoryRequest": "256Mi"}
    found = platform(documents, step)
    assert not {"nodeSelector", "tolerations", "emptyDirMounts"} & found.keys()
    assert [one["secretName"] for one in found["secretAsEnv"]] == [
        *("san-storage", "mlpipeline-minio-artifact", "mlpipeline-minio-artifact")
    ]
    seconds = {"train_san": 2 * 24 * 3600, "train_san_pg": 6 * 3600}[step]
    assert found["activeDeadlineSeconds"] == str(seconds + 3600)
    assert documents[0]["root"]["dag"]["tasks"][step.replace("_", "-")]["retryPolicy"]


def test_no_credential_stands_in_the_pipeline(documents):
    for entry in template(documents, "train_san")["spec"]["trainer"]["env"]:
        is_secret = re.search("KEY|SECRET|TOKEN|MINIO_ACCESS", entry["name"])
        assert bool(is_secret) <= ("valueFrom" in entry), entry


def test_kubernetes_finds_no_variable_to_expand_in_the_command():
    """Else it would put the value from the secret into the TrainJob."""
    cluster = asked("--nodes", "2", "--env", "COPY=$(AWS_SECRET_ACCESS_KEY) $$")
    job = train_job_template(cluster, "train_san", "i:1")
    made = component_on_nodes(STEPS["train_san"], "i:1", job)
    command = made.component_spec.implementation.container.command
    assert "$" not in "".join(command)
    assert json.loads(command[command.index("--job") + 1]) == job


def test_processes_are_those_of_all_nodes():
    cluster = asked("--nodes", "train_san=3", "--gpus", "train_san=4")
    assert cluster.processes("train_san") == Processes(per_node=4, nodes=3)
    assert cluster.processes("train_san").total == 12
    assert cluster.processes("train_san_pg").total == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--nodes", "train_san=1"), "not a number of nodes from 2; one needs no --nodes"),
        (("--nodes", "train_san=two"), "not a number of nodes from 2"),
        (("--nodes", "evaluate=2"), "--nodes evaluate=2: no such step"),
        (("--runtime", "mine"), "--runtime mine has no effect without --nodes"),
        (("--nodes", "2", "--runtime", "Kind/mine"), "not of the form NAME or TrainingRuntime"),
    ],
)
def test_wrong_words_are_refused(words, message):
    with pytest.raises(ValueError, match=message):
        asked(*words)


def manifests() -> list[dict[str, Any]]:
    """The role and its binding in docker/README.md."""
    text = (ROOT / "docker" / "README.md").read_text("utf-8")
    (found,) = re.findall(r"^```yaml\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return list(yaml.safe_load_all(found))


def as_model(document: dict[str, Any]) -> dict[str, Any]:
    """What is left of a document when Kubernetes' own model has read it."""
    api = client.ApiClient()
    read = api._ApiClient__deserialize(document, f"V1{document['kind']}")
    return api.sanitize_for_serialization(read)


def test_the_documented_role_and_its_binding_are_of_kubernetes_schema():
    role, binding = manifests()
    assert [as_model(one) for one in (role, binding)] == [role, binding]
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    with pytest.raises(ValueError, match="verbs"):
        as_model({**role, "rules": [{"apiGroups": [""], "resources": ["pods"]}]})
    misspelt = {**role, "rule": []}
    assert as_model(misspelt) != misspelt
