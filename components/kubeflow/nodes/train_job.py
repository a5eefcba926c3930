"""The TrainJob of a step on several nodes, as far as it is known when a pipeline is compiled.

The nodes get the requirements of the step's pods. Kubeflow Trainer (v2.3) allows environment
variables of the training container in `spec.trainer.env` only, not in a patch.
"""

from typing import Any

from components.kubeflow.cluster import (
    DEFAULT_GPU_TYPE,
    SCRATCH_FOLDER,
    SCRATCH_VARIABLE,
    Cluster,
    without_queue,
)
from components.kubeflow.words import Toleration
from components.nodes.job import bare_train_job, pod_spec_of, pod_template_of

# Without --timeout: the longest time for which a TrainJob that is no longer followed holds GPUs.
LONGEST_SECONDS = 7 * 24 * 3600


def train_job_template(cluster: Cluster, step: str, image: str) -> dict[str, Any]:
    """The TrainJob of a step, without its name, its arguments and its owner.

    Args:
        cluster: the requirements of pods.
        step: the name of the step.
        image: the image of the nodes.
    """
    body = bare_train_job()
    labels, annotations = cluster.labels.get(step, {}), cluster.annotations.get(step, {})
    body["metadata"] = _without_empty(labels=dict(labels), annotations=dict(annotations))
    kind, _, name = cluster.runtime.rpartition("/")
    spec = body["spec"]
    spec["runtimeRef"] = {"name": name, **_without_empty(kind=kind)}
    spec["activeDeadlineSeconds"] = cluster.timeout.get(step, LONGEST_SECONDS)
    spec["trainer"] = {
        "image": image,
        "command": ["python", "-m", "torch.distributed.run", "-m", "components", step],
        "numNodes": cluster.nodes[step],
        "numProcPerNode": cluster.process_count(step),
        **_without_empty(
            env=_environment(cluster, step), resourcesPerNode=_resources(cluster, step)
        ),
    }
    pod_template_of(body)["metadata"] = _without_empty(
        labels=without_queue(labels), annotations=dict(annotations)
    )
    _fill_pod_spec(pod_spec_of(body), cluster, step)
    return body


def _environment(cluster: Cluster, step: str) -> list[dict[str, Any]]:
    """Environment variables, by value and from secrets."""
    values = {**cluster.env, **cluster.usable_cores(step)}
    if step in cluster.scratch:
        values[SCRATCH_VARIABLE] = SCRATCH_FOLDER
    entries: list[dict[str, Any]] = [{"name": n, "value": value} for n, value in values.items()]
    for secret in cluster.secrets:
        for key, variable in secret.variables.items():
            reference = {"name": secret.name, "key": key, "optional": secret.is_optional}
            entries.append({"name": variable, "valueFrom": {"secretKeyRef": reference}})
    return entries


def _resources(cluster: Cluster, step: str) -> dict[str, dict[str, str]]:
    """Requests and limits of each node.

    GPUs are in both: without requests, Trainer ignores numProcPerNode and starts one process.
    """
    requests = _without_empty(cpu=cluster.cpu.get(step), memory=cluster.memory.get(step))
    limits = _without_empty(cpu=cluster.cpu_limit.get(step), memory=cluster.memory.get(step))
    if "cpu" in limits:
        requests.setdefault("cpu", limits["cpu"])
    if count := cluster.gpus.get(step):
        gpus = {cluster.gpu_type.get(step, DEFAULT_GPU_TYPE): str(count)}
        requests, limits = requests | gpus, limits | gpus
    return _without_empty(requests=requests, limits=limits)


def _fill_pod_spec(spec: dict[str, Any], cluster: Cluster, step: str) -> None:
    """Node selection, volumes, pull secret and security context."""
    folders = _folders(cluster, step)
    user, group, non_root = cluster.identity
    who = {"runAsUser": user, "runAsGroup": group, "runAsNonRoot": non_root or (user != 0) or None}
    (container,) = spec["containers"]
    container["securityContext"] = {
        **{name: value for name, value in who.items() if value is not None},
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    container |= _without_empty(
        volumeMounts=[{"name": name, "mountPath": folder} for name, (folder, _) in folders.items()]
    )
    spec |= _without_empty(
        nodeSelector=dict(cluster.node_selector.get(step, {})),
        tolerations=[_toleration(taint) for taint in cluster.tolerations.get(step, ())],
        imagePullSecrets=[{"name": cluster.pull_secret}] if cluster.pull_secret else [],
        volumes=[{"name": name, **source} for name, (_, source) in folders.items()],
    )


def _folders(cluster: Cluster, step: str) -> dict[str, tuple[str, dict[str, Any]]]:
    """The folder and the source of each volume, by the volume's name."""
    found: dict[str, tuple[str, dict[str, Any]]] = {}
    if shm := cluster.shm_size(step):
        found["shm"] = "/dev/shm", {"emptyDir": {"medium": "Memory", "sizeLimit": shm}}
    if step in cluster.scratch:
        found["scratch"] = SCRATCH_FOLDER, {"emptyDir": {"sizeLimit": cluster.scratch[step]}}
    for claim, folder in cluster.volumes.items():
        found[claim] = folder, {"persistentVolumeClaim": {"claimName": claim}}
    for name, folder in cluster.config_maps.items():
        found[name] = folder, {"configMap": {"name": name}}
    for name, folder in cluster.secret_files.items():
        found[name] = folder, {"secret": {"secretName": name}}
    return found


def _toleration(taint: Toleration) -> dict[str, str]:
    operator = "Equal" if taint.value else "Exists"
    rest = _without_empty(value=taint.value, effect=taint.effect)
    return {"key": taint.key, "operator": operator, **rest}


def _without_empty(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value}
