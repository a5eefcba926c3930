"""The identity of a synthetic person: sex, skin, hair and clothes.

An identity is a description; `wardrobe` turns it into a texture. Colours are RGB, 0-255.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from san_core.synthesis.difficulty import Difficulty

Colour = tuple[float, float, float]

# Colours of clothes with their weights among upper and among lower garments, commonest first.
PALETTE: dict[str, tuple[tuple[int, int, int], float, float]] = {
    "black": ((28, 28, 32), 9, 12),
    "navy": ((32, 42, 84), 8, 9),
    "denim": ((72, 96, 140), 3, 14),
    "charcoal": ((62, 64, 70), 5, 8),
    "grey": ((128, 130, 132), 6, 6),
    "white": ((236, 236, 232), 8, 3),
    "blue": ((52, 92, 176), 6, 4),
    "khaki": ((172, 154, 112), 3, 6),
    "red": ((184, 36, 42), 6, 2),
    "beige": ((214, 198, 168), 4, 4),
    "brown": ((108, 72, 48), 3, 5),
    "green": ((52, 118, 66), 4, 2),
    "sky": ((130, 178, 222), 5, 1),
    "olive": ((98, 100, 56), 3, 3),
    "pink": ((226, 140, 168), 4, 1),
    "maroon": ((104, 28, 40), 3, 2),
    "silver": ((178, 180, 184), 3, 2),
    "teal": ((34, 124, 128), 3, 1),
    "tan": ((170, 122, 78), 2, 2),
    "yellow": ((232, 202, 66), 3, 0.5),
    "purple": ((102, 66, 150), 3, 0.5),
    "orange": ((226, 122, 40), 2, 0.5),
    "mustard": ((196, 152, 44), 2, 0.5),
    "magenta": ((182, 48, 126), 2, 0.5),
    "lilac": ((180, 160, 208), 2, 0.5),
    "mint": ((160, 214, 186), 2, 0.5),
}
SKIN_TONES = np.array(
    [
        (246, 214, 194),
        (236, 196, 170),
        (222, 172, 138),
        (198, 146, 110),
        (168, 116, 84),
        (132, 88, 62),
        (96, 62, 46),
        (70, 46, 36),
    ]
)
SKIN_SHARES = [0.16, 0.24, 0.20, 0.14, 0.10, 0.09, 0.07]
HAIR_COLOURS = [
    ((24, 20, 18), 0.34),
    ((44, 32, 26), 0.20),
    ((78, 52, 34), 0.15),
    ((122, 84, 52), 0.10),
    ((184, 146, 92), 0.08),
    ((140, 60, 32), 0.04),
    ((150, 150, 152), 0.07),
    ((222, 218, 210), 0.02),
]

# Weights of every choice, for women and for men.
ChoiceWeights = Mapping[str, tuple[float, float]]
HAIRSTYLES: ChoiceWeights = {
    "short": (0.13, 0.44),
    "buzz": (0.03, 0.15),
    "bald": (0.0, 0.08),
    "curly": (0.06, 0.08),
    "medium": (0.21, 0.08),
    "ponytail": (0.13, 0.02),
    "bun": (0.10, 0.01),
    "long": (0.22, 0.01),
    "cap": (0.06, 0.10),
    "beanie": (0.05, 0.02),
    "hood": (0.01, 0.01),
}
UPPERS: ChoiceWeights = {
    "tee": (0.25, 0.34),
    "long": (0.18, 0.18),
    "tank": (0.10, 0.04),
    "shirt": (0.09, 0.14),
    "jacket": (0.12, 0.15),
    "hoodie": (0.10, 0.11),
    "coat": (0.06, 0.04),
    "dress": (0.10, 0.0),
}
LOWERS: ChoiceWeights = {
    "trousers": (0.20, 0.33),
    "jeans": (0.34, 0.38),
    "shorts": (0.14, 0.20),
    "skirt": (0.12, 0.0),
    "leggings": (0.14, 0.0),
    "track": (0.06, 0.09),
}
PATTERNS: ChoiceWeights = {  # of patterned garments
    "horizontal stripes": (0.17, 0.17),
    "vertical stripes": (0.07, 0.07),
    "plaid": (0.15, 0.15),
    "dots": (0.09, 0.05),
    "camouflage": (0.05, 0.08),
    "block": (0.14, 0.14),
    "chest band": (0.12, 0.12),
    "gradient": (0.06, 0.06),
    "heather": (0.08, 0.09),
    "side panels": (0.07, 0.07),
}
LOGOS: ChoiceWeights = {  # of printed garments
    "front": (0.40, 0.40),
    "back": (0.11, 0.11),
    "both": (0.22, 0.22),
    "small": (0.27, 0.27),
}
FACES: ChoiceWeights = {
    "plain": (0.74, 0.52),
    "beard": (0.0, 0.27),
    "glasses": (0.18, 0.16),
    "mask": (0.08, 0.05),
}
CARRIED: ChoiceWeights = {
    "nothing": (0.60, 0.66),
    "backpack": (0.20, 0.20),
    "shoulder strap": (0.15, 0.07),
    "belt": (0.05, 0.07),
}
SHOES: ChoiceWeights = {"sneaker": (0.55, 0.62), "boot": (0.18, 0.20), "low": (0.27, 0.18)}

PRINTABLE_UPPERS = frozenset({"tee", "long", "hoodie", "tank"})  # garments that carry logos
COAT_PATTERNS = frozenset(
    {"block", "camouflage", "plaid", "heather"}
)  # patterns that coats are made in


@dataclass(frozen=True)
class Identity:
    """A person's looks. `details` is the painter's seed for seams, lengths and grain."""

    female: bool
    skin: Colour
    hair: str
    hair_colour: Colour
    headwear_colour: Colour
    face: str
    upper: str
    upper_pattern: str  # a key of PATTERNS or "plain"
    upper_colours: tuple[Colour, Colour, Colour]
    logo: str  # a key of LOGOS or "none"
    lower: str
    lower_colours: tuple[Colour, Colour]
    shoes: str
    shoe_colour: Colour
    carried: str
    carried_colour: Colour
    details: int


def sample_identity(rng: np.random.Generator, level: Difficulty) -> Identity:
    """A random person, in clothes that the difficulty allows."""
    female = bool(rng.random() < 0.5)
    upper = _choose(rng, UPPERS, female)
    patterned = rng.random() < level.pattern_share
    printed = rng.random() < level.pattern_share and upper in PRINTABLE_UPPERS
    pattern = _choose(rng, PATTERNS, female) if patterned else "plain"
    if upper in ("jacket", "coat") and pattern not in COAT_PATTERNS:
        pattern = "plain"
    lower = _choose(rng, LOWERS, female)
    hair, hair_shares = zip(*HAIR_COLOURS, strict=True)
    uppers = _sample_clothes_colours(rng, level, count=3, lower=False)
    return Identity(
        female=female,
        skin=_sample_skin(rng),
        hair=_choose(rng, HAIRSTYLES, female),
        hair_colour=jitter_colour(rng, hair[rng.choice(len(hair), p=hair_shares)], jitter=0.4),
        headwear_colour=_sample_clothes_colours(rng, level, count=1, lower=False)[0],
        face=_choose(rng, FACES, female),
        upper=upper,
        upper_pattern=pattern,
        upper_colours=(uppers[0], uppers[1], uppers[2]),
        logo=_choose(rng, LOGOS, female) if printed else "none",
        lower=lower,
        lower_colours=_sample_lower_colours(rng, level, jeans=lower == "jeans"),
        shoes=_choose(rng, SHOES, female),
        shoe_colour=_sample_shoe_colour(rng, level),
        carried=_choose(rng, CARRIED, female),
        carried_colour=_sample_clothes_colours(rng, level, count=1, lower=False)[0],
        details=int(rng.integers(1 << 30)),
    )


def _choose(rng: np.random.Generator, options: ChoiceWeights, female: bool) -> str:
    weights = np.array([share[0 if female else 1] for share in options.values()])
    return list(options)[rng.choice(len(options), p=weights / weights.sum())]


def _sample_skin(rng: np.random.Generator) -> Colour:
    tone = rng.choice(len(SKIN_SHARES), p=SKIN_SHARES)
    share = rng.random()
    return jitter_colour(
        rng, SKIN_TONES[tone] * (1 - share) + SKIN_TONES[tone + 1] * share, jitter=0.3
    )


def _sample_clothes_colours(
    rng: np.random.Generator, level: Difficulty, *, count: int, lower: bool
) -> list[Colour]:
    """Different colours of the palette, each jittered a little."""
    allowed = list(PALETTE.values())[: level.palette]
    weights = np.array([entry[2 if lower else 1] for entry in allowed])
    picks = rng.choice(len(allowed), count, replace=False, p=weights / weights.sum())
    return [jitter_colour(rng, allowed[pick][0], jitter=level.colour_jitter) for pick in picks]


def _sample_lower_colours(
    rng: np.random.Generator, level: Difficulty, *, jeans: bool
) -> tuple[Colour, Colour]:
    main, contrast = _sample_clothes_colours(rng, level, count=2, lower=True)
    if jeans:
        dye = PALETTE[rng.choice(["denim", "denim", "navy", "black", "sky", "charcoal"])][0]
        main = jitter_colour(rng, dye, jitter=level.colour_jitter)
    return main, contrast


def _sample_shoe_colour(rng: np.random.Generator, level: Difficulty) -> Colour:
    if rng.random() < 0.5:
        return _sample_clothes_colours(rng, level, count=1, lower=True)[0]
    dye = PALETTE[rng.choice(["black", "white", "white", "grey"])][0]
    return jitter_colour(rng, dye, jitter=level.colour_jitter)


def jitter_colour(
    rng: np.random.Generator, colour: np.ndarray | tuple[int, int, int], *, jitter: float
) -> Colour:
    """A colour near the given one; at 1, brightness varies by about 8 %, channels by 8 of 255."""
    brightness, tint = rng.normal(0, 0.08), rng.normal(0, 8, 3)
    strayed = np.asarray(colour) * (1 + jitter * brightness) + jitter * tint
    red, green, blue = np.clip(strayed, 8, 250)
    return float(red), float(green), float(blue)
