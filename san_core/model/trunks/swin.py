"""Swin Transformer v1 and v2 (Liu et al. 2021, 2022): torchvision's, its last norm on f_e4.

Windows that reach beyond a map are padded, so every image that divides by 32 fits.
"""

import torchvision

from san_core.model.trunks.trunk import Trunk, set_drop_path
from san_core.recipe import Recipe

# features.0 makes patches, 2, 4 and 6 merge them
_STAGES = (
    ("features.0", "features.1"),
    ("features.2", "features.3"),
    ("features.4", "features.5"),
    ("features.6", "features.7", "norm"),
)


def make_swin(recipe: Recipe) -> Trunk:
    """The Swin Transformer of a recipe."""
    network = torchvision.models.get_model(recipe.arch, weights=None)
    set_drop_path(network, recipe.drop_path)
    modules = {name: network.get_submodule(name) for name in ("features", "norm")}
    return Trunk(modules, _STAGES, classifier="head", rows_first=True)
