"""Checks that all nodes share their folders and train the same run from the same state.

The first process writes the outputs and the state. After a restart it may run on another node, so a
folder that is not shared by all nodes is refused.
"""

import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from components.process.messages import name_uris
from components.process.torchrun import has_several_nodes, is_first_rank
from components.storage.checkpoint import Checkpoint, differences_of_runs
from components.storage.places import is_remote, local_path
from components.training.heartbeats import describe_self
from components.training.inputs import file_sha256
from components.training.ranks import Ranks, process_group
from san_core.images.shard import canonical_json

_MARK = ".san-meeting-"
_SECONDS_UNTIL_STALE = 600.0  # for a mark, which is needed for some seconds


@contextmanager
def meet(
    step: str,
    outputs: Mapping[str, Path | None],
    *,
    checkpoint: str,
    settings: Mapping[str, Any],
) -> Iterator[Ranks]:
    """Join the processes that torchrun started for a step, and check what all nodes must share.

    Args:
        step: the name of the step.
        outputs: the path of each output, by name; None if the output is not written.
        checkpoint: folder or URI for the state; empty for none.
        settings: all settings that determine the result, as JSON; they must be equal on all nodes.

    Raises:
        ValueError: a folder is not shared, or the nodes differ in settings or the version of torch;
            or as in `process_group`.
        ConnectionError: as in `process_group`.
    """
    with process_group(step, keeps_state=bool(checkpoint)) as ranks:
        if has_several_nodes():
            _check_same_run(ranks, canonical_json({**settings, "torch": torch.__version__}))
            written = {name: path for name, path in outputs.items() if path is not None}
            _check_places_shared(ranks, written, checkpoint=checkpoint)
        yield ranks


def _check_places_shared(ranks: Ranks, outputs: Mapping[str, Path], *, checkpoint: str) -> None:
    """Refuse folders of outputs and checkpoint that the nodes do not share.

    Raises:
        ValueError: a folder is not shared.
    """
    folders = {n: path.parent for n, path in outputs.items() if not is_remote(name_uris(str(path)))}
    if checkpoint and not is_remote(checkpoint):
        folders["checkpoint"] = local_path(checkpoint)
    with _marked(ranks, folders) as mark:
        seen = ranks.gather((describe_self(), [n for n in folders if _sees(folders[n], mark)]))
    for who, names in seen:
        for name in sorted(folders.keys() - names):
            raise ValueError(
                f"{name} is in {folders[name]}, a folder that {who} does not share: on several"
                " nodes give a URI such as s3://BUCKET/PREFIX, or a folder that all nodes share"
            )


@contextmanager
def _marked(ranks: Ranks, folders: Mapping[str, Path]) -> Iterator[str]:
    """The name of a file that the first process creates in each folder, for this block."""
    own = f"{_MARK}{secrets.token_hex(8)}"

    def put() -> str:
        for folder in folders.values():
            folder.mkdir(parents=True, exist_ok=True)
            (folder / own).touch()
            _remove_stale_marks(folder, now=(folder / own).stat().st_mtime)
        return own

    try:
        yield ranks.make_on_first(put)
    finally:
        if is_first_rank():
            for folder in folders.values():
                (folder / own).unlink(missing_ok=True)


def _remove_stale_marks(folder: Path, *, now: float) -> None:
    """Remove the marks of killed processes; now: time by the clock of the file server."""
    for mark in folder.glob(f"{_MARK}*"):
        with suppress(FileNotFoundError):  # another process has just removed it
            if now - mark.stat().st_mtime > _SECONDS_UNTIL_STALE:
                mark.unlink()


def _sees(folder: Path, name: str) -> bool:
    return (folder / name).exists()


def fetch_state(ranks: Ranks, checkpoint: Checkpoint) -> Path | None:
    """A local file with the state from which all nodes resume; None if there is none.

    Raises:
        ValueError: the nodes have different runs or found different states; or as in
            `Checkpoint.fetch`.
        OSError: the store is unavailable.
    """
    if not has_several_nodes():
        return ranks.make_on_each_node(checkpoint.fetch)
    _check_same_run(ranks, checkpoint.run_key)

    def fetch() -> tuple[Path | None, str]:
        path = checkpoint.fetch()
        return path, file_sha256(path)[:12] if path else "none"

    path, digest = ranks.make_on_each_node(fetch)
    (first, found), *others = ranks.gather((describe_self(), digest))
    for who, other in others:
        if other != found:
            raise ValueError(
                f"{who} has found another state of training than {first} ({other}, not {found}):"
                " run again when nothing writes to the checkpoint any more"
            )
    return path


def _check_same_run(ranks: Ranks, run_key: bytes) -> None:
    (first, key), *others = ranks.gather((describe_self(), run_key))
    for who, other in others:
        if told := "; ".join(differences_of_runs(other, key)):
            raise ValueError(
                f"{who} would train something else than {first}, they differ in {told}:"
                " give all nodes the same command, image and data"
            )
