"""`python -m components prune`: what is kept and needed no more, shown and, if asked for, deleted.

python -m components prune                              # what could go, of the runs here
python -m components prune --yes true                   # delete it
python -m components prune --at s3://bucket/san --what checkpoints --yes true
"""

import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, TypedDict

from components.command.once import OnceParser
from components.command.step import boolean
from components.experiments.listing import size_in_words
from components.process.messages import os_error_message, printable
from components.runner.folder import process_using
from components.runner.processes import CONTAINER_FILE
from components.runner.store import Store, remove_folder, run_folders
from components.storage.places import is_remote, local_path, open_storage
from components.storage.store import Stat, Storage
from san_core.checked_json import read_json, read_json_file

KINDS = ("steps", "checkpoints", "textures")
_STATE, _KEY, _HISTORY = "state.pt", "run.json", "history.jsonl"  # of a training, in its folder
_MANIFEST = "manifest.json"  # of a sealed set of textures


class Unneeded(NamedTuple):
    """Something that could go.

    Attributes:
        told: what it is, in words.
        size: in bytes.
        delete: deletes it.
    """

    told: str
    size: int
    delete: Callable[[], None]


class _Recipe(TypedDict):
    epochs: int


class _TrainingKey(TypedDict):
    step: str
    recipe: _Recipe


def prune_parser() -> OnceParser:
    """The words of the command."""
    parser = OnceParser(
        prog="python -m components prune",
        description="Show what is needed no more: steps in the store that no run uses, checkpoints"
        " of finished trainings, and sealed textures that no run here uses.",
    )
    parser.add_argument(
        "--runs", type=Path, default=Path("runs"), help="folder of all runs (default: runs)"
    )
    parser.add_argument(
        "--at",
        metavar="PLACE",
        help="look for checkpoints and textures in this folder or URI, not in the store of the"
        " runs; which runs elsewhere need them is not known",
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
        help="delete it (default: false, only show)",
    )
    return parser


def run_prune(words: Sequence[str]) -> int:
    """The command `prune`; returns the exit status."""
    parser = prune_parser()
    options = parser.parse_args(words)
    if options.at and "steps" in (options.what or ()):
        parser.error("--what steps is of the store of the runs here, not of --at")
    try:
        _prune(options.runs, options.at, options.what or KINDS, is_deleting=options.yes)
    except ValueError as error:
        parser.error(printable(str(error)))
    except OSError as error:
        print(printable(f"prune: {os_error_message(error)}"), file=sys.stderr)
        return 1
    return 0


def _prune(runs: Path, place: str | None, kinds: Sequence[str], *, is_deleting: bool) -> None:
    """Show what could go, and delete it if that is asked for, while no run goes on.

    Raises:
        OSError: a run is under way, or the place cannot be reached.
        ValueError: it is no place.
    """
    store = Store.of_runs(runs)
    # Without a store there is nothing to lock, and none is made.
    locked: AbstractContextManager[None] = store.locked() if store.root.is_dir() else nullcontext()
    with locked:
        _check_no_run(runs)
        found = list(unneeded(store, kinds, place=place))
        for one in found:
            print(printable(f"{size_in_words(one.size):>9}  {one.told}"))
            if is_deleting:
                one.delete()
    print(_summary([one.size for one in found], is_deleting=is_deleting))


def _summary(sizes: Sequence[int], *, is_deleting: bool) -> str:
    if not sizes:
        return "there is nothing that could go"
    total = f"{len(sizes)} in all, {size_in_words(sum(sizes))}"
    return f"deleted {total}" if is_deleting else f"{total}; --yes true deletes them"


def _check_no_run(runs: Path) -> None:
    for folder in run_folders(runs):
        process = process_using(folder)
        if process is not None:
            raise OSError(
                f"run {folder.name} is under way (process {process}); prune when it has ended"
            )


def unneeded(store: Store, kinds: Iterable[str], *, place: str | None = None) -> Iterator[Unneeded]:
    """What could go of these kinds: in the store of the runs here, or in a place."""
    if "steps" in kinds and place is None:
        yield from _unused_steps(store)
    if "checkpoints" in kinds and (place or (store.root / "checkpoints").is_dir()):
        yield from _finished_trainings(open_storage(place or str(store.root / "checkpoints")))
    if "textures" in kinds and (place or (store.root / "textures").is_dir()):
        used = set(_used_places(store))
        yield from _unused_textures(open_storage(place or str(store.root / "textures")), used)


def _unused_steps(store: Store) -> Iterator[Unneeded]:
    """The folders that no run links, unless a container may still write there."""
    links = store.links()
    for folder in store.all_folders():
        if folder not in links and not (folder / CONTAINER_FILE).exists():
            size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
            told = f"step {folder.parent.name}, of no run: {folder}"
            yield Unneeded(told, size, partial(remove_folder, folder))


def _finished_trainings(storage: Storage) -> Iterator[Unneeded]:
    """The states of trainings whose last epoch is over."""
    for folder, objects in _grouped(storage, _KEY).items():
        try:
            key = read_json(storage.get(f"{folder}/{_KEY}"), _TrainingKey, where=folder)
        except ValueError:
            continue  # somebody else's file of that name
        epochs = key["recipe"]["epochs"]
        over = _epochs_over(storage, folder, objects)
        if over >= epochs:
            told = f"checkpoint of {key['step']}, finished after {epochs} epochs"
            yield _stored(storage, folder, objects, told, last=_KEY)


def _epochs_over(storage: Storage, folder: str, objects: Mapping[str, Stat]) -> int:
    """How many epochs the history beside a state tells of."""
    name = f"{folder}/{_HISTORY}"
    return storage.get(name).count(b"\n") if name in objects else 0


def _unused_textures(storage: Storage, used: set[str]) -> Iterator[Unneeded]:
    """The sealed sets that no run here points to."""
    for folder, objects in _grouped(storage, _MANIFEST).items():
        is_textures = any(name.startswith(f"{folder}/shards/") for name in objects)
        if is_textures and f"{storage.uri}/{folder}" not in used:
            yield _stored(storage, folder, objects, "textures of no run here", last=_MANIFEST)


def _used_places(store: Store) -> Iterator[str]:
    """Where the manifests point to that runs here have."""
    for folder in store.links():
        for manifest in folder.glob(f"*/{_MANIFEST}"):
            place = read_json_file(manifest, dict[str, Any]).get("uri")
            if place:
                yield str(place)


def _grouped(storage: Storage, telling: str) -> dict[str, dict[str, Stat]]:
    """The objects of every folder that has one of a name, by their own."""
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
    """A folder of a storage; what tells what it is goes last, so that a stopped prune goes on."""
    telling = f"{folder}/{last}"
    # Sidecars before their tars: at no moment does one name a tar that has gone.
    order = sorted(objects, key=lambda name: (name == telling, name.endswith(".tar"), name))

    def delete() -> None:
        for name in order:
            storage.delete(name)
        if not is_remote(storage.uri):
            shutil.rmtree(local_path(f"{storage.uri}/{folder}"))  # empty folders are left

    size = sum(stat.size for stat in objects.values())
    return Unneeded(f"{told}: {storage.uri}/{folder}", size, delete)
