"""Mistakes in parameters that the last step would find only after all others have run.

The parameters may be those of a graph or of one step; what is checked goes by their names.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from components.command import recipes
from components.storage.sources import STORE_PARAMETERS, check_place, names_place, read_places
from components.storage.texture_store import check_verify
from san_core.data.readers import sources
from san_core.data.readers.sources import SYNTHETIC
from san_core.images.texture_set import check_fuse, check_generator, units_of_worker
from san_core.model.saved import read_description
from san_core.model.sizes import check_sizes
from san_core.recipe import Recipe, check_mirrored
from san_core.seeds import check_seed
from san_core.shipped.generator import SHIPPED_FOLDER, SHIPPED_GENERATOR
from san_core.synthesis.difficulty import difficulty_by_name
from san_core.synthesis.world import check_world

# What the name of a recipe begins with: in a step, and in a graph that trains two networks; and the
# step that trains it there.
_RECIPE_PREFIXES = {"": "", "pg_": "train_san_pg", "san_": "train_san"}
# The parameters that say where a graph has textures from.
_TEXTURE_SOURCES = frozenset({"pg_recipe", "generator", "texture_source"})
PRECISIONS = ("auto", "float32", "tf32", "bfloat16", "float16")


def check_parameters(values: Mapping[str, Any], processes: Mapping[str, int] | None = None) -> None:
    """Find what no step can do with the values of the parameters, defaults included.

    Args:
        values: of the parameters of a graph, or of one step.
        processes: how many train side by side, by step; one where it is not said. The only step of
            a pipeline is called "".

    Raises:
        ValueError: there is no such recipe, field, data set, difficulty, seed, world, precision,
            protocol, way of mirroring or check; a recipe's sizes do not fit its network, its
            batches have no equal shares for the processes, these were to compile it, or it needs
            what the graph does not make; a data set has no place or too few people; or the workers
            do not make every shard once.
    """
    for which, step in _RECIPE_PREFIXES.items():
        if f"{which}recipe" in values:
            recipe = recipes.resolve_recipe(values[f"{which}recipe"], values[f"{which}overrides"])
            check_sizes(recipe)
            _check_processes(recipe, (processes or {}).get(step, 1), step)
            _check_compiled(values, (processes or {}).get(step, 1), step)
    if values.get("precision", "auto") not in PRECISIONS:
        raise ValueError(f"precision {values['precision']!r} is not one of {', '.join(PRECISIONS)}")
    check_mirrored(values.get("mirrored", "auto"))
    if "san_recipe" in values and not _TEXTURE_SOURCES & set(values):
        _check_needs_no_textures(values)
    if "generator" in values or "texture_source" in values:
        _check_untrained_generator(values)
    if "san_recipe" in values:
        _check_starts_from_no_model(values)
    if "dense" in values and "pg_recipe" in values:
        _check_dense(values)
    if "san_recipe" in values and not {"generator", "pg_recipe"} & set(values):
        _check_init(values)
    if "dataset" in values:
        _check_data_sets(values)
    if "difficulty" in values:
        difficulty_by_name(values["difficulty"])
    if "seed" in values:
        check_seed(values["seed"])
    if "world" in values:
        check_world(values["world"])
    if "verify" in values:
        check_verify(values["verify"])
    if values.get("fuse", "none") != "none":
        _check_fuse(values)
    if "protocol" in values:
        _check_protocol(values["protocol"])
    if "workers" in values:
        check_workers(values["workers"])
    if not values.get("worker", "/").startswith("/"):  # else its number is known in its pod alone
        units_of_worker(values["worker"], [])


def _check_processes(recipe: Recipe, count: int, step: str) -> None:
    """Every process gets an equal share of a batch; a step has one for each of its GPUs."""
    from san_core.data.batches.shares import check_shares_of_full_batches

    try:
        check_shares_of_full_batches(recipe, count)
    except ValueError as error:
        where = f"--gpus {step}={count}" if step else f"--gpus {count}"
        raise ValueError(f"{where}: {error}") from error


def _check_compiled(values: Mapping[str, Any], count: int, step: str) -> None:
    """Compiled networks train in one process."""
    if values.get("compiled") and count > 1:
        where = f"--gpus {step}={count}" if step else f"--gpus {count}"
        raise ValueError(f"{where}: compiled trains in one process; set compiled=false, or one GPU")


def _check_needs_no_textures(values: Mapping[str, Any]) -> None:
    """A graph that has textures from nowhere trains without them."""
    recipe = recipes.resolve_recipe(values["san_recipe"], values["san_overrides"])
    if recipe.needs_decoder:
        raise ValueError(
            f"recipe {values['san_recipe']!r} needs textures (w_rec={recipe.w_rec:g},"
            f" w_tr={recipe.w_tr:g}), and this graph has none; take one that ends in -baseline, or"
            " another graph"
        )


def _check_data_sets(values: Mapping[str, Any]) -> None:
    named = sources.parse_dataset_and_target(
        values["dataset"],
        values["target"],
        source=values["source"],
        target_source=values["target_source"],
    )
    if "san_recipe" in values:  # every graph trains; to prepare alone, any data set will do
        for one in named.learned:
            sources.check_trainable(one.name)
        if named.leaves_nobody:
            raise ValueError(
                f"dataset {values['dataset']} is trained on as a whole, which leaves nobody to"
                " test on: name a target"
            )
    if lacking := lacking_places(values):
        raise ValueError("; ".join(lacking))
    if named.has_synthetic:
        sources.check_synthetic_identities(values["identities"])


def lacking_places(values: Mapping[str, Any]) -> list[str]:
    """What to give so that every data set has a place, a line each; nothing if all have one.

    Raises:
        ValueError: there is no such data set.
    """
    lines = []
    for name, place in (("dataset", "source"), ("target", "target_source")):
        placed = sources.parse_placed_datasets(values.get(name) or SYNTHETIC, "")
        keys = [one.name.key for one in placed if one.name.key != SYNTHETIC]
        if keys and not values.get(place):
            wanted = " ".join(["PLACE"] * len(keys))
            wanted = f'"{place}={wanted}"' if len(keys) > 1 else f"{place}={wanted}"
            where = "where they are" if len(keys) > 1 else "where it is"
            lines.append(f"{name} {'+'.join(keys)} needs --param {wanted}, {where}")
    return lines


def check_places(values: Mapping[str, Any]) -> None:
    """Open every place that parameters name, weights in overrides of recipes included.

    Raises:
        OSError: one is not there, or may not be read or written.
        ValueError: one is no place.
    """
    for name in STORE_PARAMETERS:
        if names_place(name, values.get(name)):
            check_place(name, values[name])
    for place in read_places(values):
        check_place(place.name, place.uri)


def _check_untrained_generator(values: Mapping[str, Any]) -> None:
    """A graph that trains no generator makes no PIT; the generator that ships has its size."""
    recipe = recipes.resolve_recipe(values["san_recipe"], values["san_overrides"])
    if recipe.pit_every:
        raise ValueError(
            f"the recipe mixes in PIT batches (pit_every={recipe.pit_every}), and no PIT is made"
            " where no generator is trained; set pit_every=0, or take the graph full"
        )
    if values.get("generator") == SHIPPED_GENERATOR and recipe.needs_decoder:
        size = read_description(SHIPPED_FOLDER).recipe.texture_size
        if size % recipe.texture_size:
            raise ValueError(
                f"the recipe learns textures of {recipe.texture_size}x{recipe.texture_size}, the"
                f" generator that ships makes {size}x{size}; such as"
                f' --param san_overrides="texture_size={size} decoder_plan=light"'
            )


def _check_fuse(values: Mapping[str, Any]) -> None:
    """Textures are fused in a known way, by a generator that tells what it sees."""
    check_fuse(values["fuse"])
    if "pg_recipe" in values:
        recipe = recipes.resolve_recipe(values["pg_recipe"], values["pg_overrides"])
        check_generator(recipe, f"recipe {values['pg_recipe']!r}", fuse=values["fuse"])
    elif values.get("generator") == SHIPPED_GENERATOR:
        recipe = read_description(SHIPPED_FOLDER).recipe
        check_generator(recipe, "the generator that ships", fuse=values["fuse"])


def _check_dense(values: Mapping[str, Any]) -> None:
    """Dense maps of PIT are made where the texture generator learns from them."""
    weight = recipes.resolve_recipe(values["pg_recipe"], values["pg_overrides"]).w_dense
    if weight and not values["dense"]:
        raise ValueError(
            f"recipe {values['pg_recipe']!r} learns from dense maps (w_dense={weight:g}), and none"
            " are made; set dense=true, or w_dense=0 in pg_overrides"
        )


def _check_starts_from_no_model(values: Mapping[str, Any]) -> None:
    """No graph has a trained model to train further; the step alone takes one."""
    if recipes.resolve_recipe(values["san_recipe"], values["san_overrides"]).init == "model":
        raise ValueError(
            "the recipe starts from a model (init=model), and no graph has one to start from; run"
            " train_san alone, with --start-from"
        )


def _check_init(values: Mapping[str, Any]) -> None:
    """A graph without a generator has nothing of SAN-PG to start from or learn from."""
    recipe = recipes.resolve_recipe(values["san_recipe"], values["san_overrides"])
    if recipe.init != "none":
        raise ValueError(
            f"the recipe starts from SAN-PG (init={recipe.init}), and this graph has no generator;"
            ' such as --param san_overrides="init=none"'
        )
    if recipe.w_distill:
        raise ValueError(
            f"the recipe learns SAN-PG's features (w_distill={recipe.w_distill:g}), and this graph"
            " has no generator; leave w_distill out, or take another graph"
        )


def _check_protocol(text: str) -> None:
    """Whether every name is one; what `auto` stands for is known with the images only."""
    import numpy as np

    from san_core.evaluation.labels import Labels
    from san_core.evaluation.protocols import scoring

    words = text.replace(",", " ").split()
    named = [word for word in words if word != scoring.AUTO]
    scoring.parse_protocols(" ".join(named or words), Labels(np.empty(0, np.int64), None))


def check_workers(workers: Sequence[Any]) -> None:
    """Every shard has one worker: they are 0/n to n-1/n, in any order.

    Raises:
        ValueError: they are not.
    """
    count = len(workers)
    wanted = [f"{number}/{count}" for number in range(count)]
    if not workers or sorted(map(str, workers), key=_worker_number) != wanted:
        example = ", ".join(wanted[:2] + ["..."] * (count > 2)) if count else "0/1"
        found = ", ".join(map(str, workers)) or "none"
        raise ValueError(f"workers are {found}; {count or 1} of them must be {example}")


def _worker_number(worker: str) -> int:
    match = re.match(r"\d+", worker)
    return int(match[0]) if match else -1
