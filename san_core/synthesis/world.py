"""The worlds: combinations of places, clothes and cameras."""

# Alone before a good camera, in the commonest clothes; or in the street, as its folder tells.
WORLDS = ("studio", "street")


# The people of ReID sets: in town; or elsewhere, in clothes, places and light, and by cameras, that
# no set in town and no PIT has, to see what a network makes of what it has never seen.
TOWN, ELSEWHERE = "town", "elsewhere"
REID_WORLDS = (TOWN, ELSEWHERE)


def check_world(world: str, known: tuple[str, ...] = WORLDS) -> None:
    """Raise ValueError if the world is unknown; the message lists the known ones."""
    if world not in known:
        raise ValueError(f"no world {world!r}; there are: {', '.join(known)}")
