"""Runs the tasks of a pipeline as containers, with the docker command of this machine.

A container mounts the folder of the run and the store of finished steps, and read-only the places
of the run's data. Each is mounted under its own path, so that paths mean the same inside and
outside.
"""

import csv
import io
import os
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from components.process.compute_threads import SPIN_VARIABLES, thread_limits
from components.runner.folder import RunError
from components.runner.ir import Task
from components.runner.processes import CONTAINER_FILE, LOG_FILE, WATCHED, TaskProcess
from components.runner.store import SHARED_FOLDERS, Store
from components.storage.places import is_remote, local_path, real_path
from components.storage.sources import STORE_PARAMETERS, names_place, read_places
from san_core.data.tree import is_archive

_PROXIES = ("HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY")
# Variables that name a file, which containers mount under the same path, each with the default path
# of the file in the home of the user, which containers do not see.
FILE_VARIABLES = {
    "AWS_CA_BUNDLE": "",
    "SSL_CERT_FILE": "",
    "AWS_WEB_IDENTITY_TOKEN_FILE": "",
    "AWS_SHARED_CREDENTIALS_FILE": ".aws/credentials",
}
# Variables that containers get too: servers, credentials and proxies of object storage, and the
# GPUs that they may use.
PASSED_PREFIXES = (
    *("AWS_", "S3_", "MINIO_", "CUDA_VISIBLE_DEVICES", *FILE_VARIABLES),
    *(*_PROXIES, *map(str.lower, _PROXIES)),
)
RUN_LABEL = "san-pipeline.run"
# The user of the images, for a run started by root.
IMAGE_USER, IMAGE_GROUP = 1000, 1000
ENGINE_STATUS = (
    125  # of `docker run` itself: the engine failed to make, start or follow the container
)
KILLED_STATUS = 137  # 128 + SIGKILL, as a shell counts


class ContainerProcess(TaskProcess):
    """One running task in a container, followed by a process of the docker command."""

    is_out_of_memory = False

    def has_ended(self) -> bool:
        """Whether it has ended; then `status` is its exit status, as in a shell."""
        has_been_asked = self.status is not None
        if super().has_ended() and self.status == KILLED_STATUS and not has_been_asked:
            # Nothing is known of a container that somebody has removed.
            found = _docker("inspect", "--format", "{{.State.OOMKilled}}", self._container)
            self.is_out_of_memory = found.returncode == 0 and found.stdout.strip() == "true"
        return self.status is not None

    def clean_up(self) -> None:
        """Remove the container with all its processes."""
        super().clean_up()
        if self._container:
            removed = _remove_container(self._container)
            if removed.returncode == 0:
                self._container_file.unlink()

    def how_it_ended(self) -> str:
        """How the task ended, after its name."""
        if self.is_out_of_memory:
            return "was killed: its container ran out of memory"
        if self.status == KILLED_STATUS:
            return "was killed by SIGKILL"
        if self.status == ENGINE_STATUS:
            return "ended: the docker engine failed"
        return super().how_it_ended()

    @property
    def _container_file(self) -> Path:
        return self.log.with_name(CONTAINER_FILE)

    @property
    def _container(self) -> str:
        """The container's id; empty before there is one and after it is removed."""
        return self._container_file.read_text() if self._container_file.is_file() else ""


class ContainerLauncher:
    """Runs each task in a container of its image.

    Args:
        arguments: arguments of the pipeline.
        folder: folder of the run; a local destination or checkpoint must be in it, or in the store.

    Raises:
        ValueError: a place cannot be reached from a container.
    """

    def __init__(self, arguments: Mapping[str, Any], folder: Path) -> None:
        self.folder = real_path(folder)
        self._written = (self.folder, Store.of_runs(self.folder.parent).root)
        self._options = _mount_options(self._written, bind_places(arguments, self._written))
        self._layers: dict[str, str] = {}

    def prepare(self, plan: Iterable[Task]) -> None:
        """Check engine and images; remove containers that a killed run has left running.

        Raises:
            RunError: no engine answers, or an image is missing and cannot be pulled.
        """
        try:
            _ask_docker("version", "--format", "{{.Server.Version}}")
        except RunError as error:
            raise RunError(f"no docker engine answers here: {error}") from error
        images = dict.fromkeys(task.image for task in plan)
        self._layers = {image: _ensure_image(image) for image in images}
        self._options += _machine_options()
        ours = f"label={RUN_LABEL}={self.folder}"
        for left in _ask_docker("ps", "-aq", "--filter", ours).split():
            removed = _remove_container(left)
            if removed.returncode:
                raise RunError(f"container {left} could not be removed: {removed.stderr.strip()}")
        for mark in self.folder.glob(f"*/{CONTAINER_FILE}"):
            mark.unlink()
        folder, store = self._written
        for place in (folder, store, *(store / name for name in SHARED_FOLDERS)):
            place.mkdir(exist_ok=True)
            _give_to_container_user(place)

    def code_of(self, task: Task) -> str:
        """The digest of the code that a task runs: the content of its image, not its name.

        Labels do not count: an image of another commit with the same files is the same.
        """
        return self._layers[task.image]

    def launch(
        self, task: Task, words: Sequence[str], folder: Path, *, threads: int
    ) -> ContainerProcess:
        """Start a task with this number of threads; its log goes into its folder."""
        _give_to_container_user(folder)
        cache = str(self._written[1] / "cache")
        own = {"HOME": "/tmp", "SAN_CACHE": cache, **WATCHED}
        own |= SPIN_VARIABLES | thread_limits(threads) | dict(task.env)
        command = ["docker", "run", "--cidfile", str(folder / CONTAINER_FILE)]
        command += ["--label", f"{RUN_LABEL}={self.folder}", *self._options]
        files = _named_files()
        command += [f"--env={name}" for name in files]
        command += [f"--env={name}={value}" for name, value in own.items()]
        command += [task.image, *words]
        environment = {**os.environ, **files}
        return ContainerProcess(task, command, folder / LOG_FILE, environment, self.folder)


def bind_places(arguments: Mapping[str, Any], written: Sequence[Path]) -> list[Path]:
    """The folders and files that containers read, each once.

    Args:
        arguments: arguments of the pipeline.
        written: the folders that containers write to, which are mounted anyway; the run's first.

    Raises:
        ValueError: one does not exist, or a destination or checkpoint is not in a written folder.
    """
    for name in STORE_PARAMETERS:
        place = arguments.get(name)
        if not names_place(name, place) or is_remote(str(place)):
            continue
        if not _leads_in(local_path(str(place)), written):
            raise ValueError(
                f"{name} {place} is not in {' or '.join(map(str, written))}, and containers write"
                " only there; name a folder there, or a URI"
            )
    read = set()
    for name, uri, is_single in read_places(arguments):
        if is_remote(uri):
            continue
        path = local_path(uri).absolute()
        if not path.exists():
            raise ValueError(f"{name} {path} does not exist")
        # A table needs its folder, which has the images; an archive is complete.
        is_alone = is_single or path.is_dir() or is_archive(path.name)
        read.add(path if is_alone else path.parent)
    for name, file in _named_files().items():
        if not Path(file).exists():
            raise ValueError(f"{name} {file} does not exist")
        read.add(Path(file))
    # By their own paths too, as a container cannot follow the links of another run.
    return sorted(path for path in read if not (_is_in(path, written) and _leads_in(path, written)))


def _leads_in(path: Path, folders: Iterable[Path]) -> bool:
    return _is_in(real_path(path), folders)


def _is_in(path: Path, folders: Iterable[Path]) -> bool:
    return any(map(path.is_relative_to, folders))


def _named_files() -> dict[str, str]:
    """The variables that name files, as absolute paths; the default path if one is not set.

    The files need not exist.
    """
    found = {}
    for name, by_default in FILE_VARIABLES.items():
        given, usual = os.environ.get(name), Path(os.environ.get("HOME", "/"), by_default)
        if given or usual.is_file():
            found[name] = str(Path(given or usual).absolute())
    return found


def _mount_options(written: Iterable[Path], places: Iterable[Path]) -> list[str]:
    """The options that mount folders to write to and places to read, each under its own path."""
    words = []
    fields_of = [*((path, []) for path in written), *((path, ["readonly"]) for path in places)]
    for path, fields in fields_of:
        line = io.StringIO()  # docker reads the option as CSV, so a path may hold commas
        csv.writer(line, lineterminator="").writerow(
            ["type=bind", f"source={path}", f"target={path}", *fields]
        )
        words += ["--mount", line.getvalue()]
    return words


def _machine_options() -> list[str]:
    """The options of containers: an ordinary user, this machine's storage access and GPUs.

    Environment variables are passed by name, so that no list of processes shows their values.
    """
    user = f"{os.getuid()}:{os.getgid()}" if os.getuid() else f"{IMAGE_USER}:{IMAGE_GROUP}"
    words = ["--user", user]
    passed = {k: v for k, v in sorted(os.environ.items()) if k.startswith(PASSED_PREFIXES)}
    for name in passed:
        words += ["--env", name]
    endpoints = (value for name, value in passed.items() if "ENDPOINT" in name)
    if any(urlsplit(one).hostname in ("127.0.0.1", "localhost", "::1") for one in endpoints):
        words += ["--network", "host"]  # the server can only be reached from this machine
    if '"nvidia"' in _ask_docker("info", "--format", "{{json .Runtimes}}"):
        words += ["--gpus", "all"]
    return words


def _give_to_container_user(folder: Path) -> None:
    """Let the user of the containers write to a folder that root has made."""
    if not os.getuid():
        os.chown(folder, IMAGE_USER, IMAGE_GROUP)


def _ensure_image(image: str) -> str:
    """The digests of an image's layers; a missing image is pulled if its name has a registry.

    Raises:
        RunError: it is missing and cannot be pulled.
    """
    words = ("image", "inspect", "--format", "{{json .RootFS.Layers}}", image)
    found = _docker(*words)
    if found.returncode == 0:
        return found.stdout.strip()
    if "/" not in image:
        raise RunError(f"there is no image {image} here; `make images` builds it")
    try:
        _ask_docker("pull", "--quiet", image)
    except RunError as error:
        raise RunError(f"image {image} is missing and cannot be pulled: {error}") from error
    return _ask_docker(*words).strip()


def _remove_container(container: str) -> "subprocess.CompletedProcess[str]":
    """Remove a container with all its processes; no error if it is already removed."""
    removed = _docker("rm", "--force", "--volumes", container)
    if "No such container" in removed.stderr:
        removed.returncode = 0
    return removed


def _ask_docker(*words: str) -> str:
    """The output of the docker command.

    Raises:
        RunError: it fails; the message is its last line.
    """
    done = _docker(*words)
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"docker {words[0]} failed"]
        raise RunError(said[-1])
    return done.stdout


def _docker(*words: str) -> "subprocess.CompletedProcess[str]":
    """Call the docker command; Ctrl-C does not interrupt it, as it may be cleaning up."""
    try:
        return subprocess.run(
            ["docker", *words], capture_output=True, text=True, start_new_session=True
        )
    except FileNotFoundError:
        raise RunError("the docker command is not installed") from None
