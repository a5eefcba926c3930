"""A real S3 server on this machine: SeaweedFS, from its pip package, for tests and for `make s3`.

It listens on 127.0.0.1 only, unless it is given another address, and ends with the process that
started it.
"""

import contextlib
import fcntl
import functools
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import urllib3
from minio import Minio

from components.process.signals import die_with_parent

ACCESS_KEY, SECRET_KEY = "testaccess", "testsecret123"
BUCKET = "san"
SECONDS_TO_START = 60
FIRST_PORT = 12_000
PORT_NAMES = ("s3", "master", "volume", "filer", "admin", "webdav")


@dataclass
class S3Server:
    """A SeaweedFS server, its data in `folder`; start and stop it as often as you like."""

    folder: Path
    port: int = 0
    access_key: str = ACCESS_KEY
    secret_key: str = SECRET_KEY
    host: str = "127.0.0.1"
    process: subprocess.Popen[bytes] | None = None
    ports: list[int] = field(default_factory=list)
    _lock: int | None = None

    @property
    def endpoint(self) -> str:
        """The URL that clients are given."""
        return f"http://{self.host}:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """What a client's environment holds to be let in."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
        }

    def client(self) -> Minio:
        """A plain client, to look at the server past the code under test."""
        pool = urllib3.PoolManager(timeout=urllib3.Timeout(connect=1, read=20), retries=False)
        keys = self.access_key, self.secret_key
        return Minio(f"{self.host}:{self.port}", *keys, secure=False, http_client=pool)

    def start(self) -> None:
        """Start the server and wait until it takes and gives an object."""
        if not self.ports:
            self.ports, self._lock = _reserved_ports(len(PORT_NAMES), first=self.port)
            self.port = self.ports[0]
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder.parent / f"{self.folder.name}.log").open("ab") as log:
            self.process = subprocess.Popen(
                _server_command(
                    self.folder, self.host, dict(zip(PORT_NAMES, self.ports, strict=True))
                ),
                env={
                    **os.environ,
                    "AWS_ACCESS_KEY_ID": self.access_key,
                    "AWS_SECRET_ACCESS_KEY": self.secret_key,
                },
                cwd=self.folder,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=functools.partial(die_with_parent, os.getpid()),
            )
        self._wait_until_ready()

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + SECONDS_TO_START
        while True:
            assert self.process is not None
            if self.process.poll() is not None:
                raise RuntimeError(f"SeaweedFS ended with {self.process.returncode}: see its log")
            try:
                client = self.client()
                if not client.bucket_exists(BUCKET):
                    client.make_bucket(BUCKET)
                client.put_object(BUCKET, ".ready", _EmptyStream(), 0)
                client.remove_object(BUCKET, ".ready")
                return
            except Exception as error:  # whatever a half-started server answers
                if time.monotonic() > deadline:
                    raise RuntimeError("SeaweedFS did not start in time: see its log") from error
                time.sleep(0.1)

    def kill(self) -> None:
        """End it at once, as a crash would."""
        self._signal_and_wait(signal.SIGKILL)

    def stop(self) -> None:
        """End it in an orderly way."""
        self._signal_and_wait(signal.SIGTERM)

    def release_ports(self) -> None:
        """Let other servers have its ports, once it is not to be started again."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock, self.ports = None, []

    def _signal_and_wait(self, how: signal.Signals) -> None:
        if self.process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, how)
        try:
            self.process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self.process = None


class _EmptyStream:
    """A stream of nothing."""

    def read(self, _size: int = -1) -> bytes:
        return b""


def _server_command(folder: Path, host: str, ports: Mapping[str, int]) -> list[str]:
    """`weed mini` on one address alone, without telemetry; a missing bucket stays missing."""
    weed = shutil.which("weed", path=str(Path(sys.executable).parent)) or "weed"
    return [
        *(weed, "-logtostderr=true", "mini", f"-dir={folder}"),
        *(f"-ip={host}", f"-ip.bind={host}", "-s3.autoCreateBucket=false"),
        *(f"-{name}.port={port}" for name, port in ports.items()),
        *("-admin.ui=false", "-webdav=false", "-master.telemetry=false"),
        *("-s3.port.iceberg=0", "-s3.port.lance=0"),
    ]


def _reserved_ports(count: int, *, first: int) -> tuple[list[int], int]:
    """Free ports, `first` foremost if it is not 0, and the descriptor of a lock on them.

    SeaweedFS listens for gRPC 10,000 above each of them. Both ranges lie below the ports that
    Linux gives to outgoing connections (from 32,768). The lock keeps the ports for one server,
    also while it is down between two starts.
    """
    for base in range(FIRST_PORT, FIRST_PORT + 10_000, count):
        file = Path(tempfile.gettempdir(), f"san-test-ports-{base}")
        lock = os.open(file, os.O_CREAT | os.O_WRONLY, 0o666)
        ports = list(range(base, base + count))
        if first:
            ports[0] = first
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            continue
        if all(_is_free(port) and _is_free(port + 10_000) for port in ports):
            return ports, lock
        os.close(lock)
    raise RuntimeError(f"no {count} free ports between {FIRST_PORT} and {FIRST_PORT + 10_000}")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


@contextlib.contextmanager
def running_server(
    folder: Path,
    *,
    port: int = 0,
    keys: tuple[str, str] = (ACCESS_KEY, SECRET_KEY),
    host: str = "127.0.0.1",
) -> Iterator[S3Server]:
    """A server that ends with the block and lets these keys in; port 0 takes a free one."""
    server = S3Server(folder, port, *keys, host)
    try:
        server.start()
        yield server
    finally:
        server.kill()
        server.release_ports()


def main() -> None:
    """`make s3`: a server to try things with, until Ctrl-C or for eight hours."""
    port = int(os.environ.get("S3_PORT", "8333"))
    if not _is_free(port):
        sys.exit(f"make s3: port {port} is taken; choose another: make s3 S3_PORT=8444")
    for name in (signal.SIGINT, signal.SIGTERM):  # also where a shell's job ignores them
        signal.signal(name, lambda *_: sys.exit(0))
    with (
        tempfile.TemporaryDirectory(prefix="san-s3-") as folder,
        running_server(Path(folder, "data"), port=port) as server,
    ):
        print(f"SeaweedFS on {server.endpoint} with an empty bucket {BUCKET}; Ctrl-C ends it and")
        print("deletes what it was given. In another shell:\n")
        for name, value in server.environment.items():
            print(f"    export {name}={value}")
        run = ".venv/bin/python pipeline.py run --preset demo --name demo-s3"
        print(f"    {run} --param destination=s3://{BUCKET}/textures", flush=True)
        time.sleep(8 * 3600)


if __name__ == "__main__":
    main()
