"""`python -m components prune`: list stored files that are no longer needed, or delete them.

python -m components prune                              # list what can be deleted
python -m components prune --yes true                   # delete it
python -m components prune --at s3://bucket/san --what checkpoints --yes true
"""

import re
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple, NotRequired, TypedDict

from components.command.once import OnceParser
from components.command.step import boolean
from components.experiments.listing import size_in_words
from components.nodes.job import SCRATCH_FOLDER
from components.process.messages import os_error_message, printable
from components.runner.folder import process_using
from components.runner.processes import CONTAINER_FILE
from components.runner.state import read_state
from components.runner.store import Store, remove_folder, run_folders
from components.storage.places import is_remote, local_path, open_storage, real_path
from components.storage.store import TRAINING_KEY_FILE, Stat, Storage
from components.storage.transfer import UNFINISHED_MARK
from san_core.checked_json import json_bytes, read_json

KINDS = ("steps", "checkpoints", "textures", "features", "nodes")
_MANIFEST = "manifest.json"  # of a sealed set of textures
# The folder of one TrainJob's outputs, as components.nodes.job names it.
_OF_NODES = re.compile(rf"(?:.*/)?{SCRATCH_FOLDER}/san-[a-z-]+-[0-9a-f]{{16}}(?=/)")


class Unneeded(NamedTuple):
    """Something that may be deleted.

    Attributes:
        told: what it is, in words.
        size: in bytes.
        delete: deletes it.
        why_kept: why it must stay; empty if it may be deleted.
    """

    told: str
    size: int
    delete: Callable[[], None]
    why_kept: str = ""


class _Recipe(TypedDict):
    epochs: int


class _TrainingKey(TypedDict):
    step: str
    recipe: _Recipe


class _Settings(TypedDict):
    """The settings that identify a set of textures; `TextureSettings` has more."""

    source: str
    dataset: str
    texture_size: int


class _Provenance(TypedDict):
    settings: _Settings


class _SealedTextures(TypedDict):
    """The fields that only the manifest of sealed textures has."""

    provenance: _Provenance


class _Pointer(TypedDict):
    """A manifest that may have the URI of its shards."""

    uri: NotRequired[str]


def prune_parser() -> OnceParser:
    """The parser of the command line."""
    parser = OnceParser(
        prog="python -m components prune",
        description="List what is no longer needed: steps in the store that no run uses,"
        " checkpoints of finished trainings whose model exists, sealed textures that no local run"
        " uses, the features of single workers, once all have finished, and what nodes of"
        " Kubeflow Trainer have left.",
    )
    parser.add_argument(
        "--runs", type=Path, default=Path("runs"), help="folder of all runs (default: runs)"
    )
    parser.add_argument(
        "--at",
        metavar="PLACE",
        help="look for checkpoints and textures in this folder or URI, not in the store of the"
        " runs; runs elsewhere may still need them",
    )
    parser.add_argument(
        "--what", choices=KINDS, action="append", help="only these; may be repeated (default: all)"
    )
    parser.add_argument(
        "--yes",
        type=boolean,
        nargs="?",
        const=True,
        default=False,
        metavar="true|false",
        help="delete what is listed (default: false, only list it)",
    )
    return parser


def run_prune(words: Sequence[str]) -> int:
    """The command `prune`; returns the exit status."""
    parser = prune_parser()
    options = parser.parse_args(words)
    if options.at == "":
        parser.error("--at is empty; give a folder or a URI")
    if options.at and "steps" in (options.what or ()):
        parser.error("--what steps applies to the store of local runs, not to --at")
    if not options.at and "nodes" in (options.what or ()):
        parser.error("--what nodes needs --at, the pipeline root on Kubeflow")
    try:
        _prune(options.runs, options.at, options.what or KINDS, is_deleting=options.yes)
    except ValueError as error:
        parser.error(printable(str(error)))
    except BrokenPipeError:
        raise
    except OSError as error:
        print(printable(f"prune: {os_error_message(error)}"), file=sys.stderr)
        return 1
    return 0


def _prune(runs: Path, place: str | None, kinds: Sequence[str], *, is_deleting: bool) -> None:
    """List what can be deleted, and delete it if requested, while no run is active.

    Raises:
        OSError: a run is active, a manifest is damaged, or the place cannot be reached.
        ValueError: the text is not a place.
    """
    store = Store.of_runs(runs)
    # Without a store there is nothing to lock, and none is created.
    locked: AbstractContextManager[None] = store.locked() if store.root.is_dir() else nullcontext()
    with locked:
        _check_no_run(runs)
        found = list(unneeded(store, kinds, place=place))
        for one in found:
            kept = f"; it stays: {one.why_kept}" if one.why_kept else ""
            print(printable(f"{size_in_words(one.size):>9}  {one.told}{kept}"))
            if is_deleting and not one.why_kept:
                one.delete()
    sizes = [one.size for one in found if not one.why_kept]
    print(_summary(sizes, is_deleting=is_deleting))


def _summary(sizes: Sequence[int], *, is_deleting: bool) -> str:
    if not sizes:
        return "there is nothing to delete"
    total = f"{len(sizes)} in total, {size_in_words(sum(sizes))}"
    return f"deleted {total}" if is_deleting else f"{total}; --yes true deletes them"


def _check_no_run(runs: Path) -> None:
    for folder in run_folders(runs):
        process = process_using(folder)
        if process is not None:
            raise OSError(
                f"run {folder.name} is active (process {process}); prune when it has ended"
            )


def unneeded(store: Store, kinds: Iterable[str], *, place: str | None = None) -> Iterator[Unneeded]:
    """What can be deleted of these kinds: in the store of local runs, or at a place.

    Includes finished trainings whose model is missing, with the reason why they stay.
    """
    if "steps" in kinds and place is None:
        yield from _unused_steps(store)
    if "checkpoints" in kinds and (place or (store.root / "checkpoints").is_dir()):
        where = open_storage(place or str(store.root / "checkpoints"))
        yield from _finished_trainings(where, store)
    if "textures" in kinds and (place or (store.root / "textures").is_dir()):
        where = open_storage(place or str(store.root / "textures"))
        yield from _unused_textures(where, {*_used_by_runs(store), *_used_within(where)})
    if "features" in kinds and (place or (store.root / "features").is_dir()):
        yield from _parts_of_features(open_storage(place or str(store.root / "features")))
    if "nodes" in kinds and place:
        yield from _left_by_nodes(open_storage(place), store)


def _unused_steps(store: Store) -> Iterator[Unneeded]:
    """The folders that no run links, except those to which a container may still write."""
    links = store.links()
    for folder in store.all_folders():
        if folder not in links and not (folder / CONTAINER_FILE).exists():
            size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
            told = f"step {folder.parent.name}, of no run: {folder}"
            yield Unneeded(told, size, partial(remove_folder, folder))


def _finished_trainings(storage: Storage, store: Store) -> Iterator[Unneeded]:
    """The checkpoints of trainings whose last epoch is finished."""
    from san_core.model.saved import HISTORY_FILE

    trainings = _grouped(storage, TRAINING_KEY_FILE)
    passing = [*trainings, *_folders_of_nodes(storage)]
    arrived = {*_histories_of_runs(store), *_histories_within(storage, but=passing)}
    for folder, objects in trainings.items():
        place = f"{folder}/{TRAINING_KEY_FILE}"
        try:
            key = read_json(storage.get(place), _TrainingKey, where=place)
        except ValueError:
            continue  # somebody else's file of that name
        epochs, name = key["recipe"]["epochs"], f"{folder}/{HISTORY_FILE}"
        history = storage.get(name) if name in objects else b""
        if history.count(b"\n") >= epochs:
            told = f"checkpoint of {key['step']}, finished after {epochs} epochs"
            found = _stored(storage, folder, objects, told, last=TRAINING_KEY_FILE)
            why = "" if history in arrived else "no model of this training is known here"
            yield found._replace(why_kept=why)


def _histories_of_runs(store: Store) -> Iterator[bytes]:
    """The histories of the models that finished steps in the store have made.

    A model has the same history as the checkpoint of its training.
    """
    from san_core.model.saved import HISTORY_FILE

    for folder in store.all_folders():
        if read_state(folder):
            yield from (file.read_bytes() for file in folder.glob(f"*/{HISTORY_FILE}"))


def _histories_within(storage: Storage, *, but: Iterable[str]) -> Iterator[bytes]:
    """The histories of the models at a place, without those in some folders."""
    from san_core.model.saved import HISTORY_FILE, WEIGHTS_FILE

    beside = tuple(f"{folder}/" for folder in but)
    names = {stat.name for stat in storage.list()}
    for name in sorted(names):
        path = PurePosixPath(name)
        has_weights = str(path.with_name(WEIGHTS_FILE)) in names
        if path.name == HISTORY_FILE and has_weights and not name.startswith(beside):
            yield storage.get(name)


def _unused_textures(storage: Storage, used: set[str]) -> Iterator[Unneeded]:
    """The sealed sets of textures to which no manifest refers; other image sets are left out."""
    for folder, objects in _grouped(storage, _MANIFEST).items():
        has_shards = any(name.startswith(f"{folder}/shards/") for name in objects)
        is_used = _comparable(f"{storage.uri}/{folder}") in used
        if has_shards and not is_used and _is_sealed(storage, f"{folder}/{_MANIFEST}"):
            yield _stored(storage, folder, objects, "textures of no run here", last=_MANIFEST)


def _parts_of_features(storage: Storage) -> Iterator[Unneeded]:
    """The parts of features that workers have left; those of unfinished sets stay.

    Whoever joins a finished set has a copy; otherwise its workers make it again.
    """
    from components.inference.worker_parts import finished_workers
    from san_core.evaluation.feature_files import FEATURES_FILE

    every = storage.list()
    places = (PurePosixPath(stat.name) for stat in every if _name(stat) == FEATURES_FILE)
    for folder in sorted({str(place.parents[2]) for place in places if len(place.parents) > 3}):
        objects = {stat.name: stat for stat in every if stat.name.startswith(f"{folder}/")}
        found = finished_workers(name.removeprefix(f"{folder}/") for name in objects)
        if not found:
            continue  # something else
        count, workers = max(found.items(), key=lambda each: len(each[1]) / each[0])
        told = f"features of {len(workers)} of {count} workers"
        last = f"of-{count}/{min(workers)}/{FEATURES_FILE}"  # by which it is found
        is_finished = len(workers) == count
        why = "" if is_finished else "the other workers have not finished"
        yield _stored(storage, folder, objects, told, last=last)._replace(why_kept=why)


def _left_by_nodes(storage: Storage, store: Store) -> Iterator[Unneeded]:
    """The outputs of nodes that no pod has fetched and deleted, as their run has failed for good.

    A model stays unless it, or the checkpoint that it was made from, is known elsewhere.
    """
    from san_core.model.saved import HISTORY_FILE

    found = _folders_of_nodes(storage)
    if not found:
        return
    known = {*_histories_of_runs(store), *_histories_within(storage, but=found)}
    for folder in _grouped(storage, TRAINING_KEY_FILE):
        if storage.stat(f"{folder}/{HISTORY_FILE}"):
            known.add(storage.get(f"{folder}/{HISTORY_FILE}"))
    for folder, objects in found.items():
        is_unfinished = any(_name(stat) == UNFINISHED_MARK for stat in objects.values())
        told = [name for name, stat in objects.items() if _name(stat) == HISTORY_FILE]
        why = ""
        if is_unfinished:
            why = "a node is sending it, or was stopped meanwhile"
        elif not told or not known.issuperset(map(storage.get, told)):
            why = "neither its model nor a checkpoint of it is known elsewhere"
        last = told[0].removeprefix(f"{folder}/") if told else ""
        one = _stored(storage, folder, objects, "outputs of nodes", last=last)
        yield one._replace(why_kept=why)


def _folders_of_nodes(storage: Storage) -> dict[str, dict[str, Stat]]:
    """The objects that each TrainJob has left, by its folder."""
    found: dict[str, dict[str, Stat]] = {}
    for stat in storage.list():
        if match := _OF_NODES.match(stat.name):
            found.setdefault(match[0], {})[stat.name] = stat
    return found


def _is_sealed(storage: Storage, manifest: str) -> bool:
    """Whether a manifest is one that seal_textures has written."""
    try:
        read_json(storage.get(manifest), _SealedTextures, where=manifest)
    except ValueError:
        return False
    return True


def _used_by_runs(store: Store) -> Iterator[str]:
    """The places to which manifests of local runs refer, as `_comparable` writes them.

    Raises:
        OSError: one is damaged.
    """
    for folder in store.links():
        for manifest in folder.glob(f"*/{_MANIFEST}"):
            yield from _pointed_at(json_bytes(manifest), where=str(manifest))


def _used_within(storage: Storage) -> Iterator[str]:
    """The places to which the manifests at a place refer, without those of a run.

    Raises:
        OSError: one is damaged.
    """
    for stat in storage.list():
        if _name(stat) == _MANIFEST:
            where = f"{storage.uri}/{stat.name}"
            yield from _pointed_at(storage.get(stat.name), where=where)


def _pointed_at(manifest: bytes, *, where: str) -> Iterator[str]:
    """The place to which a manifest refers, if any.

    Raises:
        OSError: it is damaged, so that the place is unknown.
    """
    try:
        place = read_json(manifest, _Pointer, where=where).get("uri")
    except ValueError as error:
        raise OSError(str(error)) from error
    if place:
        yield _comparable(place)


def _comparable(place: str) -> str:
    """A place as one text for all links to it and all schemes of its bucket.

    A text that is not a place is returned unchanged.
    """
    if is_remote(place):
        return place.partition("://")[2].rstrip("/")
    try:
        return str(real_path(local_path(place)))
    except ValueError:
        return place


def _grouped(storage: Storage, telling: str) -> dict[str, dict[str, Stat]]:
    """The objects of every folder that has an object of a name, by folder."""
    every = storage.list()
    folders = [str(PurePosixPath(s.name).parent) for s in every if _name(s) == telling]
    return {
        folder: {s.name: s for s in every if s.name.startswith(f"{folder}/")}
        for folder in sorted(folders)
        if folder != "."
    }


def _name(stat: Stat) -> str:
    return PurePosixPath(stat.name).name


def _stored(
    storage: Storage, folder: str, objects: Mapping[str, Stat], told: str, *, last: str
) -> Unneeded:
    """A folder of a storage; `last` is deleted last, so that an interrupted prune can continue."""
    telling = f"{folder}/{last}"
    # Sidecars before their tars, so that no sidecar names a deleted tar.
    order = sorted(objects, key=lambda name: (name == telling, name.endswith(".tar"), name))

    def delete() -> None:
        for name in order:
            storage.delete(name)
        if not is_remote(storage.uri):
            shutil.rmtree(local_path(f"{storage.uri}/{folder}"))  # only empty folders remain

    size = sum(stat.size for stat in objects.values())
    return Unneeded(f"{told}: {storage.uri}/{folder}", size, delete)
