"""A network from a training state, finished or not.

A kept state is saved by `components.training.loop`: the epoch, the state that `fit` handed out, the
history, and the facts of the model, which older states lack.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor

from san_core import recipe as recipes
from san_core.recipe import Recipe


class KeptNetwork(NamedTuple):
    """The network of a state.

    `last` are its last weights, or their moving average if the recipe keeps one. `best` are the
    weights with the best validation score; None if nothing was validated.
    """

    recipe: Recipe
    facts: dict[str, Any]
    last: Mapping[str, Tensor]
    best: Mapping[str, Tensor] | None
    history: list[dict[str, Any]]


def network_of_state(kept: Mapping[str, Any], *, where: str) -> KeptNetwork:
    """The network of a kept state, of this version or an older one.

    where: the state's name in messages.

    Raises:
        ValueError: it is not the state of a network.
    """
    state = kept.get("fit")
    if not isinstance(state, Mapping) or not {"recipe", "model", "seed"} <= state.keys():
        raise ValueError(f"{where} holds no state of a network")
    try:
        recipe = recipes.from_fields(state["recipe"])
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    best = state.get("best")
    facts = {"seed": state["seed"], **(kept.get("facts") or {})}
    facts["num_classes"] = _num_classes(state["model"])
    if best:
        facts |= {"best_epoch": best["epoch"], "best_score": best["score"]}
    return KeptNetwork(
        recipe,
        facts,
        state.get("average") or state["model"],
        best["weights"] if best else None,
        list(kept.get("history") or []),
    )


def _num_classes(weights: Mapping[str, Tensor]) -> int:
    """The training identities of a network's classifier; 0 without one."""
    return len(weights["classifier.weight"]) if "classifier.weight" in weights else 0
