"""The worlds in which people are pictured."""

# Alone before a good camera, in the commonest clothes; or in the street, as its folder tells.
WORLDS = ("studio", "street")


# The people of ReID sets: in town; or elsewhere, in clothes, places and light, and by cameras, that
# no set in town and no PIT has, to see what a network makes of what it has never seen.
TOWN, ELSEWHERE = "town", "elsewhere"
REID_WORLDS = (TOWN, ELSEWHERE)


def check_world(world: str, known: tuple[str, ...] = WORLDS) -> None:
    """Raise ValueError unless it is one of the known worlds; the message lists them."""
    if world not in known:
        raise ValueError(f"no world {world!r}; there are: {', '.join(known)}")
