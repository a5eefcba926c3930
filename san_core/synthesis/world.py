"""The worlds in which people of PIT are pictured."""

# Alone before a good camera, in the commonest clothes; or in the street, as its folder tells.
WORLDS = ("studio", "street")


def check_world(world: str) -> None:
    """Raise ValueError unless it is a word of WORLDS; the message lists them."""
    if world not in WORLDS:
        raise ValueError(f"no world {world!r}; there are: {', '.join(WORLDS)}")
