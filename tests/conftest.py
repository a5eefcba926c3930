"""What several test files share: small pictures and image sets made from a seed, servers."""

import contextlib
import gc
import itertools
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import numpy as np
import pytest

from components.process.signals import signal_handler
from san_core.images.imageset import ImageSet, write_imageset
from san_core.images.pixels import Pixels, encode_jpeg, encode_png
from san_core.images.shard import Item, sha256
from tests.servers.seaweedfs import BUCKET, S3Server, running_server
from tests.servers.tampering_proxy import TamperingProxy
from tests.tiny import TinyRun, shared_tiny_run

ROOT = Path(__file__).parents[1]

if TYPE_CHECKING:
    import torch


def pytest_configure() -> None:
    """One thread per process by default, and signals as in a shell.

    Examples that hypothesis draws may take as long as a busy machine needs.

    OpenMP's threads wait for each other by spinning: several processes with a thread a core each
    took ten times as long as with one.

    What tests start hears Ctrl-C as from a terminal: in a script's background it is ignored, and
    who inherits that keeps it.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    hypothesis.settings.register_profile("untimed", deadline=None)
    hypothesis.settings.load_profile("untimed")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files of whole steps and pipelines first: they take longest, and no core should idle."""
    here = Path(__file__).parent
    items.sort(key=lambda item: item.path.parent not in (here, here / "steps"))


@pytest.fixture
def impatient() -> Iterator[None]:
    """A test that waits for ten seconds fails, where it would else wait for ever."""

    def give_up(_signal: int, _frame: object) -> None:
        raise AssertionError("this waits for ever")

    with signal_handler(give_up, signal.SIGALRM):
        signal.alarm(10)
        yield
        signal.alarm(0)


@pytest.fixture
def start_process() -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """`subprocess.Popen`, in a session of its own, whose pipes hold text.

    What still runs when the test ends, however it does, is killed with all it has started.
    """
    started: list[subprocess.Popen[str]] = []

    def start(words: Sequence[str], **options: Any) -> "subprocess.Popen[str]":
        process = subprocess.Popen(words, start_new_session=True, text=True, **options)
        started.append(process)
        return process

    yield start
    for process in started:
        kill_all_of(process)
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe:
                pipe.close()


@pytest.fixture
def start_component(
    start_process: Callable[..., "subprocess.Popen[str]"],
) -> Callable[[Sequence[str]], "subprocess.Popen[str]"]:
    """Start a step as a command; its errors can be read, and it ends with the test."""

    def start(command: Sequence[str]) -> "subprocess.Popen[str]":
        words = [sys.executable, "-m", "components", *command]
        return start_process(words, cwd=ROOT, stderr=subprocess.PIPE)

    return start


def kill_all_of(process: "subprocess.Popen[str]") -> bool:
    """Kill a process of `start_process` with all it has started; whether it had not ended yet."""
    with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
        os.killpg(process.pid, signal.SIGKILL)
    return process.wait(timeout=60) == -signal.SIGKILL


@pytest.fixture
def picture() -> Callable[..., Pixels]:
    """A picture (H, W, 3) of coloured blocks, another for every seed."""

    def make(seed: int, height: int = 32, width: int = 16) -> Pixels:
        blocks = np.random.default_rng(seed).integers(0, 256, (4, 2, 3), np.uint8)
        return np.kron(blocks, np.ones((height // 4, width // 2, 1), np.uint8))

    return make


@pytest.fixture
def items(picture: Callable[..., Pixels]) -> Callable[[int], list[Item]]:
    """Some images of the train split: two identities, two cameras, JPEG."""

    def make(n: int) -> list[Item]:
        return [
            Item(
                name=f"{i:04d}.jpg",
                data=encode_jpeg(picture(i), quality=90),
                pid=i % 2,
                camid=i // 2 % 2,
                split="train",
                fields={"frame": i},
            )
            for i in range(n)
        ]

    return make


@pytest.fixture
def small_set(tmp_path: Path, items: Callable[[int], list[Item]]) -> Iterator[ImageSet]:
    """Seven images in shards of three."""
    write_imageset(
        tmp_path / "set", items(7), total=7, shard_size=3, provenance={"made_by": "a test"}
    )
    with ImageSet.open(tmp_path / "set") as images:
        yield images


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def accelerator(request: pytest.FixtureRequest) -> "torch.device":
    """A processor in the everyday tests, a GPU in those that are marked so."""
    import torch  # takes seconds, which most tests need not wait

    return torch.device(request.param)


@pytest.fixture
def texture(picture: Callable[..., Pixels]) -> Callable[[int], bytes]:
    """The PNG of a 16x16 texture, another for every seed."""
    return lambda seed: encode_png(picture(seed, 16, 16))


@pytest.fixture(scope="session", autouse=True)
def one_process() -> Iterator[None]:
    """Synthetic people are made in the test's own process: two more take seconds to start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("components.process.machine.core_count", lambda: 1)
        yield


@pytest.fixture(scope="session")
def tiny(one_process: None, tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    """The artifacts of a tiny run of all eight steps; not to be changed by a test."""
    own = tmp_path_factory.getbasetemp()
    return shared_tiny_run(own.parent if "PYTEST_XDIST_WORKER" in os.environ else own)


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A real S3 server; tests keep apart by their own prefixes."""
    with running_server(tmp_path_factory.mktemp("s3") / "data") as server:
        yield server


@pytest.fixture
def isolated_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment without credentials, servers and proxies, with a cache folder of its own."""
    for name in list(os.environ):
        is_of_servers = name.startswith(("AWS_", "S3_", "MINIO_", "SEAWEEDFS_", "SSL_CERT_"))
        if is_of_servers or name.upper().endswith("_PROXY"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SAN_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 12 KiB; only root may mount one."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=12k", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, check=False).returncode:
        pytest.skip("no small disk can be mounted here")
    yield folder
    gc.collect()  # an error that was raised there may hold a map of a file
    subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def nfs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are deleted as on NFS: one that is open or mapped here stays in its folder, renamed."""
    unlink, numbers = os.unlink, itertools.count()

    def rename_if_used(path: str | Path, *, dir_fd: int | None = None) -> None:
        folder = Path() if dir_fd is None else Path(f"/proc/self/fd/{dir_fd}").readlink()
        whole = Path.cwd() / folder / path
        if str(whole) in _files_in_use():
            whole.rename(whole.with_name(f".nfs{next(numbers):08x}"))
        else:
            unlink(path, dir_fd=dir_fd)

    monkeypatch.setattr(os, "unlink", rename_if_used)


def _files_in_use() -> set[str]:
    """What this process has open or mapped."""
    maps = Path("/proc/self/maps").read_text().splitlines()
    used = {line.split(maxsplit=5)[-1] for line in maps}
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # of the listing itself
            used.add(str(descriptor.readlink()))
    return used


@pytest.fixture
def s3(
    s3_server: S3Server,
    isolated_environment: None,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> str:
    """The URI of an empty prefix on the server, which the environment leads to."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    return f"s3://{BUCKET}/{sha256(request.node.nodeid.encode())[:12]}"


@pytest.fixture
def tampering_proxy(
    s3: str, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> Iterator[TamperingProxy]:
    """A proxy between the code under test and the server; it changes nothing by default."""
    with TamperingProxy(s3_server.port).running() as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        yield proxy
