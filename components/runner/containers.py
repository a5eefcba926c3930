"""Runs a compiled pipeline on this machine in containers, by kfp.local.DockerRunner.

Every task is run, whatever a former run has made: kfp's cache knows an image by its name alone.
What is costly goes on where it was anyway, from checkpoints and finished shards.

kfp 2.17 lets the engine remove a container as it ends and takes one that is gone for a success, so
that exit codes get lost; `_Containers.run` stands in for the function that does so. What kfp says
goes into a log.
"""

import logging
import os
import shutil
import signal
import time
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, redirect_stdout, suppress
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple, NoReturn, TextIO
from urllib.parse import urlsplit

import docker
from docker.types import DeviceRequest, Mount
from kfp import local
from kfp.dsl.base_component import BaseComponent
from kfp.local import docker_task_handler
from requests.exceptions import RequestException

from components.process.compute_threads import SPIN_VARIABLES, thread_limits
from components.process.machine import core_count
from components.process.signals import Terminated, signal_handler
from components.runner.ir import Task, read_tasks
from components.runner.local import RunError, paths_of_kind, run_lock
from components.runner.processes import Screen, failure_excerpt
from components.storage.outputs import path_from_uri
from components.storage.places import is_remote
from components.storage.retry import root_cause
from components.storage.sources import (
    PLACE_PARAMETERS,
    READ_PARAMETERS,
    STORE_PARAMETERS,
    names_place,
)
from san_core.data.tree import is_archive

# Environment that steps in containers get too: servers and credentials of object storage.
PASSED_PREFIXES = ("AWS_", "S3_", "MINIO_")
CERTIFICATES_VARIABLE = "AWS_CA_BUNDLE"  # names a file, which they get under the same path
RUN_LABEL = "san-pipeline.run"
CONTAINER_USER = (
    "1000:1000"  # of the images; for a run started by root, who may not be root in them
)
KILLED_STATUS = 137  # 128 + SIGKILL, as a shell counts
# An engine that refuses, or one that stops, restarts or stalls while it is spoken to.
ENGINE_ERRORS = (docker.errors.APIError, RequestException)


def run_in_containers(
    pipeline: BaseComponent,
    document: Mapping[str, Any],
    arguments: Mapping[str, Any],
    *,
    folder: Path,
    terminal: TextIO,
    verbose: bool = False,
) -> None:
    """Run a pipeline in containers that see `folder`, and read-only the folders of data given.

    Args:
        pipeline: what to run.
        document: the same, compiled.
        arguments: values of its parameters.
        folder: where all is written; a folder given as destination or checkpoint lies in it.
        terminal: where lines go.
        verbose: whether to show what the steps log.

    Raises:
        ValueError: an argument is missing, or a place cannot be reached from a container.
        RunError: no engine answers, an image is missing, or a step failed.
        Terminated: SIGTERM arrived; the containers that were running are removed.
        KeyboardInterrupt: Ctrl-C, likewise.
    """
    plan = read_tasks(document, arguments)
    folder = folder.resolve()
    mounts = _bind_mounts(arguments, folder)
    folder.mkdir(parents=True, exist_ok=True)
    with run_lock(folder), _docker_client() as client:
        _ensure_images(
            client, {one["container"]["image"] for one in _container_executors(document)}
        )
        _make_folders(folder)
        containers = _Containers(client, plan, folder, terminal, verbose=verbose)
        containers.remove_leftovers()
        options = {
            "mounts": mounts,
            "labels": {RUN_LABEL: str(folder)},
            **_container_options(client, folder),
        }
        with containers.replace_kfp_runner(), _redirect_kfp_log(folder):
            local.init(
                runner=local.DockerRunner(**options),
                pipeline_root=str(folder),
                raise_on_error=True,
            )
            try:
                pipeline(**arguments)
            except RuntimeError as error:
                raise RunError(containers.failure or str(error)) from error
        containers.show_results()


class _ContainerEnd(NamedTuple):
    """How a container ended; `trouble` is why the engine could not follow it so far."""

    status: int
    lines: list[str]
    is_out_of_memory: bool = False
    trouble: str = ""


class _Containers:
    """The containers of one run."""

    def __init__(
        self, client: Any, plan: list[Task], folder: Path, terminal: TextIO, *, verbose: bool
    ) -> None:
        self.client = client
        self.folder = folder
        self.screen = Screen(terminal, verbose=verbose)
        self.failure = ""
        self.finished_steps: list[dict[str, str]] = []
        self.tasks = {task.step: task for task in plan}
        self.task_counts = Counter(task.step for task in plan)
        self.running: dict[str, Any] = {}

    def run_container(
        self,
        client: Any,
        image: str,
        command: list[str],
        volumes: Mapping[str, Any],
        **options: Any,
    ) -> int:
        """Run one container to its end; its exit status. Called by kfp, perhaps from threads."""
        step, flags = _parse_command(command)
        limits = thread_limits(max(1, core_count() // max(1, self.task_counts[step])))
        options["environment"] = {**SPIN_VARIABLES, **limits, **options.get("environment", {})}
        started = time.monotonic()
        try:
            container = client.containers.create(image, command, volumes=volumes, **options)
        except ENGINE_ERRORS as error:
            self.failure = f"{step} could not be started: {_engine_reason(error)}"
            return 1
        end = self._follow_container(container, step)
        status = end.status
        log = self._write_log(step, end.lines)
        if end.trouble:
            self.failure = f"{step}: the docker engine failed: {end.trouble}\n  log: {log}"
        elif status:
            self.failure = _failure_message(
                step, status, end.lines, log, is_out_of_memory=end.is_out_of_memory
            )
        else:
            self.screen.write_line(f"{step} ... done in {time.monotonic() - started:.1f} s")
            self.screen.write_warnings(end.lines, log)
            self.finished_steps.append({"step": step, **flags})
        return status

    def _follow_container(self, container: Any, step: str) -> "_ContainerEnd":
        """Start a container, show what it says until it ends, and remove it."""
        self.running[container.id] = container
        lines: list[str] = []
        has_started = False
        try:
            container.start()
            has_started = True
            for line in _split_lines(container.logs(stream=True, follow=True)):
                lines.append(line)
                if self.screen.verbose:
                    self.screen.write_line(f"{step} | {line}")
                else:
                    self.screen.show_status(f"{step} ... {line}")
            status = int(container.wait()["StatusCode"])
            container.reload()
            return _ContainerEnd(
                status, lines, is_out_of_memory=container.attrs["State"]["OOMKilled"]
            )
        except ENGINE_ERRORS as error:
            if has_started and isinstance(error, docker.errors.NotFound):  # someone removed it
                return _ContainerEnd(KILLED_STATUS, lines)
            return _ContainerEnd(1, lines, trouble=_engine_reason(error))
        finally:
            self.running.pop(container.id, None)
            with suppress(*ENGINE_ERRORS):
                container.remove(force=True)

    def show_results(self) -> None:
        """Say where the pages of the steps are, and under each its figures."""
        for flags in self.finished_steps:
            task = self.tasks[flags["step"]]
            paths = {name: Path(flags[f"--{name.replace('_', '-')}"]) for name in task.outputs}
            for page in paths_of_kind(task, paths, "system.HTML"):
                shown = self.folder / f"{task.step}.html"  # a name that a browser opens
                shutil.copyfile(page, shown)
                self.screen.write_line(f"{task.step}: {shown}")
            for figures in paths_of_kind(task, paths, "system.Metrics"):
                self.screen.write_metrics_line(figures)

    def remove_leftovers(self) -> None:
        """Remove what a killed runner of the same folder left running."""
        for left in self.client.containers.list(
            all=True, filters={"label": f"{RUN_LABEL}={self.folder}"}
        ):
            left.remove(force=True)

    @contextmanager
    def replace_kfp_runner(self) -> Iterator[None]:
        """Within the block kfp runs its containers here; signals remove those that run."""
        theirs = docker_task_handler.run_docker_container
        docker_task_handler.run_docker_container = self.run_container
        try:
            with signal_handler(self._stop, signal.SIGINT, signal.SIGTERM):
                yield
        finally:
            docker_task_handler.run_docker_container = theirs

    def _stop(self, number: int, _frame: FrameType | None) -> NoReturn:
        """Remove the containers first: kfp would wait for those that its threads follow."""
        for container in list(self.running.values()):
            with suppress(*ENGINE_ERRORS):
                container.remove(force=True)
        raise KeyboardInterrupt if number == signal.SIGINT else Terminated

    def _write_log(self, step: str, lines: list[str]) -> Path:
        """Keep what a step has said; of several at once, each its own."""
        number = 0
        while True:
            path = self.folder / "logs" / f"{step}{f'-{number}' if number else ''}.txt"
            path.parent.mkdir(exist_ok=True)
            try:
                with path.open("x") as file:
                    file.write("\n".join([*lines, ""]))
            except FileExistsError:
                number += 1
            else:
                return path


def _container_executors(document: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    executors = document["deploymentSpec"]["executors"].values()
    return [one for one in executors if "container" in one]


def _parse_command(command: list[str]) -> tuple[str, dict[str, str]]:
    """The step that a command runs, and the words that follow its flags."""
    words = command[command.index("components") + 1 :]
    return words[0], dict(pairwise(words[1:]))


def _split_lines(pieces: Iterable[bytes]) -> Iterator[str]:
    """The lines of a log that comes in pieces of any size."""
    rest = b""
    for piece in pieces:
        *whole, rest = (rest + piece).split(b"\n")
        yield from (line.decode("utf-8", "replace").rstrip() for line in whole)
    if rest:
        yield rest.decode("utf-8", "replace")


def _engine_reason(error: Exception) -> str:
    """What the engine says, or why it cannot be heard, in one line."""
    return " ".join(str(getattr(error, "explanation", None) or root_cause(error)).split())


def _failure_message(
    step: str, status: int, lines: list[str], log: Path, *, is_out_of_memory: bool
) -> str:
    """Why a step failed, as far as its log tells, and where to read on."""
    if is_out_of_memory:
        how = "was killed: its container was out of memory"
    elif status == KILLED_STATUS:
        how = "was killed by SIGKILL"
    else:
        how = f"failed with exit code {status}:{failure_excerpt(step, lines)}"
    return f"{step} {how}\n  log: {log}"


@contextmanager
def _docker_client() -> Iterator[Any]:
    """The docker engine of this machine.

    Raises:
        RunError: none answers.
    """
    try:
        client = docker.from_env()
        client.ping()
    except docker.errors.DockerException as error:
        raise RunError(f"no docker engine answers here: {' '.join(str(error).split())}") from error
    try:
        yield client
    finally:
        client.close()


def _ensure_images(client: Any, images: set[str]) -> None:
    """Every image is here before the first step, pulled if its name says from where.

    Raises:
        RunError: one is not.
    """
    for image in sorted(images):
        try:
            client.images.get(image)
        except docker.errors.ImageNotFound:
            if "/" not in image:
                raise RunError(f"there is no image {image} here; `make images` builds it") from None
            try:
                client.images.pull(image)
            except docker.errors.APIError as error:
                why = error.explanation or error
                raise RunError(f"image {image} is not here and cannot be pulled: {why}") from error


def _bind_mounts(arguments: Mapping[str, Any], folder: Path) -> list[Mount]:
    """The folders and archives that containers read, each under its own path and once.

    Raises:
        ValueError: a place to keep things is not in the run's folder, which is all that containers
            write to.
    """
    here = {
        name: arguments[name]
        for name in PLACE_PARAMETERS
        if names_place(name, arguments.get(name)) and not is_remote(arguments[name])
    }
    for name in STORE_PARAMETERS:
        if name in here and not path_from_uri(here[name]).resolve().is_relative_to(folder):
            raise ValueError(
                f"{name} {here[name]} is not in {folder}, which is all that containers write to; "
                "name a folder in it, or a URI"
            )
    read = set()
    if bundle := os.environ.get(CERTIFICATES_VARIABLE):
        here[CERTIFICATES_VARIABLE] = bundle
    for name in filter(here.__contains__, (*READ_PARAMETERS, CERTIFICATES_VARIABLE)):
        path = path_from_uri(here[name]).absolute()
        if not path.exists():
            raise ValueError(f"{name} {path} does not exist")
        # Of a table the images lie in the same folder; an archive is all by itself.
        is_alone = path.is_dir() or is_archive(path.name) or name == CERTIFICATES_VARIABLE
        read.add(path if is_alone else path.parent)
    return [
        Mount(str(path), str(path), type="bind", read_only=True)
        for path in sorted(read)
        if not path.resolve().is_relative_to(folder)
    ]


def _container_options(client: Any, folder: Path) -> dict[str, Any]:
    """How containers run: as an ordinary user, with this machine's storage and GPUs."""
    passed = {k: v for k, v in os.environ.items() if k.startswith(PASSED_PREFIXES)}
    if bundle := passed.get(CERTIFICATES_VARIABLE):
        passed[CERTIFICATES_VARIABLE] = str(Path(bundle).absolute())
    options: dict[str, Any] = {
        "environment": {**passed, "HOME": "/tmp", "SAN_CACHE": str(folder / "cache")},
        "user": f"{os.getuid()}:{os.getgid()}" if os.getuid() else CONTAINER_USER,
    }
    endpoints = (value for name, value in passed.items() if "ENDPOINT" in name)
    if any(urlsplit(one).hostname in ("127.0.0.1", "localhost", "::1") for one in endpoints):
        options["network_mode"] = "host"  # the server is reached from this machine alone
    if "nvidia" in client.info().get("Runtimes", {}):
        options["device_requests"] = [DeviceRequest(count=-1, capabilities=[["gpu"]])]
    return options


def _make_folders(folder: Path) -> None:
    """Make what the user of the containers must be able to write to; forget former logs."""
    shutil.rmtree(folder / "logs", ignore_errors=True)
    for one in (folder, folder / "cache", folder / "textures", folder / "checkpoints"):
        one.mkdir(parents=True, exist_ok=True)
        if not os.getuid():
            os.chown(one, *map(int, CONTAINER_USER.split(":")))


@contextmanager
def _redirect_kfp_log(folder: Path) -> Iterator[None]:
    """Within the block kfp's own talk goes into a file."""
    log = (folder / "kfp.log").open("w", encoding="utf-8")
    # Between two of kfp's tasks no handler may be left, and then logging would make one for stderr.
    silent, root = logging.NullHandler(), logging.getLogger()
    with log, redirect_stdout(log), warnings.catch_warnings(), ExitStack() as after:
        root.addHandler(silent)
        after.callback(root.removeHandler, silent)
        warnings.simplefilter("ignore")  # kfp's, of settings that mean nothing here
        yield
