"""The difficulty of a synthetic re-identification set, as one group of parameters."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Difficulty:
    """How similar people look, and how different the cameras are.

    Clothes distinguish people, so few colours without patterns make people look alike. Different
    colours, blur and occlusion on the cameras make images of one person look different.
    """

    palette: int  # colours that clothes are cut from, the commonest first, 3 to 26
    colour_jitter: float  # how far a garment's colour strays from the palette's, 0 none to 1 much
    pattern_share: float  # share of upper garments with a pattern or a print, 0 to 1
    camera_colour: float  # standard deviation of white balance and log exposure between cameras
    camera_gamma: float  # standard deviation of log gamma between cameras
    light: float  # how far the light strays from place to place, 0 to 1
    occlusion: float  # share of shots with something in front of the person
    blur: float  # standard deviation of a camera's blur, as a share of image height
    low_resolution: float  # smallest share of the image's rows that a camera resolves, 0 to 1


DIFFICULTIES = {
    "easy": Difficulty(
        palette=26,
        colour_jitter=1.0,
        pattern_share=0.7,
        camera_colour=0.01,
        camera_gamma=0.02,
        light=0.25,
        occlusion=0.0,
        blur=0.001,
        low_resolution=0.8,
    ),
    "normal": Difficulty(
        palette=20,
        colour_jitter=0.8,
        pattern_share=0.65,
        camera_colour=0.025,
        camera_gamma=0.05,
        light=0.45,
        occlusion=0.08,
        blur=0.002,
        low_resolution=0.6,
    ),
    "hard": Difficulty(
        palette=10,
        colour_jitter=0.3,
        pattern_share=0.35,
        camera_colour=0.08,
        camera_gamma=0.2,
        light=1.0,
        occlusion=0.3,
        blur=0.005,
        low_resolution=0.3,
    ),
}


def difficulty_by_name(name: str) -> Difficulty:
    """The parameters of a named difficulty.

    Raises:
        ValueError: the name is unknown; the message lists the known names.
    """
    if name not in DIFFICULTIES:
        raise ValueError(f"no difficulty {name!r}; there are: {', '.join(DIFFICULTIES)}")
    return DIFFICULTIES[name]
