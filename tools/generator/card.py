"""The model card of the generator that ships."""

from collections.abc import Mapping, Sequence
from typing import Any

from san_core.model.saved import ModelDescription
from san_core.synthesis.spec import PIT_HELD_OUT, held_out_identities

_CARD = """# The texture generator that ships

A small SAN-PG: from one image of a person it generates the full UV body texture. Visible texels are
copied by attention from where the image shows them. Hidden texels take the mean colour of the cells
that they attend to: a back takes the colours of the front. `--generator shipped` and
`pipeline.py run --param generator=shipped` use it. This card is written by
`python -m tools.generator`, which makes the generator anew.

| | |
|---|---|
| network | {arch}, {millions:.1f} million weights, stored as float16 |
| in | images of {height}x{width} RGB; others are resized |
| out | textures of {texture}x{texture} in the layout `{atlas}` |
| also | the visibility of each texel, by which `fuse=person` weights the images of a person |
| commit it was trained at | `{commit}` |
| files | {files} |

## How it was trained

    {commands}

{people:,} people were rendered. One in {one_in} was held out, so that {trained:,} were trained on.
The recipe with all its fields is `recipe.json`. The data are rendered people who do not exist:
no photograph and no real person is in them. The body is CC0 (NOTICE); everything else in the
images is made by `san_core/synthesis`: clothes of every hue, skin and hair of every tone, strong
light and shadow, poor cameras, the inaccurate boxes of detectors, bags and passers-by.

## What it reaches

On {held_out} pictures of rendered people it has never seen, made as those it was trained on, errors
pooled over all of them: PSNR {psnr:.2f} dB, and {mean:.2f} dB of the mean training texture.
By the benchmark (`make bench GROUP=generator`):

<!-- generator -->
<!-- /generator -->

## Where it fails

- **Photographs** have no true texture to compare with, so nothing is measured on them here. It was
  trained on rendered people only. On 24 crops of pedestrians that were looked at, brown, navy, red
  and blue clothes had their colours; grass between the legs of one person was painted on them.
- It is not sharp: prints, stripes narrower than a hand, faces and shoes are blurred or lost, and
  the edges of garments lie some texels off. Its input has 128x64 pixels.
- It is often unsure whether a person is seen from the front or from behind: the colours of face and
  hair run into each other, and the back of a head may become skin.
- Textures of greyscale images are grey; those of very dark images are too dark.
- A bag or a passer-by may still leak into what lies beside them; long skirts are taken for legs.
- How well it does for different groups of people was measured for the tone of skin alone (in the
  table).
- Textures are training targets, not portraits. Do not identify anybody by one.
"""


def model_card(
    found: ModelDescription,
    report: Mapping[str, Any],
    *,
    commands: Sequence[str],
    people: int,
    commit: str,
    sums: Mapping[str, str],
    weights: int,
) -> str:
    """The card: Markdown.

    Args:
        found: recipe and facts of the generator.
        report: its report.json.
        commands: that made the data, and trained.
        people: how many were rendered, those held out too.
        commit: at which it was trained.
        sums: sha256 of the files.
        weights: how many there are.
    """
    recipe = found.recipe
    held_out = held_out_identities(found.facts["seed"], people, PIT_HELD_OUT)
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
        people=people,
        one_in=round(1 / PIT_HELD_OUT),
        trained=people - len(held_out),
        held_out=report["held_out_images"],
        psnr=report["psnr"],
        mean=report["psnr_of_mean_texture"],
    )
