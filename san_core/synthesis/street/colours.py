"""People of the world "street": clothes of all hues, skin and hair of all tones.

The palette of the world "studio" has few greens and purples, as real clothes do. A generator that
has seen few examples of a colour regresses another one. Skin and hair keep natural colours.
"""

from dataclasses import replace

import numpy as np

from san_core.images.lab import colour_of
from san_core.synthesis.difficulty import DIFFICULTIES
from san_core.synthesis.person.identity import (
    HAIR_COLOURS,
    SKIN_TONES,
    Colour,
    Identity,
    jitter_colour,
    sample_identity,
)

UPPER_SHARE, LOWER_SHARE, OTHER_SHARE = 0.65, 0.5, 0.4  # of garments that are of any hue
DYED_SHARE = 0.05  # of hair


def sample_street_identity(rng: np.random.Generator) -> Identity:
    """A random person, in clothes of any colour."""
    looks = sample_identity(rng, DIFFICULTIES["easy"])
    first, second, third = looks.upper_colours
    main, contrast = looks.lower_colours
    return replace(
        looks,
        skin=_sample_skin(rng),
        hair_colour=_sample_hair(rng),
        headwear_colour=_repaint(rng, looks.headwear_colour, OTHER_SHARE),
        upper_colours=(
            _repaint(rng, first, UPPER_SHARE),
            _repaint(rng, second, OTHER_SHARE),
            _repaint(rng, third, OTHER_SHARE),
        ),
        lower_colours=(_repaint(rng, main, LOWER_SHARE), _repaint(rng, contrast, OTHER_SHARE)),
        shoe_colour=_repaint(rng, looks.shoe_colour, OTHER_SHARE),
        carried_colour=_repaint(rng, looks.carried_colour, OTHER_SHARE),
    )


def any_colour(rng: np.random.Generator) -> Colour:
    """A random colour: all hues equally likely, dark to light and dull to vivid."""
    lightness, hue = rng.uniform(18, 90), rng.uniform(0, 2 * np.pi)
    return colour_of(lightness, hue, vividness=float(np.sqrt(rng.uniform(0.06, 1))))


def _repaint(rng: np.random.Generator, colour: Colour, share: float) -> Colour:
    """A random colour with probability `share`, else the given one."""
    return any_colour(rng) if rng.random() < share else colour


def _sample_skin(rng: np.random.Generator) -> Colour:
    """A uniformly random tone between the palest and the darkest."""
    place = rng.uniform(0, len(SKIN_TONES) - 1)
    below = min(int(place), len(SKIN_TONES) - 2)
    share = place - below
    tone = SKIN_TONES[below] * (1 - share) + SKIN_TONES[below + 1] * share
    return jitter_colour(rng, tone, jitter=0.5)


def _sample_hair(rng: np.random.Generator) -> Colour:
    """A uniformly random natural colour, and sometimes a dye."""
    if rng.random() < DYED_SHARE:
        return any_colour(rng)
    return jitter_colour(rng, HAIR_COLOURS[rng.integers(len(HAIR_COLOURS))][0], jitter=0.6)
