"""The rank of this process among those that torchrun started for one step.

    torchrun --nproc-per-node 2 -m components train_san ...
    torchrun --nnodes 2 --node-rank 0 --master-addr HOST -m components train_san ...

A node is a machine or a pod. The first process of all writes outputs, logs and checkpoints. The
first process of each node downloads and decodes for its node. A single process does both.
`components.training.ranks` has what the processes share.

Torchrun's variables count only with a WORLD_SIZE of 2 or more. Others that a notebook or a launcher
has left are ignored.
"""

import os

# The steps that share their work among several processes. The others use one GPU; several workers
# distribute textures and features over GPUs.
MULTI_PROCESS_STEPS = frozenset({"train_san", "train_san_pg"})
# The variables that torchrun sets in each of several processes besides WORLD_SIZE.
_VARIABLES = ("RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
# A variable that torchrun sets too, in processes that it starts itself.
AGENT_VARIABLE = "TORCHELASTIC_RUN_ID"


def process_count() -> int:
    """The number of processes that torchrun started, on all nodes; 1 without torchrun.

    Raises:
        ValueError: WORLD_SIZE is not a number of processes.
    """
    return _number("WORLD_SIZE") if os.environ.get("WORLD_SIZE") else 1


def rank() -> int:
    """The rank of this process on all nodes; 0 without torchrun.

    Raises:
        ValueError: there are several processes, and RANK is invalid.
    """
    return _number("RANK", least=0) if process_count() > 1 else 0


def local_rank() -> int:
    """The rank of this process on its node; 0 without torchrun.

    Raises:
        ValueError: there are several processes, and LOCAL_RANK is invalid.
    """
    return _number("LOCAL_RANK", least=0) if process_count() > 1 else 0


def local_process_count() -> int:
    """The number of processes that torchrun started on this node; 1 without torchrun.

    Raises:
        ValueError: there are several processes, and LOCAL_WORLD_SIZE is invalid.
    """
    return _number("LOCAL_WORLD_SIZE") if process_count() > 1 else 1


def has_several_nodes() -> bool:
    """Whether torchrun started processes on other nodes than this one too."""
    return local_process_count() < process_count()


def node_rank() -> int:
    """The rank of this node, as in --node-rank; 0 without other nodes."""
    told = os.environ.get("GROUP_RANK", "")
    if process_count() > 1 and told.isdecimal():
        return int(told)
    return rank() // local_process_count()


def is_first_rank() -> bool:
    """Whether this process logs and writes; always true without torchrun."""
    return rank() == 0


def is_first_of_node() -> bool:
    """Whether this process downloads and decodes for its node; always true without torchrun."""
    return local_rank() == 0


def process_name() -> str:
    """The node and the rank of this process, in words; empty for the first of all."""
    if is_first_rank():
        return ""
    node = f"node {node_rank()}" if has_several_nodes() else ""
    process = "" if node and is_first_of_node() else f"process {local_rank() + 1}"
    return ", ".join(filter(None, (node, process)))


def check_may_share_work(step: str) -> None:
    """Refuse several processes if the step cannot share work or torchrun's variables are wrong.

    Raises:
        ValueError: the step runs in one process, or a variable of torchrun is missing or invalid.
    """
    if process_count() == 1:
        return
    if step not in MULTI_PROCESS_STEPS:
        raise ValueError(
            f"torchrun started {process_count()} processes (WORLD_SIZE), but {step} runs in one;"
            " start it with python -m components, without WORLD_SIZE"
        )
    for name in _VARIABLES:
        if not os.environ.get(name):
            raise ValueError(_ask_for_torchrun(f"{name} is not set"))
    for name, least in (("RANK", 0), ("LOCAL_RANK", 0), ("LOCAL_WORLD_SIZE", 1)):
        _number(name, least=least)


def _number(name: str, *, least: int = 1) -> int:
    """The number in a variable of torchrun."""
    text = os.environ.get(name, "").strip()
    if not text.isdecimal() or int(text) < least:
        raise ValueError(_ask_for_torchrun(f"{name} is {text!r}" if text else f"{name} is not set"))
    return int(text)


def _ask_for_torchrun(found: str) -> str:
    if not found.startswith("WORLD_SIZE"):
        found = f"WORLD_SIZE is {os.environ['WORLD_SIZE']!r}, and {found}"
    return f"{found}; start the step with torchrun, which sets it, or unset WORLD_SIZE"
