"""The whole pipeline at the smallest size that still does everything, for tests to look at."""

import fcntl
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from components.__main__ import STEPS as COMMANDS
from components.__main__ import main
from components.command.step import step_parameters

PG_FLAGS = ("--recipe", "demo-pg", "--overrides", "epochs=2 batch_size=8 warmup_epochs=0")
SAN_RECIPE = "demo"
SAN_OVERRIDES = "epochs=3 identities_per_batch=4 images_per_identity=2 warmup_epochs=1"


class TinyRun(NamedTuple):
    """Where the artifacts of a tiny run lie: `pit`, `reid`, `generator` and so on."""

    root: Path

    def __getattr__(self, name: str) -> str:
        return str(self.root / name)


def step_command(step: str, tiny: TinyRun) -> list[str]:
    """The command line of a step in the tiny run."""
    return [step, *_step_flags(step, tiny)]


def _step_flags(step: str, t: TinyRun) -> list[str]:
    page, figures = f"{t.root}/{step}.html", f"{t.root}/{step}.json"
    return {
        "make_pit": [
            *("--pit", t.pit, "--textures", "6", "--meshes", "3"),
            *("--image-height", "64", "--texture-size", "32"),
        ],
        "prepare_reid": [
            *("--reid", t.reid, "--identities", "9", "--cameras", "2", "--shots", "2"),
            *("--image-height", "64"),
        ],
        "train_san_pg": [
            *("--pit", t.pit, "--generator", t.generator, *PG_FLAGS),
            *("--generator-page", page, "--generator-scores", figures),
        ],
        "generate_textures": [
            *("--dataset", t.reid, "--generator", t.generator, "--written", t.written),
            *("--destination", t.destination, "--shard-size", "10"),
        ],
        "seal_textures": [
            *("--dataset", t.reid, "--generator", t.generator, "--textures", t.textures),
            *("--destination", t.destination, "--shard-size", "10"),
        ],
        "train_san": [
            *("--dataset", t.reid, "--textures", t.textures, "--model", t.model),
            *("--training-page", page, "--losses", figures),
            *("--recipe", SAN_RECIPE, "--overrides", SAN_OVERRIDES),
        ],
        "extract_features": [
            *("--dataset", t.reid, "--model", t.model, "--features", t.features),
            *("--references", "true"),
        ],
        "evaluate": [
            *("--features", t.features, "--dataset", t.reid, "--report", t.report),
            *("--report-page", page, "--scores", figures, "--roc", f"{t.root}/roc.json"),
            *("--references", "true"),
        ],
    }[step]


def with_flags(command: Sequence[str], **flags: str) -> list[str]:
    """A command line with the values of some flags replaced, or the flags added."""
    result = list(command)
    for name, value in flags.items():
        flag = "--" + name.replace("_", "-")
        if flag in result:
            result[result.index(flag) + 1] = value
        else:
            result += [flag, value]
    return result


def with_outputs_in(command: Sequence[str], folder: Path) -> list[str]:
    """A command line with every output in another folder, under its own name."""
    outputs = [p.name for p in step_parameters(COMMANDS[command[0]]) if p.is_output]
    return with_flags(command, **{name: str(folder / name) for name in outputs})


STEPS = (
    "make_pit",
    "prepare_reid",
    "train_san_pg",
    "generate_textures",
    "seal_textures",
    "train_san",
    "extract_features",
    "evaluate",
)


def run_all_steps(root: Path) -> TinyRun:
    """Run every step in this process; the artifacts lie under `root`."""
    tiny = TinyRun(root)
    for step in STEPS:
        assert main(step_command(step, tiny)) == 0, step
    return tiny


def shared_tiny_run(folder: Path) -> TinyRun:
    """The tiny run under a folder; the first of the processes that ask makes it for all."""
    with (folder / "tiny.lock").open("a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.seek(0)
        if lock.read() != "made":
            run_all_steps(folder / "tiny")
            lock.write("made")
    return TinyRun(folder / "tiny")


def file_contents(folder: Path) -> dict[str, bytes]:
    """The content of every file under a folder, by its relative name."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in _file_paths(folder)}


def _file_paths(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())
