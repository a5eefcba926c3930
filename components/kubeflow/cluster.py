"""What the pods of a pipeline ask of a Kubernetes cluster: GPUs, memory, nodes, credentials.

Read from the words of a command line, checked, and set on the tasks of a pipeline as it is
compiled. Most of it has no place in KFP's pipeline definition itself; kfp-kubernetes writes it
into a second document, the platform specification.
"""

import argparse
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from posixpath import normpath
from typing import Any, NamedTuple, TypeVar

from kfp import dsl, kubernetes

from components.__main__ import GPU_STEPS, STEPS
from components.command.step import step_parameters
from components.command.suggestion import suggestion
from components.kubeflow import quantities
from components.process.torchrun import MULTI_PROCESS_STEPS
from components.storage.sources import PLACE_PARAMETERS

T = TypeVar("T")

# The keys of a secret without a list of its own; each may be missing.
S3_KEYS = {
    name: name
    for name in (
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_ENDPOINT_URL",
        "AWS_REGION",
    )
}
NO_SECRET = "none"  # is said where the installation's own shall not be used
# KFP's backoff_max_duration is Argo's maxDuration: the time from the first attempt's start after
# which nothing is tried again, and not a cap of pauses. Its default, an hour, is less than one
# attempt at training takes; this is longer than any step with all of its attempts.
RETRY_WINDOW = "30d"
SHM_OF_MANY_GPUS = "1Gi"  # NCCL's processes talk through /dev/shm; docker's default is 64 MiB

_TAINT_EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
_RESOURCE_NAME = r"[a-z0-9](?:[-a-z0-9.]*[a-z0-9])?"  # as Kubernetes names secrets and claims
_VARIABLE_NAME = r"[A-Za-z_][A-Za-z0-9_]*"
_LABEL_NAME = r"[A-Za-z0-9](?:[-A-Za-z0-9_./]*[A-Za-z0-9])?"


class Toleration(NamedTuple):
    """A taint that GPU steps tolerate; an empty value is any, an empty effect every."""

    key: str
    value: str
    effect: str


class Secret(NamedTuple):
    """A secret, and the environment variable each of its keys goes to.

    With `is_optional` a key (or the secret itself) may be missing; then the variable is not set.
    """

    name: str
    variables: Mapping[str, str]
    is_optional: bool


# What serves minio:// in every pod unless it is said otherwise: the keys of Kubeflow Pipelines' own
# object store, which are in the namespace of the run under this name.
INSTALLATION_SECRET = Secret(
    "mlpipeline-minio-artifact",
    {"accesskey": "MINIO_ACCESS_KEY", "secretkey": "MINIO_SECRET_KEY"},
    is_optional=True,
)


@dataclass(frozen=True)
class Cluster:
    """What the pods of each step ask for. By default nothing: the cluster's own defaults hold.

    Attributes:
        gpus: GPUs of a step by its name; more than one starts that many processes in the pod
        gpu_type: what Kubernetes calls them
        cpu: cores requested, such as "4" or "500m", by step
        memory: memory requested, which is the limit too, such as "16Gi", by step
        shm: size of /dev/shm by step; it counts as memory
        timeout: most seconds of an attempt, by step
        retries: how often a failed step is tried again
        backoff: seconds before the first new attempt; they double with each
        node_selector: labels of the nodes that may run GPU steps, or any step if none has a GPU
        tolerations: taints that the same steps tolerate
        secrets: where environment variables of every step come from
        env: further environment variables of every step
        volumes: where a persistent volume claim is mounted, for steps that keep or read things
        pull_secret: the secret that lets the image be pulled
    """

    gpus: Mapping[str, int] = field(default_factory=dict)
    gpu_type: str = "nvidia.com/gpu"
    cpu: Mapping[str, str] = field(default_factory=dict)
    memory: Mapping[str, str] = field(default_factory=dict)
    shm: Mapping[str, str] = field(default_factory=dict)
    timeout: Mapping[str, int] = field(default_factory=dict)
    retries: int = 0
    backoff: int = 60
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: Sequence[Toleration] = ()
    secrets: Sequence[Secret] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    volumes: Mapping[str, str] = field(default_factory=dict)
    pull_secret: str = ""

    def process_count(self, step: str) -> int:
        """How many processes train side by side in a step's pod: one for each of its GPUs."""
        return max(1, self.gpus.get(step, 0))

    def configure(self, task: dsl.PipelineTask, step: str) -> dsl.PipelineTask:
        """Let the pods of a step's task ask for what is theirs."""
        self._set_resources(task, step)
        if self.retries:
            task.set_retry(self.retries, f"{self.backoff}s", 2.0, RETRY_WINDOW)
        if step in self.timeout:
            kubernetes.set_timeout(task, self.timeout[step])
        if self.gpus.get(step) or not any(self.gpus.values()):
            for key, value in self.node_selector.items():
                kubernetes.add_node_selector(task, key, value)
            for taint in self.tolerations:
                kubernetes.add_toleration(
                    task,
                    key=taint.key,
                    operator="Equal" if taint.value else "Exists",
                    value=taint.value or None,
                    effect=taint.effect or None,
                )
        self._set_environment(task, step)
        return task

    def _set_resources(self, task: dsl.PipelineTask, step: str) -> None:
        """GPUs, cores and memory."""
        if self.gpus.get(step):
            task.set_accelerator_type(self.gpu_type).set_accelerator_limit(self.gpus[step])
        if step in self.cpu:
            task.set_cpu_request(self.cpu[step])
        if step in self.memory:
            task.set_memory_request(self.memory[step]).set_memory_limit(self.memory[step])
        many = SHM_OF_MANY_GPUS if self.process_count(step) > 1 else ""
        if shm := self.shm.get(step, many):
            kubernetes.empty_dir_mount(
                task, volume_name="shm", mount_path="/dev/shm", medium="Memory", size_limit=shm
            )

    def _set_environment(self, task: dsl.PipelineTask, step: str) -> None:
        """Environment, volumes and the registry."""
        for secret in self.secrets:
            kubernetes.use_secret_as_env(
                task, secret.name, dict(secret.variables), optional=secret.is_optional
            )
        for name, value in self.env.items():
            task.set_env_variable(name, value)
        if any(p.name in PLACE_PARAMETERS for p in step_parameters(STEPS[step])):
            for claim, folder in self.volumes.items():
                kubernetes.mount_pvc(task, claim, folder)
        if self.pull_secret:
            kubernetes.set_image_pull_secrets(task, [self.pull_secret])


# Nothing is asked for: what runs on this machine needs no more.
DEFAULT_CLUSTER = Cluster()


def add_cluster_options(parser: argparse.ArgumentParser) -> None:
    """Add what a cluster can be asked for to a command line."""
    group = parser.add_argument_group(
        "what the pods ask for",
        "[STEP=]VALUE is for every step, or for one; such options may be repeated.",
    )
    many = {"action": "append", "default": []}

    def add(flag: str, metavar: str, text: str, **options: Any) -> None:
        group.add_argument(flag, metavar=metavar, help=text, **options)

    add("--gpus", "[STEP=]N", "GPUs of a step that uses them (default: 1)", **many)
    add("--gpu-type", "NAME", "default: %(default)s", default="nvidia.com/gpu")
    add("--cpu", "[STEP=]CORES", "cores to request, such as 4 or 500m", **many)
    add("--memory", "[STEP=]SIZE", "memory to request and not to exceed, such as 16Gi", **many)
    add("--shm", "[STEP=]SIZE", "size of /dev/shm; it counts as memory", **many)
    add("--timeout", "[STEP=]TIME", "most time of one attempt, such as 90m or 12h", **many)
    add("--retries", "N", "tries after a failed one (default: 2)", type=int, default=2)
    add("--backoff", "TIME", "pause before the first of them (default: 60s)", default="60s")
    pool = "the steps that have GPUs (with --gpus 0: of all)"
    add("--node-selector", "LABEL=VALUE", f"nodes of {pool}", **many)
    add("--toleration", "KEY[=VALUE][:EFFECT]", f"taint tolerated by {pool}", **many)
    add(
        "--secret",
        "NAME[:KEY=VARIABLE,...]",
        "secret whose keys become environment variables; without a list, those keys that are "
        f"called {', '.join(S3_KEYS)}; {INSTALLATION_SECRET.name} gives MINIO_ACCESS_KEY and "
        f"MINIO_SECRET_KEY, unless a secret named here does; {NO_SECRET} leaves it out",
        **many,
    )
    add(
        "--env",
        "NAME=VALUE",
        "environment variable, such as AWS_ENDPOINT_URL; counts more than a secret without a list",
        **many,
    )
    add("--volume", "CLAIM:FOLDER", "persistent volume claim for data and textures", **many)
    add("--image-pull-secret", "NAME", "secret that lets the image be pulled", default="")


def check_component_options(options: argparse.Namespace) -> None:
    """Refuse what has no effect on components: all but how many GPUs a step shares.

    Raises:
        ValueError: something else is asked for.
    """
    parser = argparse.ArgumentParser()
    add_cluster_options(parser)
    for name, default in vars(parser.parse_args([])).items():
        if name != "gpus" and getattr(options, name) != default:
            flag = f"--{name.replace('_', '-')}"
            raise ValueError(f"{flag} has no effect with --components; a pipeline asks for pods")


def cluster_from_options(options: argparse.Namespace) -> Cluster:
    """What is asked for in the words of a command line.

    Raises:
        ValueError: a word is not understood, or would do nothing.
    """
    if options.retries < 0:
        raise ValueError(f"--retries {options.retries} is not a number of tries")
    labels = [_parse_value("--node-selector", word, _parse_label) for word in options.node_selector]
    _check_unique("--node-selector", [label for label, _ in labels])
    secrets = [
        _parse_value("--secret", word, _parse_secret)
        for word in options.secret
        if word != NO_SECRET
    ]
    env = [_parse_variable(word) for word in options.env]
    secrets = [_without(secret, dict(env)) for secret in secrets]
    _check_variables(secrets, [name for name, _ in env])
    if NO_SECRET not in options.secret and not _give_minio_keys(secrets):
        secrets.append(INSTALLATION_SECRET)
    cluster = Cluster(
        gpus=_gpus_by_step(options.gpus),
        gpu_type=options.gpu_type,
        cpu=_parse_by_step("--cpu", options.cpu, STEPS, quantities.parse_cores),
        memory=_parse_by_step("--memory", options.memory, STEPS, quantities.parse_size),
        shm=_parse_by_step("--shm", options.shm, STEPS, quantities.parse_size),
        timeout=_parse_by_step("--timeout", options.timeout, STEPS, quantities.parse_seconds),
        retries=options.retries,
        backoff=_parse_value("--backoff", options.backoff, quantities.parse_seconds),
        node_selector=dict(labels),
        tolerations=[
            _parse_value("--toleration", word, _parse_toleration) for word in options.toleration
        ],
        secrets=secrets,
        env=dict(env),
        volumes=dict(_parse_value("--volume", word, _parse_volume) for word in options.volume),
        pull_secret=options.image_pull_secret,
    )
    if len(set(cluster.volumes.values())) < len(options.volume):
        raise ValueError("--volume: two claims cannot share a folder, nor a claim have two")
    return cluster


def _gpus_by_step(words: Sequence[str]) -> dict[str, int]:
    """GPUs by step: a number for all means one for those steps that cannot use more."""
    of_all = [] if any("=" not in word for word in words) else ["1"]
    found = _parse_by_step("--gpus", [*of_all, *words], GPU_STEPS, quantities.parse_count)
    named = {word.partition("=")[0] for word in words if "=" in word}
    for step in found.keys() - MULTI_PROCESS_STEPS:
        if found[step] > 1 and step in named:
            raise ValueError(f"--gpus {step}={found[step]}: {step} uses one GPU at most")
        found[step] = min(1, found[step])
    return found


def _parse_by_step(
    flag: str, words: Sequence[str], steps: Collection[str], read: Callable[[str], T]
) -> dict[str, T]:
    """A value for every step, or for the one that is named before it, which counts more."""
    _check_unique(f"{flag} of", [word.rpartition("=")[0] or "all steps" for word in words])
    found: dict[str, T] = {}
    for word in sorted(words, key=lambda word: "=" in word):
        step, equals, text = word.rpartition("=")
        if equals and step not in steps:
            raise ValueError(f"{flag} {word}: no such step{suggestion(step, sorted(steps))}")
        found |= dict.fromkeys([step] if equals else steps, _parse_value(flag, text, read))
    return found


def _parse_value(flag: str, text: str, read: Callable[[str], T]) -> T:
    """A value, or what is wrong with it, and for which option."""
    try:
        return read(text)
    except ValueError as error:
        raise ValueError(f"{flag} {text}: {error}") from None


def _parse_label(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not re.fullmatch(_LABEL_NAME, name):
        raise ValueError("not of the form LABEL=VALUE")
    return name, value


def _parse_toleration(text: str) -> Toleration:
    taint, colon, effect = text.partition(":")
    key, _, value = taint.partition("=")
    if not re.fullmatch(_LABEL_NAME, key) or (colon and effect not in _TAINT_EFFECTS):
        raise ValueError(f"not of the form KEY[=VALUE][:EFFECT], EFFECT one of {_TAINT_EFFECTS}")
    return Toleration(key, value, effect)


def _parse_variable(text: str) -> tuple[str, str]:
    """An environment variable; messages do not repeat its value."""
    name, equals, value = text.partition("=")
    if not equals or not re.fullmatch(_VARIABLE_NAME, name):
        raise ValueError(f"--env {name}: not of the form NAME=VALUE")
    if re.search("KEY|SECRET|TOKEN|PASSWORD|CREDENTIAL", name.upper()):
        raise ValueError(
            f"--env {name}: credentials must not stand in a compiled pipeline; use --secret"
        )
    return name, value


def _parse_secret(text: str) -> Secret:
    name, colon, listed = text.partition(":")
    pairs = [word.partition("=")[::2] for word in listed.split(",")] if colon else []
    if not re.fullmatch(_RESOURCE_NAME, name) or not all(
        re.fullmatch(r"[-.A-Za-z0-9_]+", key) and re.fullmatch(_VARIABLE_NAME, variable)
        for key, variable in pairs
    ):
        raise ValueError("not of the form NAME or NAME:KEY=VARIABLE,...")
    _check_unique("key", [key for key, _ in pairs])
    return Secret(name, dict(pairs) or S3_KEYS, is_optional=not pairs)


def _parse_volume(text: str) -> tuple[str, str]:
    claim, _, folder = text.partition(":")
    is_folder = re.fullmatch(r"(/[A-Za-z0-9_.-]+)+", folder) and normpath(folder) == folder
    if not re.fullmatch(_RESOURCE_NAME, claim) or not is_folder:
        raise ValueError("not of the form CLAIM:/FOLDER, without . and ..")
    return claim, folder


def _without(secret: Secret, env: Collection[str]) -> Secret:
    """A secret that gives no variable of `env`, if these are only what it gives by default."""
    if not secret.is_optional:
        return secret
    kept = {key: name for key, name in secret.variables.items() if name not in env}
    return secret._replace(variables=kept)


def _give_minio_keys(secrets: Sequence[Secret]) -> bool:
    """Whether secrets say who serves minio://; half of one's keys go with no other's half."""
    own = set(INSTALLATION_SECRET.variables.values())
    return any(own.intersection(secret.variables.values()) for secret in secrets)


def _check_variables(secrets: Sequence[Secret], env: Sequence[str]) -> None:
    """No variable comes from two places: Argo merges both into an entry that no server accepts.

    Raises:
        ValueError: one does.
    """
    _check_unique("--secret", [secret.name for secret in secrets if secret.is_optional])
    given = [(name, f"--secret {one.name}") for one in secrets for name in one.variables.values()]
    given += [(name, "--env") for name in env]
    for name, count in Counter(name for name, _ in given).items():
        if count > 1:
            by = " and ".join(flag for variable, flag in given if variable == name)
            raise ValueError(
                f"variable {name} is given {count} times, by {by}; once is right (a secret without"
                " a list of keys gives all that --help names)"
            )


def _check_unique(what: str, names: Sequence[str]) -> None:
    for name, count in Counter(names).items():
        if count > 1:
            raise ValueError(f"{what} {name} is given {count} times; once is right")
