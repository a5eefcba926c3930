"""Compiles the pipelines that tests compare with: `make golden`."""

import argparse
from pathlib import Path

from components.kubeflow import cluster
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
    *("--image-pull-secret", "registry"),
)
CLUSTER_IMAGE = "registry.example/san-pipeline:{target}-0123456789ab"


def golden_cluster() -> Cluster:
    """What the words above ask for."""
    parser = argparse.ArgumentParser()
    cluster.add_cluster_options(parser)
    return cluster.cluster_from_options(parser.parse_args(CLUSTER_FLAGS))


def main() -> None:
    """Write every golden file."""
    for graph in GRAPHS:
        GRAPHS[graph].compile(GOLDEN / f"{graph}.yaml")
    GRAPHS["full"].compile(GOLDEN / "cluster.yaml", image=CLUSTER_IMAGE, cluster=golden_cluster())


if __name__ == "__main__":
    main()
