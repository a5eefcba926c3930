"""The model card of the generator that ships."""

from collections.abc import Mapping, Sequence
from typing import Any

from san_core.model.saved import ModelDescription

_CARD = """# The texture generator that ships

A small SAN-PG: from one picture of a person it regresses the whole UV body texture, the hidden
side included. `--generator shipped` and `pipeline.py run --param generator=shipped` use it.
This card is written by `python -m tools.generator`, which makes the generator anew.

| | |
|---|---|
| network | {arch}, {millions:.1f} million weights, stored as float16 |
| in | images of {height}x{width} RGB; others are resized |
| out | textures of {texture}x{texture} in the layout `{atlas}` |
| commit it was trained at | `{commit}` |
| files | {files} |

## How it was trained

    {commands}

The recipe with all its fields is `recipe.json`. The data are rendered people who do not exist:
no photograph and no real person is in them. The body is CC0 (NOTICE), everything else of the
pictures is made by `san_core/synthesis`.

## What it reaches

On {held_out} pictures of rendered people it has never seen, errors pooled over all of them:

| | PSNR in dB |
|---|---|
| this generator | {psnr:.2f} |
| the mean training texture, for everybody | {mean:.2f} |

## Where it fails

- **Real photographs: not measured.** There is no true texture of a photograph to compare with. It
  has seen painted places and game-like people only, so expect colours of garments to come through
  and details not to.
- It predicts what lowers the mean absolute difference: what it cannot see is a blurred guess, and
  so are faces, prints and fine patterns.
- Rendered people have faces alike and empty hands, none sits or cycles, and long skirts are stiff;
  it knows nothing of bags held in the hand, umbrellas, bicycles or crowds.
- Skin and hair tones are those of the wardrobe's palettes. How well it does for different groups of
  people was not measured.
- Textures are no portraits, and nobody is to be identified by one: they are a target to train with.
"""


def model_card(
    found: ModelDescription,
    report: Mapping[str, Any],
    *,
    commands: Sequence[str],
    commit: str,
    sums: Mapping[str, str],
    weights: int,
) -> str:
    """The card: Markdown.

    Args:
        found: recipe and facts of the generator.
        report: its report.json.
        commands: that made the data, and trained.
        commit: at which it was trained.
        sums: sha256 of the files.
        weights: how many there are.
    """
    recipe = found.recipe
    return _CARD.format(
        arch=recipe.arch,
        millions=weights / 1e6,
        height=recipe.image_height,
        width=recipe.image_width,
        texture=recipe.texture_size,
        atlas=found.facts["atlas"],
        commit=commit,
        files="<br>".join(f"`{name}` sha256 `{digest}`" for name, digest in sums.items()),
        commands="\n    ".join(commands),
        held_out=report["held_out_images"],
        psnr=report["psnr"],
        mean=report["psnr_of_mean_texture"],
    )
