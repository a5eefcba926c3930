"""Recipes by name: for steps, for the pipeline, and for people.

python -m components recipes              # list all
python -m components recipes cuhk03       # one, field by field
"""

import ast
import inspect
import sys
from collections.abc import Sequence
from dataclasses import asdict

from components.command.step import command_line_word
from components.process.machine import shell_command
from san_core.recipe import Recipe, recipe_with_overrides
from san_core.recipes import RECIPES, get_recipe

_COLUMN = 28  # where the meaning of a field begins


def resolve_recipe(name: str, overrides: str) -> Recipe:
    """The recipe called `name` with the fields of `overrides` replaced, such as "lr=1e-4".

    Raises:
        ValueError: the recipe or a field is unknown, or a value is invalid.
    """
    return recipe_with_overrides(get_recipe(name), overrides)


def run_recipes(words: Sequence[str]) -> int:
    """The command `recipes`; returns the exit status."""
    if any(word in ("-h", "--help") for word in words) or len(words) > 1:
        print("usage: python -m components recipes [NAME]", file=sys.stderr)
        return 0 if len(words) == 1 else 2
    if not words:
        width = max(map(len, RECIPES))
        for name, found in RECIPES.items():
            print(f"{name:{width}}  {_summary(found)}")
        one = shell_command("-m", "components", "recipes", "NAME")
        print(f"\n{one} shows the fields of one and their meaning")
        return 0
    try:
        values = asdict(get_recipe(words[0]))
    except ValueError as error:
        print(f"recipes: {error}", file=sys.stderr)
        return 2
    meanings = field_meanings()
    for name, value in values.items():
        word = ",".join(map(str, value)) if isinstance(value, tuple) else command_line_word(value)
        print(f"{name}={word}".ljust(_COLUMN), f" {meanings[name]}".rstrip())
    return 0


def _summary(found: Recipe) -> str:
    """What a recipe trains, its network, its sizes and its number of epochs."""
    if not found.needs_identities:
        what = "SAN-PG"
    elif not found.needs_decoder:
        what = "the encoder alone"
    else:
        what = "SAN" if found.w_tr else "SAN without L_TR"
    pretrained = ", from ImageNet weights" if found.pretrained == "imagenet" else ""
    needs = " (needs textures)" if found.needs_identities and found.needs_decoder else ""
    return (
        f"{what}{needs}: {found.arch}{pretrained}, images {found.image_height}x{found.image_width},"
        f" {found.epochs} epochs"
    )


def field_meanings() -> dict[str, str]:
    """The meaning of every recipe field: the comments beside or above it in the class."""
    source = inspect.getsource(Recipe)
    lines = source.splitlines()
    found = {}
    (declared,) = ast.parse(source).body
    assert isinstance(declared, ast.ClassDef)
    for node in declared.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            assert node.end_lineno is not None
            own = [_comment(line) for line in lines[node.lineno - 1 : node.end_lineno]]
            found[node.target.id] = " ".join(
                [*_comment_above(lines, node.lineno - 1), *filter(None, own)]
            )
    return found


def _comment_above(lines: Sequence[str], row: int) -> list[str]:
    """The comment lines directly above a row, without headings, which start a block."""
    found: list[str] = []
    while row and lines[row - 1].lstrip().startswith("#"):
        row -= 1
        found.insert(0, _comment(lines[row]))
    is_heading = found and not lines[row - 1].strip()
    return found[1:] if is_heading else found


def _comment(line: str) -> str:
    return line.partition("# ")[2].strip()
