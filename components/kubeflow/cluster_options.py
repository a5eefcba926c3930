"""The command line options for the requirements of pods, read into a `Cluster`."""

import argparse
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from components.__main__ import STEPS
from components.kubeflow import quantities, words
from components.kubeflow.cluster import (
    DEFAULT_GPU_TYPE,
    DEFAULT_RUNTIME,
    SCRATCH_FOLDER,
    SCRATCH_VARIABLE,
    Cluster,
    Identity,
)
from components.process.gpu import GPU_STEPS
from components.process.machine import CORES_VARIABLE
from components.process.torchrun import MULTI_PROCESS_STEPS

# Memory requests without a limit, for steps that --memory does not name: somewhat more than each
# was measured to need. make_pit 349 MiB with 4 workers; prepare_reid 109 MiB for 130,000 images;
# generate_textures 959 MiB for 10,000 images on a CPU.
MEASURED_MEMORY = {"make_pit": "1Gi", "prepare_reid": "512Mi", "generate_textures": "2Gi"}
# Volumes and folders that every pod has already.
_OWN_VOLUMES, _OWN_FOLDERS = ("shm", "scratch"), ("/dev/shm", SCRATCH_FOLDER)


def add_cluster_options(parser: argparse.ArgumentParser) -> None:
    """Add the requirements of pods to a command line."""
    group = parser.add_argument_group(
        "resources and settings of the pods",
        "VALUE applies to every step, STEP=VALUE to one; such options may be repeated.",
    )
    _add_resources(group)
    _add_placement(group)
    _add_environment(group)


_MANY: Mapping[str, Any] = {"action": "append", "default": []}


def _adder(group: "argparse._ArgumentGroup") -> Any:
    def add(flag: str, metavar: str, text: str, **options: Any) -> None:
        group.add_argument(flag, metavar=metavar, help=text, **(options or _MANY))

    return add


def _add_resources(group: "argparse._ArgumentGroup") -> None:
    add = _adder(group)
    add("--gpus", "[STEP=]N", "number of GPUs of each step that uses them (default: 1)")
    add("--gpu-type", "[STEP=]NAME", f"resource name of the GPUs (default: {DEFAULT_GPU_TYPE})")
    add("--nodes", "[STEP=]N", "number of nodes of a training step, by Kubeflow Trainer")
    add(
        "--runtime",
        "[KIND/]NAME",
        f"Kubeflow Trainer's runtime for --nodes (default: {DEFAULT_RUNTIME})",
        default=DEFAULT_RUNTIME,
    )
    add("--cpu", "[STEP=]CORES", "CPU request, such as 4 or 500m; the step uses no more cores")
    add("--cpu-limit", "[STEP=]CORES", "CPU limit; the step uses as many cores")
    measured = ", ".join(f"{step} {size}" for step, size in MEASURED_MEMORY.items())
    add(
        "--memory",
        "[STEP=]SIZE",
        f"memory request and limit, such as 16Gi (default: no limit, and a request of {measured})",
    )
    add("--shm", "[STEP=]SIZE", "size of /dev/shm; it counts as memory")
    add(
        "--ephemeral-storage",
        "[STEP=]SIZE",
        "maximum size of temporary files on the node's disk; a pod that needs more is evicted",
    )
    add("--timeout", "[STEP=]TIME", "maximum time of one attempt, such as 90m or 12h")
    add("--retries", "N", "further attempts of a failed step (default: 2)", type=int, default=2)
    add(
        "--backoff",
        "TIME",
        "pause before each further attempt; it does not grow (default: 60s)",
        default="60s",
    )


def _add_placement(group: "argparse._ArgumentGroup") -> None:
    add = _adder(group)
    pool = "steps with GPUs (with --gpus 0: of all steps), or of STEP"
    add("--node-selector", "[STEP=]LABEL=VALUE", f"nodes of {pool}")
    add("--toleration", "[STEP=]KEY[=VALUE][:EFFECT]", f"taint that the pods tolerate, of {pool}")
    add("--label", "[STEP=]LABEL=VALUE", "label of the pods, such as a queue's name")
    add("--annotation", "[STEP=]NAME=VALUE", "annotation of the pods")
    add("--run-as-user", "UID", "user of the pods' processes (default: 1000)", type=int)
    add("--run-as-group", "GID", "group of the pods' processes", type=int)
    group.add_argument(
        "--run-as-non-root",
        action="store_true",
        help="let Kubernetes refuse a pod that would run as root",
    )


def _add_environment(group: "argparse._ArgumentGroup") -> None:
    add = _adder(group)
    add(
        "--secret",
        "NAME[:KEY=VARIABLE,...]",
        "secret whose keys become environment variables; without a list, its keys named "
        f"{', '.join(words.S3_KEYS)}; {words.INSTALLATION_SECRET.name} sets MINIO_ACCESS_KEY and "
        "MINIO_SECRET_KEY, unless a secret given here sets them; "
        f"{words.NO_SECRET} leaves it out",
    )
    add(
        "--env",
        "NAME=VALUE",
        "environment variable, such as AWS_ENDPOINT_URL; overrides a secret without a list",
    )
    add(
        "--volume",
        "CLAIM:FOLDER",
        "persistent volume claim to mount at FOLDER, for data, textures and artifacts",
    )
    add("--config-map", "NAME:FOLDER", "configuration map whose keys become files in FOLDER")
    add("--secret-files", "NAME:FOLDER", "secret whose keys become files in FOLDER")
    add("--image-pull-secret", "NAME", "secret for pulling the image", default="")


def check_component_options(options: argparse.Namespace) -> None:
    """Refuse options that have no effect on components: all but the number of GPUs.

    Raises:
        ValueError: such an option is given.
    """
    parser = argparse.ArgumentParser()
    add_cluster_options(parser)
    for name, default in vars(parser.parse_args([])).items():
        if name != "gpus" and getattr(options, name) != default:
            flag = f"--{name.replace('_', '-')}"
            raise ValueError(f"{flag} has no effect with --components; your pipeline sets it")


def cluster_from_options(options: argparse.Namespace) -> Cluster:
    """The requirements on a command line.

    Raises:
        ValueError: an option is invalid, or has no effect.
    """
    return Cluster(
        **_resources(options),
        **_placement(options),
        **_environment(options),
        **_mounts(options),
        identity=_identity(options),
    )


def _resources(options: argparse.Namespace) -> dict[str, Any]:
    """GPUs, cores, memory and time."""

    def read(flag: str, reader: Any) -> dict[str, Any]:
        given = getattr(options, flag.lstrip("-").replace("-", "_"))
        return words.parse_by_step(flag, given, STEPS, reader)

    if options.retries < 0:
        raise ValueError(f"--retries {options.retries} is not a number from 0")
    gpus, types = _gpus_by_step(options.gpus), _gpu_types_by_step(options.gpu_type)
    _check_slices(gpus, types)
    nodes = words.parse_by_step(
        "--nodes", options.nodes, MULTI_PROCESS_STEPS, words.parse_node_count
    )
    runtime = words.parse_value("--runtime", options.runtime, words.parse_runtime)
    if runtime != DEFAULT_RUNTIME and not nodes:
        raise ValueError(f"--runtime {runtime} has no effect without --nodes")
    cpu, limit = read("--cpu", quantities.parse_cores), read("--cpu-limit", quantities.parse_cores)
    _check_cpu_limits(cpu, limit)
    memory = read("--memory", quantities.parse_size)
    return {
        "gpus": gpus,
        "gpu_type": types,
        "nodes": nodes,
        "runtime": runtime,
        "cpu": cpu,
        "cpu_limit": limit,
        "memory": memory,
        "least_memory": MEASURED_MEMORY,
        "shm": read("--shm", quantities.parse_size),
        "scratch": read("--ephemeral-storage", quantities.parse_size),
        "timeout": read("--timeout", quantities.parse_seconds),
        "retries": options.retries,
        "backoff": words.parse_value("--backoff", options.backoff, quantities.parse_seconds),
    }


def _gpus_by_step(given: Sequence[str]) -> dict[str, int]:
    """GPUs by step; a number for all steps means 1 for steps that cannot use more."""
    of_all = [] if any("=" not in word for word in given) else ["1"]
    found = words.parse_by_step("--gpus", [*of_all, *given], GPU_STEPS, quantities.parse_count)
    named = {word.partition("=")[0] for word in given if "=" in word}
    for step in found.keys() - MULTI_PROCESS_STEPS:
        if found[step] > 1 and step in named:
            raise ValueError(f"--gpus {step}={found[step]}: {step} uses one GPU at most")
        found[step] = min(1, found[step])
    return found


def _gpu_types_by_step(given: Sequence[str]) -> dict[str, str]:
    """The resource name of the GPUs of each step."""
    usual = dict.fromkeys(GPU_STEPS, DEFAULT_GPU_TYPE)
    return usual | words.parse_by_step("--gpu-type", given, GPU_STEPS, words.parse_device)


def _check_slices(gpus: Mapping[str, int], types: Mapping[str, str]) -> None:
    """Check that no step has several slices of a GPU (MIG): CUDA shows a process only one."""
    for step, count in gpus.items():
        if count > 1 and "/mig-" in types[step]:
            raise ValueError(
                f"--gpus {step}={count}: a process sees only one {types[step]}, and all processes"
                f" of a pod see the same one; give --gpus {step}=1, or whole GPUs"
            )


def _check_cpu_limits(cpu: Mapping[str, str], limit: Mapping[str, str]) -> None:
    """Check that no CPU request is above its limit, as Kubernetes refuses such a pod."""
    for step in cpu.keys() & limit.keys():
        if quantities.cores_of(cpu[step]) > quantities.cores_of(limit[step]):
            raise ValueError(
                f"--cpu-limit of {step} is {limit[step]}, below the {cpu[step]} of --cpu"
            )


def _placement(options: argparse.Namespace) -> dict[str, Any]:
    """Nodes, and the labels and annotations of the pods."""
    gpus = _gpus_by_step(options.gpus)
    pool = [step for step in STEPS if gpus.get(step)] or [*STEPS]
    return {
        "node_selector": words.parse_pairs_by_step(
            "--node-selector", options.node_selector, pool, words.parse_label
        ),
        "tolerations": words.parse_tolerations_by_step("--toleration", options.toleration, pool),
        "labels": words.parse_pairs_by_step("--label", options.label, STEPS, words.parse_label),
        "annotations": words.parse_pairs_by_step(
            "--annotation", options.annotation, STEPS, words.parse_annotation
        ),
    }


def _identity(options: argparse.Namespace) -> Identity:
    """User and group of the pods."""
    for flag, number in (
        ("--run-as-user", options.run_as_user),
        ("--run-as-group", options.run_as_group),
    ):
        if number is not None and number < 0:
            raise ValueError(f"{flag} {number} is not a number from 0")
    if options.run_as_user == 0 and options.run_as_non_root:
        raise ValueError("--run-as-user 0 is root, which --run-as-non-root refuses")
    return Identity(options.run_as_user, options.run_as_group, options.run_as_non_root or None)


def _environment(options: argparse.Namespace) -> dict[str, Any]:
    """Environment variables, and the registry's secret."""
    secrets = [
        words.parse_value("--secret", word, words.parse_secret)
        for word in options.secret
        if word != words.NO_SECRET
    ]
    env = [words.parse_variable(word) for word in options.env]
    secrets = [words.without_variables(secret, dict(env)) for secret in secrets]
    words.check_unique("--secret", [secret.name for secret in secrets if secret.is_optional])
    given = [(name, f"--secret {one.name}") for one in secrets for name in one.variables.values()]
    given += [(name, "--env") for name, _ in env]
    given += [(CORES_VARIABLE, "--cpu")] if options.cpu or options.cpu_limit else []
    given += [(SCRATCH_VARIABLE, "--ephemeral-storage")] if options.ephemeral_storage else []
    _check_variables(given)
    if words.NO_SECRET not in options.secret and not words.give_minio_keys(secrets):
        secrets.append(words.INSTALLATION_SECRET)
    return {"secrets": secrets, "env": dict(env), "pull_secret": options.image_pull_secret}


def _check_variables(given: Sequence[tuple[str, str]]) -> None:
    """Check that each variable is set once: the server refuses what Argo makes of two."""
    for name, count in Counter(name for name, _ in given).items():
        if count > 1:
            by = " and ".join(flag for variable, flag in given if variable == name)
            raise ValueError(
                f"variable {name} is given {count} times, by {by}; give it once (a secret without a"
                " list of keys sets all that --help names)"
            )


def _mounts(options: argparse.Namespace) -> dict[str, Any]:
    """Volumes and files; no two may have the same name, which is the volume's, or folder."""
    names, folders = list(_OWN_VOLUMES), list(_OWN_FOLDERS)
    found = {}
    for key, flag in (
        ("volumes", "--volume"),
        ("config_maps", "--config-map"),
        ("secret_files", "--secret-files"),
    ):
        given = getattr(options, flag.lstrip("-").replace("-", "_"))
        pairs = [words.parse_value(flag, word, words.parse_mount) for word in given]
        for name, folder in pairs:
            if name in names:
                raise ValueError(f"{flag} {name}: the pods have a volume of this name already")
            if folder in folders:
                raise ValueError(f"{flag} {name}: something else is already mounted at {folder}")
            names.append(name)
            folders.append(folder)
        found[key] = dict(pairs)
    return found
