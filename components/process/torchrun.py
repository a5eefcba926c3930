"""Which of the processes that torchrun started for one step this is.

    torchrun --nproc-per-node 2 -m components train_san ...
    torchrun --nnodes 2 --node-rank 0 --master-addr HOST -m components train_san ...

A node is a machine or a pod. The first process of all writes, logs and keeps the state; the first
of each node stages and decodes for its node. One process alone is both. What the processes share
is in `components.training.ranks`.

Torchrun's variables count together or not at all: what a notebook or a launcher has left of them,
without a WORLD_SIZE of 2 or more, makes no process one of several.
"""

import os

# The steps that share their work among several processes. The others use one GPU; textures and
# features are spread over GPUs by more workers.
MULTI_PROCESS_STEPS = frozenset({"train_san", "train_san_pg"})
# What torchrun sets in each of several processes beside WORLD_SIZE.
_VARIABLES = ("RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
# What torchrun sets beside them in the processes that it starts itself.
AGENT_VARIABLE = "TORCHELASTIC_RUN_ID"


def process_count() -> int:
    """How many processes torchrun started, on all nodes; 1 where there is one alone.

    Raises:
        ValueError: WORLD_SIZE is no number of processes.
    """
    return _number("WORLD_SIZE") if os.environ.get("WORLD_SIZE") else 1


def rank() -> int:
    """Which of torchrun's processes on all nodes this is; 0 where there is one alone.

    Raises:
        ValueError: there are several, and RANK does not say which.
    """
    return _number("RANK", least=0) if process_count() > 1 else 0


def local_rank() -> int:
    """Which of torchrun's processes on this node this is; 0 where there is one alone.

    Raises:
        ValueError: there are several, and LOCAL_RANK does not say which.
    """
    return _number("LOCAL_RANK", least=0) if process_count() > 1 else 0


def local_process_count() -> int:
    """How many processes torchrun started on this node; 1 where there is one alone.

    Raises:
        ValueError: there are several, and LOCAL_WORLD_SIZE does not say how many are here.
    """
    return _number("LOCAL_WORLD_SIZE") if process_count() > 1 else 1


def has_several_nodes() -> bool:
    """Whether torchrun started processes on other nodes than this one too."""
    return local_process_count() < process_count()


def node_rank() -> int:
    """Which of torchrun's nodes this is, as --node-rank says; 0 where there is one alone."""
    told = os.environ.get("GROUP_RANK", "")
    if process_count() > 1 and told.isdecimal():
        return int(told)
    return rank() // local_process_count()


def is_first_rank() -> bool:
    """Whether this is the process that logs and writes; always so where there is one alone."""
    return rank() == 0


def is_first_of_node() -> bool:
    """Whether this process stages and decodes for its node; always so where there is one alone."""
    return local_rank() == 0


def process_name() -> str:
    """This process among the others, in words; empty for the first of all."""
    if is_first_rank():
        return ""
    node = f"node {node_rank()}" if has_several_nodes() else ""
    process = "" if node and is_first_of_node() else f"process {local_rank() + 1}"
    return ", ".join(filter(None, (node, process)))


def check_may_share_work(step: str) -> None:
    """Refuse several processes for a step that cannot share work, or that cannot find each other.

    Raises:
        ValueError: they are of a step that is the work of one, or a variable of torchrun's is
            missing or no number.
    """
    if process_count() == 1:
        return
    if step not in MULTI_PROCESS_STEPS:
        raise ValueError(
            f"torchrun started {process_count()} processes (WORLD_SIZE), but {step} is the work of"
            " one: start it by python -m components, without WORLD_SIZE"
        )
    for name in _VARIABLES:
        if not os.environ.get(name):
            raise ValueError(_ask_for_torchrun(f"{name} is not set"))
    for name, least in (("RANK", 0), ("LOCAL_RANK", 0), ("LOCAL_WORLD_SIZE", 1)):
        _number(name, least=least)


def _number(name: str, *, least: int = 1) -> int:
    """The number that a variable of torchrun's holds."""
    text = os.environ.get(name, "").strip()
    if not text.isdecimal() or int(text) < least:
        raise ValueError(_ask_for_torchrun(f"{name} is {text!r}" if text else f"{name} is not set"))
    return int(text)


def _ask_for_torchrun(found: str) -> str:
    if not found.startswith("WORLD_SIZE"):
        found = f"WORLD_SIZE is {os.environ['WORLD_SIZE']!r}, and {found}"
    return f"{found}: start the step by torchrun, which sets it, or unset WORLD_SIZE"
