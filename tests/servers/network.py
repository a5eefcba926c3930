"""Nodes that are network namespaces of this machine, joined by cables that can be pulled.

Each has its own network, HOME, TMPDIR and SAN_CACHE; a bridge of this machine joins them, on whose
address a server may listen. Only root may make them.
"""

import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import matplotlib

from components.command.code import ROOT
from components.process.signals import die_with_parent

MASTER_PORT = "29500"
_NETWORKS = itertools.count()


class NoNetworksError(OSError):
    """Networks cannot be made here."""


@dataclass
class Node:
    """A node: a network namespace, folders, and the processes that were started there."""

    number: int
    namespace: str
    cable: str
    folder: Path
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def prefix(self) -> list[str]:
        """The prefix of a command that runs there; it sets the device of gloo."""
        return [
            *("ip", "netns", "exec", self.namespace),
            *("env", "GLOO_SOCKET_IFNAME=eth0"),
        ]

    def start(
        self, command: Sequence[str], environment: Mapping[str, str]
    ) -> "subprocess.Popen[str]":
        """Start a command there; ends with this process at the latest."""
        own = {"HOME": "home", "TMPDIR": "tmp", "SAN_CACHE": "cache"}
        places = {name: self.folder / folder for name, folder in own.items()}
        for place in places.values():
            place.mkdir(parents=True, exist_ok=True)
        parent = os.getpid()
        process = subprocess.Popen(
            [*self.prefix, *command],
            cwd=ROOT,
            env={
                **os.environ,
                **environment,
                **{name: str(place) for name, place in places.items()},
                "OMP_NUM_THREADS": "1",
                "MPLCONFIGDIR": matplotlib.get_cachedir(),  # its fonts take seconds to list
            },
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=lambda: die_with_parent(parent),
        )
        self.started.append(process)
        return process

    def pull_cable(self) -> None:
        """From here on nothing comes or goes."""
        _ip("link", "set", self.cable, "down")

    def plug_cable(self) -> None:
        """Put the cable in again."""
        _ip("link", "set", self.cable, "up")

    def kill(self) -> None:
        """End all that was started there at once, as a machine that loses power."""
        told = subprocess.run(
            ["ip", "netns", "pids", self.namespace], capture_output=True, text=True, check=False
        )
        for pid in map(int, told.stdout.split()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@dataclass
class Network:
    """Some nodes, and the address of this machine in their network."""

    address: str
    nodes: list[Node]

    def start(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        *,
        processes: int = 1,
        module: str = "components",
        others: Sequence[str] | None = None,
    ) -> "list[subprocess.Popen[str]]":
        """Start a step by torchrun on all nodes, so many processes on each.

        others: another command for all nodes but the first.

        The first node is told by flags, the others by variables, as Kubeflow Trainer tells them.
        """
        started = []
        for node in self.nodes:
            told = {
                "nnodes": str(len(self.nodes)),
                "node_rank": str(node.number),
                "nproc_per_node": str(processes),
                "master_addr": address_of(self.address, 0),
                "master_port": MASTER_PORT,
            }
            flags = [f"--{n.replace('_', '-')}={v}" for n, v in told.items() if not node.number]
            variables = {f"PET_{n.upper()}": v for n, v in told.items() if node.number}
            torchrun = [sys.executable, "-m", "torch.distributed.run", *flags, "-m", module]
            words = [*torchrun, *(others if others and node.number else command)]
            started.append(node.start(words, {**environment, **variables}))
        return started


def address_of(bridge: str, number: int) -> str:
    """The address of a node in the network of a bridge."""
    return bridge.removesuffix(".254") + f".{number + 1}"


@contextlib.contextmanager
def running_network(folder: Path, count: int) -> Iterator[Network]:
    """So many nodes until the block ends, with folders below `folder`.

    Raises:
        NoNetworksError: they cannot be made here.
    """
    if shutil.which("ip") is None:
        raise NoNetworksError("iproute2 is not installed")
    own = f"{os.getpid()}{next(_NETWORKS)}"  # no longer than a device's name may be
    subnet, bridge = f"10.{100 + int(own) % 100}.{int(own) // 100 % 250}", f"sb{own}"
    nodes = [Node(n, f"san{own}-{n}", f"sv{own}-{n}", folder / f"node{n}") for n in range(count)]
    try:
        _ip("link", "add", bridge, "type", "bridge")
        _ip("addr", "add", f"{subnet}.254/24", "dev", bridge)
        _ip("link", "set", bridge, "up")
        for node in nodes:
            _join(node, bridge, f"{subnet}.{node.number + 1}")
        _check_reached(nodes, address_of(f"{subnet}.254", 0))
        yield Network(f"{subnet}.254", nodes)
    finally:
        for node in nodes:
            node.kill()
            for process in node.started:
                process.wait()
                assert process.stderr is not None
                process.stderr.close()
            for words in (["link", "del", node.cable], ["netns", "del", node.namespace]):
                subprocess.run(["ip", *words], check=False, capture_output=True)
        subprocess.run(["ip", "link", "del", bridge], check=False, capture_output=True)


def _check_reached(nodes: Sequence[Node], address: str) -> None:
    """Raise NoNetworksError if other nodes do not reach the first one.

    A firewall may stand between them: that of a docker engine forwards nothing that it does not
    know, bridges included.
    """
    for node in nodes[1:]:
        done = subprocess.run(
            [*node.prefix, sys.executable, "-c", _CONNECT, address], capture_output=True, text=True
        )
        if done.returncode:
            raise NoNetworksError(f"node {node.number} does not reach node 0: {done.stderr[-200:]}")


# Nobody listens: a node that is reached refuses at once
_CONNECT = """
import contextlib, socket, sys
with contextlib.suppress(ConnectionRefusedError):
    socket.create_connection((sys.argv[1], 9), timeout=5).close()
"""


def _join(node: Node, bridge: str, address: str) -> None:
    """Make the network of a node, and join it to the bridge."""
    _ip("netns", "add", node.namespace)
    peer = ("peer", "name", "eth0", "netns", node.namespace)
    _ip("link", "add", node.cable, "type", "veth", *peer)
    _ip("link", "set", node.cable, "master", bridge, "up")
    _ip("-n", node.namespace, "addr", "add", f"{address}/24", "dev", "eth0")
    for device in ("eth0", "lo"):
        _ip("-n", node.namespace, "link", "set", device, "up")


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise NoNetworksError(f"ip {' '.join(words)}: {done.stderr.strip()}")
