"""Clothes in colours and patterns that no other world has, so that a network has not seen them.

Hair, skin, cuts, prints and carried things are those of every world.
"""

from dataclasses import replace

import numpy as np

from san_core.synthesis.difficulty import Difficulty
from san_core.synthesis.person.identity import Colour, Identity, jitter_colour, sample_identity

# No colour of identity.PALETTE is as near to one of these as people take to be the same dye
ELSEWHERE_PALETTE: dict[str, tuple[int, int, int]] = {
    "coral": (248, 112, 92),
    "lime": (168, 214, 62),
    "turquoise": (58, 212, 200),
    "indigo": (58, 28, 132),
    "rust": (158, 76, 24),
    "emerald": (12, 158, 98),
    "plum": (118, 44, 100),
    "apricot": (250, 186, 138),
    "cobalt": (34, 62, 226),
    "sage": (148, 166, 132),
    "rose": (232, 72, 122),
    "slate": (88, 112, 122),
}
ELSEWHERE_PATTERNS = ("diagonal stripes", "zigzag", "chequers", "rings")


def sample_elsewhere_identity(rng: np.random.Generator, level: Difficulty) -> Identity:
    """A random person in these patterns and as many of these colours as the difficulty allows."""
    looks = sample_identity(rng, level)
    upper = _sample_colours(rng, level, 3)
    lower = _sample_colours(rng, level, 2)
    headwear, shoes, carried = _sample_colours(rng, level, 3)
    is_plain = looks.upper_pattern == "plain"
    pattern = "plain" if is_plain else ELSEWHERE_PATTERNS[rng.integers(len(ELSEWHERE_PATTERNS))]
    return replace(
        looks,
        headwear_colour=headwear,
        upper_pattern=pattern,
        upper_colours=(upper[0], upper[1], upper[2]),
        lower_colours=(lower[0], lower[1]),
        shoe_colour=shoes,
        carried_colour=carried,
    )


def _sample_colours(rng: np.random.Generator, level: Difficulty, count: int) -> list[Colour]:
    """Different colours, equally likely, each jittered as the difficulty specifies."""
    allowed = list(ELSEWHERE_PALETTE.values())[: level.palette]
    picks = rng.choice(len(allowed), count, replace=False)
    return [jitter_colour(rng, allowed[pick], jitter=level.colour_jitter) for pick in picks]
