"""ConvNeXt (Liu et al. 2022): torchvision's, its last layer norm on f_e4 as for dense tasks."""

import torchvision
from torch import nn

from san_core.model.trunks.trunk import Trunk, set_drop_path
from san_core.recipe import Recipe

# features.0 is the stem, 2, 4 and 6 halve the map
_STAGES = (
    ("features.0", "features.1"),
    ("features.2", "features.3"),
    ("features.4", "features.5"),
    ("features.6", "features.7", "classifier"),
)


def make_convnext(recipe: Recipe) -> Trunk:
    """The ConvNeXt of a recipe.

    Published weights apply `classifier.0`, a layer norm over channels, to the pooled map; here it
    comes before pooling, so that the decoder sees what the embedding is made of.
    """
    network = torchvision.models.get_model(recipe.arch, weights=None)
    set_drop_path(network, recipe.drop_path)
    norm = nn.Sequential(network.get_submodule("classifier.0"))
    modules = {"features": network.get_submodule("features"), "classifier": norm}
    return Trunk(modules, _STAGES, classifier="classifier.2")
