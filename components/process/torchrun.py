"""Which of the processes that torchrun started for one step this is.

    torchrun --nproc-per-node 2 -m components train_san ...

One process alone is the first of one. What the processes share is in `components.training.ranks`.
"""

import os

# The steps that share their work among several processes of one machine. The others use one GPU;
# textures are spread over GPUs by more workers.
MULTI_PROCESS_STEPS = frozenset({"train_san", "train_san_pg"})


class FirstRankFailed(BaseException):
    """The first of several processes has failed, and says why itself."""


def local_rank() -> int:
    """Which of torchrun's processes on this machine this is; 0 where there is one alone."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def local_process_count() -> int:
    """How many processes torchrun started on this machine; 1 where there is one alone."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def is_first_rank() -> bool:
    """Whether this is the process that logs and writes; always so where there is one alone."""
    return local_rank() == 0


def check_may_share_work(step: str) -> None:
    """Raise ValueError if torchrun started several processes for a step that cannot share work."""
    if step in MULTI_PROCESS_STEPS:
        return
    if "LOCAL_RANK" in os.environ and os.environ.get("WORLD_SIZE", "1") != "1":
        raise ValueError(
            f"torchrun started {os.environ['WORLD_SIZE']} processes, but {step} is the work of one:"
            " start it by python -m components"
        )
