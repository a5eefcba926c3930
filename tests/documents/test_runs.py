"""Commands of the documents, run one after another as a user types them, with small values.

Each document's commands run in a folder of their own that holds what its reader has: a table of
people, a folder of photographs, an image of somebody. `SMALL` adds small values to a command;
`NOT_RUN` says which are left out, and why.
"""

import csv
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from components.command.code import ROOT
from san_core.evaluation.feature_files import FEATURES_FILE
from san_core.synthesis.dataset import make_reid_identity
from san_core.synthesis.spec import ReidSpec
from tests.documents.markdown import Command, commands
from tests.documents.test_commands import CARD, PARSED_ALONE, kind_of

FEW = "epochs=1 identities_per_batch=2 images_per_identity=2 warmup_epochs=0"
# What is added to a command that begins with these words, so that it takes seconds.
SMALL = {
    "components train_san ": [("--overrides", FEW)],
    "components make_pit ": [("--textures", "3"), ("--meshes", "2"), ("--image-height", "64")],
    "pipeline.py run --name demo --param san_overrides": [
        ("--param", f"san_overrides={FEW} w_rec=2"),
    ],
    "pipeline.py run --preset small": [("--param", f"san_overrides={FEW}")],
    "pipeline.py run --preset demo": [
        ("--param", "generator=shipped"),
        ("--param", "identities=9"),
        ("--param", "image_height=64"),
        ("--param", f"san_overrides={FEW}"),
    ],
}
# Words of commands that are not run, and why.
NOT_RUN = {
    "/data/": "a public data set",
    "/my%20sets/": "a public data set",
    "s3://": "a bucket; tests/steps/ runs every step with one",
    "demo-s3": "a bucket, the same",
    "PIT.zip": "existing pairs",
    "--preset market1501": "a public data set",
    "--preset demo-baseline": "the graph baseline, which test_pipeline.py runs",
    "--from-state": "a state that is left by a stopped training; tests/components/command/ has one",
    "--runner docker": "docker; make test-docker",
    "train_san_pg": "pairs of somebody",
    "--recipe synthetic-baseline": "a generator of that network; tests/components/ starts from one",
    "tensorboard=true": "a demo more; tests/components/training/ writes events",
    "--name shipped": "a demo more; that of the README runs with this generator",
    "bench": "minutes",
    "reproduce": "minutes",
    "--host": "no cluster",
    "components prune": "a run; tests/components/command/ has some",
}
RUN_DOCUMENTS = ("README.md", "components/README.md", "components/DATA.md")
PROGRAMS = (".venv/bin/python -m components", ".venv/bin/python pipeline.py run")


def runnable(file: str) -> list[Command]:
    """The commands of a document that a test can run."""
    return [
        command
        for command in commands()
        if command.file == file
        and command.text.startswith(PROGRAMS)
        and not any(word in command.text for word in NOT_RUN)
    ]


def small_words(command: Command) -> list[str]:
    """The words to run a command by; small values take the place of its own."""
    words = [sys.executable, *command.words[1:]]
    if words[1] == "pipeline.py":
        words[1] = str(ROOT / "pipeline.py")
    for begin, values in SMALL.items():
        if f" {begin}" in command.text and "--help" not in words:
            for flag, value in values:
                words = with_value(words, flag, value)
    return words


def with_value(words: list[str], flag: str, value: str) -> list[str]:
    """The words with one value of a flag, or of a parameter, in the place of any other."""
    name = f"{value.partition('=')[0]}=" if flag == "--param" else ""
    kept = list(words)
    for place in range(len(kept) - 2, 0, -1):
        if kept[place] == flag and kept[place + 1].startswith(name):
            del kept[place : place + 2]
    return [*kept, flag, value]


@pytest.fixture(scope="module")
def own_data(tmp_path_factory):
    """What a user has: people/people.csv with its images, photographs/, and person.jpg."""
    root = tmp_path_factory.mktemp("own")
    size = {"cameras": 2, "shots": 2, "image_size": (64, 32)}
    spec = ReidSpec(seed=3, train_identities=8, test_identities=4, **size)
    (root / "people" / "images").mkdir(parents=True)
    (root / "photographs").mkdir()
    with (root / "people" / "people.csv").open("w", newline="") as table:
        rows = csv.writer(table)
        rows.writerow(("path", "pid", "camid"))
        for identity in range(12):
            for shot in make_reid_identity(spec, identity).shots:
                (root / "people" / "images" / shot.name).write_bytes(shot.data)
                rows.writerow((f"images/{shot.name}", f"person{identity}", f"camera{shot.camid}"))
    for image in sorted((root / "people" / "images").iterdir())[:6]:
        shutil.copy(image, root / "photographs")
    shutil.copy(image, root / "person.jpg")
    return root


def run_as_typed(words: list[str], folder: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{shlex.join(words)}\n{done.stderr[-2000:]}"


def write_own_features(folder: Path) -> None:
    """mine.npy and far.npy, as another network might have made them, with their tables."""
    made = folder / "work" / "features"
    assert (made / FEATURES_FILE).is_file()
    rows = np.load(made / "features.npy")
    table = (made / "index.csv").read_text()
    np.save(folder / "mine.npy", rows)
    (folder / "mine.csv").write_text(table)
    with (made / "index.csv").open(newline="") as file:
        splits = [row["split"] for row in csv.DictReader(file)]
    is_query = np.array([split == "query" for split in splits])
    far = -rows[is_query] @ rows[~is_query].T
    np.save(folder / "far.npy", far)
    (folder / "far.csv").write_text(table)


def test_every_command_is_run_or_listed_with_the_reason():
    run = [c for file in RUN_DOCUMENTS for c in runnable(file)]
    assert len(run) > 25
    listed = {*PARSED_ALONE, *(kind.split()[0] for kind in PARSED_ALONE if " " not in kind)}
    left = [
        command
        for command in commands()
        if command not in run
        and not {kind_of(command), kind_of(command).split()[0]} & listed
        and not any(word in command.text for word in NOT_RUN)
        and command.file != CARD
    ]
    assert [f"{command.file}: {command.text}" for command in left] == []


@pytest.mark.slow
def test_the_steps_run_by_hand_as_their_document_says(own_data, tmp_path):
    shutil.copytree(own_data, tmp_path, dirs_exist_ok=True)
    found = runnable("components/README.md")
    chain = [c for c in found if "runs/demo" not in c.text]
    assert len(chain) > 12
    for command in chain:
        if "mine.npy" in command.text:
            write_own_features(tmp_path)
        run_as_typed(small_words(command), tmp_path)
    assert (tmp_path / "work" / "report" / "report.json").is_file()
    assert (tmp_path / "encoder.onnx").is_file()


@pytest.mark.slow
def test_photographs_become_textures_as_the_document_says(own_data, tmp_path):
    shutil.copytree(own_data, tmp_path, dirs_exist_ok=True)
    found = [c for c in runnable("components/DATA.md") if "-m components" in c.text]
    assert len(found) >= 4
    for command in found:
        run_as_typed(small_words(command), tmp_path)
    assert len(list((tmp_path / "textures").rglob("*.png"))) == 6


@pytest.mark.slow
def test_the_commands_of_the_readme_run(own_data, tmp_path):
    shutil.copytree(own_data, tmp_path, dirs_exist_ok=True)
    people = tmp_path / "people"
    for image in sorted((people / "images").iterdir()):
        home = people / image.name[:4] / image.name[5:7]
        home.mkdir(parents=True, exist_ok=True)
        image.rename(home / image.name)
    shutil.rmtree(people / "images")
    (people / "people.csv").unlink()
    found = runnable("README.md")
    assert len(found) >= 9
    demo = Command("Makefile", ".venv/bin/python pipeline.py run --preset demo")  # make demo
    for command in [demo, *found]:
        run_as_typed(small_words(command), tmp_path)
    assert (tmp_path / "runs" / "demo" / "evaluate" / "report" / "report.json").is_file()
    assert (tmp_path / "search" / "ranked.csv").is_file()
    assert (tmp_path / "encoder.onnx").is_file()
