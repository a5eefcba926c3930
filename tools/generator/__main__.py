"""`python -m tools.generator`: train the SAN-PG that ships with the package, and write it there."""

import argparse
import json
import shlex
import shutil
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from safetensors.torch import load_file, save
from torch import Tensor

from components.command import recipes
from components.command.code import ROOT, git_commit
from san_core.model.saved import RECIPE_FILE, SUMS_FILE, WEIGHTS_FILE, fingerprint, read_description
from san_core.shipped.generator import SHIPPED_FOLDER
from tools.generator.card import model_card


def main() -> None:
    """Synthesize pairs, train on them, and write weights, recipe, sums and model card."""
    chosen = _argument_parser().parse_args()
    with ExitStack() as opened:
        folder = chosen.work or Path(opened.enter_context(tempfile.TemporaryDirectory()))
        make_generator(folder, chosen)
        write_generator(
            folder / "generator", chosen.output, how=list(_steps(chosen)), people=chosen.textures
        )


def _argument_parser() -> argparse.ArgumentParser:
    """The command line; its defaults make what ships."""
    parser = argparse.ArgumentParser(prog="python -m tools.generator", description=__doc__)
    parser.add_argument("--textures", type=int, default=10_000, help="identities of PIT")
    parser.add_argument("--meshes", type=int, default=3, help="pictures of each")
    parser.add_argument("--recipe", default="pit-copy")
    parser.add_argument("--overrides", default="epochs=11", help="recipe fields to replace")
    parser.add_argument("--precision", default="bfloat16", help="as train_san_pg takes it")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--work", type=Path, help="keeps pairs and states there; called again, it goes on"
    )
    parser.add_argument(
        "--output", type=Path, default=SHIPPED_FOLDER, help="default: in the package"
    )
    return parser


def make_generator(folder: Path, chosen: argparse.Namespace) -> None:
    """Run the steps that are not done yet: their artifacts lie in the folder."""
    pairs, training = _steps(chosen)
    if not (folder / "pit").exists():
        _run_step(*pairs, f"--pit={folder}/pit")
    outputs = [
        f"--{name}={folder}/{name}" for name in ("generator", "generator-page", "generator-scores")
    ]
    _run_step(*training, f"--pit={folder}/pit", f"--checkpoint={folder}/state", *outputs)


def _steps(chosen: argparse.Namespace) -> tuple[list[str], list[str]]:
    """The words of make_pit and of train_san_pg, but for where things lie."""
    recipe = recipes.resolve_recipe(chosen.recipe, chosen.overrides)
    pairs = ["make_pit", f"--textures={chosen.textures}", f"--meshes={chosen.meshes}"]
    pairs += [f"--image-height={recipe.image_height}", f"--texture-size={recipe.texture_size}"]
    pairs += ["--world=street", "--dense=true", f"--seed={chosen.seed}"]
    training = ["train_san_pg", f"--recipe={chosen.recipe}", f"--seed={chosen.seed}"]
    training += [f"--overrides={chosen.overrides}"] if chosen.overrides else []
    return pairs, [*training, f"--precision={chosen.precision}"]


def _run_step(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "components", *words], cwd=ROOT, check=True)


def write_generator(made: Path, output: Path, *, how: list[list[str]], people: int) -> None:
    """What is kept of the generator that train_san_pg has `made`, in its place, with a card.

    Args:
        made: what train_san_pg wrote.
        output: the place.
        how: the words of the steps that made it.
        people: how many were rendered for it, those held out too.
    """
    output.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(made / RECIPE_FILE, output / RECIPE_FILE)
    tensors = load_file(made / WEIGHTS_FILE)
    halves = {name: _to_half(tensor) for name, tensor in tensors.items()}
    (output / WEIGHTS_FILE).write_bytes(save(halves))
    sums = {name: fingerprint(output, name) for name in (RECIPE_FILE, WEIGHTS_FILE)}
    lines = [f"{digest}  {name}\n" for name, digest in sums.items()]
    (output / SUMS_FILE).write_text("".join(lines))
    found = read_description(output)
    report = json.loads((made / "report.json").read_bytes())
    commands = [shlex.join(["python", "-m", "components", *words]) for words in how]
    text = model_card(
        found,
        report,
        commands=commands,
        people=people,
        commit=git_commit(),
        sums=sums,
        weights=sum(tensor.numel() for tensor in tensors.values()),
    )
    (output / "MODEL_CARD.md").write_text(text)


def _to_half(tensor: Tensor) -> Tensor:
    """Convolutions in half the bytes, exact to three digits; statistics and biases as they are."""
    return tensor.half() if tensor.ndim > 1 else tensor


if __name__ == "__main__":
    main()
