"""Recipes as steps and the pipeline are told of them: by name, with fields to replace."""

from san_core.recipe import Recipe, recipe, with_overrides


def chosen(name: str, overrides: str) -> Recipe:
    """The recipe called `name` with the fields of `overrides` replaced, such as "lr=1e-4".

    Raises:
        ValueError: there is no such recipe or field, or a value does not fit.
    """
    return with_overrides(recipe(name), overrides)
