"""Requirements of a pipeline's pods: GPUs, memory, nodes, credentials.

They are set on the tasks of a pipeline when it is compiled. Most have no place in KFP's pipeline
definition itself; kfp-kubernetes writes them to a second document, the platform specification.
`components.kubeflow.cluster_options` reads them from a command line.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from kfp import dsl, kubernetes

from components.command.beforehand import Processes
from components.kubeflow import quantities
from components.kubeflow.words import Secret, Toleration
from components.process.machine import CORES_VARIABLE

# KFP's backoff_max_duration is Argo's maxDuration: the time from the start of the first attempt
# after which there is no further attempt. It does not limit pauses. Its default, an hour, is less
# than one attempt at training takes; this is longer than any step with all of its attempts.
RETRY_WINDOW = "30d"
# KFP does not limit growing pauses: if each is twice the last, from a minute on, the tenth is 8.5
# hours.
RETRY_FACTOR = 1.0
DEFAULT_GPU_TYPE = "nvidia.com/gpu"
DEFAULT_RUNTIME = "torch-distributed"  # comes with Kubeflow Trainer
# Of the pod that follows the nodes of a step: its memory request, and its extra time, in which it
# waits for the nodes to be scheduled and fetches their outputs.
MEMORY_OF_FOLLOWER, SECONDS_OF_FOLLOWER = "256Mi", 3600
# Kueue queues a TrainJob as a whole. A pod with a label of Kueue's would be queued by itself too.
QUEUE_DOMAIN = "kueue.x-k8s.io/"
SHM_OF_MANY_GPUS = "1Gi"  # NCCL's processes share /dev/shm; docker's default is 64 MiB
# The folder for temporary files of a pod that has a volume for them; Python's tempfile reads it.
SCRATCH_FOLDER, SCRATCH_VARIABLE = "/scratch", "TMPDIR"


class Identity(NamedTuple):
    """User and group of a container's process; None leaves them to the image and the cluster."""

    user: int | None = None
    group: int | None = None
    non_root: bool | None = None


@dataclass(frozen=True)
class Cluster:
    """Requirements of the pods of each step. By default none: the cluster's own defaults hold.

    Attributes:
        gpus: number of GPUs by step; with several, the pod starts that many processes
        gpu_type: their resource name in Kubernetes, by step; nvidia.com/gpu if it is absent
        nodes: number of nodes by step, from 2; each node has the requirements of the step
        runtime: Kubeflow Trainer's runtime for these nodes, a ClusterTrainingRuntime NAME or
            TrainingRuntime/NAME
        cpu: cores requested, such as "4" or "500m", by step; the step uses no more
        cpu_limit: limit of cores, by step; the step uses as many
        memory: memory requested, which is the limit too, such as "16Gi", by step
        least_memory: memory requested, without a limit, for steps that `memory` does not name
        shm: size of /dev/shm by step; it counts as memory
        scratch: room for temporary files by step, on the node's disk
        timeout: maximum seconds of an attempt, by step
        retries: maximum number of further attempts of a failed step
        backoff: seconds before each new attempt
        node_selector: labels of the nodes that may run it, by step
        tolerations: taints that it tolerates, by step
        labels, annotations: of its pods, by step
        secrets: secrets that set environment variables of every step
        env: further environment variables of every step
        volumes: folders where persistent volume claims are mounted, in every step, as any step may
            get an artifact there
        config_maps, secret_files: folders where their keys are mounted as files, in every step
        pull_secret: the secret that lets the image be pulled
        identity: user and group of every step
    """

    gpus: Mapping[str, int] = field(default_factory=dict)
    gpu_type: Mapping[str, str] = field(default_factory=dict)
    nodes: Mapping[str, int] = field(default_factory=dict)
    runtime: str = DEFAULT_RUNTIME
    cpu: Mapping[str, str] = field(default_factory=dict)
    cpu_limit: Mapping[str, str] = field(default_factory=dict)
    memory: Mapping[str, str] = field(default_factory=dict)
    least_memory: Mapping[str, str] = field(default_factory=dict)
    shm: Mapping[str, str] = field(default_factory=dict)
    scratch: Mapping[str, str] = field(default_factory=dict)
    timeout: Mapping[str, int] = field(default_factory=dict)
    retries: int = 0
    backoff: int = 60
    node_selector: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    tolerations: Mapping[str, Sequence[Toleration]] = field(default_factory=dict)
    labels: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    annotations: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    secrets: Sequence[Secret] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    volumes: Mapping[str, str] = field(default_factory=dict)
    config_maps: Mapping[str, str] = field(default_factory=dict)
    secret_files: Mapping[str, str] = field(default_factory=dict)
    pull_secret: str = ""
    identity: Identity = field(default_factory=Identity)

    def process_count(self, step: str) -> int:
        """The number of processes that train in a step's pod: one for each of its GPUs."""
        return max(1, self.gpus.get(step, 0))

    def processes(self, step: str) -> Processes:
        """The processes that train a step, on all of its nodes."""
        return Processes(self.process_count(step), self.nodes.get(step, 1))

    def usable_cores(self, step: str) -> dict[str, str]:
        """The environment variable with the number of cores of a step, if that is limited."""
        cores = self.cpu_limit.get(step, self.cpu.get(step))
        return {CORES_VARIABLE: str(max(1, int(quantities.cores_of(cores))))} if cores else {}

    def shm_size(self, step: str) -> str:
        """The size of /dev/shm; empty for the cluster's default."""
        return self.shm.get(step, SHM_OF_MANY_GPUS if self.process_count(step) > 1 else "")

    def configure(self, task: dsl.PipelineTask, step: str) -> dsl.PipelineTask:
        """Set the requirements of a step on its task.

        If the step has several nodes, these have the requirements, and its pod follows them.
        """
        if self.retries:
            task.set_retry(self.retries, f"{self.backoff}s", RETRY_FACTOR, RETRY_WINDOW)
        if step in self.nodes:
            self._set_follower(task, step)
        else:
            self._set_resources(task, step)
            self._set_temporary_room(task, step)
            if step in self.timeout:
                kubernetes.set_timeout(task, self.timeout[step])
            self._set_placement(task, step)
            self._set_metadata(task, step, self.labels.get(step, {}))
        self._set_environment(task)
        self._mount_files(task)
        if self.pull_secret:
            kubernetes.set_image_pull_secrets(task, [self.pull_secret])
        if self.identity != Identity():
            kubernetes.set_security_context(task, *self.identity)
        return task

    def _set_resources(self, task: dsl.PipelineTask, step: str) -> None:
        """GPUs, cores and memory."""
        if self.gpus.get(step):
            task.set_accelerator_type(
                self.gpu_type.get(step, DEFAULT_GPU_TYPE)
            ).set_accelerator_limit(self.gpus[step])
        if step in self.cpu:
            task.set_cpu_request(self.cpu[step])
        if step in self.cpu_limit:
            task.set_cpu_limit(self.cpu_limit[step])
        for name, value in self.usable_cores(step).items():
            task.set_env_variable(name, value)
        if step in self.memory:
            task.set_memory_request(self.memory[step]).set_memory_limit(self.memory[step])
        elif step in self.least_memory:
            task.set_memory_request(self.least_memory[step])

    def _set_follower(self, task: dsl.PipelineTask, step: str) -> None:
        """The small pod that follows the nodes of a step; it joins no queue."""
        task.set_memory_request(MEMORY_OF_FOLLOWER)
        if step in self.timeout:
            kubernetes.set_timeout(task, self.timeout[step] + SECONDS_OF_FOLLOWER)
        self._set_metadata(task, step, without_queue(self.labels.get(step, {})))

    def _set_temporary_room(self, task: dsl.PipelineTask, step: str) -> None:
        """/dev/shm, and space on the node's disk."""
        if shm := self.shm_size(step):
            kubernetes.empty_dir_mount(
                task, volume_name="shm", mount_path="/dev/shm", medium="Memory", size_limit=shm
            )
        if step in self.scratch:
            kubernetes.empty_dir_mount(
                task,
                volume_name="scratch",
                mount_path=SCRATCH_FOLDER,
                size_limit=self.scratch[step],
            )
            task.set_env_variable(SCRATCH_VARIABLE, SCRATCH_FOLDER)

    def _set_placement(self, task: dsl.PipelineTask, step: str) -> None:
        """The nodes it may run on."""
        for key, value in self.node_selector.get(step, {}).items():
            kubernetes.add_node_selector(task, key, value)
        for taint in self.tolerations.get(step, ()):
            kubernetes.add_toleration(
                task,
                key=taint.key,
                operator="Equal" if taint.value else "Exists",
                value=taint.value or None,
                effect=taint.effect or None,
            )

    def _set_metadata(self, task: dsl.PipelineTask, step: str, labels: Mapping[str, str]) -> None:
        """The labels and annotations of its pods."""
        for key, value in labels.items():
            kubernetes.add_pod_label(task, key, value)
        for key, value in self.annotations.get(step, {}).items():
            kubernetes.add_pod_annotation(task, key, value)

    def _set_environment(self, task: dsl.PipelineTask) -> None:
        """Environment variables, from secrets and by value."""
        for secret in self.secrets:
            kubernetes.use_secret_as_env(
                task, secret.name, dict(secret.variables), optional=secret.is_optional
            )
        for name, value in self.env.items():
            task.set_env_variable(name, value)

    def _mount_files(self, task: dsl.PipelineTask) -> None:
        """Folders of the cluster."""
        for claim, folder in self.volumes.items():
            kubernetes.mount_pvc(task, claim, folder)
        for name, folder in self.config_maps.items():
            kubernetes.use_config_map_as_volume(task, name, folder)
        for name, folder in self.secret_files.items():
            kubernetes.use_secret_as_volume(task, name, folder)


def without_queue(labels: Mapping[str, str]) -> dict[str, str]:
    """The labels without those of Kueue."""
    return {name: value for name, value in labels.items() if not name.startswith(QUEUE_DOMAIN)}


# No requirements, for runs on this machine.
DEFAULT_CLUSTER = Cluster()
