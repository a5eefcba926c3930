"""Compiles the pipelines that tests compare with: `make golden`."""

import argparse
from pathlib import Path

from components.kubeflow import cluster_options
from components.kubeflow.cluster import Cluster
from pipeline import GRAPHS

GOLDEN = Path(__file__).parent / "golden"
# Every option of a cluster at once, as somebody would give them.
CLUSTER_FLAGS = (
    *("--gpus", "1", "--gpus", "train_san=4", "--cpu", "2", "--cpu", "train_san=16"),
    *("--memory", "8Gi", "--memory", "train_san=64Gi", "--shm", "train_san=8Gi"),
    *("--timeout", "6h", "--timeout", "train_san=2d", "--retries", "3", "--backoff", "30s"),
    *("--node-selector", "cloud.google.com/gke-accelerator=nvidia-tesla-a100"),
    *("--toleration", "nvidia.com/gpu:NoSchedule", "--toleration", "team=vision:NoExecute"),
    *("--secret", "san-storage", "--secret", "mlpipeline-minio-artifact:accesskey=MINIO_ACCESS"),
    *("--env", "AWS_ENDPOINT_URL=http://seaweedfs.kubeflow:8333", "--volume", "reid-data:/data"),
    *("--image-pull-secret", "registry", "--cpu-limit", "train_san=24"),
    *("--gpu-type", "generate_textures=nvidia.com/mig-1g.10gb"),
    *("--ephemeral-storage", "train_san=200Gi", "--node-selector", "evaluate=pool=cpu"),
    *("--toleration", "evaluate=spot:NoSchedule"),
    *("--label", "team=vision", "--label", "train_san=kueue.x-k8s.io/queue-name=gpu"),
    *("--annotation", "sidecar.istio.io/inject=false"),
    *("--config-map", "company-ca:/certificates", "--secret-files", "netrc:/run/netrc"),
    *("--run-as-user", "1000", "--run-as-group", "2000", "--run-as-non-root"),
)
# The same, with both trainings on two nodes.
NODES_FLAGS = (*CLUSTER_FLAGS, "--nodes", "2", "--runtime", "TrainingRuntime/torch-own")
CLUSTER_IMAGE = "registry.example/san-pipeline:{target}-0123456789ab"


def asked(*words: str) -> Cluster:
    """What the words of a command line ask of a cluster."""
    parser = argparse.ArgumentParser()
    cluster_options.add_cluster_options(parser)
    return cluster_options.cluster_from_options(parser.parse_args(words))


def golden_cluster() -> Cluster:
    """What the words above ask for."""
    return asked(*CLUSTER_FLAGS)


def golden_nodes() -> Cluster:
    """The same, on several nodes."""
    return asked(*NODES_FLAGS)


def main() -> None:
    """Write every golden file."""
    for graph in GRAPHS:
        GRAPHS[graph].compile(GOLDEN / f"{graph}.yaml")
    spread = GRAPHS["score"].with_feature_workers(["0/2", "1/2"])
    spread.compile(GOLDEN / "feature_workers.yaml")
    for name, cluster in (("cluster", golden_cluster()), ("nodes", golden_nodes())):
        GRAPHS["full"].compile(GOLDEN / f"{name}.yaml", image=CLUSTER_IMAGE, cluster=cluster)


if __name__ == "__main__":
    main()
